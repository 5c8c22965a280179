"""The NIC's packet queue: finite, first come first served, with its depth and drops on record.

The traffic manager is the hardware block between the MAC ports and the agent (section 3, Figure 4-b). Its
queue depth and throughput are what overload detection looks at (section 3.4).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

Frame = TypeVar("Frame", bound=Sized)

DEFAULT_CAPACITY_FRAMES = 4096  # ours: the paper gives no queue size
ROUNDING = 1e-6  # of a frame: a clock that reads just the time at which a frame is through must find it through


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """`enqueued` and `dropped` count frames, `bytes` what was enqueued, `deepest` the longest queue so far."""

    depth: int
    deepest: int
    enqueued: int
    dropped: int
    bytes: int


class TrafficManager(Generic[Frame]):
    """One finite FIFO of (ingress, frame); a frame is its bytes or, in a simulation, what stands for them."""

    __slots__ = ("_bytes", "_deepest", "_dropped", "_enqueued", "_least", "_queue", "capacity", "take")

    def __init__(self, capacity: int = DEFAULT_CAPACITY_FRAMES) -> None:
        if capacity < 1:
            raise ValueError(f"a queue of {capacity} frames; the least is 1")
        self.capacity = capacity
        self._queue: deque[tuple[int, Frame]] = deque()
        self._enqueued = self._dropped = self._bytes = self._deepest = 0
        self._least = 0  # fewest frames at the end of any turn since `take_least`
        self.take = self._queue.popleft  # returns the oldest (ingress, frame); raises IndexError when there is none

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, ingress: int, frame: Frame) -> bool:
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

    def note_least(self) -> None:
        """Take note of how long the queue is now. To be called when some of it was worked off."""
        depth = len(self._queue)
        if depth < self._least:
            self._least = depth

    def take_least(self) -> int:
        """Return the least length since this was last asked: the part of the queue that stands (section 3.4)."""
        depth = len(self._queue)
        least = depth if depth < self._least else self._least
        self._least = depth
        return least

    def counters(self) -> QueueCounters:
        return QueueCounters(len(self._queue), self._deepest, self._enqueued, self._dropped, self._bytes)


class FrameClock:
    """When the agent's cores are through with queued frames, in emulated seconds.

    Each frame takes `forward_s`, and longer while memory-intensive microservices run on the SmartNIC, which contend
    with the firmware for cache and memory (section 2.4): `interference` says by how many times at present.
    """

    __slots__ = ("_free_at", "_interference", "forward_s")

    def __init__(self, forward_s: float, interference: Callable[[], float]) -> None:
        self.forward_s = forward_s
        self._interference = interference
        self._free_at = 0.0

    def through_by(self, now: float, waiting: int, queued: int) -> int:
        """Return how many of the first `waiting` frames of `queued` are through by `now`.

        Frames that were found at one look are taken to have come right after the look before.
        """
        frame_s = self.frame_s()
        free_at = self._free_at
        done = min(waiting, int((now - free_at) / frame_s + ROUNDING)) if now > free_at else 0
        free_at += done * frame_s
        self._free_at = max(free_at, now) if done == queued else free_at
        return done

    def due(self) -> float:
        """Return when the first frame that waits is through."""
        return self._free_at + self.frame_s()

    def frame_s(self) -> float:
        return self.forward_s * (1.0 + self._interference())
