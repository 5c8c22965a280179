"""A machine room in virtual time that is measured like a testbed: the same clients, plans and measurements.

    with SimulatedBed(options) as bed:  # or Testbed.start(options)
        found = measured_on(bed, {"c1": config}, plan)

Nothing is slowed down, so nothing can be late. What happens on its links, SmartNICs and cores is what happens on those
of a testbed (nodes/simulated_links.py says what differs), and what happens beside them does not: ARP, LACP, questions
for counters, the lateness of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from controller.resource_controller import ResourceController
from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits
from experiments.measurement.measuring import USUAL_PLAN, Measurement, Plan, measure
from experiments.measurement.simulated_controller import SimulatedController, SimulatedDesk
from experiments.measurement.simulated_run import SimulatedRun
from microservices.routing import Router
from nodes.communication import Communication, ways_to
from nodes.deployment import Deployment
from nodes.emulated_clock import EmulatedClock
from nodes.simulated import Simulation
from nodes.simulated_links import Calibration
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

PATIENCE_REAL_S = 900.0  # of a measurement in virtual time


class SimulatedBed:
    """What a testbed is built from, and nothing running: each measurement begins at time 0, with nothing in memory.

    Raises ExperimentError for a pacing that is not calibrated: virtual time has no other speed.
    """

    def __init__(self, options: TestbedOptions) -> None:
        cluster = options.cluster
        if isinstance(cluster, str):
            cluster = cluster_named(cluster, clients=options.clients)
        if options.frame_loss:
            raise ExperimentError(f"a frame loss of {options.frame_loss} in virtual time: links lose nothing there but "
                                  "what their queues cannot hold")
        self.inventory: Inventory = inventory_of(cluster)
        self.deployments = options.deployments
        self.pacing = _calibrated(options.pacing)
        self._routers: dict[int, tuple[Deployment, Router]] = {}

    def __enter__(self) -> SimulatedBed:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Do nothing: there is nothing that runs."""

    def repace(self, pacing: Pacing, deployments: tuple[Deployment, ...] | None = None) -> None:
        """Let measurements from now on be at another speed or with other deployments, as a testbed does."""
        self.pacing = _calibrated(pacing)
        self.deployments = self.deployments if deployments is None else deployments

    def measure(self, configs: Mapping[str, ClientConfig], plan: Plan = USUAL_PLAN) -> Measurement:
        """Put the machine room under the load of `configs`, a client config by client node, and measure.

        Raises ExperimentError if a client cannot be, or if no request comes through.
        """
        return self.begin(configs).measured(plan)

    def begin(self, configs: Mapping[str, ClientConfig], controller: ResourceController | None = None) -> SimulatedRun:
        """Return a run at time 0, with its clients about to start; raises as `measure` does.

        With a `controller`, nodes report to it and obey it; it stands on the first controller node.
        """
        entry = self.inventory.of_role("controller")[0] if controller is not None else None
        simulation = self._simulation(configs, entry.name if entry is not None else "")
        if controller is not None and entry is not None:
            stands = SimulatedController(entry, controller)
            simulation.network.plug(stands)
            simulation.network.plug(SimulatedDesk(stands.address.ip, controller))
        return SimulatedRun(simulation, self.pacing.time_scale, configs, self._router)

    def _simulation(self, configs: Mapping[str, ClientConfig], controller: str) -> Simulation:
        deployed = {d.number: d for d in self.deployments}
        for name, config in configs.items():
            if deployed.get(config.deployment.number) != config.deployment:
                raise ExperimentError(f"{name} asks {config.deployment.name} (application {config.deployment.number}), "
                                      "which is not deployed so")
        calibration = calibration_of(self.pacing, self.inventory, self.deployments)
        return Simulation(self.inventory, self.deployments, calibration=calibration,
                          routers={d.number: self._router(d) for d in self.deployments}, controller=controller)

    def _router(self, deployment: Deployment) -> Router:
        """Return the microservices of `deployment`, which are costly to make and hold no state."""
        known = self._routers.get(deployment.number)
        if known is None or known[0].stages != deployment.stages or known[0].channels != deployment.channels:
            known = self._routers[deployment.number] = deployment, Router(deployment.application())
        return known[1]


def measured_on(bed: Testbed | SimulatedBed, configs: Mapping[str, ClientConfig], plan: Plan = USUAL_PLAN,
                limits: FidelityLimits = USUAL_LIMITS) -> Measurement:
    """Measure on packets or in virtual time, as `bed` is: see measuring.measure.

    What virtual time gives must not depend on how fast this machine is, so there a plan's limit in real time is longer.
    """
    if isinstance(bed, SimulatedBed):
        return bed.measure(configs, msgspec.structs.replace(plan, most_real_s=max(plan.most_real_s, PATIENCE_REAL_S)))
    return measure(bed, configs, plan, limits)


def calibration_of(pacing: Pacing, inventory: Inventory, deployments: tuple[Deployment, ...]) -> Calibration:
    """Return what the agents, links and clients of a testbed are told, for a simulation of it."""
    paces, clock = {}, EmulatedClock()
    nodes = [entry for entry in inventory.nodes if entry.role in ("host", "smartnic")]
    for entry in nodes:
        pace = pacing.pace(entry, inventory, clock, deployments)
        assert pace is not None
        paces[entry.name] = pace
    communication = Communication(pacing.assumptions, pacing.stack)
    return Calibration(paces, {entry.name: pacing.cores_of(entry) for entry in nodes},
                       {entry.name: ways_to(entry, inventory, communication)
                        for entry in inventory.of_role("client")}, pacing.time_scale)


def _calibrated(pacing: Pacing) -> Pacing:
    if not pacing.calibrated:
        raise ExperimentError(f"the speed model {pacing.speed} in virtual time: only calibrated runs can be simulated")
    return pacing
