"""Control groups, version 1 or 2, in absolute core-equivalents.

A world has one subtree, /e3/WORLD, in each hierarchy that it uses. Its owner joins it first, so that every
descendant is a member and can be found again; below stands one group per node. Version 2 forbids processes
in a group that has children with controllers, so there the owner stands in a leaf of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nodes.errors import WorldError

PARENT = "e3"
OWNER_LEAF = "owner"
PERIOD_US = 100_000  # the kernel's own default
LEAST_QUOTA_US = 1_000  # the kernel refuses less
REMOVE_WAIT_S = 3.0
TRIES = 10  # to make a group while worlds that leave remove its parent
# A world is many processes that must be in time, but its subtree would weigh no more than any one process beside it:
# 64 times that (version 1 counts a process as 1024, version 2 as 100).
WEIGHT = {1: ("cpu.shares", 64 * 1024), 2: ("cpu.weight", 64 * 100)}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The mounted hierarchies that carry CPU limits (`cpu`) and CPU accounting (`account`, often the same)."""

    version: int  # 1 or 2
    cpu: Path
    account: Path

    @property
    def roots(self) -> tuple[Path, ...]:
        return (self.cpu,) if self.cpu == self.account else (self.cpu, self.account)


def detect(mounts: str | None = None) -> Hierarchy | None:
    """Return the hierarchy to use, from the text of /proc/mounts; None where no group can limit CPU time.

    A version 1 cpu hierarchy wins where there is one: version 2 then has no cpu controller to offer.
    """
    text = Path("/proc/mounts").read_text() if mounts is None else mounts
    entries = [line.split() for line in text.splitlines()]
    v1 = {controller: Path(fields[1]) for fields in reversed(entries) if len(fields) > 3 and fields[2] == "cgroup"
          for controller in fields[3].split(",") if controller in ("cpu", "cpuacct")}
    if len(v1) == 2:
        return Hierarchy(1, v1["cpu"], v1["cpuacct"])
    for fields in entries:
        if len(fields) > 3 and fields[2] == "cgroup2":
            root = Path(fields[1])
            with contextlib.suppress(OSError):
                if "cpu" in (root / "cgroup.controllers").read_text().split():
                    return Hierarchy(2, root, root)
    return None


class Cgroup:
    """One control group: a directory in each hierarchy of `hierarchy`, at `path` below the root."""

    def __init__(self, hierarchy: Hierarchy, path: str) -> None:
        self.path = path
        self.version = hierarchy.version
        self.directories = tuple(root / path for root in hierarchy.roots)
        self._cpu = hierarchy.cpu / path
        self._account = hierarchy.account / path

    def make(self) -> None:
        for directory in self.directories:
            directory.mkdir(exist_ok=True)

    def add(self, pid: int) -> None:
        """Move process `pid` here, with all its threads; raises WorldError if it is gone or not allowed."""
        for directory in self.directories:
            _write(directory / "cgroup.procs", str(pid))

    def members(self) -> set[int]:
        """Return the pids in this group and all groups below it."""
        return {pid for directory in self.directories for pid in _members(directory)}

    def set_cores(self, cores: float | None) -> None:
        """Limit the group to `cores` core-equivalents of CPU time (0.5: half of one core); None lifts the limit.

        Raises WorldError below 0.01 cores, the least that the kernel takes at a period of 100 ms.
        """
        quota_us = None if cores is None else round(cores * PERIOD_US)
        if quota_us is not None and quota_us < LEAST_QUOTA_US:
            raise WorldError(f"cannot limit {self.path} to {cores} cores: "
                             f"the least is {LEAST_QUOTA_US / PERIOD_US} cores")
        if self.version == 2:
            _write(self._cpu / "cpu.max", f"{'max' if quota_us is None else quota_us} {PERIOD_US}")
        else:
            _write(self._cpu / "cpu.cfs_period_us", str(PERIOD_US))
            _write(self._cpu / "cpu.cfs_quota_us", str(-1 if quota_us is None else quota_us))

    def usage_seconds(self) -> float:
        """Return the CPU time used by members since the group was made, in core-seconds."""
        if self.version == 2:
            return _statistics(self._cpu / "cpu.stat")["usage_usec"] / 1e6
        return int(_read(self._account / "cpuacct.usage")) / 1e9

    def throttled(self) -> tuple[int, int, float]:
        """Return (periods, throttled periods, throttled seconds); all 0 while no limit was ever set."""
        found = _statistics(self._cpu / "cpu.stat")
        waited_s = found.get("throttled_usec", 0) / 1e6 if self.version == 2 else found.get("throttled_time", 0) / 1e9
        return found.get("nr_periods", 0), found.get("nr_throttled", 0), waited_s

    def remove(self) -> None:
        """Remove the group and all below it; raises WorldError if a process stays in it. Twice is once."""
        for directory in self.directories:
            for below in sorted(_tree(directory), reverse=True):
                _rmdir(below)


