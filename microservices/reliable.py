"""The paper's two reliable collections, a hashtable and an array, typed and fast to use (sections 2.1 and 4).

A collection is a plain dict or array underneath. It knows its size in bytes, what has changed since changes were
last taken, and how to be cut into shards and put together again. `state.py` turns collections into bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, Generic, TypeVar, get_args, get_origin

from microservices.errors import StateError
from microservices.sharding import SLOTS, slot_of

K = TypeVar("K")
V = TypeVar("V")
N = TypeVar("N", int, float)

SCALARS: tuple[type, ...] = (int, float, str, bytes)
KEY_SCALARS: tuple[type, ...] = (int, str, bytes)
# Array codes whose width is the same on every machine, with that width in bytes.
CELL_BYTES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4, "d": 8}


class Layout(Enum):
    """How an array is cut into shards."""

    SLICED = "sliced"  # equal consecutive runs of cells, one for each slot; a run moves with its slot
    SUMMED = "summed"  # totals of the whole shard: the first shard keeps them, merging adds them up


class Hashtable(Generic[K, V]):
    """A mapping of one key type to one value type, both immutable: int, float (values), str, bytes, tuples of them.

    An entry belongs to the slot of its key's bytes (of its first element's, for a tuple), so a microservice that
    is sharded must key its tables by what its `key_of` returns. Iteration is in sorted order, so that a handler
    that iterates stays deterministic after a restore.

    `derived` is for what a handler has worked out from the content and would work out again: every write sets it to
    None, and it neither counts nor travels.
    """

    __slots__ = ("_changed", "_items", "_key_bytes", "_size_bytes", "_value_bytes", "derived", "get", "key_type",
                 "value_type")

    def __init__(self, key: type[K], value: type[V]) -> None:
        self.key_type, self.value_type = key, value
        self._key_bytes = _sizer(key, KEY_SCALARS)
        self._value_bytes = _sizer(value, SCALARS)
        self._items: dict[K, V] = {}
        self._size_bytes = 0
        self._changed: set[K] | None = None
        self.derived: Any = None
        # The dict's own method: a read costs what a dict's read costs.
        self.get: Callable[..., Any] = self._items.get

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[K]:
        return iter(sorted(self._items))  # type: ignore[type-var]

    def items(self) -> list[tuple[K, V]]:
        return [(key, self._items[key]) for key in self]

    def unsorted(self) -> Iterable[tuple[K, V]]:
        """Yield the entries in no order that a handler may let its outputs depend on."""
        return self._items.items()

    def __setitem__(self, key: K, value: V) -> None:
        """Set an entry; raises StateError if key or value is not of the declared type."""
        key_bytes = self._key_bytes(key)
        grown = key_bytes + self._value_bytes(value)
        old = self._items.get(key)
        if old is not None:
            grown -= key_bytes + self._value_bytes(old)
        self._items[key] = value
        self._size_bytes += grown
        self.derived = None
        if self._changed is not None:
            self._changed.add(key)

    def pop(self, key: K) -> V | None:
        """Remove an entry and return its value, or None if there was none."""
        old = self._items.pop(key, None)
        self.derived = None
        if old is not None:
            self._size_bytes -= self._key_bytes(key) + self._value_bytes(old)
            if self._changed is not None:
                self._changed.add(key)
        return old

    @property
    def size_bytes(self) -> int:
        """Bytes of the keys and values themselves: what moves in a migration, before framing."""
        return self._size_bytes

    def track(self) -> None:
        self._changed = set()

    def take_changed(self) -> tuple[list[tuple[K, V]], list[K]]:
        """Return (entries set, keys removed) since tracking began or this was last called, and forget them."""
        changed = sorted(self._changed or ())  # type: ignore[type-var]
        if self._changed is not None:
            self._changed = set()
        return [(k, self._items[k]) for k in changed if k in self._items], [k for k in changed if k not in self._items]

    def replace(self, entries: Sequence[tuple[K, V]]) -> None:
        """Make `entries` the whole content; on StateError the old content stays."""
        size = sum(self._key_bytes(key) + self._value_bytes(value) for key, value in entries)
        fresh = dict(entries)
        if len(fresh) != len(entries):
            raise StateError(f"{len(entries) - len(fresh)} keys appear more than once")
        if self._changed is not None:
            self._changed |= self._items.keys() | fresh.keys()
        self._items.clear()
        self._items.update(fresh)
        self._size_bytes = size
        self.derived = None

    def empty_copy(self) -> Hashtable[K, V]:
        return Hashtable(self.key_type, self.value_type)

    def split(self, owners: Sequence[int], shards: int) -> list[Hashtable[K, V]]:
        parts = [self.empty_copy() for _ in range(shards)]
        for key, value in self._items.items():
            parts[owners[slot_of(key_as_bytes(key))]][key] = value
        return parts

    def absorb(self, other: Hashtable[K, V]) -> None:
        """Take over the entries of another shard; raises StateError if both hold the same key."""
        both = self._items.keys() & other._items.keys()
        if both:
            raise StateError(f"{len(both)} keys stand in two shards, {min(both)!r} among them")  # type: ignore[type-var]
        for key, value in other._items.items():
            self[key] = value


class Array(Generic[N]):
    """A fixed number of cells of one numeric type, all 0 at first.

    `code` is that of the standard library's array: "I" and "Q" unsigned 32 and 64 bits, "d" double, and so on. A value
    that a cell cannot hold raises OverflowError, an index outside IndexError; neither changes anything.
    """

    __slots__ = ("_cells", "_changed", "code", "layout")

    def __init__(self, code: str, length: int, layout: Layout = Layout.SLICED) -> None:
        if code not in CELL_BYTES:
            raise StateError(f"array code {code!r}; known: {' '.join(CELL_BYTES)}")
        if length < 1 or (layout is Layout.SLICED and length % SLOTS):
            raise StateError(f"array of {length} cells, {layout.value}; the least is 1, and sliced needs a multiple "
                             f"of {SLOTS}")
        self.code, self.layout = code, layout
        self._cells: array[Any] = array(code, bytes(length * CELL_BYTES[code]))
        self._changed: set[int] | None = None

    def __getitem__(self, index: int) -> N:
        return self._cells[index]

    def __setitem__(self, index: int, value: N) -> None:
        self._cells[index] = value
        if self._changed is not None:
            self._changed.add(index)

    def add(self, index: int, amount: N) -> N:
        """Fetch-and-add: increase a cell and return its new value."""
        value: N = self._cells[index] + amount
        self._cells[index] = value
        if self._changed is not None:
            self._changed.add(index)
        return value

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[N]:
        return iter(self._cells)

    def view(self) -> memoryview:
        """Return the cells read-only and without copying, for numpy.frombuffer and the like."""
        return memoryview(self._cells).toreadonly()

    @property
    def size_bytes(self) -> int:
        return len(self._cells) * self._cells.itemsize

    def track(self) -> None:
        self._changed = set()

    def take_changed(self) -> list[tuple[int, N]]:
        """Return (index, value) of the cells written since tracking began or this was last called; forget them."""
        length = len(self._cells)
        changed = sorted({index % length for index in self._changed or ()})
        if self._changed is not None:
            self._changed = set()
        return [(index, self._cells[index]) for index in changed]

    def replace(self, cells: Sequence[N]) -> None:
        """Make `cells` the whole content; raises StateError on another length."""
        fresh: array[Any] = array(self.code, cells)
        if len(fresh) != len(self._cells):
            raise StateError(f"{len(fresh)} cells for an array of {len(self._cells)}")
        self._cells[:] = fresh
        if self._changed is not None:
            self._changed = set(range(len(fresh)))

    def empty_copy(self) -> Array[N]:
        return Array(self.code, len(self._cells), self.layout)

    def split(self, owners: Sequence[int], shards: int) -> list[Array[N]]:
        parts = [self.empty_copy() for _ in range(shards)]
        if self.layout is Layout.SUMMED:
            parts[0]._cells[:] = self._cells
            return parts
        run = len(self._cells) // SLOTS
        for slot in range(SLOTS):
            cells = slice(slot * run, (slot + 1) * run)
            parts[owners[slot]]._cells[cells] = self._cells[cells]
        return parts

    def absorb(self, other: Array[N]) -> None:
        """Take over another shard's cells; raises StateError where both hold something in one slot."""
        if self.layout is Layout.SUMMED:
            for index, amount in enumerate(other._cells):
                self.add(index, amount)
            return
        run = len(self._cells) // SLOTS
        for slot in range(SLOTS):
            cells = slice(slot * run, (slot + 1) * run)
            if not any(other._cells[cells]):
                continue
            if any(self._cells[cells]):
                raise StateError(f"slot {slot} is in use in two shards")
            self._cells[cells] = other._cells[cells]
            if self._changed is not None:
                self._changed.update(range(slot * run, (slot + 1) * run))


