"""The virtual cores of a compute node: which is free when, how long they were busy, and how long merely awake.

A core that runs out of work is awake for a while and then asleep; the energy model asks for both. A request starts
when it came and the core that has been idle the longest was free, whenever the driver looked: lateness of a driver
never makes a core late. That core is the next in turn, too: round robin that waits beside no idle core (section 3).
"""

from __future__ import annotations

import heapq

NEVER = float("-inf")


class Cores:
    """`count` cores, each asleep when idle for longer than `sleep_after_s` emulated seconds."""

    __slots__ = ("_free", "_sleep_after_s", "busy_s", "count", "lull_s")

    def __init__(self, count: int, sleep_after_s: float = 0.0) -> None:
        self.count = count
        self._free: list[tuple[float, int]] = [(NEVER, core) for core in range(count)]
        self._sleep_after_s = sleep_after_s
        self.busy_s: dict[str, float] = {}  # by microservice
        self.lull_s: dict[str, float] = {}  # awake without work, before a request of that microservice

    def is_idle(self, now: float) -> bool:
        """Whether some core has nothing to do at `now`."""
        return self._free[0][0] <= now

    @property
    def next_free_at(self) -> float:
        """When the next core in turn is, or was, done with its last request."""
        return self._free[0][0]

    def occupy(self, service: str, ready: float, busy_s: float) -> tuple[float, float]:
        """Give the next core a request of `service` that can start at `ready`; return its start and finish."""
        free, core = self._free[0]
        start = free if free > ready else ready
        finish = start + busy_s
        heapq.heapreplace(self._free, (finish, core))
        self.busy_s[service] = self.busy_s.get(service, 0.0) + busy_s
        gap = start - free
        if gap > 0.0 and free != NEVER:
            awake = gap if gap < self._sleep_after_s else self._sleep_after_s
            self.lull_s[service] = self.lull_s.get(service, 0.0) + awake
        return start, finish

    def note_busy(self, service: str, busy_s: float) -> None:
        """Account for a request that was measured rather than paced."""
        self.busy_s[service] = self.busy_s.get(service, 0.0) + busy_s

    @property
    def free_at(self) -> tuple[float, ...]:
        """When each core is, or was, done with its last request; NEVER for one that had none."""
        return tuple(free for free, _ in sorted(self._free, key=lambda entry: entry[1]))

    def counters(self) -> dict[str, int]:
        return {**{f"busy_ns {name}": round(s * 1e9) for name, s in self.busy_s.items()},
                **{f"lull_ns {name}": round(s * 1e9) for name, s in self.lull_s.items()}}
