"""Count: how often each item was seen, and how many distinct items there are, the latter from a bitmap.

Distinct items come by linear counting (Whang, Vander-Zanden, Taylor, ACM TODS 15, 1990): each slot has a bitmap of
BITS bits, an item sets the bit that its hash names, and of a slot with z bits still 0 about -BITS * ln(z / BITS) items
were seen.
"""

from __future__ import annotations

from hashlib import blake2b
from math import log

from microservices.records import Record, RecordService
from microservices.reliable import Array, Hashtable
from microservices.service import Accelerator
from microservices.sharding import SLOTS, slot_of
from microservices.state import State

BITS = 1024
_BYTES = BITS // 8


class Count(RecordService):
    """Adds how often the record's key has been seen, this time included."""

    name = "count"
    memory_mb = 16
    stateful = True
    accelerators = frozenset({Accelerator.FETCH_AND_ADD})

    def new_state(self) -> State:
        return State(arrays={"bitmap": Array("B", SLOTS * _BYTES)}, hashtables={"seen": Hashtable(str, int)})

    def answer(self, record: Record, state: State, now_s: float) -> int:
        seen = state.hashtables["seen"]
        times: int = seen.get(record.key, 0) + 1
        seen[record.key] = times
        if times == 1:
            item = record.key.encode()
            bit = int.from_bytes(blake2b(item, digest_size=2, person=b"count").digest(), "big") % BITS
            byte = slot_of(item) * _BYTES + bit // 8
            bitmap = state.arrays["bitmap"]
            bitmap[byte] |= 1 << bit % 8
        return times


def distinct_items(state: State) -> float:
    """Estimate how many distinct items the state has seen, from its bitmaps alone; infinite if one is full."""
    bitmap = state.arrays["bitmap"].view()
    total = 0.0
    for slot in range(SLOTS):
        zeros = BITS - int.from_bytes(bitmap[slot * _BYTES:(slot + 1) * _BYTES], "big").bit_count()
        total += -BITS * log(zeros / BITS) if zeros else float("inf")
    return total
