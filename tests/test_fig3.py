"""Figure 3's arithmetic: a round trip is a difference of chains, and its ratios are held against section 2.4."""

from __future__ import annotations

import msgspec
import pytest

from experiments.clients.echo_service import NAME, chain, lone
from experiments.fig3 import CLUSTER, LEAST_SCALE, ample_scale
from experiments.round_trips import MECHANISMS, REFERENCE, RoundTrip, figure_data, judged, modelled_rtt_s
from experiments.runs.run_options import MOST_TIME_SCALE
from experiments.views.figures import chart_of, stored
from microservices.assumptions import DEFAULTS
from microservices.direct import DirectRun
from microservices.measured import Column
from microservices.profiles import cost_s
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

LONE_S = 11e-6


def trips(**changed_us: float) -> list[RoundTrip]:
    """Two runs of every mechanism as modelled, but for those that are given by name without blanks and hyphens."""
    inventory = inventory_of(cluster_named(CLUSTER))
    found = []
    for name, mechanism in MECHANISMS.items():
        modelled_s = modelled_rtt_s(mechanism, inventory, DEFAULTS)
        rtt_s = changed_us.get(name.replace("-", "").replace(" ", ""), modelled_s * 1e6) / 1e6
        found += [RoundTrip(name, 1000.0, 60, LONE_S, LONE_S + rtt_s + noise, modelled_s) for noise in (1e-8, -1e-8)]
    return found


def test_the_round_trip_is_what_the_chain_takes_beyond_its_own_ends() -> None:
    assert RoundTrip("SmartNIC-host", 1000.0, 60, 11e-6, 14.34e-6, 3.34e-6).rtt_s == pytest.approx(3.34e-6)


def test_a_chain_goes_there_and_back_and_costs_nothing() -> None:
    application = chain()
    assert application.edges == ((0, 1), (1, 2)) and application.sinks == ("back",)
    for made in (lone(), application):
        assert DirectRun(made).ask(b"ping", 0.0).payload == b"ping"
    assert all(cost_s(NAME, column, 1500) == 0.0 for column in Column)


def test_what_was_put_in_meets_the_paper_s_ratios_and_what_is_off_by_four_points_does_not() -> None:
    rows, holds = judged(trips())
    assert holds and "83.3% lower" in {r[0]: r[1] for r in rows}["SmartNIC-host, mean of 2"]
    assert judged(trips(SmartNICSmartNIC=2.76 + 0.5))[1]  # 2.5 points
    rows, holds = judged(trips(SmartNICSmartNIC=2.76 + 0.8))
    assert not holds and any("SmartNIC-SmartNIC" in r[0] and "off" in r[0] for r in rows)


def test_without_a_figure_in_the_text_nothing_is_off() -> None:
    assert judged(trips(hosthostLinux=99.0, inanode=2.0))[1]


def test_what_the_packets_add_is_said() -> None:
    rows, _ = judged(trips(hosthostLinux=53.0))
    assert "+3.010 us" in rows[-1][1]


def test_a_refused_measurement_is_off_and_hatched() -> None:
    found = trips()
    found[5] = msgspec.structs.replace(found[5], refused=("lateness p99 at c1: 9 us, the limit is 2 us",))
    rows, holds = judged(found)
    name = found[5].mechanism
    assert not holds and any(name in r[0] and "REFUSED" in r[1] for r in rows)
    data = figure_data(found)
    assert [bar.mechanism for bar in data.bars if bar.refused] == [MECHANISMS[name].label]
    assert chart_of(stored("fig3", data)).any_refused and data.reference == REFERENCE.label


def test_a_wrong_reply_fails_the_run() -> None:
    found = trips()
    found[0] = msgspec.structs.replace(found[0], bad={"wrong": 1})
    assert not judged(found)[1]


def test_time_is_stretched_until_a_late_process_is_early_enough_for_the_shortest_way() -> None:
    assert ample_scale(0.0) == LEAST_SCALE
    late = ample_scale(0.004)
    assert late * 1.38e-6 == pytest.approx(0.0045, rel=0.05)
    assert ample_scale(1.0) == MOST_TIME_SCALE
