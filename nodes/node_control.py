"""A compute node's side of the control plane: a heartbeat at every slot boundary, and the controller's commands.

Pure: what is to be sent is appended to lists, and `at` says when there is something to do next. All of it travels from
one node's control port to another's. The ToR lets no false source address in, so a source can be believed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from nodes.authority import Authority
from nodes.control_messages import HEARTBEAT_S, Chunk, Command, ControlMessage, Fetch, slot_of_time
from nodes.deployment import Deployment
from nodes.load_report import LoadReporter, NodeLoad
from nodes.local_instances import LocalInstances
from nodes.local_replicas import LocalReplicas
from nodes.migration_agent import MigrationAgent, Outgoing
from nodes.port_bytes import Carried
from nodes.replication import Replicator
from nodes.replication_messages import ReplicationMessage, View
from nodes.replication_steps import Outgoing as Said
from nodes.transport import Address
from nodes.withdrawal_agent import VERBS, WithdrawalAgent
from topologies.addressing import DATA_PORT
from topologies.inventory import Inventory, NodeEntry

if TYPE_CHECKING:
    from nodes.service_runtime import ServiceRuntime

Controls = list[tuple[bytes, bytes]]  # IP address, and what its control port is to get
ToNodeControl = ControlMessage | ReplicationMessage


class Reports(msgspec.Struct, frozen=True):
    """To which controllers a node reports, and of which ports: their interfaces here, and their rates together."""

    controller_ips: tuple[str, ...]
    interfaces: tuple[str, ...]
    port_gbps: float


def reports_of(entry: NodeEntry, inventory: Inventory, controller_ips: tuple[str, ...]) -> Reports:
    """Return what a host or SmartNIC reports to the controllers at `controller_ips`.

    A SmartNIC tells of its port to the ToR; a host of all that it sends and receives, against the rates of all ports
    by which it can be reached.
    """
    if entry.role == "smartnic":
        port = inventory.ports_of_node(entry.name)[0]
        return Reports(controller_ips, (port.peer_interface,), port.gbps)
    shared = not inventory.has_dedicated_nic(entry.name)
    interfaces = (*(link.host_interface for link in inventory.pcie_of_host(entry.name) if shared),
                  *(port.peer_interface for port in inventory.ports_of_node(entry.name)))
    return Reports(controller_ips, interfaces, sum(port.gbps for port in inventory.ports_of_server(entry)))


class NodeControl:
    """Reports of a node that runs `services` to all controllers that `authority` knows; does what their leader says.

    `own_ip` is the node's address, and `boot` the number of its run: what it had in its memory before that is lost.
    `queue_least` returns the least length of the node's queue since it was last called, and `carried` what its ports,
    of `port_gbps` in all, have carried so far.
    """

    def __init__(self, services: ServiceRuntime, own_ip: bytes, authority: Authority, boot: int, port_gbps: float,
                 queue_least: Callable[[], int], carried: Callable[[], Carried], now: float) -> None:
        services.stand_at(Address(own_ip, DATA_PORT))
        self._services = services
        self._execution = services.execution
        self._authority = authority
        self._queue_least = queue_least
        self._carried = carried
        self._reporter = LoadReporter(services.execution.cores.count, port_gbps, boot, now)
        self._local = LocalInstances(services)
        self.agent = MigrationAgent(self._local, authority, boot)
        self._replicas = LocalReplicas(services, self._wake)
        self.replicator = self._replicas.replicator = Replicator(self._replicas, own_ip, authority, boot)
        self.withdrawals = WithdrawalAgent(services, self.agent, self.replicator, authority, boot)
        self.woken: Callable[[], None] = lambda: None  # called when `at` comes nearer between two turns
        self._heartbeats = 0
        self._beat_at = self.at = _next_boundary(now)

    def receive(self, source: bytes, message: ToNodeControl, now: float, out: Controls) -> None:
        """Take a message that came to the control port from `source`. Let `services` work afterwards."""
        told: Outgoing = []
        said: Said = []
        self._local.now = self._replicas.now = now
        if isinstance(message, Command) and message.verb in VERBS:
            answer = self.withdrawals.receive(source, message)
            self._leave([] if answer is None else [(source, answer)], said, now, out)
            return
        if isinstance(message, Command | View) and self.withdrawals.is_too_late(message.application, message.epoch):
            return
        if isinstance(message, ReplicationMessage) or (isinstance(message, Fetch | Chunk)
                                                       and self.replicator.is_mine(message)):
            self.replicator.receive(source, message, now, said)
            self._leave(told, said, now, out)
            return
        if isinstance(message, Command):
            key = message.application, message.instance
            if self.agent.epoch(*key) == 0 and self._execution.runs(key):
                self.agent.run_here(*key, self._execution.epoch_of(key))  # since the node's start, or a deployment
        self.agent.receive(source, message, now, told)
        self._leave(told, said, now, out)

    def deploy(self, deployment: Deployment, now: float) -> None:
        """Run and know what `deployment` says from now on; raises as `ServiceRuntime.deploy` does."""
        self._local.now = self._replicas.now = now
        self.withdrawals.make_way(deployment)
        self._services.deploy(deployment)

    def work(self, now: float, out: Controls) -> None:
        """Do what is due at `now`. Let `services` work afterwards."""
        if now < self.at:
            return
        told: Outgoing = []
        said: Said = []
        self._local.now = self._replicas.now = now
        self.agent.tick(now, told)
        self.replicator.tick(now, said)
        if now >= self._beat_at:
            load = NodeLoad(self._queue_least(), *self._carried(), self._execution.loads())
            heartbeat = self._reporter.heartbeat(load, now)
            told += [(ip, heartbeat) for ip in self._authority.ips]
            self._heartbeats += 1
            self._beat_at = _next_boundary(now)
        self._leave(told, said, now, out)

    def counters(self) -> dict[str, int]:
        """Return how many heartbeats were sent, and what was refused of commands and of what was fetched, by reason."""
        return {"heartbeats": self._heartbeats,
                **{f"control {reason}": count for reason, count in self.agent.counters.items()},
                **{f"replication {reason}": count for reason, count in self.replicator.counters.items()}}

    def _wake(self, now: float) -> None:
        self.at = min(self.at, now)
        self.woken()

    def _leave(self, told: Outgoing, said: Said, now: float, out: Controls) -> None:
        out += [(ip, message.encode()) for ip, message in told]
        out += [(ip, message.encode()) for ip, message in (*said, *self._replicas.outgoing)]
        self._replicas.outgoing.clear()
        self.at = min(due for due in (self._beat_at, self.agent.due(now), self.replicator.due()) if due is not None)


def _next_boundary(now: float) -> float:
    """Return when the slot after that of `now` begins. A node that was late for several reports once."""
    return (slot_of_time(now) + 1) * HEARTBEAT_S