class Subtree:
    """The groups of one world: /e3/`world_id` and what is below."""

    def __init__(self, hierarchy: Hierarchy, world_id: str) -> None:
        self.hierarchy = hierarchy
        self.root = Cgroup(hierarchy, f"{PARENT}/{world_id}")
        leaf = f"{self.root.path}/{OWNER_LEAF}" if hierarchy.version == 2 else self.root.path
        self.owner = Cgroup(hierarchy, leaf)

    def make(self) -> None:
        """Make the subtree; raises WorldError where the hierarchy is read-only or belongs to somebody else."""
        for _ in range(TRIES):  # a world that leaves removes an empty /e3 between our two mkdirs
            try:
                Cgroup(self.hierarchy, PARENT).make()
                self.root.make()
                self.owner.make()
                break
            except FileNotFoundError:
                continue
            except OSError as error:
                raise WorldError(f"cannot make the control group {self.root.path}: {error}") from error
        else:
            raise WorldError(f"cannot make the control group {self.root.path}: {PARENT} was removed {TRIES} times "
                             "meanwhile")
        if self.hierarchy.version == 2:
            for directory in (self.hierarchy.cpu, self.hierarchy.cpu / PARENT, self.root.directories[0]):
                _write(directory / "cgroup.subtree_control", "+cpu")
        name, weight = WEIGHT[self.hierarchy.version]
        for group in (self.hierarchy.cpu / PARENT, self.hierarchy.cpu / self.root.path):
            _write(group / name, str(weight))

    def group(self, name: str) -> Cgroup:
        """Return the group called `name` in this subtree, which is made by its `make`."""
        return Cgroup(self.hierarchy, f"{self.root.path}/{name}")

    def count(self) -> int:
        """Return how many groups the world has, in all its hierarchies."""
        return sum(len(_tree(directory)) for directory in self.root.directories)

    def remove(self) -> None:
        """Remove every group of the world, then /e3 if no other world is in it."""
        self.root.remove()
        remove_parent(self.hierarchy)


def remove_parent(hierarchy: Hierarchy) -> None:
    """Remove /e3 itself if no world is in it: the kernel refuses to remove a group with others below."""
    for root in hierarchy.roots:
        with contextlib.suppress(OSError):
            (root / PARENT).rmdir()


def where_now(hierarchy: Hierarchy, pid: int) -> tuple[Path, ...]:
    """Return the directories of the groups that process `pid` is in, one for each root of `hierarchy`.

    Raises WorldError if the process is gone.
    """
    found = {}
    for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
        number, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller if number != "0" else ""] = path.lstrip("/")
    keys = ("",) if hierarchy.version == 2 else ("cpu", "cpuacct")[:len(hierarchy.roots)]
    return tuple(root / found.get(key, "") for root, key in zip(hierarchy.roots, keys, strict=True))


def move(pid: int, directories: Iterable[Path]) -> None:
    """Move process `pid` into the group at each of `directories`, or to its hierarchy's root if that is gone."""
    for directory in directories:
        while not (directory / "cgroup.procs").exists() and directory != directory.parent:
            directory = directory.parent
        _write(directory / "cgroup.procs", str(pid))


def _members(directory: Path) -> set[int]:
    found: set[int] = set()
    for below in _tree(directory):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in (below / "cgroup.procs").read_text().split()}
    return found


def _tree(directory: Path) -> list[Path]:
    return [Path(top) for top, _, _ in os.walk(directory)]


def _rmdir(directory: Path) -> None:
    """Remove a group; a member that was just killed holds it for a moment, so wait for that, but not for ever."""
    deadline = time.monotonic() + REMOVE_WAIT_S
    while True:
        try:
            directory.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                raise WorldError(f"cannot remove the control group {directory}: {error.strerror}; "
                                 f"members: {sorted(_members(directory)) or 'none'}") from error
        time.sleep(0.01)


def _statistics(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in _read(path).splitlines())}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise WorldError(f"cannot read {path}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise WorldError(f"cannot write {text!r} to {path}: {error.strerror}") from error
