"""Draws placements, and the figure of placing at scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from experiments.errors import ExperimentError
from experiments.views.placement_picture import HEADER_H, LINE_H, MARGIN, PlacementPicture, Tile, Way
from experiments.views.plot import FAINT, FORMATS, INK, LOOKS, PNG_DOTS_PER_INCH, styled
from topologies.distance import Level

# From near to far, after Okabe and Ito's palette: greens and blues within a rack, orange to red beyond it, and dashed
# there, so that a grey print loses little.
WAYS: dict[Level, tuple[str, Any]] = {
    Level.SAME_NODE: ("#8c8c8c", "-"), Level.SAME_SERVER: ("#009e73", "-"), Level.RACK_SMARTNIC: ("#56b4e9", "-"),
    Level.RACK_HOST: ("#0072b2", "-"), Level.POD_SMARTNIC: ("#e69f00", (0, (6, 2))),
    Level.POD_HOST: ("#d55e00", (0, (6, 2))), Level.FAR_SMARTNIC: ("#cc79a7", (0, (2, 2))),
    Level.FAR_HOST: ("#990000", (0, (2, 2)))}
BUSY = "#0072b2"


def save_placement(picture: PlacementPicture, path: Path) -> None:
    """Draw `picture` into `path`, whose suffix names one of FORMATS; raises ExperimentError if that cannot be."""
    with styled():
        save(_figure(picture), path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure; raises ExperimentError for a suffix that is none of FORMATS, or where nothing can be written."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ExperimentError(f"cannot draw {path.name!r}: the name must end in {', '.join('.' + f for f in FORMATS)}")
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    try:
        figure.savefig(path, format=kind, dpi=PNG_DOTS_PER_INCH, metadata=dates)
    except OSError as error:
        raise ExperimentError(f"cannot write {path}: {error.strerror}") from error


def _figure(picture: PlacementPicture) -> Figure:
    foot = 0.2 * (len(picture.legend) + len(picture.notes) + 2)
    head = HEADER_H + 0.19 * len(picture.subtitle)
    figure = Figure(figsize=(picture.width + 2 * MARGIN, picture.height + foot + head), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.set_xlim(-MARGIN, picture.width + MARGIN)
    axes.set_ylim(-foot, picture.height + head)
    for tile in picture.tiles:
        _tile(axes, tile)
    most = max((way.share for way in picture.ways), default=1.0)
    for way in picture.ways:
        _way(axes, way, most)
    axes.text(0, picture.height + head - 0.3, picture.title, fontsize=13, weight="bold", color=INK, va="center")
    for i, line in enumerate(picture.subtitle):
        axes.text(0, picture.height + head - 0.62 - 0.19 * i, line, fontsize=9, color=INK, va="center")
    y = -0.2
    for level, words in picture.legend:
        colour, dashes = WAYS[level]
        if level is not Level.SAME_NODE:
            axes.add_line(Line2D([0, 0.55], [y, y], color=colour, linestyle=dashes, linewidth=2.5))
        axes.text(0.7, y, words, fontsize=9, color=INK, va="center")
        y -= 0.2
    for note in picture.notes:
        axes.text(0, y, note, fontsize=9, color=FAINT, va="center")
        y -= 0.2
    return figure


def _tile(axes: Axes, tile: Tile) -> None:
    fill, edge = LOOKS[{"rest": "gap", "server": "chassis"}.get(tile.kind, tile.kind)]
    order = {"rack": 1, "server": 2}.get(tile.kind, 3)
    axes.add_patch(FancyBboxPatch((tile.x, tile.y), tile.w, tile.h, boxstyle="round,pad=0,rounding_size=0.05",
                                  facecolor="white" if tile.kind == "rack" else fill, edgecolor=edge, zorder=order,
                                  linewidth=0.8 if tile.kind == "rack" else 1.1,
                                  linestyle=(0, (4, 3)) if tile.kind == "rest" else "-"))
    if tile.kind in ("rack", "server"):
        axes.text(tile.x + 0.12, tile.y + 0.16, tile.name, fontsize=9, weight="bold", color=INK, va="center", zorder=6)
        return
    axes.text(tile.x + 0.1, tile.y + tile.h - 0.15, tile.name, fontsize=8.5, weight="bold", color=INK, va="center",
              zorder=7)
    if tile.kind != "rest":
        bar = Rectangle((tile.x + 0.1, tile.y + tile.h - 0.31), tile.w - 0.2, 0.055, facecolor="white",
                        edgecolor=FAINT, linewidth=0.5, zorder=7)
        axes.add_patch(bar)
        axes.add_patch(Rectangle((tile.x + 0.1, tile.y + tile.h - 0.31), (tile.w - 0.2) * tile.busy, 0.055,
                                 facecolor=BUSY, linewidth=0, zorder=8))
    for i, line in enumerate(tile.lines):
        axes.text(tile.x + 0.1, tile.y + tile.h - 0.45 - LINE_H * i, line, fontsize=7.5, color=INK, va="center",
                  zorder=9, bbox={"facecolor": fill, "edgecolor": "none", "pad": 0.8, "alpha": 0.85})


def _way(axes: Axes, way: Way, most: float) -> None:
    colour, dashes = WAYS[way.level]
    axes.add_patch(FancyArrowPatch((way.x1, way.y1), (way.x2, way.y2), connectionstyle="arc3,rad=0.12",
                                   arrowstyle="-|>,head_length=4,head_width=2.2", color=colour, linestyle=dashes,
                                   linewidth=0.7 + 2.6 * way.share / most, alpha=0.75, zorder=5, shrinkA=8, shrinkB=8))
