"""How late things were: a histogram with four buckets to each doubling, cheap enough to fill on every request.

Counts only grow, so two reports differ by what happened between them. Pure; emulated seconds in, nanoseconds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2

import msgspec

BUCKETS_PER_DOUBLING = 4
_SEPARATOR = " below_ns "


class Lateness:
    """Counts of durations by size; what is below 1 ns, early too, counts as none."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def record(self, late_s: float) -> None:
        bucket = int(log2(late_s * 1e9) * BUCKETS_PER_DOUBLING) + 1 if late_s > 1e-9 else 0
        self._counts[bucket] = self._counts.get(bucket, 0) + 1

    def counters(self, name: str) -> dict[str, int]:
        """Return counters for a report: how many were in each bucket, called by `name` and its upper edge in ns."""
        found: dict[str, int] = {}
        for bucket, count in self._counts.items():  # the smallest edges, in whole nanoseconds, are the same number
            edge = f"{name}{_SEPARATOR}{ceil(2 ** (bucket / BUCKETS_PER_DOUBLING))}"
            found[edge] = found.get(edge, 0) + count
        return found


class LatenessSummary(msgspec.Struct, frozen=True):
    """Percentiles, each its bucket's upper edge, rounded up and 19 % too high at most; 0 where nothing was counted."""

    count: int = 0
    p50_ns: int = 0
    p99_ns: int = 0
    max_ns: int = 0


def summary(name: str, after: Mapping[str, int], before: Mapping[str, int] | None = None) -> LatenessSummary:
    """Return what was counted under `name` between two reports of one node, or up to `after`."""
    start = f"{name}{_SEPARATOR}"
    edges = sorted((int(key[len(start):]), count - (before or {}).get(key, 0))
                   for key, count in after.items() if key.startswith(start))
    total = sum(count for _, count in edges)
    if total <= 0:
        return LatenessSummary()

    def at(share: float) -> int:
        left = share * total
        for edge, count in edges:
            left -= count
            if left <= 0:
                return 0 if edge <= 1 else edge
        return edges[-1][0]

    return LatenessSummary(total, at(0.5), at(0.99), at(1.0))
