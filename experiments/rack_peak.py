"""The peak of an application on a rack: placed, put under load by clients in a closed loop, measured at the knee.

    forecast (virtual time): where is the knee?  ->  time scale  ->  the same search on packets, around it

Figures 5 to 9 and Table 5 are made of such peaks. A load that is given is measured in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec

from experiments.energy import power_between
from experiments.fidelity import USUAL_LIMITS, FidelityLimits, next_time_scale
from experiments.knee import Knee, Probe
from experiments.load import ClientConfig
from experiments.measuring import Measurement, Plan
from experiments.pacing import UNPACED, Pacing
from experiments.peak import QUICK_RESOLUTION, RESOLUTION, find_peak, settled, shared_out
from experiments.run_options import AUTO, RunOptions
from experiments.simulated_bed import SimulatedBed, measured_on
from experiments.testbed import Testbed, TestbedOptions
from experiments.time_scale import Capacity, capacity_of, time_scale_for, without_tail
from microservices.measured import Column
from nodes.deployment import Deployment
from topologies.inventory import Inventory

MOST_OUTSTANDING = 8192
FIRST_OUTSTANDING = 32
AROUND = 4  # the search on packets begins at this part of the forecast knee
PILOT_OUTSTANDING = 32
TIMEOUT_S = 1e4


class RackPeak(msgspec.Struct, frozen=True):
    """An application at its peak. `wall_watts` are the cluster's; `busy_cores` by node; `tried` as in CellResult."""

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

    @property
    def requests_per_joule(self) -> float:
        """Throughput over wall power, as in section 5."""
        return self.rps / self.wall_watts


