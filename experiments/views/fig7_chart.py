"""Throughput over time, as load rises and the orchestrator acts: a chart of Figure 7's experiment."""

from __future__ import annotations

import msgspec

from experiments.views.charts import Curve, CurveChart


class RiseCurve(msgspec.Struct, frozen=True):
    """Requests/s over seconds since the load rose; `refused`: the machine did not keep up with the run."""

    label: str
    points: tuple[tuple[float, float], ...]
    refused: bool = False


class RiseData(msgspec.Struct, frozen=True):
    curves: tuple[RiseCurve, ...]


def rise_chart(data: RiseData) -> CurveChart:
    curves = [Curve(one.label, "several", tuple(at for at, _ in one.points), tuple(rps / 1e3 for _, rps in one.points),
                    (True,) * len(one.points) if one.refused else ()) for one in data.curves]
    return CurveChart("The orchestrator at work", "seconds since the load rose", "throughput (1000 requests/s)",
                      tuple(curves))
