"""The peak of an application on a rack: placed, put under load by clients in a closed loop, measured at the knee.

    forecast (virtual time): where is the knee?  ->  time scale  ->  is it there on packets? if not, where?

Figures 5 to 10 and Table 5 are made of such peaks. A load that is given is measured in the same way. Several
deployments, as the copies of an application are, have the clients in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import UNPACED, Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.measurement.copies import workload_of
from experiments.measurement.energy import power_between
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits, Verdict
from experiments.measurement.knee import Knee, Probe
from experiments.measurement.measuring import Measurement, Plan
from experiments.measurement.peak import QUICK_RESOLUTION, RESOLUTION, Peak, find_peak, settled, shared_out
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.measurement.simulated_bed import SimulatedBed, measured_on
from experiments.measurement.time_scale import Capacity, capacity_of, time_scale_for, without_tail
from experiments.runs.run_options import AUTO, RunOptions
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.measured import Column
from microservices.workloads import workload_options
from nodes.deployment import Deployment
from topologies.cluster import Cluster
from topologies.inventory import Inventory

MOST_OUTSTANDING = 8192
FIRST_OUTSTANDING = 32
PILOT_OUTSTANDING = 32
TIMEOUT_S = 1e4
# A token bucket lets as much through at once as passes in half a millisecond of real time (nodes/shaping.py). Virtual
# time has them as at this time scale: at 1 a window of some thousand requests would be over in one such burst.
VIRTUAL_SCALE = 1000.0


class RackPeak(msgspec.Struct, frozen=True):
    """An application at its peak. `wall_watts` are the cluster's; `busy_cores` by node; `tried` as in CellResult.

    `forecast_rps`, `forecast_watts` and `forecast_mean_s` are those of virtual time; 0 where only that was measured.
    """

    application: str
    label: str
    time_scale: float
    simulated: bool
    holds: bool
    said: str
    reasons: tuple[str, ...]
    tried: tuple[tuple[float, float, float, bool], ...]
    rps: float
    mean_s: float
    p50_s: float
    p99_s: float
    wall_watts: float
    active_watts: float
    busy_cores: dict[str, float]
    outstanding: int
    bad: dict[str, int]
    forecast_rps: float = 0.0
    forecast_watts: float = 0.0
    forecast_mean_s: float = 0.0

    @property
    def requests_per_joule(self) -> float:
        """Throughput over wall power, as in section 5."""
        return self.rps / self.wall_watts

    def off_forecast(self) -> tuple[float, float] | None:
        """Return by what share throughput and power on packets are above virtual time's; None where one is missing."""
        if not self.forecast_rps or not self.forecast_watts:
            return None
        return self.rps / self.forecast_rps - 1, self.wall_watts / self.forecast_watts - 1


