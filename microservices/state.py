"""The state of one microservice instance: its named reliable collections, as bytes when it moves or is replicated.

A snapshot and a batch of changes share one frame, all integers big-endian:

    4 bytes "E3RC" | 1 byte version | 1 byte kind (1 snapshot, 2 changes) | 16 bytes BLAKE2b of the body | msgpack body

Equal states have equal snapshots. The digest finds damage, not forgery. Snapshots and changes carry a sequence number:
changes apply only to the state that they follow, so a lost batch is noticed. Applying is all or nothing.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from microservices.errors import StateError
from microservices.reliable import Array, Hashtable, Layout
from topologies.unreadable import UNREADABLE

MAGIC = b"E3RC"
VERSION = 1
KIND_SNAPSHOT = 1
KIND_CHANGES = 2
DIGEST_BYTES = 16
HEADER_BYTES = len(MAGIC) + 2 + DIGEST_BYTES


class _ArrayImage(msgspec.Struct, array_like=True):
    code: str
    layout: str
    cells: bytes  # little-endian


class _TableImage(msgspec.Struct, array_like=True):
    key: str
    value: str
    entries: list[Any]


class _Snapshot(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    sequence: int
    arrays: dict[str, _ArrayImage]
    hashtables: dict[str, _TableImage]


class _TableChanges(msgspec.Struct, array_like=True):
    entries: list[Any]
    removed: list[Any]


class _Changes(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    follows: int
    arrays: dict[str, list[tuple[int, int | float]]]
    hashtables: dict[str, _TableChanges]


class State:
    """Named arrays and hashtables. A handler reaches them as `state.arrays[...]` and `state.hashtables[...]`."""

    __slots__ = ("arrays", "hashtables", "sequence")

    def __init__(self, *, arrays: Mapping[str, Array[Any]] | None = None,
                 hashtables: Mapping[str, Hashtable[Any, Any]] | None = None) -> None:
        self.arrays: dict[str, Array[Any]] = dict(sorted((arrays or {}).items()))
        self.hashtables: dict[str, Hashtable[Any, Any]] = dict(sorted((hashtables or {}).items()))
        self.sequence = 0

    @property
    def size_bytes(self) -> int:
        return sum(a.size_bytes for a in self.arrays.values()) + sum(t.size_bytes for t in self.hashtables.values())

    def snapshot(self) -> bytes:
        return framed(KIND_SNAPSHOT, _Snapshot(
            self.sequence,
            {n: _ArrayImage(a.code, a.layout.value, _little_endian(a)) for n, a in self.arrays.items()},
            {n: _TableImage(_type_name(t.key_type), _type_name(t.value_type), t.items())
             for n, t in self.hashtables.items()}))

    def restore(self, snapshot: bytes) -> None:
        """Become what `snapshot` says; raises StateError, and changes nothing, if it is not of a state like this."""
        image = unframed(KIND_SNAPSHOT, snapshot, _Snapshot)
        self._same_names(image.arrays, image.hashtables)
        cells: dict[str, array[Any]] = {}
        for name, mine in self.arrays.items():
            theirs = image.arrays[name]
            if (theirs.code, theirs.layout, len(theirs.cells)) != (mine.code, mine.layout.value, mine.size_bytes):
                raise StateError(f"array {name!r}: the snapshot holds {len(theirs.cells)} bytes of {theirs.code!r}, "
                                 f"{theirs.layout}; this state {mine.size_bytes} of {mine.code!r}, {mine.layout.value}")
            cells[name] = array(mine.code, theirs.cells)
            if sys.byteorder == "big":
                cells[name].byteswap()
        tables: dict[str, Hashtable[Any, Any]] = {}
        for name, table in self.hashtables.items():
            held = image.hashtables[name]
            wanted = (_type_name(table.key_type), _type_name(table.value_type))
            if (held.key, held.value) != wanted:
                raise StateError(f"hashtable {name!r}: the snapshot maps {held.key} to {held.value}; "
                                 f"this state {wanted[0]} to {wanted[1]}")
            tables[name] = table.empty_copy()
            tables[name].replace(_entries(name, table, held.entries))
        for name, fresh in cells.items():
            self.arrays[name].replace(fresh)
        for name, other in tables.items():
            self.hashtables[name].replace(other.items())
        self.sequence = image.sequence

    def copy_out(self) -> bytes:
        """Return all of this state for a backup: a snapshot, but for a state that is replicated and cannot be moved."""
        return self.snapshot()

    def copy_in(self, copy: bytes) -> None:
        """Become what `copy_out` returned; raises StateError, and changes nothing, if it is of another kind."""
        self.restore(copy)

    def start_changes(self) -> None:
        """Begin to note changes; until then writing costs nothing extra and `take_changes` finds none."""
        for cells in self.arrays.values():
            cells.track()
        for table in self.hashtables.values():
            table.track()

    def take_changes(self) -> bytes:
        """Return what has changed since the last call, as bytes, and count one step of the sequence."""
        cells = {name: a.take_changed() for name, a in self.arrays.items()}
        tables = {name: _TableChanges(*t.take_changed()) for name, t in self.hashtables.items()}
        changes = _Changes(self.sequence, {name: c for name, c in cells.items() if c},
                           {name: t for name, t in tables.items() if t.entries or t.removed})
        self.sequence += 1
        return framed(KIND_CHANGES, changes)

    def apply_changes(self, changes: bytes) -> None:
        """Follow another state by one batch; raises StateError, and changes nothing, on a gap or a misfit."""
        batch = unframed(KIND_CHANGES, changes, _Changes)
        if batch.follows != self.sequence:
            raise StateError(f"changes follow state {batch.follows}; this is state {self.sequence}")
        unknown = (batch.arrays.keys() - self.arrays.keys()) | (batch.hashtables.keys() - self.hashtables.keys())
        if unknown:
            raise StateError(f"changes to unknown collections {sorted(unknown)}")
        for name, cells in batch.arrays.items():
            trial: Array[Any] = Array(self.arrays[name].code, 1, Layout.SUMMED)
            for index, value in cells:
                if not 0 <= index < len(self.arrays[name]):
                    raise StateError(f"array {name!r}: cell {index} of {len(self.arrays[name])}")
                try:
                    trial[0] = value
                except (OverflowError, TypeError) as error:
                    raise StateError(f"array {name!r}: cell {index} cannot hold {value!r}") from error
        tables = {}
        for name, change in batch.hashtables.items():
            table = self.hashtables[name]
            checked = table.empty_copy()
            checked.replace(_entries(name, table, change.entries))
            tables[name] = checked.items(), _converted(name, change.removed, list[table.key_type])  # type: ignore[name-defined]
        for name, cells in batch.arrays.items():
            for index, value in cells:
                self.arrays[name][index] = value
        for name, (entries, removed) in tables.items():
            for key in removed:
                self.hashtables[name].pop(key)
            for key, value in entries:
                self.hashtables[name][key] = value
        self.sequence += 1

    def split(self, owners: Sequence[int]) -> list[State]:
        """Cut the state by slot: `owners[slot]` is the shard that gets the slot; this state stays as it is."""
        shards = max(owners) + 1
        arrays = {name: a.split(owners, shards) for name, a in self.arrays.items()}
        tables = {name: t.split(owners, shards) for name, t in self.hashtables.items()}
        return [State(arrays={name: parts[shard] for name, parts in arrays.items()},
                      hashtables={name: parts[shard] for name, parts in tables.items()}) for shard in range(shards)]

    def absorb(self, other: State) -> None:
        """Take over another shard's state; raises StateError where both own the same slot or key."""
        self._same_names(other.arrays, other.hashtables)
        for name, cells in other.arrays.items():
            self.arrays[name].absorb(cells)
        for name, table in other.hashtables.items():
            self.hashtables[name].absorb(table)

    def _same_names(self, arrays: Mapping[str, object], hashtables: Mapping[str, object]) -> None:
        if arrays.keys() != self.arrays.keys() or hashtables.keys() != self.hashtables.keys():
            raise StateError(f"collections {sorted((*arrays, *hashtables))}; "
                             f"this state has {sorted((*self.arrays, *self.hashtables))}")


