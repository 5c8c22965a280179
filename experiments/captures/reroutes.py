"""What captures are to be judged by while links between switches die and live again: which programs may be in force.

              noticed   in force                noticed            in force
    ---epoch 0---|---------|------epoch 1----------|------------------|------epoch 2---
                 |<-either->|                      |<-----either------>|       by SLACK_NS longer on both sides

Excused is what is lost in a stretch of "either" where it led over a link that dies, and what its first switch has no
way left for. A packet that is lost at any other time, or elsewhere, speaks against the routing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from controller.fabric_repair import ends_of, repair
from controller.tor_program import TorProgram
from controller.tor_status import RepairStatus
from experiments.captures.expected_routes import SwitchMap
from experiments.captures.hash_prediction import Predictor, predictor_of
from topologies.inventory import Inventory, switch_links

SLACK_NS = 250_000_000  # how long a port may be down, or up, before the app hears of it; and packets may be under way
NOT_YET_REROUTED = "led over a link between switches that was cut a moment ago"
NO_WAY = "no way left"
_EVER_NS = 1 << 63


class Reroutes:
    """Epochs by number, from 0: `dead` are the interfaces, of links between switches, that were down in each."""

    def __init__(self, inventory: Inventory, programs: Mapping[str, TorProgram] | None,
                 repairs: Sequence[RepairStatus] = ()) -> None:
        self.dead = [frozenset[str](), *(frozenset(r.dead) for r in repairs)]
        self._programs = programs
        begins = [-_EVER_NS, *(_ns(r.noticed_s) - SLACK_NS for r in repairs)]
        settled = [next((_ns(later.in_force_s) + SLACK_NS for later in repairs[i:] if later.in_force_s), _EVER_NS)
                   for i in range(len(repairs))]
        self._spans = list(zip(begins, [*settled, _EVER_NS], strict=True))
        self._reach = [_Reach(inventory, dead) for dead in self.dead]

    def at(self, time_ns: int) -> tuple[int, ...]:
        """Return the epochs of which a switch may have done what it did at `time_ns`."""
        if len(self._spans) == 1:
            return (0,)
        return tuple(i for i, (begin, end) in enumerate(self._spans) if begin <= time_ns <= end)

    def during(self, first_ns: int, last_ns: int) -> tuple[int, ...]:
        """Return the epochs of which something lies between `first_ns` and `last_ns`."""
        return tuple(i for i, (begin, end) in enumerate(self._spans) if begin <= last_ns and first_ns <= end)

    def whole(self, epoch: int) -> bool:
        return not self.dead[epoch]

    def predictor(self, epoch: int) -> Predictor | None:
        """Return what flows did in an epoch with dead links; None where the programs are not given."""
        return self._predictor(epoch, epoch)

    def predictions(self, epochs: Sequence[int], switch: str, flow: bytes) -> Iterator[str | None]:
        """Yield the interfaces by which `flow` may have left `switch`: told or not, its ports dead or not."""
        for told in epochs:
            for seen in epochs:
                predict = self._predictor(told, seen)
                if predict is not None:
                    yield predict(switch, flow)

    @cache  # noqa: B019 - one judge has one of these, and both are gone with the proof
    def _predictor(self, told: int, seen: int) -> Predictor | None:
        if self._programs is None:
            return None
        programs = repair(self._programs, ends_of(self._programs, self.dead[told])).programs
        return predictor_of(programs, self.dead[seen])

    def excuse(self, switch: str, interface: str, address: bytes, time_ns: int) -> str:
        """Return why a packet for `address` that came in by `interface` never left `switch`; "" if it had to."""
        epochs = self.at(time_ns)
        if len(epochs) == 1:
            reach = self._reach[epochs[0]]
            return NO_WAY if reach.is_first(switch, interface) and not reach.leads(switch, address) else ""
        if any(self._reach[e].is_cut(switch, address) or not self._reach[e].leads(switch, address) for e in epochs):
            return NOT_YET_REROUTED
        return ""


class _Reach:
    """Which addresses can be reached from where while `dead` interfaces are, by the inventory alone."""

    def __init__(self, inventory: Inventory, dead: frozenset[str]) -> None:
        self._maps = {s.name: SwitchMap(inventory, s) for s in inventory.switches} if dead else {}
        self._dead = dead | {p.interface for ends in switch_links(inventory) for p in ends
                             if {e.interface for e in ends} & dead}
        self._known: dict[tuple[str, bytes], bool] = {}

    def is_first(self, switch: str, interface: str) -> bool:
        return bool(self._dead) and not self._maps[switch].peer_is_switch(interface)

    def is_cut(self, switch: str, address: bytes) -> bool:
        """Say whether a port of `switch` towards `address` has a dead link."""
        place = self._maps[switch].place(address) if self._dead else None
        return place is not None and bool(place.interfaces & self._dead)

    def leads(self, switch: str, address: bytes) -> bool:
        if not self._dead:
            return True
        key = switch, address
        if key not in self._known:
            place, ports = self._maps[switch].place(address), self._maps[switch].ports
            self._known[key] = place is None or any(
                not self._maps[switch].peer_is_switch(i) or self.leads(ports[i].peer, address)
                for i in place.interfaces - self._dead)
        return self._known[key]


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
