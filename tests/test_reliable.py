"""Reliable collections: what goes in comes out, in one piece or in shards."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microservices.errors import StateError
from microservices.reliable import Array, Hashtable, Layout, key_as_bytes
from microservices.sharding import SLOTS, slot_of, slot_owners
from microservices.state import State, reshard

Entries = st.dictionaries(st.binary(max_size=12), st.tuples(st.integers(-2**63, 2**63 - 1), st.floats(allow_nan=False)),
                          max_size=40)
Cells = st.lists(st.tuples(st.integers(0, 2 * SLOTS - 1), st.integers(0, 2**64 - 1)), max_size=40)


def fresh() -> State:
    return State(arrays={"cells": Array("Q", 2 * SLOTS), "total": Array("q", 3, Layout.SUMMED)},
                 hashtables={"table": Hashtable(bytes, tuple[int, float]), "names": Hashtable(str, bytes)})


def filled(entries, cells) -> State:
    state = fresh()
    fill(state, entries, cells)
    return state


def fill(state, entries, cells) -> None:
    for key, value in entries.items():
        state.hashtables["table"][key] = value
        state.hashtables["names"][key.hex()] = key
    for index, value in cells:
        state.arrays["cells"][index] = value
        state.arrays["total"].add(index % 3, value % 1000)


@given(Entries, Cells)
def test_a_restored_state_is_the_one_that_was_snapshot(entries, cells) -> None:
    state = filled(entries, cells)
    other = filled({b"old": (1, 1.0)}, [(0, 5)])
    other.restore(state.snapshot())
    assert other.snapshot() == state.snapshot()
    assert dict(other.hashtables["table"].items()) == entries
    assert other.size_bytes == state.size_bytes


@given(Entries, Entries)
def test_equal_states_have_equal_snapshots_however_they_came_about(first, second) -> None:
    one, other = filled({**first, **second}, []), filled(dict(reversed(second.items())), [])
    for key in sorted(first, reverse=True):
        if key not in second:
            other.hashtables["table"][key] = first[key]
            other.hashtables["names"][key.hex()] = key
    assert one.snapshot() == other.snapshot()


@given(Entries, Cells, st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=30)
def test_shards_together_are_the_whole_and_each_holds_its_own_slots_only(entries, cells, shards, again) -> None:
    state = filled(entries, cells)
    parts = reshard([state], slot_owners(shards))
    assert len(parts) == shards
    for shard, part in enumerate(parts):
        assert all(slot_owners(shards)[slot_of(key)] == shard for key in part.hashtables["table"])
        assert all(slot_owners(shards)[i // 2] == shard for i, v in enumerate(part.arrays["cells"]) if v)
    assert sum(sum(part.arrays["total"]) for part in parts) == sum(state.arrays["total"])
    assert reshard(reshard(parts, slot_owners(again)), slot_owners(1))[0].snapshot() == state.snapshot()


@given(Entries, Cells, Entries, Cells, st.sets(st.binary(max_size=2)))
@settings(max_examples=50)
def test_a_replica_that_follows_the_changes_stays_equal(entries, cells, more, more_cells, removed) -> None:
    primary = filled(entries, cells)
    replica = fresh()
    replica.restore(primary.snapshot())
    primary.start_changes()
    for key in list(primary.hashtables["table"])[::2]:
        primary.hashtables["table"].pop(key)
    fill(primary, more, more_cells)
    for key in removed:
        primary.hashtables["table"].pop(key)
    replica.apply_changes(primary.take_changes())
    assert replica.snapshot() == primary.snapshot()
    fill(primary, entries, cells)
    replica.apply_changes(primary.take_changes())
    assert replica.snapshot() == primary.snapshot()


def test_a_lost_batch_of_changes_is_noticed_and_nothing_of_the_next_is_applied() -> None:
    primary, replica = fresh(), fresh()
    primary.start_changes()
    primary.hashtables["table"][b"a"] = (1, 1.0)
    primary.take_changes()
    primary.hashtables["table"][b"b"] = (2, 2.0)
    before = replica.snapshot()
    with pytest.raises(StateError, match="follow state 1; this is state 0"):
        replica.apply_changes(primary.take_changes())
    assert replica.snapshot() == before


@given(st.data())
def test_a_damaged_snapshot_is_refused_and_leaves_the_state_alone(data) -> None:
    state = filled({b"key": (7, 0.5)}, [(3, 9)])
    good, before = bytearray(state.snapshot()), state.snapshot()
    position = data.draw(st.integers(0, len(good) - 1))
    good[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StateError):
        state.restore(bytes(good))
    with pytest.raises(StateError):
        state.restore(before[:data.draw(st.integers(0, len(before) - 1))])
    assert state.snapshot() == before


@pytest.mark.parametrize("other", [
    State(arrays={"cells": Array("Q", 2 * SLOTS)}),
    State(arrays={"cells": Array("I", 4 * SLOTS), "total": Array("q", 3, Layout.SUMMED)},
          hashtables={"table": Hashtable(bytes, tuple[int, float]), "names": Hashtable(str, bytes)}),
    State(arrays={"cells": Array("Q", 2 * SLOTS), "total": Array("q", 3, Layout.SUMMED)},
          hashtables={"table": Hashtable(bytes, tuple[int, int]), "names": Hashtable(str, bytes)}),
])
def test_a_snapshot_of_another_shape_is_refused(other) -> None:
    with pytest.raises(StateError):
        fresh().restore(other.snapshot())


def test_a_collection_takes_only_what_it_was_declared_for() -> None:
    table: Hashtable = Hashtable(bytes, int)
    for key, value in ((b"k", 1.0), (b"k", None), ("k", 1), (b"k", 2**63), (b"k", True)):
        with pytest.raises(StateError):
            table[key] = value
    assert len(table) == 0 and table.size_bytes == 0
    with pytest.raises(StateError):
        Hashtable(float, int)
    with pytest.raises(StateError):
        Hashtable(bytes, list[int])
    with pytest.raises(StateError, match="multiple of 256"):
        Array("Q", 100)
    with pytest.raises(OverflowError):
        Array("B", SLOTS).add(0, 256)


def test_size_counts_what_is_held() -> None:
    table: Hashtable = Hashtable(str, bytes)
    table["abc"] = b"12345"
    table["abc"] = b"1"
    table["é"] = b""
    assert table.size_bytes == 3 + 1 + 1
    table.pop("abc")
    table.pop("nothing")
    assert table.size_bytes == 1
    assert Array("I", SLOTS).size_bytes == 4 * SLOTS


def test_two_shards_with_the_same_key_do_not_merge() -> None:
    one, other = filled({b"same": (1, 1.0)}, []), filled({b"same": (2, 1.0)}, [])
    with pytest.raises(StateError, match="two shards"):
        reshard([one, other], slot_owners(1))
    with pytest.raises(StateError, match="slot 4 is in use"):
        reshard([filled({}, [(8, 1)]), filled({}, [(9, 1)])], slot_owners(1))


def test_a_tuple_key_is_sharded_by_its_first_element() -> None:
    assert key_as_bytes((b"user", 3)) == b"user"
    assert key_as_bytes("é") == "é".encode()
    assert key_as_bytes(-1) == b"\xff" * 8


def test_every_write_to_a_hashtable_forgets_what_was_derived_from_it() -> None:
    table = Hashtable(bytes, int)
    for write in (lambda: table.__setitem__(b"k", 1), lambda: table.pop(b"k"), lambda: table.replace([(b"a", 2)])):
        table.derived = "something"
        write()
        assert table.derived is None
    table.derived = "something"
    other = Hashtable(bytes, int)
    other[b"b"] = 3
    table.absorb(other)
    assert table.derived is None and table.empty_copy().derived is None
