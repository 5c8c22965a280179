"""Figure 2's arithmetic: host cores by size, benefits from cells, and section 2.3's statements held against them."""

from __future__ import annotations

from itertools import islice

import msgspec
import pytest

from experiments.errors import ExperimentError
from experiments.fig2 import judged
from experiments.measurement.single_node import CORES, CellResult, expected_peak_rps
from experiments.request_sizes import (
    CORE_STEPS,
    NAMED,
    QUICK_SIZES,
    SERVICES,
    SIZES,
    benefit,
    benefits,
    figure_data,
    host_cores,
    statements,
)
from experiments.views.figures import chart_of, stored
from microservices.measured import Column
from microservices.profiles import TABLE_1, active_cores, cost_s
from microservices.workloads import workload_named

HOST, NIC = Column.BYPASS, Column.SMARTNIC


def cell(service: str, size: int, column: Column, rps: float, watts: float) -> CellResult:
    return CellResult(service, column.value, size, 400.0, True, "", (), (), rps, 1e-4, 1e-4, 2e-4, watts, 12, 11.0, 0.5,
                      CORES, 24, 100, {})


def cells(curve: dict[int, float]) -> dict[tuple[str, int, Column], CellResult]:
    """Every microservice with these benefits by size, the host at 1000 requests/s and 100 W."""
    return {(service, size, column): cell(service, size, column, 1e3, 100.0 / (gain if column is NIC else 1.0))
            for service in SERVICES for size, gain in curve.items() for column in (HOST, NIC)}


def met(curve: dict[int, float]) -> dict[str, bool]:
    return {s.what: s.met for s in statements(cells(curve), list(curve)) if s.service in (NAMED[0], "three")}


def test_the_benefit_is_requests_per_joule_over_requests_per_joule() -> None:
    found = cells({64: 3.0, 512: 6.0})
    assert benefit(found, "ipsec", 512).y == pytest.approx(6.0)
    assert [p.x for p in benefits(found)["spike"]] == [64.0, 512.0]


def test_the_paper_s_curve_meets_all_that_its_text_says() -> None:
    assert all(met({64: 5.0, 128: 5.5, 256: 9.0, 512: 9.5, 1024: 7.0, 1500: 6.0}).values())


def test_a_flat_curve_meets_nothing_and_noise_does_not_help() -> None:
    assert not any(met({64: 5.0, 128: 5.0, 256: 5.0, 512: 5.05, 1500: 5.0}).values())


def test_a_benefit_that_keeps_growing_does_not_diminish() -> None:
    found = met({64: 3.0, 128: 3.5, 512: 5.5, 1500: 7.0})
    assert found["smaller up to 128 B"] and not found["diminishes again at larger sizes"]


@pytest.mark.parametrize(("times", "wanted"), [(1.4, False), (1.55, True), (2.4, True), (2.6, False)])
def test_almost_doubling_is_met_within_a_quarter_of_two(times: float, wanted: bool) -> None:
    assert met({64: 2.0, 512: 2.0 * times, 1500: 1.0})["almost doubles at 256-512 B"] is wanted


def test_statements_need_a_size_in_each_range() -> None:
    with pytest.raises(ExperimentError, match="up to 128"):
        statements(cells({256: 1.0, 512: 1.0}), [256, 512])


def test_a_refused_side_refuses_the_point_and_the_run() -> None:
    found = cells({64: 3.0, 512: 6.0, 1500: 5.0})
    assert judged(found)[1]
    key = ("nids", 512, HOST)
    found[key] = msgspec.structs.replace(found[key], holds=False, said="no knee")
    rows, holds = judged(found)
    assert not holds and any("nids, 512 B" in r[0] and "REFUSED" in r[1] for r in rows)
    assert benefit(found, "nids", 512).refused and chart_of(stored("fig2", figure_data(found))).any_refused


@pytest.mark.parametrize("service", sorted(TABLE_1))
def test_at_table_1_s_size_the_host_needs_the_cores_that_table_1_gives(service: str) -> None:
    assert host_cores(service, 512) == active_cores(service, HOST)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("size", SIZES)
def test_the_host_s_cores_are_the_fewest_that_give_its_peak(service: str, size: int) -> None:
    cores, cost = host_cores(service, size), cost_s(service, HOST, size)
    peak = expected_peak_rps(cost, 12, size)
    assert expected_peak_rps(cost, cores, size) == pytest.approx(peak)
    fewer = [step for step in CORE_STEPS if step < cores]
    assert not fewer or expected_peak_rps(cost, fewer[-1], size) < peak * 0.9999


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("size", SIZES)
def test_every_workload_makes_requests_of_every_size(service: str, size: int) -> None:
    assert {len(request) for request in islice(workload_named(service, 1, size).requests(), 200)} == {size}
    assert set(QUICK_SIZES) <= set(SIZES)
