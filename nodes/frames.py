"""Ethernet, ARP, IPv4, ICMP echo and UDP as bytes, for a stack of our own.

Frames are whole Ethernet frames without FCS. Addresses are packed bytes here: a SmartNIC compares them once
per frame and never prints them. Sources: RFC 791 (IPv4), RFC 768 (UDP), RFC 792 (ICMP), RFC 826 (ARP),
RFC 1071 (checksum).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from nodes.errors import WireError

ETHERTYPE_IPV4 = b"\x08\x00"
ETHERTYPE_ARP = b"\x08\x06"
ETHERTYPE_SLOW = b"\x88\x09"
BROADCAST_MAC = b"\xff" * 6
ZERO_MAC = bytes(6)

PROTOCOL_ICMP = 1
PROTOCOL_UDP = 17
DEFAULT_TTL = 64
ETHERNET_BYTES = 14
IPV4_BYTES = 20
UDP_BYTES = 8
MIN_IPV4_FRAME = ETHERNET_BYTES + IPV4_BYTES

ARP_REQUEST = 1
ARP_REPLY = 2
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ARP_FIXED = (1, 0x0800, 6, 4)
ARP_FRAME_BYTES = ETHERNET_BYTES + _ARP.size

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_UDP = struct.Struct(">HHHH")
_U16 = struct.Struct(">H")
_DONT_FRAGMENT = 0x4000


def ones_complement_sum(data: bytes) -> int:
    """Return the 16-bit one's complement sum of `data` modulo 65535 (RFC 1071).

    A big-endian integer modulo 65535 is the sum of its 16-bit digits, since 65536 = 1 (mod 65535); the
    whole buffer is one multiplication-free pass in C.
    """
    value = int.from_bytes(data, "big")
    if len(data) & 1:
        value <<= 8
    return value % 0xFFFF


class Arp(NamedTuple):
    """An ARP packet for IPv4 over Ethernet."""

    operation: int
    sender_mac: bytes
    sender_ip: bytes
    target_mac: bytes
    target_ip: bytes

    def frame(self, source_mac: bytes, destination_mac: bytes) -> bytes:
        return destination_mac + source_mac + ETHERTYPE_ARP + _ARP.pack(
            *_ARP_FIXED, self.operation, self.sender_mac, self.sender_ip, self.target_mac, self.target_ip)


def parse_arp(frame: bytes) -> Arp:
    """Read the ARP packet in `frame`; raises WireError if it is none for IPv4 over Ethernet."""
    if len(frame) < ARP_FRAME_BYTES:
        raise WireError(f"ARP frame: got {len(frame)} bytes, {ARP_FRAME_BYTES} needed at least")
    *fixed, operation, sender_mac, sender_ip, target_mac, target_ip = _ARP.unpack_from(frame, ETHERNET_BYTES)
    if tuple(fixed) != _ARP_FIXED:
        raise WireError(f"ARP frame: hardware, protocol and lengths are {fixed}; expected {list(_ARP_FIXED)}")
    return Arp(operation, sender_mac, sender_ip, target_mac, target_ip)


class Packet(NamedTuple):
    """An IPv4 packet addressed to this node: `body` is what follows the IP header."""

    source: bytes
    destination: bytes
    protocol: int
    ttl: int
    body: bytes


def parse_ipv4(frame: bytes) -> Packet:
    """Read and check the IPv4 packet in `frame`; raises WireError for anything a stack must not accept."""
    got = len(frame)
    if got < MIN_IPV4_FRAME:
        raise WireError(f"IPv4 frame: got {got} bytes, {MIN_IPV4_FRAME} needed at least")
    version_ihl, _, total, _, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(
        frame, ETHERNET_BYTES)
    header = (version_ihl & 0xF) * 4
    if version_ihl >> 4 != 4 or header < IPV4_BYTES:
        raise WireError(f"IPv4 frame: version {version_ihl >> 4}, header of {header} bytes")
    if total < header or ETHERNET_BYTES + total > got:
        raise WireError(f"IPv4 frame: total length {total}, header of {header}, {got - ETHERNET_BYTES} bytes there")
    if fragment & 0x3FFF:
        raise WireError("IPv4 frame: a fragment; fragments are not reassembled here")
    if ones_complement_sum(frame[ETHERNET_BYTES:ETHERNET_BYTES + header]):
        raise WireError("IPv4 frame: wrong header checksum")
    return Packet(source, destination, protocol, ttl, frame[ETHERNET_BYTES + header:ETHERNET_BYTES + total])


def ipv4_frame(ethernet: bytes, source: bytes, destination: bytes, protocol: int, ident: int, body: bytes) -> bytes:
    """Return a frame: `ethernet` (the 14 header bytes), an IPv4 header without options, and `body`."""
    total = IPV4_BYTES + len(body)
    # The constant words of the header (version, don't-fragment, TTL and protocol) add up to the first term.
    check = (0x4500 + _DONT_FRAGMENT + (DEFAULT_TTL << 8) + protocol + total + ident
             + int.from_bytes(source + destination, "big")) % 0xFFFF
    return ethernet + _IPV4.pack(0x45, 0, total, ident, _DONT_FRAGMENT, DEFAULT_TTL, protocol, 0xFFFF - check,
                                 source, destination) + body


def udp_body(source: bytes, destination: bytes, source_port: int, destination_port: int, payload: bytes) -> bytes:
    """Return a UDP header with its checksum, and `payload`."""
    size = UDP_BYTES + len(payload)
    check = (int.from_bytes(source + destination, "big") + PROTOCOL_UDP + size + source_port + destination_port
             + size + ones_complement_sum(payload)) % 0xFFFF
    return _UDP.pack(source_port, destination_port, size, 0xFFFF - check) + payload


def parse_udp(packet: Packet) -> tuple[int, int, bytes]:
    """Return source port, destination port and payload; raises WireError. A checksum of 0 means none was sent."""
    body = packet.body
    if len(body) < UDP_BYTES:
        raise WireError(f"UDP: got {len(body)} bytes, {UDP_BYTES} needed at least")
    source_port, destination_port, size, check = _UDP.unpack_from(body)
    if size < UDP_BYTES or size > len(body):
        raise WireError(f"UDP: length field says {size}, {len(body)} bytes are there")
    if size != len(body):
        body = body[:size]
    if check:
        pseudo = int.from_bytes(packet.source + packet.destination, "big") + PROTOCOL_UDP + size
        if (pseudo + ones_complement_sum(body)) % 0xFFFF:
            raise WireError("UDP: wrong checksum")
    return source_port, destination_port, body[UDP_BYTES:]


def icmp_echo_reply(packet: Packet) -> bytes:
    """Return the ICMP body that answers the echo request in `packet`; raises WireError if it is none."""
    body = packet.body
    if len(body) < 8 or body[0] != 8 or body[1] != 0:
        raise WireError(f"ICMP: type {body[0] if body else None} is no echo request")
    if ones_complement_sum(body):
        raise WireError("ICMP: wrong checksum")
    rest = body[4:]
    return b"\0\0" + _U16.pack(0xFFFF - ones_complement_sum(rest)) + rest
