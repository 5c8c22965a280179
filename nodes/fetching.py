"""Fetches bytes that are known by their digest, chunk by chunk, over a network that loses, doubles and reorders.

Who fetches asks, and asks again; who is asked holds nothing but the bytes. At the end the digest is compared, so what
is complete is also right.
"""

from __future__ import annotations

from hashlib import blake2b

from nodes.control_messages import DIGEST_BYTES, MAX_CHUNK, Chunk, Fetch

WINDOW = 16  # chunks asked for and not there yet
ASK_AGAIN_S, MOST_ASK_AGAIN_S = 0.01, 0.08  # ours: at first, and after some times


def digest_of(data: bytes | bytearray) -> bytes:
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def chunk_of(data: bytes, fetch: Fetch) -> Chunk | None:
    """Return what `fetch` asks for out of `data`; None where it asks for what is not there."""
    if fetch.payload or fetch.offset % MAX_CHUNK or fetch.offset >= max(1, len(data)):
        return None
    return Chunk(fetch.digest, fetch.offset, data[fetch.offset:fetch.offset + MAX_CHUNK])


class Fetcher:
    """Fetches `size` bytes of `digest` from the node at `source`."""

    def __init__(self, source: bytes, digest: bytes, size: int) -> None:
        self.source = source
        self.digest = digest
        self.size = size
        self.got = 0
        self.wrong = False  # all has come, and it is not what it should be
        self._data = bytearray(size)
        self._next = 0
        self._asked: dict[int, tuple[float, float]] = {}  # offset: when to ask again, and how long after that once more

    def ask(self, now: float) -> list[Fetch]:
        """Return what to ask for at `now`: new chunks as far as the window goes, and those asked for too long ago."""
        if self.complete:
            return []
        while len(self._asked) < WINDOW and (self._next < self.size or (not self.size and not self._asked)):
            self._asked[self._next] = (now, ASK_AGAIN_S)
            self._next += MAX_CHUNK
        due = [offset for offset, (at, _) in self._asked.items() if at <= now]
        for offset in due:
            wait_s = self._asked[offset][1]
            self._asked[offset] = (now + wait_s, min(2 * wait_s, MOST_ASK_AGAIN_S))
        return [Fetch(self.digest, offset) for offset in due]

    def due(self) -> float | None:
        return min(at for at, _ in self._asked.values()) if self._asked else None

    def take(self, source: bytes, chunk: Chunk) -> bool:
        """Take a chunk; return whether it was one that was asked for."""
        wanted = min(MAX_CHUNK, self.size - chunk.offset)
        if (source, chunk.digest) != (self.source, self.digest) or chunk.offset not in self._asked \
                or len(chunk.payload) != wanted:
            return False
        del self._asked[chunk.offset]
        self._data[chunk.offset:chunk.offset + wanted] = chunk.payload
        self.got += wanted
        if self.complete:
            self.wrong = digest_of(self._data) != self.digest
        return True

    @property
    def complete(self) -> bool:
        return self.got == self.size and not self._asked and (self.size > 0 or self._next > 0)

    def data(self) -> bytes:
        return bytes(self._data)
