"""A rack in virtual time with the real resource controller, and a store that is replicated while nodes fail.

    c1, c2 --> store (s1n1, and a backup where the controller puts it)     each request adds 1 to its client's counter
"""

from __future__ import annotations

from pathlib import Path

from moving_rack import ECHO, RACK, ControllerNode, Repeated

from controller.controller_events import ReplicaState
from controller.fault_domains import faults, places_of
from controller.resource_controller import ResourceController
from microservices.application import Application, Channel, Stage
from nodes.deployment import Deployment, deploy
from nodes.replication_messages import Part
from nodes.simulated import CostOf, NetworkFaults, SimulatedClient, Simulation
from nodes.simulated_links import Calibration

PLACES = places_of(RACK)


def lone_store(number: int = 301) -> Application:
    """A replicated key-value store that clients send to themselves."""
    return Application("lone", number, (Stage("store", "kvs", 1, 1),), ())


def counter_chain(folder: Path, number: int = 300, backups: tuple[int, int, int] = (1, 1, 1)) -> Application:
    """A key-value store between two stages that hand on what they get, with so many backups."""
    path = folder / "echo.py"
    path.write_text(ECHO)
    stages = tuple(Stage(name, service, 1, count) for (name, service), count in zip(
        (("front", f"{path}:Echo"), ("store", "kvs"), ("last", f"{path}:Echo")), backups, strict=True))
    return Application("counters", number, stages, (Channel("front", "store"), Channel("store", "last")))


class ReplicatedRack:
    """The rack, its controller, and clients that count."""

    def __init__(self, application: Application, nodes: dict[int, str], faults: NetworkFaults | None = None,
                 seed: int = 1, cost: CostOf | None = None, calibration: Calibration | None = None) -> None:
        self.deployment: Deployment = deploy(application, nodes, RACK, replicate=True)
        self.simulation = Simulation(RACK, [self.deployment], faults, seed, cost, calibration=calibration,
                                     controller="ctl1")
        self.control = ControllerNode(self.simulation, ResourceController(RACK, [self.deployment], automatic=False))
        self.clients: list[SimulatedClient] = []
        self.complaints: list[str] = []
        self.store = next(i.number for i in application.instances if i.stage == "store")
        self.until(self.paired)

    @property
    def now(self) -> float:
        return self.simulation.network.now

    def replicas(self) -> tuple[ReplicaState, ...]:
        return self.control.controller.state(self.now).replicas

    def replica(self) -> ReplicaState:
        """Return how the store stands."""
        return next(r for r in self.replicas() if r.number == self.store)

    def paired(self) -> bool:
        """Whether every replicated instance has a primary and a backup that say so."""
        return all(r.state == "paired" and self._part(r, r.primary) is Part.SERVING
                   and self._part(r, r.backup) is Part.FOLLOWING for r in self.replicas())

    def _part(self, r: ReplicaState, node: str) -> Part:
        replicator = self.simulation.control_of(node).replicator
        return replicator.part(r.application, r.number) if replicator.epoch(r.application, r.number) == r.epoch \
            else Part.OUT

    def until(self, true, within_s: float = 30.0) -> float:
        """Let time pass till something is so; return how long that took."""
        began = self.now
        while not true():
            self.run(0.005)
            assert self.now < began + within_s, self.replicas()
        return self.now - began

    def run(self, for_s: float) -> None:
        self.simulation.run(self.now + for_s)
        for r in self.replicas():
            copies = [name for name in (r.primary, r.backup) if name]
            joining = [name for name in (r.primary, r.joiner) if name]
            self.complaints += faults({b"copies": copies, b"joiner": joining}, PLACES)

    def client(self, requests: int = 1 << 20, window: int = 4, name: str = "c1") -> SimulatedClient:
        """Start a client that counts up."""
        key = b"k%d" % len(self.clients)
        first = self.simulation.client(self.deployment, Repeated(b"set %b 0 0 1\r\n0\r\n" % key), 1, client=name)
        self.until(lambda: bool(first.answers))
        made = self.simulation.client(self.deployment, Repeated(b"incr %b 1\r\n" % key), requests, window, client=name)
        self.clients.append(made)
        return made

    def kill(self, *nodes: str, down_s: float = 5.0) -> None:
        """Let nodes lose all they have, and be away for a while."""
        for node in nodes:
            self.simulation.reboot(node, down_s)

    def kill_server(self, of: str, down_s: float = 5.0) -> list[str]:
        """Let the whole server of a node lose all it has."""
        gone = [name for name, place in PLACES.items() if place.domain == PLACES[of].domain]
        self.kill(*gone, down_s=down_s)
        return gone

    def finish(self, within_s: float = 30.0) -> None:
        """Let clients ask no more and get what they still wait for."""
        for client in self.clients:
            client.stop()
        self.until(lambda: all(len(c.answers) >= len(c.asked) for c in self.clients), within_s)

    def judged(self) -> list[str]:
        """Return what is wrong: a reply lost, doubled or out of order, an increment lost or done twice."""
        found = list(self.complaints)
        key = self.deployment.number, self.store
        node = self.control.controller.where.node_of[key]
        entries = self.simulation.runtime(node).execution.state(*key).hashtables["entries"]
        for i, client in enumerate(self.clients):
            found += client.complaints()
            told = sorted(int(answer.payload) for answer in client.answers)
            if told != list(range(1, len(told) + 1)):
                found.append(f"client {i} was told {told[:5]}... {told[-5:]}")
            if int(entries[b"k%d" % i][2]) != len(told):
                found.append(f"client {i} has {len(told)} replies, the store counted {entries[b'k%d' % i][2]!r}")
        return found
