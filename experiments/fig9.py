"""Figure 9: host traffic over all SmartNICs by ECMP, against one NIC that is the host's alone (section 5.3).

    shared      c1 ... c4 --- [tor1] ===4 x 10 Gb/s=== s1n1, s1n2, s1n3, s1n4 === s1h      2 servers; the host is
                                                                                           reached over all four
    dedicated   c1 ... c4 --- [tor1] ===3 x 10 Gb/s=== s1n1, s1n2, s1n3 === s1h            over its X710 only
                                     ---10 Gb/s (X710)--------------------- s1h

"To emphasize the load balancing benefits, we always place the client-facing microservices on the host server." All
others stand where E3 would have them (cluster_peaks.py).

The accounting of ports was settled before anything was measured (topologies/catalog.py, `type2d`): one 10 Gb/s port of
each NIC is in use, so that Type2 has the 40 Gb/s of Table 4; the X710 takes the place and the port of the SmartNIC that
it replaces. Both have four ports of the ToR, and the host 40 Gb/s against 10: the "up to 4x" of the text. In virtual
time and in full, an X710 with both its ports in use (20 Gb/s, five ports of the ToR) is measured, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from experiments.fig5 import DIFFERS
from experiments.measurement.cluster_peaks import RETRIES, ClusterPeak, ClusterRooms, agreement, record
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.sensitivity import Study
from experiments.sensitivity import run as how_it_changes
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.figures import StoredFigure, draw, stored
from microservices.applications import APPLICATIONS, application_named
from microservices.assumptions import DEFAULTS

SHARED, DEDICATED, BOTH_PORTS = "type2x2", "type2dx2", "type2d20x2"
PAPER_THROUGHPUT, PAPER_ENERGY = 2.9, 2.7  # section 5.3: "up to", NFV-FIN
LEAST = "iot-ts"  # "benefits the least"
NOISE = 0.03  # ours: what two peaks may differ by and be the same
Row = tuple[str, str, str]
STUDY = Study("fig9", SHARED, (SHARED, DEDICATED), ("nfv-fin", "iot-ts"), entry_on_hosts=True)


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment, or with `sensitivity` what stands in sensitivity.py. Returns {"holds", "rows", ...}."""
    if options.sensitivity:
        return how_it_changes(options, say, STUDY)
    result_run = Run.begin("fig9", options)
    options = options.with_retries(RETRIES)
    wide = options.simulate and not options.quick
    names = [f"{application}/{cluster}" for cluster in (SHARED, DEDICATED, *([BOTH_PORTS] if wide else []))
             for application in APPLICATIONS]
    with ClusterRooms(options, say) as rooms:
        def point(name: str) -> ClusterPeak:
            application, cluster = name.split("/")
            return rooms.peak(application, cluster, on_hosts=application_named(application).sources)

        found = measured(result_run, names, point, ClusterPeak, say)
    rows, holds = judged(found)
    result_run.write_data([record(p) for p in found.values()])
    figures = figures_of(found)
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures, "assumptions": msgspec.to_builtins(DEFAULTS),
               "points": {name: msgspec.to_builtins(p, str_keys=True) for name, p in found.items()}}
    result_run.finish(content)
    return content


def gain(found: Mapping[str, ClusterPeak], application: str, over: str = DEDICATED) -> tuple[float, float, float]:
    """Return throughput, requests per Joule and mean latency of sharing over those of a NIC of the host's own."""
    shared, own = found[f"{application}/{SHARED}"].peak, found[f"{application}/{over}"].peak
    return (shared.rps / own.rps, shared.requests_per_joule / own.requests_per_joule, shared.mean_s / own.mean_s)


def judged(found: Mapping[str, ClusterPeak]) -> tuple[list[Row], bool]:
    """Return the rows, and whether machine and replies are good and the text's directions right.

    These are: sharing loses nowhere, and gains throughput somewhere. Who gains most and least is said and decides
    nothing, as in Figure 5.
    """
    rows: list[Row] = []
    gains = {application: gain(found, application) for application in APPLICATIONS}
    for application, (rps, rpj, mean) in gains.items():
        pair = [found[f"{application}/{cluster}"] for cluster in (SHARED, DEDICATED)]
        refused = "; REFUSED" * (not all(p.stands for p in pair))
        rows.append((f"{application}, shared over dedicated",
                     f"throughput {rps:.2f}x ({pair[0].peak.rps / 1e3:.4g}K over {pair[1].peak.rps / 1e3:.4g}K), "
                     f"requests/J {rpj:.2f}x, mean latency {mean - 1:+.0%}{refused}", ""))
        if (other := f"{application}/{BOTH_PORTS}") in found:
            rows.append((f"{application}, shared over both ports of an X710",
                         f"throughput {gain(found, application, BOTH_PORTS)[0]:.2f}x"
                         + "; REFUSED" * (not found[other].stands), ""))
    most = max(gains, key=lambda a: gains[a][0])
    least = min(rps for rps, _, _ in gains.values())
    rows.append(("gains most throughput", f"{most} {gains[most][0]:.2f}x; nfv-fin {gains['nfv-fin'][0]:.2f}x",
                 f"text: nfv-fin {PAPER_THROUGHPUT}x"))
    efficient = max(gains, key=lambda a: gains[a][1])
    rows.append(("gains most requests/J", f"{efficient} {gains[efficient][1]:.2f}x; nfv-fin {gains['nfv-fin'][1]:.2f}x",
                 f"text: nfv-fin {PAPER_ENERGY}x"))
    least_as_text = gains[LEAST][0] <= least + NOISE
    rows.append(("gains least throughput" + DIFFERS * (not least_as_text),
                 f"{least:.2f}x; {LEAST} {gains[LEAST][0]:.2f}x", f"text: {LEAST}"))
    rows += agreement(found.values())
    good = (all(p.stands for p in found.values()) and all(rps >= 1 - NOISE for rps, _, _ in gains.values())
            and gains[most][0] > 1 + NOISE)
    return rows, good


def figures_of(found: Mapping[str, ClusterPeak]) -> dict[str, StoredFigure]:
    """Return Figure 9: throughput, energy efficiency and latency of each configuration, on a logarithmic axis."""
    def grouped(title: str, label: str, value: Callable[[ClusterPeak], float]) -> StoredFigure:
        words = {SHARED: "shared (ECMP)", DEDICATED: "dedicated NIC", BOTH_PORTS: "dedicated, both ports"}
        bars = [GroupedBar(p.application, words[p.cluster], value(p), not p.stands) for p in found.values()]
        return stored("grouped", GroupedData(title, label, tuple(bars), log_y=True))

    paper = [GroupedBar("nfv-fin", f"{what}, text", value) for what, value in (
        ("throughput", PAPER_THROUGHPUT), ("requests/J", PAPER_ENERGY))]
    ratios = [GroupedBar(a, label, value) for a in APPLICATIONS
              for label, value in zip(("throughput", "requests/J"), gain(found, a)[:2], strict=True)]
    return {"figure": grouped("Figure 9: throughput", "1000 requests/s", lambda p: p.peak.rps / 1e3),
            "energy": grouped("Figure 9: energy efficiency", "1000 requests/J", lambda p:
                              p.peak.requests_per_joule / 1e3),
            "mean": grouped("Figure 9: average latency", "mean latency (ms)", lambda p: p.peak.mean_s * 1e3),
            "gain": stored("grouped", GroupedData("Sharing over a dedicated NIC", "gain (x)", tuple(ratios + paper)))}
