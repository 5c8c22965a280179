"""Figure 7: what the orchestrator makes of as many microservices on the SmartNICs as fit in memory (section 5.2).

    c1, c2 --- [tor1] --- s1n1 === s1h,   s2n1 === s2h,   s3n1 === s3h      every shard on a SmartNIC; SQL on hosts

The load under which the orchestrator decides is ours: as many requests outstanding, in a closed loop, as E3's own
placement of the same application (e3_placement.py) needs for its peak: what the rack could serve, if everything stood
where it should. Load rises to that from next to none, agents report, and the orchestrator moves what it will. Then
three placements are measured: the one without orchestrator, and those that it arrives at by two rules.

Each is measured at its own peak, as in section 5.1: "as much client load as necessary to maximize request
throughput". Under the same load for all, which is measured too, the text's two figures exclude each other. 29 times the
requests per Joule are at least 12.8 times the throughput, since 3 x Type1 draws between 294 W (idle) and 666 W (Table
4's peak). With as many requests outstanding before and after, mean latency then falls by at least 92 % (Little's law),
and the text has "up to 89%"; at one offered rate the slower placement would have a queue without end.

    cpu     section 3.4 as it is written: "the microservice with the highest CPU utilization" moves to the host
    gain    ours: the same, among the microservices that Table 1 gives more requests per Joule on a host

Where it arrives is found by replaying heartbeats (replayed_orchestrator.py). Where seconds of the load can be afforded,
the rise is also played in full (rising_load.py): real agents, a real controller, instances that really move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from controller.overload import OverloadOptions
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.fig7_findings import CPU, GAIN, WITHOUT, Live, Point, figures_of, judged, record, said_of_starvation
from experiments.measurement.e3_placement import MIGRATED, better_on_host, placed_for_peak
from experiments.measurement.fidelity import Verdict
from experiments.measurement.host_starvation import starved_host
from experiments.measurement.measuring import Plan
from experiments.measurement.peak import settled
from experiments.measurement.rack_peak import RackPeak, RackRoom, at_load, rack_peak
from experiments.measurement.replayed_orchestrator import Orchestrated, orchestrated
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.measurement.rising_load import Rise, Risen, risen_on_packets, risen_virtually
from experiments.measurement.simulated_bed import SimulatedBed
from experiments.measurement.smartnic_first import placed_on_smartnics
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.figures import draw
from microservices.application import Application
from microservices.applications import APPLICATIONS, PAPER_SHARDS, application_named
from microservices.assumptions import DEFAULTS
from microservices.profiles import TABLE_1
from nodes.deployment import deploy
from topologies.catalog import cluster_named

CLUSTER, CLIENTS = "type1x3", 2
PLAN, QUICK_PLAN = Plan(requests=6000, warm_requests=1500), Plan(requests=4000, warm_requests=1000)
RETRIES = 4
LIGHT_OUTSTANDING = 4  # before the load rises
# What is played in full: the four applications that the text names; in a quick run the one with the fewest requests, by
# one rule, and with one shard for each SmartNIC, so that all have had their turns in heartbeats sooner.
LIVE = tuple(f"{application}/{way}" for application in MIGRATED for way in (CPU, GAIN))
QUICK_LIVE, QUICK_LIVE_SHARDS = (f"rta-sf/{GAIN}",), 3
LIVE_RETRIES = 4
OPTIONS = {CPU: OverloadOptions(),
           GAIN: OverloadOptions(movable=tuple(sorted(service for service in TABLE_1 if better_on_host(service))))}
WAYS = (WITHOUT, CPU, GAIN)


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("fig7", options)
    options = options.with_retries(RETRIES)
    names = [f"{application}/{way}" for application in APPLICATIONS for way in WAYS]
    with Rack(options, say) as rack:
        def point(name: str) -> Point:
            application, way = name.split("/")
            return rack.point(application, way)

        found = measured(result_run, names, point, Point, say)
    starved = starved_host(SimulatedBed(TestbedOptions(CLUSTER, clients=CLIENTS, pacing=Pacing("calibrated"))))
    rows, holds = judged(found)
    rows.append(said_of_starvation(starved))
    result_run.write_data([record(point) for point in found.values()])
    figures = figures_of(found)
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures, "assumptions": msgspec.to_builtins(DEFAULTS),
               "host_starvation": msgspec.to_builtins(starved),
               "points": {name: msgspec.to_builtins(point, str_keys=True) for name, point in found.items()}}
    result_run.finish(content)
    return content


class Rack:
    """3 x Type1 and its forecast in virtual time. Placements come from the forecast, what they are worth from packets.

    With `options.simulate` all is virtual; a quick run on packets leaves the placements under one load to the forecast.
    """

    def __init__(self, options: RunOptions, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._plan = plan = QUICK_PLAN if options.quick else PLAN
        self._room = RackRoom(CLUSTER, options, plan, CLIENTS, say=say)
        self._forecast = RackRoom(CLUSTER, RunOptions(options.quick, simulate=True), plan, CLIENTS)
        self._virtual = SimulatedBed(TestbedOptions(CLUSTER, clients=CLIENTS, pacing=Pacing("calibrated")))
        self._reference: dict[str, RackPeak] = {}
        self._measured: dict[tuple[str, tuple[str, ...]], tuple[RackPeak, RackPeak]] = {}
        self._own: dict[tuple[str, tuple[str, ...]], RackPeak] = {}

    def __enter__(self) -> Rack:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.__exit__()

    def point(self, application: str, way: str) -> Point:
        """Let the orchestrator do what it does by a rule, or nothing, and measure what comes of it."""
        reference = self.reference(application)
        found = self.placed(application, way, reference.outstanding)
        loaded, own = self.measured(application, found.nodes, reference.outstanding)
        live = None
        if f"{application}/{way}" in (QUICK_LIVE if self._options.quick else LIVE):
            live = self.live(application, way, reference.outstanding, loaded)
        return Point(application, way, found.nodes, found.decisions, reference, loaded, own, live)

    def reference(self, application: str) -> RackPeak:
        """Return the forecast peak of E3's own placement of an application."""
        if application not in self._reference:
            graph = application_named(application)
            placed = placed_for_peak(graph, cluster_named(CLUSTER))
            self._reference[application] = self._forecast.peak(deploy(graph, placed.nodes, self._room.inventory), "e3")
        return self._reference[application]

    def placed(self, application: str, way: str, outstanding: int) -> Orchestrated:
        graph = application_named(application)
        first = placed_on_smartnics(graph, self._room.inventory)
        if way == WITHOUT:
            return Orchestrated((), first)
        return orchestrated(self._virtual, graph, first, LIGHT_OUTSTANDING, outstanding, OPTIONS[way])

    def measured(self, application: str, nodes: dict[int, str], outstanding: int) -> tuple[RackPeak, RackPeak]:
        """Measure a placement under that load and at its own peak; once, also where two ways lead to it."""
        key = application, tuple(nodes[number] for number in sorted(nodes))
        if key not in self._measured:
            graph = application_named(application)
            room = self._forecast if self._options.quick else self._room
            self._measured[key] = (room.loaded(deploy(graph, nodes, self._room.inventory), outstanding),
                                   self.own_peak(graph, nodes))
        return self._measured[key]

    def own_peak(self, graph: Application, nodes: dict[int, str]) -> RackPeak:
        """Measure the peak of a placement; once, also of one that load which is played in full arrives at."""
        key = graph.name, tuple(nodes[number] for number in sorted(nodes))
        if key not in self._own:
            self._own[key] = self._room.peak(deploy(graph, nodes, self._room.inventory))
        return self._own[key]

    def live(self, application: str, way: str, outstanding: int, expected: RackPeak) -> Live:
        """Let the load rise and the orchestrator act, second by second, and measure what is left of it at the end."""
        graph = application_named(application, QUICK_LIVE_SHARDS if self._options.quick else PAPER_SHARDS)
        first = placed_on_smartnics(graph, self._room.inventory)
        deployment = deploy(graph, first, self._room.inventory)
        rise = Rise(deployment, LIGHT_OUTSTANDING, outstanding, OPTIONS[way])
        plan = settled(self._plan, outstanding)
        before = self._forecast.loaded(deployment, outstanding)
        if self._options.simulate:
            return self._kept(risen_virtually(self._virtual, rise, plan), rise, way, graph, first, before)
        time_scale = self._room.time_scale(deployment, expected.rps, expected.mean_s)
        self._room.clear()

        def measured_at(scale: float) -> tuple[Risen, Verdict, bool]:
            told = TestbedOptions(CLUSTER, clients=CLIENTS, label="fig7", pacing=Pacing("calibrated", scale),
                                  deployments=(deployment,), orchestrator="on", overload=rise.options)
            with Testbed.start(told) as bed:
                found = risen_on_packets(bed, rise, plan)
            return found, found.measured.verdict, found.measured.verdict.holds

        found = slowed_till_it_holds(measured_at, time_scale, min(LIVE_RETRIES, self._options.retry),
                                     lambda said: self._say(f"{application}, {way}: {said}"))
        return self._kept(found, rise, way, graph, first, before)

    def _kept(self, found: Risen, rise: Rise, way: str, graph: Application, first: dict[int, str],
              before: RackPeak) -> Live:
        peak = rack_peak(self._room.inventory, rise.deployment.name, way, at_load(found.measured, rise.full),
                         found.measured, simulated=self._options.simulate)
        return Live(found.outcome.decisions, found.outcome.nodes, before, peak, found.curve, found.migrations,
                    found.quiet, self.own_peak(graph, first), self.own_peak(graph, found.outcome.nodes))
