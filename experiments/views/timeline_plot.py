"""Draws a timeline: throughput, latency below if there is any, and what was broken or moved as numbered stretches."""

from __future__ import annotations

import math
from pathlib import Path
from textwrap import fill

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.views.chart_plot import SEVERAL, SMALL, save_figure
from experiments.views.plot import INK
from experiments.views.scenario_timeline import Stretch, Timeline, stretches_of

WIDTH_IN, PANEL_IN, ROW_IN = 7.0, 1.8, 0.14
TITLE_LETTERS = 100
ROOM_ABOVE = 1.18  # for the numbers of stretches
BLUE, RED = "#0072b2", "#d55e00"


def save_timeline(timeline: Timeline, path: Path) -> None:
    """Draw `timeline` into `path`, whose suffix names one of FORMATS; raises ExperimentError if that cannot be."""
    save_figure(lambda: figure_of(timeline), path)


def figure_of(timeline: Timeline) -> Figure:
    """Return the figure; to be called, and drawn, within `column_style`."""
    spans = stretches_of(timeline.moments, timeline.end_s)
    panel_count = 2 if timeline.has_latency else 1
    figure = Figure(figsize=(WIDTH_IN, PANEL_IN * panel_count + ROW_IN * len(spans)), facecolor="white",
                    layout="constrained")
    panels = figure.subplots(panel_count, 1, sharex=True, squeeze=False)[:, 0]
    figure.suptitle(fill(timeline.title, TITLE_LETTERS), x=0.01, ha="left", fontsize=8, fontweight="bold")
    middle = [b.at_s + timeline.bin_s / 2 for b in timeline.bins]
    panels[0].plot(middle, [b.rps for b in timeline.bins], color=BLUE, linewidth=1.1)
    panels[0].set_ylabel("replies/s")
    panels[0].set_ylim(0, ROOM_ABOVE * max(1.0, *(b.rps for b in timeline.bins)))
    if timeline.has_latency:
        _latency(panels[1], timeline, middle)
    panels[-1].set_xlabel("seconds since the load began")
    panels[-1].set_xlim(0, timeline.end_s)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.4, color="#d9d9d9")
        for span in spans:
            _mark(axes, span, named=axes is panels[0])
    said = [f"{span.number}: {span.said}" for span in spans]
    if said:
        figure.supxlabel("\n".join(said), x=0.01, ha="left", fontsize=SMALL + 0.6, color=INK)
    return figure


def _latency(axes: Axes, timeline: Timeline, middle: list[float]) -> None:
    for label, colour, dash, values in (("median", BLUE, "-", [b.p50_ms for b in timeline.bins]),
                                        ("99th percentile", RED, (0, (4, 1.5)), [b.p99_ms for b in timeline.bins])):
        axes.plot(middle, [math.nan if v is None else v for v in values], color=colour, linestyle=dash, linewidth=1.1,
                  label=label)
    axes.set_yscale("log")
    axes.set_ylabel("latency (ms)")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, ncols=2, borderaxespad=0.1)


def _mark(axes: Axes, span: Stretch, named: bool) -> None:
    colour = SEVERAL[(span.number - 1) % len(SEVERAL)][0]
    axes.axvspan(span.begin_s, span.end_s, color=colour, alpha=0.13, linewidth=0, zorder=0)
    axes.axvline(span.begin_s, color=colour, linewidth=0.9, zorder=1)
    axes.axvline(span.end_s, color=colour, linewidth=0.9, linestyle=(0, (1, 1)), zorder=1)
    if named:
        axes.annotate(str(span.number), (span.begin_s, 1.0), (2, -2), xycoords=axes.get_xaxis_transform(),
                      textcoords="offset points", ha="left", va="top", fontsize=SMALL + 1, color=colour)
