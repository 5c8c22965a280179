"""NATv4: translates destination addresses by longest prefix match with DIR-24-8-BASIC (paper Table 2).

Gupta, Lin, McKeown, "Routing lookups in hardware at memory access speeds", INFOCOM 1998: one table of 2**24 entries
answers for the first 24 bits of an address; an entry with its top bit set points to 256 more, one for each value of
the last 8 bits. A lookup is one memory access, or two.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from random import Random

from microservices.errors import ServiceError
from microservices.packet import TCP, UDP, flow_key, layers
from microservices.service import Microservice, Output, Request
from microservices.state import State

LONG = 0x8000  # set in an entry of the first table: the other 15 bits name a segment of the second
MAX_MAPPINGS = LONG - 1
_CHECKSUM_OFFSET = {TCP: 16, UDP: 6}


@dataclass(frozen=True, slots=True)
class Mapping:
    """Addresses in `outside` become those in `inside` with the same host bits; both are of one length."""

    outside: IPv4Network
    inside: IPv4Network

    def __post_init__(self) -> None:
        if self.outside.prefixlen != self.inside.prefixlen:
            raise ServiceError(f"mapping {self.outside} -> {self.inside}; both prefixes must be equally long")


class Dir24:
    """Longest prefix match from address (an int) to a value, 1 to 2**15 - 1; 0 where nothing matches."""

    def __init__(self, prefixes: Sequence[tuple[IPv4Network, int]]) -> None:
        # Anonymous memory: pages that no prefix touches cost nothing, though the table spans 32 MB.
        self._first = memoryview(mmap.mmap(-1, 2 * 2**24)).cast("H")
        self._second = bytearray()
        # Shorter prefixes first, so that longer ones overwrite them.
        for network, value in sorted(prefixes, key=lambda entry: entry[0].prefixlen):
            if not 1 <= value < LONG:
                raise ServiceError(f"value {value} for {network}; the limits are 1 and {LONG - 1}")
            self._insert(int(network.network_address), network.prefixlen, value)
        self._long = memoryview(self._second).cast("H") if self._second else memoryview(b"")

    def _insert(self, address: int, length: int, value: int) -> None:
        if length <= 24:
            count = 1 << (24 - length)
            filled = memoryview(value.to_bytes(2, sys.byteorder) * count).cast("H")
            self._first[address >> 8:(address >> 8) + count] = filled
            return
        entry = self._first[address >> 8]
        if entry & LONG:
            segment = entry & ~LONG
        else:
            segment = len(self._second) // 512
            if segment >= LONG:
                raise ServiceError(f"more than {LONG} blocks of 256 addresses hold prefixes longer than 24 bits")
            self._second += entry.to_bytes(2, sys.byteorder) * 256
            self._first[address >> 8] = LONG | segment
        start = 2 * (segment * 256 + (address & 255))
        count = 1 << (32 - length)
        self._second[start:start + 2 * count] = value.to_bytes(2, sys.byteorder) * count

    def lookup(self, address: int) -> int:
        entry = self._first[address >> 8]
        return self._long[(entry & ~LONG) << 8 | address & 255] if entry & LONG else entry


def benchmark_mappings(seed: int = 1, count: int = 1000) -> tuple[Mapping, ...]:
    """Return mappings of 198.19.0.0/16 and `count` - 1 random prefixes in it, /17 to /32, to private addresses (RFC
    1918).

    Ours: the paper does not give its table. 198.19.0.0/16 is where the packets of `nfv_workload` go.
    """
    if not 1 <= count <= MAX_MAPPINGS:
        raise ServiceError(f"{count} mappings; the limits are 1 and {MAX_MAPPINGS}")
    draw = Random(f"mappings {seed}")
    found = {IPv4Network("198.19.0.0/16"): IPv4Network("172.16.0.0/16")}
    while len(found) < count:
        length = draw.randint(17, 32)
        host_bits = 32 - length
        outside = (0xC6130000 | draw.getrandbits(16)) >> host_bits << host_bits
        inside = (0xAC100000 | draw.getrandbits(20)) >> host_bits << host_bits
        found.setdefault(IPv4Network((outside, length)), IPv4Network((inside, length)))
    return tuple(Mapping(outside, inside) for outside, inside in found.items())


class Natv4(Microservice):
    """Packets in, packets with the destination translated out; one that no mapping covers goes on as it is.

    The table is read-only: either made by `benchmark_mappings(seed, mappings)`, or given as pairs of prefixes in
    `table`.
    """

    name = "natv4"
    memory_mb = 64

    def __init__(self, seed: int = 1, mappings: int = 1000, table: Sequence[tuple[str, str]] | None = None) -> None:
        if table is None:
            self.mappings = benchmark_mappings(seed, mappings)
        else:
            try:
                self.mappings = tuple(Mapping(IPv4Network(a), IPv4Network(b)) for a, b in table)
            except ValueError as error:
                raise ServiceError(f"NAT table: {error}") from error
        self._lookup = Dir24([(m.outside, value) for value, m in enumerate(self.mappings, 1)]).lookup
        # For each value the bits to keep and the bits to set; value 0 keeps everything.
        self._rewrites = [(0xFFFFFFFF, 0)] + [(int(m.outside.hostmask), int(m.inside.network_address))
                                              for m in self.mappings]

    def key_of(self, payload: bytes) -> bytes:
        return flow_key(payload)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        packet = request.payload
        found = layers(packet)
        old = int.from_bytes(packet[16:20], "big")
        keep, base = self._rewrites[self._lookup(old)]
        new = old & keep | base
        if new == old:
            return (Output(packet),)
        return (Output(_translated(packet, found.protocol, old, new)),)


def _translated(packet: bytes, protocol: int, old: int, new: int) -> bytes:
    """Return the packet with its destination changed and its checksums updated for that (RFC 1624, equation 3)."""
    out = bytearray(packet)
    out[16:20] = new.to_bytes(4, "big")
    change = (~old >> 16 & 0xFFFF) + (~old & 0xFFFF) + (new >> 16) + (new & 0xFFFF)
    _update(out, 10, change)
    # A later fragment starts with data, where the checksum would be; a first one has it.
    if protocol in _CHECKSUM_OFFSET and not (packet[6] & 0x1F or packet[7]):
        at = (packet[0] & 15) * 4 + _CHECKSUM_OFFSET[protocol]
        if protocol == TCP:
            if at + 2 <= len(out):
                _update(out, at, change)
        elif at + 2 <= len(out) and (out[at] or out[at + 1]):  # UDP's 0 means that there is none
            _update(out, at, change)
            if not (out[at] or out[at + 1]):
                out[at:at + 2] = b"\xff\xff"
    return bytes(out)


def _update(packet: bytearray, at: int, change: int) -> None:
    total = (~(packet[at] << 8 | packet[at + 1]) & 0xFFFF) + change
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", packet, at, ~total & 0xFFFF)
