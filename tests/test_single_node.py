"""One microservice alone on one node: the peak that virtual time expects, which packets then confirm."""

from __future__ import annotations

import pytest

from experiments.measurement.single_node import CORES, PORT, SingleNode, expected_peak_rps, limit_of, server_of
from experiments.request_sizes import host_cores
from experiments.runs.run_options import RunOptions
from microservices.assumptions import DEFAULTS
from microservices.measured import Column
from microservices.profiles import TABLE_1, active_cores, cost_s


@pytest.mark.parametrize(("service", "column"), [
    ("sql", Column.SMARTNIC), ("knn", Column.LINUX), ("top_ranker", Column.BYPASS), ("count", Column.SMARTNIC)])
def test_virtual_time_expects_table_1_s_throughput_at_the_knee_of_each_column(service: str, column: Column) -> None:
    knee = SingleNode(RunOptions(quick=True)).forecast(service, column)
    assert knee.probe is not None and knee.probe.load >= active_cores(service, column)
    assert knee.probe.throughput_rps == pytest.approx(TABLE_1[service][column].rps, rel=0.1)
    assert knee.probe.throughput_rps >= 0.97 * knee.reference


def test_with_a_third_of_the_cores_a_third_is_expected_and_half_as_many_outstanding_give_less() -> None:
    room = SingleNode(RunOptions(quick=True))
    whole, third = room.forecast("spike", Column.BYPASS), room.forecast("spike", Column.BYPASS, cores=4)
    assert whole.probe is not None and third.probe is not None
    assert third.probe.throughput_rps == pytest.approx(whole.probe.throughput_rps / 3, rel=0.03)
    assert third.probe.load < whole.probe.load


def test_larger_requests_are_expected_to_fill_the_port_and_not_the_cores() -> None:
    cores = host_cores("count", 1500)
    knee = SingleNode(RunOptions(quick=True)).forecast("count", Column.BYPASS, 1500, cores)
    assert knee.probe is not None
    most_rps = expected_peak_rps(cost_s("count", Column.BYPASS, 1500, DEFAULTS), cores, 1500)
    assert most_rps < cores / cost_s("count", Column.BYPASS, 1500, DEFAULTS)
    assert knee.probe.throughput_rps == pytest.approx(most_rps, rel=0.05)


def test_a_smartnic_is_measured_behind_its_port_and_a_host_behind_a_plain_nic() -> None:
    assert server_of(Column.SMARTNIC) == ("liquidio10gx1", "s1n1")
    assert server_of(Column.LINUX) == server_of(Column.BYPASS) == ("beefy10gx1", "s1h")


@pytest.mark.parametrize(("use", "limit"), [(0.92, CORES), (0.93, PORT), (1.0, PORT)])
def test_a_port_that_is_nearly_full_is_the_limit(use: float, limit: str) -> None:
    assert limit_of(use) == limit
