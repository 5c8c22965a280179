"""Says in words what is on a chart: its axes, and its values for those who cannot see it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from experiments.views.charts import BarChart, CurveChart, number
from experiments.views.figures import Picture
from experiments.views.scenario_timeline import Bin, Stretch, Timeline, stretches_of

MOST_GROUPS = 16  # more would be read by nobody; the table beside the figure has them all


def axes_of(chart: Picture) -> str:
    """Return what stands on both axes, with units."""
    if isinstance(chart, Timeline):
        below = ", and below it latency (ms), logarithmic" if chart.has_latency else ""
        return f"Across: seconds since the load began; up: replies/s{below}."
    if isinstance(chart, CurveChart):
        return f"Across: {chart.x_label}{_scale(chart.log_x)}; up: {chart.y_label}{_scale(chart.log_y)}."
    return f"Up: {chart.y_label}{_scale(chart.log_y)}; a group of bars for each of {len(chart.groups)} named below it."


def in_words(chart: Picture) -> str:
    """Return a sentence for each curve, group of bars or stretch, to stand where the picture cannot be seen."""
    if isinstance(chart, Timeline):
        return f"{_one_line(chart.title)}. {axes_of(chart)} {_stretches(chart)}"
    said = _bars(chart) if isinstance(chart, BarChart) else _curves(chart)
    refused = " Some values are refused by their fidelity verdict." if chart.any_refused else ""
    return f"{_one_line(chart.title)}. {axes_of(chart)} {said}{refused}"


def _bars(chart: BarChart) -> str:
    groups = []
    for at, group in enumerate(chart.groups[:MOST_GROUPS]):
        values = ", ".join(f"{one.label} {number(value)}" for one in chart.series
                           if (value := one.values[at]) is not None)
        groups.append(f"{_one_line(group)}: {values}")
    more = len(chart.groups) - MOST_GROUPS
    return "; ".join(groups) + (f"; and {more} more" if more > 0 else "") + "."


def _curves(chart: CurveChart) -> str:
    return "; ".join(f"{curve.label}: from {number(curve.ys[0])} at {number(curve.xs[0])} to {number(curve.ys[-1])} "
                     f"at {number(curve.xs[-1])}" for curve in chart.curves if curve.xs) + "."


def _stretches(timeline: Timeline) -> str:
    said = [f"without {span.words} from {span.begin_s:.1f} to {span.end_s:.1f} s: {number(_rate(timeline, span))} "
            f"replies/s" if span.broken else f"{span.words}, at {span.begin_s:.1f} s"
            for span in stretches_of(timeline.moments, timeline.end_s)]
    return "; ".join([f"On average {number(_mean(timeline.bins))} replies/s", *said]) + "."


def _rate(timeline: Timeline, span: Stretch) -> float:
    return _mean([b for b in timeline.bins if span.begin_s <= b.at_s < span.end_s])


def _mean(bins: Sequence[Bin]) -> float:
    return fmean(b.rps for b in bins) if bins else 0.0


def _scale(is_log: bool) -> str:
    return ", logarithmic" if is_log else ""


def _one_line(text: str) -> str:
    """Undo the breaks that names have below an axis."""
    return text.replace("-\n", "-").replace("\n", " ")
