"""Where replicas stand: evenly, apart, and where they stood before."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import pytest

from controller.fault_domains import Place, faults, next_copy, places_of, ranked
from controller.membership import MembershipError
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

KEYS = [b"instance %d" % i for i in range(400)]


def room(racks: int = 2, servers: int = 3, smartnics: int = 2) -> dict[str, Place]:
    return {name: Place(name, f"{rack}/{server}", rack)
            for rack, server in itertools.product(range(1, racks + 1), range(1, servers + 1))
            for name in (f"r{rack}s{server}h", *(f"r{rack}s{server}n{n}" for n in range(1, smartnics + 1)))}


def repaired(key: bytes, copies: Sequence[str], places: dict[str, Place], usable: Iterable[str], wanted: int = 2,
             fits: Callable[[str], bool] = lambda _: True) -> tuple[str, ...]:
    """Return the usable ones of `copies`, in their order, and new ones up to `wanted` while there is a place."""
    usable = list(usable)
    kept = [name for name in copies if name in usable]
    while len(kept) < wanted and (more := next_copy(key, kept, places, usable, fits)) is not None:
        kept.append(more)
    return tuple(kept)


def test_replicas_never_share_a_fault_domain_and_stand_in_two_racks_where_there_are_two() -> None:
    places = room()
    for key in KEYS:
        primary, backup = repaired(key, (), places, places)
        assert places[primary].domain != places[backup].domain and places[primary].rack != places[backup].rack


def test_with_one_rack_replicas_share_it_but_no_server() -> None:
    places = room(racks=1)
    assert all(len({places[name].domain for name in repaired(key, (), places, places)}) == 2 for key in KEYS)


def test_with_one_server_there_is_one_copy_only() -> None:
    places = room(racks=1, servers=1)
    assert all(len(repaired(key, (), places, places)) == 1 for key in KEYS)


def test_a_death_changes_only_what_the_dead_node_had() -> None:
    places = room()
    before = {key: repaired(key, (), places, places) for key in KEYS}
    for dead in places:
        living = [name for name in places if name != dead]
        for key, copies in before.items():
            after = repaired(key, copies, places, living)
            if dead not in copies:
                assert after == copies
            else:
                (survivor,) = [name for name in copies if name != dead]
                assert after[0] == survivor and len(after) == 2 and not faults({key: after}, places)


def test_a_server_that_dies_whole_leaves_one_copy_of_everything() -> None:
    places = room()
    before = {key: repaired(key, (), places, places) for key in KEYS}
    for domain in {p.domain for p in places.values()}:
        living = [name for name, p in places.items() if p.domain != domain]
        assert all(any(name in living for name in copies) for copies in before.values())


def test_nothing_moves_because_a_node_returned() -> None:
    places = room()
    living = [name for name in places if name != "r1s1h"]
    stands = {key: repaired(key, (), places, living) for key in KEYS}
    assert all(repaired(key, copies, places, places) == copies for key, copies in stands.items())


def test_ranks_of_the_others_do_not_change_with_a_node() -> None:
    places = room()
    for key in KEYS[:50]:
        with_all = ranked(key, places.values())
        without = ranked(key, [p for p in places.values() if p.name != "r1s1h"])
        assert [p for p in with_all if p.name != "r1s1h"] == without


def test_keys_spread_in_proportion_to_weight_and_so_do_those_of_a_dead_node() -> None:
    places = [Place(str(i), str(i), 1, weight) for i, weight in enumerate((1, 1, 2, 4))]
    first = Counter(ranked(b"key %d" % i, places)[0].name for i in range(20_000))
    for place in places:
        assert first[place.name] / 20_000 == pytest.approx(place.weight / 8, rel=0.05)
    heirs = Counter(order[1].name for i in range(20_000) if (order := ranked(b"key %d" % i, places))[0].name == "3")
    for place in places[:3]:
        assert heirs[place.name] / heirs.total() == pytest.approx(place.weight / 4, rel=0.05)


def test_a_change_of_weight_moves_keys_only_to_or_from_that_node() -> None:
    before = [Place(str(i), str(i), 1) for i in range(5)]
    after = [*before[:4], before[4]._replace(weight=3.0)]
    for key in KEYS:
        was, now = ranked(key, before)[0].name, ranked(key, after)[0].name
        assert was == now or now == "4"


def test_a_full_node_is_passed_over() -> None:
    places = room()
    for key in KEYS[:50]:
        best = ranked(key, places.values())[0].name
        assert best not in repaired(key, (), places, places, fits=lambda name, best=best: name != best)
    assert repaired(b"k", (), places, places, fits=lambda _: False) == ()


def test_as_many_copies_as_are_wanted_all_apart() -> None:
    places = room(racks=3)
    for key in KEYS[:50]:
        copies = repaired(key, (), places, places, wanted=4)
        assert len({places[name].domain for name in copies}) == 4 and len({places[name].rack for name in copies}) == 3


def test_after_any_row_of_deaths_and_returns_no_two_copies_share_a_domain() -> None:
    places, draw = room(), random.Random(1)
    stands = {key: repaired(key, (), places, places) for key in KEYS[:40]}
    for _ in range(100):
        living = draw.sample(sorted(places), draw.randint(1, len(places)))
        stands = {key: repaired(key, copies, places, living) for key, copies in stands.items()}
        assert not faults(stands, places)


def test_two_copies_in_one_domain_are_said() -> None:
    (said,) = faults({b"k": ("r1s1h", "r1s1n1"), b"l": ("r1s1h", "r1s2h")}, room())
    assert "r1s1n1" in said and b"k".decode() in said


def test_a_cluster_of_the_paper_has_one_domain_per_server() -> None:
    places = places_of(inventory_of(cluster_named("type2x3")))
    assert {p.domain for p in places.values()} == {"1/1", "1/2", "1/3"}
    assert places["s1h"].domain == places["s1n1"].domain == places["s1n2"].domain
    assert places["s1h"].weight > places["s1n1"].weight
    assert next_copy(b"k", ["s1h"], places, ["s1n1", "s1n2"]) is None


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(MembershipError, match="weight 0"):
        ranked(b"k", [Place("a", "a", 1, 0)])
