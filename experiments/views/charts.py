"""What is on a figure, as data: bars or curves, whose each value is good, or refused by its fidelity verdict.

Builders turn stored measurements into a chart in the paper's form, with the paper's numbers beside ours. Nothing here
draws (chart_plot.py does), measures, or reads files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from experiments.errors import ExperimentError
from experiments.measurement.knee import Knee

Role = Literal["ours", "paper", "theory", "simulation", "emulation", "several"]
REFUSED = "fidelity: refused"
SWEET_SPOT_BYTES = (256, 512)  # section 2.3: where network and compute are balanced


class Series(msgspec.Struct, frozen=True):
    """A bar for each group; None: there is none. `refused` says of each value whether its verdict failed.

    `words` stand above the bars in place of their values.
    """

    label: str
    role: Role
    values: tuple[float | None, ...]
    refused: tuple[bool, ...] = ()
    words: tuple[str, ...] = ()

    def is_refused(self, at: int) -> bool:
        return bool(self.refused) and self.refused[at]

    def words_at(self, at: int) -> str:
        value = self.values[at]
        return self.words[at] if self.words else "" if value is None else number(value)


class BarChart(msgspec.Struct, frozen=True, tag="bars"):
    """Groups of bars, one of each series, with their values above them."""

    title: str
    y_label: str
    groups: tuple[str, ...]
    series: tuple[Series, ...]
    log_y: bool = False

    def __post_init__(self) -> None:
        for one in self.series:
            if len(one.values) != len(self.groups) or not {len(one.refused), len(one.words)} <= {0, len(self.groups)}:
                raise ExperimentError(f"{one.label}: {len(one.values)} values, {len(one.refused)} marks and "
                                      f"{len(one.words)} words for {len(self.groups)} groups")

    @property
    def any_refused(self) -> bool:
        return any(any(one.refused) for one in self.series)


class Curve(msgspec.Struct, frozen=True):
    """Points in the order of `xs`; a line joins those that are not refused, unless `joined` is false."""

    label: str
    role: Role
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    refused: tuple[bool, ...] = ()
    joined: bool = True

    def good_ys(self) -> list[float]:
        """Return the ys, and not a number where a point is refused."""
        return [math.nan if self.is_refused(i) else y for i, y in enumerate(self.ys)]

    def bad(self) -> tuple[list[float], list[float]]:
        """Return the xs and ys of the refused points."""
        kept = [i for i in range(len(self.xs)) if self.is_refused(i)]
        return [self.xs[i] for i in kept], [self.ys[i] for i in kept]

    def is_refused(self, at: int) -> bool:
        return bool(self.refused) and self.refused[at]


class Mark(msgspec.Struct, frozen=True):
    """A point that is pointed at with words."""

    x: float
    y: float
    words: str


class Band(msgspec.Struct, frozen=True):
    """A stretch of the x axis with words."""

    low: float
    high: float
    words: str


class CurveChart(msgspec.Struct, frozen=True, tag="curves"):
    """Curves over one x axis; `ticks` are the x values that are named, none: as they come."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...] = ()
    bands: tuple[Band, ...] = ()
    log_x: bool = False
    log_y: bool = False
    ticks: tuple[float, ...] = ()
    from_zero: bool = True

    @property
    def any_refused(self) -> bool:
        return any(any(curve.refused) for curve in self.curves)


Chart = BarChart | CurveChart


class Compared(msgspec.Struct, frozen=True):
    """A value of ours beside the paper's, which may give none."""

    group: str
    ours: float | None
    paper: float | None = None
    refused: bool = False


class CompareData(msgspec.Struct, frozen=True):
    title: str
    y_label: str
    bars: tuple[Compared, ...]
    log_y: bool = False


def compare_chart(data: CompareData) -> BarChart:
    """Return grouped bars, the paper's and ours, as for the columns of Table 1."""
    bars = data.bars
    return BarChart(data.title, data.y_label, tuple(b.group for b in bars), (
        Series("paper", "paper", tuple(b.paper for b in bars)),
        Series("ours", "ours", tuple(b.ours for b in bars), tuple(b.refused for b in bars))), data.log_y)


