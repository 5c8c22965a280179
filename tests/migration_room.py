"""A small network of its own for migrations: a controller, four nodes, a writer, faults, and a checker beside them.

    ctl --+-- s1n1   source of the instance           Everything travels as bytes, may be lost, doubled and overtaken;
          +-- s1h    destination                      nodes and the controller can die and come back with nothing but,
          +-- s2n1   the writer's node, upstream      for the controller, its journal; links can be cut.
          +-- s2h    a bystander that is told, too
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from controller.migration import MigrationControl
from controller.migration_journal import Entry, MemoryJournal, decode_entries, encode_entry
from controller.migration_steps import Happening, State
from nodes import messages
from nodes.authority import Authority
from nodes.control_messages import Answer, ControlMessage, Fetch
from nodes.errors import WireError
from nodes.migration_agent import Key, MigrationAgent

KEY = (1, 7)
NAMES = ("ctl", "s1n1", "s1h", "s2n1", "s2h")
IPS = {name: bytes((10, 1, 0, i)) for i, name in enumerate(NAMES, start=1)}
SOURCE, DESTINATION, WRITER = "s1n1", "s1h", "s2n1"
BINARY = bytes(range(256)) * 100  # four chunks
BALLAST = b"b" * 40_000  # of the package: five chunks
BEAT_S = 0.05
CLIENTS = ((bytes((10, 1, 254, 1)), 40_000), (bytes((10, 1, 254, 1)), 40_001))


class SlowLocal:
    """A node's runtime in small: an instance is a set of numbers that were written to it."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.live: set[int] | None = None
        self.halted: set[int] | None = None
        self.stops_at = 0.0
        self.where: bytes | None = None  # the instance's address, as this node believes

    def usable(self, key: Key, binary: bytes, fresh: bool) -> str | None:
        return None if binary == BINARY else "not the binary"

    def acceptable(self, key: Key, package: bytes) -> str | None:
        try:
            msgspec.msgpack.decode(package, type=tuple[list[int], bytes])
        except msgspec.MsgspecError as error:
            return str(error)
        return None

    def clients(self, key: Key, package: bytes) -> list[tuple[bytes, int]]:
        return list(CLIENTS)

    def freeze(self, key: Key) -> None:
        self.halted, self.live = self.live, None
        self.stops_at = self.room.now + self.room.draw.uniform(0, 0.02)

    def frozen(self, key: Key) -> bytes | None:
        if self.room.now < self.stops_at:
            return None
        return msgspec.msgpack.encode((sorted(self.halted or ()), BALLAST))

    def resume(self, key: Key) -> None:
        self.live, self.halted = self.halted, None

    def start(self, key: Key, binary: bytes, package: bytes | None) -> None:
        assert binary == BINARY
        self.live = set() if package is None else written_in(package)

    def release(self, key: Key) -> None:
        self.halted = None

    def connect(self, key: Key, ip: bytes, epoch: int) -> None:
        self.where = ip


def written_in(package: bytes) -> set[int]:
    return set(msgspec.msgpack.decode(package, type=tuple[list[int], bytes])[0])


@dataclass
class Node:
    """A node in one of its runs."""

    name: str
    boot: int
    agent: MigrationAgent
    local: SlowLocal


