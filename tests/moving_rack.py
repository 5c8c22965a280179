"""A rack in virtual time with the real resource controller on its node, and a store whose counters tell each execution.

    c1 --> front --> store --> last --> c1        every request adds 1 to its client's counter
                       |
                       '-- is moved by the controller, over the same network, while requests pass through it
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from controller.resource_controller import ResourceController
from experiments.measurement.simulated_controller import SimulatedDesk
from microservices.application import Application, Channel, Stage
from microservices.workload import Workload
from nodes.artifact import artifact_of
from nodes.deployment import Deployment, deploy
from nodes.simulated import CostOf, NetworkFaults, SimulatedClient, Simulation
from nodes.simulated_links import Calibration
from nodes.transport import Address, Sends
from topologies.addressing import CONTROL_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3", clients=2))
CONTROLLER = IPv4Address(RACK.node("ctl1").ip).packed
ECHO = ("from microservices.measured import Profile\nfrom microservices.service import Microservice, Output\n\n\n"
        "class Echo(Microservice):\n    name = 'echo'\n    memory_mb = 1\n    profile = Profile(like='count')\n\n"
        "    def handle(self, request, state):\n        return (Output(request.payload),)\n")


def counter_store(folder: Path, number: int = 300) -> Application:
    """A key-value store between two stages that hand on what they get."""
    path = folder / "echo.py"
    path.write_text(ECHO)
    stages = (Stage("front", f"{path}:Echo"), Stage("store", "kvs"), Stage("last", f"{path}:Echo"))
    return Application("counters", number, stages, (Channel("front", "store"), Channel("store", "last")))


def lone_store(number: int = 301) -> Application:
    """A key-value store that clients send to themselves."""
    return Application("lone", number, (Stage("store", "kvs"),), ())


class Repeated(Workload):
    """The same request again and again."""

    def __init__(self, request: bytes) -> None:
        self._request = request

    def requests(self) -> Iterator[bytes]:
        return itertools.repeat(self._request)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        return None if reply == b"STORED\r\n" or reply.strip().isdigit() else f"{reply!r}"


class ControllerNode:
    """Drives a ResourceController in virtual time, as its process does on packets."""

    def __init__(self, simulation: Simulation, controller: ResourceController) -> None:
        self.address = Address(CONTROLLER, CONTROL_PORT)
        self.controller = controller
        self._network = simulation.network
        self._network.plug(self)
        self._network.plug(SimulatedDesk(CONTROLLER, controller))

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        self.controller.receive(source.ip, payload, now, out)

    def work(self, now: float, out: Sends) -> None:
        self.controller.tick(now, out)

    def due(self) -> float | None:
        return self.controller.due()

    def move(self, instance: str, node: str) -> int:
        out: Sends = []
        number = self.controller.move(instance, node, self._network.now, out)
        self._network.after(self, out)
        return number

    @property
    def settled(self) -> bool:
        return not self.controller.control.open


class MovingRack:
    """The rack, one client for each of `keys`, and a controller that moves by hand only."""

    def __init__(self, application: Application, nodes: Sequence[str], faults: NetworkFaults | None = None,
                 seed: int = 1, cost: CostOf | None = None, calibration: Calibration | None = None,
                 artifact: Callable[[str], bytes] = artifact_of, foresight: int = 0) -> None:
        self.deployment: Deployment = deploy(application, dict(enumerate(nodes)), RACK)
        self.key = (application.number, next(i.number for i in application.instances if i.stage == "store"))
        self.simulation = Simulation(RACK, [self.deployment], faults if calibration is None else None, seed, cost,
                                     log=True, calibration=calibration, controller="ctl1", foresight=foresight)
        self.control = ControllerNode(self.simulation, ResourceController(RACK, [self.deployment], automatic=False,
                                                                          artifact=artifact))
        self.clients: list[SimulatedClient] = []
        self._windows: list[int] = []

    def client(self, requests: int, window: int = 4, name: str = "c1") -> SimulatedClient:
        """Start a client that counts: with more than one request outstanding, cores may change their order."""
        key = b"k%d" % len(self.clients)
        first = self.simulation.client(self.deployment, Repeated(b"set %b 0 0 1\r\n0\r\n" % key), 1, client=name)
        until = self.simulation.network.now + 5.0
        while not first.answers:
            self.run(0.001)
            assert self.simulation.network.now < until, "the first request has no reply"
        made = self.simulation.client(self.deployment, Repeated(b"incr %b 1\r\n" % key), requests, window, client=name)
        self.clients.append(made)
        self._windows.append(window)
        return made

    def run(self, for_s: float) -> None:
        self.simulation.run(self.simulation.network.now + for_s)

    def move(self, node: str) -> float:
        """Move the store and let time pass till it has settled; return how long that took."""
        began = self.simulation.network.now
        number = self.control.move("store-1", node)
        self.settle()
        assert self.where() == [node], self.control.controller.timelines[number]
        return self.simulation.network.now - began

    def settle(self, within_s: float = 30.0) -> None:
        """Let time pass till no migration is under way; where the store runs is looked at all the time."""
        until = self.simulation.network.now + within_s
        while not self.control.settled:
            self.run(0.001)
            assert len(self.where()) <= 1, self.where()
            assert self.simulation.network.now < until, self.control.controller.control.open

    def stage(self, state: str) -> None:
        """Let time pass till a migration is in `state`."""
        while not any(m.state.value == state for m in self.control.controller.control.open.values()):
            self.run(2e-5)
            assert not self.control.settled, f"never {state}"

    def stop_clients(self) -> None:
        """Let no client ask anything more."""
        for client in self.clients:
            client.stop()

    def control_of(self, node: str) -> dict[str, int]:
        """Return what a node counts of the control plane."""
        return self.simulation.control_of(node).counters()

    def where(self) -> list[str]:
        """Return the nodes on which the store begins requests."""
        return [name for name in self.simulation.counters() if self.simulation.runtime(name).execution.runs(self.key)]

    def finish(self, within_s: float = 60.0) -> None:
        """Let all clients get all their replies."""
        until = self.simulation.network.now + within_s
        while self.simulation.network.now < until and not (
                self.simulation.idle and all(len(c.answers) == len(c.asked) for c in self.clients)):
            self.run(0.05)

    def complaints(self) -> list[str]:
        """Return what was lost, doubled or out of order, as clients, channels and the store itself tell it."""
        assert self.simulation.log is not None
        found = [*self.simulation.log.complaints()]
        (node,) = self.where()
        entries = self.simulation.runtime(node).execution.state(*self.key).hashtables["entries"]
        for i, client in enumerate(self.clients):
            found += client.complaints()
            told = [int(answer.payload) for answer in client.answers]
            if (told if self._windows[i] == 1 else sorted(told)) != list(range(1, len(told) + 1)):
                found.append(f"client {i} was told {told[:5]}... {told[-5:]}")
            if int(entries[b"k%d" % i][2]) != len(told):
                found.append(f"client {i} has {len(told)} replies, the store counted {entries[b'k%d' % i][2]!r}")
        return found
