"""The resource controller of a testbed: started, killed, asked, and told to move instances by hand."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from controller.control_client import ControllerClient
from controller.control_requests import Places, ToldTimeline
from controller.control_service import RaftConfig, ServiceConfig
from controller.controller_events import ReplicaState
from controller.errors import MigrationError
from controller.fault_domains import faults, places_of
from experiments.emulation.control_plane import ControlPlane
from experiments.emulation.power_switch import power_order
from experiments.errors import ExperimentError
from nodes.deployment import Deployment, Place
from nodes.emulated_clock import EmulatedClock
from nodes.nursery import Child, Nursery, Order
from nodes.residents import running
from nodes.world import World
from topologies.addressing import RAFT_PORT
from topologies.inventory import Inventory, NodeEntry

if TYPE_CHECKING:
    from experiments.emulation.testbed_options import TestbedOptions

JOURNAL_NAME, RAFT_DIR = "controller.journal", "raft"
UP_WITHIN_S = 10.0
LOOK_AGAIN_S = 0.02


class Orchestrating(ABC):
    """What a testbed does with its resource controller; the Testbed inherits it and has what it works on.

    `resource` asks the controller; None where the orchestrator is off. `controller_processes` are those of its nodes,
    by name, dead ones too; `controllers_joined` names those of several that have files of a journal.
    """

    options: TestbedOptions
    inventory: Inventory
    world: World
    nursery: Nursery
    deployments: tuple[Deployment, ...]
    clock: EmulatedClock
    resource: ControllerClient | None = None
    controller_processes: dict[str, Child]
    controllers_joined: set[str]
    _secret: str  # of the controller nodes
    control: ControlPlane
    _power_switch: Child | None = None
    _places: Places | None = None  # when the controller was last asked

    @abstractmethod
    def fork(self, order: Order, node: str) -> Child:
        """Run `order` on `node`."""

    @property
    def controller_node(self) -> NodeEntry:
        """The first: from there the testbed asks nodes for their counters, and there a single controller runs."""
        return self.controller_nodes[0]

    @property
    def controller_nodes(self) -> list[NodeEntry]:
        """The nodes that a resource controller runs on, in as many racks as there are."""
        return spread(self.inventory.of_role("controller"))[:self.options.controllers]

    @property
    def controller_ips(self) -> tuple[str, ...]:
        """The addresses that nodes report to; none where the orchestrator is off."""
        return () if self.options.orchestrator == "off" else tuple(node.ip for node in self.controller_nodes)

    def running_controllers(self) -> dict[str, Child]:
        """Return the processes of controller nodes that run, by name."""
        return {name: child for name, child in self.controller_processes.items() if self.nursery.status(child) is None}

    def start_controller(self, name: str = "") -> None:
        """Start the resource controller on node `name`, or on all its nodes where it does not run.

        It goes on where it was. Raises ExperimentError if it does not come up, if it runs there already, or if the
        orchestrator is off.
        """
        running = self.running_controllers()
        missing = [node for node in self.controller_nodes if node.name not in running and name in ("", node.name)]
        if not missing:
            raise ExperimentError("the resource controller runs already, as process "
                                  + ", ".join(str(child.pid) for child in running.values()))
        if self.options.orchestrator == "off":
            raise ExperimentError("this testbed was started without its orchestrator: it cannot come in later")
        for node in missing:
            self.controller_processes[node.name] = self._fork_controller(node)
        self.resource = ControllerClient(self.world.run_dir)
        self._await_controllers([node.name for node in missing])

    def _fork_controller(self, node: NodeEntry) -> Child:
        run_dir, name = self.world.run_dir, _process_name(node, self.options.controllers)
        raft = None
        if self.options.controllers > 1:
            (run_dir / RAFT_DIR).mkdir(mode=0o700, exist_ok=True)
            names = {f"{other.ip}:{RAFT_PORT}": other.name for other in self.controller_nodes}
            raft = RaftConfig(str(run_dir / RAFT_DIR), self._secret, f"{node.ip}:{RAFT_PORT}", names,
                              node.name in self.controllers_joined)
            self.controllers_joined.add(node.name)
        config = ServiceConfig(str(run_dir / "inventory.json"), node.name, str(run_dir), str(run_dir / JOURNAL_NAME),
                               self.deployments, self.clock, self.options.orchestrator == "on", self.options.overload,
                               self.options.fencing, raft)
        return self.fork(Order(name, "controller.control_service:run", msgspec.msgpack.encode(config),
                               self.node_pid(node.name), str(run_dir / f"{name}.log")), node.name)

    def _await_controllers(self, names: list[str]) -> None:
        """Wait till the nodes `names` answer. That one decides is waited for by whoever asks it something."""
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            dead = [name for name in names if name not in self.running_controllers()]
            try:
                if self.options.controllers == 1 and not dead:
                    self.asked().places()
                    return
                if not dead and set(names) <= self.asked().roles().keys():
                    return
                why = f"no answer from {', '.join(names)}"
            except MigrationError as error:
                why = str(error)
            if dead or time.monotonic() > deadline:
                logs = [self.world.run_dir / f"{_process_name(self.inventory.node(name), self.options.controllers)}.log"
                        for name in dead or names]
                said = [line for log in logs for line in log.read_text(errors="replace").strip().splitlines()[-1:]]
                raise ExperimentError(f"the resource controller is not up: {why}; {' '.join(said)}")
            time.sleep(LOOK_AGAIN_S)

    @abstractmethod
    def node_pid(self, name: str) -> int:
        """Return the pid of the shell of a node, which stands for its namespace."""

    def controller_gone(self) -> bool:
        """Return whether no resource controller runs."""
        return not self.running_controllers()

    def can_decide(self) -> bool:
        """Return whether enough controller nodes run for one to decide."""
        return 2 * len(self.running_controllers()) > self.options.controllers

    def whose_controller(self) -> tuple[str, ...]:
        """Return the node that decides; () where there is only one that could."""
        return (self.leader(),) if self.options.controllers > 1 and self.can_decide() else ()

    def leader(self) -> str:
        """Return the controller node that decides, waiting for one; raises MigrationError if none does in time."""
        return self.asked().leader() if self.options.controllers > 1 else self.controller_node.name

    def undecided(self) -> bool:
        """Return whether there are several controller nodes and none decides."""
        return self.resource is not None and self.options.controllers > 1 and not any(
            role.decides for role in self.resource.roles().values())

    def kill_controller(self, name: str = "") -> str:
        """Kill the resource controller (SIGKILL), as a crash would, on node `name`; its journal stays.

        Without a name, of several nodes, that of the one that decides. Return whose it was.
        """
        running = self.running_controllers()
        if not running:
            raise ExperimentError("no resource controller is running")
        name = name or self.leader()
        if name not in running:
            raise ExperimentError(f"no resource controller is running on {name!r}; on {', '.join(running)}")
        os.kill(running[name].pid, signal.SIGKILL)
        self.nursery.status(running[name], timeout_s=5.0)
        return name

    def forget_controller(self) -> None:
        """End the resource controller for good, with its journal: what comes next begins anew."""
        for name in self.running_controllers():
            self.kill_controller(name)
        if self._power_switch is not None:
            os.kill(self._power_switch.pid, signal.SIGTERM)
            self.nursery.status(self._power_switch, timeout_s=5.0)
            self._power_switch = None
        (self.world.run_dir / JOURNAL_NAME).unlink(missing_ok=True)
        shutil.rmtree(self.world.run_dir / RAFT_DIR, ignore_errors=True)
        self.controllers_joined.clear()

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

    def deployed(self) -> tuple[Deployment, ...]:
        """Return what is deployed, by the controller if it answers: another process may have told it something."""
        if self.resource is not None:
            with contextlib.suppress(MigrationError):
                self.deployments = self.resource.deployments()
        return self.deployments

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

    def unheard(self) -> list[str]:
        """Return the nodes that the controller does not hold for alive, where it would have such nodes cut off."""
        if self.resource is None or not self.options.fencing:
            return []
        return [node.name for node in self.resource.state().nodes if node.life != "alive"]

    def arm_fencing(self) -> None:
        """Plug in the power switch, if there is to be one: only now, for a rack that comes up is silent in parts."""
        if self.resource is not None and self.options.fencing and self._power_switch is None:
            first = self.controller_node.name
            self._power_switch = self.fork(power_order(self.node_pid(first), self.world.run_dir), first)

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


def spread(controllers: Sequence[NodeEntry]) -> list[NodeEntry]:
    """Return controller nodes so that the first of them stand in as many racks as there are."""
    turns: dict[int, int] = {}
    ranked = []
    for order, node in enumerate(controllers):
        turns[node.rack] = turns.get(node.rack, -1) + 1
        ranked.append((turns[node.rack], order, node))
    return [node for _, _, node in sorted(ranked, key=lambda one: one[:2])]


def _process_name(node: NodeEntry, controllers: int) -> str:
    return "resource-controller" if controllers == 1 else f"resource-controller-{node.name}"


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
