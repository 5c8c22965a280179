"""A resource controller with real migration agents around it: datagrams are bytes, time is a number, nothing is lost
unless `loses` says so."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from controller.migration_journal import Journal, MemoryJournal
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from experiments.emulation.first_placement import place_in_turn
from microservices.applications import nfv_fin
from nodes import messages
from nodes.artifact import artifact_of
from nodes.authority import Authority
from nodes.control_messages import HEARTBEAT_S, NO_INSTANCE, Heartbeat, float_code
from nodes.deployment import Deployment, deploy
from nodes.migration_agent import Key, MigrationAgent, Outgoing
from nodes.transport import Send, Sends
from topologies.addressing import CONTROL_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

INVENTORY = inventory_of(cluster_named("type1x3"))
CTL = IPv4Address(INVENTORY.node("ctl1").ip).packed
CLIENT = (IPv4Address(INVENTORY.node("c1").ip).packed, 40_000)
APPLICATION = nfv_fin(shards=3)
DEPLOYMENT = deploy(APPLICATION, place_in_turn(APPLICATION, INVENTORY), INVENTORY)
SERVICE = {instance.number: instance.service for instance in APPLICATION.instances}
NAMES = {i.number: f"{DEPLOYMENT.name}/{i.name}" for i in APPLICATION.instances}
NIC, HOST = "s1n1", "s1h"
ON_NIC = [place.number for place in DEPLOYMENT.places if place.node == NIC]
STEP_S = 0.01


def ip_of(node: str) -> bytes:
    return IPv4Address(INVENTORY.node(node).ip).packed


class Instances:
    """A node's runtime in small: an instance is its name and how often it has moved."""

    def __init__(self) -> None:
        self.live: dict[Key, int] = {}
        self.halted: dict[Key, int] = {}
        self.where: dict[Key, bytes] = {}

    def usable(self, key: Key, binary: bytes, fresh: bool) -> str | None:
        return None if binary == artifact_of(SERVICE[key[1]]) else "another microservice's source"

    def acceptable(self, key: Key, package: bytes) -> str | None:
        return None if package.startswith(b"%d/%d " % key) else "another instance"

    def clients(self, key: Key, package: bytes) -> list[tuple[bytes, int]]:
        return [CLIENT]

    def freeze(self, key: Key) -> None:
        self.halted[key] = self.live.pop(key)

    def frozen(self, key: Key) -> bytes | None:
        return b"%d/%d %d" % (*key, self.halted[key])

    def resume(self, key: Key) -> None:
        self.live[key] = self.halted.pop(key)

    def start(self, key: Key, binary: bytes, package: bytes | None) -> None:
        self.live[key] = 0 if package is None else int(package.split()[1]) + 1

    def release(self, key: Key) -> None:
        del self.halted[key]

    def connect(self, key: Key, ip: bytes, epoch: int) -> None:
        self.where[key] = ip


class Room:
    """The rack `INVENTORY` with `DEPLOYMENT` on it; `told_clients` is what went to clients."""

    def __init__(self, automatic: bool = True, journal: Journal | None = None, options: OverloadOptions | None = None,
                 loses: Callable[[Send], bool] = lambda _: False, deployment: Deployment = DEPLOYMENT) -> None:
        self.now = 1.0
        self.journal = journal or MemoryJournal()
        self.loses = loses
        self.told_clients: list[tuple[bytes, int, bytes]] = []
        self.agents: dict[str, MigrationAgent] = {}
        self.runs: dict[str, Instances] = {}
        self._options = (automatic, options)
        self._deployment = deployment
        self._boots = 0
        for entry in INVENTORY.nodes:
            if entry.role in ("host", "smartnic"):
                self.boot(entry.name)
        for place in deployment.places:
            self.agents[place.node].run_here(deployment.number, place.number, 1, artifact_of(SERVICE[place.number]))
            self.runs[place.node].live[deployment.number, place.number] = 0
        self.start_controller()

    def start_controller(self) -> None:
        automatic, options = self._options
        self.controller = ResourceController(INVENTORY, [self._deployment], self.journal, automatic, options)

    def boot(self, node: str) -> None:
        """Start `node` anew, with nothing."""
        self._boots += 1
        self.runs[node] = Instances()
        self.agents[node] = MigrationAgent(self.runs[node], Authority(CTL), self._boots)

    def beat(self, node: str, instance: int = NO_INSTANCE, us: float = 0.0, queue: int = 0, network: float = 0.0,
             cpu: float = 0.0) -> None:
        """Let `node` send the heartbeat of the present slot."""
        boot = self.agents[node].boot
        slot = round(self.now / HEARTBEAT_S) % 65536
        of, execution = ((boot & 0xFFFF, boot >> 16) if instance == NO_INSTANCE
                         else (self._deployment.number, float_code(int(us * 1000), 11, 16)))
        self.hear(node, Heartbeat(slot, of, instance, execution, float_code(queue, 4, 8), round(network * 255), 0,
                                  round(cpu * 255)).encode())

    def hear(self, node: str, payload: bytes) -> None:
        """Let the controller have a datagram from `node`, and everybody do what follows from it at once."""
        out: Sends = []
        self.controller.receive(ip_of(node), payload, self.now, out)
        self._carry(out)

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until - 1e-9:
            self.now += STEP_S
            due, out = self.controller.due(), list[Send]()
            if due is not None and due <= self.now:
                self.controller.tick(self.now, out)
            self._carry(out)
            for name in self.agents:
                self._agent(name, lambda agent, said: agent.tick(self.now, said))

    def by_hand(self, instance: str, node: str) -> int:
        out: Sends = []
        number = self.controller.move(instance, node, self.now, out)
        self._carry(out)
        return number

    def live_on(self, number: int) -> list[str]:
        return [name for name, run in self.runs.items() if (self._deployment.number, number) in run.live]

    def _agent(self, name: str, does: Callable[[MigrationAgent, Outgoing], None], to_controller: bool = True) -> None:
        said: Outgoing = []
        does(self.agents[name], said)
        for ip, message in said:
            send = Send(ip, CONTROL_PORT, message.encode())
            if self.loses(send):
                continue
            if ip == CTL:
                self.hear(name, send.data)
            else:
                self._deliver(ip_of(name), send)

    def _carry(self, out: Sends) -> None:
        for send in out:
            if not self.loses(send):
                self._deliver(CTL, send)

    def _deliver(self, source: bytes, send: Send) -> None:
        if (send.ip, send.port) == CLIENT:
            self.told_clients.append(send)
            return
        name = next(name for name in self.agents if ip_of(name) == send.ip)
        message = messages.decode(send.data)
        self._agent(name, lambda agent, said: agent.receive(source, message, self.now, said))  # type: ignore[arg-type]



def starve(room: Room, seconds: float = 0.6, node: str = NIC) -> None:
    """Let `node` report a standing queue and an idle port, and its instances their shares, the last the largest."""
    for i in range(round(seconds / HEARTBEAT_S)):
        number = ON_NIC[i % len(ON_NIC)]
        room.beat(node, number, us=10, queue=100, network=0.1, cpu=0.1 + 0.1 * ON_NIC.index(number))
        room.pass_time(HEARTBEAT_S)
