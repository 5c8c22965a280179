"""A rack in virtual time with the real resource controller and two applications, of which one is withdrawn under load.

    c1 --> front --> store --> last --> c1        "counters": is withdrawn (its store may be replicated)
    c2 --> store --> c2                           "lone": its neighbour on one of its nodes, and loses nothing
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from moving_rack import CONTROLLER, ECHO, RACK, ControllerNode, Repeated

from controller.errors import MigrationError
from controller.migration_journal import MemoryJournal
from controller.resource_controller import ResourceController
from experiments.emulation.coming_and_going import decided_from
from microservices.application import Application, Channel, Stage
from nodes.deployment import Deployment, deploy
from nodes.replication_messages import Part
from nodes.simulated import CostOf, NetworkFaults, SimulatedClient, Simulation
from nodes.simulated_failing import FailingNetwork, Ill
from nodes.transport import Sends

NODES = tuple(entry.name for entry in RACK.nodes if entry.role in ("host", "smartnic"))
PLACED = {0: "s1n1", 1: "s2n1", 2: "s3n1"}
LONE = Application("lone", 301, (Stage("store", "kvs"),), ())
LONE_AT = "s2n1"  # beside the store that is withdrawn
NAME = "counters"


def chain(folder: Path, backups: int) -> Application:
    """A key-value store, with so many backups, between two stages that hand on what they get."""
    path = folder / "echo.py"
    path.write_text(ECHO)
    stages = (Stage("front", f"{path}:Echo"), Stage("store", "kvs", 1, backups), Stage("last", f"{path}:Echo"))
    return Application(NAME, 300, stages, (Channel("front", "store"), Channel("store", "last")))


class WithdrawingRack:
    """The rack, both deployments, clients that count, and a controller whose journal outlives it."""

    def __init__(self, folder: Path, backups: int = 0, faults: NetworkFaults | None = None, seed: int = 1,
                 cost: CostOf | None = None, foresight: int = 0) -> None:
        self.application = chain(folder, backups)
        self.deployment = deploy(self.application, PLACED, RACK, replicate=bool(backups))
        self.lone = deploy(LONE, {0: LONE_AT}, RACK)
        self.number = self.application.number
        self.network = FailingNetwork(RACK, faults, seed)
        self.simulation = Simulation(RACK, [self.deployment, self.lone], self.network, cost=cost, controller="ctl1",
                                     foresight=foresight)
        self.journal = MemoryJournal()
        self.control: ControllerNode | None = None
        self.start_controller()
        self.clients: list[SimulatedClient] = []
        self.counting: list[tuple[Deployment, SimulatedClient]] = []

    # -- the controller ------------------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        self.kill_controller()
        self.control = ControllerNode(self.simulation, ResourceController(
            RACK, [self.deployment, self.lone], self.journal, automatic=False))
        self.network.after(self.control, [])

    def kill_controller(self) -> None:
        if self.control is not None:
            for end in [end for address, end in self.network._ends.items() if address.ip == CONTROLLER]:
                self.network.unplug(end)
        self.control = None

    @property
    def controller(self) -> ResourceController:
        assert self.control is not None
        return self.control.controller

    def withdraw(self, name: str = NAME) -> str:
        """Ask for a withdrawal; return how it stands."""
        out: Sends = []
        found = self.controller.withdraw(name, self.network.now, out)
        assert self.control is not None
        self.network.after(self.control, out)
        return found.state

    def state(self) -> str:
        """Return how the withdrawal stands, "" for none."""
        w = self.controller.withdrawals.of.get(self.number) if self.control is not None else None
        return w.state.value if w is not None else ""

    def gone(self) -> bool:
        return self.state() == "withdrawn"

    def deploy_again(self, nodes: dict[int, str] | None = None) -> Deployment:
        """Deploy the application again, as a testbed does: nodes first, then the controller."""
        first = self.controller.first_epoch(self.number)
        made = deploy(self.application, nodes or PLACED, RACK, replicate=bool(self.deployment.replicated))
        made = decided_from(made, first)
        for node in NODES:
            self.simulation.control_of(node).deploy(made, self.network.now)
        self.controller.deploy(made, self.network.now)
        return made

    # -- load ----------------------------------------------------------------------------------------------------------

    def client(self, deployment: Deployment, name: str = "c1", window: int = 4,
               requests: int = 1 << 20) -> SimulatedClient:
        """Start a client that counts up from 1 in a key of its own."""
        key = b"k%d" % len(self.clients)
        self.clients.append(first := self.simulation.client(
            deployment, Repeated(b"set %b 0 0 1\r\n0\r\n" % key), 1, client=name))
        assert self.until(lambda: bool(first.answers))
        made = self.simulation.client(deployment, Repeated(b"incr %b 1\r\n" % key), requests, window, client=name)
        self.clients.append(made)
        self.counting.append((deployment, made))
        return made

    def run(self, for_s: float) -> None:
        self.simulation.run(self.network.now + for_s)

    def until(self, true: Callable[[], bool], within_s: float = 30.0, step_s: float = 0.002) -> bool:
        """Let time pass till something is so, at most so long; return whether it is."""
        until_s = self.network.now + within_s
        while not true():
            if self.network.now >= until_s:
                return False
            self.run(step_s)
        return True

    def stop_clients(self) -> None:
        for client in self.clients:
            client.stop()

    def is_answered(self, client: SimulatedClient) -> bool:
        """Whether every request has its reply, or was turned away."""
        replied = {answer.request_id for answer in client.answers}
        return client.asked.keys() <= replied | client.turned_away

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def hang(self, node: str) -> None:
        """Let a node do nothing, and keep all it has."""
        self.network.fail(Ill.HANGS, node)

    def go_on(self, node: str) -> None:
        self.network.mend(Ill.HANGS, node)

    def paired(self) -> bool:
        return all(r.state == "paired" for r in self.controller.state(self.network.now).replicas)

    # -- the verdict ---------------------------------------------------------------------------------------------------

    def remains(self, but: tuple[str, ...] = ()) -> list[str]:
        """Return what is left of the application, on nodes and at the controller; nodes `but` these."""
        return [what for node in NODES if node not in but for what in self.on_node(node)] + self.at_controller()

    def on_node(self, node: str) -> list[str]:
        """Return what a node has of the application, looked up in all that a node has."""
        runtime, control = self.simulation.runtime(node), self.simulation.control_of(node)
        execution, transport = runtime.execution, runtime.transport
        tables = {"instances": execution._instances, "addresses": execution._addresses, "epochs": execution._epochs,
                  "former": execution._taken, "replicated": execution.replicated, "detours": execution.detours,
                  "sending ends": transport._senders, "receiving ends": transport._receivers,
                  "sources": transport._sources, "goals": transport._addresses, "busy": transport._busy,
                  "migrated": control.agent._here, "connected": control.agent._connected,
                  "parts": control.replicator._here, "packages": control._local._packages,
                  "held ends": control._local._receivers, "judged": control._local._judged,
                  "following": control._replicas._following, "logs": control._replicas._logs}
        found = [f"{node} has {what} {key}" for what, table in tables.items() for key in table
                 if key[0] == self.number]
        found += [f"{node} executes {e.instance.name}" for e in execution._finishing
                  if e.instance.key[0] == self.number and (e.hops or e.here)]
        found += [f"{node} lets {i.name} wait for a core" for i in (*execution._runnable, *execution._parked)
                  if i.key[0] == self.number]
        found += [f"{node} counts {name}" for name in runtime.counters() if f" {NAME}/" in name]
        if self.number in execution._routers or self.number in execution.closed:
            found.append(f"{node} knows {NAME}")
        if runtime.outstanding_of(self.number):
            found.append(f"{node} has {runtime.outstanding_of(self.number)} under way")
        return found

    def at_controller(self) -> list[str]:
        """Return what the controller has of the application."""
        c = self.controller
        tables = {"instances": c.where.instances, "places": c.where.node_of, "moves": c.control.of_instance,
                  "ended moves": c.control.closed, "groups": c.failover.replicas.groups, "copies": c._beside,
                  "postponed": c._postponed, "nowhere": c._nowhere}
        found = [f"the controller has {what} {key}" for what, table in tables.items() for key in table
                 if key[0] == self.number]
        free = {node.name: node.free_mb for node in c.state(self.network.now).nodes}
        alone = ResourceController(RACK, [self.lone]).state(0.0).nodes
        return found + [f"{node.name} has {free[node.name]:g} MB free, and {node.free_mb:g} with its neighbour alone"
                        for node in alone if free[node.name] != node.free_mb]

    def of_neighbour(self) -> list[str]:
        """Return what the other application's clients have to complain about, its store's own count included."""
        found = []
        for deployment, client in self.counting:
            if deployment is self.lone:
                found += client.complaints() + _of_count(client)
                if client.turned_away:
                    found.append(f"{len(client.turned_away)} requests were turned away")
        return found

    def of_withdrawn(self) -> list[str]:
        """Return what clients of the withdrawn application can complain about: no reply and not turned away either."""
        found = []
        for deployment, client in self.counting:
            if deployment is not self.lone:
                found += client.complaints()
        return found

    def reboot(self, node: str, down_s: float) -> None:
        """Let a node lose all it has; it comes back knowing what was deployed at first, and nothing later."""
        self.simulation.reboot(node, down_s)


def _of_count(client: SimulatedClient) -> list[str]:
    told = sorted(int(answer.payload) for answer in client.answers)
    return [] if told == list(range(1, len(told) + 1)) else [f"a client was told {told[:5]}... {told[-5:]}"]


def ip_of(node: str) -> bytes:
    return IPv4Address(RACK.node(node).ip).packed


__all__ = ["NAME", "NODES", "MigrationError", "Part", "WithdrawingRack", "ip_of"]
