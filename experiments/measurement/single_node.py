"""One microservice alone on one node: section 2.3's two servers, with as many of its requests as give the peak.

    c1 --- [tor1] ---10 Gb/s--- s1h               a host with a plain NIC, Linux stack or kernel bypass
    c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h      a SmartNIC, its host idle

Table 1 and Figure 2 are made of such cells. As on a rack (rack_peak.py), the knee is first found in virtual time, and
then confirmed on packets, or searched there if it is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.energy import power_between
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits, Verdict
from experiments.measurement.knee import Knee
from experiments.measurement.measuring import USUAL_PLAN, Measurement, Plan
from experiments.measurement.peak import QUICK_RESOLUTION, RESOLUTION, find_peak, in_closed_loop
from experiments.measurement.rack_peak import VIRTUAL_SCALE
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.measurement.simulated_bed import SimulatedBed
from experiments.measurement.time_scale import Capacity, capacity_of, time_scale_for, without_tail
from experiments.runs.run_options import AUTO, RunOptions
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.measured import Column
from microservices.profiles import active_cores, cost_s
from nodes.communication import Communication, HostStack
from nodes.deployment import deploy
from nodes.frames import UDP_FRAME_BYTES
from nodes.messages import DATA_HEADER_BYTES
from nodes.shaping import WIRE_OVERHEAD_BYTES
from topologies.inventory import Inventory

PORT_GBPS = 10.0
MOST_OUTSTANDING = 4096
SATURATED = 0.93  # ours: a port that is used more has no room for another request in flight
PORT, CORES = "port", "cores"
FORECAST = Plan(requests=1200, warm_requests=300)  # one microservice and requests that are all alike: less is needed


class CellResult(msgspec.Struct, frozen=True):
    """The peak of one microservice in one column. `tried`: (outstanding, requests/s, mean latency s, held) per probe.

    `holds` is false where no knee was found that the fidelity verdict lets stand; then the figures are those of the
    last probe, and `said` tells why. `limited_by` is "port" or "cores", whichever was used up.
    """

    service: str
    column: str
    payload_bytes: int
    time_scale: float
    holds: bool
    said: str
    reasons: tuple[str, ...]
    tried: tuple[tuple[float, float, float, bool], ...]
    rps: float
    mean_s: float
    p50_s: float
    p99_s: float
    active_watts: float
    cores: int
    busy_cores: float
    port_use: float
    limited_by: str
    outstanding: int
    checked: int
    bad: dict[str, int]

    @property
    def requests_per_joule(self) -> float:
        return self.rps / self.active_watts


class SingleNode:
    """The testbed of such cells: built when first needed, kept while the next cell is in the same column's server."""

    def __init__(self, options: RunOptions, plan: Plan = USUAL_PLAN, assumptions: Assumptions = DEFAULTS,
                 limits: FidelityLimits = USUAL_LIMITS, say: Callable[[str], None] = lambda _: None) -> None:
        self._options = options
        self._plan = plan
        self._assumptions = assumptions
        self._limits = limits
        self._say = say
        self._resolution = QUICK_RESOLUTION if options.quick else RESOLUTION
        self._bed: Testbed | None = None
        self._capacities: dict[tuple[str, str, int], Capacity] = {}
        self._expected: dict[tuple[str, Column, int, int], Knee] = {}

    def __enter__(self) -> SingleNode:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bed is not None:
            self._bed.stop()
            self._bed = None

    def peak(self, service: str, column: Column, payload_bytes: int = 512, cores: int | None = None) -> CellResult:
        """Find the peak of `service` in `column` with requests of this size, on `cores` (default: Table 1's)."""
        cluster, node = server_of(column)
        bed = self._room(cluster)
        config = asking(bed.inventory, service, node, payload_bytes)
        cores = active_cores(service, column) if cores is None else cores
        pacing = self._pacing(column, node, cores)
        expected = self._expect(service, column, payload_bytes, cores)
        scale = self._time_scale(bed, service, column, config, cores)

        def measured(time_scale: float) -> tuple[CellResult, Verdict, bool]:
            bed.repace(replace(pacing, time_scale=time_scale), (config.deployment,))
            peak = find_peak(bed, {"c1": config}, cores, MOST_OUTSTANDING, self._plan, self._limits, self._say,
                             self._resolution, expected if expected.probe is not None else None)
            last = peak.measurement or peak.measured[peak.knee.tried[-1].load]
            result = _result(service, column, payload_bytes, node, cores, peak.knee, last, bed)
            return result, last.verdict, result.holds

        return slowed_till_it_holds(measured, scale, self._options.retry, self._say)

    def forecast(self, service: str, column: Column, payload_bytes: int = 512, cores: int | None = None) -> Knee:
        """Find the same peak's knee in virtual time."""
        cluster, node = server_of(column)
        cores = active_cores(service, column) if cores is None else cores
        virtual = SimulatedBed(TestbedOptions(cluster, pacing=self._pacing(column, node, cores)))
        config = asking(virtual.inventory, service, node, payload_bytes)
        virtual.repace(virtual.pacing, (config.deployment,))
        return find_peak(virtual, {"c1": config}, cores, MOST_OUTSTANDING, FORECAST, resolution=self._resolution).knee

    def _expect(self, service: str, column: Column, payload_bytes: int, cores: int) -> Knee:
        key = service, column, payload_bytes, cores
        if key not in self._expected:
            self._expected[key] = self.forecast(*key)
        return self._expected[key]

    def _pacing(self, column: Column, node: str, cores: int) -> Pacing:
        stack = HostStack.LINUX if column is Column.LINUX else HostStack.BYPASS
        return Pacing("calibrated", VIRTUAL_SCALE, stack, self._assumptions, {node: cores})

    def _room(self, cluster: str) -> Testbed:
        if self._bed is None or self._bed.options.cluster != cluster:
            self._stop()
            self._bed = Testbed.start(TestbedOptions(cluster, label="single-node"))
        return self._bed

    def _time_scale(self, bed: Testbed, service: str, column: Column, config: ClientConfig, cores: int) -> float:
        wanted = self._options.time_scale
        if wanted is not None and wanted != AUTO:
            return wanted
        key = (str(bed.options.cluster), service, config.payload_bytes)
        if key not in self._capacities:
            self._capacities[key] = capacity_of(bed, {"c1": in_closed_loop(config, 32)}, (config.deployment,))
        cost = cost_s(service, column, config.payload_bytes, self._assumptions)
        return time_scale_for(expected_peak_rps(cost, cores, config.payload_bytes),
                              cost + unloaded_round_trip_s(column, self._assumptions), self._capacities[key],
                              without_tail(self._limits))