class GroupedBar(msgspec.Struct, frozen=True):
    """The bar of `label` in `group`."""

    group: str
    label: str
    value: float
    refused: bool = False


class GroupedData(msgspec.Struct, frozen=True):
    """A bar for each group and label, in the order in which both first come; each pair at most once."""

    title: str
    y_label: str
    bars: tuple[GroupedBar, ...]
    log_y: bool = False


def grouped_chart(data: GroupedData) -> BarChart:
    """Return grouped bars of ours, as for the three algorithms of Figure 6; "text" is what the paper's text says."""
    groups = tuple(dict.fromkeys(bar.group for bar in data.bars))
    at = {(bar.label, bar.group): bar for bar in data.bars}

    def series(label: str) -> Series:
        bars = [at.get((label, group)) for group in groups]
        role: Role = "paper" if label.endswith("text") else "ours" if label == "ours" else "several"
        return Series(label, role, tuple(bar.value if bar else None for bar in bars),
                      tuple(bar is not None and bar.refused for bar in bars))

    return BarChart(data.title, data.y_label, groups, tuple(map(series, dict.fromkeys(b.label for b in data.bars))),
                    data.log_y)


class Measured(msgspec.Struct, frozen=True):
    """One measured point of a curve."""

    x: float
    y: float
    refused: bool = False


def _curve(label: str, points: Iterable[Measured], role: Role = "several", joined: bool = True) -> Curve:
    found = sorted(points, key=lambda p: p.x)
    return Curve(label, role, tuple(p.x for p in found), tuple(p.y for p in found), tuple(p.refused for p in found),
                 joined)


class Fig2Data(msgspec.Struct, frozen=True):
    """`benefits`: requests per Joule of the SmartNIC over the host's, over bytes per request, by microservice.

    `paper_512`: the same from Table 1, whose requests have 512 bytes.
    """

    benefits: dict[str, tuple[Measured, ...]]
    paper_512: dict[str, float] = {}


def fig2_chart(data: Fig2Data) -> CurveChart:
    sizes = sorted({p.x for points in data.benefits.values() for p in points})
    curves = [_curve(name, points) for name, points in data.benefits.items()]
    if data.paper_512:
        given = {name: value for name, value in data.paper_512.items() if name in data.benefits}
        curves.append(Curve("paper, Table 1", "paper", (512.0,) * len(given), tuple(given.values()), joined=False))
    return CurveChart("Figure 2: request size and SmartNIC benefit", "request size (bytes)",
                      "SmartNIC benefit in requests/J (x)", tuple(curves), log_x=True, ticks=tuple(sizes),
                      bands=(Band(*SWEET_SPOT_BYTES, "paper: balanced"),))


class Fig3Bar(msgspec.Struct, frozen=True):
    """A mechanism's unloaded round trip; `paper_cut`: how much lower than the reference's the paper says that it is."""

    mechanism: str
    rtt_s: float
    paper_cut: float | None = None
    refused: bool = False


class Fig3Data(msgspec.Struct, frozen=True):
    """`reference` is the mechanism that the paper's percentages refer to: host to host by kernel bypass."""

    bars: tuple[Fig3Bar, ...]
    reference: str


