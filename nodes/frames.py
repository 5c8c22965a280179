"""Ethernet, ARP, IPv4, ICMP echo and UDP as bytes, for a stack of our own.

Frames are whole Ethernet frames without FCS. Addresses are packed bytes here: a SmartNIC compares them once
per frame and never prints them. Sources: RFC 791 (IPv4), RFC 768 (UDP), RFC 792 (ICMP), RFC 826 (ARP),
RFC 1071 (checksum).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
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
UDP_FRAME_BYTES = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES  # what frames a UDP payload
MIN_IPV4_FRAME = ETHERNET_BYTES + IPV4_BYTES
ADDRESSES = ETHERNET_BYTES + 12  # where the source's stands, and after it the destination's

ARP_REQUEST = 1
ARP_REPLY = 2
_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ARP_FIXED = (1, 0x0800, 6, 4)
ARP_FRAME_BYTES = ETHERNET_BYTES + _ARP.size

_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV4_READ = struct.Struct(">BxHxxHxBxx4s")
_UDP = struct.Struct(">HHHH")
_IPV4_UDP = struct.Struct(">BBHHHBBH4s4sHHHH")
_U16 = struct.Struct(">H")
_DONT_FRAGMENT = 0x4000
_IPV4_CONSTANT = 0x4500 + _DONT_FRAGMENT + (DEFAULT_TTL << 8)  # the words of every header that we send, added up


def packed_mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed_ip(text: str) -> bytes:
    return IPv4Address(text).packed


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


def parse_ipv4(frame: bytes) -> tuple[bytes, int, int, int]:
    """Read and check the IPv4 packet in `frame`; raises WireError for anything a stack must not accept.

    Returns source, protocol, and where its body starts and ends in `frame`.
    """
    got = len(frame)
    if got < MIN_IPV4_FRAME:
        raise WireError(f"IPv4 frame: got {got} bytes, {MIN_IPV4_FRAME} needed at least")
    version_ihl, total, fragment, protocol, source = _IPV4_READ.unpack_from(frame, ETHERNET_BYTES)
    header = (version_ihl & 0xF) * 4
    if version_ihl >> 4 != 4 or header < IPV4_BYTES:
        raise WireError(f"IPv4 frame: version {version_ihl >> 4}, header of {header} bytes")
    start, end = ETHERNET_BYTES + header, ETHERNET_BYTES + total
    if end < start or end > got:
        raise WireError(f"IPv4 frame: total length {total}, header of {header}, {got - ETHERNET_BYTES} bytes there")
    if fragment & 0x3FFF:
        raise WireError("IPv4 frame: a fragment; fragments are not reassembled here")
    if int.from_bytes(frame[ETHERNET_BYTES:start], "big") % 0xFFFF:
        raise WireError("IPv4 frame: wrong header checksum")
    return source, protocol, start, end


def ipv4_frame(ethernet: bytes, source: bytes, destination: bytes, protocol: int, ident: int, body: bytes) -> bytes:
    """Return a frame: `ethernet` (the 14 header bytes), an IPv4 header without options, and `body`."""
    total = IPV4_BYTES + len(body)
    check = (_IPV4_CONSTANT + protocol + total + ident + int.from_bytes(source + destination, "big")) % 0xFFFF
    return ethernet + _IPV4.pack(0x45, 0, total, ident, _DONT_FRAGMENT, DEFAULT_TTL, protocol, 0xFFFF - check,
                                 source, destination) + body


def udp_frame(ethernet: bytes, source: bytes, destination: bytes, source_port: int, destination_port: int,
              ident: int, payload: bytes) -> bytes:
    """Return a frame: `ethernet` (the 14 header bytes), IPv4 and UDP headers with their checksums, `payload`.

    Both headers are packed at once: this is the last step of every answer of every microservice.
    """
    size = UDP_BYTES + len(payload)
    addresses = int.from_bytes(source + destination, "big")
    total = IPV4_BYTES + size
    check = (_IPV4_CONSTANT + PROTOCOL_UDP + total + ident + addresses) % 0xFFFF
    udp_check = (addresses + PROTOCOL_UDP + size + size + source_port + destination_port
                 + ones_complement_sum(payload)) % 0xFFFF
    return ethernet + _IPV4_UDP.pack(0x45, 0, total, ident, _DONT_FRAGMENT, DEFAULT_TTL, PROTOCOL_UDP, 0xFFFF - check,
                                     source, destination, source_port, destination_port, size,
                                     0xFFFF - udp_check) + payload


def parse_udp(frame: bytes, start: int, end: int) -> tuple[int, int, bytes]:
    """Return source port, destination port and payload of the datagram in `frame[start:end]`, an IPv4 packet's body.

    Raises WireError. A checksum of 0 means none was sent.
    """
    if end - start < UDP_BYTES:
        raise WireError(f"UDP: got {end - start} bytes, {UDP_BYTES} needed at least")
    source_port, destination_port, size, check = _UDP.unpack_from(frame, start)
    if size < UDP_BYTES or size > end - start:
        raise WireError(f"UDP: length field says {size}, {end - start} bytes are there")
    stop = start + size
    if check:
        # The addresses, which the checksum covers too, stand just before the datagram unless there are options.
        covered = frame[ADDRESSES:stop]
        if start != MIN_IPV4_FRAME:
            covered = frame[ADDRESSES:MIN_IPV4_FRAME] + frame[start:stop]
        if (PROTOCOL_UDP + size + ones_complement_sum(covered)) % 0xFFFF:
            raise WireError("UDP: wrong checksum")
    return source_port, destination_port, frame[start + UDP_BYTES:stop]


def udp_echo_frame(ethernet: bytes, source: bytes, destination: bytes, ident: int, datagram: bytes) -> bytes:
    """Return the frame that sends `datagram` (UDP header and payload) back, from `source` to `destination`.

    Addresses and ports only change places, so the checksum stays what it was (RFC 1624: no word changes).
    """
    return ipv4_frame(ethernet, source, destination, PROTOCOL_UDP, ident,
                      datagram[2:4] + datagram[:2] + datagram[4:])


def icmp_echo_reply(body: bytes) -> bytes:
    """Return the ICMP body that answers the echo request `body`; raises WireError if it is none."""
    if len(body) < 8 or body[0] != 8 or body[1] != 0:
        raise WireError(f"ICMP: type {body[0] if body else None} is no echo request")
    if ones_complement_sum(body):
        raise WireError("ICMP: wrong checksum")
    rest = body[4:]
    return b"\0\0" + _U16.pack(0xFFFF - ones_complement_sum(rest)) + rest
