"""Figure 10 as data: requests per dollar over years of ownership, a curve for each cluster. Pure."""

from __future__ import annotations

import msgspec

from experiments.views.charts import Curve, CurveChart, Measured


class Fig10Data(msgspec.Struct, frozen=True):
    """`worth`: requests per dollar over years, by cluster, for one application."""

    application: str
    worth: dict[str, tuple[Measured, ...]]


def fig10_chart(data: Fig10Data) -> CurveChart:
    curves = tuple(Curve(cluster, "several", tuple(p.x for p in points), tuple(p.y / 1e9 for p in points),
                         tuple(p.refused for p in points)) for cluster, points in data.worth.items())
    return CurveChart(f"Figure 10: cost efficiency, {data.application}", "time of ownership (years)",
                      "billion requests per $", curves)
