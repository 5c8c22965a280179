"""SQL: an in-memory relational store of the readings of devices, on SQLite, one database for each shard.

Its state is no reliable collection: those are hashtables and arrays only, so the paper cannot migrate its SQL engine
either and pins it to hosts (section 4). Nor can this one be moved, and it says so when it is tried. Its backups follow
row by row (ours): what a request has written is sent as it stands then, never the statement that wrote it, so a copy
does not hang on what a statement would make of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from microservices.errors import ServiceError, StateError
from microservices.records import Record, RecordService, value_of
from microservices.state import KIND_CHANGES, KIND_SNAPSHOT, State, framed, unframed

READINGS_KEPT = 64  # of each device (ours): a store that only grows would outlive the testbed's memory

_SCHEMA = """
CREATE TABLE device (name TEXT PRIMARY KEY, updates INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reading (device TEXT NOT NULL, place INTEGER NOT NULL, time_s REAL NOT NULL, value REAL NOT NULL,
                      PRIMARY KEY (device, place)) WITHOUT ROWID;
"""
_COUNT_UP = ("INSERT INTO device VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET updates = updates + 1 "
             "RETURNING updates")
_STORE = "INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)"
_DEVICE = "INSERT OR REPLACE INTO device VALUES (?, ?)"
_SUMMARY = "SELECT COUNT(*), AVG(value), MIN(value), MAX(value) FROM reading WHERE device = ?"


Device = tuple[str, int]  # name, updates
Reading = tuple[str, int, float, float]  # device, place, time_s, value


class _Copy(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    sequence: int
    devices: list[Device]
    readings: list[Reading]


class _Rows(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    follows: int
    devices: list[Device]
    readings: list[Reading]


class SqlState(State):
    """A database in memory, in place of reliable collections: it is copied and followed, and neither moved nor cut."""

    __slots__ = ("_written", "database")

    def __init__(self) -> None:
        super().__init__()
        # One thread at a time runs an instance, though not always the same one.
        self.database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.database.executescript(_SCHEMA)
        self._written: list[tuple[Device, Reading]] | None = None  # since changes were last taken, where anybody does

    @property
    def size_bytes(self) -> int:
        (pages,), (page_bytes,) = (self.database.execute(f"PRAGMA {p}").fetchone() for p in ("page_count", "page_size"))
        return int(pages * page_bytes)

    def store(self, device: str, time_s: float, value: float) -> int:
        """Keep a reading of a device, in place of its oldest one if need be; return how many it has had."""
        ((updates,),) = self.database.execute(_COUNT_UP, (device,)).fetchall()
        reading = device, updates % READINGS_KEPT, time_s, value
        self.database.execute(_STORE, reading)
        if self._written is not None:
            self._written.append(((device, updates), reading))
        return int(updates)

    def copy_out(self) -> bytes:
        execute = self.database.execute
        return framed(KIND_SNAPSHOT, _Copy(self.sequence, execute("SELECT * FROM device ORDER BY name").fetchall(),
                                           execute("SELECT * FROM reading ORDER BY device, place").fetchall()))

    def copy_in(self, copy: bytes) -> None:
        image = unframed(KIND_SNAPSHOT, copy, _Copy)
        self._write(image.devices, image.readings, "DELETE FROM device", "DELETE FROM reading")
        self.sequence = image.sequence

    def start_changes(self) -> None:
        self._written = []

    def take_changes(self) -> bytes:
        written = self._written or []
        if self._written is not None:
            self._written = []
        changes = _Rows(self.sequence, [device for device, _ in written], [reading for _, reading in written])
        self.sequence += 1
        return framed(KIND_CHANGES, changes)

    def apply_changes(self, changes: bytes) -> None:
        batch = unframed(KIND_CHANGES, changes, _Rows)
        if batch.follows != self.sequence:
            raise StateError(f"changes follow state {batch.follows}; this is state {self.sequence}")
        self._write(batch.devices, batch.readings)
        self.sequence += 1

    def _write(self, devices: Sequence[Device], readings: Sequence[Reading], *before: str) -> None:
        """Write rows, all of them or none; raises StateError if the database takes one of them not."""
        execute = self.database.execute
        execute("BEGIN")
        try:
            for statement in before:
                execute(statement)
            self.database.executemany(_DEVICE, devices)
            self.database.executemany(_STORE, readings)
            execute("COMMIT")
        except (sqlite3.Error, OverflowError) as error:
            execute("ROLLBACK")
            raise StateError(f"rows that the database does not take: {error}") from error

    def _refuse(self) -> NoReturn:
        raise StateError("SQL state is not in reliable collections and cannot be moved; pin it to its host")

    def snapshot(self) -> bytes:
        self._refuse()

    def restore(self, snapshot: bytes) -> None:
        self._refuse()

    def split(self, owners: Sequence[int]) -> list[State]:
        self._refuse()

    def absorb(self, other: State) -> None:
        self._refuse()


class Sql(RecordService):
    """Op "update" (the usual one) stores the first value and adds how many updates the device has had.

    Op "query" adds [readings kept, their mean, least and greatest value] of the device; the last three None without
    any.
    """

    name = "sql"
    memory_mb = 256
    stateful = True
    host_only = True

    def new_state(self) -> SqlState:
        return SqlState()

    def answer(self, record: Record, state: State, now_s: float) -> int | list[float | None]:
        assert isinstance(state, SqlState)
        if record.op in ("", "update"):
            return state.store(record.key, record.time_s, value_of(record))
        if record.op == "query":
            return list(state.database.execute(_SUMMARY, (record.key,)).fetchone())
        raise ServiceError(f"op {record.op!r}; the store knows update and query")
