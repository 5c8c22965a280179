"""What one captured Ethernet frame says: its kind, its flow, and an identity that stays the same at every hop.

Slices in place of packet objects: this runs once per captured packet, and a proof reads a million of them.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import NamedTuple

ETHERNET_BYTES = 14
UDP, TCP, ICMP = 17, 6, 1
_IPV4 = b"\x08\x00"
_KINDS = {b"\x08\x06": "ARP", b"\x88\x09": "LACP", b"\x86\xdd": "IPv6"}
_PROTOCOLS = {UDP: "UDP", TCP: "TCP", ICMP: "ICMP"}
_FRAGMENT_OFFSET = 0x1FFF
_FRAGMENTED = 0x3FFF  # more fragments, or an offset


class Ipv4Fields(NamedTuple):
    """An IPv4 packet. `flow` is source, destination, protocol and, where there are, the two layer-4 ports.

    `identity` is a 64-bit hash of what no hop changes: source, destination, protocol, identification, fragment
    field, and every byte after the IP header. TTL, header checksum and MACs are what hops change.
    """

    identity: int
    flow: bytes
    ttl: int
    payload_start: int  # of what IP carries
    end: int  # of the packet in its frame: Ethernet may pad it
    fragment: bool


def ipv4_of(frame: bytes) -> tuple[int, bytes, int, int, int, bool] | None:
    """Return what `Ipv4Fields` describes, or None if `frame` is no whole IPv4 packet."""
    if frame[12:14] != _IPV4 or len(frame) < 34:
        return None
    first = frame[14]
    start = ETHERNET_BYTES + 4 * (first & 15)
    end = ETHERNET_BYTES + (frame[16] << 8) + frame[17]
    if first >> 4 != 4 or start < 34 or end > len(frame) or start > end:
        return None
    protocol = frame[23]
    where = (frame[20] << 8) + frame[21]
    flow = frame[26:34] + frame[23:24]
    if protocol in (UDP, TCP) and not where & _FRAGMENT_OFFSET:
        if end - start < 8:
            return None
        flow += frame[start:start + 4]
    identity = hash(frame[18:22] + frame[23:24] + frame[26:34] + frame[start:end])
    return identity, flow, frame[22], start, end, where & _FRAGMENTED != 0


def kind_of(frame: bytes) -> str:
    """Return the kind of a frame that `ipv4_of` does not read."""
    if len(frame) < ETHERNET_BYTES or frame[12:14] == _IPV4:
        return "malformed"
    return _KINDS.get(frame[12:14], "other")


def protocol_name(flow: bytes) -> str:
    return _PROTOCOLS.get(flow[8], f"protocol {flow[8]}")


def ports_of(flow: bytes) -> tuple[int, int]:
    """Return source and destination port of `flow`; (0, 0) where it has none."""
    return int.from_bytes(flow[9:11], "big"), int.from_bytes(flow[11:13], "big")


def flow_text(flow: bytes) -> str:
    """Return "10.1.254.1:5000 > 10.1.1.11:58112 UDP"."""
    source, destination = str(IPv4Address(flow[:4])), str(IPv4Address(flow[4:8]))
    if len(flow) > 9:
        source_port, destination_port = ports_of(flow)
        source, destination = f"{source}:{source_port}", f"{destination}:{destination_port}"
    return f"{source} > {destination} {protocol_name(flow)}"


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
