"""Which shard a key belongs to: keys fall into fixed slots, slots onto shards by consistent hashing.

Slots are the unit that moves when a stage is re-sharded, so that state which is not a hashtable (a sketch, a
bitmap) can be cut exactly too. Slots find their shard on a hash ring (Stoica et al., "Chord", SIGCOMM 2001)
with bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018), so no shard holds more than its rounded-up share.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from zlib import crc32

from microservices.errors import ApplicationError

SLOTS = 256
POINTS_PER_MEMBER = 64


def slot_of(key: bytes) -> int:
    """Return the slot, 0 to SLOTS - 1, of a key.

    A multiplication mixes what CRC-32, which is linear, leaves regular in keys that count upwards.
    """
    return (crc32(key) * 0x9E3779B1 >> 24) & 0xFF


class HashRing:
    """A consistent-hash ring: each member stands at `points` places on a circle of 64-bit hashes."""

    def __init__(self, members: Sequence[str], points: int = POINTS_PER_MEMBER) -> None:
        if not members or len(set(members)) != len(members):
            raise ApplicationError(f"ring of {list(members)}; members must be distinct and at least one")
        self.members = tuple(members)
        places = sorted((_place(f"{member}#{i}".encode()), member) for member in members for i in range(points))
        self._places = [place for place, _ in places]
        self._owners = [member for _, member in places]

    def order(self, key: bytes) -> Iterator[str]:
        """Yield every member once, in the order in which the ring offers them to `key`."""
        start = bisect_right(self._places, _place(key))
        seen: set[str] = set()
        for step in range(len(self._owners)):
            member = self._owners[(start + step) % len(self._owners)]
            if member not in seen:
                seen.add(member)
                yield member

    def owner(self, key: bytes) -> str:
        return next(self.order(key))


@lru_cache(maxsize=256)
def slot_owners(shards: int) -> tuple[int, ...]:
    """Return for each slot the shard, 0 to shards - 1, that owns it; raises ApplicationError outside 1..SLOTS."""
    if not 1 <= shards <= SLOTS:
        raise ApplicationError(f"{shards} shards; the limits are 1 and {SLOTS}")
    ring = HashRing([str(shard) for shard in range(shards)])
    room = [-(-SLOTS // shards)] * shards
    owners = []
    for slot in range(SLOTS):
        owner = next(int(member) for member in ring.order(b"slot %d" % slot) if room[int(member)])
        room[owner] -= 1
        owners.append(owner)
    return tuple(owners)


def shard_of(key: bytes, shards: int) -> int:
    return slot_owners(shards)[slot_of(key)]


def _place(key: bytes) -> int:
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")
