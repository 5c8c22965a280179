"""Throughput over time, as load rises and the orchestrator acts: a chart of Figure 7's experiment."""

from __future__ import annotations

import msgspec

from experiments.charts import Curve, CurveChart


class RiseData(msgspec.Struct, frozen=True):
    """Requests/s over seconds since the load rose, by a curve's label; `refused` names those not to trust."""

    curves: dict[str, tuple[tuple[float, float], ...]]
    refused: tuple[str, ...] = ()


def rise_chart(data: RiseData) -> CurveChart:
    curves = [Curve(label, "several", tuple(at for at, _ in points), tuple(rps / 1e3 for _, rps in points),
                    (True,) * len(points) if label in data.refused else ())
              for label, points in data.curves.items()]
    return CurveChart("The orchestrator at work", "seconds since the load rose", "throughput (1000 requests/s)",
                      tuple(curves))
