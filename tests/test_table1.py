"""Table 1's experiment: what is judged, the mean of repetitions, and what section 2.3's text says of the table."""

from __future__ import annotations

import msgspec
import pytest

from experiments.measurement.single_node import CORES, PORT, CellResult
from experiments.table1 import judged, mean_of
from experiments.table1_claims import HOST_WINS, NIC_WINS, claims
from microservices.measured import Column
from microservices.profiles import TABLE_1, is_network_bound

Cells = dict[tuple[str, Column], CellResult]


def cell(service: str, column: Column, **changes) -> CellResult:
    """The paper's own cell, as if we had measured it."""
    paper = TABLE_1[service][column]
    bound = is_network_bound(service, column)
    found = CellResult(service, column.value, 512, 200.0, True, "12 give all", (), ((12.0, paper.rps, 1e-5, True),),
                       paper.rps, paper.mean_s, paper.mean_s, paper.p99_s, paper.active_watts, paper.cores,
                       float(paper.cores), 1.0 if bound else 0.5, PORT if bound else CORES, 12, 100, {})
    return msgspec.structs.replace(found, **changes)


def cells() -> Cells:
    return {(service, column): cell(service, column) for service in TABLE_1 for column in Column}


def rows_off(found: Cells) -> list[str]:
    rows, holds = judged(found)
    off = [what for what, _, _ in rows if what.endswith("<- off")]
    assert holds is not bool(off)
    return off


def test_the_paper_s_own_table_is_as_it_should_be() -> None:
    rows, holds = judged(cells())
    assert holds and len(rows) == 48 + len(claims(cells()))
    assert rows[0][1].startswith("821.3K rps (+0.0%), 117.0 W (+0.0%)")


@pytest.mark.parametrize(("changes", "off"), [
    ({"rps": 1.099}, False), ({"rps": 1.101}, True), ({"rps": 0.899}, True),
    ({"active_watts": 1.049}, False), ({"active_watts": 1.051}, True), ({"active_watts": 0.949}, True)])
def test_throughput_may_be_off_by_a_tenth_and_power_by_a_twentieth(changes: dict[str, float], off: bool) -> None:
    found = cells()
    key = ("sql", Column.LINUX)
    found[key] = msgspec.structs.replace(found[key], **{n: getattr(found[key], n) * by for n, by in changes.items()})
    assert rows_off(found) == (["sql, linux  <- off"] if off else [])


@pytest.mark.parametrize(("changes", "words"), [
    ({"holds": False, "said": "no knee: the machine did not keep up"}, "REFUSED: no knee: the machine did not keep up"),
    ({"bad": {"wrong": 2}}, "{'wrong': 2}")])
def test_a_cell_that_is_refused_or_has_bad_replies_is_off_and_says_so(changes: dict, words: str) -> None:
    found = cells()
    found["kvs", Column.SMARTNIC] = cell("kvs", Column.SMARTNIC, **changes)
    assert rows_off(found) == ["kvs, smartnic  <- off"]
    (row,) = (said for what, said, _ in judged(found)[0] if what.endswith("<- off"))
    assert words in row


def test_what_the_network_bound_in_the_paper_must_be_bound_by_the_port_and_the_rest_may() -> None:
    found = cells()
    assert is_network_bound("kvs", Column.BYPASS) and not is_network_bound("sql", Column.BYPASS)
    found["kvs", Column.BYPASS] = cell("kvs", Column.BYPASS, limited_by=CORES)
    found["sql", Column.BYPASS] = cell("sql", Column.BYPASS, limited_by=PORT)
    assert rows_off(found) == ["kvs, bypass  <- off"]


# -- repetitions -----------------------------------------------------------------------------------------------------

def test_the_mean_of_repetitions_is_of_all_that_is_measured() -> None:
    repetitions = [cell("sql", Column.LINUX, rps=r, mean_s=r / 1e9, active_watts=r / 1e4, port_use=r / 1e6)
                   for r in (100e3, 200e3, 600e3)]
    found = mean_of(repetitions)
    assert (found.rps, found.mean_s, found.active_watts, found.port_use) == pytest.approx((300e3, 3e-4, 30.0, 0.3))
    assert found.holds and found.checked == 300


