"""Draws an application as its graph: stages as columns, shards as nodes, channels as the lines between them.

                         (1)
                        /
    requests --> (1)===(1)===(1) --> replies        a stage stands to the right of those that send to it; what answers
                 (2)===(2)===(2)                    runs through the middle, side branches go down and up from there
                        \\
                         (1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from experiments.errors import ExperimentError
from microservices.application import Application, Channel
from microservices.applications import TABLE_3
from microservices.service import service_class

FORMATS = ("svg", "png", "pdf")
PNG_DOTS_PER_INCH = 110
SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "e3", "pdf.fonttype": 42}  # words stay words
# All in inches.
COLUMN, WIDE_COLUMN, ROW, RADIUS, BACKUP = 2.9, 3.8, 0.30, 0.115, 0.045
HEAD, LANE_GAP, MARGIN, FOOT, TITLE = 0.62, 0.20, 0.95, 0.75, 0.75
MOST_SHOWN = 16  # shards of one stage; of more the first and the last are drawn
# From Okabe and Ito's palette for all kinds of colour vision; shape and dashes say the same again.
ANSWERING, SIDE, STATEFUL, STATELESS, INK, FAINT = "#0072b2", "#d55e00", "#c5dff0", "#ffffff", "#1a1a1a", "#7f7f7f"


@dataclass(frozen=True, slots=True)
class _Column:
    """Where a stage stands: its left-to-right middle, the y of its first shard, and its shards that are drawn."""

    x: float
    top: float
    shards: tuple[int, ...]
    left_out: int

    def y(self, place: int) -> float:
        """Return the height of the `place`-th drawn shard; past a gap the last one is a row lower."""
        return self.top - ROW * (place + (1 if self.left_out and place == len(self.shards) - 1 else 0))

    @property
    def middle(self) -> float:
        return (self.top + self.y(len(self.shards) - 1)) / 2


def draw_application(application: Application, path: Path) -> None:
    """Write the graph of `application` to `path`; raises ExperimentError if that cannot be.

    The same application always gives the same file, whatever the user's own settings of matplotlib are.
    """
    kind = path.suffix[1:].lower()
    if kind not in FORMATS:
        raise ExperimentError(f"cannot draw to {path}: it must end with .{', .'.join(FORMATS)}")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    try:
        with mpl.rc_context({**mpl.rcParamsDefault, **SETTINGS}):
            _figure(application).savefig(path, format=kind, dpi=PNG_DOTS_PER_INCH, metadata=undated)
    except OSError as error:
        raise ExperimentError(f"cannot write {path}: {error.strerror}") from error


def stage_grid(application: Application) -> dict[str, tuple[int, int]]:
    """Return (column, lane) of each stage: columns from left to right; lane 0 is the middle, higher ones lie below it.

    A channel goes at least one column to the right. A stage that others send to stands as far left as it can, a source
    right before what it sends to. Answering stages start at lane 0, side branches at 1 and then take turns below and
    above: 1, -1, 2, ...
    """
    column: dict[str, int] = {}
    for name in application.order():
        senders = [c.source for c in application.channels if c.target == name]
        column[name] = max((column[s] + 1 for s in senders), default=0)
    for name in application.sources:
        column[name] = min((column[c.target] - 1 for c in application.channels_from(name)), default=0)
    grid: dict[str, tuple[int, int]] = {}
    for name in sorted(application.order(), key=lambda n: n not in application.answering):
        lanes = (0, 1, -1) if name in application.answering else (1, -1)
        free = chain(lanes, (sign * n for n in count(2) for sign in (1, -1)))
        grid[name] = next((column[name], lane) for lane in free if (column[name], lane) not in grid.values())
    return grid


def _figure(application: Application) -> Figure:
    grid = stage_grid(application)
    rows = {name: _shown(application.stage(name).shards) for name in grid}
    lanes = sorted({lane for _, lane in grid.values()})
    heights = {lane: max(len(rows[n]) + (application.stage(n).shards > len(rows[n]))
                         for n, (_, at) in grid.items() if at == lane) * ROW + HEAD for lane in lanes}
    spacing = COLUMN if len(lanes) == 1 else WIDE_COLUMN
    across = spacing * max(column for column, _ in grid.values())
    width = max(across + 2 * MARGIN + 1.0, 7.6)
    height = sum(heights.values()) + LANE_GAP * (len(lanes) - 1) + TITLE + FOOT
    left = (width - across) / 2
    columns = {}
    for name, (at, lane) in grid.items():
        shards = application.stage(name).shards
        lane_top = height - TITLE - sum(heights[above] + LANE_GAP for above in lanes if above < lane)
        left_out = shards - len(rows[name])
        used = (len(rows[name]) + bool(left_out)) * ROW
        top = lane_top - HEAD - (heights[lane] - HEAD - used) / 2 - ROW / 2
        columns[name] = _Column(left + spacing * at, top, rows[name], left_out)
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, width)
    axes.set_ylim(0.0, height)
    axes.axis("off")
    for c in application.channels:
        _channel(axes, application, c, columns)
    for name, column in columns.items():
        _stage(axes, application, name, column)
    _ends(axes, application, columns)
    axes.text(width / 2, height - TITLE / 2, _title(application), ha="center", va="center", fontsize=12, color=INK,
              fontweight="bold")
    _legend(axes, application, width)
    return figure


def _shown(shards: int) -> tuple[int, ...]:
    return tuple(range(shards)) if shards <= MOST_SHOWN else (*range(MOST_SHOWN - 2), shards - 1)


def _title(application: Application) -> str:
    row = TABLE_3.get(application.name)
    backups = sum(bool(i.backup) for i in application.instances)
    nodes = len(application.instances)
    fan_outs = list(application.fan_outs().values())
    said = f"{application.name.upper() if row else application.name}{': ' + row.description if row else ''}\n"
    said += f"N = {nodes} nodes"
    said += f" ({nodes - backups} and {backups} backups)" if backups else ""
    return said + (f", fan-out {sum(fan_outs) / len(fan_outs):.3g} on average, {max(fan_outs)} at most"
                   if fan_outs else "")


def _channel(axes: Axes, application: Application, c: Channel, columns: dict[str, _Column]) -> None:
    source, target = columns[c.source], columns[c.target]
    lines = [((source.x + RADIUS, source.y(i)), (target.x - RADIUS, target.y(j)))
             for i, one in enumerate(source.shards) for j, other in enumerate(target.shards)
             if not c.aligned or one == other]
    colour = ANSWERING if c.answers else SIDE
    axes.add_collection(LineCollection(lines, colors=colour, linewidths=1.0 if c.aligned else 0.45,
                                       alpha=0.9 if c.aligned else 0.55, linestyles="-" if c.answers else (0, (4, 2.5)),
                                       zorder=1))
    shards, others = application.stage(c.source).shards, application.stage(c.target).shards
    words = f"aligned: {shards} ways" if c.aligned else f"keyed: {shards} by {others} ways"
    if c.trigger is not None:
        words += f"\n{c.trigger.share:.0%} of it: {c.trigger.name}"
    if not c.answers:
        words += "\nside branch"
    at = 0.5 if abs(source.middle - target.middle) < ROW else 0.6
    axes.text(source.x + at * (target.x - source.x), source.middle + at * (target.middle - source.middle), words,
              ha="center", va="center", fontsize=7.5, color=colour, zorder=3,
              bbox={"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": colour, "linewidth": 0.6})


def _stage(axes: Axes, application: Application, name: str, column: _Column) -> None:
    stage = application.stage(name)
    service = service_class(stage.service)
    fill = STATEFUL if service.stateful else STATELESS
    for place, shard in enumerate(column.shards):
        x, y = column.x, column.y(place)
        for backup in range(min(stage.backups, 3)):
            axes.add_patch(Circle((x + RADIUS + BACKUP * (0.8 + 2.2 * backup), y - RADIUS * 0.85), BACKUP, zorder=4,
                                  facecolor="white", edgecolor=FAINT, linewidth=0.9))
        body = Rectangle((x - RADIUS, y - RADIUS), 2 * RADIUS, 2 * RADIUS) if service.host_only else \
            Circle((x, y), RADIUS)
        body.set(facecolor=fill, edgecolor=INK, linewidth=0.9, zorder=5)
        axes.add_patch(body)
        axes.text(x, y - 0.005, str(shard + 1), ha="center", va="center", fontsize=6.5, color=INK, zorder=6)
    if column.left_out:
        axes.text(column.x, column.y(len(column.shards) - 1) + ROW, "⋮", ha="center", va="center", fontsize=9,
                  color=INK, zorder=6)
    backups = stage.shards * stage.backups
    counts = f"{stage.shards} shard{'s' * (stage.shards > 1)}"
    counts += f" + {backups} backup{'s' * (backups > 1)}" * bool(backups)
    service_name = stage.service.rpartition(":")[2]
    words = name if service_name == name else f"{name} ({service_name})"
    over_lines = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
    axes.text(column.x, column.top + ROW * 0.75, counts, ha="center", va="bottom", fontsize=7.5, color=INK, zorder=6,
              bbox=over_lines)
    axes.text(column.x, column.top + ROW * 0.75 + 0.16, words, ha="center", va="bottom", fontsize=9.5, color=INK,
              fontweight="bold", zorder=6, bbox=over_lines)


def _ends(axes: Axes, application: Application, columns: dict[str, _Column]) -> None:
    """Draw where requests come in and replies go out."""
    arrow = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.2}
    for name in application.sources:
        column = columns[name]
        axes.annotate("", (column.x - 0.25, column.middle), (column.x - 0.75, column.middle), arrowprops=arrow)
        axes.text(column.x - 0.5, column.middle + 0.08, "requests", ha="center", va="bottom", fontsize=7.5, color=INK)
    for name in application.answering:
        if not any(c.answers for c in application.channels_from(name)):
            column = columns[name]
            axes.annotate("", (column.x + 0.85, column.middle), (column.x + 0.35, column.middle), arrowprops=arrow)
            axes.text(column.x + 0.6, column.middle + 0.08, "replies", ha="center", va="bottom", fontsize=7.5,
                      color=INK)


def _legend(axes: Axes, application: Application, width: float) -> None:
    services = [service_class(stage.service) for stage in application.stages]
    entries: list[tuple[Line2D, str]] = [(_mark("o", STATEFUL), "stateful")]
    if not all(s.stateful for s in services):
        entries.append((_mark("o", STATELESS), "stateless or read-only"))
    if any(s.host_only for s in services):
        entries.append((_mark("s", STATEFUL), "stateful, on hosts only"))
    if any(stage.backups for stage in application.stages):
        entries.append((Line2D([], [], marker="o", linestyle="", markersize=5, markerfacecolor="white",
                               markeredgecolor=FAINT), "a shard's backup"))
    entries.append((Line2D([], [], color=ANSWERING, linewidth=1.4), "on the way to the reply"))
    if not all(c.answers for c in application.channels):
        entries.append((Line2D([], [], color=SIDE, linewidth=1.4, linestyle=(0, (4, 2.5))), "side branch"))
    handles, labels = zip(*entries, strict=True)
    axes.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.0), frameon=False, fontsize=8,
                ncols=_columns_of(labels, width), handletextpad=0.5, columnspacing=1.4)


def _mark(shape: str, fill: str) -> Line2D:
    return Line2D([], [], marker=shape, linestyle="", markersize=10, markerfacecolor=fill, markeredgecolor=INK)


def _columns_of(labels: Sequence[str], width: float) -> int:
    return max(1, min(len(labels), int(width / 1.75)))
