"""The resource controller of a testbed: started, killed, asked, and told to move instances by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import msgspec

from controller.control_requests import ControllerClient, Places, ToldTimeline
from controller.control_service import ServiceConfig
from controller.controller_events import ReplicaState
from controller.errors import MigrationError
from controller.fault_domains import faults, places_of
from experiments.control_plane import ControlPlane
from experiments.errors import ExperimentError
from experiments.power_switch import power_order
from nodes.deployment import Deployment, Place
from nodes.emulated_clock import EmulatedClock
from nodes.nursery import Child, Nursery, Order
from nodes.residents import running
from nodes.world import World
from topologies.inventory import Inventory, NodeEntry

if TYPE_CHECKING:
    from experiments.testbed_options import TestbedOptions

JOURNAL_NAME = "controller.journal"
UP_WITHIN_S = 10.0
LOOK_AGAIN_S = 0.02


class Orchestrating(ABC):
    """What a testbed does with its resource controller; the Testbed inherits it and has what it works on.

    `resource` asks the controller; None where the orchestrator is off.
    """

    options: TestbedOptions
    inventory: Inventory
    world: World
    nursery: Nursery
    deployments: tuple[Deployment, ...]
    clock: EmulatedClock
    resource: ControllerClient | None = None
    controller_process: Child | None = None
    control: ControlPlane
    _places: Places | None = None  # when the controller was last asked

    @abstractmethod
    def fork(self, order: Order, node: str) -> Child:
        """Run `order` on `node`."""

    @property
    def controller_node(self) -> NodeEntry:
        return self.inventory.of_role("controller")[0]

    @property
    def controller_ip(self) -> str:
        """The address that nodes report to; "" where the orchestrator is off."""
        return "" if self.options.orchestrator == "off" else self.controller_node.ip

    def start_controller(self) -> None:
        """Start the resource controller, or one that goes on where a killed one was.

        Raises ExperimentError if it does not come up, if there is one, or if the orchestrator is off.
        """
        if self.controller_process is not None and self.nursery.status(self.controller_process) is None:
            raise ExperimentError(f"the resource controller runs already, as process {self.controller_process.pid}")
        if self.options.orchestrator == "off":
            raise ExperimentError("this testbed was started without its orchestrator: it cannot come in later")
        node, run_dir = self.controller_node.name, self.world.run_dir
        config = ServiceConfig(str(run_dir / "inventory.json"), node, str(run_dir), str(run_dir / JOURNAL_NAME),
                               self.deployments, self.clock, self.options.orchestrator == "on", self.options.overload,
                               self.options.fencing)
        if self.options.fencing and self.controller_process is None:
            self.fork(power_order(self.node_pid(node), run_dir), node)
        self.controller_process = self.fork(
            Order("resource-controller", "controller.control_service:run", msgspec.msgpack.encode(config),
                  self.node_pid(node), str(run_dir / "resource-controller.log")), node)
        self.resource = ControllerClient(run_dir)
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            try:
                self.resource.places()
                return
            except MigrationError as error:
                if time.monotonic() > deadline or self.nursery.status(self.controller_process) is not None:
                    said = (run_dir / "resource-controller.log").read_text(errors="replace").strip().splitlines()[-1:]
                    raise ExperimentError(f"the resource controller is not up: {error}; {' '.join(said)}") from error
                time.sleep(LOOK_AGAIN_S)

    @abstractmethod
    def node_pid(self, name: str) -> int:
        """Return the pid of the shell of a node, which stands for its namespace."""

    def controller_gone(self) -> bool:
        """Return whether no resource controller runs."""
        return self.controller_process is None or self.nursery.status(self.controller_process) is not None

    def kill_controller(self) -> None:
        """Kill the resource controller (SIGKILL), as a crash would; its journal stays."""
        if self.controller_gone():
            raise ExperimentError("no resource controller is running")
        assert self.controller_process is not None
        os.kill(self.controller_process.pid, signal.SIGKILL)
        self.nursery.status(self.controller_process, timeout_s=5.0)

    def forget_controller(self) -> None:
        """End the resource controller for good, with its journal: what comes next begins anew."""
        if self.resource is not None:
            self.kill_controller()
            (self.world.run_dir / JOURNAL_NAME).unlink(missing_ok=True)

    def asked(self) -> ControllerClient:
        """Return who asks the resource controller; raises ExperimentError where the orchestrator is off."""
        if self.resource is None:
            raise ExperimentError("the orchestrator of this testbed is off")
        return self.resource

    def migrate(self, instance: str, node: str, timeout_s: float = 60.0) -> ToldTimeline:
        """Move an instance and return how it went once it has settled, which may be where it was.

        Raises MigrationError if it cannot be moved, ExperimentError if it takes longer than `timeout_s` real seconds.
        """
        return migrated(self.asked(), instance, node, timeout_s)

    def present(self, deployment: Deployment) -> Deployment:
        """Return a deployment with every instance where it is now.

        If the controller does not answer, that is where it was when it last did: nodes know where it went from there.
        """
        if self.resource is None:
            return deployment
        with contextlib.suppress(MigrationError):
            self._places = self.resource.places()
        return placed_as(deployment, self._places or [], self.inventory)

    def replicas(self) -> tuple[ReplicaState, ...]:
        """Return who serves and backs up every replicated instance; raises MigrationError if nobody answers."""
        return self.asked().state().replicas

    def unpaired(self) -> list[str]:
        """Return the replicated instances that lack a primary or, where there are two servers, a backup, by name."""
        if self.resource is None or not any(d.replicated for d in self.deployments):
            return []
        enough = ("paired",) if len(self.inventory.of_role("host")) > 1 else ("alone",)
        return [r.instance for r in self.replicas() if r.state not in enough]

    def replicas_together(self) -> list[str]:
        """Return a sentence for each replicated instance with two replicas in one fault domain; [] is good."""
        copies = {}
        for r in self.replicas():
            copies[r.instance.encode()] = [name for name in (r.primary, r.backup) if name]
            copies[b"%b, joining" % r.instance.encode()] = [name for name in (r.primary, r.joiner) if name]
        return faults(copies, places_of(self.inventory))

    agents: dict[str, Child]

    def fence(self, node: str) -> list[str]:
        """Cut a node off for good, as over a management network: its agent is ended, and the controller is told.

        What it ran alone begins anew elsewhere, with nothing. Returns the names of what has no place.
        """
        if self.nursery.status(self.agents[node]) is None:
            os.kill(self.agents[node].pid, signal.SIGKILL)
            self.nursery.status(self.agents[node], timeout_s=5.0)
        return self.asked().fenced(node)

    def tell_of_restart(self, node: str) -> None:
        """Let the controller know that a node began anew. If it is away, heartbeats and its journal must do."""
        if self.resource is not None:
            with contextlib.suppress(MigrationError):
                self.resource.started_again(node)

    def not_running_on(self, node: str) -> list[str]:
        """Return the instances that belong on `node` and do not run there (yet), by name."""
        if self.resource is None:
            return []
        expected = next(n.instances for n in self.resource.state().nodes if n.name == node)
        runs = running(self.control.counters([self.inventory.node(node)]).get(node, {}))
        return [name for name in expected if name not in runs]


def placed_as(deployment: Deployment, found: Places, inventory: Inventory) -> Deployment:
    """Return a deployment with its instances where `found` has them, by the decisions that it names."""
    at = {number: (node, epoch) for application, number, node, epoch in found if application == deployment.number}
    places = []
    for place in deployment.places:
        node, epoch = at.get(place.number, (place.node, place.epoch))
        places.append(Place(place.number, node, inventory.node(node).ip, epoch))
    return msgspec.structs.replace(deployment, places=tuple(places))


def migrated(resource: ControllerClient, instance: str, node: str, timeout_s: float) -> ToldTimeline:
    """Do what `Orchestrating.migrate` says, through `resource`."""
    number = resource.move(instance, node)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        line = next(resource.timelines(number - 1))
        if line.outcome:
            return line
        time.sleep(LOOK_AGAIN_S)
    waits = next((m for m in resource.state().under_way if m.migration == number), None)
    raise ExperimentError(f"{instance} has not settled after {timeout_s:g} s"
                          + (f": {waits.state}, {', '.join(waits.unanswered)} have not answered" if waits else ""))
