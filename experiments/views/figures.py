"""Figures by name: stored data to a chart, and a run's directory to its figure.png and figure.pdf, without root.

A run keeps what its figures are drawn from under "figures" in its manifest, so that they can be drawn anew at any time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import ExperimentError
from experiments.runs.results import MANIFEST
from experiments.views import charts
from experiments.views.charts import Chart
from experiments.views.fig7_chart import RiseData, rise_chart
from experiments.views.fig10_chart import Fig10Data, fig10_chart
from experiments.views.fig11_chart import Fig11Data, fig11_chart
from experiments.views.scenario_timeline import Timeline
from experiments.views.table6_chart import Table6Data, table6_chart
from topologies.unreadable import UNREADABLE

SUFFIXES = (".png", ".pdf")
Picture = Chart | Timeline


@dataclass(frozen=True, slots=True)
class Drawing:
    """How a kind of figure is made: `chart` turns what is stored, read as `data`, into a chart or a timeline."""

    data: type[Any]
    chart: Callable[[Any], Picture]


def _as_it_is(timeline: Timeline) -> Timeline:
    return timeline


DRAWINGS: dict[str, Drawing] = {
    "compare": Drawing(charts.CompareData, charts.compare_chart),
    "fig2": Drawing(charts.Fig2Data, charts.fig2_chart),
    "fig3": Drawing(charts.Fig3Data, charts.fig3_chart),
    "fig7-rise": Drawing(RiseData, rise_chart),
    "fig10": Drawing(Fig10Data, fig10_chart),
    "fig11": Drawing(Fig11Data, fig11_chart),
    "fig8": Drawing(charts.Fig8Data, charts.fig8_chart),
    "grouped": Drawing(charts.GroupedData, charts.grouped_chart),
    "knee": Drawing(charts.KneeData, charts.knee_chart),
    "queue": Drawing(charts.QueueData, charts.queue_chart),
    "table6": Drawing(Table6Data, table6_chart),
    "timeline": Drawing(Timeline, _as_it_is),
}


class StoredFigure(msgspec.Struct, frozen=True):
    """A figure in a manifest: which drawing makes it, of what."""

    drawing: str
    data: dict[str, Any]


def stored(drawing: str, data: msgspec.Struct) -> StoredFigure:
    """Return `data` as a manifest keeps it; raises ExperimentError if it is none of what `drawing` draws."""
    known = _drawing(drawing)
    if not isinstance(data, known.data):
        raise ExperimentError(f"{type(data).__name__} for the drawing {drawing!r}, which takes {known.data.__name__}")
    return StoredFigure(drawing, msgspec.to_builtins(data))


def chart_of(figure: StoredFigure) -> Picture:
    """Return what `figure` shows; raises ExperimentError for a drawing or data that this version does not know."""
    drawing = _drawing(figure.drawing)
    try:
        return drawing.chart(msgspec.convert(figure.data, drawing.data))
    except msgspec.ValidationError as error:
        raise ExperimentError(f"the data stored for the drawing {figure.drawing!r} are none: {error}") from error


def draw(directory: Path, figures: Mapping[str, StoredFigure]) -> list[Path]:
    """Draw each of `figures` into `directory` as NAME.png and NAME.pdf; return the paths."""
    from experiments.views.chart_plot import save_chart
    from experiments.views.timeline_plot import save_timeline

    found = []
    for name, figure in figures.items():
        chart = chart_of(figure)
        for suffix in SUFFIXES:
            path = directory / (name + suffix)
            draft = path.with_name(f".{name}{suffix}")
            if isinstance(chart, Timeline):
                save_timeline(chart, draft)
            else:
                save_chart(chart, draft)
            os.replace(draft, path)
            found.append(path)
    return found


def redraw(directory: Path) -> list[Path]:
    """Draw the figures of the finished run in `directory` anew; raises ExperimentError if there is none."""
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes())
        figures = msgspec.convert(manifest.get("figures", {}), dict[str, StoredFigure])
    except (OSError, *UNREADABLE) as error:
        raise ExperimentError(f"cannot read the figures in {directory / MANIFEST}: {error}") from error
    return draw(directory, figures)


def _drawing(name: str) -> Drawing:
    if name not in DRAWINGS:
        raise ExperimentError(f"no drawing {name!r}; there are {', '.join(DRAWINGS)}")
    return DRAWINGS[name]
