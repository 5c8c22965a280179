"""Table 5: requests per Joule of three applications on five clusters with as much network bandwidth.

    beefyx4   wimpyx4   beefyx2+wimpyx2   type2x2   superbeefyx1         each 80 Gb/s behind one ToR (Table 4)

Each application alone, placed as E3 would and in as many copies as it takes (cluster_peaks.py), at the knee of its
closed loop. Which three the paper took is not in what we have of it: these are Figure 8's three, one of each class.
In virtual time and in full it is all eight. The paper's numbers are withheld, and none is compared with: what comes out
is a prediction from Tables 1 and 4 and `microservices/assumptions.py`.

`--sensitivity` varies each of these assumptions from one end of its range to the other (sensitivity.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from experiments.measurement.cluster_peaks import RETRIES, ClusterPeak, ClusterRooms, agreement, record
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.sensitivity import Study
from experiments.sensitivity import run as how_it_changes
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.figures import StoredFigure, draw, stored
from microservices.applications import APPLICATIONS as ALL_APPLICATIONS
from microservices.assumptions import DEFAULTS

CLUSTERS = ("beefyx4", "wimpyx4", "beefyx2+wimpyx2", "type2x2", "superbeefyx1")
SMARTNICS = "type2x2"
APPLICATIONS = ("nfv-fin", "rta-shm", "iot-ts")
Row = tuple[str, str, str]
STUDY = Study("table5", SMARTNICS, CLUSTERS, APPLICATIONS)


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment, or with `sensitivity` what stands in sensitivity.py. Returns {"holds", "rows", ...}."""
    if options.sensitivity:
        return how_it_changes(options, say, STUDY)
    result_run = Run.begin("table5", options)
    found = measured_on_clusters(result_run, options, say)
    rows, holds = judged(found)
    result_run.write_data([record(p) for p in found.values()])
    figures = figures_of(found)
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures, "assumptions": msgspec.to_builtins(DEFAULTS),
               "options": options.identity(),
               "points": {name: msgspec.to_builtins(p, str_keys=True) for name, p in found.items()}}
    result_run.finish(content)
    return content


def measured_on_clusters(result_run: Run, options: RunOptions, say: Callable[[str], None]) -> dict[str, ClusterPeak]:
    """Measure every application on every cluster; Figure 10 is made of the same points."""
    options = options.with_retries(RETRIES)
    applications = applications_of(options)
    names = [f"{application}/{cluster}" for cluster in CLUSTERS for application in applications]
    with ClusterRooms(options, say) as rooms:
        def point(name: str) -> ClusterPeak:
            application, cluster = name.split("/")
            return rooms.peak(application, cluster)

        return measured(result_run, names, point, ClusterPeak, say)


def applications_of(options: RunOptions) -> Sequence[str]:
    """Return the three, or all eight in a full run in virtual time."""
    return tuple(ALL_APPLICATIONS) if options.simulate and not options.quick else APPLICATIONS


def judged(found: Mapping[str, ClusterPeak]) -> tuple[list[Row], bool]:
    """Return the rows, and whether machine and replies are good: there is nothing else to hold them against."""
    rows: list[Row] = []
    for application in dict.fromkeys(p.application for p in found.values()):
        of = {p.cluster: p for p in found.values() if p.application == application}
        order = sorted(of, key=lambda cluster: -of[cluster].peak.requests_per_joule)
        for cluster in order:
            p = of[cluster]
            rows.append((f"{application} on {cluster}", f"{p.peak.requests_per_joule / 1e3:.3g} KRPJ: "
                         f"{p.peak.rps / 1e3:.4g}K rps, {p.peak.wall_watts:.0f} W, mean {p.peak.mean_s * 1e3:.3g} ms, "
                         f"{p.copies} copies" + "; REFUSED" * (not p.stands), ""))
        others = max(of[c].peak.requests_per_joule for c in of if c != SMARTNICS)
        rows.append((f"{application}, {SMARTNICS} over the best other",
                     f"{of[SMARTNICS].peak.requests_per_joule / others:.2f}x; order: {', '.join(order)}",
                     'abstract: "up to 3x", energy'))
    rows += agreement(found.values())
    return rows, all(p.stands for p in found.values())


def figures_of(found: Mapping[str, ClusterPeak]) -> dict[str, StoredFigure]:
    """Return Table 5 as bars."""
    bars = tuple(GroupedBar(p.application, p.cluster, p.peak.requests_per_joule / 1e3, not p.stands)
                 for p in found.values())
    return {"figure": stored("grouped", GroupedData("Table 5: energy efficiency on five clusters", "1000 requests/J",
                                                    bars, log_y=True))}
