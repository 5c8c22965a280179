"""Charts: the paper's numbers beside ours, refused values never as good, and no words over others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments.clients.latencies import summary_of
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import Verdict
from experiments.measurement.knee import Knee, Probe
from experiments.runs.results import Run
from experiments.views.charts import (
    REFUSED,
    BarChart,
    Compared,
    CompareData,
    CurveChart,
    Fig2Data,
    Fig3Bar,
    Fig3Data,
    Fig8Data,
    GroupedBar,
    GroupedData,
    KneeData,
    Measured,
    QueueData,
    Series,
    fig3_chart,
    fig8_chart,
    grouped_chart,
    knee_chart,
    number,
)
from experiments.views.fig7_chart import RiseCurve, RiseData
from experiments.views.fig10_chart import Fig10Data
from experiments.views.fig11_chart import Fig11Data, Point
from experiments.views.figures import DRAWINGS, StoredFigure, chart_of, draw, redraw, stored
from experiments.views.scenario_timeline import Bin, Moment, Timeline
from experiments.views.table6_chart import Table6Data

chart_plot = pytest.importorskip("experiments.views.chart_plot", reason="matplotlib is not installed")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.colors import to_rgba  # noqa: E402

SERVICES = ("IPsec", "BM25", "NIDS", "Recommend", "NATv4", "Count", "EMA", "KVS", "Flow mon.", "DDoS", "KNN", "Spike",
            "Bayes", "API gw", "Top ranker", "SQL")
BAD = Verdict(False, ("CPU of the machine: 99 %, the limit is 95 %",), ())


def probes() -> tuple[Probe, ...]:
    return tuple(Probe(load, min(load, 12.0) * 1e5, summary_of([max(1e-5, load * 1e-6)] * 3 + [3e-5 + load * 1e-6]),
                       BAD if load == 24 else None) for load in (1, 2, 4, 8, 16, 24, 12))


def line(*ys: float, refused: int = -1) -> tuple[Measured, ...]:
    return tuple(Measured(float(2 ** (6 + i)), y, i == refused) for i, y in enumerate(ys))


NEVER_REFUSED = ("table6", "timeline")  # times of a processor, and what holds at any speed
FIG3 = Fig3Data((Fig3Bar("host-host\nLinux", 50e-6), Fig3Bar("host-host\nbypass", 20e-6, 0.0),
                 Fig3Bar("SmartNIC-host", 3.4e-6, 0.833), Fig3Bar("SmartNIC-\nSmartNIC", 2.8e-6, 0.862, True)),
                "host-host\nbypass")
SAMPLES: dict[str, msgspec.Struct] = {
    "timeline": Timeline("NFV-FIN while parts fail", 4.0, 1.0, tuple(
        Bin(float(at), 300 * (at != 2), 300.0 * (at != 2), 1.0 if at != 2 else None, 2.0 if at != 2 else None)
        for at in range(4)), (Moment(2.0, 2.0, 2.1, "fail", "fail hang s1n1", "hang s1n1", 1.0),
                              Moment(3.0, 3.0, 3.1, "heal", "heal hang s1n1", "hang s1n1"))),
    "compare": CompareData("Table 1: requests per Joule, SmartNIC over kernel bypass", "benefit (x)", tuple(
        Compared(name, 1e6 / (i + 1), 1.1e6 / (i + 1), i == 3) for i, name in enumerate(SERVICES)), True),
    "fig2": Fig2Data({"IPsec": line(5, 5, 9, 9, 7), "NIDS": line(2, 2, 4, 5, 4, refused=2), "DDoS": line(2, 3, 4, 4)},
                     {"IPsec": 9.7, "NIDS": 4.9, "DDoS": 4.6, "KVS": 1.6}),
    "fig3": FIG3,
    "fig7-rise": RiseData(tuple(
        RiseCurve(name, tuple((x / 10, 2e4 + 1e4 * k * (x > 20)) for x in range(-10, 90)), k == 1)
        for k, name in enumerate(("rta-ptc, gain", "rta-sf, gain", "iot-dh, gain")))),
    "fig10": Fig10Data("nfv-fin", {name: tuple(Measured(x / 4, 1e8 * k * x / (x + 20), k == 3) for x in range(25))
                                   for k, name in enumerate(("beefyx4", "wimpyx4", "beefyx2+wimpyx2", "type2x2"), 1)}),
    "fig11": Fig11Data(tuple(Point(servers, per_nic, servers ** 0.2 / 20, servers ** 0.2 / 10, servers == 50_000)
                             for servers in (100, 1000, 5000, 10_000, 20_000, 50_000) for per_nic in (1, 4, 16))),
    "fig8": Fig8Data({name: tuple(Measured(x / 5, 294 * (1 + slope * x / 5), x == 5) for x in range(6))
                      for name, slope in (("NFV-FIN", 0.02), ("RTA-SHM", 0.7), ("IOT-TS", 0.9))}, 294.0),
    "grouped": GroupedData("Figure 6a: requests per Joule", "relative to HCM", tuple(
        GroupedBar(app, way, 1 + i * k / 10, refused=(app, way) == ("RTA-PTC", "ilp"))
        for i, app in enumerate(("NFV-FIN", "RTA-PTC", "IOT-DH"))
        for k, way in enumerate(("hcm", "annealing", "ilp")))),
    "knee": KneeData("IPsec, 12 cores", Knee(probes()[-1], probes(), "12 give all", 1.2e6)),
    "queue": QueueData("M/D/12", tuple(Measured(u / 20, 1e-5 / (1 - u / 20)) for u in range(1, 19)),
                       (Measured(0.3, 1.5e-5),), (Measured(0.6, 2.5e-5), Measured(0.8, 5e-5, True))),
    "table6": Table6Data({name: tuple((n, k / 50) for n in range(100, 1001, 300)) for k, name in enumerate(
                             ("hcm", "annealing", "ilp"), 1)},
                         {name: tuple((n, k * n / 50) for n in range(100, 1001, 300)) for k, name in enumerate(
                             ("hcm", "annealing", "ilp"), 1)}),
}


def sample(name: str) -> BarChart | CurveChart:
    return chart_of(stored(name, SAMPLES[name]))


def test_there_is_a_sample_of_every_drawing() -> None:
    assert set(SAMPLES) == set(DRAWINGS)


LONG_NAMES = GroupedData("Sensitivity", "x in requests/J", tuple(
    GroupedBar(name, end, 1.0) for name in ("as assumed", "last_stage_share", "network_bound_headroom", "zipf", "keys")
    for end in ("low", "high")))


@pytest.mark.parametrize("name", [*(name for name in DRAWINGS if name != "timeline"), "few groups with long names"])
def test_all_words_stand_on_the_page_and_none_over_another(name: str) -> None:
    with chart_plot.column_style():
        figure = chart_plot.figure_of(sample(name) if name in DRAWINGS else grouped_chart(LONG_NAMES))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        axes, legend = figure.axes[0], figure.legends[0]
        assert figure.get_size_inches()[0] == pytest.approx(3.4)
        words = [t for t in (*axes.texts, axes.xaxis.label, axes.yaxis.label, legend.get_title(), *legend.get_texts(),
                             *_tick_labels(axes.xaxis), *_tick_labels(axes.yaxis)) if t.get_text()]
        upright = [(t.get_text(), t.get_window_extent(renderer)) for t in words if t.get_rotation() in (0.0, 90.0)]
        page = figure.bbox
        for i, (said, place) in enumerate(upright):
            assert page.x0 <= place.x0 and place.x1 <= page.x1 and page.y0 <= place.y0 and place.y1 <= page.y1, said
            for other, its in upright[i + 1:]:
                # Numbers that stand upright side by side have the font's own room around them.
                assert not (place.x0 + 2 < its.x1 and its.x0 + 2 < place.x1 and place.y0 + 2 < its.y1
                            and its.y0 + 2 < place.y1), (said, other)
        assert min(t.get_fontsize() for t in words) >= 5.5


def test_what_the_text_says_looks_like_the_paper_beside_ours() -> None:
    chart = grouped_chart(GroupedData("Gain", "gain (x)", tuple(
        GroupedBar("nfv-fin", label, 3.0) for label in ("ours", "text", "throughput, text", "low"))))
    assert [series.role for series in chart.series] == ["ours", "paper", "paper", "several"]


def _tick_labels(axis: Any) -> list[Any]:
    """The labels of ticks in view; matplotlib keeps some beyond."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()) if low <= tick.get_loc() <= high]


