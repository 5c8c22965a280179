"""How slowly to play, the peak's shares of a load, and what a single node is expected to do."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.clients.latencies import summary_of
from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError
from experiments.measurement import peak as peaks
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits, Verdict
from experiments.measurement.peak import CHECK_EVERY, MOST_FLOWS, POOL, find_peak, in_closed_loop, shared_out
from experiments.measurement.single_node import (
    CORES,
    PORT,
    SATURATED,
    expected_peak_rps,
    limit_of,
    unloaded_round_trip_s,
)
from experiments.measurement.time_scale import USED_SHARE, Capacity, time_scale_for, wake_lateness
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS
from microservices.measured import Column
from microservices.profiles import TABLE_1, active_cores, cost_s, is_network_bound
from nodes.communication import Communication, HostStack
from nodes.deployment import Deployment, deploy
from nodes.emulated_clock import MOST_TIME_SCALE
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

MACHINE = Capacity(10_000.0, 0.1e-3, 1e-3)
INSTANT = Capacity(10_000.0, 0.0, 0.0)


def test_a_light_load_on_an_instant_machine_is_played_in_real_time() -> None:
    assert time_scale_for(100.0, 1e-3, INSTANT) == 1.0


def test_a_load_is_slowed_down_till_it_takes_the_share_of_the_machine_that_it_may() -> None:
    assert time_scale_for(2e6, 1.0, INSTANT) == 2e6 / (USED_SHARE * 10_000) == 400.0


def test_a_short_latency_is_slowed_down_till_the_machine_s_lateness_is_small_beside_it() -> None:
    by_median = MACHINE.late_p50_s / (USUAL_LIMITS.late_p50_share * 100e-6)
    by_p99 = MACHINE.late_p99_s / (USUAL_LIMITS.late_p99_share * 100e-6)
    assert time_scale_for(1.0, 100e-6, MACHINE) == max(by_median, by_p99) == 40.0
    patient = FidelityLimits(late_p99_share=1.0, late_p50_share=0.05)
    assert time_scale_for(1.0, 100e-6, MACHINE, patient) == 20.0


def test_a_process_must_wake_within_the_shortest_request() -> None:
    assert time_scale_for(1.0, 1.0, MACHINE, shortest_s=2e-6) == 500.0


@pytest.mark.parametrize(("offered", "latency", "capacity"), [
    (0.0, 1.0, MACHINE), (-5.0, 1.0, MACHINE), (1.0, 0.0, MACHINE), (1.0, 1.0, Capacity(0.0, 0.0, 0.0))])
def test_what_is_no_load_or_no_machine_is_refused(offered: float, latency: float, capacity: Capacity) -> None:
    with pytest.raises(ExperimentError, match="each must be above 0"):
        time_scale_for(offered, latency, capacity)


def test_a_load_that_no_time_scale_will_do_for_is_refused_with_the_limit() -> None:
    with pytest.raises(ExperimentError, match=r"asks for a time scale of 2e\+08; the limit is 1e\+06"):
        time_scale_for(1e12, 1.0, INSTANT)


@given(st.floats(1.0, 1e8), st.floats(1e-6, 1.0), st.floats(100.0, 1e6), st.floats(0.0, 1e-2), st.floats(0.0, 1e-1))
def test_the_time_scale_is_enough_by_every_measure_and_no_more_than_rounding_asks(
        offered: float, latency: float, carried: float, p50: float, p99: float) -> None:
    capacity = Capacity(carried, p50, p99)
    try:
        scale = time_scale_for(offered, latency, capacity)
    except ExperimentError:
        assert max(offered / USED_SHARE / carried, p50 / 0.05 / latency, p99 / 0.25 / latency) > MOST_TIME_SCALE
        return
    exact = max(1.0, offered / USED_SHARE / carried, p50 / 0.05 / latency, p99 / 0.25 / latency)
    assert exact * (1 - 1e-8) <= scale <= exact * 1.1 + 1e-6
    digits = f"{scale:.6e}".partition("e")[0].rstrip("0").replace(".", "")
    assert len(digits) <= 2


def test_how_late_a_process_wakes_is_measured_and_never_negative() -> None:
    p50, p99 = wake_lateness(sleeps=20, sleep_s=0.0002)
    assert 0.0 <= p50 <= p99 < 5.0


# -- the peak's loads ----------------------------------------------------------------------------------------------

RACK = inventory_of(cluster_named("type1x1", clients=3))


def config(name: str) -> ClientConfig:
    application = application_named("kvs", shards=1, backups=0)
    deployment = deploy(application, {i.number: "s1n1" for i in application.instances}, RACK)
    return ClientConfig(RACK.node(name).ip, int(name[1:]), deployment, "kvs", rate_rps=100.0)


@given(st.integers(1, 5000), st.integers(1, 3))
def test_every_outstanding_request_is_some_client_s_and_shares_differ_by_one_at_most(outstanding: int,
                                                                                     clients: int) -> None:
    told = shared_out({f"c{i}": config(f"c{i}") for i in range(1, clients + 1)}, outstanding)
    shares = [one.outstanding for one in told.values()]
    assert sum(shares) == outstanding and min(shares) >= 1 and max(shares) - min(shares) <= 1
    assert all(one.flows == min(one.outstanding, MOST_FLOWS) and one.rate_rps == 0.0 for one in told.values())


def test_a_client_that_would_have_nothing_to_do_stays_away() -> None:
    told = shared_out({name: config(name) for name in ("c1", "c2", "c3")}, 2)
    assert list(told) == ["c1", "c2"]


def test_a_closed_loop_makes_its_requests_beforehand_and_looks_at_some_replies() -> None:
    told = in_closed_loop(config("c1"), 100)
    assert (told.pool, told.check_every, told.flows, told.outstanding) == (POOL, CHECK_EVERY, MOST_FLOWS, 100)


class Measured:
    """A measurement of a node with 4 cores and 1 ms per request; `refused` at some loads."""

    def __init__(self, configs: dict[str, ClientConfig], refused: tuple[int, ...]) -> None:
        self.outstanding = sum(one.outstanding for one in configs.values())
        busy = min(self.outstanding, 4)
        self.throughput_rps = busy * 1000.0
        self.latencies = summary_of([self.outstanding / self.throughput_rps] * 3)
        held = self.outstanding not in refused
        self.verdict = Verdict(held, () if held else ("CPU of the machine: 99 %, the limit is 95 %",), ())


@pytest.mark.parametrize("clients", [1, 3])
def test_the_peak_is_the_fewest_outstanding_that_keep_the_cores_busy_and_keeps_its_measurement(
        monkeypatch: pytest.MonkeyPatch, clients: int) -> None:
    monkeypatch.setattr(peaks, "measured_on", lambda bed, configs, plan, limits: Measured(configs, ()))
    said: list[str] = []
    names = [f"c{i}" for i in range(1, clients + 1)]
    found = find_peak(None, {name: config(name) for name in names}, 1, 64, say=said.append)
    assert found.measurement is found.measured[4] and found.measurement.outstanding == 4
    assert said[0] == "1 outstanding: 1,000 requests/s, mean 1 ms" and len(said) == len(found.knee.tried)


def test_a_load_that_is_refused_twice_leaves_no_peak_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measured_on", lambda bed, configs, plan, limits: Measured(configs, (2,)))
    said: list[str] = []
    found = find_peak(None, {"c1": config("c1")}, 1, 64, say=said.append)
    assert found.measurement is None and "CPU of the machine: 99 %" in found.knee.said
    assert said[1] == said[2] == "2 outstanding: 2,000 requests/s, mean 1 ms; refused: CPU of the machine: 99 %, " \
        "the limit is 95 %"


class Repaced(Testbed):
    """A testbed of which only is known how often its agents were started anew."""

    def __init__(self) -> None:
        self.pacing, self.repaced = Pacing("calibrated", 40.0), []

    def repace(self, pacing: Pacing, deployments: tuple[Deployment, ...] | None = None) -> None:
        self.repaced.append((pacing, deployments))


def test_every_probe_on_packets_begins_with_nothing_under_way_as_in_virtual_time(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measured_on", lambda bed, configs, plan, limits: Measured(configs, ()))
    bed = Repaced()
    found = find_peak(bed, {"c1": config("c1")}, 1, 64)
    assert bed.repaced == [(bed.pacing, None)] * (len(found.knee.tried) - 1)  # who calls has started it for the first


def test_a_peak_that_is_expected_is_looked_at_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "measured_on", lambda bed, configs, plan, limits: Measured(configs, ()))
    expected = find_peak(None, {"c1": config("c1")}, 1, 64).knee
    found = find_peak(None, {"c1": config("c1")}, 1, 64, expected=expected)
    assert sorted(found.measured) == [2, 4, 8] and found.measurement is found.measured[4]


# -- a single node --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("service", TABLE_1)
@pytest.mark.parametrize("column", Column)
def test_the_expected_peak_is_bound_by_the_port_where_the_paper_s_was_and_by_cores_at_table_1_s_rate_elsewhere(
        service: str, column: Column) -> None:
    cores = active_cores(service, column)
    found = expected_peak_rps(cost_s(service, column, 512), cores, 512)
    by_cores = cores / cost_s(service, column, 512)
    if is_network_bound(service, column):
        assert found < by_cores
    elif by_cores < 1.8e6:
        assert found == pytest.approx(TABLE_1[service][column].rps)
    else:  # full cores beside a nearly full port: either may come first
        assert found <= by_cores


def test_what_costs_nothing_is_bound_by_the_port() -> None:
    with_headers = 512 + 42 + 42 + 24  # payload, our header, UDP to Ethernet, and what the wire adds
    assert expected_peak_rps(1e-12, 12, 512) == pytest.approx(10e9 / 8 / with_headers, rel=0.05)


def test_the_unloaded_round_trip_is_that_of_the_ways_there_and_back() -> None:
    for column, stack, node in ((Column.LINUX, HostStack.LINUX, "s1h"), (Column.BYPASS, HostStack.BYPASS, "s1h"),
                                (Column.SMARTNIC, HostStack.BYPASS, "s1n1")):
        way = Communication(DEFAULTS, stack)
        there = way.one_way_s(RACK.node("c1"), RACK.node(node))
        back = way.one_way_s(RACK.node(node), RACK.node("c1"))
        assert unloaded_round_trip_s(column, DEFAULTS) == pytest.approx(there + back)
    assert unloaded_round_trip_s(Column.BYPASS, DEFAULTS) == pytest.approx(DEFAULTS.host_host_rtt_s)


def test_a_port_that_is_nearly_full_is_what_was_used_up() -> None:
    assert [limit_of(share) for share in (0.0, SATURATED - 0.001, SATURATED, 1.01)] == [CORES, CORES, PORT, PORT]


def test_assumptions_change_what_is_expected() -> None:
    farther = msgspec.structs.replace(DEFAULTS, host_host_rtt_s=40e-6)
    assert unloaded_round_trip_s(Column.BYPASS, farther) == pytest.approx(40e-6)
    assert math.isfinite(unloaded_round_trip_s(Column.LINUX, farther))
