"""A small network of its own for replication: a controller, four servers in two racks, three clients of one store.

    rack 1: s1 (s1h, s1n1), s2 (s2h, s2n1)          Everything travels as bytes, may be lost, doubled and overtaken;
    rack 2: s3 (s3h, s3n1), s4 (s4h, s4n1)          nodes can die and come back with nothing, or hang and come back
    ctl, c1, c2, c3                                 with everything; the controller keeps its journal; links can be cut.

The store is the real one, and so are replication, membership, heartbeats and the controller's decisions. Clients repeat
what is not answered, to whom the controller names, and give up after a while.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from replica_store import KEY, Store

from controller.fault_domains import Place, faults
from controller.heartbeats import Gate
from controller.membership import Membership
from controller.migration_journal import decode_entries, encode_entry
from controller.replica_steps import Happening, ReplicaEntry, State, Viewed
from controller.replicas import ReplicaControl
from experiments.clients.linearizability import NEVER, UNKNOWN, Operation, Verdict, check_store, read_exchange
from nodes import messages
from nodes.authority import Authority
from nodes.control_messages import HEARTBEAT_S, NO_INSTANCE, SLOTS, Answer, Command, Heartbeat, slot_of_time
from nodes.replication import Replicator
from nodes.replication_messages import Part

PLACES = {f"s{s}{n}": Place(f"s{s}{n}", f"s{s}", 1 if s < 3 else 2) for s in range(1, 5) for n in ("h", "n1")}
NODES = tuple(PLACES)
CLIENTS = ("c1", "c2", "c3")
IPS = {"ctl": bytes((10, 1, 253, 1)), **{c: bytes((10, 1, 254, i)) for i, c in enumerate(CLIENTS, 1)},
       **{n: bytes((10, PLACES[n].rack, int(n[1]), 1 if n.endswith("h") else 11)) for n in NODES}}
AT = {ip: name for name, ip in IPS.items()}
PATIENCE_S = 1.5  # of a client with one operation
AGAIN_S = 0.06


@dataclass
class Node:
    """A node in one of its runs."""

    name: str
    boot: int
    replicator: Replicator
    store: Store
    hung: bool = False
    backlog: list[Callable[[], None]] = field(default_factory=list)
    alarm: float = -1.0


class Client:
    """One operation at a time, repeated until it is answered or patience ends; then it goes on under another name."""

    def __init__(self, room: Room, name: str) -> None:
        self.room, self.name = room, name
        self.draw = random.Random(f"{room.seed} {name}")
        self.primary: bytes | None = None
        self.epoch = 0
        self.id = CLIENTS.index(name)
        self.number = 0
        self.request = b""
        self.called_s = 0.0
        room.at(self.draw.uniform(0, 0.05), self.call)

    def call(self) -> None:
        self.number += 1
        self.called_s = self.room.now
        self.request = self._request()
        self.send(self.id, self.number)

    def _request(self) -> bytes:
        draw = self.draw
        key = b"count" if draw.random() < 0.4 else draw.choice((b"x", b"y"))
        value = b"%d.%d" % (self.id, self.number) + b"." * (9000 if draw.random() < 0.02 else 0)
        dice = draw.random()
        if dice < 0.4:
            return b"get %b\r\n" % key
        if key == b"count":
            return b"incr count 1\r\n" if dice < 0.9 else b"add count 0 0 1\r\n0\r\n"
        if dice < 0.5:
            return b"delete %b\r\n" % key
        verb = b"add" if dice < 0.6 else b"set"
        return b"%b %b 0 0 %d\r\n%b\r\n" % (verb, key, len(value), value)

    def send(self, client: int, number: int) -> None:
        room = self.room
        if (client, number) != (self.id, self.number) or not self.request:
            return
        if room.now > self.called_s + PATIENCE_S:
            room.record(self.request, None, self.called_s, NEVER)
            self.id += len(CLIENTS)  # the old name may still have something under way
            self.number, self.request = 0, b""
            room.at(0.0, self.call)
            return
        if self.primary is not None:
            to, request = AT[self.primary], self.request
            room.carry(self.name, to, lambda: room.requested(to, client, number, request))
        room.at(AGAIN_S, lambda: self.send(client, number))

    def replied(self, client: int, number: int, reply: bytes) -> None:
        if (client, number) == (self.id, self.number) and self.request:
            self.room.record(self.request, reply, self.called_s, self.room.now)
            self.request = b""
            self.room.at(self.draw.uniform(0, 0.08), self.call)

    def told(self, command: Command) -> None:
        if command.epoch >= self.epoch:
            self.epoch, self.primary = command.epoch, command.peer
        answer = Answer(command.term, 0, 0, command.verb, 0, 0, command.application, command.instance, command.epoch)
        self.room.send(self.name, "ctl", answer.encode())


class Journal:
    """A journal whose bytes outlive the controller; looks at each view whether it keeps fault domains apart."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._entries = decode_entries(b"".join(room.log))

    def entries(self) -> list[ReplicaEntry]:
        return list(self._entries)

    def append(self, entry: ReplicaEntry) -> None:
        self._entries.append(entry)
        self._room.log.append(encode_entry(entry))
        if isinstance(entry, Viewed):
            self._room.view = entry
            names = [name for name in (entry.primary, entry.backup) if name]
            joiner = [[entry.primary, entry.joiner]] if entry.joiner else []
            for some in [names, *joiner]:
                self._room.complaints += faults({b"store": some}, PLACES)


