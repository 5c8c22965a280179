"""The NIC's packet queue: finite, first come first served, with its depth and drops on record.

The traffic manager is the hardware block between the MAC ports and the agent (section 3, Figure 4-b). Its
queue depth and throughput are what overload detection looks at (section 3.4).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

DEFAULT_CAPACITY_FRAMES = 4096  # ours: the paper gives no queue size


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """`enqueued` and `dropped` count frames, `bytes` what was enqueued, `deepest` the longest queue so far."""

    depth: int
    deepest: int
    enqueued: int
    dropped: int
    bytes: int


class TrafficManager:
    """One finite FIFO of (ingress, frame)."""

    __slots__ = ("_bytes", "_deepest", "_dropped", "_enqueued", "_queue", "capacity", "take")

    def __init__(self, capacity: int = DEFAULT_CAPACITY_FRAMES) -> None:
        if capacity < 1:
            raise ValueError(f"a queue of {capacity} frames; the least is 1")
        self.capacity = capacity
        self._queue: deque[tuple[int, bytes]] = deque()
        self._enqueued = self._dropped = self._bytes = self._deepest = 0
        self.take = self._queue.popleft  # returns the oldest (ingress, frame); raises IndexError when there is none

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, ingress: int, frame: bytes) -> bool:
        """Queue `frame`, or count it as dropped where the queue is full; return whether it was queued."""
        queue = self._queue
        depth = len(queue)
        if depth >= self.capacity:
            self._dropped += 1
            return False
        queue.append((ingress, frame))
        self._enqueued += 1
        self._bytes += len(frame)
        if depth >= self._deepest:
            self._deepest = depth + 1
        return True

    def counters(self) -> QueueCounters:
        return QueueCounters(len(self._queue), self._deepest, self._enqueued, self._dropped, self._bytes)
