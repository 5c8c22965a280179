"""Seeded requests of an application, and the check of its replies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator


class Workload(ABC):
    """Where a client's requests come from. The same seed gives the same requests."""

    @abstractmethod
    def requests(self) -> Iterator[bytes]:
        """Yield payloads without end, the same ones on every call."""

    @abstractmethod
    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        """Return None if `reply` is right for `request`, else what is wrong with it."""

    def check_error(self, request: bytes, error: str) -> str | None:
        """Return None if `request` must be refused with just this error; by default none must be."""
        return error
