"""Waits for sockets to the microsecond: epoll alone rounds its timeout up to whole milliseconds."""

from __future__ import annotations

import select
import time
from typing import Protocol

FEW = 8  # so many descriptors are looked at by one call of select; more are left to epoll
# Who plays in emulated time looks around no more often than this, in emulated seconds, and takes all that has come
# meanwhile at once. Every message's way takes longer, and that hides it: a message counts as arrived when its way is
# over, however early it is really there.
REST_S = 0.7e-6
LEAST_REST_REAL_S = 20e-6  # a sleep costs about as much


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


def rest_at(time_scale: float) -> float:
    """Return how long to rest between two looks, in real seconds; 0 where it is not worth it."""
    rest_s = REST_S * time_scale
    return rest_s if rest_s >= LEAST_REST_REAL_S else 0.0


class Readiness:
    """Which of the registered descriptors can be read. Between two waits lie `rest_s` real seconds at least.

    Who is not `fine` waits in whole milliseconds, which costs less.
    """

    def __init__(self, rest_s: float = 0.0, fine: bool = True) -> None:
        self._poll = select.epoll()
        self._itself = [self._poll.fileno()]
        self._descriptors: list[int] = []
        self._rest_s = rest_s
        self._fine = fine
        self._looked_at = 0.0

    def register(self, readable: _HasDescriptor) -> None:
        self._poll.register(readable, select.EPOLLIN)
        self._descriptors.append(readable.fileno())

    def wait(self, timeout_s: float) -> list[int]:
        """Return the descriptors that can be read now, or as soon as one can be, or none after `timeout_s`."""
        if self._rest_s:
            rest_s = self._looked_at + self._rest_s - time.monotonic()
            if rest_s > 0.0:
                time.sleep(rest_s)
                timeout_s -= rest_s
            ready = self._wait(timeout_s)
            self._looked_at = time.monotonic()
            return ready
        return self._wait(timeout_s)

    def _wait(self, timeout_s: float) -> list[int]:
        if not self._fine:
            return [descriptor for descriptor, _ in self._poll.poll(max(0.0, timeout_s))]
        if len(self._descriptors) <= FEW:
            return select.select(self._descriptors, (), (), max(0.0, timeout_s))[0]
        ready = self._poll.poll(0)
        if not ready and timeout_s > 0:
            # An epoll descriptor is readable when one of its own is, and select counts in microseconds.
            select.select(self._itself, (), (), timeout_s)
            ready = self._poll.poll(0)
        return [descriptor for descriptor, _ in ready]
