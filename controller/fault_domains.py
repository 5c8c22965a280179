"""Where replicas stand: weighted rendezvous hashing, and no two of them in one fault domain.

A server with its host and all its SmartNICs is one fault domain, since they share a power supply (section 3.5). The
paper's failover manager uses consistent hashing (its reference is Chord); here each key ranks all nodes by a score of
its own (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", ToN 1998), weighted as in
Schindelhauer and Schomaker, "Weighted distributed hash tables" (SPAA 2005). That has what a ring has: a node that goes
takes only its own keys with it. And what a ring lacks: load after a death spreads over all the living, in proportion to
weight, without hundreds of points on a circle per node; and "the next one that may have it" is simply the next in rank.

What stands is left standing: a repair keeps the survivors, in their order, and adds what is missing. So nothing moves
because a node returned, and nothing moves but what a dead node had.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple

from controller.membership import MembershipError
from topologies.inventory import Inventory


class Place(NamedTuple):
    """A compute node as a place for replicas: `domain` is its server, `weight` its share of keys, in any unit."""

    name: str
    domain: str
    rack: int
    weight: float = 1.0


Places = Mapping[str, Place]
Fits = Callable[[str], bool]  # whether a node has room for one more


def places_of(inventory: Inventory) -> dict[str, Place]:
    """Return the hosts and SmartNICs of a machine room, by name, weighted by their memory."""
    return {n.name: Place(n.name, f"{n.rack}/{n.server}", n.rack, n.memory_gb) for n in inventory.nodes
            if n.role in ("host", "smartnic")}


def ranked(key: bytes, places: Iterable[Place]) -> list[Place]:
    """Return `places` in the order in which `key` prefers them; raises MembershipError for a weight not above 0."""
    return sorted(places, key=lambda place: (-_score(key, place), place.name))


def _score(key: bytes, place: Place) -> float:
    if place.weight <= 0:
        raise MembershipError(f"{place.name} has weight {place.weight}; it must be above 0")
    digest = blake2b(key, digest_size=8, salt=b"rank", person=blake2b(place.name.encode(), digest_size=16).digest())
    uniform = (int.from_bytes(digest.digest(), "big") + 0.5) / 2**64  # never 0; 1 for one in 2^53
    return place.weight / -math.log(uniform) if uniform < 1 else math.inf


def anywhere(_: str) -> bool:
    """Say of every node that it has room."""
    return True


def next_copy(key: bytes, copies: Sequence[str], places: Places, usable: Iterable[str],
              fits: Fits = anywhere) -> str | None:
    """Return where one more copy of `key` should stand beside `copies`; None where it may stand nowhere.

    Never in the domain of another copy; in a rack without one where that is possible. `places` has to know all names.
    """
    racks = {places[name].rack for name in copies}
    domains = {places[name].domain for name in copies}
    order = [p for p in ranked(key, (places[name] for name in usable)) if p.domain not in domains and fits(p.name)]
    return next((p.name for p in order if p.rack not in racks), order[0].name if order else None)


def faults(copies: Mapping[bytes, Sequence[str]], places: Places) -> list[str]:
    """Return a sentence for each key that has two of its copies in one fault domain; the empty list is good."""
    found = []
    for key, names in copies.items():
        domains = [places[name].domain for name in names]
        if len(set(domains)) != len(domains):
            found.append(f"{key!r} stands on {', '.join(names)}, in domains {', '.join(domains)}")
    return found
