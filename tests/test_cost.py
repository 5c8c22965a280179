"""Cost efficiency as section 5.5 defines it, by hand and at its limits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.cost import Ownership
from experiments.errors import ExperimentError
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of


def test_an_example_by_hand() -> None:
    # 1 kW for a year is 8760 kWh, at 0.0733 $ each 642.108 $; with 10,000 $ for the machines, 10,642.108 $.
    # 1000 requests/s for a year of 31,536,000 s are 31,536,000,000 requests: 2,963,322.68 per dollar.
    owned = Ownership(10_000, 1000)
    assert owned.electricity_usd(8760) == pytest.approx(642.108)
    assert owned.requests_per_usd(1000, years=1) == pytest.approx(31_536_000_000 / 10_642.108)
    assert owned.requests_per_usd(1000, 1) == pytest.approx(2_963_322.68)


@pytest.mark.parametrize(("cluster", "cost_usd", "peak_watts"), [
    ("beefyx4", 18_000, 804), ("wimpyx4", 8_836, 380), ("type2x2", 13_500, 504), ("superbeefyx1", 12_550, 256),
    # Table 4 prints 13,018 $ for this one; its parts make 2 x 4,500 + 2 x 2,209.
    ("beefyx2+wimpyx2", 13_418, 592)])
def test_clusters_cost_and_draw_what_table_4_says(cluster: str, cost_usd: float, peak_watts: float) -> None:
    servers = inventory_of(cluster_named(cluster)).servers
    assert (sum(s.cost_usd for s in servers), sum(s.peak_watts for s in servers)) == (cost_usd, peak_watts)


@given(st.floats(1, 1e6), st.floats(1, 1e5), st.floats(1, 1e4), st.floats(0.01, 50))
def test_the_longer_a_cluster_is_owned_the_nearer_it_comes_to_requests_per_dollar_of_electricity(
        rps: float, cost_usd: float, watts: float, years: float) -> None:
    owned = Ownership(cost_usd, watts)
    limit = rps / (watts / 1000 * 0.0733 / 3600)
    (_, now), (_, later) = owned.over_time(rps, [years, 2 * years])
    assert now <= later <= limit * (1 + 1e-9)
    assert owned.requests_per_usd(rps, 1e12) == pytest.approx(limit, rel=1e-3)
    assert Ownership(0, watts).requests_per_usd(rps, years) == pytest.approx(limit)


@pytest.mark.parametrize(("compute", "words"), [
    (lambda: Ownership(-1, 5), "cost_usd is -1"), (lambda: Ownership(1, float("nan")), "power_watts is nan"),
    (lambda: Ownership(1, 5).requests_per_usd(-1, 1), "throughput_rps is -1"),
    (lambda: Ownership(1, 5).requests_per_usd(1, -1), "years is -1"),
    (lambda: Ownership(0, 0).requests_per_usd(1, 1), "nothing is spent"),
    (lambda: Ownership(0, 5).requests_per_usd(1, 0), "nothing is spent")])
def test_what_has_no_answer_is_refused(compute: Any, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        compute()
