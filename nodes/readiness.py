"""Waits for sockets to the microsecond: epoll alone rounds its timeout up to whole milliseconds."""

from __future__ import annotations

import select
from typing import Protocol

FEW = 8  # so many descriptors are looked at by one call of select; more are left to epoll


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Readiness:
    """Which of the registered descriptors can be read."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._itself = [self._poll.fileno()]
        self._descriptors: list[int] = []

    def register(self, readable: _HasDescriptor) -> None:
        self._poll.register(readable, select.EPOLLIN)
        self._descriptors.append(readable.fileno())

    def wait(self, timeout_s: float) -> list[int]:
        """Return the descriptors that can be read now, or as soon as one can be, or none after `timeout_s`."""
        if len(self._descriptors) <= FEW:
            return select.select(self._descriptors, (), (), max(0.0, timeout_s))[0]
        ready = self._poll.poll(0)
        if not ready and timeout_s > 0:
            # An epoll descriptor is readable when one of its own is, and select counts in microseconds.
            select.select(self._itself, (), (), timeout_s)
            ready = self._poll.poll(0)
        return [descriptor for descriptor, _ in ready]
