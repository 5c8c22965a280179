"""Where results go: results/NAME/RUN-ID/, its manifest written last and at once.

A directory without manifest.json is a run that did not finish. If it has a run.json, which says with what options it
was begun, it can be resumed.
"""

from __future__ import annotations

import csv
import fcntl
import importlib.metadata
import io
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from experiments.errors import ExperimentError
from experiments.runs.run_options import RunOptions
from topologies.unreadable import UNREADABLE

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "results"
MANIFEST, RUN_FILE = "manifest.json", "run.json"
LIBRARIES = ("mininet", "ryu", "os-ken", "scapy", "dpkt", "numpy", "scipy", "cryptography", "msgspec")


class Run:
    """One run's directory. `finish` makes it a result.

    `Run(name)` is begun and finished in one go; `Run.begin` makes one that can be resumed (points.py).
    """

    def __init__(self, name: str, parent: Path = RESULTS) -> None:
        run_id = time.strftime("%Y%m%d-%H%M%S-", time.gmtime()) + secrets.token_hex(2)
        self.name = name
        self.directory = parent / name / run_id
        self.sessions: list[dict[str, Any]] = []
        self._began = time.time()
        self._lock = -1
        try:
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise ExperimentError(f"cannot make {self.directory}: {error.strerror}") from error

    @classmethod
    def begin(cls, name: str, options: RunOptions, parent: Path = RESULTS) -> Run:
        """Begin a run that can be resumed or, if `options` say so, go on with the latest unfinished one.

        Raises ExperimentError if there is none, if it was begun with other options, or if it is still going on.
        """
        if options.resume:
            run = cls._latest_unfinished(name, options, parent)
        else:
            run = cls(name, parent)
            run._take()
        run.sessions.append({"began_unix_s": time.time(), "git_commit": _commit()})
        write_whole(run.directory / RUN_FILE, msgspec.json.format(msgspec.json.encode(
            {"name": name, "options": options.identity(), "sessions": run.sessions}), indent=1))
        run._give_to_owner()
        return run

    @classmethod
    def _latest_unfinished(cls, name: str, options: RunOptions, parent: Path) -> Run:
        found = sorted((d for d in (parent / name).glob("*") if (d / RUN_FILE).exists()
                        and not (d / MANIFEST).exists()), key=lambda d: (d.name.rsplit("-", 1)[0], d.stat().st_mtime))
        if not found:
            raise ExperimentError(f"there is no unfinished run of {name} in {parent / name} to resume; begin one "
                                  "without --resume")
        run = cls.__new__(cls)
        run.name, run.directory, run._lock = name, found[-1], -1
        run._take()
        said = _begun(run)
        before, now = said.options, options.identity()
        differing = [f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
                     for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if differing:
            run.release()
            raise ExperimentError(f"cannot resume {run.directory}: {'; '.join(differing)}. Give the options that it "
                                  "was begun with, or begin another without --resume")
        run.sessions = said.sessions
        run._began = run.sessions[0]["began_unix_s"]
        return run

    def _take(self) -> None:
        """Keep others from resuming this run as long as this process lives."""
        self._lock = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            raise ExperimentError(f"cannot resume {self.directory}: it is still going on elsewhere") from error

    def release(self) -> None:
        """Leave the run to whoever resumes it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._give_to_owner()

    def write_data(self, rows: Sequence[Mapping[str, Any]], name: str = "data.csv") -> Path:
        """Write `rows`, all with the same columns, as a CSV file with a head line. Returns its path."""
        path = self.directory / name
        write_whole(path, csv_of(rows).encode())
        return path

    def finish(self, content: dict[str, Any]) -> Path:
        """Write the manifest: `content`, and what machine and code made it. Returns its path."""
        manifest = {"name": self.name, "began_unix_s": self._began, "took_s": time.time() - self._began,
                    **environment(), **content}
        if self.sessions:
            manifest["sessions"] = self.sessions
        path = self.directory / MANIFEST
        write_whole(path, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
        self.release()
        return path

    def _give_to_owner(self) -> None:
        """Under sudo, leave results to whoever owns the checkout, as far as the directories above go."""
        owner = ROOT.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            for path in (self.directory.parent.parent, self.directory.parent, self.directory,
                         *self.directory.rglob("*")):
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def write_whole(path: Path, content: bytes) -> None:
    """Write `path` so that it is there whole or, whatever happens meanwhile, as it was before."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # the new name, too
    finally:
        os.close(directory)


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows` as CSV (RFC 4180, with line feeds), the columns in the order of the first row.

    Raises ExperimentError for a row with other columns.
    """
    columns = list(rows[0]) if rows else []
    for number, row in enumerate(rows, start=1):
        if set(row) != set(columns):
            raise ExperimentError(f"row {number} has the columns {', '.join(row)}; the first has {', '.join(columns)}")
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def environment() -> dict[str, Any]:
    """Return what a reader needs to make sense of a result: code, kernel, switch, libraries, cores."""
    return {"git_commit": _commit(),
            "git_changed": bool(_said("git", "-C", str(ROOT), "status", "--porcelain")),
            "kernel": platform.release(), "python": platform.python_version(), "cores": os.cpu_count(),
            "open_vswitch": (_said("ovs-vswitchd", "--version").splitlines() or ["unknown"])[0],
            "libraries": {name: _version(name) for name in LIBRARIES}}


class _Begun(msgspec.Struct):
    options: dict[str, Any]
    sessions: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]


def _begun(run: Run) -> _Begun:
    path = run.directory / RUN_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Begun)
    except (OSError, *UNREADABLE) as error:
        run.release()
        raise ExperimentError(f"cannot resume {run.directory}: {path.name} cannot be read: {error}") from error


def _commit() -> str:
    return _said("git", "-C", str(ROOT), "rev-parse", "HEAD")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _said(*argv: str) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):  # a manifest without it is better than none
        return ""
