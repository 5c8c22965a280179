"""Figures 5, 9 and 10, Table 5 and its sensitivity: what is said of points, beside the paper where it has a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from peak_cases import peak_of

from experiments import fig5, fig9, fig10, sensitivity, table5
from experiments.measurement.cluster_peaks import ClusterPeak
from experiments.measurement.measuring import Plan
from experiments.runs.points import PointFile
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.figures import chart_of
from microservices.applications import APPLICATIONS
from microservices.assumptions import ASSUMPTIONS, DEFAULTS, varied

# -- Figure 5 ----------------------------------------------------------------------------------------------------------


def fig5_points(gain: dict[str, float], **of: bool) -> dict[str, ClusterPeak]:
    return {fig5.name_of(a, c): peak_of(a, c, 1000.0 * (gain.get(a, 1.5) if c == fig5.TYPE1 else 1.0),
                                        mean_s=0.5e-3 if c == fig5.TYPE1 else 1e-3, **of)
            for a in APPLICATIONS for c in (fig5.TYPE1, fig5.BEEFY)}


def test_figure_5_holds_if_each_class_gains() -> None:
    rows, holds = fig5.judged(fig5_points({"nfv-fin": 3.1, "rta-ptc": 1.47}))
    said = {what: (measured, wanted) for what, measured, wanted in rows}
    assert holds
    assert said["nfv-fin, Type1 over Beefy"][0].startswith("requests/J 3.10x, mean -50%, p99 -50%")
    assert said["nfv-fin, Type1 over Beefy"][1] == "text: 3x (within 25 %)"
    assert said["NFV, mean of the class"][0].startswith("requests/J 2.03x")
    assert said["NFV, mean of the class"][1].startswith("text: 2.5x (within 25 %), -43.3%")
    assert said["gains most, and least"][0].startswith("nfv-fin 3.10x")


@pytest.mark.parametrize("lost", [("iot-dh", "iot-ts"), ("nfv-fin", "nfv-din", "nfv-ifid"),
                                  ("rta-ptc", "rta-shm", "rta-sf")])
def test_figure_5_fails_if_a_class_gains_nothing(lost: tuple[str, ...]) -> None:
    assert not fig5.judged(fig5_points({"nfv-fin": 3.0, **dict.fromkeys(lost, 0.9)}))[1]


@pytest.mark.parametrize("gain", [{"nfv-fin": 1.2}, {"nfv-fin": 3.0, "rta-ptc": 1.6}, {"nfv-fin": 3.0, "rta-shm": 3.1}])
def test_another_order_of_applications_than_the_text_s_is_marked_and_fails_nothing(gain: dict[str, float]) -> None:
    rows, holds = fig5.judged(fig5_points({"rta-ptc": 1.4, **gain}))
    assert holds and "gains most, and least  <- differs from the text" in {what for what, _, _ in rows}


def test_figure_5_fails_and_says_so_where_the_machine_did_not_keep_up() -> None:
    rows, holds = fig5.judged(fig5_points({"nfv-fin": 3.0}, holds=False))
    assert not holds and sum("REFUSED" in measured for _, measured, _ in rows) == len(APPLICATIONS)


def test_figure_5_is_drawn_with_the_texts_gains_beside_ours() -> None:
    figures = fig5.figures_of(fig5_points({"nfv-fin": 3.1}))
    assert set(figures) == {"figure", "mean", "p99", "gain"}
    gain = chart_of(figures["gain"])
    paper = next(s for s in gain.series if s.label == "text")  # type: ignore[union-attr]
    assert [v for v in paper.values if v is not None] == [3.0, 1.12, 2.5, 1.3, 1.3]
    assert chart_of(figures["figure"]).log_y


# -- Figure 9 ----------------------------------------------------------------------------------------------------------


def fig9_points(gain: dict[str, float], **of: bool) -> dict[str, ClusterPeak]:
    return {f"{a}/{c}": peak_of(a, c, 1000.0 * (gain.get(a, 1.2) if c == fig9.SHARED else 1.0), **of)
            for c in (fig9.SHARED, fig9.DEDICATED) for a in APPLICATIONS}


def test_figure_9_holds_if_sharing_gains_throughput_and_loses_none() -> None:
    rows, holds = fig9.judged(fig9_points({"nfv-fin": 2.5, "iot-ts": 1.0}))
    said = {what: (measured, wanted) for what, measured, wanted in rows}
    assert holds and said["gains most throughput"] == ("nfv-fin 2.50x; nfv-fin 2.50x", "text: nfv-fin 2.9x")
    assert said["gains least throughput"][0] == "1.00x; iot-ts 1.00x"
    assert chart_of(fig9.figures_of(fig9_points({}))["figure"]).log_y


@pytest.mark.parametrize("gain", [{"rta-sf": 0.8}, dict.fromkeys(APPLICATIONS, 1.0)])
def test_figure_9_fails_if_sharing_loses_or_gains_nowhere(gain: dict[str, float]) -> None:
    assert not fig9.judged(fig9_points(gain))[1]


def test_figure_9_marks_it_if_iot_ts_gains_more_than_others() -> None:
    rows, holds = fig9.judged(fig9_points({"nfv-fin": 2.5, "iot-ts": 1.4}))
    said = {what: measured for what, measured, _ in rows}
    assert holds and said["gains least throughput  <- differs from the text"] == "1.20x; iot-ts 1.40x"


# -- Table 5 and Figure 10 ---------------------------------------------------------------------------------------------


def table5_points(type2: float = 3000.0, **of: bool) -> dict[str, ClusterPeak]:
    return {f"{a}/{c}": peak_of(a, c, type2 if c == table5.SMARTNICS else 1000.0 + 100 * n, cost_usd=1000.0 * (n + 1),
                                **of)
            for n, c in enumerate(table5.CLUSTERS) for a in table5.APPLICATIONS}


def test_table_5_gives_every_cluster_in_order_and_the_smartnics_over_the_best_other() -> None:
    rows, holds = table5.judged(table5_points())
    assert holds and len(rows) == 3 * (5 + 1)
    assert rows[0][0] == "nfv-fin on type2x2" and rows[0][1].startswith("0.03 KRPJ")
    assert rows[5][1].startswith("2.14x; order: type2x2, superbeefyx1")
    assert not table5.judged(table5_points(holds=False))[1]


def test_only_a_full_run_in_virtual_time_has_all_eight_applications() -> None:
    assert table5.applications_of(RunOptions(simulate=True)) == tuple(APPLICATIONS)
    for options in (RunOptions(), RunOptions(quick=True), RunOptions(quick=True, simulate=True)):
        assert table5.applications_of(options) == table5.APPLICATIONS


def test_cost_efficiency_is_the_papers_formula_over_table_4s_prices_and_peak_power() -> None:
    points = table5_points()
    point = points["nfv-fin/type2x2"]
    worth = {p.x: p.y for p in fig10.curves_of(points)["nfv-fin"]["type2x2"]}
    hours = 5 * 365 * 24
    spent_usd = point.cost_usd + point.peak_watts / 1000 * hours * 0.0733
    assert worth[5.0] == pytest.approx(point.peak.rps * hours * 3600 / spent_usd)
    assert worth[0.0] == 0 and max(worth) >= 5
    rows, holds = fig10.judged(points)
    assert holds and len(rows) == 9 and "type2x2 over beefyx4" in rows[0][1]


def test_figure_10_takes_a_finished_table_5_of_the_same_options_and_no_other(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.fig10.RESULTS", tmp_path)
    options = RunOptions(quick=True, simulate=True)
    assert fig10.table5_of(options) == (None, "")
    run = Run.begin("table5", options, tmp_path)
    points = PointFile(run.directory / "points.jsonl")
    for name, point in table5_points().items():
        points.add(name, 1.0, point)
    assert fig10.table5_of(options) == (None, "")  # it is not finished
    run.finish({"options": options.identity(), "assumptions": DEFAULTS})
    assert fig10.table5_of(options) == (table5_points(), str(run.directory))
    assert fig10.table5_of(RunOptions(quick=True)) == (None, "")


# -- sensitivity -------------------------------------------------------------------------------------------------------


def cells() -> list[str]:
    return [f"{a}/{c}" for c in table5.CLUSTERS for a in table5.APPLICATIONS]


def test_an_assumption_is_tried_only_where_it_can_matter() -> None:
    assert sensitivity.cells_of("analytics_share", cells()) == [f"iot-ts/{c}" for c in table5.CLUSTERS]
    assert sensitivity.cells_of("work_per_clock_8160", cells()) == [f"{a}/superbeefyx1" for a in table5.APPLICATIONS]
    assert sensitivity.cells_of("zipf", cells()) == cells() and sensitivity.cells_of("bypass_lull_share", cells()) == []
    named = {a.name for a in ASSUMPTIONS}
    assert sensitivity.cells_of("logged_share", fig5.STUDY.cells) == ["iot-dh/type1x3", "iot-dh/beefyx3"]
    assert sensitivity.cells_of("hol_factor", fig9.STUDY.cells) == fig9.STUDY.cells
    assert {*sensitivity._ONLY_APPLICATIONS, *sensitivity._ONLY_CLUSTERS, *sensitivity.NOWHERE} <= named


def test_sensitivity_says_what_changes_most_and_whose_order_turns() -> None:
    base = dict.fromkeys(cells(), 100.0) | {f"{a}/type2x2": 150.0 for a in table5.APPLICATIONS}
    small = {"low": {"nfv-fin/type2x2": 150.0}, "high": {"nfv-fin/type2x2": 150.5}}
    large = {"low": {"nfv-fin/type2x2": 50.0}, "high": {"nfv-fin/type2x2": 180.0}}
    rows = sensitivity.rows_of(table5.STUDY, base, {"forward_s": small, "hol_factor": large})
    assert rows[0][1].startswith("1.50x; order: type2x2")
    assert rows[3] == ("hol_factor from 1 to 16 (4)", "most in nfv-fin/type2x2: -67% to +20% requests/J",
                       "order changes: nfv-fin at low")
    assert rows[4][1] == "forward_s" and "tor_s" in rows[5][1] and "logged_share" in rows[5][1]
    figures = sensitivity.figures_of(table5.STUDY, base, {"forward_s": small, "hol_factor": large})
    bars = chart_of(figures["figure"])
    assert bars.groups == ("as assumed", "hol_factor")  # type: ignore[union-attr]


def test_sensitivity_of_figure_5_tells_what_an_assumption_makes_of_a_class() -> None:
    study = fig5.STUDY
    base = {cell: 300.0 if "type1x3" in cell else 100.0 for cell in study.cells}
    rows = sensitivity.rows_of(study, base, {"analytics_share": {"low": {"iot-ts/type1x3": 100.0},
                                                                 "high": {"iot-ts/type1x3": 500.0}}})
    said = {what: measured for what, measured, _ in rows}
    assert said["IOT, mean of the class"] == "3.00x" and said["nfv-fin, type1x3 over beefyx3"].startswith("3.00x")
    assert said["analytics_share from 0.1 to 1 (0.5)"].endswith("requests/J; IOT 2.00x to 4.00x")


def test_a_cell_is_measured_under_changed_assumptions_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.measurement.cluster_peaks.QUICK_PLAN", Plan(100, 50))
    options = RunOptions(quick=True, simulate=True)
    with table5.ClusterRooms(options, lambda _: None) as rooms:
        known = rooms.peak("rta-sf", "superbeefyx1")
    slow, usual = (sensitivity.Task(known, varied("work_per_clock_8160", work), True).rpj() for work in (0.8, 1.0))
    assert slow < 0.9 * usual
