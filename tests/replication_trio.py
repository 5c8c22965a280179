"""Three nodes that replicate an instance among them, and the controller's word to them."""

from __future__ import annotations

from collections.abc import Callable

from nodes.authority import Authority
from nodes.replication import Replicator
from nodes.replication_messages import NOBODY, Part, Stands, View
from nodes.replication_steps import Key

KEY = (1, 7)
CTL, A, B, C = (bytes((10, 1, 0, i)) for i in range(1, 5))
CLIENTS = [(bytes((10, 1, 254, 1)), 40_000)]


class Words:
    """An instance in small: the words that were said to it, in order."""

    def __init__(self) -> None:
        self.words: list[bytes] = []
        self.left: list[object] = []
        self.serving = False
        self.complaint: str | None = None

    def found(self, key: Key) -> None:
        self.words, self.serving = [], True

    def serve(self, key: Key) -> None:
        self.serving = True

    def snapshot(self, key: Key) -> bytes:
        return b" ".join(self.words)

    def restore(self, key: Key, snapshot: bytes) -> str | None:
        if self.complaint is None:
            self.words = snapshot.split()
        return self.complaint

    def apply(self, key: Key, entry: bytes) -> str | None:
        if self.complaint is None:
            self.words.append(entry)
        return self.complaint

    def release(self, key: Key, outputs: object) -> None:
        self.left.append(outputs)

    def clients(self, key: Key) -> list[tuple[bytes, int]]:
        return CLIENTS if self.serving else []

    def forget(self, key: Key) -> None:
        self.words, self.serving = [], False


class Trio:
    """Three nodes whose messages arrive at once and in order, unless `stop` says that one does not."""

    def __init__(self) -> None:
        self.now = 0.0
        self.locals = {ip: Words() for ip in (A, B, C)}
        self.nodes = {ip: Replicator(self.locals[ip], ip, Authority(CTL), boot=ip[3]) for ip in (A, B, C)}
        self.said: list[tuple[bytes, Stands]] = []
        self.stop: Callable[[bytes, bytes, object], bool] = lambda source, to, message: False
        self.passed: list[object] = []

    def view(self, epoch: int, primary: bytes, backup: bytes = NOBODY, joiner: bytes = NOBODY, *, fresh: int = 0,
             boot: int = 0, term: int = 1, to: tuple[bytes, ...] = (A, B, C), source: bytes = CTL) -> None:
        for ip in sorted(to, key=lambda ip: ip == primary):  # the others first, so that they know whom to follow
            self.deliver(source, ip, View(term, boot, *KEY, epoch, fresh, primary, backup, joiner))

    def deliver(self, source: bytes, to: bytes, message: object) -> None:
        queue = [(source, to, message)]
        while queue:
            source, to, message = queue.pop(0)
            if self.stop(source, to, message):
                continue
            self.passed.append(message)
            if to == CTL:
                assert isinstance(message, Stands)
                self.said.append((source, message))
                continue
            out: list[tuple[bytes, object]] = []
            self.nodes[to].receive(source, message, self.now, out)  # type: ignore[arg-type]
            queue += [(to, ip, one) for ip, one in out]

    def say(self, word: bytes, to: bytes = A) -> None:
        out: list[tuple[bytes, object]] = []
        self.nodes[to].append(*KEY, word, word.decode(), self.now, out)  # type: ignore[arg-type]
        self.locals[to].words.append(word)
        for ip, message in out:
            self.deliver(to, ip, message)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for ip, node in self.nodes.items():
            out: list[tuple[bytes, object]] = []
            node.tick(self.now, out)  # type: ignore[arg-type]
            for to, message in out:
                self.deliver(ip, to, message)

    def parts(self) -> list[Part]:
        return [self.nodes[ip].part(*KEY) for ip in (A, B, C)]


def trio(paired: bool = True) -> Trio:
    """Return three nodes of which A serves, and B backs up if `paired`."""
    t = Trio()
    t.view(1, A, fresh=1, boot=A[3], to=(A,))
    if paired:
        t.view(2, A, joiner=B)
        t.view(3, A, B)
    t.said.clear()
    return t
