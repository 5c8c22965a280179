"""Draws a scenario's timeline: throughput above, latency below, and what was broken as numbered stretches."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.chart_plot import PNG_DOTS_PER_INCH, SEVERAL, SMALL, column_style
from experiments.errors import ExperimentError
from experiments.plot import FORMATS, INK
from experiments.scenario_timeline import Broken, Timeline, broken_spans

WIDTH_IN, PANELS_IN, ROW_IN = 7.0, 3.6, 0.14
TITLE_LETTERS = 100
BLUE, RED = "#0072b2", "#d55e00"


def save_timeline(timeline: Timeline, path: Path) -> None:
    """Draw `timeline` into `path`, whose suffix names one of FORMATS; raises ExperimentError if that cannot be."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ExperimentError(f"cannot draw {path.name!r}: the name must end in {', '.join('.' + f for f in FORMATS)}")
    with column_style():
        try:
            figure_of(timeline).savefig(path, format=kind, dpi=PNG_DOTS_PER_INCH)
        except OSError as error:
            raise ExperimentError(f"cannot write {path}: {error.strerror}") from error


def figure_of(timeline: Timeline) -> Figure:
    """Return the figure; to be called, and drawn, within `column_style`."""
    spans = broken_spans(timeline.moments, timeline.end_s)
    figure = Figure(figsize=(WIDTH_IN, PANELS_IN + ROW_IN * len(spans)), facecolor="white", layout="constrained")
    throughput, latency = figure.subplots(2, 1, sharex=True)
    figure.suptitle(fill(timeline.title, TITLE_LETTERS), x=0.01, ha="left", fontsize=8, fontweight="bold")
    middle = [b.at_s + timeline.bin_s / 2 for b in timeline.bins]
    throughput.plot(middle, [b.rps for b in timeline.bins], color=BLUE, linewidth=1.1)
    throughput.set_ylabel("replies/s")
    throughput.set_ylim(bottom=0)
    for label, colour, dash, values in (("median", BLUE, "-", [b.p50_ms for b in timeline.bins]),
                                        ("99th percentile", RED, (0, (4, 1.5)), [b.p99_ms for b in timeline.bins])):
        latency.plot(middle, [math.nan if v is None else v for v in values], color=colour, linestyle=dash,
                     linewidth=1.1, label=label)
    if any(b.replies for b in timeline.bins):
        latency.set_yscale("log")
    latency.set_ylabel("latency (ms)")
    latency.set_xlabel("seconds since the load began")
    latency.set_xlim(0, timeline.end_s)
    latency.legend(loc="upper left", frameon=False, ncols=2)
    for axes in (throughput, latency):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4, color="#d9d9d9")
        for span in spans:
            _mark(axes, span, named=axes is throughput)
    said = [f"{span.number}: {span.words}, {span.begin_s:.1f} to {span.end_s:.1f} s" for span in spans]
    if said:
        figure.supxlabel("\n".join(said), x=0.01, ha="left", fontsize=SMALL + 0.6, color=INK)
    return figure


def _mark(axes: Axes, span: Broken, named: bool) -> None:
    colour = SEVERAL[(span.number - 1) % len(SEVERAL)][0]
    axes.axvspan(span.begin_s, span.end_s, color=colour, alpha=0.13, linewidth=0, zorder=0)
    axes.axvline(span.begin_s, color=colour, linewidth=0.9, zorder=1)
    axes.axvline(span.end_s, color=colour, linewidth=0.9, linestyle=(0, (1, 1)), zorder=1)
    if named:
        axes.annotate(str(span.number), (span.begin_s, 1.0), (2, -2), xycoords=axes.get_xaxis_transform(),
                      textcoords="offset points", ha="left", va="top", fontsize=SMALL + 1, color=colour)
