"""How a result changes with each assumption: one at a time, from one end of its range to the other (assumptions.py).

    table5    requests per Joule of 2 x Type2 over the best of the other four clusters, three applications
    fig5      of 3 x Type1 over 3 x Beefy, eight applications
    fig9      of SmartNICs whose ports are shared over a NIC that is the hosts' alone, two applications

In virtual time. The peaks are found once, as assumed. Then each is measured with as many requests outstanding as its
knee has: as assumed, and with one assumption changed, everything standing where it stood. What is seen is what speed,
power and requests do, and not what placement would make of it. An assumption is tried only where it can matter: what a
SuperBeefy's cores do per clock, say, on that cluster alone.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import msgspec

from experiments.measurement.cluster_peaks import ClusterPeak, ClusterRooms
from experiments.runs.points import POINTS_FILE, PointFile, measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.figures import StoredFigure, draw, stored
from microservices.applications import application_named
from microservices.assumptions import ASSUMPTIONS, DEFAULTS, Assumptions, assumption, varied

CHANGED = 0.01  # ours: less than what a window's noise makes of it is no change
AS_ASSUMED = "as assumed"
ENDS = ("low", "high")
# Where an assumption can matter at all; anywhere, if it is not here.
_ONLY_APPLICATIONS = {"analytics_share": {"iot-ts"}, "logged_share": {"iot-dh"},
                      "last_stage_share": {"rta-ptc", "rta-sf", "rta-shm"}, "malicious_share": {"nfv-fin", "nfv-din"}}
_CARDS = {"type1x3", "type2x2", "type2dx2"}  # clusters with SmartNICs
_UNMEASURED = {"type2x2", "type2dx2", "superbeefyx1"}  # with a host that Table 1 was not measured on
_ONLY_CLUSTERS = {"work_per_clock_8160": {"superbeefyx1"}, "work_per_clock_2620": {"type2x2", "type2dx2"},
                  "work_per_clock_6880": {"wimpyx4", "beefyx2+wimpyx2"}, "hol_factor": _CARDS, "forward_s": _CARDS,
                  "hyper_threading_gain": _UNMEASURED, "smartnic_fixed_share": {*_CARDS, "wimpyx4", "beefyx2+wimpyx2"},
                  "host_fixed_share": {*_CARDS, "beefyx3", "beefyx4", "beefyx2+wimpyx2", "superbeefyx1"}}
# What is not tried: hosts have Linux's stack here, nothing has a backup, and how long a message is under way changes
# latency, while cores that are full stay so.
NOWHERE = frozenset({"bypass_lull_share", "copy_share", "host_host_rtt_s", "smartnic_host_rtt_cut",
                     "smartnic_smartnic_rtt_cut", "linux_rtt_factor", "tor_s", "in_node_s"})
Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Study:
    """An experiment whose result is varied: `ours` is the cluster that is compared with the best other of `clusters`.

    Of the applications in each of `groups` the mean is told, too. `entry_on_hosts`: as in Figure 9, what clients ask is
    on hosts.
    """

    name: str
    ours: str
    clusters: Sequence[str]
    applications: Sequence[str]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    entry_on_hosts: bool = False

    @property
    def cells(self) -> list[str]:
        return [f"{application}/{cluster}" for cluster in self.clusters for application in self.applications]

    @property
    def results_name(self) -> str:
        """Beside the experiment's results, whose latest run others take their numbers from."""
        return f"{self.name}-sensitivity"

    def peak(self, rooms: ClusterRooms, cell: str) -> ClusterPeak:
        application, _, cluster = cell.partition("/")
        return rooms.peak(application, cluster, application_named(application).sources if self.entry_on_hosts else ())

    def advantage(self, rpj: Mapping[str, float], application: str) -> float:
        """Return requests per Joule of our cluster over the best other."""
        others = (rpj[f"{application}/{cluster}"] for cluster in self.clusters if cluster != self.ours)
        return rpj[f"{application}/{self.ours}"] / max(others)

    def group(self, rpj: Mapping[str, float], name: str) -> float:
        return fmean(self.advantage(rpj, application) for application in self.groups[name])

    def order(self, rpj: Mapping[str, float], application: str) -> list[str]:
        """Return the clusters, that with most requests per Joule first."""
        return sorted(self.clusters, key=lambda cluster: -rpj[f"{application}/{cluster}"])


class Point(msgspec.Struct, frozen=True):
    """The peak of one cell, or requests per Joule of all that an assumption can matter in, by application/cluster."""

    peak: ClusterPeak | None = None
    rpj: dict[str, float] = {}


class Task(msgspec.Struct, frozen=True):
    """One cell to be measured under some assumptions, in whatever process."""

    known: ClusterPeak
    assumptions: Assumptions
    quick: bool

    def rpj(self) -> float:
        with ClusterRooms(RunOptions(self.quick, simulate=True), _silent, self.assumptions) as rooms:
            found = rooms.loaded(self.known, self.known.peak.outstanding)
        return found.requests_per_joule


