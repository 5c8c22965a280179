"""DDoS detection by entropy: a flood towards few destinations shows in how its source addresses are spread.

After Feinstein et al. ("Statistical approaches to DDoS attack detection and response", DISCEX 2003): over each window
of WINDOW packets the Shannon entropy of the source addresses is taken and held against what is usual. Packets are
sharded by destination; each slot has windows of its own, and hashes sources into BINS bins so that its memory is
bounded. A window is suspicious if its entropy leaves the moving average of the unsuspicious ones by more than
`threshold` bits: upwards for a flood of forged sources, downwards for one of few sources. The detector passes all
packets on; it is asked by a query.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import log2
from typing import NamedTuple
from zlib import crc32

from microservices.errors import ServiceError
from microservices.packet import layers
from microservices.reliable import Array
from microservices.service import REPLY, Microservice, Output, Request
from microservices.sharding import SLOTS, slot_of
from microservices.state import State

WINDOW = 256
BINS = 64
ALPHA = 0.1  # weight of a new window in the usual entropy (ours)

# A request that starts so is no packet but a question: "D" and a destination address.
QUERY = b"D"
_ANSWER = struct.Struct(">QQdd?")
# c * log2(c) for every count that a window can hold.
_C_LOG_C = [0.0] + [c * log2(c) for c in range(1, WINDOW + 1)]


class Verdict(NamedTuple):
    """What is known of a destination's slot: windows seen and suspicious ones among them, the last window's entropy
    and the usual one in bits (0 before there is one), and whether the last window was suspicious."""

    windows: int
    suspicious_windows: int
    entropy_bits: float
    usual_bits: float
    suspicious: bool


class Ddos(Microservice):
    """Packets in, the same packets out. `threshold_bits` is ours, as the windows and bins are."""

    name = "ddos"
    memory_mb = 16
    stateful = True

    def __init__(self, threshold_bits: float = 1.0) -> None:
        if threshold_bits <= 0.0:
            raise ServiceError(f"threshold of {threshold_bits} bits; it must be above 0")
        self.threshold_bits = threshold_bits

    def new_state(self) -> State:
        return State(arrays={
            "bins": Array("H", SLOTS * BINS),  # packets of the running window by source bin
            "packets": Array("Q", SLOTS),  # packets ever seen
            "windows": Array("Q", SLOTS), "suspicious_windows": Array("Q", SLOTS), "suspicious": Array("B", SLOTS),
            "entropy_bits": Array("d", SLOTS), "usual_bits": Array("d", SLOTS)})

    def key_of(self, payload: bytes) -> bytes:
        return payload[1:5] if payload[:1] == QUERY else payload[16:20]

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        packet = request.payload
        if packet[:1] == QUERY:
            if len(packet) != 5:
                raise ServiceError(f"DDoS query of {len(packet)} bytes; it has 5")
            return (Output(_ANSWER.pack(*verdict(state, packet[1:5])), REPLY),)
        layers(packet)
        slot = slot_of(packet[16:20])
        arrays = state.arrays
        arrays["bins"].add(slot * BINS + source_bin(packet[12:16]), 1)
        if arrays["packets"].add(slot, 1) % WINDOW == 0:
            self._close_window(state, slot)
        return (Output(packet),)

    def _close_window(self, state: State, slot: int) -> None:
        arrays = state.arrays
        bins = arrays["bins"]
        cells = range(slot * BINS, (slot + 1) * BINS)
        entropy = log2(WINDOW) - sum([_C_LOG_C[bins[cell]] for cell in cells]) / WINDOW
        for cell in cells:
            bins[cell] = 0
        usual = arrays["usual_bits"][slot]
        first = arrays["windows"].add(slot, 1) == 1
        suspicious = not first and abs(entropy - usual) > self.threshold_bits
        if not suspicious:
            arrays["usual_bits"][slot] = entropy if first else ALPHA * entropy + (1.0 - ALPHA) * usual
        arrays["suspicious"][slot] = suspicious
        arrays["suspicious_windows"].add(slot, int(suspicious))
        arrays["entropy_bits"][slot] = entropy


def verdict(state: State, destination: bytes) -> Verdict:
    slot = slot_of(destination)
    a = state.arrays
    return Verdict(a["windows"][slot], a["suspicious_windows"][slot], a["entropy_bits"][slot], a["usual_bits"][slot],
                   bool(a["suspicious"][slot]))


def decode_verdict(reply: bytes) -> Verdict:
    """Read the answer to a query; raises ServiceError."""
    if len(reply) != _ANSWER.size:
        raise ServiceError(f"DDoS verdict: got {len(reply)} bytes, {_ANSWER.size} needed")
    return Verdict(*_ANSWER.unpack(reply))


def source_bin(address: bytes) -> int:
    return (crc32(address) * 0x9E3779B1 >> 26) & BINS - 1
