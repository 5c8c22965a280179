"""What a placement is predicted to do: from Table 1 by hand, and in the directions that the paper gives."""

from __future__ import annotations

import pytest

from controller.errors import PlacementError
from controller.placement.ceiling import ceiling_rps
from controller.placement.compute_nodes import PLANNED_UTILISATION
from controller.placement.constraints import ClusterState
from controller.placement.demand import Behaviour, Demand, demand_of, visits
from controller.placement.placing import place
from controller.placement.prediction import _Use, _wait_s, one_way_s, predict
from microservices.application import Application, Channel, Stage
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS
from microservices.profiles import TABLE_1, Column
from topologies.catalog import TYPE1, cluster_named


def one(service: str, rps: float, cluster: str = "liquidio10gx1") -> tuple[Demand, ClusterState]:
    state = ClusterState(cluster_named(cluster))
    return demand_of(application_named(service, 1, 0), rps, state.nodes), state


@pytest.mark.parametrize("service", ["knn", "spike", "bm25", "top_ranker"])
def test_a_smartnic_that_the_cores_limit_carries_what_table_1_says(service: str) -> None:
    demand, state = one(service, 1000.0)
    found = predict([(demand, {0: state.nodes.node("s1n1").index})], state.nodes)
    assert found.most_rps == pytest.approx(TABLE_1[service][Column.SMARTNIC].rps) and "cores of s1n1" in found.limit


def test_a_network_bound_one_is_limited_by_the_port() -> None:
    demand, state = one("kvs", 1000.0)
    found = predict([(demand, {0: state.nodes.node("s1n1").index})], state.nodes)
    assert found.most_rps == pytest.approx(10e9 / 8 / 578) and "ports" in found.limit


def test_power_at_the_peak_is_idle_power_and_table_1s() -> None:
    row = TABLE_1["knn"]
    demand, state = one("knn", row[Column.SMARTNIC].rps)
    on_nic = predict([(demand, {0: state.nodes.node("s1n1").index})], state.nodes)
    assert on_nic.watts == pytest.approx(TYPE1.idle_watts + row[Column.SMARTNIC].active_watts)
    demand, state = one("knn", row[Column.LINUX].rps)
    on_host = predict([(demand, {0: state.nodes.node("s1h").index})], state.nodes)
    assert on_host.watts == pytest.approx(TYPE1.idle_watts + row[Column.LINUX].active_watts)
    assert on_host.requests_per_joule == pytest.approx(row[Column.LINUX].rps / on_host.watts)
    assert on_host.latency_s is None  # at the peak the queue has no end


def test_no_server_draws_more_than_table_4s_peak() -> None:
    state = ClusterState(cluster_named("type1x1"))
    demand = demand_of(application_named("rta-ptc", 1, 0), 40_000.0, state.nodes)
    nic, host = state.nodes.node("s1n1").index, state.nodes.node("s1h").index
    assert predict([(demand, {0: host, 1: nic, 2: host})], state.nodes).watts <= TYPE1.peak_watts


def test_ways_between_nodes_are_the_papers_ratios() -> None:
    _, state = one("kvs", 1.0, "type2x2/4")
    costs = demand_of(application_named("kvs", 1, 0), 1.0, state.nodes).costs

    def way(here: str, there: str) -> float:
        return one_way_s(state.nodes, costs, state.nodes.node(here).index, state.nodes.node(there).index)
    bypass = DEFAULTS.host_host_rtt_s / 2
    assert way("r1s1n1", "r1s1h") == pytest.approx(bypass * (1 - 0.833))
    assert way("r1s1n1", "r1s2n1") == way("r1s1n1", "r1s1n2") == pytest.approx(bypass * (1 - 0.862))
    assert way("r1s1h", "r1s2h") == pytest.approx(bypass * DEFAULTS.linux_rtt_factor)
    assert way("r1s1n1", "r2s1n1") == pytest.approx(way("r1s1n1", "r1s2n1") + 2 * DEFAULTS.tor_s)
    assert way("r1s1n1", "r3s1n1") == pytest.approx(way("r1s1n1", "r1s2n1") + 4 * DEFAULTS.tor_s)
    assert way("r1s1n1", "r1s1n1") == DEFAULTS.in_node_s


