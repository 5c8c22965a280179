"""Which links between switches count as dead, from what the switches say of their ports, however these flap.

A port that goes down counts at once; one that comes up again is believed when it has been up for HELD_S. So a link that
flaps costs two reroutes at most in HELD_S, and one that flaps faster stays dead, which costs none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from controller.fabric_repair import End

HELD_S = 1.0


class PortState(Enum):
    UP = "up"
    DOWN = "down"
    HELD = "held"  # up again, and not believed yet


class Seen(Enum):
    GOES_DOWN = "goes down"
    COMES_UP = "comes up"
    STAYED_UP = f"has been up for {HELD_S:g} s"


TRANSITIONS: dict[tuple[PortState, Seen], PortState] = {
    (PortState.UP, Seen.GOES_DOWN): PortState.DOWN,
    (PortState.DOWN, Seen.COMES_UP): PortState.HELD,
    (PortState.HELD, Seen.GOES_DOWN): PortState.DOWN,
    (PortState.HELD, Seen.STAYED_UP): PortState.UP,
}


class LinkWatch:
    """What is known of each end of a link; of one that nothing was said of, nothing, and it counts as alive."""

    def __init__(self) -> None:
        self._states: dict[End, PortState] = {}
        self._since_s: dict[End, float] = {}  # when a port last went down or came up

    def tell(self, end: End, up: bool, now_s: float) -> None:
        """Take in that `end` is up or down. What is heard of it first is believed as it is."""
        if end not in self._states:
            self._states[end] = PortState.UP if up else PortState.DOWN
            self._since_s[end] = now_s
            return
        before = self._states[end]
        self._step(end, Seen.COMES_UP if up else Seen.GOES_DOWN)
        if self._states[end] is not before:
            self._since_s[end] = now_s

    def dead(self, now_s: float) -> frozenset[End]:
        """Return the ends that count as dead at `now_s`."""
        for end, state in self._states.items():
            if state is PortState.HELD and now_s >= self._since_s[end] + HELD_S:
                self._step(end, Seen.STAYED_UP)
        return frozenset(end for end, state in self._states.items() if state is not PortState.UP)

    def changes_at_s(self) -> float | None:
        """Return when `dead` will be another one though nothing is told; None if it will not."""
        return min((self._since_s[end] + HELD_S for end, state in self._states.items() if state is PortState.HELD),
                   default=None)

    def since_s(self, ends: Collection[End]) -> float | None:
        """Return when the first of `ends` went down, or came up, as it is now; None for no ends."""
        return min((self._since_s[end] for end in ends), default=None)

    def states(self) -> Mapping[End, PortState]:
        return self._states

    def _step(self, end: End, seen: Seen) -> None:
        self._states[end] = TRANSITIONS.get((self._states[end], seen), self._states[end])
