"""Figure 8: what 3 x Type1 draws over load, for one application of each class (section 5.1).

    c1, c2 --- [tor1] --- s1n1 === s1h,   s2n1 === s2h,   s3n1 === s3h

Each application runs alone at the paper's shards, where E3 would place it (e3_placement.py). Its peak is the knee of
its closed loop, found in virtual time and confirmed on packets; then Poisson arrivals at shares of that. Power is
at the wall, from what cores did (energy.py): Tables 1 and 4 calibrate it, how long cores are busy, awake and asleep is
measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import msgspec

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.e3_placement import E3Placement, placed_for_peak
from experiments.measurement.energy import EnergyMeter, WindowPower, power_between
from experiments.measurement.fidelity import Verdict
from experiments.measurement.knee import Knee
from experiments.measurement.measuring import Measurement, Plan, measure
from experiments.measurement.peak import (
    CHECK_EVERY,
    MOST_FLOWS,
    POOL,
    QUICK_RESOLUTION,
    RESOLUTION,
    find_peak,
    shared_out,
)
from experiments.measurement.rack_peak import RackRoom
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.measurement.time_scale import capacity_of, time_scale_for
from experiments.power_over_load import APPLICATIONS, LOADS, LoadPoint, figure_data, judged, mean_of
from experiments.runs.points import POINTS_FILE, PointFile, measured
from experiments.runs.results import Run
from experiments.runs.run_options import AUTO, RunOptions
from experiments.views.figures import draw, stored
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS
from microservices.measured import Column
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named

CLUSTER = "type1x3"
CLIENTS = 2
REPETITIONS = 3  # the paper's
PLAN, QUICK_PLAN = Plan(6000, 1500, 90.0), Plan(2500, 600, 45.0)
LEAST_REQUESTS = 500
RETRIES = 3
PILOT_OUTSTANDING = 64
FIRST_OUTSTANDING, MOST_OUTSTANDING = 32, 8192
READINGS, READING_REAL_S = 8, 0.25  # of the power's time line
IDLE_REAL_S = 2.0
PEAK = "peak"


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` measures each load once, for a shorter time. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("fig8", options)
    repetitions = range(1, 1 + (1 if options.quick else REPETITIONS))
    names = [f"{application}/rep{rep}/{load}" for application in APPLICATIONS for rep in repetitions
             for load in (PEAK, *map(str, LOADS))]
    with Testbed.start(TestbedOptions(CLUSTER, clients=CLIENTS, label="fig8")) as bed:
        room = Room(bed, options, QUICK_PLAN if options.quick else PLAN, say)

        def point(name: str) -> LoadPoint:
            application, rep, load = name.split("/")
            if load == PEAK:
                return room.peak(application)
            peak = PointFile(result_run.directory / POINTS_FILE).value(f"{application}/{rep}/{PEAK}", LoadPoint)
            return room.at(peak, float(load))

        found = measured(result_run, names, point, LoadPoint, say)
    curves = {application: [mean_of([found[f"{application}/rep{rep}/{load}"] for rep in repetitions])
                            for load in LOADS] for application in APPLICATIONS}
    rows, holds = judged(curves, [mean_of([found[f"{application}/rep{rep}/{PEAK}"] for rep in repetitions])
                                  for application in APPLICATIONS])
    figures = {"figure": stored("fig8", figure_data(curves))}
    result_run.write_data([_record(point) for curve in curves.values() for point in curve])
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": msgspec.to_builtins(figures),
               "points": {name: msgspec.to_builtins(p) for name, p in found.items()},
               "assumptions": msgspec.to_builtins(DEFAULTS)}
    result_run.finish(content)
    return content


class Room:
    """The testbed with the application at work on it."""

    def __init__(self, bed: Testbed, options: RunOptions, plan: Plan, say: Callable[[str], None]) -> None:
        self._bed, self._options, self._plan, self._say = bed, options, plan, say
        self._retries = options.retry or RETRIES
        self._scales: dict[str, float] = {}
        self._knees: dict[str, Knee] = {}
        self._paced: tuple[str, float] | None = None

    def peak(self, name: str) -> LoadPoint:
        """Find the peak of an application: as many requests outstanding as its closed loop's knee has."""
        configs = self._configs(name)
        scale, expected = self._scale(name), self._expected(name)

        def measured_at(time_scale: float) -> tuple[LoadPoint, Verdict, bool]:
            self.pace(name, time_scale)
            found = find_peak(self._bed, configs, FIRST_OUTSTANDING, MOST_OUTSTANDING, self._plan,
                              resolution=QUICK_RESOLUTION if self._options.quick else RESOLUTION,
                              expected=expected if expected.probe is not None else None)
            knee = found.knee
            last = found.measurement or found.measured[knee.tried[-1].load]
            reasons = last.verdict.reasons if knee.probe is not None else (knee.said, *last.verdict.reasons)
            tried = tuple((p.load, p.throughput_rps, p.latencies.mean_s, p.faithful) for p in knee.tried)
            point = msgspec.structs.replace(self._point(name, -1.0, last, reasons), said=knee.said, tried=tried)
            return point, last.verdict, not reasons

        return slowed_till_it_holds(measured_at, scale, self._retries, lambda said: self._say(f"{name}: {said}"))

    def at(self, peak: LoadPoint, share: float) -> LoadPoint:
        """Measure at a share of `peak`; what is a share of a refused peak is refused."""
        name = peak.application
        if not share:
            return self._without_load(peak)
        offered_rps = share * peak.throughput_rps
        configs = {client: msgspec.structs.replace(
            config, rate_rps=offered_rps / CLIENTS, flows=MOST_FLOWS, pool=POOL, check_every=CHECK_EVERY,
            seed=number) for number, (client, config) in enumerate(self._configs(name).items(), start=1)}
        # As long a window at every load, in emulated time, unless that leaves too few requests.
        plan = Plan(max(LEAST_REQUESTS, round(share * self._plan.requests)), round(share * self._plan.warm_requests),
                    self._plan.most_real_s)

        def measured_at(time_scale: float) -> tuple[LoadPoint, Verdict, bool]:
            # Agents started anew, or they would send this point's clients what those of the one before did not take.
            self._paced = None
            self.pace(name, time_scale)
            meter = EnergyMeter(self._bed.inventory, Column.LINUX, self._bed.pacing.assumptions)
            found = measure(self._bed, configs, plan, meanwhile=partial(self._watch, meter))
            point = self._point(name, share, found, (*found.verdict.reasons, *peak.refused))
            return (msgspec.structs.replace(point, offered_rps=offered_rps, time_line=tuple(meter.time_line())),
                    found.verdict, found.verdict.holds)

        return slowed_till_it_holds(measured_at, peak.time_scale, self._retries,
                                    lambda said: self._say(f"{name} at {share:.0%}: {said}"))

    def _without_load(self, peak: LoadPoint) -> LoadPoint:
        """Measure the application deployed and without a request: nothing there can be late."""
        self._paced = None  # agents are started anew: what ran before has nothing to do with it
        self.pace(peak.application, peak.time_scale)
        meter = EnergyMeter(self._bed.inventory, Column.LINUX, self._bed.pacing.assumptions)
        before = self._bed.counters()
        self._watch(meter)
        time.sleep(IDLE_REAL_S)
        power = power_between(before, self._bed.counters(), self._bed.inventory, Column.LINUX)
        return LoadPoint(peak.application, 0.0, 0.0, 0.0, 0.0, 0.0, power.idle_watts, power.wall_watts,
                         power.active_watts, peak.time_scale, peak.refused, time_line=tuple(meter.time_line()))

    def _watch(self, meter: EnergyMeter) -> None:
        """Read the nodes' counters now and then: the power's time line."""
        meter.read(self._bed.counters())
        for _ in range(READINGS):
            time.sleep(READING_REAL_S)
            meter.read(self._bed.counters())

    def _point(self, name: str, share: float, found: Measurement, reasons: tuple[str, ...]) -> LoadPoint:
        power: WindowPower = power_between(found.before, found.after, self._bed.inventory, Column.LINUX,
                                           self._bed.pacing.assumptions)
        return LoadPoint(name, share, found.throughput_rps, found.throughput_rps, found.latencies.mean_s,
                         found.latencies.p99_s, power.idle_watts, power.wall_watts, power.active_watts,
                         found.time_scale, reasons, found.bad())

    def pace(self, name: str, scale: float) -> None:
        """Deploy an application at a time scale, unless it is so already."""
        if self._paced != (name, scale):
            self._bed.repace(Pacing("calibrated", scale), (self._deployment(name),))
            self._paced = name, scale

    def _deployment(self, name: str) -> Deployment:
        return deploy(application_named(name), _placement(name).nodes, self._bed.inventory)

    def _configs(self, name: str) -> dict[str, ClientConfig]:
        deployment = self._deployment(name)
        return {f"c{n}": ClientConfig(self._bed.inventory.node(f"c{n}").ip, n, deployment, deployment.name, seed=n,
                                      timeout_s=1e4) for n in range(1, 1 + CLIENTS)}

    def _expected(self, name: str) -> Knee:
        """Return the knee in virtual time."""
        if name not in self._knees:
            room = RackRoom(CLUSTER, RunOptions(self._options.quick, simulate=True), self._plan, CLIENTS)
            self._knees[name] = room.forecast(self._deployment(name)).knee
        return self._knees[name]

    def _scale(self, name: str) -> float:
        """Return the time scale to begin with: what was asked for, or what this machine carries of the peak."""
        wanted = self._options.time_scale
        if wanted is not None and wanted != AUTO:
            return float(wanted)
        if name not in self._scales:
            expected = _placement(name)
            capacity = capacity_of(self._bed, shared_out(self._configs(name), PILOT_OUTSTANDING),
                                   (self._deployment(name),))
            self._paced = None
            # At the lightest load a request waits for nothing: its latency is what lateness is held against.
            self._scales[name] = time_scale_for(expected.most_rps, expected.unloaded_s, capacity)
        return self._scales[name]


@cache
def _placement(name: str) -> E3Placement:
    return placed_for_peak(application_named(name), cluster_named(CLUSTER))


def _record(point: LoadPoint) -> dict[str, Any]:
    return {"application": point.application, "load": point.share, "wall_w": point.wall_watts,
            "over_idle": point.over_idle, "active_w": point.active_watts, "idle_w": point.idle_watts,
            "offered_rps": point.offered_rps, "answered_rps": point.throughput_rps, "mean_ms": point.mean_s * 1e3,
            "p99_ms": point.p99_s * 1e3, "time_scale": point.time_scale, "holds": not point.refused}