class RackRoom:
    """A rack that is kept from one application to the next. `simulate` measures in virtual time only.

    Requests, speed and power are as `assumptions` say.
    """

    def __init__(self, cluster: str | Cluster, options: RunOptions, plan: Plan, clients: int = 1,
                 limits: FidelityLimits = USUAL_LIMITS, say: Callable[[str], None] = lambda _: None,
                 assumptions: Assumptions = DEFAULTS) -> None:
        self.options = TestbedOptions(cluster, clients=clients, label="rack-peak")
        self._run_options = options
        self._plan = plan
        self._resolution = QUICK_RESOLUTION if options.quick else RESOLUTION
        self._limits = limits
        self._say = say
        self._pacing = Pacing("calibrated", assumptions=assumptions)
        self._bed: Testbed | None = None
        self._virtual_pacing = replace(self._pacing, time_scale=VIRTUAL_SCALE)
        self._virtual = SimulatedBed(replace(self.options, pacing=self._virtual_pacing))
        self._capacities: dict[str, Capacity] = {}

    @property
    def inventory(self) -> Inventory:
        return self._virtual.inventory

    def __enter__(self) -> RackRoom:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Stop the testbed, so that the machine is free for another; the next measurement starts it anew."""
        if self._bed is not None:
            self._bed.stop()
            self._bed = None

    def forecast(self, deployment: Deployment | tuple[Deployment, ...], resolution: float | None = None) -> Peak:
        """Find the peak of what is deployed, alone on the rack, in virtual time; to a `resolution` of one's own."""
        deployments = _together(deployment)
        self._virtual.repace(self._virtual_pacing, deployments)
        return find_peak(self._virtual, self._configs(deployments), FIRST_OUTSTANDING, MOST_OUTSTANDING, self._plan,
                         resolution=resolution or self._resolution)

    def forecast_rps(self, deployment: Deployment | tuple[Deployment, ...], outstanding: int) -> float:
        """Return the throughput of what is deployed in virtual time, with so many requests outstanding."""
        deployments = _together(deployment)
        self._virtual.repace(self._virtual_pacing, deployments)
        return measured_on(self._virtual, shared_out(self._configs(deployments), outstanding),
                           settled(self._plan, outstanding)).throughput_rps

    def peak(self, deployment: Deployment | tuple[Deployment, ...], label: str = "",
             forecast: Peak | None = None) -> RackPeak:
        """Find the peak of one deployed application, or of its copies together, alone on the rack.

        `forecast` is what virtual time says of it, if that is known already.
        """
        deployments = _together(deployment)
        forecast = forecast or self.forecast(deployments)
        expected = forecast.measurement
        if self._run_options.simulate or expected is None:
            last = expected or forecast.measured[forecast.knee.tried[-1].load]
            return self._result(deployments, label, forecast.knee, last)
        configs = self._configs(deployments)

        def measured(bed: Testbed) -> tuple[Knee, Measurement]:
            found = find_peak(bed, configs, FIRST_OUTSTANDING, MOST_OUTSTANDING, self._plan, self._limits, self._say,
                              self._resolution, expected=forecast.knee)
            return found.knee, found.measurement or found.measured[found.knee.tried[-1].load]

        return self._on_packets(deployments, label, expected, measured)

    def loaded(self, deployment: Deployment | tuple[Deployment, ...], outstanding: int, label: str = "") -> RackPeak:
        """Measure one deployed application, or its copies together, with so many requests outstanding."""
        deployments = _together(deployment)
        shares = shared_out(self._configs(deployments), outstanding)
        plan = settled(self._plan, outstanding)

        def measured(bed: Testbed | SimulatedBed) -> tuple[Knee, Measurement]:
            found = measured_on(bed, shares, plan, self._limits)
            return at_load(found, outstanding), found

        self._virtual.repace(self._virtual_pacing, deployments)
        knee, expected = measured(self._virtual)
        if self._run_options.simulate:
            return self._result(deployments, label, knee, expected)
        return self._on_packets(deployments, label, expected, measured)

    def _on_packets(self, deployments: tuple[Deployment, ...], label: str, expected: Measurement,
                    measured: Callable[[Testbed], tuple[Knee, Measurement]]) -> RackPeak:
        """Return what is `measured`, again and more slowly while this machine does not keep up, if that is allowed."""
        bed = self._testbed()

        def measured_at(scale: float) -> tuple[RackPeak, Verdict, bool]:
            bed.repace(replace(self._pacing, time_scale=scale), deployments)
            knee, last = measured(bed)
            result = self._result(deployments, label, knee, last, expected)
            return result, last.verdict, result.holds

        scale = self.time_scale(deployments, expected.throughput_rps, expected.latencies.mean_s)
        return slowed_till_it_holds(measured_at, scale, self._run_options.retry, self._say)

    def _configs(self, deployments: tuple[Deployment, ...]) -> dict[str, ClientConfig]:
        clients = self._virtual.inventory.of_role("client")
        if len(clients) < len(deployments):
            raise ExperimentError(f"{len(deployments)} deployments for {len(clients)} clients: each needs one of its "
                                  "own")
        found, assumed = {}, self._pacing.assumptions
        for number, node in enumerate(clients, start=1):
            asked = deployments[(number - 1) % len(deployments)]
            workload = workload_of(asked)
            found[node.name] = ClientConfig(node.ip, number, asked, workload, timeout_s=TIMEOUT_S, seed=number,
                                            payload_bytes=int(assumed.request_bytes),
                                            options=workload_options(workload, assumed))
        return found

    def _testbed(self) -> Testbed:
        if self._bed is None:
            self._bed = Testbed.start(replace(self.options, pacing=UNPACED))
        return self._bed

    def time_scale(self, deployment: Deployment | tuple[Deployment, ...], rps: float, mean_s: float) -> float:
        """Return the time scale that was asked for, or at which this machine should carry `rps` of what is deployed.

        `mean_s` is the mean latency that is expected. A pilot runs on the testbed, which is left unpaced.
        """
        wanted = self._run_options.time_scale
        if wanted is not None and wanted != AUTO:
            return wanted
        deployments = _together(deployment)
        bed, configs = self._testbed(), self._configs(deployments)
        key = str([(one.name, sorted({place.node for place in one.places})) for one in deployments])
        if key not in self._capacities:
            self._capacities[key] = capacity_of(bed, shared_out(configs, PILOT_OUTSTANDING), deployments)
        return time_scale_for(rps, mean_s, self._capacities[key], without_tail(self._limits))

    def _result(self, deployments: tuple[Deployment, ...], label: str, knee: Knee, found: Measurement,
                expected: Measurement | None = None) -> RackPeak:
        """Return what is kept; `expected` is virtual time's measurement beside one on packets."""
        result = rack_peak(self.inventory, workload_of(deployments[0]), label, knee, found, simulated=expected is None,
                           assumptions=self._pacing.assumptions)
        if expected is None:
            return result
        watts = power_between(expected.before, expected.after, self.inventory, Column.LINUX,
                              self._pacing.assumptions).wall_watts
        return msgspec.structs.replace(result, forecast_rps=expected.throughput_rps, forecast_watts=watts,
                                       forecast_mean_s=expected.latencies.mean_s)


def _together(deployment: Deployment | tuple[Deployment, ...]) -> tuple[Deployment, ...]:
    return deployment if isinstance(deployment, tuple) else (deployment,)


def at_load(found: Measurement, outstanding: int) -> Knee:
    """Return what was measured with so many requests outstanding in place of a search."""
    probe = Probe(outstanding, found.throughput_rps, found.latencies, found.verdict)
    return Knee(probe, (probe,), f"{outstanding} outstanding requests")


def rack_peak(inventory: Inventory, application: str, label: str, knee: Knee, found: Measurement,
              simulated: bool = False, assumptions: Assumptions = DEFAULTS) -> RackPeak:
    """Return what was `found` at a `knee` as it is kept, with its power."""
    power = power_between(found.before, found.after, inventory, Column.LINUX, assumptions)
    probe = knee.probe or knee.tried[-1]
    return RackPeak(
        application, label, 1.0 if simulated else found.time_scale, simulated,
        knee.probe is not None and found.verdict.holds,
        knee.said, found.verdict.reasons,
        tuple((p.load, p.throughput_rps, p.latencies.mean_s, p.faithful) for p in knee.tried),
        found.throughput_rps, found.latencies.mean_s, found.latencies.p50_s, found.latencies.p99_s,
        power.wall_watts, power.active_watts, {node: found.busy_cores(node) for node in found.after},
        int(probe.load), found.bad())
