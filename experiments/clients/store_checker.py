"""A checker for a key-value store: it writes, counts and reads, and knows what every reply must be, and in what order.

Each writer has keys and a counter of its own and asks over one channel, so whatever else the store does, its replies to
this writer are determined: a write that was lost, a request that was done twice or overtaken, each makes one wrong.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from microservices.workload import Workload

CHECKER = "experiments.clients.store_checker:StoreChecker"
READ_BACK = "experiments.clients.store_checker:StoreReadBack"
KEYS = 400
STORED = b"STORED\r\n"


class _Steps:
    """The steps of one writer, from the first on, and what the store must hold after each."""

    def __init__(self, seed: int, size_bytes: int, writer: int) -> None:
        self._draw = random.Random(f"{seed} {writer}")
        self._size = size_bytes
        self._writer = writer
        self._step = 0
        self.counted = 0
        self.values: dict[bytes, bytes] = {}

    @property
    def counter(self) -> bytes:
        return b"count-%d" % self._writer

    def next(self) -> tuple[bytes, bytes]:
        """Return a request and the reply that is right: in four steps a count, two writes, and a read."""
        step, self._step = self._step, self._step + 1
        if step == 0:
            return b"set %b 0 0 1\r\n0\r\n" % self.counter, STORED
        if step % 4 == 0:
            self.counted += 1
            return b"incr %b 1\r\n" % self.counter, b"%d\r\n" % self.counted
        if step % 4 == 3:
            return self.read(self._draw.choice(list(self.values)))
        key = b"w%d-%d" % (self._writer, self._draw.randrange(KEYS))
        value = b"%d:%b" % (step, self._draw.randbytes(self._size // 2).hex().encode())
        self.values[key] = value[:self._size]
        return b"set %b 0 0 %d\r\n%b\r\n" % (key, len(self.values[key]), self.values[key]), STORED

    def read(self, key: bytes) -> tuple[bytes, bytes]:
        return b"get %b\r\n" % key, b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (key, len(self.values[key]), self.values[key])


class StoreChecker(Workload):
    """Requests of one writer, who must have one flow. Replies must come in the order of the requests."""

    def __init__(self, seed: int = 1, size_bytes: int = 256, writer: int = 0) -> None:
        self._made = (seed, size_bytes, writer)
        self._due: deque[tuple[bytes, bytes]] = deque()

    def requests(self) -> Iterator[bytes]:
        steps = _Steps(*self._made)
        while True:
            following = steps.next()
            self._due.append(following)
            yield following[0]

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        asked, right = self._due.popleft()
        if asked != request:
            return f"the reply to {request[:40]!r} came before that to {asked[:40]!r}"
        return None if reply == right else f"{reply[:60]!r} to {request[:40]!r}; right is {right[:60]!r}"


class StoreReadBack(Workload):
    """Reads all that a writer has written in its first `sent` requests, and its counter."""

    def __init__(self, seed: int = 1, size_bytes: int = 256, writer: int = 0, sent: int = 0) -> None:
        steps = _Steps(seed, size_bytes, writer)
        for _ in range(sent):
            steps.next()
        count = b"%d" % steps.counted
        self.right = dict(steps.read(key) for key in steps.values)
        if sent:
            self.right[b"get %b\r\n" % steps.counter] = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (steps.counter, len(count),
                                                                                       count)

    def requests(self) -> Iterator[bytes]:
        while True:
            yield from self.right

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        right = self.right[request]
        return None if reply == right else f"{reply[:60]!r} to {request[:40]!r}; right is {right[:60]!r}"
