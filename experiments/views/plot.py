"""Draws clusters with matplotlib, and has the style that all drawing modules share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from experiments.errors import ExperimentError
from experiments.views.cluster_picture import LINE_H, MARGIN, TITLE_H, Box, Picture, Wire

FORMATS = ("svg", "png", "pdf")
PNG_DOTS_PER_INCH = 100
INK, FAINT = "#1a1a1a", "#595959"
# Fill and edge by kind, after Okabe and Ito's palette for all kinds of colour vision. The fills also differ in
# lightness, and each box says what it is, so that a grey print loses nothing.
LOOKS = {
    "switch": ("#c5dff0", "#0072b2"),
    "smartnic": ("#fbe0b3", "#d55e00"),
    "host": ("#d3ecd9", "#00704f"),
    "nic": ("#ffffff", "#595959"),
    "client": ("#eeeeee", "#595959"),
    "controller": ("#eeeeee", "#595959"),
    "chassis": ("#fafafa", "#1a1a1a"),
    "rack": ("#fafafa", "#1a1a1a"),
    "gap": ("#ffffff", "#8c8c8c"),
}
WIRES = {"ethernet": ("#0072b2", 1.6), "pcie": ("#d55e00", 4.5), "fabric": ("#0072b2", 1.2)}
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "e3", "pdf.fonttype": 42,
                         "font.family": "sans-serif",
                         "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"]}  # for viewers of SVG


def styled() -> AbstractContextManager[None]:
    """Return a context in which everything is drawn in our style, whatever the user's own settings are."""
    return mpl.rc_context({**mpl.rcParamsDefault, **STYLE})


def save_picture(picture: Picture, path: Path) -> None:
    """Draw `picture` into `path`, whose suffix names one of FORMATS; raises ExperimentError if that cannot be."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in FORMATS:
        raise ExperimentError(f"cannot draw {path.name!r}: the name must end in {', '.join('.' + f for f in FORMATS)}")
    with styled():
        figure = figure_of(picture)
        dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        try:
            figure.savefig(path, format=kind, dpi=PNG_DOTS_PER_INCH, metadata=dates)
        except OSError as error:
            raise ExperimentError(f"cannot write {path}: {error.strerror}") from error


def figure_of(picture: Picture) -> Figure:
    """Return `picture` as a figure of its own size in inches, so that a font's points are points."""
    figure = Figure(figsize=(picture.width, picture.height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    foot = LINE_H * (len(picture.caption) + 1.5) + MARGIN
    axes.set_xlim(-MARGIN, picture.width - MARGIN)
    axes.set_ylim(-foot, picture.height - foot)
    for box in picture.boxes:
        _box(axes, box)
    for wire in picture.wires:
        _wire(axes, wire)
    axes.text(0, picture.height - foot - MARGIN - TITLE_H / 2, picture.title, fontsize=13, weight="bold", color=INK,
              va="center")
    for i, line in enumerate(picture.caption, start=1):
        axes.text(0, -LINE_H * (i + 0.5), line, fontsize=8.5, color=INK, va="center")
    return figure


def _box(axes: Axes, box: Box) -> None:
    fill, edge = LOOKS[box.kind]
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.w, box.h, boxstyle="round,pad=0,rounding_size=0.06",
                                  facecolor=fill, edgecolor=edge, linewidth=1.2,
                                  zorder=1 if box.kind == "chassis" else 3,
                                  linestyle=(0, (4, 3)) if box.kind in ("gap", "nic") else "solid"))
    step = 0.175
    middle = box.y + (0.04 + step * len(box.lines) / 2 if box.kind == "chassis" else box.h / 2)
    for i, line in enumerate(box.lines):
        y = middle + step * ((len(box.lines) - 1) / 2 - i)
        axes.text(box.x + box.w / 2, y, line, fontsize=9.5 if i == 0 else 8, weight="bold" if i == 0 else "normal",
                  color=INK if i == 0 else "#333333", ha="center", va="center", zorder=5)


def _wire(axes: Axes, wire: Wire) -> None:
    colour, width = WIRES[wire.kind]
    ends = ([wire.x1, wire.x2], [wire.y1, wire.y2])
    axes.plot(*ends, color=colour, linewidth=width, zorder=2, solid_capstyle="butt")
    if wire.kind == "pcie":
        axes.plot(*ends, color="white", linewidth=width / 3, zorder=2, solid_capstyle="butt")
    if wire.label:
        axes.text((wire.x1 + wire.x2) / 2, (wire.y1 + wire.y2) / 2, wire.label, fontsize=7.5, color=INK, ha="center",
                  va="center", zorder=4, linespacing=1.15,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})
