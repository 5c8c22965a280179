"""Figure 5: what SmartNICs are worth at the peak: eight applications on 3 x Type1 and on 3 x Beefy (section 5.1).

    c1 ... c4 --- [tor1] --- s1n1 === s1h,   s2n1 === s2h,   s3n1 === s3h
    c1 ... c4 --- [tor1] --- s1h, s2h, s3h

Each application alone, placed as E3 would and in as many copies as it takes (cluster_peaks.py), at the knee of its
closed loop: requests per Joule of all three servers at the wall, mean and 99th percentile latency. In virtual time and
in full the size of requests varies, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
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
from microservices.applications import APPLICATIONS
from microservices.assumptions import DEFAULTS, MEASURED_BYTES, varied

TYPE1, BEEFY = "type1x3", "beefyx3"
SIZES_BYTES = (256, MEASURED_BYTES, 1024)
CLASSES = {"NFV": ("nfv-fin", "nfv-din", "nfv-ifid"), "RTA": ("rta-ptc", "rta-sf", "rta-shm"),
           "IOT": ("iot-dh", "iot-ts")}
# Section 5.1's text: requests per Joule over Beefy's, savings in mean and 99th percentile latency.
PAPER_CLASSES = {"NFV": (2.5, 0.433, 0.355), "RTA": (1.3, 0.923, 0.904), "IOT": (1.3, 0.804, 0.886)}
PAPER_APPLICATIONS = {"nfv-fin": 3.0, "rta-ptc": 1.12}
WITHIN = 0.25
NOISE = 0.03  # ours: what two gains may differ by and be the same
DIFFERS = "  <- differs from the text"
Row = tuple[str, str, str]
STUDY = Study("fig5", TYPE1, (TYPE1, BEEFY), tuple(APPLICATIONS), CLASSES)


class Gain(msgspec.Struct, frozen=True):
    """Type1 over Beefy: requests per Joule, mean and 99th percentile latency; below 1, latency is saved."""

    energy: float
    mean: float
    p99: float


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment, or with `sensitivity` what stands in sensitivity.py. Returns {"holds", "rows", ...}."""
    if options.sensitivity:
        return how_it_changes(options, say, STUDY)
    result_run = Run.begin("fig5", options)
    options = options.with_retries(RETRIES)
    sizes = SIZES_BYTES if options.simulate and not options.quick else (MEASURED_BYTES,)
    found: dict[str, ClusterPeak] = {}
    names = [name_of(application, cluster, size) for size in sizes for cluster in (TYPE1, BEEFY)
             for application in APPLICATIONS]
    rooms = {size: ClusterRooms(options, say, varied("request_bytes", size)) for size in sizes}

    def point(name: str) -> ClusterPeak:
        application, cluster, size = name.split("/")
        return rooms[int(size)].peak(application, cluster)

    try:
        found = measured(result_run, names, point, ClusterPeak, say)
    finally:
        for room in rooms.values():
            room.__exit__()
    rows, holds = judged(found)
    rows += [row for size in sizes if size != MEASURED_BYTES for row in size_rows(found, size)]
    result_run.write_data([{"request_bytes": int(name.rsplit("/", 1)[1]), **record(p)} for name, p in found.items()])
    figures = figures_of(found)
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures, "assumptions": msgspec.to_builtins(DEFAULTS),
               "points": {name: msgspec.to_builtins(p, str_keys=True) for name, p in found.items()}}
    result_run.finish(content)
    return content


def name_of(application: str, cluster: str, size: int = MEASURED_BYTES) -> str:
    return f"{application}/{cluster}/{size}"


def gains(found: Mapping[str, ClusterPeak], size: int = MEASURED_BYTES) -> dict[str, Gain]:
    """Return what Type1 gains by application, for requests of `size` bytes."""
    result = {}
    for application in APPLICATIONS:
        ours, theirs = (found[name_of(application, cluster, size)].peak for cluster in (TYPE1, BEEFY))
        result[application] = Gain(ours.requests_per_joule / theirs.requests_per_joule, ours.mean_s / theirs.mean_s,
                                   ours.p99_s / theirs.p99_s)
    return result