@pytest.mark.parametrize("name", [name for name in DRAWINGS if name not in NEVER_REFUSED])
def test_a_chart_with_a_refused_value_says_so_and_one_without_does_not(name: str) -> None:
    for figure, wanted in ((stored(name, SAMPLES[name]), True), (_all_good(name), False)):
        with chart_plot.column_style():
            drawn = chart_plot.figure_of(chart_of(figure))
        labels = [text.get_text() for text in drawn.legends[0].get_texts()]
        assert (REFUSED in labels) is wanted and len(labels) == len(set(labels))


def _all_good(name: str) -> StoredFigure:
    raw = msgspec.json.encode(stored(name, SAMPLES[name]))
    return msgspec.json.decode(raw.replace(b'"refused":true', b'"refused":false').replace(b'"holds":false',
                                                                                         b'"holds":true'),
                               type=StoredFigure)


def test_a_refused_bar_is_hollow_and_hatched_and_no_other_is() -> None:
    with chart_plot.column_style():
        bars = chart_plot.figure_of(sample("compare")).axes[0].patches
    hollow = [bar for bar in bars if bar.get_hatch()]
    assert len(bars) == 32 and len(hollow) == 1 and hollow[0].get_facecolor() == to_rgba("white")


def test_a_refused_point_is_hollow_and_the_line_stops_before_it() -> None:
    with chart_plot.column_style():
        lines = chart_plot.figure_of(sample("fig8")).axes[0].lines
    joined = [one for one in lines if one.get_linestyle() not in ("None", "")]
    assert len(joined) == 3 and all(math.isnan(one.get_ydata()[5]) for one in joined)
    hollow = [one for one in lines if one.get_markerfacecolor() == "white" and len(one.get_xdata())]
    assert [list(one.get_xdata()) for one in hollow] == [[100.0]] * 3