class Checker:
    """Looks at nodes from outside and knows nothing of the protocol.

    At no time do two nodes run the instance. A write that was acknowledged is there at the end, unless at some time
    since no living node held it, in a running instance or in a frozen, staged or not yet forgotten one.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self.complaints: list[str] = []
        self.acknowledged: set[int] = set()
        self.excused: set[int] = set()

    def runners(self) -> list[str]:
        return [n.name for n in self._room.nodes.values() if n.local.live is not None]

    def _held(self) -> set[int]:
        held: set[int] = set()
        for node in self._room.nodes.values():
            held |= node.local.live or set()
            held |= node.local.halted or set()
            if package := node.agent.package(*KEY):
                held |= written_in(package)
        return held

    def look(self) -> None:
        if len(self.runners()) > 1:
            self.complaints.append(f"{self._room.now:.3f}: it runs on {' and '.join(self.runners())}")

    def acknowledge(self, write: int) -> None:
        self.acknowledged.add(write)
        if write not in self._held():
            self.excused.add(write)  # whoever did it has died before we heard

    def died(self) -> None:
        self.excused |= self.acknowledged - self._held()

    def verdict(self) -> list[str]:
        runners = self.runners()
        if len(runners) != 1:
            return [*self.complaints, f"at the end it runs on {runners}"]
        live = self._room.nodes[runners[0]].local.live or set()
        lost = self.acknowledged - self.excused - live
        if lost:
            self.complaints.append(f"{len(lost)} acknowledged writes are lost, {min(lost)} among them")
        believed = self._room.nodes[WRITER].local.where
        if believed not in (None, IPS[runners[0]]) or (believed is None and runners[0] != SOURCE):
            self.complaints.append(f"the writer sends to {believed!r}, it runs on {runners[0]}")
        return self.complaints


@dataclass
class Room:
    """The network and all that stands in it. `control` and `agent` make the parts under test."""

    seed: int
    loss: float = 0.1
    control: Callable[..., MigrationControl] = MigrationControl
    agent: Callable[..., MigrationAgent] = MigrationAgent
    now: float = 0.0
    nodes: dict[str, Node] = field(default_factory=dict)
    cut: set[frozenset[str]] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # nodes that are down
    states: list[tuple[float, str]] = field(default_factory=list)  # that the controller went through
    watch: Callable[[Happening], None] = lambda _: None

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._boots = itertools.count(1)
        self.log: list[bytes] = []
        self.checker = Checker(self)
        self.happenings: list[Happening] = []
        self.controller: MigrationControl | None = None
        self._alarms: dict[str, float] = {}
        self._writes = 0
        self._pending: dict[int, float] = {}
        for name in NAMES[1:]:
            self.boot(name)
        self.nodes[SOURCE].local.live = set()
        self.nodes[SOURCE].agent.run_here(*KEY, 1, BINARY)
        self.start_controller()
        self.at(0.001, self._write)

    # -- time and network ----------------------------------------------------------------------------------------------

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._order), action))

    def run(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        while self._events and self._events[0][0] <= until_s and not done():
            self.now, _, action = heapq.heappop(self._events)
            action()
            self.checker.look()
        if not done():
            self.now = until_s

    def carry(self, source: str, to: str, deliver: Callable[[], None]) -> None:
        """Deliver once, twice or never, and not in order."""
        if frozenset((source, to)) in self.cut:
            return
        for _ in range(self.draw.choices((0, 1, 2), (self.loss, 1 - 1.5 * self.loss, self.loss / 2))[0]):
            delay = 1e-4 + self.draw.random() * 1e-4
            if self.draw.random() < self.loss:
                delay += self.draw.random() * self.draw.choice((0.005, 0.3))
            self.at(delay, lambda: None if to in self.gone else deliver())

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def boot(self, name: str) -> None:
        local = SlowLocal(self)
        boot = next(self._boots)
        node = self.nodes[name] = Node(name, boot, self.agent(local, Authority(IPS["ctl"]), boot), local)
        self.gone.discard(name)
        self.at(self.draw.uniform(0, BEAT_S), lambda: self._beat(node))

    def kill(self, name: str) -> None:
        if name not in self.gone:
            self.gone.add(name)
            local = SlowLocal(self)  # nothing is left
            self.nodes[name] = Node(name, 0, self.agent(local, Authority(IPS["ctl"]), 0), local)
            self.checker.died()

    def _beat(self, node: Node) -> None:
        """A heartbeat: which run of the node this is, and its agent's timer."""
        if self.nodes[node.name] is not node:
            return
        self.carry(node.name, "ctl", lambda: self._tell("booted", node.name, node.boot))
        self._work(node)
        self.at(BEAT_S, lambda: self._beat(node))

    def _work(self, node: Node) -> None:
        if self.nodes[node.name] is node:
            out: list[tuple[bytes, ControlMessage]] = []
            node.agent.tick(self.now, out)
            self._leave(node, out)

    def _leave(self, node: Node, out: list[tuple[bytes, ControlMessage]]) -> None:
        for ip, message in out:
            to = next(name for name in NAMES if IPS[name] == ip)
            self.send(node.name, to, message.encode())
        due = node.agent.due(self.now)
        if due is not None and not self.now < self._alarms.get(node.name, 0.0) <= due:
            self._alarms[node.name] = due
            self.at(max(1e-4, due - self.now), lambda: self._work(node))

    def send(self, source: str, to: str, data: bytes) -> None:
        self.carry(source, to, lambda: self.arrive(source, to, data))

    def arrive(self, source: str, to: str, data: bytes) -> None:
        try:
            message = messages.decode(data)
        except WireError:
            return
        if to == "ctl":
            if isinstance(message, Answer):
                self._tell("answered", IPS[source], message)
            elif isinstance(message, Fetch) and self.controller is not None:
                chunk = self.controller.fetch(IPS[source], message)
                if chunk is not None:
                    self.send("ctl", source, chunk.encode())
            return
        node, out = self.nodes[to], list[tuple[bytes, ControlMessage]]()
        node.agent.receive(IPS[source], message, self.now, out)  # type: ignore[arg-type]
        self._leave(node, out)

    # -- the controller ------------------------------------------------------------------------------------------------

    def start_controller(self) -> None:
        journal = _Log(self.log)
        self.controller = self.control(journal, {n: IPS[n] for n in NAMES[1:]}, IPS["ctl"], lambda *_: BINARY)
        self.gone.discard("ctl")
        controller = self.controller
        self.at(0.01, lambda: self._turn_of(controller))

    def kill_controller(self) -> None:
        self.controller = None
        self.gone.add("ctl")

    def _turn_of(self, controller: MigrationControl) -> None:
        if controller is self.controller:
            self._tell("tick")
            self.at(0.01, lambda: self._turn_of(controller))

    def _tell(self, what: str, *values: object) -> None:
        if self.controller is not None:
            out: list[object] = []
            getattr(self.controller, what)(*values, self.now, out)
            self.after(out)

    def begin(self) -> None:
        assert self.controller is not None
        out: list[object] = []
        self.controller.begin(*KEY, SOURCE, DESTINATION, (SOURCE, DESTINATION, WRITER, "s2h"), self.now, out)
        self.after(out)

    def after(self, out: list[object]) -> None:
        assert self.controller is not None
        for node, command in out:  # type: ignore[misc]
            self.send("ctl", node, command.encode())
        news, self.controller.happenings = self.controller.happenings, []
        self.happenings += news
        for happening in news:
            self.watch(happening)

    @property
    def settled(self) -> bool:
        return self.controller is not None and not self.controller.open and bool(self.happenings)

    # -- the writer ----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """Write a number every 10 ms, and every 60 ms again what is not acknowledged, to where it should be."""
        self._writes += 1
        self._pending[self._writes] = -1.0
        where = self.nodes[WRITER].local.where or IPS[SOURCE]
        to = next(name for name in NAMES if IPS[name] == where)
        for write, at in list(islice(self._pending.items(), 40)):
            if at + 0.06 <= self.now:
                self._pending[write] = self.now
                self.carry(WRITER, to, lambda write=write: self._written(to, write))  # type: ignore[misc]
        self.at(0.01, self._write)

    def _written(self, to: str, write: int) -> None:
        live = self.nodes[to].local.live
        if live is not None:
            live.add(write)
            self.carry(to, WRITER, lambda: self._acknowledged(write))

    def _acknowledged(self, write: int) -> None:
        if self._pending.pop(write, None) is not None:
            self.checker.acknowledge(write)


class _Log(MemoryJournal):
    """A journal whose bytes outlive the controller."""

    def __init__(self, lines: list[bytes]) -> None:
        super().__init__(decode_entries(b"".join(lines)))
        self._lines = lines

    def append(self, entry: Entry) -> None:
        super().append(entry)
        self._lines.append(encode_entry(entry))


STATES = tuple(state.value for state in State if state is not State.DONE)
