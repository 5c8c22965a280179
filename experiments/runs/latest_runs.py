"""Finds the latest run of each experiment in results/, finished or not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from experiments.runs.points import POINTS_FILE
from experiments.runs.results import MANIFEST, RESULTS, RUN_FILE
from topologies.unreadable import UNREADABLE


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A finished run. `options` are those that it was begun with, as far as it kept them."""

    name: str
    directory: Path
    manifest: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def run_id(self) -> str:
        return f"{self.name}/{self.directory.name}"

    @property
    def size(self) -> str:
        """"quick" or "full"; empty if the run does not say."""
        quick = self.manifest.get("quick", self.options.get("quick"))
        return "" if quick is None else "quick" if quick else "full"

    @property
    def is_virtual(self) -> bool:
        return bool(self.options.get("simulate")) or self.is_sensitivity

    @property
    def is_sensitivity(self) -> bool:
        """Whether it varied assumptions, in place of measuring the result itself."""
        return bool(self.options.get("sensitivity"))


@dataclass(frozen=True, slots=True)
class UnfinishedRun:
    """A run without a manifest that was begun after the latest finished one: `points` of it are kept."""

    name: str
    directory: Path
    points: int
    began_unix_s: float


def latest_finished(name: str, parent: Path = RESULTS, sensitivity: bool = False,
                    packets_first: bool = False) -> StoredRun | None:
    """Return the finished run of `name` that began last, or its sensitivity run; what cannot be read is none.

    With `packets_first` one in virtual time counts only if there is none on packets.
    """
    found = [run for run in map(_read, _directories(name, parent))
             if run is not None and run.is_sensitivity is sensitivity]
    return max(found, key=lambda run: (packets_first and not run.is_virtual, run.manifest.get("began_unix_s", 0.0)),
               default=None)


def latest_unfinished(name: str, parent: Path = RESULTS) -> UnfinishedRun | None:
    """Return the latest unfinished run of `name` that can be resumed, if it is newer than every finished one."""
    directories = _directories(name, parent)
    if not directories or not (directories[-1] / RUN_FILE).exists() or (directories[-1] / MANIFEST).exists():
        return None
    points = directories[-1] / POINTS_FILE
    kept = points.read_bytes().count(b"\n") if points.exists() else 0
    try:
        sessions = msgspec.json.decode((directories[-1] / RUN_FILE).read_bytes())["sessions"]
        return UnfinishedRun(name, directories[-1], kept, sessions[0]["began_unix_s"])
    except (OSError, KeyError, IndexError, *UNREADABLE):
        return None


def _directories(name: str, parent: Path) -> list[Path]:
    """Return the runs' directories by their names, which begin with the time."""
    return sorted(path for path in (parent / name).glob("*") if path.is_dir())


def _read(directory: Path) -> StoredRun | None:
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes())
        run_file = directory / RUN_FILE
        begun = msgspec.json.decode(run_file.read_bytes()) if run_file.exists() else {}
    except (OSError, *UNREADABLE):
        return None
    if not isinstance(manifest, dict):
        return None
    return StoredRun(directory.parent.name, directory, manifest, begun.get("options", {}))