def test_waiting_is_that_of_the_formula_for_one_server_and_tabulated_for_more() -> None:
    assert _wait_s(_Use({"a": 0.5}, {"a": 0.5}), 1, 1.0) == pytest.approx(1.0)  # rho/(1-rho) x service time
    # Erlang's C for 5 servers and 4 erlang is 0.5541; the wait C / (c - a) x service time.
    assert _wait_s(_Use({"a": 4.0}, {"a": 4.0}), 5, 1.0) == pytest.approx(0.5541, rel=1e-3)


def test_latency_adds_execution_ways_and_waits_along_the_path_to_the_reply() -> None:
    stages = (Stage("first", "count"), Stage("second", "ema"), Stage("aside", "kvs"))
    application = Application("walk", 1, stages, (Channel("first", "second"), Channel("first", "aside", answers=False)))
    state = ClusterState(cluster_named("type1x2"))
    slow = {name: Behaviour(execution_s={"cnmips": 1e-3, "xeon": 1e-3}) for name in ("first", "second", "aside")}
    demand = demand_of(application, 1.0, state.nodes, behaviours=slow)
    a, b = state.nodes.node("s1n1").index, state.nodes.node("s2n1").index
    found = predict([(demand, {0: a, 1: b, 2: b})], state.nodes)
    way = one_way_s(state.nodes, demand.costs, a, b)
    client = one_way_s(state.nodes, demand.costs, None, a)
    assert found.latency_s == pytest.approx(2e-3 + way + 2 * client, rel=1e-3)
    assert found.mean_distance == 3.0 and found.distances == {3: 2.0}


def test_side_branches_and_triggers_count_for_what_they_carry() -> None:
    assert visits(application_named("iot-ts")) == {"api": 1.0, "sql": 1.0, "ema": 0.5, "spike": 0.5, "recommend": 0.5}
    state = ClusterState(cluster_named("type1x3"))
    demand = demand_of(application_named("iot-ts", 12, 0), 1000.0, state.nodes)
    assert sum(traffic for *_, traffic in demand.edges) == pytest.approx(1.0 + 3 * 0.5)


def test_a_placement_for_the_ceiling_cannot_carry_more_and_for_half_of_it_is_found() -> None:
    for name in ("nfv-fin", "iot-dh", "rta-shm"):
        state = ClusterState(cluster_named("type1x3"))
        application = application_named(name, 12, 0)
        ceiling = ceiling_rps(application, state)
        half = demand_of(application, ceiling / 2, state.nodes)
        found = predict([(half, place(half, state).where)], state.nodes)
        assert ceiling / 2 <= found.most_rps <= ceiling / PLANNED_UTILISATION * 1.0001
        with pytest.raises(PlacementError):
            place(demand_of(application, ceiling * 1.01, state.nodes), ClusterState(state.nodes), "annealing")


def test_hcm_keeps_channels_shorter_than_spreading_does() -> None:
    means = {}
    for algorithm in ("hcm", "annealing"):
        state = ClusterState(cluster_named("type2x4"))
        demand = demand_of(application_named("nfv-fin", 12, 0), 500_000.0, state.nodes)
        means[algorithm] = predict([(demand, place(demand, state, algorithm).where)], state.nodes).mean_distance
    assert means["hcm"] < means["annealing"]


def test_nothing_placed_and_nothing_to_bound_are_refused() -> None:
    state = ClusterState(cluster_named("type1x1"))
    with pytest.raises(PlacementError, match="nothing is placed"):
        predict([], state.nodes)
