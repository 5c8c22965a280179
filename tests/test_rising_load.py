"""A load that rises on a rack with a live orchestrator: how long it takes, what is told, and that instances move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.control_requests import ToldTimeline
from controller.controller_events import ControllerEvent
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import TestbedOptions
from experiments.errors import ExperimentError
from experiments.measurement.host_starvation import starved_host
from experiments.measurement.measuring import Plan
from experiments.measurement.rising_load import Rise, curve_of, decisions, risen_virtually
from experiments.measurement.simulated_bed import SimulatedBed
from experiments.measurement.smartnic_first import placed_on_smartnics
from experiments.views.fig7_chart import RiseCurve, RiseData
from experiments.views.figures import chart_of, stored
from microservices.applications import application_named
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3", clients=3))


def on_smartnics(name: str, shards: int) -> Deployment:
    graph = application_named(name, shards, 0)
    return deploy(graph, placed_on_smartnics(graph, RACK), RACK)


def test_a_rise_waits_for_as_many_turns_as_the_fullest_node_has_instances() -> None:
    few, many = (Rise(on_smartnics("rta-sf", shards), 4, 36, OverloadOptions()).pauses() for shards in (3, 12))
    assert many.light_s == pytest.approx(4 * few.light_s) and many.quiet_s > few.quiet_s > 1.0
    assert few.light_s > OverloadOptions().warm_up_reports * 4 * 0.05  # four instances on each SmartNIC
    longer = replace(OverloadOptions(), warm_up_reports=20)
    assert Rise(on_smartnics("rta-sf", 3), 4, 36, longer).pauses().light_s > few.light_s


def test_one_client_is_there_from_the_start_and_the_others_bring_the_rest() -> None:
    first, others = Rise(on_smartnics("rta-sf", 3), 4, 37, OverloadOptions()).clients(RACK)
    assert {name: c.outstanding for name, c in first.items()} == {"c1": 4}
    assert {name: c.outstanding for name, c in others.items()} == {"c2": 17, "c3": 16}
    assert len({c.client_number for c in (*first.values(), *others.values())}) == 3


def test_decisions_are_moves_and_alarms_that_moved_nothing_in_order_of_time() -> None:
    graph = application_named("rta-sf", 1, 0)
    names = {f"rta-sf/{i.name}": i for i in graph.instances}
    lines = [ToldTimeline(1, "rta-sf/bayes-1", "s1n1", "s1h", "microservice overload; the highest", "moved", "s1h", 9,
                          12.5, {}),
             ToldTimeline(2, "rta-sf/spike-1", "s1n1", "s1h", "host starvation; next", "stayed", "s1n1", 9, 14.0, {})]
    events = [ControllerEvent(1, 13.0, "verdict", "s2n1", detail="microservice overload; nothing moves: full"),
              ControllerEvent(2, 12.5, "verdict", "s1n1", "rta-sf/bayes-1", detail="microservice overload: to s1h")]
    found = decisions(events, lines, names, 10.0)
    assert [(d.at_s, d.cause, d.service, d.destination) for d in found] == [
        (2.5, "microservice overload", "bayes", "s1h"), (3.0, "microservice overload", "", ""),
        (4.0, "host starvation", "spike", "")]
    assert found[1].why == "nothing moves: full" and found[1].source == "s2n1"


@pytest.fixture(scope="module")
def bed() -> SimulatedBed:
    return SimulatedBed(TestbedOptions("type1x3", clients=2, pacing=Pacing("calibrated")))


def test_under_a_rising_load_instances_move_live_and_every_request_is_answered_rightly(bed: SimulatedBed) -> None:
    rise = Rise(on_smartnics("rta-sf", 3), 4, 36, OverloadOptions(movable=("bayes",)))
    found = risen_virtually(bed, rise, Plan(1500, 300))
    moves = found.outcome.moves
    assert moves and {m.service for m in moves} == {"bayes"} and found.quiet
    assert all(m.destination == m.source.replace("n1", "h") and 0 < m.at_s < 10 for m in moves)
    assert {line.outcome for line in found.migrations} == {"moved"} and len(found.migrations) == len(moves)
    assert all(0 < line.steps_s["total"] < 0.1 for line in found.migrations)
    names = {i.name: i.number for i in application_named("rta-sf", 3, 0).instances}
    before = {place.number: place.node for place in rise.deployment.places}
    moved = {names[m.instance]: m.destination for m in moves}
    assert found.outcome.nodes == {**before, **moved}
    assert not found.measured.bad() and found.measured.replies >= 1500
    early = np.mean([rps for at_s, rps, _ in found.curve if 0.1 < at_s < moves[0].at_s])
    assert found.measured.throughput_rps > 2 * early
    assert found.measured.delta("s1h", "busy_ns bayes") > 0


def test_a_curve_is_the_replies_of_every_tenth_of_a_second(bed: SimulatedBed) -> None:
    deployment = on_smartnics("rta-sf", 3)
    config = ClientConfig(bed.inventory.node("c1").ip, 1, deployment, deployment.name, timeout_s=1e4, outstanding=8,
                          flows=4, pool=64)
    bed.repace(bed.pacing, (deployment,))
    found = bed.measure({"c1": config}, Plan(900, 100))
    curve = curve_of(found, 0.3, 0.9)
    assert [at for at, _, _ in curve] == pytest.approx([-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4])
    steady = [(rps, mean_s) for at, rps, mean_s in curve if at >= 0.0]
    assert np.mean([rps for rps, _ in steady]) == pytest.approx(found.throughput_rps, rel=0.1)
    assert np.mean([mean_s for _, mean_s in steady]) == pytest.approx(found.latencies.mean_s, rel=0.1)
    chart = chart_of(stored("fig7-rise", RiseData((RiseCurve("rta-sf", tuple((at, rps) for at, rps, _ in curve),
                                                              True),))))
    assert chart.any_refused and chart.curves[0].ys[3] == pytest.approx(curve[3][1] / 1e3)


def test_a_second_client_on_a_node_is_refused(bed: SimulatedBed) -> None:
    rise = Rise(on_smartnics("rta-sf", 3), 4, 36, OverloadOptions())
    bed.repace(bed.pacing, (rise.deployment,))
    first, others = rise.clients(bed.inventory)
    run = bed.begin(first)
    run.join(others)
    with pytest.raises(ExperimentError, match="a second client on c2"):
        run.join(others)


def test_only_the_microservices_that_are_named_can_be_moved_by_detectors() -> None:
    deployment = on_smartnics("iot-ts", 3)
    services = {i.number: i.service for i in deployment.application().instances}

    def movable(*names: str) -> set[str]:
        controller = ResourceController(RACK, (deployment,), options=OverloadOptions(movable=names))
        table = controller.orchestrator.table
        return {services[p.number] for p in deployment.places
                if table.state["movable"][table.row_of(deployment.number, p.number)]}

    assert movable() == {"api_gateway", "ema", "spike", "recommend"}  # sql runs on hosts only
    assert movable("api_gateway", "sql") == {"api_gateway"}


def test_a_busy_smartnic_starves_its_host_till_the_orchestrator_moves_what_interferes() -> None:
    room = SimulatedBed(TestbedOptions("type1x3", clients=2, pacing=Pacing("calibrated")))
    found = starved_host(room)
    assert found.queue_frames > OverloadOptions().queue_frames
    assert [(m.cause, m.service, m.source, m.destination) for m in found.moves] == [
        ("host starvation", "top_ranker", "s1n1", "s1h")]
    assert OverloadOptions().interval_s < found.moves[0].at_s < 2 * OverloadOptions().interval_s
    assert found.relieved_rps > 5 * found.starved_rps and found.relieved_mean_s < found.starved_mean_s / 5
