"""Finding and ending the processes of one world, by pid, and never one that merely has a used pid.

A pid is reused once its process is gone. So each process is known by pid and start time, and signals go
through a pidfd that was opened before the last look at whether the process is one of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from nodes import netns

WORLD_VARIABLE = "E3_WORLD"


def started_at(pid: int) -> int | None:
    """Return when `pid` started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat[stat.rindex(")") + 2:].split()  # the command name before it may hold anything
    return None if state in "ZX" else int(fields[18])


def doing(pid: int) -> str:
    """Return what a process is at, as far as the kernel tells: "gone", "running", "stopped", or where it waits."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "gone"
    state = stat[stat.rindex(")") + 2]
    if state in "RZXTt":
        return {"R": "running", "T": "stopped", "t": "stopped"}.get(state, "gone")
    with contextlib.suppress(OSError):  # only root may see where a process of others waits
        where = Path(f"/proc/{pid}/wchan").read_text()
        return f"waiting in {where}" if where.strip("0") else "waiting"
    return "waiting"


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked_with(world_id: str) -> set[int]:
    """Return the processes whose environment at exec named the world `world_id`."""
    mark = f"{WORLD_VARIABLE}={world_id}".encode()
    found = set()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def in_namespaces(inodes: Iterable[int]) -> set[int]:
    """Return the processes whose network namespace is one of `inodes`."""
    wanted = set(inodes)
    return {pid for pid in all_pids() if netns.inode_of(pid) in wanted} if wanted else set()


def self_and_ancestors() -> set[int]:
    """Return the calling process and all that it descends from: clean-up must never end these."""
    found, pid = set(), os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat[stat.rindex(")") + 2:].split()[1])
    return found


def end_all(find: Callable[[], set[int]], spare: set[int], wait_s: float = 5.0) -> tuple[set[int], set[int]]:
    """Kill what `find` finds, again and again until it finds nothing, save for `spare`.

    Looks again because a process may fork while it is being killed. Returns the pids that were killed and
    those still there after `wait_s` seconds.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + wait_s
    while True:
        left = {pid for pid in find() - spare if started_at(pid) is not None}
        if not left or time.monotonic() > deadline:
            return killed, left
        killed |= _kill(left, find)
        time.sleep(0.01)


def _kill(pids: set[int], find: Callable[[], set[int]]) -> set[int]:
    descriptors = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            descriptors[pid] = os.pidfd_open(pid)
    killed = set()
    still_ours = find()
    for pid, descriptor in descriptors.items():
        with contextlib.suppress(OSError):
            if pid in still_ours:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                killed.add(pid)
        os.close(descriptor)
    return killed