class Controller:
    """The controller in one of its runs: heartbeats, membership, decisions."""

    def __init__(self, room: Room, control: Callable[..., ReplicaControl]) -> None:
        self.room = room
        self._ips = np.array([int.from_bytes(IPS[name], "big") for name in NODES], dtype=np.uint32)
        self.gate = Gate(self._ips)
        self.membership = Membership(NODES, self.gate.last_slot)
        self.boots: dict[str, int] = {}
        self._beats: list[tuple[int, bytes]] = []
        self.replicas = control(Journal(room), IPS, PLACES, self.membership.life, {})
        if KEY not in self.replicas.groups:
            self.replicas.found(*KEY, CLIENTS, at="s1n1")
        room.at(HEARTBEAT_S, self.turn)

    def beat(self, source: str, data: bytes) -> None:
        self._beats.append((int.from_bytes(IPS[source], "big"), data))

    def turn(self) -> None:
        room, membership = self.room, self.membership
        if room.controller is not self:
            return
        sources = np.array([ip for ip, _ in self._beats], dtype=np.uint32)
        data = b"".join(data for _, data in self._beats)
        self._beats = []
        for part, _ in self.gate.admit(sources, data, room.now):
            for i, boot in zip(part.node.tolist(), part.boot.tolist(), strict=True):
                name = NODES[i]
                if boot > self.boots.get(name, 0):
                    if name in self.boots:
                        membership.restarted(name, room.now)
                    self.boots[name] = boot
                self.replicas.booted(name, boot)
        room.lives += [(c.node, c.after) for c in membership.tick(room.now)]
        self._do("tick")
        room.at(HEARTBEAT_S, self.turn)

    def arrive(self, source: str, message: object) -> None:
        self._do("answered", IPS[source], message)

    def _do(self, what: str, *values: object) -> None:
        out: list[tuple[str, object]] = []
        getattr(self.replicas, what)(*values, self.room.now, out)
        for node, message in out:
            self.room.send("ctl", node, message.encode())  # type: ignore[attr-defined]
        self.room.happenings += self.replicas.happenings
        self.replicas.happenings = []