def test_figure_3_has_the_papers_cuts_as_bars_and_in_words() -> None:
    chart = fig3_chart(FIG3)
    paper, ours = chart.series
    assert paper.values[0] is None and paper.values[2] == pytest.approx(20 * (1 - 0.833))
    assert paper.words == ("", "20", "3.34\n-83.3%", "2.76\n-86.2%") and ours.words[3] == "2.8\n-86.0%"
    with pytest.raises(ExperimentError, match="no round trip of the reference, 'carrier pigeon'"):
        fig3_chart(Fig3Data(FIG3.bars, "carrier pigeon"))


def test_figure_8_is_normalised_to_idle_power() -> None:
    data = SAMPLES["fig8"]
    assert isinstance(data, Fig8Data)
    curve = fig8_chart(data).curves[1]
    assert curve.label == "RTA-SHM" and curve.xs[-1] == 100
    assert curve.ys[0] == 1.0 and curve.ys[-1] == pytest.approx(1.7)


def test_the_knee_is_marked_where_there_is_one_and_its_lack_is_said() -> None:
    found = knee_chart(KneeData("IPsec", Knee(probes()[-1], probes(), "")))
    assert [m.words for m in found.marks] == ["knee: 1.2M/s at load 12"]
    assert found.curves[0].xs == (100, 200, 400, 800, 1200, 1200, 1200) and found.curves[0].bad()[0] == [1200]
    none = knee_chart(KneeData("IPsec", Knee(None, probes(), "no knee: ...")))
    assert not none.marks and none.title == "IPsec (no knee)"


def test_a_finished_run_draws_its_figures_and_draws_them_anew_from_its_manifest(tmp_path: Path) -> None:
    run = Run("fig3", tmp_path)
    figures = {"figure": stored("fig3", FIG3), "time": stored("timeline", SAMPLES["timeline"])}
    paths = draw(run.directory, figures)
    assert sorted(p.name for p in paths) == ["figure.pdf", "figure.png", "time.pdf", "time.png"]
    run.finish({"holds": True, "figures": figures})
    before = {p: p.read_bytes() for p in paths}
    assert before[run.directory / "figure.png"].startswith(b"\x89PNG")
    assert before[run.directory / "figure.pdf"].startswith(b"%PDF")
    for path in paths:
        path.unlink()
    assert redraw(run.directory) == paths and {p: p.read_bytes() for p in paths} == before
    assert {p.name for p in run.directory.iterdir()} == {"manifest.json", *(p.name for p in paths)}


def test_what_cannot_be_drawn_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no drawing 'fig99'; there are compare"):
        chart_of(StoredFigure("fig99", {}))
    with pytest.raises(ExperimentError, match=r"'fig3' are none: .*bars"):
        chart_of(StoredFigure("fig3", {"reference": "x"}))
    with pytest.raises(ExperimentError, match="Fig3Data for the drawing 'fig8', which takes Fig8Data"):
        stored("fig8", FIG3)
    with pytest.raises(ExperimentError, match=r"manifest\.json"):
        redraw(tmp_path)
    with pytest.raises(ExperimentError, match=r"figure\.gif.*\.svg, \.png, \.pdf"):
        chart_plot.save_chart(sample("fig3"), tmp_path / "figure.gif")
    with pytest.raises(ExperimentError, match="2 values, 0 marks and 0 words for 1 groups"):
        BarChart("", "", ("a",), (Series("ours", "ours", (1.0, 2.0)),))


def test_numbers_are_written_as_the_paper_writes_them() -> None:
    assert [number(v) for v in (1_851_100, 911_900, 999_900, 84.8, 0.04, 0.0)] == [
        "1.85M", "912K", "1M", "84.8", "0.04", "0"]
