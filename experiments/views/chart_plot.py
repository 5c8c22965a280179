"""Draws charts for one column of a paper: colours for all kinds of colour vision, and refused values never as good."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from experiments.errors import ExperimentError
from experiments.views.charts import REFUSED, BarChart, Chart, Curve, CurveChart, Mark, Series
from experiments.views.plot import FAINT, FORMATS, INK, styled

WIDTH_IN, HEIGHT_IN = 3.4, 2.5  # one column
TALL_IN = 0.45  # more for names that stand slanting
PNG_DOTS_PER_INCH = 300
POINTS = {"font.size": 7, "axes.titlesize": 8, "axes.labelsize": 7.5, "legend.fontsize": 6.5, "xtick.labelsize": 6.5,
          "ytick.labelsize": 6.5, "axes.linewidth": 0.6, "hatch.linewidth": 0.5, "xtick.major.width": 0.6,
          "ytick.major.width": 0.6}
SMALL = 5.6
# Okabe and Ito. A marker and a dash of its own say the same again, for a grey print.
LOOKS: dict[str, tuple[str, str, Any]] = {
    "ours": ("#0072b2", "o", "-"), "paper": ("#8c8c8c", "D", (0, (1, 1.5))), "theory": (INK, "", "-"),
    "simulation": ("#e69f00", "s", "-"), "emulation": ("#0072b2", "o", "-")}
SEVERAL: tuple[tuple[str, str, Any], ...] = (
    ("#d55e00", "s", (0, (4, 1.5))), ("#009e73", "^", (0, (1, 1))), ("#0072b2", "o", "-"),
    ("#cc79a7", "v", (0, (5, 1, 1, 1))), ("#e69f00", "P", (0, (3, 1, 1, 1, 1, 1))), ("#56b4e9", "X", (0, (6, 2))))
REFUSED_HATCH = "//////"
NAMES_IN = 2.6  # as wide may the names of all groups be together, to stand side by side
LEGEND_HANDLE_IN, LETTER_IN, TITLE_LETTER_IN = 0.42, 0.055, 0.07  # about, of a legend


@contextmanager
def column_style() -> Iterator[None]:
    """Return a context in which a figure is made and drawn in our style, sized for one column."""
    with styled(), mpl.rc_context(POINTS):
        yield


def save_chart(chart: Chart, path: Path) -> None:
    """Draw `chart` into `path`, whose suffix names one of FORMATS; raises ExperimentError if that cannot be."""
    save_figure(lambda: figure_of(chart), path)


def save_figure(make: Callable[[], Figure], path: Path) -> None:
    """Write what `make` returns, called in our style, into `path`, as `save_chart` does."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ExperimentError(f"cannot draw {path.name!r}: the name must end in {', '.join('.' + f for f in FORMATS)}")
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with column_style():
        try:
            make().savefig(path, format=kind, dpi=PNG_DOTS_PER_INCH, metadata=undated)
        except OSError as error:
            raise ExperimentError(f"cannot write {path}: {error.strerror}") from error


def figure_of(chart: Chart) -> Figure:
    """Return `chart` as a figure of one column's width; to be called, and the figure drawn, within `column_style`."""
    slanting = isinstance(chart, BarChart) and _is_slanting(chart)
    figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN + TALL_IN * slanting), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.4, color="#d9d9d9")
    axes.set_axisbelow(True)
    handles = _bars(axes, chart) if isinstance(chart, BarChart) else _curves(axes, chart)
    axes.set_ylabel(chart.y_label)
    if chart.any_refused:
        handles.append(_refused_handle(isinstance(chart, BarChart)))
    # The title is the legend's, so that the two make room for each other.
    legend = figure.legend(handles=handles, loc="outside upper left", frameon=False,
                           title=fill(chart.title, int(WIDTH_IN / TITLE_LETTER_IN)),
                           ncols=_columns_of([str(h.get_label()) for h in handles]), handlelength=2.6,
                           columnspacing=1.2, borderaxespad=0.2,
                           title_fontproperties={"size": POINTS["axes.titlesize"], "weight": "bold"})
    legend.set_alignment("left")
    return figure


def _columns_of(labels: Sequence[str]) -> int:
    """Return into how many columns a legend of `labels` fits; matplotlib fills column by column, the first the most."""
    for columns in range(len(labels), 1, -1):
        rows, longer = divmod(len(labels), columns)
        at = [min(i, longer) + i * rows for i in range(columns + 1)]
        widest = [max(map(len, labels[a:b])) for a, b in pairwise(at)]
        if sum(LEGEND_HANDLE_IN + LETTER_IN * width for width in widest) <= WIDTH_IN:
            return columns
    return 1


def _refused_handle(as_bar: bool) -> Any:
    if as_bar:
        return Patch(facecolor="white", edgecolor=INK, hatch=REFUSED_HATCH, linewidth=0.6, label=REFUSED)
    return Line2D([], [], linestyle="", marker="o", markersize=5, markerfacecolor="white", markeredgecolor=INK,
                  markeredgewidth=0.8, label=REFUSED)


