"""Virtual time: what is to be done when, in order; at one time, in the order in which it was noted."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from nodes.errors import NodeError


class Agenda:
    """Actions by their time in emulated seconds. `done` counts those that were carried out."""

    __slots__ = ("_entries", "_noted", "_stopped", "done", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.done = 0
        self._entries: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._noted = 0
        self._stopped = False

    def at(self, time_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Carry out `action` at `time_s`, or now if that has passed."""
        self._noted = noted = self._noted + 1
        heapq.heappush(self._entries, (time_s, noted, action, arguments))

    def run(self, until_s: float | None = None) -> bool:
        """Let time pass till nothing is left to do, till `until_s`, or till `stop`; return whether something is left.

        Raises NodeError for a time that has passed.
        """
        if until_s is not None and until_s < self.now:
            raise NodeError(f"until {until_s:g} s: it is {self.now:g} s already")
        entries, pop = self._entries, heapq.heappop
        done = self.done
        self._stopped = False
        try:
            while entries and not self._stopped:
                if until_s is not None and entries[0][0] > until_s:
                    break
                time_s, _, action, arguments = pop(entries)
                if time_s > self.now:
                    self.now = time_s
                done += 1
                action(*arguments)
        finally:
            self.done = done
        if until_s is not None and not self._stopped:
            self.now = until_s
        return bool(entries)

    def stop(self) -> None:
        """Let `run` return when the present action is done."""
        self._stopped = True
