"""What all switches must do now: their programs, repaired for the links that count as dead. It sends nothing."""

from __future__ import annotations

from collections.abc import Mapping

from controller.fabric_repair import End, Repair, links_of, repair
from controller.link_watch import LinkWatch
from controller.tor_program import TorProgram


class FabricKeeper:
    """Takes in programs and the state of ports; `repair` is what follows from them since `look` last looked.

    `since_s` is when the first of the ports went down, or came up, for which the last look found something else.
    """

    def __init__(self) -> None:
        self.repair = Repair({})
        self.since_s: float | None = None
        self._programs: Mapping[str, TorProgram] = {}
        self._ends: dict[str, list[End]] = {}  # by switch
        self._dead: frozenset[End] = frozenset()
        self._watch = LinkWatch()

    def load(self, programs: Mapping[str, TorProgram]) -> None:
        """Go on with other programs; what is known of ports stays."""
        self._programs, self._ends = programs, {}
        for end in links_of(programs):
            self._ends.setdefault(end.switch, []).append(end)
        self.repair = repair(programs, self._dead)

    def has_links(self, switch: str) -> bool:
        """Say whether `switch` has links to others."""
        return switch in self._ends

    def silent(self) -> frozenset[str]:
        """Return the switches with links to others that have not told how their ports are."""
        told = {end.switch for end in self._watch.states()}
        return frozenset(self._ends.keys() - told)

    def tell(self, switch: str, port: int, up: bool, now_s: float) -> bool:
        """Take in that a port is up or down; return whether a link to another switch hangs on it."""
        end = End(switch, port)
        if end not in self._ends.get(switch, ()):
            return False
        self._watch.tell(end, up, now_s)
        return True

    def tell_all(self, switch: str, ports: Mapping[int, bool], now_s: float) -> None:
        """Take in how all ports of `switch` are; one that is not there is down."""
        for end in self._ends.get(switch, ()):
            self._watch.tell(end, ports.get(end.port, False), now_s)

    def look(self, now_s: float) -> bool:
        """Bring `repair` up to date; return whether other links than before count as dead."""
        dead = self._watch.dead(now_s)
        self.since_s = self._watch.since_s(dead ^ self._dead)
        if dead == self._dead:
            return False
        self._dead = dead
        self.repair = repair(self._programs, dead)
        return True

    def look_again_s(self) -> float | None:
        """Return when to look again though nothing is told; None for never."""
        return self._watch.changes_at_s()
