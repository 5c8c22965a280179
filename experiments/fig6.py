"""Figure 6: where communication-aware placement gets against annealing and an integer program.

    c1, c2 --- [tor1] --- 3 x Type1     eight applications, each placed by HCM, by simulated annealing and by ILP,
                                        measured at its peak, nothing moves afterwards

(Section 5.4.) "All placement constraints of Service Fabric"; microservices that would starve the host are constrained
to it, so that the orchestrator has nothing to do. All algorithms are asked to place for one rate: the highest share of
the cluster's ceiling, in steps of 3 %, at which any of them keeps within all constraints. One that does not gives what
it has: HCM "a node closest to the constraints" (section 3.3), annealing the best that it came by.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgspec

from controller.errors import PlacementError
from controller.placement.ceiling import ceiling_rps
from controller.placement.constraints import ClusterState
from controller.placement.cost import WITH_COMMUNICATION
from controller.placement.demand import Behaviour, demand_of
from controller.placement.placing import DEFAULT_OPTIONS, Options, Placement, place
from controller.placement.prediction import predict
from experiments.errors import ExperimentError
from experiments.measurement.measuring import Plan
from experiments.measurement.rack_peak import RackPeak, RackRoom
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.figures import StoredFigure, draw, stored
from microservices.application import Application
from microservices.applications import APPLICATIONS, application_named
from microservices.profiles import MEMORY_INTENSIVE
from nodes.deployment import deploy
from topologies.catalog import cluster_named

CLUSTER, CLIENTS = "type1x3", 2
ALGORITHMS: dict[str, Options] = {"hcm": DEFAULT_OPTIONS, "annealing": DEFAULT_OPTIONS, "ilp": DEFAULT_OPTIONS}
ALSO = {"annealing+communication": Options(weights=WITH_COMMUNICATION),
        "ilp+communication": Options(weights=WITH_COMMUNICATION)}
SHARES = tuple(round(0.99 - 0.03 * step, 2) for step in range(32))
PLAN, QUICK_PLAN = Plan(requests=6000, warm_requests=1500), Plan(requests=1600, warm_requests=500)
RETRIES = 4
# Section 5.4's text: "up to", of HCM over the other.
PAPER = {"annealing": {"rpj": 0.352, "latency": 0.240}, "ilp": {"rpj": 0.220, "latency": 0.186}}


class Placed(msgspec.Struct, frozen=True):
    """A placement in short: nodes by instance number, the share of the ceiling, and messages per request by level.

    `fits` is the highest share at which the algorithm keeps within all constraints; 0 in runs of an earlier version.
    """

    algorithm: str
    share: float
    rps: float
    nodes: dict[int, str]
    distances: dict[int, float]
    mean_distance: float
    predicted_rps: float
    fits: float = 0.0


class Point(msgspec.Struct, frozen=True):
    """A measured point of the figure."""

    placed: Placed
    peak: RackPeak


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("fig6", options)
    options = options.with_retries(RETRIES)
    ways = ALGORITHMS if options.quick else {**ALGORITHMS, **ALSO}
    names = [f"{application}/{way}" for application in APPLICATIONS for way in ways]
    placements = {application: placements_of(application_named(application), ways) for application in APPLICATIONS}
    with RackRoom(CLUSTER, options, QUICK_PLAN if options.quick else PLAN, CLIENTS) as room:
        def point(name: str) -> Point:
            application, way = name.split("/")
            placed = placements[application][way]
            deployment = deploy(application_named(application), placed.nodes, room.inventory)
            return Point(placed, room.peak(deployment, way))

        found = measured(result_run, names, point, Point, say)
    rows, holds = judged(found)
    result_run.write_data([_record(name, point) for name, point in found.items()])
    figures = figures_of(found)
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures,
               "points": {name: msgspec.to_builtins(point, str_keys=True) for name, point in found.items()}}
    result_run.finish(content)
    return content


def placements_of(application: Application, ways: Mapping[str, Options]) -> dict[str, Placed]:
    """Return the placement by each of `ways`, all for the highest rate that one of them places within the constraints.

    One that gives no whole answer at that rate is taken at the highest that it does place. Raises ExperimentError for
    an application that one of them cannot place at any rate.
    """
    nodes = ClusterState(cluster_named(CLUSTER)).nodes
    pins = {stage.name: Behaviour(pin="host") for stage in application.stages if stage.service in MEMORY_INTENSIVE}
    ceiling = ceiling_rps(application, ClusterState(nodes))

    def placed(way: str, how: Options, share: float, fits: float) -> Placed:
        state = ClusterState(nodes)
        demand = demand_of(application, share * ceiling, nodes, behaviours=pins, backups=False)
        return _short(way, share, place(demand, state, way.partition("+")[0], how), state, fits)

    def highest(way: str, how: Options) -> Placed:
        refused = ""
        for share in SHARES:
            try:
                return placed(way, how, share, share)
            except PlacementError as error:
                refused = str(error)
        raise ExperimentError(f"{application.name} on {CLUSTER}: {way} places no share of its ceiling of "
                              f"{ceiling:,.0f} requests/s: {refused}")

    own = {way: highest(way, how) for way, how in ways.items()}
    most = max(one.share for one in own.values())
    for way, one in own.items():
        if one.share < most:
            with suppress(PlacementError):  # without a whole answer
                own[way] = placed(way, replace(ways[way], overload=True), most, one.share)
    return own


def _short(way: str, share: float, found: Placement, state: ClusterState, fits: float) -> Placed:
    said = predict([(found.demand, found.where)], state.nodes)
    return Placed(way, share, found.demand.rps, found.node_names(state),
                  {int(level): messages for level, messages in said.distances.items()}, said.mean_distance,
                  said.most_rps, fits)


def judged(found: Mapping[str, Point]) -> tuple[list[tuple[str, str, str]], bool]:
    """Return the rows, and whether HCM is at least as good in requests per Joule on most applications.

    The result counts in both directions: where HCM loses, the row shows how far messages travel under each.
    """
    rows = []
    wins: Counter[str] = Counter()
    best = {way: {"rpj": 0.0, "latency": 0.0} for way in ("annealing", "ilp")}
    faithful = all(point.peak.holds and not point.peak.bad for point in found.values())
    for application in APPLICATIONS:
        hcm = found[f"{application}/hcm"]
        for name, other in found.items():
            way = other.placed.algorithm
            if not name.startswith(f"{application}/") or way == "hcm":
                continue
            rpj = hcm.peak.requests_per_joule / other.peak.requests_per_joule - 1
            mean = 1 - hcm.peak.mean_s / other.peak.mean_s
            wins[way] += rpj >= -0.01  # what two runs of one placement differ by
            if way in best:
                best[way]["rpj"], best[way]["latency"] = (max(best[way]["rpj"], rpj),
                                                          max(best[way]["latency"], mean))
            rows.append((f"{application}, HCM against {way}",
                         f"requests/J {rpj:+.1%}, mean {-mean:+.1%}, p99 {hcm.peak.p99_s / other.peak.p99_s - 1:+.1%}; "
                         f"distance {hcm.placed.mean_distance:.2f} against {other.placed.mean_distance:.2f}; placed "
                         f"for {hcm.placed.share:.0%} and {other.placed.share:.0%}, within constraints up to "
                         f"{hcm.placed.fits:.0%} and {other.placed.fits:.0%}"
                         + ("" if hcm.peak.holds and other.peak.holds else "; REFUSED"), ""))
    for way, said in PAPER.items():
        rows.append((f"HCM at least as good as {way} in requests/J", f"{wins[way]} of {len(APPLICATIONS)}",
                     f"> {len(APPLICATIONS) // 2}"))
        rows.append((f"most that HCM gains on {way}", f"requests/J {best[way]['rpj']:+.1%}, mean latency "
                     f"{-best[way]['latency']:+.1%}", f"up to {said['rpj']:+.1%}, {-said['latency']:+.1%}"))
    return rows, faithful and all(wins[way] > len(APPLICATIONS) // 2 for way in PAPER)


def figures_of(found: Mapping[str, Point]) -> dict[str, StoredFigure]:
    """Return Figure 6: requests per Joule and mean latency relative to HCM's, and how far messages travel."""
    def grouped(title: str, label: str, value: Callable[[Point, Point], float]) -> StoredFigure:
        bars = [GroupedBar(name.partition("/")[0], point.placed.algorithm,
                           value(point, found[f"{name.partition('/')[0]}/hcm"]), not point.peak.holds)
                for name, point in found.items()]
        return stored("grouped", GroupedData(title, label, tuple(bars)))

    return {"figure": grouped("Figure 6a: requests per Joule", "relative to HCM", lambda one, hcm:
                              one.peak.requests_per_joule / hcm.peak.requests_per_joule),
            "latency": grouped("Figure 6b: mean latency", "relative to HCM", lambda one, hcm:
                               one.peak.mean_s / hcm.peak.mean_s),
            "p99": grouped("Figure 6c: 99th percentile latency", "relative to HCM", lambda one, hcm:
                           one.peak.p99_s / hcm.peak.p99_s),
            "distance": grouped("Mean distance of a message", "level (1: in a node)", lambda one, _:
                                one.placed.mean_distance)}


def _record(name: str, point: Point) -> dict[str, Any]:
    peak, placed = point.peak, point.placed
    return {"application": name.partition("/")[0], "placed_by": placed.algorithm, "rps": peak.rps,
            "mean_ms": peak.mean_s * 1e3, "p99_ms": peak.p99_s * 1e3, "wall_w": peak.wall_watts,
            "requests_per_joule": peak.requests_per_joule, "mean_distance": placed.mean_distance,
            "placed_for_rps": placed.rps, "share_of_ceiling": placed.share,
            "fits_up_to_share": placed.fits, "predicted_rps": placed.predicted_rps,
            "simulated_rps": peak.forecast_rps, "time_scale": peak.time_scale, "holds": peak.holds}
