"""Where applications stand on the paper's clusters, in how many copies, and what becomes of it in virtual time."""

from __future__ import annotations

import msgspec
import pytest
from peak_cases import peak_of

from controller.placement.compute_nodes import ComputeNodes
from experiments.errors import ExperimentError
from experiments.measurement.cluster_peaks import (
    GROWTH,
    ClusterPeak,
    ClusterRooms,
    agreement,
    fewest_enough,
    placed_on,
    record,
    ways_onto,
)
from experiments.measurement.copies import copies_of, workload_of
from experiments.measurement.e3_placement import placed_for_peak
from experiments.measurement.measuring import Plan
from experiments.measurement.rack_peak import RackPeak, RackRoom
from experiments.runs.results import csv_of
from experiments.runs.run_options import RunOptions
from microservices.applications import APPLICATIONS, application_named
from microservices.assumptions import varied
from nodes.deployment import deploy
from topologies.catalog import cluster_named

TABLE_5 = ("beefyx4", "wimpyx4", "beefyx2+wimpyx2", "type2x2", "superbeefyx1")


@pytest.mark.parametrize("cluster", [*TABLE_5, "type1x3", "beefyx3", "type2dx2"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_application_fits_on_every_cluster_that_the_paper_measures(name: str, cluster: str) -> None:
    application = application_named(name)
    placed = placed_on(application, cluster_named(cluster))
    assert set(placed.nodes) == {i.number for i in application.instances if not i.backup}
    assert placed.most_rps > 0 and placed.watts > 0 and placed.copies == (placed.nodes,)


def test_there_are_two_ways_onto_a_mixed_rack_and_one_onto_others() -> None:
    application, mixed = application_named("iot-ts"), cluster_named("beefyx2+wimpyx2")
    assert [len(ways_onto(application, cluster_named(c))) for c in ("beefyx3", "type1x3", "beefyx2+wimpyx2")] == [1, 1,
                                                                                                                2]
    family = {n.name: ComputeNodes(mixed).classes[n.class_index].family for n in ComputeNodes(mixed).nodes}
    by_family = ways_onto(application, mixed)[0]
    assert {family[n] for n in by_family.forbidden["api"]} == {"cnmips"}  # what a host does better is on Xeons
    assert {family[n] for n in by_family.forbidden["recommend"]} == {"xeon"}


@pytest.mark.parametrize("name", ["iot-ts", "nfv-fin", "rta-ptc"])
def test_on_a_mixed_rack_the_better_of_two_ways_is_taken(name: str) -> None:
    application, mixed = application_named(name), cluster_named("beefyx2+wimpyx2")
    one, other = (placed_for_peak(application, mixed, where) for where in ways_onto(application, mixed))
    assert one.requests_per_joule != other.requests_per_joule
    assert placed_on(application, mixed) == max(one, other, key=lambda placed: placed.most_rps / placed.watts)


def test_stages_that_clients_face_can_be_kept_on_hosts() -> None:
    application = application_named("nfv-fin")
    placed = placed_on(application, cluster_named("type2x2"), on_hosts=application.sources)
    stage = {i.number: i.stage for i in application.instances}
    assert all(node.endswith("h") == (stage[number] == "monitor") for number, node in placed.nodes.items())


def test_copies_share_nodes_and_nothing_else() -> None:
    application = application_named("nfv-fin")
    copies = copies_of(application, 3)
    assert copies[0] is application and len({c.number for c in copies}) == len({c.name for c in copies}) == 3
    assert {workload_of(c) for c in copies} == {"nfv-fin"}
    placed = placed_on(application, cluster_named("type1x3"), 2)
    assert len(placed.copies) == 2 and all(set(c) == set(placed.nodes) for c in placed.copies)


def test_copies_are_measured_together_each_with_clients_of_its_own() -> None:
    with RackRoom("type1x3", RunOptions(quick=True, simulate=True), Plan(200, 100), clients=2) as room:
        graph = application_named("nfv-fin", 3, 0)
        nodes = placed_on(graph, cluster_named("type1x3"), 2).copies
        deployed = tuple(deploy(one, where, room.inventory) for one, where in zip(copies_of(graph, 2), nodes,
                                                                                  strict=True))
        found = room.loaded(deployed, 8)
        assert found.holds and not found.bad and found.application == "nfv-fin" and found.rps > 0
        with pytest.raises(ExperimentError, match="2 deployments for 1 clients"):
            RackRoom("type1x3", RunOptions(simulate=True), Plan()).loaded(deployed, 8)


def test_assumptions_reach_clients_cores_and_power() -> None:
    def loaded(name: str, value: float) -> RackPeak:
        with RackRoom("type1x3", RunOptions(quick=True, simulate=True), Plan(200, 100),
                      assumptions=varied(name, value)) as room:
            graph = application_named("nfv-fin", 3, 0)
            return room.loaded(deploy(graph, placed_on(graph, cluster_named("type1x3")).nodes, room.inventory), 96)

    small, large = loaded("request_bytes", 256), loaded("request_bytes", 1024)
    assert small.rps > 1.02 * large.rps and not small.bad and not large.bad
    light, heavy = loaded("network_bound_headroom", 0.5), loaded("network_bound_headroom", 1.0)
    assert light.rps > 1.5 * heavy.rps


def test_agreement_counts_points_on_packets_that_are_near_virtual_time_in_both_figures() -> None:
    near = peak_of(rps=1040.0, watts=98.0, forecast=(1000.0, 100.0))
    power_off = peak_of("iot-ts", rps=1000.0, watts=108.0, forecast=(1000.0, 100.0))
    assert near.peak.off_forecast() == pytest.approx((0.04, -0.02))
    [(_, said, wanted)] = agreement([near, power_off, peak_of()])
    assert said == "1 of 2; most off: iot-ts on type1x3, +0.0% and +8.0%" and wanted == "all of 2"
    assert agreement([peak_of()]) == []


def test_a_point_stands_if_the_machine_kept_up_and_every_reply_was_right() -> None:
    assert peak_of().stands
    assert not peak_of(holds=False).stands and not peak_of(bad={"wrong": 1}).stands
    again = msgspec.json.decode(msgspec.json.encode(peak_of()), type=ClusterPeak)
    assert again == peak_of()
    assert csv_of([record(peak_of()), record(peak_of(forecast=(900.0, 90.0)))]).count("\n") == 3


@pytest.mark.parametrize(("rates", "copies"), [
    ((100.0,), 1), ((100.0, 100.0, 100.0), 1), ((100.0, 100.0 * (1 + GROWTH), 100.0), 1),
    ((100.0, 101.0 * (1 + GROWTH), 102.0), 2), ((100.0, 150.0, 200.0), 4), ((100.0, 200.0, 150.0), 2)])
def test_there_are_no_more_copies_than_give_nearly_the_most(rates: tuple[float, ...], copies: int) -> None:
    assert fewest_enough(list(zip((1, 2, 4), rates, strict=False))) == copies


def test_a_peak_tells_how_many_copies_it_stands_on_and_what_the_cluster_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.measurement.cluster_peaks.QUICK_PLAN", Plan(100, 50))
    with ClusterRooms(RunOptions(quick=True, simulate=True), lambda _: None) as rooms:
        found = rooms.peak("rta-sf", "superbeefyx1")
    assert found.peak.simulated and found.copies in (1, 2, 4) and len(found.nodes) == found.copies
    assert found.cost_usd == 12550 and found.peak_watts == 256 and found.stands
