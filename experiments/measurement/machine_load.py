"""Reads from /proc how busy the machine and its busiest process were over a stretch of time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import ExperimentError

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class MachineTimes:
    """Ticks since boot, over all cores: in all, and in which a core had something to do or was taken away from us."""

    busy: int
    total: int


@dataclass(frozen=True, slots=True)
class MachineLoad:
    """Busy shares, 0 to 1: of all cores together, and of one core by the busiest thread of `busiest_process`.

    `own_cpu` is of all cores, too: what the control group that was watched used. `processes` are core-seconds per
    second of each process that was watched, all its threads together.
    """

    machine_cpu: float
    process_cpu: float = 0.0
    busiest_process: str = ""
    processes: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    own_cpu: float | None = None


def machine_times(proc: Path = PROC) -> MachineTimes:
    """Return the machine's ticks of now; raises ExperimentError for a /proc/stat of another form.

    Time that a hypervisor stole counts as busy: it is as far from us as what others used.
    """
    words = (proc / "stat").read_text().splitlines()[0].split()
    if words[0] != "cpu" or len(words) < 8:
        raise ExperimentError(f"{proc / 'stat'} begins with {' '.join(words)[:60]!r}, not with cpu and 7 numbers")
    user, nice, system, idle, io_wait, irq, soft_irq, *rest = (int(word) for word in words[1:9])
    busy = user + nice + system + irq + soft_irq + sum(rest)
    return MachineTimes(busy, busy + idle + io_wait)


def thread_times(pid: int, proc: Path = PROC) -> dict[int, int]:
    """Return the ticks that each thread of process `pid` has used; none if it has gone.

    By thread, because what keeps a process from being in time is one that has a core to itself.
    """
    found = {}
    try:
        tasks = [int(task.name) for task in (proc / str(pid) / "task").iterdir()]
    except OSError:
        return {}
    for task in tasks:
        try:
            said = (proc / str(pid) / "task" / str(task) / "stat").read_text()
        except OSError:
            continue  # ended since
        fields = said[said.rindex(")") + 2:].split()  # a program's name may hold blanks and brackets
        found[task] = int(fields[11]) + int(fields[12])
    return found


class LoadMeter:
    """Measures from its making on: of the machine, and of the processes `pids`, by the names that they have here.

    `own_seconds` tells how much CPU time the testbed has used so far.
    """

    def __init__(self, pids: Mapping[str, int] | None = None, proc: Path = PROC,
                 own_seconds: Callable[[], float] | None = None) -> None:
        self._proc = proc
        self._pids = dict(pids or {})
        self._machine = machine_times(proc)
        self._threads = {name: thread_times(pid, proc) for name, pid in self._pids.items()}
        self._own_seconds = own_seconds
        self._own_before = own_seconds() if own_seconds is not None else 0.0
        self._since = time.monotonic()

    def read(self) -> MachineLoad:
        """Return the load since the meter was made; of a process that has ended meanwhile nothing is known."""
        machine = machine_times(self._proc)
        total = machine.total - self._machine.total
        ticks = (time.monotonic() - self._since) * os.sysconf("SC_CLK_TCK")
        most, busiest = 0.0, ""
        shares = {}
        for name, pid in self._pids.items():
            before = self._threads[name]
            used = [now - before.get(task, 0) for task, now in thread_times(pid, self._proc).items()]
            shares[name] = sum(used) / ticks if ticks > 0 else 0.0
            if ticks > 0 and max(used, default=0) / ticks > most:
                most, busiest = max(used) / ticks, name
        share = (machine.busy - self._machine.busy) / total if total > 0 else 0.0
        seconds = time.monotonic() - self._since
        own = None
        if self._own_seconds is not None and seconds > 0:
            own = min(1.0, (self._own_seconds() - self._own_before) / (seconds * (os.cpu_count() or 1)))
        return MachineLoad(min(1.0, max(0.0, share)), min(1.0, most), busiest, shares, seconds, own)
