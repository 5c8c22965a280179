"""What the ToR app says about itself: a small file, written whole, that others wait on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import msgspec

from controller.errors import ProgramError
from controller.fabric_repair import Repair
from topologies.unreadable import UNREADABLE

REPAIRS_KEPT = 100


@dataclass(frozen=True, slots=True)
class SwitchStatus:
    """One switch as the app last saw it.

    `reconciled` is the number of the program load (see TorStatus.loads) that the switch was read back to
    hold, 0 before the first. `changes` counts, by kind, what the last reconciliation sent; `sent` all since
    the app's start. Times are Unix seconds.
    """

    switch: str
    dpid: int
    connected: bool = False
    connected_since: float = 0.0
    reconciled: int = 0
    reconciled_at: float = 0.0
    changes: dict[str, int] | None = None
    sent: int = 0
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RepairStatus:
    """What the app did when other links between switches counted as dead than before. Times are Unix seconds.

    `dead` names the ends of links, by interface, that were dead from then on. It was first heard of at `noticed_s`;
    from `in_force_s` on, 0 till then, each of the `switches` that had to change was read back to have done so.
    """

    noticed_s: float
    dead: tuple[str, ...]
    switches: int
    in_force_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TorStatus:
    """The whole app. `loads` counts the times that the programs were read; `program_error` is why the last was not.

    `dead_links` names the ends of links between switches, by interface, that count as dead, `reroutes` what each switch
    does otherwise for that, `rerouting` the switches that are being told. `repairs` are the latest, in order, those
    of an app that ran before among them.
    """

    pid: int
    library: str
    listen: str
    loads: int = 0
    program_error: str = ""
    switches: dict[str, SwitchStatus] | None = None
    strangers: tuple[int, ...] = ()  # datapath ids that have connected and have no program
    dead_links: tuple[str, ...] = ()
    reroutes: dict[str, tuple[str, ...]] | None = None
    rerouting: tuple[str, ...] = ()
    repairs: tuple[RepairStatus, ...] = ()

    def of(self, switch: str) -> SwitchStatus | None:
        return (self.switches or {}).get(switch)

    def repaired(self, repair: Repair, switches: Collection[str], noticed_s: float, now_s: float) -> TorStatus:
        """Return the status once `switches` are being told of `repair`."""
        latest = RepairStatus(noticed_s, repair.dead, len(switches))
        left = {*self.rerouting, *switches}
        return replace(self, dead_links=repair.dead, reroutes=repair.reroutes, rerouting=tuple(sorted(left)),
                       repairs=(*self.repairs, latest)[-REPAIRS_KEPT:]).told((), now_s)

    def told(self, switches: Collection[str], now_s: float) -> TorStatus:
        """Return the status once `switches` do what they were told."""
        left = tuple(name for name in self.rerouting if name not in switches)
        repairs = self.repairs
        if repairs and not left and not repairs[-1].in_force_s:
            repairs = (*repairs[:-1], replace(repairs[-1], in_force_s=now_s))
        return replace(self, rerouting=left, repairs=repairs)

    def with_switch(self, status: SwitchStatus) -> TorStatus:
        return replace(self, switches={**(self.switches or {}), status.switch: status})


def to_json(status: TorStatus) -> bytes:
    return msgspec.json.format(msgspec.json.encode(status), indent=1)


def from_json(data: bytes) -> TorStatus:
    """Read what `to_json` wrote; raises ProgramError if it is something else."""
    try:
        return msgspec.json.decode(data, type=TorStatus)
    except UNREADABLE as error:
        raise ProgramError(f"not the status of a ToR app: {error}") from error


def unsettled(status: TorStatus, switches: Iterable[str], loads: int = 1) -> list[str]:
    """Return those of `switches` that are not connected and reconciled to program load `loads` or a later one.

    One that is being told of other ways, since a link is dead or lives again, is among them.
    """
    entries = ((name, status.of(name)) for name in switches)
    return [name for name, s in entries
            if s is None or not s.connected or s.reconciled < loads or name in status.rerouting]
