"""The journal of a world: what it made, written down before it is made, and the lock that says it lives.

One JSON object per line. The owner of a world holds a POSIX record lock on its journal: the kernel drops
it when the owner dies, however it dies, and forks do not inherit it. Its one trap: a process that opens
and closes its own journal a second time loses the lock, so the owner must leave that file alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nodes.errors import WorldError

RUN_ROOT = Path("/run/e3")
JOURNAL_NAME = "journal.jsonl"
WORLD_ID = re.compile(r"w[0-9a-f]{6}")

# Record locks never conflict within one process, so a process must remember which journals are its own.
_held: dict[Path, int] = {}


class Journal:
    """An append-only file of what a world made; one write per line, so that a killed owner loses none."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path) -> Journal:
        """Make the journal at `path` and lock it for this process; raises FileExistsError if there is one."""
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND, 0o600)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _held[path] = os.getpid()
        return cls(path, descriptor)

    def note(self, what: str, **facts: Any) -> None:
        """Write one line: `what` is about to be made, or has been, with its `facts` (JSON values)."""
        os.write(self._descriptor, json.dumps({"what": what, **facts}).encode() + b"\n")

    def close(self) -> None:
        """Let go of the file and of the lock."""
        _held.pop(self.path, None)
        os.close(self._descriptor)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the journal's lines; a line that was cut short, or no file at all, counts as nothing written."""
    try:
        return _entries(path.read_bytes())
    except OSError:
        return []


def take_over(run_dir: Path) -> tuple[int, list[dict[str, Any]]] | None:
    """Lock a dead world's journal; return the descriptor that holds the lock, and its lines. None if it lives.

    A run directory without a journal belongs to a start or a stop that was cut short: its journal is
    made, so that there is something to lock. Call it under `room_lock`, which no start is half through.
    """
    path = run_dir / JOURNAL_NAME
    if _held.get(path) == os.getpid():
        return None
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor, _entries(os.pread(descriptor, os.fstat(descriptor).st_size, 0))


def is_alive(run_dir: Path) -> bool:
    """Say whether the world in `run_dir` has a living owner. Makes nothing.

    Raises WorldError where the caller may not look.
    """
    path = run_dir / JOURNAL_NAME
    if _held.get(path) == os.getpid():
        return True
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    except PermissionError as error:
        raise WorldError(f"cannot look at {path}: it needs root: run it with sudo") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _entries(data: bytes) -> list[dict[str, Any]]:
    lines = []
    for line in data.split(b"\n"):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and isinstance(entry.get("what"), str):
                lines.append(entry)
    return lines


def run_dirs(root: Path = RUN_ROOT) -> list[Path]:
    """Return the run directories of all worlds, living and dead, by id; whatever else lies there is not ours."""
    try:
        return sorted(p for p in root.iterdir() if WORLD_ID.fullmatch(p.name) and p.is_dir())
    except OSError:
        return []


@contextlib.contextmanager
def room_lock(root: Path = RUN_ROOT) -> Iterator[None]:
    """Hold the machine's one lock over making and removing worlds; blocks while another process has it.

    The lock is on the directory itself, so that it leaves no file; whoever leaves last removes an
    empty one, which is why a locked directory must be looked up again. Raises WorldError where the
    directory cannot be made.
    """
    while True:
        try:
            root.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise WorldError(f"cannot make {root}: {error.strerror}") from error
        try:
            descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(root).st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            root.rmdir()
        os.close(descriptor)
