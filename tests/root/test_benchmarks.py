"""Both benchmarks run small and give whole rows; how fast this machine is, no test asks."""

import statistics

import pytest

from experiments.benchmarks import boot, datapath
from experiments.benchmarks.echo_load import TargetLoad
from experiments.errors import ExperimentError
from nodes.world import World
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of


def test_every_path_answers_every_request_of_every_round() -> None:
    rows = datapath.measure(rounds=3, requests=300, lone_requests=20)
    assert [row.path for row in rows] == ["plain", "smartnic", "host"]
    for row in rows:
        assert len(row.ratios) == 3 and row.ratio == statistics.median(row.ratios) > 0
        assert 0 < row.round_trip_p50_us <= row.round_trip_p99_us
        assert len(row.values()) == len(datapath.COLUMNS)
    assert rows[0].ratios == (1.0, 1.0, 1.0)


def test_a_ratio_is_the_median_of_the_rounds_and_not_the_ratio_of_medians() -> None:
    loads = {"plain": TargetLoad([100.0, 200.0, 400.0], [0.001]), "smartnic": TargetLoad([90.0, 100.0, 360.0], [0.002]),
             "host": TargetLoad([60.0, 140.0, 100.0], [0.003, 0.003])}
    plain, smartnic, host = datapath.rows_of(loads)
    assert (plain.ratio, smartnic.ratio, host.ratio) == pytest.approx((1.0, 0.9, 0.6))
    assert (smartnic.requests_per_s, host.round_trip_p50_us) == pytest.approx((100.0, 3000.0))


def test_a_lost_request_is_an_error_and_the_rack_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datapath, "UDP_ECHO_PORT", 9)  # nothing of the agent's listens there
    with pytest.raises(ExperimentError, match="no echo"):
        datapath.measure(rounds=1, requests=10, lone_requests=1)
    with World.start("test"):  # which this process could not, had it a world still
        pass


def test_a_rack_and_plain_mininet_start_with_the_same_nodes_and_links() -> None:
    said: list[str] = []
    rows = boot.measure("type2x1", said.append, rounds=1)
    assert [row.what for row in rows] == ["e3", "mininet"] and len(said) == 2
    inventory = inventory_of(cluster_named("type2x1"))
    for row in rows:
        assert (row.nodes, row.links) == (len(inventory.nodes), 4 + 4 + 2)
        assert row.start_s > 0 and row.stop_s > 0 and row.smartnic_mib > 0
        assert len(row.values()) == len(boot.COLUMNS)
    e3, mininet = rows
    assert mininet.ratio == 1.0 and e3.ratio == e3.start_s / mininet.start_s
    assert e3.smartnic_mib > mininet.smartnic_mib  # an agent and a shell, against a shell


def test_a_start_that_fails_says_why() -> None:
    with pytest.raises(ExperimentError, match=r"as e3 ended with 1: .*goth"):
        boot._in_own_process("e3", "gothx1")


def test_a_start_that_does_not_end_is_ended_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "TIMEOUT_S", 0.05)
    with pytest.raises(ExperimentError, match=r"starting type1x1 as e3 has not ended after 0\.05 s"):
        boot._in_own_process("e3", "type1x1")
