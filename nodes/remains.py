"""Removing what a dead world left on the machine, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nodes import cgroups, journal, netns, processes
from nodes.errors import WorldError


@dataclass(frozen=True, slots=True)
class Removed:
    """What `remove_remains` took away of one dead world, and what it could not."""

    id: str
    label: str
    processes: int
    cgroups: int
    files: int
    leftovers: tuple[str, ...]


def remove_remains(run_dir: Path, entries: list[dict[str, Any]]) -> Removed:
    """Remove what the dead world in `run_dir` left: processes, and with them its namespaces; cgroups; files.

    The caller holds the lock of the world's journal, whose lines are `entries` (`journal.take_over`). The
    calling process and its ancestors are spared, even if they were started in that world. If something
    resists, the run directory stays, so that a later call can try again.
    """
    world_id = run_dir.name
    label = next((str(e["label"]) for e in entries if e["what"] == "world" and "label" in e), "")
    hierarchy = cgroups.detect()
    subtree = cgroups.Subtree(hierarchy, world_id) if hierarchy is not None else None
    whats = {e["what"] for e in entries}
    in_groups = subtree is not None and "cgroup" in whats and "no-cgroup" not in whats
    recorded = {(e["pid"], e["started"]) for e in entries if e["what"] == "process" and "pid" in e}
    inodes = {e["inode"] for e in entries if e["what"] == "namespace" and "inode" in e} - _namespaces_not_ours()

    def find() -> set[int]:
        found = {pid for pid, started in recorded if processes.started_at(pid) == started is not None}
        if subtree is not None:
            found |= subtree.root.members()
        if not in_groups:
            found |= processes.marked_with(world_id) | processes.in_namespaces(inodes)
        return found

    spare = processes.self_and_ancestors()
    leftovers = []
    killed, left = processes.end_all(find, spare)
    if left:
        leftovers.append(f"processes {sorted(left)}")
    groups = 0
    if subtree is not None:
        for pid in subtree.root.members() & spare:
            cgroups.move(pid, subtree.hierarchy.roots)
        groups = subtree.count()
        try:
            subtree.remove()
        except WorldError as error:
            leftovers.append(str(error))
    files = 0
    if not leftovers:
        try:
            files = remove_run_dir(run_dir)
        except OSError as error:
            leftovers.append(f"{run_dir}: {error}")
    return Removed(world_id, label, len(killed), groups, files, tuple(leftovers))


def _namespaces_not_ours() -> set[int | None]:
    return {netns.inode_of(1), netns.current_inode()}


def remove_run_dir(run_dir: Path) -> int:
    """Remove a run directory, what is mounted in it first and the journal last; return how many files it held."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split()[1]
        if point.startswith(f"{run_dir}/"):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    files = sum(len(names) for _, _, names in os.walk(run_dir))
    for path in list(run_dir.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != journal.JOURNAL_NAME:
            path.unlink()
    (run_dir / journal.JOURNAL_NAME).unlink(missing_ok=True)
    run_dir.rmdir()
    return files
