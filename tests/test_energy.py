"""Watts and joules from core time: Table 1 and Table 4 come back, and nothing is counted twice or lost."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import ExperimentError
from experiments.measurement.energy import EnergyMeter, WindowPower, efficiency, power_between
from experiments.measurement.node_power import services_of
from microservices.application import Application, Channel, Stage
from microservices.assumptions import DEFAULTS, varied
from microservices.errors import ServiceError
from microservices.measured import Column, Cost, Profile
from microservices.profiles import TABLE_1, is_network_bound
from microservices.service import Microservice
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

LINUX, BYPASS, SMARTNIC = Column.LINUX, Column.BYPASS, Column.SMARTNIC
SECOND = 1_000_000_000
HEADROOM = DEFAULTS.network_bound_headroom


def room(cluster: str) -> Inventory:
    return inventory_of(cluster_named(cluster))


def idle(inventory: Inventory, now_ns: int = 0, **counters: dict[str, int]) -> dict[str, dict[str, int]]:
    return {n.name: {"now_ns": now_ns, **counters.get(n.name, {})} for n in inventory.nodes
            if n.role in ("host", "smartnic")}


def second(cluster: str, stack: Column = LINUX, assumptions: Any = DEFAULTS, services: Any = None,
           **core_seconds: dict[str, float]) -> WindowPower:
    """Return the power over one second in which nodes counted core time, by node and counter."""
    inventory = room(cluster)
    counted = {name: {key: round(value * SECOND) for key, value in of.items()} for name, of in core_seconds.items()}
    return power_between(idle(inventory), idle(inventory, SECOND, **counted), inventory, stack, assumptions, services)


@pytest.mark.parametrize("stack", [LINUX, BYPASS])
@pytest.mark.parametrize("service", TABLE_1)
def test_a_host_that_works_as_in_table_1_draws_table_1_s_watts(service: str, stack: Column) -> None:
    row = TABLE_1[service][stack]
    busy = HEADROOM if is_network_bound(service, stack) else 1.0
    power = second("beefy10gx1", stack, s1h={f"busy_ns {service}": row.cores * busy,
                                             f"lull_ns {service}": row.cores * (1 - busy)})
    assert power.active_watts == pytest.approx(row.active_watts)
    assert power.efficiency(row.rps).active_rpj == pytest.approx(row.rps / row.active_watts)
    assert power.wall_watts == pytest.approx(min(83 + row.active_watts, 201))
    assert power.node("s1h").sleeping_cores == pytest.approx(12 - row.cores)


@pytest.mark.parametrize("service", TABLE_1)
def test_a_smartnic_that_works_as_in_table_1_draws_table_1_s_watts(service: str) -> None:
    row = TABLE_1[service][SMARTNIC]
    busy = HEADROOM if is_network_bound(service, SMARTNIC) else 1.0
    power = second("liquidio10gx1", s1n1={f"busy_ns {service}": 12 * busy})
    assert power.active_watts == power.node("s1n1").active_watts == pytest.approx(row.active_watts)
    assert power.wall_watts == pytest.approx(98 + row.active_watts)
    assert power.node("s1n1").sleeping_cores == 0


def test_an_idle_cluster_draws_idle_power_and_nothing_above_it() -> None:
    power = second("type1x3")
    assert (power.idle_watts, power.active_watts, power.wall_watts, power.silent) == (3 * 98, 0, 3 * 98, ())
    assert power.efficiency(0).active_rpj is None and power.efficiency(10).wall_rpj == pytest.approx(10 / 294)


def test_a_smartnic_with_something_deployed_never_rests() -> None:
    power = second("type1x1", s1n1={"handled nfv-fin/nids-1": 0})
    assert power.active_watts == 18.8 and power.node("s1n1").awake_cores == 12


def test_lulls_draw_their_share_and_sleeping_cores_nothing() -> None:
    per_core = 114.7 / 12
    lulls = {"s1h": {"busy_ns sql": 3.0, "lull_ns sql": 4.0}}
    assert second("beefyx1", **lulls).active_watts == pytest.approx(per_core * (3 + 0.5 * 4))
    assert second("beefyx1", assumptions=varied("linux_lull_share", 0), **lulls).active_watts \
        == pytest.approx(per_core * 3)
    polling = second("beefyx1", BYPASS, **lulls)
    assert polling.active_watts == pytest.approx(113 / 12 * 7)
    node = polling.node("s1h")
    assert (node.busy_cores, node.awake_cores, node.sleeping_cores) == (3, 4, 5)


def test_hosts_without_a_column_of_their_own_draw_table_4_s_peak_when_full() -> None:
    full = second("superbeefyx1", s1h={"busy_ns top_ranker": 24})
    assert full.active_watts == pytest.approx(256 - 77) and full.wall_watts == pytest.approx(256)
    other = second("superbeefyx1", s1h={"busy_ns spike": 24})
    assert other.active_watts == pytest.approx((256 - 77) * 112.5 / 119.7)  # as Table 1's rows to each other


def test_a_type2_host_goes_by_cores_and_clock_from_beefy() -> None:
    full = second("type2x1", s1h={"busy_ns sql": 16})
    assert full.active_watts == pytest.approx(114.7 * 16 * 2.1 / (12 * 2.5))


def test_wimpy_never_rests_and_draws_table_4_s_peak_when_full() -> None:
    assert second("wimpyx1", s1h={"handled a/b": 1}).active_watts == pytest.approx(16 * 18.8 / 24.7)
    assert second("wimpyx1", s1h={"busy_ns api_gateway": 32}).wall_watts == pytest.approx(95)
    assert second("wimpyx1", s1h={"busy_ns api_gateway": 32}, stack=BYPASS).wall_watts == pytest.approx(95)


@pytest.mark.parametrize(("cluster", "cores", "uncapped", "peak"), [
    ("type1x1", 12, 98 + 119.7 + 24.7, 222), ("type2x1", 16, 145 + 119.7 * 1.12 + 4 * 24.7, 252)])
def test_where_table_1_and_table_4_disagree_the_wall_is_capped_and_active_power_is_not(
        cluster: str, cores: int, uncapped: float, peak: float) -> None:
    inventory = room(cluster)
    busy = {"s1h": {"busy_ns top_ranker": float(cores)},
            **{n.name: {"busy_ns api_gateway": 12.0} for n in inventory.of_role("smartnic")}}
    capped, free = second(cluster, **busy), second(cluster, assumptions=varied("cap_at_peak", 0), **busy)
    assert capped.wall_watts == peak and free.wall_watts == pytest.approx(uncapped)
    assert capped.active_watts == free.active_watts == pytest.approx(uncapped - capped.idle_watts)
    assert capped.servers[0].capped_watts == pytest.approx(uncapped - peak) and free.servers[0].capped_watts == 0


SERVICES = st.dictionaries(st.sampled_from(sorted(TABLE_1)), st.floats(0, 12), max_size=5)


@given(SERVICES)
def test_a_card_draws_between_the_floor_and_its_hungriest_microservice(busy: dict[str, float]) -> None:
    power = second("type1x1", s1n1={f"busy_ns {name}": value for name, value in busy.items()} | {"handled a/b": 0})
    most = max([18.8, *(TABLE_1[name][SMARTNIC].active_watts for name in busy)])
    assert 18.8 - 1e-9 <= power.active_watts <= most + 1e-9


@given(SERVICES, SERVICES, st.sampled_from([LINUX, BYPASS]))
def test_a_host_s_power_adds_up_over_what_it_does(one: dict[str, float], other: dict[str, float],
                                                  stack: Column) -> None:
    first, then = ({f"busy_ns {name}": value for name, value in busy.items()} for busy in (one, other))
    both = {name: first.get(name, 0) + then.get(name, 0) for name in {**first, **then}}
    parts = sum(second("beefyx1", stack, s1h=busy).active_watts for busy in (first, then))
    # Counters are whole nanoseconds: three roundings of one each, at some 10 W of a core.
    assert second("beefyx1", stack, s1h=both).active_watts == pytest.approx(parts, abs=1e-7)


# (how long, how busy the host's 12 cores are, how busy the card's): below the peak, where power adds up over time.
STEPS = st.tuples(st.integers(1000, 5 * SECOND), st.floats(0, 0.8), st.floats(0, HEADROOM - 0.01))


@given(st.lists(STEPS, min_size=1, max_size=8), st.sets(st.integers(0, 7)))
def test_joules_are_the_same_in_one_window_as_in_many_also_if_reports_are_lost(
        steps: list[tuple[int, float, float]], lost: set[int]) -> None:
    inventory = room("type1x1")
    reports, now = [idle(inventory, 7, s1n1={"handled a/b": 0})], 7
    host = card = 0
    for took, of_host, of_card in steps:
        now, host, card = now + took, host + int(12 * took * of_host), card + int(12 * took * of_card)
        reports.append(idle(inventory, now, s1h={"busy_ns sql": host}, s1n1={"busy_ns kvs": card, "handled a/b": 1}))
    meter = EnergyMeter(inventory, LINUX)
    for number, report in enumerate(reports):
        if number in lost and 0 < number < len(reports) - 1:
            report = {name: counters for name, counters in report.items() if name != "s1n1"}
        meter.read(report)
    whole = power_between(reports[0], reports[-1], inventory, LINUX)
    assert meter.active_joules == pytest.approx(whole.active_joules)
    assert meter.active_joules == pytest.approx(sum(w.active_joules for w in meter.windows))
    assert whole.active_joules == pytest.approx(sum(n.active_joules for n in whole.nodes))
    if not lost:
        assert meter.wall_joules == pytest.approx(whole.wall_joules) and meter.seconds == pytest.approx(whole.seconds)


def test_the_time_line_shows_when_power_was_drawn() -> None:
    inventory = room("beefyx1")
    meter = EnergyMeter(inventory, LINUX)
    assert meter.read(idle(inventory)) is None
    for number, busy in enumerate((0, 12, 12), start=1):
        meter.read(idle(inventory, number * SECOND, s1h={"busy_ns sql": busy * SECOND}))
    assert [(at, pytest.approx(active), pytest.approx(wall)) for at, active, wall in meter.time_line()] \
        == [(0.5, 0, 83), (1.5, 114.7, 197.7), (2.5, 0, 83)]
    assert efficiency(114.7, meter.active_joules, meter.wall_joules).active_rpj == pytest.approx(1)
    assert all(a.end_s == b.start_s for a, b in pairwise(meter.windows))


def test_nodes_report_at_times_of_their_own_and_a_silent_one_draws_nothing_above_idle() -> None:
    inventory = room("type1x2")
    before, after = idle(inventory), idle(inventory, 2 * SECOND, s1h={"busy_ns sql": 12 * SECOND})
    after["s1h"]["now_ns"] = SECOND  # its window is half as long, and it was busy all of it
    del after["s2n1"]
    power = power_between(before, after, inventory, LINUX)
    assert power.silent == ("s2n1",) and power.node("s1h").active_watts == pytest.approx(114.7)
    assert power.active_joules == pytest.approx(114.7)
    with pytest.raises(ExperimentError, match="s2n1"):
        power.node("s2n1")


def test_an_agent_that_was_started_anew_counts_from_nothing() -> None:
    inventory = room("beefyx1")
    meter = EnergyMeter(inventory, LINUX)
    meter.read(idle(inventory, 0, s1h={"busy_ns sql": 50 * SECOND}))
    meter.read(idle(inventory, SECOND, s1h={"busy_ns sql": 3 * SECOND}))
    assert meter.active_joules == pytest.approx(3 * 114.7 / 12)


def test_a_smartnic_that_was_down_draws_nothing_for_that_time() -> None:
    inventory = room("type1x1")
    up = {"s1n1": {"busy_ns kvs": 5 * SECOND, "handled a/b": 1}}
    meter = EnergyMeter(inventory, LINUX)
    meter.read(idle(inventory, 0, **up))
    gone = idle(inventory, SECOND)
    del gone["s1n1"]
    meter.read(gone)
    meter.read(idle(inventory, 2 * SECOND, s1n1={"busy_ns kvs": 0, "handled a/b": 0}))
    assert meter.active_joules == 0
    meter.read(idle(inventory, 3 * SECOND, s1n1={"busy_ns kvs": 0, "handled a/b": 0}))
    assert meter.active_joules == pytest.approx(18.8)


def test_a_microservice_of_one_s_own_is_billed_by_its_profile_under_the_name_in_the_counters() -> None:
    class Mine(Microservice):
        name = "mine"
        memory_mb = 1
        profile = Profile(like="kvs", linux=Cost(1e-5, watts=7))

        def handle(self, request: Any, state: Any) -> Any:
            return ()

    assert second("beefyx1", services={"mine": Mine}, s1h={"busy_ns mine": 2.0}).active_watts == pytest.approx(14)
    with pytest.raises(ServiceError, match="'mine'"):
        second("beefyx1", s1h={"busy_ns mine": 2.0})


def test_what_cannot_be_measured_is_refused_with_its_reason() -> None:
    inventory = room("beefyx1")
    with pytest.raises(ExperimentError, match="reported its counters twice"):
        power_between({}, idle(inventory), inventory, LINUX)
    with pytest.raises(ExperimentError, match="s1h: from 5 ns to 5 ns"):
        power_between(idle(inventory, 5), idle(inventory, 5), inventory, LINUX)
    with pytest.raises(ServiceError, match="linux or bypass"):
        power_between(idle(inventory), idle(inventory, 5), inventory, SMARTNIC)
    with pytest.raises(ExperimentError, match="-1 requests"):
        efficiency(-1, 1, 1)


def test_a_window_s_power_can_be_written_as_json() -> None:
    written = msgspec.json.decode(msgspec.json.encode(second("type1x1", s1h={"busy_ns sql": 1.0}).content()))
    assert written["wall_watts"] == pytest.approx(98 + 114.7 / 12) and written["servers"][0]["model"] == "type1"
    assert [node["name"] for node in written["nodes"]] == ["s1h", "s1n1"]


def test_the_microservices_of_a_deployment_are_known_by_the_names_in_the_counters(tmp_path: Any) -> None:
    path = tmp_path / "own.py"
    path.write_text("from microservices.measured import Profile\nfrom microservices.service import Microservice\n\n\n"
                    "class Own(Microservice):\n    name = 'own'\n    memory_mb = 1\n    profile = Profile(like='sql')\n"
                    "\n    def handle(self, request, state):\n        return ()\n")
    application = Application("mixed", 9, (Stage("a", f"{path}:Own"), Stage("b", "kvs")), (Channel("a", "b"),))
    services = services_of((deploy(application, {0: "s1h", 1: "s1h"}, room("beefyx1")),))
    assert set(services) == {"own", "kvs"}
    own = second("beefyx1", services=services, s1h={"busy_ns own": 2.0}).active_watts
    assert own == pytest.approx(second("beefyx1", s1h={"busy_ns sql": 2.0}).active_watts)