def test_one_repetition_that_is_refused_makes_the_cell_so_with_its_own_words() -> None:
    bad = cell("sql", Column.LINUX, holds=False, said="no knee", reasons=("CPU of the machine: 99 %",))
    found = mean_of([cell("sql", Column.LINUX), bad, cell("sql", Column.LINUX)])
    assert (found.holds, found.said, found.reasons) == (False, "no knee", ("CPU of the machine: 99 %",))


def test_a_wrong_reply_in_any_repetition_is_the_cell_s() -> None:
    found = mean_of([cell("sql", Column.LINUX), cell("sql", Column.LINUX, bad={"wrong": 1}),
                     cell("sql", Column.LINUX, bad={"wrong": 2, "lost": 1})])
    assert found.bad == {"wrong": 3, "lost": 1}


def test_what_limits_a_cell_goes_by_the_mean_of_its_port() -> None:
    uses = [cell("kvs", Column.LINUX, port_use=use, limited_by=CORES if use < 0.93 else PORT)
            for use in (0.92, 0.96, 0.97)]
    assert mean_of(uses).limited_by == PORT


# -- claims ----------------------------------------------------------------------------------------------------------

def test_twelve_microservices_win_on_the_smartnic_and_four_on_the_host() -> None:
    def ratio(service: str) -> float:
        nic, host = (TABLE_1[service][c] for c in (Column.SMARTNIC, Column.BYPASS))
        return nic.rps / nic.active_watts / (host.rps / host.active_watts)

    assert len(NIC_WINS) == 12 and len(HOST_WINS) == 4
    assert all(ratio(s) > 1 for s in NIC_WINS) and all(ratio(s) < 1 for s in HOST_WINS)


@pytest.mark.parametrize(("words", "text", "table"), [
    ("kernel bypass over Linux: mean gain of 16", "21.0 %", 0.211),  # 21.1 % from the printed column
    ("p99, kernel bypass under Linux", "16.0 %", 0.134),
    ("12 winners: arithmetic mean", "6.5x", 6.55),  # from the printed column, which is rounded
    ("as the text calls it", "6.5x", 4.41),
    ("requests per Joule, bypass over SmartNIC, 4 losers", "4.1x", 4.11),  # from the printed column
    ("mean latency that the SmartNIC saves", "45.3 %", 0.524),
    ("p99 that the SmartNIC saves", "45.4 %", 0.495),
    ("mean latency that the host saves", "41.2 %", 0.411),
    ("p99 that the host saves", "30.0 %", 0.300),
    ("most active power of the SmartNIC", "24.7 W", 24.7),
    ("most active power of the host", "113 W", 113.0)])
def test_a_claim_of_the_text_beside_what_the_paper_s_own_table_gives(words: str, text: str, table: float) -> None:
    (claim,) = [c for c in claims(cells()) if words in c.what]
    assert claim.shown(claim.text) == text
    assert claim.table == pytest.approx(table, rel=0.015)
    assert claim.ours == pytest.approx(claim.table)  # our cells are the paper's here


def test_our_figure_follows_our_cells_and_the_table_s_does_not() -> None:
    found = {key: msgspec.structs.replace(c, rps=2 * c.rps) if key[1] is Column.SMARTNIC else c
             for key, c in cells().items()}
    by_what = {c.what: c for c in claims(found)}
    winners = by_what["requests per Joule, SmartNIC over bypass, 12 winners: arithmetic mean"]
    losers = by_what["requests per Joule, bypass over SmartNIC, 4 losers: arithmetic mean"]
    assert winners.ours == pytest.approx(2 * winners.table) and losers.ours == pytest.approx(losers.table / 2)
    hosts = by_what["requests per Joule, kernel bypass over Linux: mean gain of 16"]
    assert hosts.ours == hosts.table
