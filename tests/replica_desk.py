"""A replica controller, what it knows, and what it says; nodes say what a test lets them say."""

from __future__ import annotations

from controller.fault_domains import Place
from controller.membership import Life
from controller.replica_steps import (
    ReplicaEntry,
    ToNode,
)
from controller.replicas import ReplicaControl
from nodes.control_messages import Answer, Command, Refusal, Verb
from nodes.replication_messages import NOBODY, Part, Stands, View

KEY = (1, 3)
PLACES = {f"s{s}{n}": Place(f"s{s}{n}", f"s{s}", 1 if s < 3 else 2) for s in range(1, 5) for n in ("h", "n1")}
IPS = {name: bytes((10, 1, 0, i)) for i, name in enumerate([*PLACES, "c1"], 1)}


class Journal:
    """A journal in memory that also notes what had been sent when something was written."""

    def __init__(self, entries: tuple[ReplicaEntry, ...] = ()) -> None:
        self.written = list(entries)

    def append(self, entry: ReplicaEntry) -> None:
        self.written.append(entry)

    def entries(self) -> list[ReplicaEntry]:
        return list(self.written)


class Desk:
    """A controller, what it knows, and what it says; nodes say what they are told to say by the test."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal or Journal()
        self.lives = dict.fromkeys(PLACES, Life.ALIVE)
        self.epochs: dict[tuple[int, int], int] = {}
        self.full: set[str] = set()
        self.control = ReplicaControl(self.journal, IPS, PLACES, self.lives.__getitem__, self.epochs,
                                      lambda name, application, instance: name not in self.full)
        self.now = 0.0
        self.sent: list[ToNode] = []
        for name in PLACES:
            self.control.booted(name, 1)

    @property
    def state(self) -> tuple[str, ...]:
        g = self.control.groups[KEY]
        return (g.state.value, *g.members)

    @property
    def epoch(self) -> int:
        return self.control.groups[KEY].epoch

    def tick(self, seconds: float = 0.05) -> list[ToNode]:
        self.now += seconds
        out: list[ToNode] = []
        self.control.tick(self.now, out)
        self.sent += out
        return out

    def says(self, node: str, part: Part, *, epoch: int | None = None, boot: int = 1, term: int = 0,
             refusal: Refusal = Refusal.NONE, silent: bytes = NOBODY) -> list[ToNode]:
        out: list[ToNode] = []
        self.control.answered(IPS[node], Stands(term or self.control.term, boot, *KEY, epoch or self.epoch, part,
                                                refusal, 0, silent), self.now, out)
        self.sent += out
        return out

    def connected(self, node: str, epoch: int) -> None:
        self.control.answered(IPS[node], Answer(1, 0, 0, Verb.CONNECT, 0, 0, *KEY, epoch), self.now, [])


def views(sent: list[ToNode]) -> dict[str, View]:
    return {to.node: to.message for to in sent if isinstance(to.message, View)}


def connects(sent: list[ToNode]) -> dict[str, bytes]:
    return {to.node: to.message.peer for to in sent if isinstance(to.message, Command)}


def paired(journal: Journal | None = None) -> tuple[Desk, str]:
    """Return a desk with s1n1 serving and somebody in rack 2 backing up, and who."""
    desk = Desk(journal)
    desk.control.found(*KEY, ["c1"], at="s1n1")
    desk.tick()
    desk.says("s1n1", Part.SERVING)
    joiner = desk.state[-1]
    desk.says(joiner, Part.FOLLOWING)
    desk.says("s1n1", Part.SERVING)
    desk.says(joiner, Part.FOLLOWING)
    desk.connected("c1", desk.epoch)
    return desk, joiner
