"""Table 1 as cost and power: what went in comes out, and a user's own microservice has a place."""

from statistics import fmean, geometric_mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microservices import profiles as p
from microservices.assumptions import ASSUMPTIONS, DEFAULTS, varied
from microservices.errors import ServiceError
from microservices.kvs import Kvs
from microservices.measured import Column, Cost, Profile
from microservices.service import BUILT_IN, Microservice, Output, service_class

LINUX, BYPASS, SMARTNIC = Column.LINUX, Column.BYPASS, Column.SMARTNIC
HOSTS = (LINUX, BYPASS)
CELLS = [(name, column) for name in p.TABLE_1 for column in Column]
# The columns of Table 1 that the paper computed itself, as printed: thousands of requests per Joule, x of the SmartNIC.
PRINTED_KRPJ = {
    "ipsec": (7.0, 8.1, 79.0), "bm25": (0.8, 0.9, 20.6), "nids": (16.1, 17.2, 84.8), "recommend": (0.03, 0.04, 0.7),
    "natv4": (26.2, 36.8, 86.9), "count": (28.8, 40.3, 96.1), "ema": (27.0, 38.6, 93.5), "kvs": (40.0, 59.6, 97.1),
    "flow_monitor": (27.4, 40.4, 83.6), "ddos": (17.9, 17.4, 80.4), "knn": (0.4, 0.4, 1.5), "spike": (0.8, 0.9, 3.1),
    "bayes": (0.1, 0.1, 0.08), "api_gateway": (14.2, 14.3, 5.0), "top_ranker": (5.9, 7.1, 0.7), "sql": (4.0, 4.7, 2.1)}


def own(made: Profile | None) -> type[Microservice]:
    class Mine(Microservice):
        name = "mine"
        memory_mb = 1
        profile = made

        def handle(self, request: Any, state: Any) -> tuple[Output, ...]:
            return (Output(request.payload),)

    return Mine


def test_table_1_has_every_built_in_microservice_in_every_column() -> None:
    assert p.TABLE_1.keys() == BUILT_IN.keys()
    assert all(list(row) == list(Column) for row in p.TABLE_1.values())


# Printed as 97.1, but 2033.4 thousand requests/s over 21.6 W are 94.1: one of the three figures is off by 3 %.
ODD = ("kvs", SMARTNIC)


@pytest.mark.parametrize("name", p.TABLE_1)
def test_requests_per_joule_come_out_as_the_paper_printed_them(name: str) -> None:
    for column, printed in zip(Column, PRINTED_KRPJ[name], strict=True):
        row = p.TABLE_1[name][column]
        krpj = row.rps / row.active_watts / 1e3
        if (name, column) == ODD:
            assert printed == 97.1 and krpj == pytest.approx(94.1, abs=0.05)
            continue
        rounding = 0.051 if printed >= 0.1 else 0.0051  # of what is printed; below, of watts and of throughput
        assert krpj == pytest.approx(printed, abs=rounding + krpj * (0.05 / row.active_watts + 50 / row.rps))


def test_what_the_text_says_about_table_1_holds_for_the_figures_here() -> None:
    assert max(row[SMARTNIC].active_watts for row in p.TABLE_1.values()) == 24.7
    assert max(row[BYPASS].active_watts for row in p.TABLE_1.values()) == 113
    gains = [row[BYPASS].rps / row[BYPASS].active_watts / (row[LINUX].rps / row[LINUX].active_watts) - 1
             for row in p.TABLE_1.values()]
    assert fmean(gains) == pytest.approx(0.21, abs=0.005)
    better = [row[SMARTNIC].rps / row[SMARTNIC].active_watts / (row[BYPASS].rps / row[BYPASS].active_watts)
              for row in p.TABLE_1.values()]
    winners = [gain for gain in better if gain > 1]
    assert len(winners) == 12
    assert fmean(winners) == pytest.approx(6.5, abs=0.1)  # the text calls it geometric; that would be
    assert geometric_mean(winners) == pytest.approx(4.4, abs=0.1)