def run(options: RunOptions, say: Callable[[str], None], study: Study) -> dict[str, Any]:
    """Run the sensitivity run of an experiment; a quick one has shorter windows. Returns {"holds", "rows", ...}."""
    result_run = Run.begin(study.results_name, options)
    cells = study.cells
    names = [*(f"peak/{cell}" for cell in cells), f"{AS_ASSUMED}/all",
             *(f"{a.name}/{end}" for a in ASSUMPTIONS if cells_of(a.name, cells) for end in ENDS)]
    workers = len(os.sched_getaffinity(0))
    with (ClusterRooms(RunOptions(options.quick, simulate=True), say) as rooms,
          ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool):
        def point(name: str) -> Point:
            what, _, rest = name.partition("/")
            if what == "peak":
                return Point(study.peak(rooms, rest))
            kept = PointFile(result_run.directory / POINTS_FILE)
            here = cells if what == AS_ASSUMED else cells_of(what, cells)
            peaks = [peak for cell in here if (peak := kept.value(f"peak/{cell}", Point).peak) is not None]
            assumed = DEFAULTS if what == AS_ASSUMED else varied(what, getattr(assumption(what), rest))
            tasks = [Task(peak, assumed, options.quick) for peak in peaks]
            return Point(rpj=dict(zip(here, pool.map(Task.rpj, tasks), strict=True)))

        found = measured(result_run, names, point, Point, say)
    base = found[f"{AS_ASSUMED}/all"].rpj
    tried = {a.name: {end: found[f"{a.name}/{end}"].rpj for end in ENDS} for a in ASSUMPTIONS
             if f"{a.name}/low" in found}
    rows = rows_of(study, base, tried)
    result_run.write_data([{"assumption": name, "end": end, "value": getattr(assumption(name), end), "cell": cell,
                            "rpj": rpj, "as_assumed": base[cell]}
                           for name, ends in tried.items() for end, of in ends.items() for cell, rpj in of.items()])
    figures = figures_of(study, base, tried)
    draw(result_run.directory, figures)
    holds = all(p.peak.stands for p in found.values() if p.peak is not None)
    content = {"holds": holds, "rows": rows, "figures": figures, "options": options.identity(),
               "assumptions": msgspec.to_builtins(ASSUMPTIONS), "as_assumed": base, "tried": tried}
    result_run.finish(content)
    return content


def cells_of(name: str, cells: Iterable[str]) -> list[str]:
    """Return those of `cells` in which an assumption can matter."""
    found = []
    for cell in cells:
        application, _, cluster = cell.partition("/")
        if (name not in NOWHERE and application in _ONLY_APPLICATIONS.get(name, {application})
                and cluster in _ONLY_CLUSTERS.get(name, {cluster})):
            found.append(cell)
    return found


def rows_of(study: Study, base: Mapping[str, float],
            tried: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """Return a row for each assumption that changes a cell: what it changes most, and whose order of clusters."""
    others = study.clusters[1] if len(study.clusters) == 2 else "the best other"
    rows: list[Row] = [(f"{application}, {study.ours} over {others}",
                        f"{study.advantage(base, application):.2f}x; order: "
                        + ", ".join(study.order(base, application)), AS_ASSUMED) for application in study.applications]
    rows += [(f"{name}, mean of the class", f"{study.group(base, name):.2f}x", AS_ASSUMED) for name in study.groups]
    quiet = []
    for name in sorted(tried, key=lambda name: -_most(base, tried[name])[1]):
        about, ends = assumption(name), tried[name]
        where, most = _most(base, ends)
        if most < CHANGED:
            quiet.append(name)
            continue
        at = {end: {**base, **ends[end]} for end in ENDS}
        turned = [f"{application} at {end}" for end in ENDS for application in study.applications
                  if study.order(at[end], application) != study.order(base, application)]
        means = [f"{group} {study.group(at['low'], group):.2f}x to {study.group(at['high'], group):.2f}x"
                 for group in study.groups
                 if any(abs(study.group(at[end], group) / study.group(base, group) - 1) >= CHANGED for end in ENDS)]
        rows.append((f"{name} from {about.low:g} to {about.high:g} ({about.default:g})",
                     "; ".join([f"most in {where}: {ends['low'][where] / base[where] - 1:+.0%} to "
                                f"{ends['high'][where] / base[where] - 1:+.0%} requests/J", *means]),
                     f"order changes: {', '.join(turned)}" if turned else "order stays"))
    rows.append((f"change nothing by {CHANGED:.0%} or more", ", ".join(quiet) or "none", ""))
    untried = [a.name for a in ASSUMPTIONS if a.name not in NOWHERE and not cells_of(a.name, study.cells)]
    rows.append(("not tried: they can change no throughput at the peak, and no power",
                 ", ".join(sorted({*NOWHERE, *untried})), ""))
    return rows


def _most(base: Mapping[str, float], ends: Mapping[str, Mapping[str, float]]) -> tuple[str, float]:
    """Return the cell that an assumption changes most, and by what share."""
    changes = {cell: max(abs(of[cell] / base[cell] - 1) for of in ends.values()) for cell in ends["low"]}
    where = max(changes, key=lambda cell: changes[cell])
    return where, changes[where]


def figures_of(study: Study, base: Mapping[str, float],
               tried: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, StoredFigure]:
    """Return for each application its SmartNICs' advantage at either end of every assumption that changes it."""
    figures = {}
    others = study.clusters[1] if len(study.clusters) == 2 else "the best other cluster"
    for number, application in enumerate(study.applications):
        usual = study.advantage(base, application)
        bars = [GroupedBar(AS_ASSUMED, "low", usual), GroupedBar(AS_ASSUMED, "high", usual)]
        for name, ends in tried.items():
            values = {end: study.advantage({**base, **ends[end]}, application) for end in ENDS}
            if any(abs(value / usual - 1) >= CHANGED for value in values.values()):
                bars += [GroupedBar(name, end, values[end]) for end in ENDS]
        figures["figure" if number == 0 else application] = stored("grouped", GroupedData(
            f"{application}: {study.ours} over {others}", "x in requests/J", tuple(bars)))
    return figures


def _silent(_: str) -> None:
    pass
