"""Figure 8 as data: power of a cluster over an application's load, and section 5.1's words about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

import msgspec

from experiments.views.charts import Fig8Data, Measured

APPLICATIONS = ("nfv-fin", "rta-shm", "iot-ts")  # section 5.1: one of each class
PROPORTIONAL = ("rta-shm", "iot-ts")  # the text: they "are power proportional"
LOADS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
NOISE = 0.01  # ours: by so much less at the next load, power still counts as rising
FLAT_BELOW = 1.1  # ours: the ratio of most to least power up to which a curve counts as nearly flat
Row = tuple[str, str, str]


class LoadPoint(msgspec.Struct, frozen=True):
    """One load of one application; the peak itself has `share` -1, and as throughput what the others are shares of.

    Watts are of all servers together, at the wall. `time_line`: (emulated seconds, active watts, wall watts) within the
    window. `refused`: the reasons of a verdict that does not hold, the peak's among them. `said` and `tried` are
    the peak's: how it was found.
    """

    application: str
    share: float
    offered_rps: float
    throughput_rps: float
    mean_s: float
    p99_s: float
    idle_watts: float
    wall_watts: float
    active_watts: float
    time_scale: float
    refused: tuple[str, ...] = ()
    bad: dict[str, int] = {}
    time_line: tuple[tuple[float, float, float], ...] = ()
    said: str = ""
    tried: tuple[tuple[float, float, float, bool], ...] = ()

    @property
    def over_idle(self) -> float:
        return self.wall_watts / self.idle_watts


def mean_of(points: Sequence[LoadPoint]) -> LoadPoint:
    """Return the mean of runs of one point; it is refused if one of them is."""
    names = ("offered_rps", "throughput_rps", "mean_s", "p99_s", "wall_watts", "active_watts")
    means = {name: fmean(getattr(p, name) for p in points) for name in names}
    bad: dict[str, int] = {}
    for point in points:
        bad = {name: bad.get(name, 0) + point.bad.get(name, 0) for name in {**bad, **point.bad}}
    reasons = tuple(reason for p in points for reason in p.refused)
    return msgspec.structs.replace(points[0], **means, refused=reasons, bad=bad)


def is_rising(curve: Sequence[LoadPoint]) -> bool:
    """Say whether power never falls, beyond noise, from one load to the next."""
    ordered = sorted(curve, key=lambda p: p.share)
    return all(b.wall_watts >= a.wall_watts * (1 - NOISE) for a, b in pairwise(ordered))


def spread(curve: Sequence[LoadPoint]) -> float:
    """Return the most power over the least."""
    return max(p.wall_watts for p in curve) / min(p.wall_watts for p in curve)


def share_of_rise(curve: Sequence[LoadPoint], load: float) -> float:
    """Return how much of the rise from no load to the peak is there at `load`: if proportional, `load` itself."""
    watts = {p.share: p.wall_watts for p in curve}
    rise = watts[1.0] - watts[0.0]
    return (watts[load] - watts[0.0]) / rise if rise else 0.0


def judged(curves: dict[str, list[LoadPoint]], peaks: Sequence[LoadPoint] = ()) -> tuple[list[Row], bool]:
    """Return the rows of the result, and whether the text's words hold with nothing refused and every reply right.

    `peaks` are what the loads are shares of: a bad reply there counts as one anywhere.
    """
    rows: list[Row] = []
    good = True
    for peak in peaks:
        wrong = [*(f"REFUSED: {r}" for r in peak.refused[:1]), *([f"BAD: {peak.bad}"] if peak.bad else [])]
        good = good and not wrong
        rows.append((f"{peak.application}, peak" + "  <- off" * bool(wrong), f"{peak.throughput_rps / 1e3:.4g}K rps"
                     + "".join(f"; {w}" for w in wrong), "no refusal, no bad reply"))
    tops = {name: max(p.wall_watts for p in curve) for name, curve in curves.items()}
    for name, curve in curves.items():
        for point in curve:
            wrong = [*(f"REFUSED: {r}" for r in point.refused[:1]), *([str(point.bad)] if point.bad else [])]
            good = good and not wrong
            latency = f", mean {point.mean_s * 1e3:.3g} ms" if point.share else ""
            rows.append((f"{name} at {point.share:.0%}", f"{point.wall_watts:.0f} W, {point.over_idle:.2f}x idle, at "
                         f"{point.throughput_rps / 1e3:.4g}K rps{latency}" + "".join(f"; {w}" for w in wrong), ""))
        ratio, rising = spread(curve), is_rising(curve)
        if name in PROPORTIONAL:
            fine, wanted = rising and ratio > FLAT_BELOW, f"text: power proportional; rising, more than {FLAT_BELOW}x"
        else:
            fine = ratio <= FLAT_BELOW and tops[name] == min(tops.values())
            wanted = f"text: not proportional, negligible; at most {FLAT_BELOW}x, and the least of all"
        good = good and fine
        rows.append((f"{name}, most over least power" + ("" if fine else "  <- off"),
                     f"{ratio:.3f}x, {'rising' if rising else 'not rising'}, up to "
                     f"{max(p.over_idle for p in curve):.2f}x idle", wanted))
        if name in PROPORTIONAL:
            # A finding, no part of the verdict: how early power rises rests on when cores sleep (assumptions.py).
            rows.append((f"{name}, share of the rise at {LOADS[1]:.0%} and {LOADS[2]:.0%} load",
                         f"{share_of_rise(curve, LOADS[1]):.0%} and {share_of_rise(curve, LOADS[2]):.0%}",
                         f"{LOADS[1]:.0%} and {LOADS[2]:.0%} if proportional"))
    return rows, good


def figure_data(curves: dict[str, list[LoadPoint]]) -> Fig8Data:
    """Return what Figure 8 is drawn from."""
    idle_watts = next(iter(curves.values()))[0].idle_watts
    return Fig8Data({name: tuple(Measured(p.share, p.wall_watts, bool(p.refused)) for p in curve)
                     for name, curve in curves.items()}, idle_watts)
