"""Table 6 as a chart: time to place a microservice over servers, ours beside the paper's. Pure."""

from __future__ import annotations

import msgspec

from experiments.views.charts import Curve, CurveChart


class Table6Data(msgspec.Struct, frozen=True):
    """Milliseconds per microservice by algorithm, as (servers, ms): ours and the paper's."""

    ours: dict[str, tuple[tuple[float, float], ...]]
    paper: dict[str, tuple[tuple[float, float], ...]]


def table6_chart(data: Table6Data) -> CurveChart:
    """Return six curves over servers, on a logarithmic axis: three measured ones and the paper's three."""
    curves = [Curve(f"{name}, {words}", "several", tuple(n for n, _ in points), tuple(ms for _, ms in points))
              for source, words in ((data.ours, "ours"), (data.paper, "paper")) for name, points in source.items()]
    return CurveChart("Table 6: time to place a microservice", "Type2 servers in racks of 40", "time per microservice "
                      "(ms)", tuple(curves), log_y=True)
