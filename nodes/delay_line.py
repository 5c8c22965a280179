"""Holds what has really arrived until it would have arrived: the time that its way takes, in emulated seconds.

Pure. A channel's messages stay in order, whatever their ways take.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from nodes.messages import ChannelId

Held = TypeVar("Held")


class DelayLine(Generic[Held]):
    """Things by the time at which they count as arrived."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Held]] = []
        self._order = itertools.count()
        self._last: dict[ChannelId, float] = {}

    def arrival_of(self, channel: ChannelId, now: float, rest_s: float) -> float:
        """Return when what came by `channel` at `now` counts as arrived: in `rest_s`, and behind what came before."""
        arrival = now + rest_s if rest_s > 0.0 else now
        last = self._last.get(channel, 0.0)
        if last > arrival:
            return last
        if arrival > now:
            self._last[channel] = arrival
        return arrival

    def put(self, arrival: float, held: Held) -> None:
        heapq.heappush(self._heap, (arrival, next(self._order), held))

    def due_by(self, now: float) -> Iterator[tuple[float, Held]]:
        """Yield what counts as arrived by `now`, with its time of arrival, in order."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            arrival, _, held = heapq.heappop(heap)
            yield arrival, held

    def take(self, wanted: Callable[[Held], bool]) -> list[tuple[float, Held]]:
        """Take out what is `wanted`, with its times of arrival, in order."""
        taken = sorted(entry for entry in self._heap if wanted(entry[2]))
        orders = {order for _, order, _ in taken}
        self._heap = [entry for entry in self._heap if entry[1] not in orders]
        heapq.heapify(self._heap)
        return [(arrival, held) for arrival, _, held in taken]

    def count(self, wanted: Callable[[Held], bool]) -> int:
        """Return how much of what is held is `wanted`."""
        return sum(1 for _, _, held in self._heap if wanted(held))

    def is_clear(self, channel: ChannelId, now: float) -> bool:
        """Whether all that came by `channel` has arrived."""
        return self._last.get(channel, now) <= now

    def due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    @property
    def empty(self) -> bool:
        return not self._heap