class RackRoom:
    """A rack that is kept from one application to the next. `simulate` measures in virtual time only."""

    def __init__(self, cluster: str, options: RunOptions, plan: Plan, clients: int = 1,
                 limits: FidelityLimits = USUAL_LIMITS, say: Callable[[str], None] = lambda _: None) -> None:
        self.options = TestbedOptions(cluster, clients=clients, label="rack-peak")
        self._run_options = options
        self._plan = plan
        self._resolution = QUICK_RESOLUTION if options.quick else RESOLUTION
        self._limits = limits
        self._say = say
        self._bed: Testbed | None = None
        self._virtual = SimulatedBed(replace(self.options, pacing=Pacing("calibrated")))
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

    def peak(self, deployment: Deployment, label: str = "") -> RackPeak:
        """Find the peak of one deployed application, alone on the rack."""
        configs = self._configs(deployment)
        self._virtual.repace(Pacing("calibrated"), (deployment,))
        forecast = find_peak(self._virtual, configs, FIRST_OUTSTANDING, MOST_OUTSTANDING, self._plan,
                             resolution=self._resolution)
        expected = forecast.measurement
        if self._run_options.simulate or expected is None:
            last = expected or forecast.measured[forecast.knee.tried[-1].load]
            return self._result(deployment, label, forecast.knee, last, 0.0, simulated=True)
        first = max(FIRST_OUTSTANDING, int(forecast.knee.probe.load / AROUND) if forecast.knee.probe else 0)

        def measured(bed: Testbed) -> tuple[Knee, Measurement]:
            found = find_peak(bed, configs, first, MOST_OUTSTANDING, self._plan, self._limits, self._say,
                              self._resolution)
            return found.knee, found.measurement or found.measured[found.knee.tried[-1].load]

        return self._on_packets(deployment, label, expected, measured)

    def loaded(self, deployment: Deployment, outstanding: int, label: str = "") -> RackPeak:
        """Measure one deployed application, alone on the rack, with so many requests outstanding."""
        shares = shared_out(self._configs(deployment), outstanding)
        plan = settled(self._plan, outstanding)

        def measured(bed: Testbed | SimulatedBed) -> tuple[Knee, Measurement]:
            found = measured_on(bed, shares, plan, self._limits)
            return at_load(found, outstanding), found

        self._virtual.repace(Pacing("calibrated"), (deployment,))
        knee, expected = measured(self._virtual)
        if self._run_options.simulate:
            return self._result(deployment, label, knee, expected, 0.0, simulated=True)
        return self._on_packets(deployment, label, expected, measured)

    def _on_packets(self, deployment: Deployment, label: str, expected: Measurement,
                    measured: Callable[[Testbed], tuple[Knee, Measurement]]) -> RackPeak:
        """Return what is `measured`, again and more slowly while this machine does not keep up, if that is allowed."""
        bed, pacing = self._testbed(), Pacing("calibrated")
        scale = self.time_scale(deployment, expected.throughput_rps, expected.latencies.mean_s)
        for _ in range(1 + self._run_options.retry):
            bed.repace(replace(pacing, time_scale=scale), (deployment,))
            knee, last = measured(bed)
            result = self._result(deployment, label, knee, last, expected.throughput_rps)
            larger = next_time_scale(last.verdict, scale)
            if result.holds or larger is None or larger == scale:
                break
            self._say(f"refused at time scale {scale:g}; again at {larger:g}")
            scale = larger
        return result

    def _configs(self, deployment: Deployment) -> dict[str, ClientConfig]:
        clients = self._virtual.inventory.of_role("client")
        return {node.name: ClientConfig(node.ip, number, deployment, deployment.name, timeout_s=TIMEOUT_S,
                                        seed=number) for number, node in enumerate(clients, start=1)}

    def _testbed(self) -> Testbed:
        if self._bed is None:
            self._bed = Testbed.start(replace(self.options, pacing=UNPACED))
        return self._bed

    def time_scale(self, deployment: Deployment, rps: float, mean_s: float) -> float:
        """Return the time scale that was asked for, or at which this machine should carry `rps` of a deployment.

        `mean_s` is the mean latency that is expected. A pilot runs on the testbed, which is left unpaced.
        """
        wanted = self._run_options.time_scale
        if wanted is not None and wanted != AUTO:
            return wanted
        bed, configs = self._testbed(), self._configs(deployment)
        key = deployment.name + str(sorted({place.node for place in deployment.places}))
        if key not in self._capacities:
            self._capacities[key] = capacity_of(bed, shared_out(configs, PILOT_OUTSTANDING), (deployment,))
        return time_scale_for(rps, mean_s, self._capacities[key], without_tail(self._limits))

    def _result(self, deployment: Deployment, label: str, knee: Knee, found: Measurement, forecast_rps: float,
                simulated: bool = False) -> RackPeak:
        return rack_peak(self.inventory, deployment.name, label, knee, found, forecast_rps, simulated)


def at_load(found: Measurement, outstanding: int) -> Knee:
    """Return what was measured with so many requests outstanding in place of a search."""
    probe = Probe(outstanding, found.throughput_rps, found.latencies, found.verdict)
    return Knee(probe, (probe,), f"{outstanding} outstanding requests")


def rack_peak(inventory: Inventory, application: str, label: str, knee: Knee, found: Measurement,
              forecast_rps: float = 0.0, simulated: bool = False) -> RackPeak:
    """Return what was `found` at a `knee` as it is kept, with its power."""
    power = power_between(found.before, found.after, inventory, Column.LINUX)
    probe = knee.probe or knee.tried[-1]
    return RackPeak(
        application, label, found.time_scale, simulated, knee.probe is not None and found.verdict.holds,
        knee.said, found.verdict.reasons,
        tuple((p.load, p.throughput_rps, p.latencies.mean_s, p.faithful) for p in knee.tried),
        found.throughput_rps, found.latencies.mean_s, found.latencies.p50_s, found.latencies.p99_s,
        power.wall_watts, power.active_watts, {node: found.busy_cores(node) for node in found.after},
        int(probe.load), found.bad(), forecast_rps)
