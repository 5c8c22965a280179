"""Joins the two sightings of a packet at one switch, where it came in and where it left, in bounded memory.

Sightings need not come in order: two captures of one microsecond may stand either way round. What stays
unmatched is kept for one to two windows of capture time and is then given up: an arrival that never left is
lost; a departure that never came in is a duplicate if the same packet was matched shortly before.

Memory: the arrivals and departures of two windows that found no partner, and the identities (8 bytes each, in
two sets) of the last 2 x REMEMBERED matched packets.
"""

from __future__ import annotations

from typing import NamedTuple

REMEMBERED = 32_768


class Sighting(NamedTuple):
    """A packet seen at a port. `refusal` names the rule that should drop it, if there is one; `again` says that
    the same packet had already been matched when this one left.
    """

    time_ns: int
    port: int
    number: int
    flow: bytes
    ttl: int
    refusal: str = ""
    again: bool = False


class GivenUp(NamedTuple):
    """What a window left without a partner."""

    never_left: list[Sighting]
    duplicated: list[Sighting]
    never_came: list[Sighting]


class Matcher:
    """The packets now inside one switch."""

    def __init__(self) -> None:
        self._arrived: dict[int, list[Sighting]] = {}
        self._arrived_before: dict[int, list[Sighting]] = {}
        self._left: dict[int, list[Sighting]] = {}
        self._left_before: dict[int, list[Sighting]] = {}
        self._matched: set[int] = set()
        self._matched_before: set[int] = set()

    def arrived(self, identity: int, sighting: Sighting) -> Sighting | None:
        """Note an arrival; returns its departure if that was seen already."""
        if (self._left or self._left_before) and (partner := self._take(self._left_before, self._left, identity)):
            return partner
        self._arrived.setdefault(identity, []).append(sighting)
        return None

    def left(self, identity: int, sighting: Sighting) -> Sighting | None:
        """Note a departure; returns its arrival if that was seen already."""
        if partner := self._take(self._arrived_before, self._arrived, identity):
            return partner
        if identity in self._matched or identity in self._matched_before:
            sighting = sighting._replace(again=True)
        self._left.setdefault(identity, []).append(sighting)
        return None

    def waiting(self) -> int:
        """Return how many sightings have no partner yet."""
        return sum(len(sightings) for kept in (self._arrived, self._arrived_before, self._left, self._left_before)
                   for sightings in kept.values())

    def next_window(self) -> GivenUp:
        """Give up what has waited since before the last window, in order of time."""
        never_left = [s for sightings in self._arrived_before.values() for s in sightings]
        departed = sorted(s for sightings in self._left_before.values() for s in sightings)
        self._arrived_before, self._arrived = self._arrived, {}
        self._left_before, self._left = self._left, {}
        return GivenUp(sorted(never_left), [s for s in departed if s.again], [s for s in departed if not s.again])

    def _take(self, before: dict[int, list[Sighting]], now: dict[int, list[Sighting]],
              identity: int) -> Sighting | None:
        """Return and forget the oldest sighting of `identity` in `before` and `now`."""
        kept = before if identity in before else now
        sightings = kept.get(identity)
        if sightings is None:
            return None
        partner = sightings.pop(0)
        if not sightings:
            del kept[identity]
        if len(self._matched) >= REMEMBERED:
            self._matched_before, self._matched = self._matched, set()
        self._matched.add(identity)
        return partner
