"""HCM: the fast one does exactly what Algorithm 1 does, and that is what the paper says of it."""

from __future__ import annotations

import random

import pytest
from hcm_reference import Reference
from placement_cases import random_application, random_cluster, random_demand, random_state

from controller.placement.compute_nodes import PLANNED_UTILISATION
from controller.placement.constraints import ClusterState
from controller.placement.demand import Behaviour, demand_of
from controller.placement.hcm import hcm
from microservices.application import Application, Channel, Stage
from microservices.applications import APPLICATIONS, application_named
from topologies.catalog import cluster_named
from topologies.distance import Level

CASES, BATCH = 2000, 100


@pytest.mark.parametrize("batch", range(CASES // BATCH))
def test_the_fast_one_places_exactly_as_the_reference_does(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = random.Random(seed)
        state = random_state(rng, random_cluster(rng))
        for number in range(rng.randint(1, 3)):  # on what the ones before have left
            demand = random_demand(rng, state, random_application(rng, number=number))
            wanted = Reference(state).ms_dag_traverse(demand, {})
            found = hcm(demand, state)
            assert found == wanted, seed
            lost = {n for n in found if rng.random() < 0.3}
            for n in lost:
                state.give_back(demand.needs[n], found[n])
            survivors = {n: node for n, node in found.items() if n not in lost}
            wanted = Reference(state).ms_dag_traverse(demand, survivors)
            assert hcm(demand, state, survivors) == wanted, seed


def test_where_each_has_one_ancestor_the_algorithm_read_literally_is_the_same() -> None:
    for seed in range(200):
        rng = random.Random(seed)
        state = random_state(rng, random_cluster(rng))
        demand = random_demand(rng, state, random_application(rng, one_ancestor=True))
        wanted = Reference(state).ms_dag_traverse(demand, {}, literally=True)
        assert hcm(demand, state) == wanted, seed


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_papers_applications_are_placed_as_by_the_reference(name: str) -> None:
    state = ClusterState(cluster_named("type2x4/3"))
    demand = demand_of(application_named(name), 5000.0, state.nodes)
    wanted = Reference(state).ms_dag_traverse(demand, {})
    assert hcm(demand, state) == wanted


def chain(*services: str) -> Application:
    stages = tuple(Stage(f"s{k}", service) for k, service in enumerate(services))
    return Application("chain", 1, stages, tuple(Channel(f"s{k}", f"s{k + 1}") for k in range(len(stages) - 1)))


def places(cluster: str, application: Application, rps: float, **behaviours: Behaviour) -> list[str]:
    state = ClusterState(cluster_named(cluster))
    where = hcm(demand_of(application, rps, state.nodes, behaviours=behaviours), state)
    return [state.nodes.nodes[where[n]].name for n in sorted(where)]


def of_smartnic(share: float) -> Behaviour:
    """A microservice that takes `share` of a LiquidIO at 1,000 requests/s, and next to nothing of a Xeon."""
    return Behaviour(execution_s={"cnmips": 12 * PLANNED_UTILISATION * share / 1000, "xeon": 1e-9})


def test_a_descendant_stays_with_its_ancestor_while_there_is_room() -> None:
    assert places("type1x3", chain("count", "ema", "kvs"), 1000.0) == ["s1n1"] * 3


def test_then_it_goes_over_pcie_to_the_host_and_only_then_over_the_tor() -> None:
    full = of_smartnic(0.9)
    assert places("type1x3", chain("count", "ema"), 1000.0, s0=full, s1=full) == ["s1n1", "s1h"]
    nic_only = Behaviour(execution_s=full.execution_s, pin="smartnic")
    assert places("type1x3", chain("count", "ema"), 1000.0, s0=full, s1=nic_only) == ["s1n1", "s2n1"]


def test_from_a_full_server_smartnics_of_others_come_before_their_hosts() -> None:
    everywhere = Behaviour(execution_s=dict.fromkeys(("cnmips", "xeon"), 0.9 * 12 * PLANNED_UTILISATION / 1000))
    assert places("type1x3", chain("count", "ema", "kvs", "natv4"), 1000.0,
                  s0=everywhere, s1=everywhere, s2=everywhere, s3=everywhere) == ["s1n1", "s1h", "s2n1", "s2h"]


def test_a_sibling_smartnic_is_as_far_as_one_of_another_server() -> None:
    nic_only = Behaviour(execution_s={"cnmips": 0.4 * 12 * PLANNED_UTILISATION / 1000}, pin="smartnic")
    state = ClusterState(cluster_named("type2x2"))
    busy = demand_of(Application("busy", 2, (Stage("one", "kvs"),), ()), 1000.0, state.nodes,
                     behaviours={"one": nic_only})
    state.take(busy.needs[0], state.nodes.node("s2n1").index)
    demand = demand_of(chain("count", "ema"), 1000.0, state.nodes,
                       behaviours={"s0": of_smartnic(0.9), "s1": nic_only})
    where = hcm(demand, state)
    # Of all SmartNICs behind the ToR the one that has least left is the best fit, and that is no sibling.
    assert [state.nodes.nodes[where[n]].name for n in (0, 1)] == ["s1n1", "s2n1"]


def test_backups_are_in_another_fault_domain_and_in_another_rack_if_there_is_one() -> None:
    for cluster, level in (("type1x3", Level.RACK_SMARTNIC), ("type1x3/2", Level.POD_SMARTNIC)):
        state = ClusterState(cluster_named(cluster))
        demand = demand_of(application_named("nfv-fin", 3, 2 if cluster == "type1x3" else 1), 1000.0, state.nodes)
        where = hcm(demand, state)
        for need in demand.needs:
            if need.primary >= 0:
                here, there = where[need.primary], where[need.number]
                assert state.nodes.server_of[here] != state.nodes.server_of[there]
                assert state.nodes.level(here, there) >= level


def test_what_fits_nowhere_goes_to_the_node_closest_to_the_constraints() -> None:
    state = ClusterState(cluster_named("type1x2"))
    need = Behaviour(execution_s={"cnmips": 1.0, "xeon": 0.1})
    demand = demand_of(chain("count"), 200.0, state.nodes, behaviours={"s0": need})  # 20 cores of a host's 12
    where = hcm(demand, state)
    assert state.nodes.nodes[where[0]].name == "s1h"


def test_an_instance_that_has_no_memory_anywhere_is_left_out() -> None:
    state = ClusterState(cluster_named("type1x2"))
    demand = demand_of(chain("count", "ema"), 1.0, state.nodes, behaviours={"s1": Behaviour(memory_mb=1e9)})
    assert hcm(demand, state).keys() == {0}


def test_the_random_cases_reach_every_level_and_every_way_out() -> None:
    levels, overcommitted, left_out, backups = set(), 0, 0, 0
    for seed in range(300):
        rng = random.Random(seed)
        state = random_state(rng, random_cluster(rng))
        demand = random_demand(rng, state, random_application(rng))
        where = hcm(demand, state)
        levels |= {state.nodes.level(where[a], where[b]) for a, b, _ in demand.edges if a in where and b in where}
        overcommitted += any(min(state.free[n]) < 0 for n in where.values())
        left_out += len(where) < len(demand.needs)
        backups += any(need.primary >= 0 for need in demand.needs)
    assert levels == set(Level) and overcommitted > 50 and left_out > 20 and backups > 50