def test_the_rows_that_the_network_limited_are_those_near_the_line_rate_with_cores_to_spare() -> None:
    bound = {column: {name for name in p.TABLE_1 if p.is_network_bound(name, column)} for column in Column}
    assert bound[LINUX] == bound[BYPASS] == {"natv4", "count", "ema", "kvs", "flow_monitor"}
    assert bound[SMARTNIC] == bound[LINUX] | {"ipsec", "nids", "ddos"}
    stricter = {name for name in p.TABLE_1 if p.is_network_bound(name, SMARTNIC, varied("network_bound_from", 0.9))}
    assert stricter == bound[SMARTNIC] - {"ipsec"}  # 85.6 % of the line rate


@pytest.mark.parametrize(("name", "column"), CELLS)
def test_all_active_cores_together_serve_table_1_s_rate_or_are_held_back_by_the_network(
        name: str, column: Column) -> None:
    row = p.TABLE_1[name][column]
    by_cores = p.active_cores(name, column) / p.cost_s(name, column, 512)
    if p.is_network_bound(name, column):
        assert by_cores == pytest.approx(row.rps / DEFAULTS.network_bound_headroom)
        assert by_cores > p.LINE_RPS  # so that the port is what limits it
    else:
        assert by_cores == pytest.approx(row.rps)


@given(st.sampled_from(CELLS), st.integers(0, 65_000), st.integers(0, 65_000))
def test_cost_grows_in_proportion_to_size_above_its_fixed_part(cell: tuple[str, Column], a: int, b: int) -> None:
    law = p.cost_law(*cell)
    assert law.cost_s(a) - law.cost_s(b) == pytest.approx(law.per_byte_s * (a - b), abs=1e-12)
    share = DEFAULTS.smartnic_fixed_share if cell[1] is SMARTNIC else DEFAULTS.host_fixed_share
    assert law.fixed_s == pytest.approx(share * p.cost_s(*cell, 512)) and law.per_byte_s > 0


@given(st.sampled_from(CELLS), st.data())
def test_cost_follows_the_assumptions_over_all_of_their_ranges(cell: tuple[str, Column], data: st.DataObject) -> None:
    assumptions = DEFAULTS
    for about in ASSUMPTIONS:
        assumptions = varied(about.name, data.draw(st.sampled_from([about.low, about.default, about.high])),
                             assumptions)
    cost = p.cost_s(*cell, 512, assumptions)
    expected = p.TABLE_1[cell[0]][cell[1]].cores / p.TABLE_1[cell[0]][cell[1]].rps
    bound = p.is_network_bound(*cell, assumptions)
    assert cost == pytest.approx(expected * (assumptions.network_bound_headroom if bound else 1))


@pytest.mark.parametrize("column", HOSTS)
@pytest.mark.parametrize("name", p.TABLE_1)
def test_cores_that_are_as_busy_as_at_the_peak_draw_table_1_s_watts(name: str, column: Column) -> None:
    row, busy = p.TABLE_1[name][column], p.peak_utilisation(name, column)
    drawn = row.cores * p.core_watts(name, column) * (busy + (1 - busy) * p.lull_share(column))
    assert drawn == pytest.approx(row.active_watts)


def test_power_of_whole_processors() -> None:
    assert (p.full_host_watts(LINUX), p.full_host_watts(BYPASS)) == (119.7, 113.0)
    assert (p.smartnic_floor_watts(), p.full_smartnic_watts(), p.smartnic_watts("kvs")) == (18.8, 24.7, 21.6)
    with pytest.raises(ServiceError, match="whole card"):
        p.core_watts("kvs", SMARTNIC)


def test_only_memory_intensive_microservices_hold_the_traffic_manager_up() -> None:
    held_up = {name for name in p.TABLE_1 if p.hol_weight(name)}
    assert held_up == {"top_ranker", "bayes", "sql", "api_gateway", "spike"}
    assert p.hol_weight("sql", varied("hol_factor", 9)) == 9


