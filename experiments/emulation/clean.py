"""`e3 clean`: remove what dead worlds left on this machine, and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nodes import cgroups, journal
from nodes.errors import WorldError
from nodes.remains import Removed, remove_remains


@dataclass(frozen=True, slots=True)
class CleanReport:
    """The dead worlds that were removed, and the living ones (their ids) that were left alone."""

    removed: tuple[Removed, ...]
    alive: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Say whether everything that dead worlds left is gone."""
        return not any(world.leftovers for world in self.removed)

    def lines(self) -> list[str]:
        """Return the report as sentences for people."""
        said = [_sentence(world) for world in self.removed] or ["no dead world"]
        return said + [f"{world_id}: alive, left alone" for world_id in self.alive]


def _sentence(world: Removed) -> str:
    if world.leftovers:
        return f"{world.id} ({world.label or 'no label'}): could not remove {'; '.join(world.leftovers)}"
    return (f"{world.id} ({world.label or 'no label'}): removed {world.processes} processes, "
            f"{world.cgroups} control groups, {world.files} files")


def clean(root: Path = journal.RUN_ROOT) -> CleanReport:
    """Remove the remains of every world under `root` whose owner is dead; raises WorldError without root rights.

    Worlds that start meanwhile wait; several cleaners at once take turns.
    """
    if os.geteuid() != 0:
        raise WorldError("clean needs root: run it with sudo")
    removed, alive = [], []
    if root.is_dir():
        with journal.room_lock(root):
            for run_dir in journal.run_dirs(root):
                taken = journal.take_over(run_dir)
                if taken is None:
                    alive.append(run_dir.name)
                    continue
                lock, entries = taken
                removed.append(remove_remains(run_dir, entries))
                os.close(lock)
    hierarchy = cgroups.detect()
    if hierarchy is not None:
        cgroups.remove_parent(hierarchy)  # a world killed at its very last step may have left it, empty
    return CleanReport(tuple(removed), tuple(alive))
