"""Says in words what is on a chart: its axes, and its values for those who cannot see it. Pure."""

from __future__ import annotations

from experiments.views.charts import BarChart, Chart, CurveChart, number

MOST_GROUPS = 16  # more would be read by nobody; the table beside the figure has them all


def axes_of(chart: Chart) -> str:
    """Return what stands on both axes, with units."""
    if isinstance(chart, CurveChart):
        return f"Across: {chart.x_label}{_scale(chart.log_x)}; up: {chart.y_label}{_scale(chart.log_y)}."
    return f"Up: {chart.y_label}{_scale(chart.log_y)}; a group of bars for each of {len(chart.groups)} named below it."


def in_words(chart: Chart) -> str:
    """Return a sentence for each curve or group of bars, to stand where the picture cannot be seen."""
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


def _scale(is_log: bool) -> str:
    return ", logarithmic" if is_log else ""


def _one_line(text: str) -> str:
    """Undo the breaks that names have below an axis."""
    return text.replace("-\n", "-").replace("\n", " ")
