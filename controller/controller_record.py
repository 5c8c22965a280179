"""What a resource controller has done, for who wants to look: events, and the timelines of migrations."""

from __future__ import annotations

from collections import deque

from controller.controller_events import ControllerEvent
from controller.migration_steps import Happening, Migration
from controller.timeline import Timeline
from controller.whereabouts import Key, Whereabouts

MOST_EVENTS = 10_000  # kept; older ones are forgotten


class ControllerRecord:
    """Events as they happen, and a timeline of each migration by its number."""

    def __init__(self, where: Whereabouts) -> None:
        self.events: deque[ControllerEvent] = deque(maxlen=MOST_EVENTS)
        self.timelines: dict[int, Timeline] = {}
        self.alarm_s: dict[Key, float] = {}  # of what a detector is about to move: when its heartbeat was due
        self._where = where
        self._sequence = 0

    def tell(self, now: float, what: str, node: str = "", instance: str = "", migration: int = 0,
             detail: str = "") -> None:
        self._sequence += 1
        self.events.append(ControllerEvent(self._sequence, now, what, node, instance, migration, detail))

    def happened(self, happening: Happening, m: Migration, why: str) -> None:
        """Take down a step of migration `m`, which began because of `why`."""
        line = self.timelines.get(m.number)
        if line is None:
            line = self.timelines[m.number] = Timeline(m.number, self._where.name_of(m.key), m.source, m.destination,
                                                       why)
            alarm_s = self.alarm_s.pop(m.key, None)
            if alarm_s is not None:
                line.at["alarm"] = alarm_s
        line.note(happening, m)
        self.tell(happening.now_s, happening.what, m.owner or m.source, line.instance, m.number, happening.detail)

    def cut_off(self, migration: int) -> None:
        """Take down that a migration ended with its application, which was withdrawn."""
        line = self.timelines.get(migration)
        if line is not None:
            line.outcome = "withdrawn"

    def lost(self, migration: int) -> None:
        """Take down that a migration was given up for another one, since nobody is left who could end it."""
        line = self.timelines.get(migration)
        if line is not None:
            line.outcome = "lost"