@dataclass
class Room:
    """The network and all that stands in it. `control` and `replicator` make the parts under test."""

    seed: int
    loss: float = 0.05
    control: Callable[..., ReplicaControl] = ReplicaControl
    replicator: Callable[..., Replicator] = Replicator
    now: float = 0.0

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._boots = itertools.count(1)
        self.cut: Counter[frozenset[str]] = Counter()
        self.nodes: dict[str, Node] = {}
        self.log: list[bytes] = []
        self.view: Viewed | None = None
        self.complaints: list[str] = []
        self.happenings: list[Happening] = []
        self.lives: list[tuple[str, object]] = []
        self.history: list[tuple[bytes, Operation]] = []
        self.controller: Controller | None = None
        for name in NODES:
            self.boot(name)
        self.start_controller()
        self.clients = {name: Client(self, name) for name in CLIENTS}

    # -- time and network ----------------------------------------------------------------------------------------------

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), action))

    def run(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._events and self._events[0][0] <= until_s and not done():
            self.now, _, action = heapq.heappop(self._events)
            action()
        if not done():
            self.now = until_s

    def client_of(self, client: int) -> str:
        """Return the name of the machine on which the client of this number runs."""
        return CLIENTS[client % len(CLIENTS)]

    def carry(self, source: str, to: str, deliver: Callable[[], None]) -> None:
        """Deliver once, twice or never, and not in order."""
        if self.cut[frozenset((source, to))]:
            return
        draw, loss = self.draw.random, self.loss
        dice = draw()
        for _ in range(0 if dice < loss else 2 if dice < 1.5 * loss else 1):
            delay = 1e-4 + draw() * 1e-4
            if draw() < loss:
                delay += draw() * (0.005 if draw() < 0.5 else 0.3)
            self.at(delay, deliver)

    def send(self, source: str, to: str, data: bytes) -> None:
        self.carry(source, to, lambda: self.arrive(source, to, data))

    def arrive(self, source: str, to: str, data: bytes) -> None:
        if to == "ctl":
            if self.controller is not None:
                message = messages.decode(data)
                if isinstance(message, Heartbeat):
                    self.controller.beat(source, data)
                else:
                    self.controller.arrive(source, message)
        elif to in CLIENTS:
            message = messages.decode(data)
            assert isinstance(message, Command)
            self.clients[to].told(message)
        else:
            self.on(to, lambda node: self._take(node, source, data))

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def on(self, name: str, action: Callable[[Node], None]) -> None:
        """Let a node do something: now, when it hangs no more, or, if it is down, never."""
        node = self.nodes.get(name)
        if node is not None:
            if node.hung:
                node.backlog.append(lambda: action(node))
            else:
                action(node)

    def _take(self, node: Node, source: str, data: bytes) -> None:
        out: list[tuple[bytes, object]] = []
        node.replicator.receive(IPS[source], messages.decode(data), self.now, out)  # type: ignore[arg-type]
        self._leave(node, out)

    def requested(self, to: str, client: int, number: int, request: bytes) -> None:
        def handle(node: Node) -> None:
            if node.store.executes and node.replicator.has_room(*KEY):
                entry = node.store.execute(client, number, request)
                if entry is not None:
                    out: list[tuple[bytes, object]] = []
                    reply = node.store.seen[client][1]
                    node.replicator.append(*KEY, entry, (client, number, reply), self.now, out)  # type: ignore[arg-type]
                    self._leave(node, out)
        self.on(to, handle)

    def _leave(self, node: Node, out: list[tuple[bytes, object]]) -> None:
        for ip, message in out:
            self.send(node.name, AT[ip], message.encode())  # type: ignore[attr-defined]
        due = node.replicator.due()
        if due is not None and not self.now < node.alarm <= due:
            node.alarm = due
            self.at(max(1e-4, due - self.now), lambda: self._alarm(node))

    def _alarm(self, node: Node) -> None:
        node.alarm = -1.0
        if self.nodes.get(node.name) is node:
            self.on(node.name, self._work)

    def _work(self, node: Node) -> None:
        out: list[tuple[bytes, object]] = []
        node.replicator.tick(self.now, out)  # type: ignore[arg-type]
        self._leave(node, out)

    def boot(self, name: str) -> None:
        """Start a node that is down, with nothing."""
        boot = next(self._boots)
        store = Store(self, name)
        replicator = self.replicator(store, IPS[name], Authority(IPS["ctl"]), boot)
        node = self.nodes[name] = Node(name, boot, replicator, store)
        self.at(self.draw.uniform(0, HEARTBEAT_S), lambda: self._beat(node))

    def _beat(self, node: Node) -> None:
        if self.nodes.get(node.name) is not node:
            return
        if not node.hung:
            slot = slot_of_time(self.now) % SLOTS
            beat = Heartbeat(slot, node.boot & 0xFFFF, NO_INSTANCE, node.boot >> 16, 0, 0, 0, 0)
            self.send(node.name, "ctl", beat.encode())
        self.at(HEARTBEAT_S, lambda: self._beat(node))

    def kill(self, name: str) -> None:
        self.nodes.pop(name, None)

    def hang(self, name: str) -> None:
        if name in self.nodes:
            self.nodes[name].hung = True

    def wake(self, name: str) -> None:
        node = self.nodes.get(name)
        if node is not None and node.hung:
            node.hung = False
            backlog, node.backlog = node.backlog, []
            for action in backlog:
                action()

    # -- the controller ------------------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        self.controller = Controller(self, self.control)

    def kill_controller(self) -> None:
        self.controller = None

    # -- what came of it -----------------------------------------------------------------------------------------------

    def record(self, request: bytes, reply: bytes | None, called_s: float, returned_s: float) -> None:
        key, command, result = read_exchange(request, reply)
        self.history.append((key, Operation(called_s, returned_s, command, result)))

    def verdict(self) -> Verdict:
        """Judge what clients saw; what is still under way counts as never answered."""
        under_way = []
        for client in self.clients.values():
            if client.request:
                key, command, _ = read_exchange(client.request, None)
                under_way.append((key, Operation(client.called_s, NEVER, command, UNKNOWN)))
        return check_store([*self.history, *under_way])

    @property
    def paired(self) -> bool:
        """Whether the last view has two replicas, and they are in it."""
        view, parts = self.view, self.parts()
        return view is not None and view.state == State.PAIRED.value and all(
            parts.get(name) is part and self.nodes[name].replicator.epoch(*KEY) == view.epoch
            for name, part in ((view.primary, Part.SERVING), (view.backup, Part.FOLLOWING)))

    def parts(self) -> dict[str, Part]:
        return {name: node.replicator.part(*KEY) for name, node in self.nodes.items()
                if node.replicator.part(*KEY) is not Part.OUT}