def _is_slanting(chart: BarChart) -> bool:
    """Say whether the names of the groups do not fit side by side: each has as much room as the longest needs."""
    longest = max((len(group) for group in chart.groups), default=0)
    return len(chart.groups) * (longest + 1) * LETTER_IN > NAMES_IN


def _bars(axes: Axes, chart: BarChart) -> list[Any]:
    shown = [one for one in chart.series if any(v is not None for v in one.values)]
    width = 0.8 / max(1, len(shown))
    handles = []
    crowded = len(chart.groups) * len(shown) > 8
    for place, series in enumerate(shown):
        colour = _bar_colour(series, place)
        handles.append(Patch(facecolor=colour, edgecolor=INK, linewidth=0.6, label=series.label))
        for group, value in enumerate(series.values):
            if value is None:
                continue
            refused = series.is_refused(group)
            there = [i for i, one in enumerate(shown) if one.values[group] is not None]
            x = group + (there.index(place) - (len(there) - 1) / 2) * width
            axes.bar(x, value, width * 0.94, facecolor="white" if refused else colour, edgecolor=INK, linewidth=0.6,
                     hatch=REFUSED_HATCH if refused else None)
            axes.annotate(series.words_at(group), (x, value), (0, 1.5), textcoords="offset points", ha="center",
                          va="bottom", fontsize=SMALL, rotation=90 if crowded else 0, color=INK)
    if chart.log_y:
        axes.set_yscale("log")
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    if chart.log_y:
        axes.set_ylim(low, high * (high / low) ** 0.18)
    else:
        axes.set_ylim(0, high * 1.12)
    slanting = _is_slanting(chart)
    axes.set_xticks(range(len(chart.groups)), chart.groups, rotation=50 if slanting else 0,
                    ha="right" if slanting else "center", rotation_mode="anchor" if slanting else "default")
    axes.tick_params(axis="x", length=0)
    return handles


def _bar_colour(series: Series, place: int) -> str:
    if series.role == "paper":
        return "#d0d0d0"
    return LOOKS[series.role][0] if series.role in LOOKS else SEVERAL[place % len(SEVERAL)][0]


def _curves(axes: Axes, chart: CurveChart) -> list[Any]:
    if chart.log_x:
        axes.set_xscale("log", base=2)
    if chart.log_y:
        axes.set_yscale("log")
    handles = []
    several = iter(range(len(chart.curves)))
    for curve in chart.curves:
        look = LOOKS[curve.role] if curve.role in LOOKS else SEVERAL[next(several) % len(SEVERAL)]
        handles.append(_curve(axes, curve, look))
    axes.set_xlabel(chart.x_label)
    if chart.ticks:
        axes.xaxis.set_major_locator(FixedLocator(chart.ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.04, y=0.12)
    if chart.from_zero and not chart.log_y:
        axes.set_ylim(bottom=0)
    if chart.log_y:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        low, high = axes.get_ylim()
        if math.log10(high / low) > 1.2:
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if _leading(value) else ""))
    for band in chart.bands:
        axes.axvspan(band.low, band.high, color="#f0e442", alpha=0.25, linewidth=0, zorder=0)
        middle = math.sqrt(band.low * band.high) if chart.log_x else (band.low + band.high) / 2
        axes.annotate(band.words, (middle, 0.0), (0, 2), xycoords=axes.get_xaxis_transform(),
                      textcoords="offset points", ha="center", va="bottom", fontsize=SMALL, color=FAINT)
    for mark in chart.marks:
        _mark(axes, mark)
    return handles


def _mark(axes: Axes, mark: Mark) -> None:
    """Ring a point, its words above and to the left, where a latency-throughput curve leaves room."""
    axes.plot(mark.x, mark.y, marker="o", markersize=9, markerfacecolor="none", markeredgecolor=INK,
              markeredgewidth=1.0, zorder=6)
    left = axes.transAxes.inverted().transform(axes.transData.transform((mark.x, mark.y)))[0] > 0.5
    axes.annotate(mark.words, (mark.x, mark.y), (-16 if left else 16, 20), textcoords="offset points",
                  ha="right" if left else "left", va="bottom", fontsize=SMALL + 0.6, color=INK,
                  arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.6, "shrinkB": 5})


def _curve(axes: Axes, curve: Curve, look: tuple[str, str, Any]) -> Line2D:
    colour, marker, dash = look
    line = dash if curve.joined else ""
    # A refused point breaks the line: what was between its neighbours is not known.
    axes.plot(curve.xs, curve.good_ys(), color=colour, marker=marker, linestyle=line, linewidth=1.1, markersize=3.6,
              markeredgewidth=0.4, markeredgecolor="white", zorder=3)
    axes.plot(*curve.bad(), color=colour, marker=marker or "o", linestyle="", markersize=5, markerfacecolor="white",
              markeredgewidth=0.9, markeredgecolor=colour, zorder=4)
    return Line2D([], [], color=colour, marker=marker, linestyle=line, linewidth=1.1, markersize=3.6,
                  label=curve.label)


def _leading(value: float) -> bool:
    return round(value / 10 ** math.floor(math.log10(value))) in (2, 5)
