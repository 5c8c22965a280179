"""Figure 11's fleet: every heartbeat is believed, who starves is found, and the sums about bandwidth are right."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.load_table import NOWHERE
from experiments.benchmarks.orchestrator import COLUMNS, measure
from experiments.fig11 import judged, transmit_s
from experiments.simulated_fleet import HEARTBEAT_S, LEAST_STARVING, NICS, Fleet, FleetResult, measure_fleet
from experiments.views.fig11_chart import Fig11Data, Point, fig11_chart
from experiments.views.figures import chart_of, stored

RESULT = FleetResult(50_000, 200_000, 800_000, 10**6, 5e6, 2e7, 4e6, 2000, 4e-4, 4e-4, 9e-4, 2e-3, 1000.0)


def test_every_heartbeat_is_believed_and_only_who_starves_is_relieved() -> None:
    fleet = Fleet(servers=40, per_nic=4, seed=3)
    moves = []
    for slot, data in fleet.rounds(30):
        moves += fleet.orchestrator.take(fleet.sources, data, (slot + 1) * HEARTBEAT_S)
    counters, refused = fleet.orchestrator.counters, fleet.orchestrator.gate.refused
    assert counters.heartbeats == 30 * 40 * NICS and counters.foreign_instance == 0
    assert (refused.malformed, refused.unknown_source, refused.late, refused.ahead, refused.repeated) == (0,) * 5
    assert len({move.node for move in moves}) == LEAST_STARVING
    assert {move.cause for move in moves} == {"host starvation"} and all(move.to != NOWHERE for move in moves)
    assert all(fleet.nodes.host[move.node] == move.to for move in moves)


def test_a_small_fleet_is_measured() -> None:
    result = measure_fleet(servers=20, per_nic=2, rounds=12)
    assert result.smartnics == 80 and result.microservices == 160 and result.heartbeats == 960
    assert result.decisions > 0 and 0 < result.p50_s <= result.p99_s <= result.most_s
    assert result.heartbeats_per_s > 0 and result.decode_per_s > 0


def test_bandwidth_is_that_of_sixteen_bytes_every_fifty_milliseconds() -> None:
    assert RESULT.payload_bps == pytest.approx(200_000 * 2560)
    assert RESULT.wire_bps == pytest.approx(200_000 * 84 * 8 * 20)
    assert RESULT.load == pytest.approx(0.8)
    assert 4e-6 < transmit_s() < 5e-6


def test_the_experiment_fails_where_decisions_take_long_or_grow_with_the_microservices() -> None:
    more = replace(RESULT, microservices=16 * RESULT.microservices)
    assert judged([RESULT, more])[1]
    assert not judged([RESULT, replace(more, p99_s=0.02)])[1]
    assert not judged([RESULT, replace(more, p50_s=2 * more.p50_s)])[1]
    assert not judged([replace(RESULT, heartbeats_per_s=3e6), more])[1]


def test_the_chart_has_both_quantiles_for_each_load_and_is_stored_and_read() -> None:
    data = Fig11Data((Point(100, 1, 0.1, 0.2), Point(1000, 1, 0.2, 0.3), Point(100, 4, 0.1, 0.2)))
    chart = fig11_chart(data)
    assert [curve.label for curve in chart.curves] == ["p50, 1 per SmartNIC", "p99, 1 per SmartNIC",
                                                       "p50, 4 per SmartNIC", "p99, 4 per SmartNIC"]
    assert chart.ticks == (0.1, 1.0) and chart_of(stored("fig11", data)) == chart


def test_the_benchmark_has_a_row_for_each_number_of_microservices() -> None:
    rows = measure(servers=10, rounds=3, attempts=1)
    assert [row.result.microservices for row in rows] == [40, 160, 640]
    assert all(len(row.values()) == len(COLUMNS) for row in rows) and rows[0].flatness == 1.0