def judged(found: Mapping[str, ClusterPeak]) -> tuple[list[Row], bool]:
    """Return the rows, and whether machine and replies are good and energy goes in the text's direction.

    That is: each class gains. Which application gains most and least, and whether a figure is within 25 % of the
    text's, is said and decides nothing: a claim that is missed is a finding (claim_sources_rack.py), not a failed run.
    """
    rows: list[Row] = []
    of = gains(found)
    for application, gain in of.items():
        pair = [found[name_of(application, cluster)] for cluster in (TYPE1, BEEFY)]
        refused = "; REFUSED" * (not all(p.stands for p in pair))
        said = PAPER_APPLICATIONS.get(application)
        rows.append((f"{application}, Type1 over Beefy",
                     f"requests/J {gain.energy:.2f}x, mean {gain.mean - 1:+.0%}, p99 {gain.p99 - 1:+.0%}; "
                     f"{pair[0].peak.rps / 1e3:.4g}K and {pair[1].peak.rps / 1e3:.4g}K rps, "
                     f"{pair[0].peak.wall_watts:.0f} and {pair[1].peak.wall_watts:.0f} W, "
                     f"{pair[0].copies} and {pair[1].copies} copies{refused}",
                     f"text: {said:g}x{_near(gain.energy, said)}" if said else ""))
    classes = {name: Gain(*(fmean(getattr(of[a], part) for a in members) for part in ("energy", "mean", "p99")))
               for name, members in CLASSES.items()}
    for name, gain in classes.items():
        energy, mean, p99 = PAPER_CLASSES[name]
        rows.append((f"{name}, mean of the class", f"requests/J {gain.energy:.2f}x, mean latency {gain.mean - 1:+.0%}, "
                     f"p99 {gain.p99 - 1:+.0%}",
                     f"text: {energy:g}x{_near(gain.energy, energy)}, {-mean:+.1%}, {-p99:+.1%}"))
    most, least = max(of, key=lambda a: of[a].energy), min(of, key=lambda a: of[a].energy)
    as_text = most == "nfv-fin" and of["rta-ptc"].energy <= of[least].energy + NOISE
    rows.append(("gains most, and least" + DIFFERS * (not as_text),
                 f"{most} {of[most].energy:.2f}x, {least} {of[least].energy:.2f}x", "text: nfv-fin 3x, rta-ptc 1.12x"))
    rows += agreement(found.values())
    faithful = all(point.stands for point in found.values())
    return rows, faithful and all(gain.energy > 1 for gain in classes.values())


def size_rows(found: Mapping[str, ClusterPeak], size: int) -> list[Row]:
    """Return a row on requests of another size than Table 1's: what Type1 gains then."""
    of = gains(found, size)
    return [(f"requests of {size} bytes, requests/J", ", ".join(f"{a} {gain.energy:.2f}x" for a, gain in of.items()),
             "")]


def _near(ours: float, paper: float) -> str:
    return " (within 25 %)" if abs(ours / paper - 1) <= WITHIN else ""


def figures_of(found: Mapping[str, ClusterPeak]) -> dict[str, StoredFigure]:
    """Return Figure 5's three parts, in absolute terms, for requests of 512 bytes."""
    def grouped(title: str, label: str, value: Callable[[ClusterPeak], float]) -> StoredFigure:
        bars = [GroupedBar(application, cluster, value(point), not point.stands) for application in APPLICATIONS
                for cluster in (TYPE1, BEEFY) for point in (found[name_of(application, cluster)],)]
        return stored("grouped", GroupedData(title, label, tuple(bars), log_y=True))

    relative = [GroupedBar(a, label, value) for a, gain in gains(found).items()
                for label, value in (("ours", gain.energy), ("text", PAPER_APPLICATIONS.get(a))) if value is not None]
    by_class = [GroupedBar(name, label, value) for name, members in CLASSES.items() for label, value in (
        ("ours", fmean(gains(found)[a].energy for a in members)), ("text", PAPER_CLASSES[name][0]))]
    return {"figure": grouped("Figure 5a: energy efficiency", "1000 requests/J", lambda p:
                              p.peak.requests_per_joule / 1e3),
            "mean": grouped("Figure 5b: average latency", "mean latency (ms)", lambda p: p.peak.mean_s * 1e3),
            "p99": grouped("Figure 5c: 99th percentile latency", "99th percentile (ms)", lambda p: p.peak.p99_s * 1e3),
            "gain": stored("grouped", GroupedData("Type1 over Beefy in requests per Joule", "gain (x)",
                                                  tuple(relative + by_class)))}