def key_as_bytes(key: object) -> bytes:
    """Return what a hashtable's key is sharded by: its UTF-8, its 8 bytes, or those of a tuple's first element."""
    if isinstance(key, tuple):
        key = key[0]
    if isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return key.encode()
    if isinstance(key, int):
        return (key % 2**64).to_bytes(8, "big")
    raise StateError(f"key {key!r}; a key is an int, a str, bytes, or a tuple that starts with one")


def _sizer(declared: Any, scalars: tuple[type, ...]) -> Callable[[Any], int]:
    """Return a function that checks one value against `declared` and returns its size in bytes."""
    if declared is int:
        def size(value: Any) -> int:
            if type(value) is not int or not -2**63 <= value < 2**63:
                raise StateError(f"{value!r} is not an int of 64 bits")
            return 8
    elif declared is float and float in scalars:
        def size(value: Any) -> int:
            if type(value) is not float:
                raise StateError(f"{value!r} is not a float")
            return 8
    elif declared in (bytes, str):
        def size(value: Any) -> int:
            if type(value) is not declared:
                raise StateError(f"{value!r} is not {declared.__name__}")
            return len(value)
    elif get_origin(declared) is tuple and get_args(declared) and Ellipsis not in get_args(declared):
        parts = [_sizer(part, scalars) for part in get_args(declared)]

        def size(value: Any) -> int:
            if type(value) is not tuple or len(value) != len(parts):
                raise StateError(f"{value!r} is not a tuple of {len(parts)}")
            return sum(part(element) for part, element in zip(parts, value, strict=True))
    else:
        raise StateError(f"type {declared!r}; a collection holds {', '.join(s.__name__ for s in scalars)} "
                         "and fixed tuples of them")
    return size
