"""A machine room in virtual time, measured like a testbed: held against theory, itself and the paper's effects."""

from __future__ import annotations

import msgspec
import pytest

from experiments import queue
from experiments.clients.load import ClientConfig
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import TestbedOptions
from experiments.errors import ExperimentError
from experiments.measurement.measuring import Measurement, Plan
from experiments.measurement.one_queue import (
    CLOSED,
    OPEN,
    Load,
    OneQueue,
    Queue,
    full_rps,
    round_trip_s,
    service_time_s,
    theory,
)
from experiments.measurement.peak import in_closed_loop
from experiments.measurement.simulated_bed import SimulatedBed, calibration_of, measured_on
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS
from microservices.measured import Column
from microservices.profiles import TABLE_1
from nodes.deployment import Deployment, deploy
from nodes.errors import NodeError
from nodes.simulated import NetworkFaults, Simulation
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

KNN = Queue("knn", 12)
SHORT = Plan(2000, 300)


def room(cluster: str, clients: int = 1) -> Inventory:
    return inventory_of(cluster_named(cluster, clients=clients))


def on_node(service: str, node: str, inventory: Inventory, number: int | None = None) -> Deployment:
    application = application_named(service, shards=1, backups=0)
    deployment = deploy(application, {i.number: node for i in application.instances}, inventory)
    return deployment if number is None else msgspec.structs.replace(deployment, number=number)


def config(inventory: Inventory, deployment: Deployment, workload: str, client: str = "c1", number: int = 1,
           **more: object) -> ClientConfig:
    told = ClientConfig(inventory.node(client).ip, number, deployment, workload, timeout_s=1e4, pool=256)
    return msgspec.structs.replace(told, **more)


def measured(cluster: str, deployments: tuple[Deployment, ...], configs: dict[str, ClientConfig],
             plan: Plan = SHORT, clients: int = 1, **pacing: object) -> Measurement:
    bed = SimulatedBed(TestbedOptions(cluster, clients, pacing=Pacing("calibrated", 400.0, **pacing),
                                      deployments=deployments))
    return bed.measure(configs, plan)


@pytest.mark.parametrize(("queue", "utilisation", "within"), [
    (Queue("knn", 12), 0.3, 0.001), (Queue("knn", 12), 0.8, 0.01), (Queue("knn", 2), 0.6, 0.02),
    (Queue("ipsec", 4), 0.7, 0.04)])
def test_an_open_loop_has_the_latency_of_m_d_c(queue: Queue, utilisation: float, within: float) -> None:
    with OneQueue() as one:
        point = one.simulated(queue, Load(OPEN, utilisation), Plan(12_000, 1000), 400.0)
    assert point.mean_s == pytest.approx(theory(queue, Load(OPEN, utilisation), point.offered_rps)[1], rel=within)
    assert point.rps == pytest.approx(point.offered_rps, rel=0.01)
    assert point.busy_cores == pytest.approx(point.rps * service_time_s(queue.service), rel=0.02)
    assert point.holds and not point.bad


@pytest.mark.parametrize("clients", [1, 6, 12, 24, 60])
def test_a_closed_loop_is_as_fast_and_as_slow_as_arithmetic_says(clients: int) -> None:
    with OneQueue() as one:
        point = one.simulated(KNN, Load(CLOSED, clients), Plan(1200, 240), 400.0)
    rps, mean_s = theory(KNN, Load(CLOSED, clients), 0.0)
    assert point.mean_s == pytest.approx(mean_s, rel=1e-4)
    assert point.rps == pytest.approx(rps, rel=0.005)


def test_an_unloaded_request_takes_its_ways_and_its_cost_exactly() -> None:
    with OneQueue() as one:
        point = one.simulated(KNN, Load(CLOSED, 1), Plan(20, 2), 400.0)
    assert [point.p50_s, point.p99_s] == pytest.approx([round_trip_s() + service_time_s("knn")] * 2, rel=1e-9)


def test_the_port_limits_what_the_cores_do_not() -> None:
    inventory = room("liquidio10gx1")
    deployment = on_node("kvs", "s1n1", inventory)
    told = config(inventory, deployment, "kvs", flows=32, window=4)
    found = measured("liquidio10gx1", (deployment,), {"c1": told}, Plan(6000, 3000))
    port = next(p.interface for p in inventory.ports if p.peer == "s1n1")
    use = found.ports[port]
    assert max(use.to_node, use.from_node) == pytest.approx(1.0, abs=0.02)
    assert found.busy_cores("s1n1") < 11
    assert found.throughput_rps == pytest.approx(TABLE_1["kvs"][Column.SMARTNIC].rps, rel=0.1)


def test_the_same_seed_gives_the_same_run_to_the_last_bit_and_another_seed_another() -> None:
    inventory = room("type1x3")
    application = application_named("nfv-fin", shards=1, backups=0)
    deployment = deploy(application, place_in_turn(application, inventory), inventory)

    def once(seed: int) -> Measurement:
        told = config(inventory, deployment, "nfv-fin", rate_rps=300_000.0, seed=seed)
        return measured("type1x3", (deployment,), {"c1": told}, Plan(500, 50))

    assert once(3) == once(3)
    assert once(3).clients["c1"].latencies_s != once(4).clients["c1"].latencies_s