def fig3_chart(data: Fig3Data) -> BarChart:
    base_s = next((b.rtt_s for b in data.bars if b.mechanism == data.reference), None)
    if not base_s:
        raise ExperimentError(f"no round trip of the reference, {data.reference!r}, among "
                              f"{', '.join(repr(b.mechanism) for b in data.bars)}")
    paper = [None if b.paper_cut is None else base_s * (1 - b.paper_cut) for b in data.bars]

    def words(rtt_s: float | None) -> str:
        cut = "" if rtt_s in (None, base_s) else f"\n{100 * (rtt_s / base_s - 1):+.1f}%"
        return "" if rtt_s is None else number(1e6 * rtt_s) + cut

    return BarChart("Figure 3: round trip by mechanism", "unloaded round trip (us)",
                    tuple(b.mechanism for b in data.bars), (
                        Series("paper's ratios", "paper", tuple(p and 1e6 * p for p in paper),
                               words=tuple(map(words, paper))),
                        Series("ours", "ours", tuple(1e6 * b.rtt_s for b in data.bars),
                               tuple(b.refused for b in data.bars), tuple(words(b.rtt_s) for b in data.bars))))


class Fig8Data(msgspec.Struct, frozen=True):
    """`watts`: wall power over offered load (a share of the peak's), by application; `idle_watts` of the cluster."""

    watts: dict[str, tuple[Measured, ...]]
    idle_watts: float


def fig8_chart(data: Fig8Data) -> CurveChart:
    curves = [_curve(name, [Measured(100 * p.x, p.y / data.idle_watts, p.refused) for p in points])
              for name, points in data.watts.items()]
    return CurveChart("Figure 8: power over load", "offered load (% of peak)", "power over idle power (x)",
                      tuple(curves), from_zero=False)


class KneeData(msgspec.Struct, frozen=True):
    title: str
    knee: Knee


def knee_chart(data: KneeData) -> CurveChart:
    """Return the latency-throughput curve of all that was tried, with the knee marked if there is one."""
    # By load, not by throughput: beyond the knee the curve turns upwards and may turn back.
    tried = sorted(data.knee.tried, key=lambda p: p.load)
    xs = tuple(p.throughput_rps / 1e3 for p in tried)
    refused = tuple(not p.faithful for p in tried)
    unit, factor = _unit_of([p.latencies.mean_s for p in tried])
    curves = (Curve("mean", "ours", xs, tuple(factor * p.latencies.mean_s for p in tried), refused),
              Curve("99th percentile", "several", xs, tuple(factor * p.latencies.p99_s for p in tried), refused))
    at = data.knee.probe
    marks = () if at is None else (Mark(at.throughput_rps / 1e3, factor * at.latencies.mean_s,
                                        f"knee: {number(at.throughput_rps)}/s at load {at.load:.4g}"),)
    title = data.title if at is not None else f"{data.title} (no knee)"
    return CurveChart(title, "throughput (1000 requests/s)", f"latency ({unit})", curves, marks, log_y=True)


class QueueData(msgspec.Struct, frozen=True):
    """Mean latency in seconds of one queue, from each of three sources, over utilisation (0 to 1) or clients."""

    title: str
    theory: tuple[Measured, ...]
    simulation: tuple[Measured, ...]
    emulation: tuple[Measured, ...]
    x_label: str = "utilisation"
    ticks: tuple[float, ...] = ()


def queue_chart(data: QueueData) -> CurveChart:
    unit, factor = _unit_of([p.y for p in data.theory])

    def curve(label: Role, points: Sequence[Measured], joined: bool) -> Curve:
        return _curve(label, [Measured(p.x, factor * p.y, p.refused) for p in points], label, joined)

    return CurveChart(data.title, data.x_label, f"mean latency ({unit})", (
        curve("theory", data.theory, True), curve("simulation", data.simulation, False),
        curve("emulation", data.emulation, False)), ticks=data.ticks)


def number(value: float) -> str:
    """Return `value` in three digits, as the paper writes its numbers: 1.85M, 912K, 0.04."""
    for size, letter in ((1e6, "M"), (1e3, "K")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _unit_of(seconds: Sequence[float]) -> tuple[str, float]:
    """Return the unit in which most of `seconds` read well, and how many of it a second has."""
    middle = sorted(seconds)[len(seconds) // 2] if seconds else 1.0
    return ("us", 1e6) if middle < 1e-3 else ("ms", 1e3) if middle < 1 else ("s", 1.0)
