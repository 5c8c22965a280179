"""Figure 11 as data and as a chart: decision time over servers, a pair of curves for each load of microservices."""

from __future__ import annotations

import msgspec

from experiments.views.charts import Curve, CurveChart


class Point(msgspec.Struct, frozen=True):
    """Time to transmit and decide, in milliseconds, with so many servers and microservices per SmartNIC.

    Refused: one core did not keep up with so many heartbeats, so the time grows with that of the run.
    """

    servers: int
    per_smartnic: int
    p50_ms: float
    p99_ms: float
    refused: bool = False


class Fig11Data(msgspec.Struct, frozen=True):
    points: tuple[Point, ...]


def fig11_chart(data: Fig11Data) -> CurveChart:
    curves = []
    for per_smartnic in sorted({p.per_smartnic for p in data.points}):
        points = sorted((p for p in data.points if p.per_smartnic == per_smartnic), key=lambda p: p.servers)
        xs = tuple(p.servers / 1e3 for p in points)
        for label, ys in (("p50", [p.p50_ms for p in points]), ("p99", [p.p99_ms for p in points])):
            curves.append(Curve(f"{label}, {per_smartnic} per SmartNIC", "several", xs, tuple(ys),
                                tuple(p.refused for p in points)))
    ticks = tuple(sorted({p.servers / 1e3 for p in data.points}))
    return CurveChart("Figure 11: time to decide on a migration", "servers (thousands, four SmartNICs each)",
                      "transmit and decide (ms)", tuple(curves), log_x=True, log_y=True, ticks=ticks)
