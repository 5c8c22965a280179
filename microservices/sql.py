"""SQL: an in-memory relational store of the readings of devices, on SQLite, one database for each shard.

Its state is no reliable collection: those are hashtables and arrays only, so the paper cannot migrate its SQL engine
either and pins it to hosts (section 4). Nor can this one be moved, and it says so when it is tried.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NoReturn

from microservices.errors import ServiceError, StateError
from microservices.records import Record, RecordService, value_of
from microservices.state import State

READINGS_KEPT = 64  # of each device (ours): a store that only grows would outlive the testbed's memory

_SCHEMA = """
CREATE TABLE device (name TEXT PRIMARY KEY, updates INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE reading (device TEXT NOT NULL, place INTEGER NOT NULL, time_s REAL NOT NULL, value REAL NOT NULL,
                      PRIMARY KEY (device, place)) WITHOUT ROWID;
"""
_COUNT_UP = ("INSERT INTO device VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET updates = updates + 1 "
             "RETURNING updates")
_STORE = "INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)"
_SUMMARY = "SELECT COUNT(*), AVG(value), MIN(value), MAX(value) FROM reading WHERE device = ?"


class SqlState(State):
    """A database in memory, in place of reliable collections."""

    __slots__ = ("database",)

    def __init__(self) -> None:
        super().__init__()
        # One thread at a time runs an instance, though not always the same one.
        self.database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self.database.executescript(_SCHEMA)

    @property
    def size_bytes(self) -> int:
        (pages,), (page_bytes,) = (self.database.execute(f"PRAGMA {p}").fetchone() for p in ("page_count", "page_size"))
        return int(pages * page_bytes)

    def _refuse(self) -> NoReturn:
        raise StateError("SQL state is not in reliable collections and cannot be moved; pin it to its host")

    def snapshot(self) -> bytes:
        self._refuse()

    def restore(self, snapshot: bytes) -> None:
        self._refuse()

    def start_changes(self) -> None:
        self._refuse()

    def take_changes(self) -> bytes:
        self._refuse()

    def apply_changes(self, changes: bytes) -> None:
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
        execute = state.database.execute
        if record.op in ("", "update"):
            value = value_of(record)
            ((updates,),) = execute(_COUNT_UP, (record.key,)).fetchall()
            execute(_STORE, (record.key, updates % READINGS_KEPT, record.time_s, value))
            return int(updates)
        if record.op == "query":
            return list(execute(_SUMMARY, (record.key,)).fetchone())
        raise ServiceError(f"op {record.op!r}; the store knows update and query")
