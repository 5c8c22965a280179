"""Flow monitor: counts packets per flow in a count-min sketch and passes every packet on.

Cormode and Muthukrishnan, "An improved data stream summary: the count-min sketch", J. Algorithms 55, 2005. Each slot
of the key space has a sketch of its own (DEPTH rows of WIDTH cells), so re-sharding moves whole sketches and stays
exact. For a flow in a slot that has seen N packets:

    true count <= estimate, and estimate <= true count + (e / WIDTH) * N with probability 1 - e^-DEPTH at least.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b
from math import e, exp

from microservices.errors import ServiceError
from microservices.packet import FLOW_KEY_BYTES, flow_key, layers
from microservices.reliable import Array
from microservices.service import REPLY, Accelerator, Microservice, Output, Request
from microservices.sharding import SLOTS, slot_of
from microservices.state import State

DEPTH = 4
WIDTH = 64
CELLS_PER_SLOT = DEPTH * WIDTH
EPSILON = e / WIDTH
DELTA = exp(-DEPTH)

# A request that starts so is no packet but a question: "Q" and a flow key; the answer is estimate and N, 8 bytes each.
QUERY = b"Q"
_ANSWER = struct.Struct(">QQ")
_ROW_HASHES = struct.Struct(">4H")


class FlowMonitor(Microservice):
    """Packets in, the same packets out; the sketch is what it is for."""

    name = "flow_monitor"
    memory_mb = 8
    stateful = True
    accelerators = frozenset({Accelerator.FETCH_AND_ADD})

    def new_state(self) -> State:
        return State(arrays={"sketch": Array("Q", SLOTS * CELLS_PER_SLOT), "packets": Array("Q", SLOTS)})

    def key_of(self, payload: bytes) -> bytes:
        return payload[1:] if payload[:1] == QUERY else flow_key(payload)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        payload = request.payload
        if payload[:1] == QUERY:
            if len(payload) != 1 + FLOW_KEY_BYTES:
                raise ServiceError(f"flow query of {len(payload)} bytes; it has {1 + FLOW_KEY_BYTES}")
            return (Output(_ANSWER.pack(*estimate(state, payload[1:])), REPLY),)
        layers(payload)
        key = flow_key(payload)
        add = state.arrays["sketch"].add
        for cell in cells_of(key):
            add(cell, 1)
        state.arrays["packets"].add(slot_of(key), 1)
        return (Output(payload),)


def estimate(state: State, key: bytes) -> tuple[int, int]:
    """Return (estimated packets of the flow, packets N of its slot); see the module's docstring for the bound."""
    sketch = state.arrays["sketch"]
    return min(sketch[cell] for cell in cells_of(key)), state.arrays["packets"][slot_of(key)]


def cells_of(key: bytes) -> tuple[int, int, int, int]:
    """Return the flow's cell of the sketch in each row.

    CRCs with different seeds would not do: they are linear, so the rows would collide together. BLAKE2 gives four
    independent hashes at once.
    """
    base = slot_of(key) * CELLS_PER_SLOT
    a, b, c, d = _ROW_HASHES.unpack(blake2b(key, digest_size=8, person=b"flow monitor").digest())
    return (base + a % WIDTH, base + WIDTH + b % WIDTH, base + 2 * WIDTH + c % WIDTH, base + 3 * WIDTH + d % WIDTH)