def test_a_node_s_column_goes_by_its_cores_and_on_xeons_by_the_stack() -> None:
    assert [p.column_of("xeon", stack) for stack in HOSTS] == [LINUX, BYPASS]
    assert {p.column_of("cnmips", stack) for stack in HOSTS} == {SMARTNIC}
    with pytest.raises(ServiceError, match="'arm'"):
        p.column_of("arm", LINUX)
    with pytest.raises(ServiceError, match="linux or bypass"):
        p.column_of("xeon", SMARTNIC)


def test_a_microservice_like_another_costs_what_that_one_costs() -> None:
    mine = own(Profile(like="spike"))
    for column in Column:
        assert p.cost_law(mine, column) == p.cost_law("spike", column)
        assert p.active_cores(mine, column) == p.active_cores("spike", column)
    assert p.core_watts(mine, LINUX) == p.core_watts("spike", LINUX)
    assert p.hol_weight(mine) == DEFAULTS.hol_factor and p.smartnic_watts(mine) == p.smartnic_watts("spike")
    assert p.is_network_bound(own(Profile(like="kvs")), LINUX)


def test_numbers_of_one_s_own_win_over_those_of_what_it_is_like() -> None:
    mine = own(Profile(like="kvs", smartnic=Cost(5e-6, fixed_share=0.5, watts=20), hol_weight=2))
    assert p.cost_s(mine, SMARTNIC, 512) == pytest.approx(5e-6)
    assert p.cost_s(mine, SMARTNIC, 0) == pytest.approx(2.5e-6)
    assert (p.smartnic_watts(mine), p.hol_weight(mine), p.active_cores(mine, SMARTNIC)) == (20, 2, 12)
    assert not p.is_network_bound(mine, SMARTNIC) and p.is_network_bound(mine, LINUX)
    assert p.cost_law(mine, LINUX) == p.cost_law("kvs", LINUX)


def test_a_microservice_may_cost_nothing() -> None:
    echo = own(Profile.everywhere(0))
    assert [p.cost_s(echo, column, 8000) for column in Column] == [0, 0, 0]
    assert p.hol_weight(echo) == 0 and p.peak_utilisation(echo, LINUX) == 1
    assert 9 < p.core_watts(echo, BYPASS) < 10 and 18.8 < p.smartnic_watts(echo) < 24.7


@pytest.mark.parametrize(("made", "words"), [
    (None, ["'mine'", "no profile"]), (Profile(like="nonesuch"), ["nonesuch", "kvs"]),
    (Profile(smartnic=Cost(1e-6)), ["'mine'", "'linux'"])])
def test_a_microservice_that_nobody_knows_the_cost_of_is_named(made: Profile | None, words: list[str]) -> None:
    with pytest.raises(ServiceError) as refused:
        p.cost_s(own(made), LINUX, 512)
    assert all(word in str(refused.value) for word in words)


def test_a_subclass_of_a_built_in_does_not_pass_for_it() -> None:
    class Slower(Kvs):
        pass

    with pytest.raises(ServiceError, match="no profile"):
        p.cost_s(Slower, LINUX, 512)
    assert p.cost_s(service_class("kvs"), LINUX, 512) == p.cost_s("kvs", LINUX, 512)


def test_a_microservice_in_a_file_is_found_by_its_name(tmp_path: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from microservices.kvs import Kvs\nfrom microservices.measured import Profile\n\n"
                    "class Mine(Kvs):\n    name = 'mine'\n    profile = Profile(like='kvs')\n")
    assert p.cost_s(f"{file}:Mine", BYPASS, 512) == p.cost_s("kvs", BYPASS, 512)


@pytest.mark.parametrize(("make", "words"), [
    (lambda: Cost(-1e-6), "-1e-06"), (lambda: Cost(float("nan")), "nan"), (lambda: Cost(1e-6, 1.5), "1.5"),
    (lambda: Cost(1e-6, 0.5, -3), "-3"), (lambda: Profile(), "at least one column"),
    (lambda: Profile(like="kvs", hol_weight=-1), "-1")])
def test_impossible_numbers_are_refused(make: Any, words: str) -> None:
    with pytest.raises(ServiceError, match=words):
        make()