def reshard(states: Sequence[State], owners: Sequence[int]) -> list[State]:
    """Return the states of max(owners) + 1 shards that together hold what `states` hold (at least one)."""
    whole = states[0].split([0] * len(owners))[0]
    for state in states[1:]:
        whole.absorb(state)
    return whole.split(owners)


_ENCODER = msgspec.msgpack.Encoder()


def framed(kind: int, body: msgspec.Struct) -> bytes:
    """Return `body` in the frame that the module describes."""
    packed = _ENCODER.encode(body)
    return b"".join((MAGIC, bytes((VERSION, kind)), blake2b(packed, digest_size=DIGEST_BYTES).digest(), packed))


def unframed(kind: int, frame: bytes, shape: Any) -> Any:
    """Return the body of a frame, of type `shape`; raises StateError for one of another kind, or damaged."""
    if len(frame) < HEADER_BYTES:
        raise StateError(f"got {len(frame)} bytes, {HEADER_BYTES} needed at least")
    if frame[:4] != MAGIC or frame[4] != VERSION or frame[5] != kind:
        raise StateError(f"frame starts {frame[:6].hex()}; expected {(MAGIC + bytes((VERSION, kind))).hex()}")
    body = frame[HEADER_BYTES:]
    if blake2b(body, digest_size=DIGEST_BYTES).digest() != frame[6:HEADER_BYTES]:
        raise StateError(f"the digest does not fit the {len(body)} bytes that follow it")
    try:
        return msgspec.msgpack.decode(body, type=shape)
    except UNREADABLE as error:
        raise StateError(f"frame of kind {kind}: {error}") from error


def _converted(name: str, values: list[Any], shape: Any) -> list[Any]:
    try:
        return msgspec.convert(values, shape)
    except msgspec.ValidationError as error:
        raise StateError(f"hashtable {name!r}: {error}") from error


def _entries(name: str, table: Hashtable[Any, Any], entries: list[Any]) -> list[tuple[Any, Any]]:
    return _converted(name, entries, list[tuple[table.key_type, table.value_type]])  # type: ignore[name-defined]


def _little_endian(cells: Array[Any]) -> bytes:
    if sys.byteorder == "little":
        return bytes(cells.view())
    swapped: array[Any] = array(cells.code, cells)
    swapped.byteswap()
    return swapped.tobytes()


def _type_name(declared: Any) -> str:
    return declared.__name__ if isinstance(declared, type) and not hasattr(declared, "__args__") else str(declared)
