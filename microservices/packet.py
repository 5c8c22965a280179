"""The inner IPv4 packet that network functions work on: the payload of an NFV request is one, from its header on."""

from __future__ import annotations

import struct
from typing import NamedTuple

from microservices.errors import ServiceError

ICMP, TCP, UDP, ESP = 1, 6, 17, 50
WITH_PORTS = (TCP, UDP)
IPV4_HEADER_BYTES = 20
UDP_HEADER_BYTES = 8
TCP_HEADER_BYTES = 20
FLOW_KEY_BYTES = 13

_WORDS = {size: struct.Struct(f">{size // 2}H") for size in range(20, 64, 4)}
_PORTS = struct.Struct(">HH")
_LENGTHS = struct.Struct(">H2xH")  # total length, identification skipped, flags and fragment offset


class Layers(NamedTuple):
    """Where things stand in an inner packet. Ports are 0 where the packet carries none."""

    protocol: int
    source_port: int
    destination_port: int
    data_offset: int


def flow_key(packet: bytes) -> bytes:
    """Return the flow that a packet belongs to: source, destination (4 bytes each), ports (2 each), protocol (1).

    Takes any bytes, since senders route by it: what is too short to be a packet is its own key. Only a first fragment
    carries ports, so all fragments of a datagram share the key without ports.
    """
    if len(packet) < IPV4_HEADER_BYTES:
        return packet
    start = (packet[0] & 15) * 4
    if packet[9] in WITH_PORTS and not (packet[6] & 0x3F or packet[7]):
        return b"%b%b%c" % (packet[12:20], packet[start:start + 4], packet[9])
    return b"%b\0\0\0\0%c" % (packet[12:20], packet[9])


def layers(packet: bytes) -> Layers:
    """Check an inner packet's headers and say where its data starts; raises ServiceError on a malformed one."""
    size = len(packet)
    if size < IPV4_HEADER_BYTES:
        raise ServiceError(f"inner packet of {size} bytes; an IPv4 header has {IPV4_HEADER_BYTES} at least")
    header_bytes = (packet[0] & 15) * 4
    if packet[0] >> 4 != 4 or not IPV4_HEADER_BYTES <= header_bytes <= size:
        raise ServiceError(f"inner packet starts 0x{packet[0]:02X}; expected IPv4 and a header within {size} bytes")
    total, fragment = _LENGTHS.unpack_from(packet, 2)
    if total != size:
        raise ServiceError(f"inner packet's length field says {total}, it has {size} bytes")
    # The header as one number has the same remainder as the sum of its 16-bit words, for 0x10000 % 0xFFFF is 1.
    if int.from_bytes(packet[:header_bytes], "big") % 0xFFFF:
        raise ServiceError("inner packet's header checksum is wrong")
    protocol = packet[9]
    if protocol not in WITH_PORTS or fragment & 0x3FFF:
        return Layers(protocol, 0, 0, header_bytes)
    if protocol == UDP:
        data = header_bytes + UDP_HEADER_BYTES
    else:
        if size < header_bytes + TCP_HEADER_BYTES:
            raise ServiceError(f"inner packet: TCP header cut off at {size - header_bytes} bytes")
        data = header_bytes + (packet[header_bytes + 12] >> 4) * 4
        if data < header_bytes + TCP_HEADER_BYTES:
            raise ServiceError(f"inner packet: TCP header of {data - header_bytes} bytes")
    if data > size:
        raise ServiceError(f"inner packet: transport header ends at {data}, the packet at {size}")
    source_port, destination_port = _PORTS.unpack_from(packet, header_bytes)
    return Layers(protocol, source_port, destination_port, data)


def header_checksum(header: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of a header whose checksum field is 0."""
    folded = sum(_WORDS[len(header)].unpack(header)) % 0xFFFF
    # The one's complement sum of a header is never 0, so a remainder of 0 stands for 0xFFFF.
    return 0xFFFF - folded if folded else 0
