"""Consistent hashing: even shares, and little moves when a shard comes."""

from collections import Counter

import pytest

from microservices.errors import ApplicationError
from microservices.sharding import SLOTS, HashRing, shard_of, slot_of, slot_owners


@pytest.mark.parametrize("shards", [1, 2, 3, 6, 10, 12, 100, 256])
def test_no_shard_owns_more_than_its_rounded_up_share_of_slots(shards) -> None:
    owned = Counter(slot_owners(shards))
    assert len(slot_owners(shards)) == SLOTS
    assert max(owned.values()) <= -(-SLOTS // shards)


def test_shards_outside_the_limits_are_refused() -> None:
    for shards in (0, SLOTS + 1):
        with pytest.raises(ApplicationError, match="limits are 1 and 256"):
            slot_owners(shards)


def test_one_shard_more_moves_few_slots() -> None:
    """A modulo would move 11 of 12; the least possible is 1 of 12 (21 slots)."""
    moved = [sum(a != b for a, b in zip(slot_owners(n), slot_owners(n + 1), strict=True)) for n in range(2, 24)]
    least = [SLOTS // (n + 1) for n in range(2, 24)]
    assert all(m <= 2 * at_least + 8 for m, at_least in zip(moved, least, strict=True)), moved


def test_only_the_keys_of_a_member_that_leaves_the_ring_move() -> None:
    members = [f"node{i}" for i in range(10)]
    before, after = HashRing(members), HashRing(members[:4] + members[5:])
    for i in range(500):
        key = b"key %d" % i
        if before.owner(key) != "node4":
            assert after.owner(key) == before.owner(key)
        else:
            assert after.owner(key) == list(before.order(key))[1]


def test_keys_that_count_upwards_spread_evenly() -> None:
    counts = Counter(slot_of(i.to_bytes(4, "big")) for i in range(100 * SLOTS))
    assert len(counts) == SLOTS
    # Chi-square with 255 degrees of freedom: 330 is its 99.9th percentile.
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 330
    assert {shard_of(b"%d" % i, 12) for i in range(1000)} == set(range(12))
