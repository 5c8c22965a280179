"""Figure 10: requests per dollar over the years of ownership, on five clusters (section 5.5).

    throughput x T / (CAPEX + power x T x electricity)        Table 4's prices and peak power, 0.0733 $/kWh

Throughput is that of Table 5's peaks. If a run of `table5` with the same options and assumptions is there, its points
are taken; if not, they are measured. The paper's findings are withheld: this is a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from experiments.cost import USD_PER_KWH, Ownership
from experiments.errors import ExperimentError
from experiments.measurement.cluster_peaks import ClusterPeak, agreement
from experiments.runs.points import POINTS_FILE, PointFile
from experiments.runs.results import MANIFEST, RESULTS, Run
from experiments.runs.run_options import RunOptions
from experiments.table5 import SMARTNICS, measured_on_clusters
from experiments.views.charts import Measured
from experiments.views.fig10_chart import Fig10Data
from experiments.views.figures import draw, stored
from microservices.assumptions import DEFAULTS, Assumptions
from topologies.unreadable import UNREADABLE

YEARS = tuple(quarter / 4 for quarter in range(25))  # 0 to 6, "0 to 5+"
SAID_AT = (1.0, 3.0, 5.0)
Row = tuple[str, str, str]


class _Known(msgspec.Struct):
    """What says of a finished run of table5 whether it is of these options and assumptions."""

    options: dict[str, Any] = {}
    assumptions: Assumptions | None = None
    points: dict[str, Any] = {}


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment. Returns {"holds", "rows", ...}."""
    known, path = (None, "") if options.resume else table5_of(options)
    if known is None:
        result_run = Run.begin("fig10", options)
        found = measured_on_clusters(result_run, options, say)
    else:
        say(f"taking the {len(known)} points of {path}")
        result_run = Run("fig10")
        found = known
    rows, holds = judged(found)
    curves = curves_of(found)
    result_run.write_data([{"application": application, "cluster": cluster, "years": p.x, "requests_per_usd": p.y,
                            "holds": not p.refused} for application, of in curves.items()
                           for cluster, points in of.items() for p in points])
    figures = {"figure" if n == 0 else application: stored("fig10", Fig10Data(application, of))
               for n, (application, of) in enumerate(curves.items())}
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures, "points_of": path,
               "assumptions": msgspec.to_builtins(DEFAULTS), "usd_per_kwh": USD_PER_KWH,
               "points": {name: msgspec.to_builtins(p, str_keys=True) for name, p in found.items()}}
    result_run.finish(content)
    return content


def table5_of(options: RunOptions) -> tuple[dict[str, ClusterPeak] | None, str]:
    """Return the points of the latest finished run of table5 like this one, and its directory; None without one."""
    for manifest in sorted((RESULTS / "table5").glob(f"*/{MANIFEST}"), reverse=True):
        try:
            known = msgspec.json.decode(manifest.read_bytes(), type=_Known)
            if known.options != options.identity() or known.assumptions != DEFAULTS:
                continue
            points = PointFile(manifest.parent / POINTS_FILE)
            return {name: points.value(name, ClusterPeak) for name in points.names()}, str(manifest.parent)
        except (ExperimentError, *UNREADABLE):
            continue  # one of another version
    return None, ""


def curves_of(found: Mapping[str, ClusterPeak]) -> dict[str, dict[str, tuple[Measured, ...]]]:
    """Return requests per dollar over years, by application and cluster."""
    curves: dict[str, dict[str, tuple[Measured, ...]]] = {}
    for p in found.values():
        over = Ownership(p.cost_usd, p.peak_watts).over_time(p.peak.rps, YEARS)
        curves.setdefault(p.application, {})[p.cluster] = tuple(Measured(x, y, not p.stands) for x, y in over)
    return curves


def judged(found: Mapping[str, ClusterPeak]) -> tuple[list[Row], bool]:
    """Return the rows, and whether machine and replies are good: there is nothing else to hold them against."""
    rows: list[Row] = []
    for application in dict.fromkeys(p.application for p in found.values()):
        of = {p.cluster: p for p in found.values() if p.application == application}
        for years in SAID_AT:
            worth = {c: Ownership(p.cost_usd, p.peak_watts).requests_per_usd(p.peak.rps, years) for c, p in of.items()}
            best = max((c for c in of if c != SMARTNICS), key=worth.__getitem__)
            rows.append((f"{application} after {years:g} years, billion requests/$",
                         ", ".join(f"{c} {worth[c] / 1e9:.3g}" for c in sorted(worth, key=lambda c: -worth[c]))
                         + f"; {SMARTNICS} over {best}: {worth[SMARTNICS] / worth[best]:.2f}x",
                         'abstract: "up to 1.9x"' if years == SAID_AT[-1] else ""))
    rows += agreement(found.values())
    return rows, all(p.stands for p in found.values())
