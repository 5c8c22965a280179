"""Requests to a key-value store on keys that all writers share, and the judgement of what they all saw."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from experiments.clients.linearizability import Operation, Verdict, check_store, read_exchange
from experiments.clients.load import ClientResult
from microservices.workload import Workload

SHARED = "experiments.clients.shared_store:SharedStore"
KEYS = 32


class SharedStore(Workload):
    """Reads, writes, counts and deletions on so many `keys` of `space`; every value that is written is another one.

    What a reply must be depends on everybody: `judged` says it, of the clients' histories. Here only that it is one.
    """

    def __init__(self, seed: int = 1, size_bytes: int = 64, writer: int = 0, space: int = 0,
                 keys: int = KEYS) -> None:
        self._drawn_as = f"shared {seed} {writer}"
        self._size = size_bytes
        self._writer = writer
        self._space = space
        self._keys = keys

    def requests(self) -> Iterator[bytes]:
        draw, count, space = random.Random(self._drawn_as), 0, self._space
        while True:
            count += 1
            key, dice = draw.randrange(self._keys), draw.random()
            value = b"%d.%d." % (self._writer, count)
            value += b"." * max(0, self._size - len(value))
            if dice < 0.4:
                yield b"get x%d-%d\r\n" % (space, key)
            elif dice < 0.7:
                yield b"%b x%d-%d 0 0 %d\r\n%b\r\n" % (b"add" if dice < 0.5 else b"set", space, key, len(value), value)
            elif dice < 0.75:
                yield b"delete x%d-%d\r\n" % (space, key)
            elif dice < 0.8:
                yield b"add n%d-%d 0 0 1\r\n0\r\n" % (space, key % 4)
            else:
                yield b"incr n%d-%d 1\r\n" % (space, key % 4)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        return None if reply.endswith(b"\r\n") else f"{reply[:60]!r} to {request[:40]!r}"


def judged(results: Iterable[ClientResult]) -> Verdict:
    """Judge the histories of all clients of a store that was empty at first."""
    history: list[tuple[bytes, Operation]] = []
    for result in results:
        for exchange in result.history:
            key, what, said = read_exchange(exchange.request, exchange.reply)
            history.append((key, Operation(exchange.asked_s, exchange.answered_s, what, said)))
    return check_store(history)
