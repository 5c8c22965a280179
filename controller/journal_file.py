"""A resource controller's journal on disk: what it returns from `append` would survive a crash of the machine."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from controller.errors import MigrationError
from controller.migration_journal import Entry, decode_entries, encode_entry


class FileJournal:
    """The journal at `path`, made if there is none. Holds a lock on it till `close` or the end of the process.

    A line that a crash cut short is cut off. Raises MigrationError for a journal that another process holds, or that
    tells nothing.
    """

    def __init__(self, path: Path) -> None:
        made = not path.exists()
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise MigrationError(f"{path} belongs to a controller that is alive") from None
        try:
            data = path.read_bytes()
            self._entries = decode_entries(data)
            os.ftruncate(self._descriptor, data.rfind(b"\n") + 1)
            if made:
                _sync_directory(path.parent)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, entry: Entry) -> None:
        data = encode_entry(entry)
        written = os.write(self._descriptor, data)
        if written != len(data):
            raise MigrationError(f"{written} of {len(data)} bytes went into the journal: is the disk full?")
        os.fdatasync(self._descriptor)
        self._entries.append(entry)

    def entries(self) -> Sequence[Entry]:
        return tuple(self._entries)

    def close(self) -> None:
        os.close(self._descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