def server_of(column: Column) -> tuple[str, str]:
    """Return the cluster that stands for a column's server, and the node of it that is measured."""
    return ("liquidio10gx1", "s1n1") if column is Column.SMARTNIC else ("beefy10gx1", "s1h")


def asking(inventory: Inventory, service: str, node: str, payload_bytes: int) -> ClientConfig:
    """Return a client of `service`, which is on `node` alone."""
    application = application_named(service, shards=1)
    deployment = deploy(application, {i.number: node for i in application.instances if not i.backup}, inventory)
    return ClientConfig(inventory.node("c1").ip, 1, deployment, service, payload_bytes=payload_bytes, timeout_s=1e4)


def expected_peak_rps(cost: float, cores: int, payload_bytes: int) -> float:
    """Return the lower of what cores and port allow: only what the time scale is chosen by, never a result."""
    wire_bytes = payload_bytes + DATA_HEADER_BYTES + UDP_FRAME_BYTES + WIRE_OVERHEAD_BYTES
    return min(cores / cost, PORT_GBPS * 1e9 / 8 / wire_bytes)


def limit_of(port_use: float) -> str:
    """Return which was used up, by the share of its rate that the port was used."""
    return PORT if port_use >= SATURATED else CORES


def unloaded_round_trip_s(column: Column, assumptions: Assumptions) -> float:
    """Return the round trip between a client and the node, apart from what the node does."""
    role = "smartnic" if column is Column.SMARTNIC else "host"
    stack = HostStack.LINUX if column is Column.LINUX else HostStack.BYPASS
    way = Communication(assumptions, stack)
    return 2 * (way.bypass_end_s + way.tor_s + way.end_s(role))


def _result(service: str, column: Column, payload_bytes: int, node: str, cores: int, knee: Knee, measured: Measurement,
            bed: Testbed) -> CellResult:
    power = power_between(measured.before, measured.after, bed.inventory,
                          Column.LINUX if column is Column.LINUX else Column.BYPASS, bed.pacing.assumptions)
    port = bed.inventory.ports_of_node(node)[0].interface
    port_use = max(measured.ports[port].to_node, measured.ports[port].from_node)
    probe = knee.probe or knee.tried[-1]
    return CellResult(
        service, column.value, payload_bytes, measured.time_scale, knee.probe is not None and measured.verdict.holds,
        knee.said, measured.verdict.reasons,
        tuple((p.load, p.throughput_rps, p.latencies.mean_s, p.faithful) for p in knee.tried),
        measured.throughput_rps, measured.latencies.mean_s, measured.latencies.p50_s, measured.latencies.p99_s,
        power.active_watts, cores, measured.busy_cores(node), port_use,
        limit_of(port_use), int(probe.load),
        sum(r.checked for r in measured.clients.values()), measured.bad())