def test_every_reply_is_right_on_a_rack_with_several_smartnics_per_server() -> None:
    inventory = room("type2x2", clients=2)
    application = application_named("rta-sf", shards=2, backups=0)
    deployment = deploy(application, place_in_turn(application, inventory, "mixed"), inventory)
    found = measured("type2x2", (deployment,), {
        name: config(inventory, deployment, "rta-sf", name, i, flows=8) for i, name in ((1, "c1"), (2, "c2"))},
        Plan(1000, 100), clients=2)
    assert not found.bad() and found.verdict.holds
    assert all(result.checked == result.answered > 300 for result in found.clients.values())
    assert set(found.after) == {n.name for n in inventory.nodes if n.role in ("host", "smartnic")}
    passed = [found.delta(n.name, "to_host") for n in inventory.of_role("smartnic")]
    assert sum(count > 0 for count in passed) > 4  # the hosts' flows are spread over their SmartNICs


def starved(service: str, hol_factor: float) -> float:
    """Return the requests/s of a host whose SmartNIC's cores are all busy with `service`."""
    inventory = room("type1x1", clients=2)
    on_host = on_node("kvs", "s1h", inventory)
    on_nic = on_node(service, "s1n1", inventory)
    found = measured("type1x1", (on_host, on_nic), {
        "c1": config(inventory, on_host, "kvs", outstanding=64, flows=32),
        "c2": config(inventory, on_nic, service, "c2", 2, outstanding=24, flows=8)}, Plan(4000, 1000), clients=2,
        assumptions=msgspec.structs.replace(DEFAULTS, hol_factor=hol_factor))
    handled = next(found.delta("s1h", name) for name in found.after["s1h"] if name.startswith("handled kvs"))
    return handled / found.node_window_s("s1h")


def test_a_memory_intensive_microservice_on_the_smartnic_starves_the_host_behind_it() -> None:
    """Section 2.4's head-of-line blocking is nowhere written down: it comes of a slower traffic manager."""
    calm, starving, worse = starved("knn", 4.0), starved("spike", 4.0), starved("spike", 16.0)
    assert starving < 0.5 * calm and worse < 0.5 * starving
    assert starved("spike", 0.0) == pytest.approx(calm, rel=0.05)


def test_a_simulated_bed_stands_in_for_a_testbed() -> None:
    inventory = room("liquidio10gx1")
    deployment = on_node("count", "s1n1", inventory)
    options = TestbedOptions("liquidio10gx1", pacing=Pacing("calibrated", 100.0))
    with SimulatedBed(options) as bed:
        bed.repace(Pacing("calibrated", 200.0), (deployment,))
        found = measured_on(bed, {"c1": in_closed_loop(config(inventory, deployment, "count"), 4)}, Plan(200, 20))
    assert found.time_scale == 200.0 and 200 <= found.replies < 204
    assert found.verdict.holds and found.verdict.figures[0].name == "lateness of virtual time"
    assert {"now_ns", "busy_ns count", "queue_depth", "to_local", "dropped_socket"} <= set(found.after["s1n1"])


def test_what_cannot_be_simulated_is_refused() -> None:
    inventory = room("liquidio10gx1")
    deployment = on_node("count", "s1n1", inventory)
    with pytest.raises(ExperimentError, match="unpaced"):
        SimulatedBed(TestbedOptions("liquidio10gx1"))
    with pytest.raises(ExperimentError, match=r"0\.02"):
        SimulatedBed(TestbedOptions("liquidio10gx1", pacing=Pacing("calibrated"), frame_loss=0.02))
    with pytest.raises(ExperimentError, match="not deployed"):
        measured("liquidio10gx1", (), {"c1": config(inventory, deployment, "count")})
    calibration = calibration_of(Pacing("calibrated"), inventory, (deployment,))
    with pytest.raises(NodeError, match="calibrated"):
        Simulation(inventory, [deployment], NetworkFaults(), calibration=calibration)


def test_a_run_in_which_nothing_comes_through_is_an_error() -> None:
    inventory = room("liquidio10gx1")
    deployment = on_node("count", "s1n1", inventory)
    told = config(inventory, deployment, "count", rate_rps=1e-3)
    with pytest.raises(ExperimentError, match="no request came through"):
        measured("liquidio10gx1", (deployment,), {"c1": told}, Plan(10, 1, most_real_s=0.0))


def test_a_queue_that_is_off_by_more_than_the_bar_does_not_hold_and_is_named() -> None:
    with OneQueue() as one:
        good = one.simulated(KNN, Load(CLOSED, 6), Plan(120, 24), 100.0)
    where = f"{KNN.name}/closed-6"
    names = {source: f"{where}/{source}" for source in (queue.PACKETS, queue.SIMULATED, queue.LONG_SIMULATED)}
    points = dict.fromkeys(names.values(), good)
    rows, holds = queue.judged(points)
    assert holds and len(rows) == 3
    for change in ({"mean_s": good.mean_s * 1.11}, {"rps": good.rps * 0.96}, {"bad": {"lost": 1}},
                   {"holds": False, "reasons": ("CPU of the machine: 99 %",)}):
        rows, holds = queue.judged({**points, names[queue.PACKETS]: msgspec.structs.replace(good, **change)})
        assert not holds and [row[0].endswith("<- off") for row in rows] == [False, True, True]
    assert full_rps(KNN) == pytest.approx(TABLE_1["knn"][Column.SMARTNIC].rps)
