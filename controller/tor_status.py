"""What the ToR app says about itself: a small file, written whole, that others wait on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec

from controller.errors import ProgramError


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
class TorStatus:
    """The whole app. `loads` counts the times that the programs were read; `program_error` is why the last was not."""

    pid: int
    library: str
    listen: str
    loads: int = 0
    program_error: str = ""
    switches: dict[str, SwitchStatus] | None = None
    strangers: tuple[int, ...] = ()  # datapath ids that have connected and have no program

    def of(self, switch: str) -> SwitchStatus | None:
        return (self.switches or {}).get(switch)

    def with_switch(self, status: SwitchStatus) -> TorStatus:
        return replace(self, switches={**(self.switches or {}), status.switch: status})


def to_json(status: TorStatus) -> bytes:
    return msgspec.json.format(msgspec.json.encode(status), indent=1)


def from_json(data: bytes) -> TorStatus:
    """Read what `to_json` wrote; raises ProgramError if it is something else."""
    try:
        return msgspec.json.decode(data, type=TorStatus)
    except msgspec.MsgspecError as error:
        raise ProgramError(f"not the status of a ToR app: {error}") from error


def unsettled(status: TorStatus, switches: Iterable[str], loads: int = 1) -> list[str]:
    """Return those of `switches` that are not connected and reconciled to program load `loads` or a later one."""
    entries = ((name, status.of(name)) for name in switches)
    return [name for name, s in entries if s is None or not s.connected or s.reconciled < loads]
