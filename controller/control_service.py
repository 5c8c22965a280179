"""The resource controller as a process of the controller node: a UDP socket, the emulated clock, a journal on disk.

    control port ==datagrams==> ResourceController ==commands==> control ports, clients
    data port    --questions--> (clients: where is an instance that says nothing?)
    Unix socket  --requests---> (operator: state, events, move)
    journal      <--------------- every decision, synced, or at a majority, before it is sent

Killed and started again, it goes on from the journal; nodes and clients do what they were told meanwhile. With `raft`
it is one of several: one decides, the others listen (controller_node.py).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from controller import control_requests as asked
from controller.control_requests import ToldTimeline, decode_request, encode_reply
from controller.controller_node import ControllerNode, FollowsError, SharedJournal, SoleJournal
from controller.errors import ControllerError
from controller.fencing import Fencing, to_fence
from controller.journal_file import FileJournal
from controller.migration_journal import decode_entries, encode_entry, history_of
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from controller.standby import Standby
from microservices.errors import ServiceError
from nodes.deployment import Deployment
from nodes.emulated_clock import EmulatedClock
from nodes.errors import NodeError
from nodes.readiness import Readiness
from nodes.socket_room import give_room
from nodes.transport import Address, Sends
from topologies.addressing import CONTROL_PORT, DATA_PORT
from topologies.inventory import Inventory
from topologies.unreadable import UNREADABLE

TICK_S = 0.25  # real: the longest that it waits
LOOK_S = 0.02  # real: the longest till one of several notices that it leads, or does not any more
BATCH = 4096  # datagrams that are read before anything is done about them
QUESTIONS = 64  # that are read in one turn: however many come, the control port is heard
log = logging.getLogger(__name__)


class RaftConfig(msgspec.Struct, frozen=True):
    """Where the journal of several nodes is: this one's files, a secret of all, and all nodes by their addresses.

    `again`: it was here before, so its files must be.
    """

    directory: str
    secret: str
    own: str
    names: dict[str, str]
    again: bool = False


class ServiceConfig(msgspec.Struct, frozen=True):
    """What the process is told at its start: see ResourceController. `run_dir` is where its sockets stand.

    The journal is the file at `journal_path`, of this process alone, unless `raft` says otherwise.
    `fences`: somebody there cuts off nodes whose names come to POWER_SOCKET_NAME, and then says so.
    """

    inventory_path: str
    node: str
    run_dir: str
    journal_path: str
    deployments: tuple[Deployment, ...] = ()
    clock: EmulatedClock = EmulatedClock()
    automatic: bool = True
    options: OverloadOptions = OverloadOptions()
    fences: bool = False
    raft: RaftConfig | None = None


class _Stop(Exception):
    pass


def _raise_stop(*_: object) -> None:
    raise _Stop


def run(config: bytes) -> None:
    """Be the resource controller until SIGTERM. `config` is a msgpack ServiceConfig."""
    told = msgspec.msgpack.decode(config, type=ServiceConfig)
    signal.signal(signal.SIGTERM, _raise_stop)
    try:
        _Service(told).serve()
    except _Stop:
        return


class _Service:
    def __init__(self, told: ServiceConfig) -> None:
        inventory = Inventory.from_json(Path(told.inventory_path).read_bytes())
        self._now = told.clock.reader()
        self._time_scale = told.clock.time_scale
        self._name, self._names_at = told.node, told.raft.names if told.raft else {}
        self._look_s = LOOK_S if told.raft else TICK_S
        journal = _journal(told)

        def make(standby: Standby) -> ResourceController:
            controller = ResourceController(inventory, told.deployments, journal, told.automatic, told.options,
                                            told.node, standby=standby)
            self._fencing = Fencing(controller.failover.membership)
            return controller

        self._node = ControllerNode(inventory, journal, make)
        self._node.look([])  # a journal that tells nothing is complained about before anybody waits for an answer
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        give_room(self._udp)
        self._udp.bind((inventory.node(told.node).ip, CONTROL_PORT))
        self._udp.setblocking(False)
        self._clients = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._clients.bind((inventory.node(told.node).ip, DATA_PORT))
        self._clients.setblocking(False)
        self._names: dict[bytes, str] = {}
        self._packed: dict[str, bytes] = {}
        socket_name = asked.ONE_OF_SEVERAL.format(told.node) if told.raft else asked.SOCKET_NAME
        self._asked = asked.listen(Path(told.run_dir) / socket_name)
        self._power = str(Path(told.run_dir) / asked.POWER_SOCKET_NAME) if told.fences else ""
        gc.freeze()  # what is there now stays; only what comes later is looked through for garbage

    def serve(self) -> None:
        readiness = Readiness(fine=True)
        readiness.register(self._udp)
        readiness.register(self._clients)
        readiness.register(self._asked)
        node = self._node
        sends: Sends = []
        decided = node.controller is not None
        while True:
            ready = readiness.wait(min(self._look_s, (node.due() - self._now()) * self._time_scale))
            node.look(sends)
            if (node.controller is not None) is not decided:  # since the last look
                log.warning("%s decides %s", self._name, f"no more: {node.why_silent}" if decided else "from now on")
                decided = not decided
            now = self._now()
            if self._udp.fileno() in ready:
                self._hear(now, sends)
            if self._clients.fileno() in ready:
                self._hear_clients(sends)
            if self._asked.fileno() in ready:
                self._answer(now, sends)
            if node.due() <= now:
                node.tick(now, sends)
                if self._power and node.controller is not None:
                    self._fence(node.controller, now)
            self._send(sends)

    def _fence(self, controller: ResourceController, now: float) -> None:
        for node in to_fence(controller, self._fencing, now):
            with contextlib.suppress(OSError):  # nobody there, or busy: it is asked again
                self._asked.sendto(node.encode(), self._power)

    def _hear(self, now: float, sends: Sends) -> None:
        receive, take, packed = self._udp.recvfrom, self._node.receive, self._packed
        for _ in range(BATCH):
            try:
                data, (ip, _port) = receive(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error about an earlier datagram: commands repeat
            source = packed.get(ip)
            if source is None:
                source = packed[ip] = IPv4Address(ip).packed
            take(source, data, now, sends)

    def _hear_clients(self, sends: Sends) -> None:
        for _ in range(QUESTIONS):
            try:
                data, (ip, port) = self._clients.recvfrom(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                continue
            self._node.asked_where(Address(IPv4Address(ip).packed, port), data, sends)

    def _send(self, sends: Sends) -> None:
        for ip, port, data in sends:
            name = self._names.get(ip)
            if name is None:
                name = self._names[ip] = str(IPv4Address(ip))
            with contextlib.suppress(OSError):  # lost like any other datagram: what is not answered is sent again
                self._udp.sendto(data, (name, port))
        sends.clear()

    def _answer(self, now: float, sends: Sends) -> None:
        for _ in range(QUESTIONS):
            try:
                data, who = self._asked.recvfrom(1 << 20)
            except BlockingIOError:
                return
            try:
                reply = self._reply(decode_request(data), now, sends)
            except (ControllerError, NodeError, ServiceError, *UNREADABLE) as error:
                reply = encode_reply(error=str(error))
            self._send(sends)
            with contextlib.suppress(OSError):  # who asked is gone, or takes no more
                self._asked.sendto(reply, who)

    def _reply(self, request: asked.Request, now: float, sends: Sends) -> bytes:
        """Do what is asked, or say who does."""
        leader = self._names_at.get(self._node.journal.leader, "")
        if isinstance(request, asked.AskRole):
            decides = self._node.controller is not None
            return encode_reply(asked.Role(self._name, decides, self._name if decides else leader,
                                           self._node.alive), "", not decides, leader)
        try:
            return encode_reply(self._node.asked(lambda c: self._done(c, request, now, sends), sends))
        except FollowsError as error:
            return encode_reply(error=str(error), follows=True, leader=leader)

    def _done(self, controller: ResourceController, request: asked.Request, now: float, sends: Sends) -> object:
        """Do what is asked of the controller and return the answer."""
        if isinstance(request, asked.AskState):
            return controller.state(now)
        if isinstance(request, asked.AskEvents):
            return [event for event in controller.events if event.sequence > request.after][:asked.MOST_AT_ONCE]
        if isinstance(request, asked.AskTimelines):
            later = [line for number, line in controller.timelines.items() if number > request.after]
            later.sort(key=lambda line: line.migration)
            return [ToldTimeline.of(line) for line in later[:asked.MOST_AT_ONCE]]
        if isinstance(request, asked.AskPlaces):
            epochs = controller.control.epochs
            return [(*key, node, epochs.get(key, 1)) for key, node in controller.where.node_of.items()]
        if isinstance(request, asked.AskHistory):
            return history_of(self._node.journal.entries(), request.migration)
        if isinstance(request, asked.Move):
            return controller.move(request.instance, request.node, now, sends)
        if isinstance(request, asked.AskDeployments):
            return tuple(controller.deployments.values())
        if isinstance(request, asked.AskFirstEpoch):
            return controller.first_epoch(request.application)
        if isinstance(request, asked.Withdraw):
            return controller.withdraw(request.application, now, sends)
        if isinstance(request, asked.Fenced):
            return controller.declared_dead(request.node, now, sends)
        if isinstance(request, asked.StartedAgain):
            controller.started_again(request.node)
        elif isinstance(request, asked.Deployed):
            controller.deploy(request.deployment, now)
        return None


def _journal(told: ServiceConfig) -> SharedJournal:
    if told.raft is None:
        return SoleJournal(FileJournal(Path(told.journal_path)))
    from controller.raft_journal import RaftJournal  # here, since its library is only there for this

    raft = told.raft
    return RaftJournal(raft.own, [address for address in raft.names if address != raft.own], raft.secret, encode_entry,
                       decode_entries, Path(raft.directory), again=raft.again)
