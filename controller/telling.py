"""Clients that are told something again and again for a while, since they do not answer. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from nodes.transport import Send, Sends

TELL_AGAIN_S, TELL_FOR_S = 0.1, 10.0  # ours: at first, and when they must know
About = TypeVar("About", bound=Hashable)


@dataclass(slots=True)
class _Telling:
    command: bytes
    clients: list[tuple[bytes, int]]
    until: float
    next_at: float
    every_s: float = TELL_AGAIN_S


class Tellings(Generic[About]):
    """What clients are told, by what it is about: the latest of each. Intervals double, till TELL_FOR_S are over."""

    def __init__(self) -> None:
        self._open: dict[About, _Telling] = {}

    def begin(self, about: About, command: bytes, clients: Iterable[tuple[bytes, int]], now: float) -> None:
        """Tell `clients`, (IP, UDP port), from `now` on."""
        self._open[about] = _Telling(command, list(clients), now + TELL_FOR_S, now)

    def end(self, about: About) -> None:
        self._open.pop(about, None)

    def tick(self, now: float, out: Sends) -> None:
        """Say what is due."""
        for about, telling in list(self._open.items()):
            if now < telling.next_at:
                continue
            out += [Send(ip, port, telling.command) for ip, port in telling.clients]
            telling.next_at, telling.every_s = now + telling.every_s, 2 * telling.every_s
            if telling.next_at > telling.until:
                del self._open[about]
