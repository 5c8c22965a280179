"""Links between switches die at random: every flow still arrives wherever a way leads up and then down."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tor_lookup import Pipeline, packet_of

from controller.fabric_repair import End, ends_of, links_of, repair
from controller.select_hash import FlowKey
from controller.tor_program import UPLINK_GROUP, TorProgram, programs_of
from controller.tor_rules import difference
from topologies import addressing as at
from topologies.catalog import cluster_named
from topologies.cluster import Cluster, Fabric
from topologies.inventory import Inventory, inventory_of, switch_links

CLUSTERS: dict[str, Cluster] = {
    "two pods": cluster_named("type1x1/4"),
    "several NICs": cluster_named("type2:2x2/4"),
    "one pod": cluster_named("type1x1/2"),
    "three pods, the last of one rack": cluster_named("beefyx1/5"),
    "wide": replace(cluster_named("beefyx1/6"), fabric=Fabric(3, 3, 1)),
    "narrow": replace(cluster_named("beefyx1/4"), fabric=Fabric(2, 1, 1)),
}
TIERS = {"tor": 0, "agg": 1, "core": 2}


@cache
def room(name: str) -> tuple[Inventory, dict[str, TorProgram]]:
    inventory = inventory_of(CLUSTERS[name])
    return inventory, programs_of(inventory)


def ends(inventory: Inventory) -> list[tuple[End, End]]:
    return [(End(a.switch, a.port), End(b.switch, b.port)) for a, b in switch_links(inventory)]


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, frozenset[End]]:
    """A cluster and dead ends: often both of a link, sometimes one that its peer does not see."""
    name = draw(st.sampled_from(list(CLUSTERS)))
    links = ends(room(name)[0])
    hit = draw(st.lists(st.tuples(st.sampled_from(links), st.sampled_from(("both", "both", 0, 1))), max_size=8))
    return name, frozenset(end for link, which in hit for end in (link if which == "both" else (link[int(which)],)))


def has_way(inventory: Inventory, dead: Collection[End], source: str, target: str) -> bool:
    """Search for a way of living links that leads up and then down: no program is asked."""
    living = [(a.switch, b.switch) for a, b in ends(inventory) if not {a, b} & set(dead)]
    tier = {s.name: TIERS[s.tier] for s in inventory.switches}
    todo, seen = deque([(source, True)]), {(source, True)}
    while todo:
        here, rising = todo.popleft()
        if here == target:
            return True
        for a, b in (*living, *((b, a) for a, b in living)):
            up = tier[b] > tier[a]
            step = b, rising and up
            if a == here and (rising or not up) and step not in seen:
                seen.add(step)
                todo.append(step)
    return False


def way(inventory: Inventory, programs: dict[str, TorProgram], dead: Collection[End], source: int, target: int,
        sport: int) -> tuple[list[str], str]:
    """Follow a flow by tables and hashes from rack to rack; return the switches passed, and "" or what ended it."""
    across = {}
    for a, b in ends(inventory):
        across[a], across[b] = b, a
    client = next(p for p in inventory.ports_of_switch(f"tor{source}") if p.peer == f"r{source}c1")
    flow = FlowKey(at.client_ip(source, 1), at.client_ip(target, 1), 17, sport, at.DATA_PORT)
    here, packet = f"tor{source}", packet_of(flow, client.port)
    passed = [here]
    while len(passed) <= 5:
        own = {p.port for p in inventory.ports_of_switch(here)}
        live = own - {e.port for e in dead if e.switch == here}
        verdict = Pipeline(programs[here]).look_up(packet, live)
        if verdict.port is None:
            return passed, verdict.rules[-1]
        out = End(here, verdict.port)
        if out not in across:
            return passed, ""
        if out in dead or across[out] in dead:
            return passed, f"into the dead link at {here}"
        here, packet = across[out].switch, {**verdict.fields, "in_port": across[out].port}
        passed.append(here)
    return passed, "in a circle"


@settings(max_examples=150, deadline=None)
@given(broken(), st.integers(0, 10_000))
def test_every_flow_arrives_wherever_there_is_a_way_and_else_is_dropped_by_a_rule_that_says_so(
        case: tuple[str, frozenset[End]], sport: int) -> None:
    inventory, programs = room(case[0])
    dead = case[1]
    now = repair(programs, dead).programs
    racks = len(CLUSTERS[case[0]].racks)
    for source in range(1, racks + 1):
        for target in range(1, racks + 1):
            if source == target:
                continue
            passed, ended = way(inventory, now, dead, source, target, sport)
            if has_way(inventory, dead, f"tor{source}", f"tor{target}"):
                assert (ended, passed[-1]) == ("", f"tor{target}"), passed
            else:
                assert ended.startswith("no way left to ") and passed == [f"tor{source}"]


@settings(max_examples=60, deadline=None)
@given(broken(), st.integers(0, 10_000))
def test_flows_of_ways_that_live_stay_on_them(case: tuple[str, frozenset[End]], sport: int) -> None:
    inventory, programs = room(case[0])
    now = repair(programs, case[1]).programs
    for target in range(2, len(CLUSTERS[case[0]].racks) + 1):
        before, _ = way(inventory, programs, (), 1, target, sport)
        if way(inventory, programs, case[1], 1, target, sport) == (before, ""):
            assert way(inventory, now, case[1], 1, target, sport) == (before, "")


@settings(max_examples=60, deadline=None)
@given(broken(), broken(), st.integers(0, 10_000), st.data())
def test_switches_that_change_one_after_the_other_make_no_loop(
        case: tuple[str, frozenset[End]], later: tuple[str, frozenset[End]], sport: int, data: st.DataObject) -> None:
    inventory, programs = room(case[0])
    old = repair(programs, case[1]).programs
    new = repair(programs, later[1] if later[0] == case[0] else ()).programs
    mixed = {name: (new if data.draw(st.booleans()) else old)[name] for name in programs}
    for target in range(2, len(CLUSTERS[case[0]].racks) + 1):
        assert way(inventory, mixed, (), 1, target, sport)[1] != "in a circle"


@pytest.mark.parametrize("name", CLUSTERS)
def test_with_nothing_dead_the_programs_are_as_they_were(name: str) -> None:
    inventory, programs = room(name)
    client = next(p for p in inventory.ports if p.peer == "r1c1")
    for nothing in ((), (End("tor1", client.port),), (End("tor99", 1),)):
        made = repair(programs, nothing)
        assert (made.programs, made.dead, made.reroutes) == (programs, (), None)


@settings(max_examples=60, deadline=None)
@given(broken())
def test_switches_without_a_stake_in_what_is_dead_keep_their_program_and_groups_are_never_changed(
        case: tuple[str, frozenset[End]]) -> None:
    _, programs = room(case[0])
    made = repair(programs, case[1])
    for name, program in programs.items():
        changes = difference(program, made.programs[name])
        assert bool(changes) == (name in (made.reroutes or {}))
        assert not changes.groups_changed and not changes.groups_deleted
        back = difference(made.programs[name], program)
        assert not back.groups_changed and not back.groups_added


def test_a_cut_between_aggregation_and_rack_concerns_one_rack_only() -> None:
    _, programs = room("two pods")
    made = repair(programs, ends_of(programs, ("agg1-tor1",)))
    assert made.dead == ("agg1-tor1",)
    assert made.reroutes == {
        "tor1": ("other racks not by tor1-agg1",), "tor2": ("rack 1 not by tor2-agg1",),
        "tor3": ("rack 1 not by tor3-agg3",), "tor4": ("rack 1 not by tor4-agg3",), "agg1": ("no way left to rack 1",),
        "agg3": ("no way left to rack 1",), "core1": ("no way left to rack 1",), "core2": ("no way left to rack 1",)}
    both = repair(programs, ends_of(programs, ("agg1-tor1", "tor1-agg1")))
    assert both.dead == ("agg1-tor1", "tor1-agg1")
    assert "tor1" not in (both.reroutes or {})  # whose group sees its own port
    for name in ("tor2", "tor3", "tor4"):
        usual, extra = made.programs[name].groups[-2:]
        assert (usual.group_id, extra.group_id) == (UPLINK_GROUP, UPLINK_GROUP + 1)
        assert extra.buckets == usual.buckets[1:] and extra.hash_parameter == usual.hash_parameter


def test_a_cut_between_core_and_aggregation_leaves_the_other_cores() -> None:
    _, programs = room("two pods")
    made = repair(programs, ends_of(programs, ("agg3-core1", "core1-agg3")))
    assert made.reroutes == {"agg1": ("rack 3 not by agg1-core1", "rack 4 not by agg1-core1"),
                             "core1": ("no way left to rack 3", "no way left to rack 4")}


def test_a_rack_without_uplinks_can_reach_nobody_and_nobody_it() -> None:
    _, programs = room("one pod")
    made = repair(programs, ends_of(programs, ("tor1-agg1", "agg1-tor1", "tor1-agg2", "agg2-tor1")))
    assert made.reroutes == {"tor1": ("no way left to other racks",), "tor2": ("no way left to rack 1",),
                             "agg1": ("no way left to rack 1",), "agg2": ("no way left to rack 1",)}


def test_what_comes_down_does_not_go_up_even_where_a_way_up_is_left_out() -> None:
    inventory, programs = room("two pods")
    made = repair(programs, ends_of(programs, ("agg1-tor1",))).programs["tor3"]
    port = {p.interface: p.port for p in inventory.ports_of_switch("tor3")}
    flow = FlowKey(at.host_ip(4, 1), at.host_ip(1, 1), 17, 7, at.DATA_PORT)
    for interface in ("tor3-agg3", "tor3-agg4"):
        verdict = Pipeline(made).look_up(packet_of(flow, port[interface]))
        assert (verdict.port, verdict.rules[-1]) == (None, f"back to rack 1 by {interface}, dropped")


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_links_that_the_programs_know_are_those_of_the_inventory(name: str) -> None:
    inventory, programs = room(name)
    assert links_of(programs) == {one: other for a, b in ends(inventory) for one, other in ((a, b), (b, a))}
    assert links_of({"tor1": programs["tor1"]}) == {}


def test_a_rack_alone_has_nothing_to_repair() -> None:
    programs = programs_of(inventory_of(cluster_named("type1x3")))
    assert links_of(programs) == {} and repair(programs, [End("tor1", 1)]).programs == programs
