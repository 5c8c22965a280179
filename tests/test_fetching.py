"""What is fetched in chunks: all of it arrives, only what was asked for is taken, and nothing too large is begun."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.control_messages import MAX_CHUNK, Chunk, Fetch
from nodes.fetching import ASK_AGAIN_S, WINDOW, Fetcher, chunk_of, digest_of


@settings(deadline=None)
@given(st.integers(0, 10**6), st.sampled_from((0, 1, MAX_CHUNK - 1, MAX_CHUNK, MAX_CHUNK + 1, 40 * MAX_CHUNK + 7)))
def test_everything_is_fetched_whatever_the_network_does(seed: int, size: int) -> None:
    draw = random.Random(seed)
    data = draw.randbytes(size)
    fetcher = Fetcher(b"1234", digest_of(data), size)
    under_way: list[Chunk] = []
    now = 0.0
    for _ in range(3000):
        if fetcher.complete:
            break
        asked = fetcher.ask(now)
        assert len(asked) <= WINDOW
        for fetch in asked:
            for _ in range(draw.choices((0, 1, 2), (0.3, 0.6, 0.1))[0]):
                chunk = chunk_of(data, fetch)
                assert chunk is not None
                under_way.insert(draw.randint(0, len(under_way)), chunk)
        for _ in range(draw.randint(0, 8)):
            if under_way:
                fetcher.take(b"1234", under_way.pop())
        now += ASK_AGAIN_S / 3
    assert fetcher.complete and not fetcher.wrong and fetcher.data() == data and not fetcher.ask(now + 9)


def test_chunks_that_were_not_asked_for_are_not_taken() -> None:
    data = bytes(3 * MAX_CHUNK)
    fetcher = Fetcher(b"1234", digest_of(data), len(data))
    fetcher.ask(0.0)
    good = Chunk(digest_of(data), 0, data[:MAX_CHUNK])
    assert not fetcher.take(b"9999", good)
    assert not fetcher.take(b"1234", Chunk(bytes(16), 0, data[:MAX_CHUNK]))
    assert not fetcher.take(b"1234", Chunk(digest_of(data), 1, data[:MAX_CHUNK]))
    assert not fetcher.take(b"1234", Chunk(digest_of(data), 0, data[:MAX_CHUNK - 1]))
    assert fetcher.take(b"1234", good) and not fetcher.take(b"1234", good)


@pytest.mark.parametrize("fetch", [Fetch(bytes(16), 1), Fetch(bytes(16), MAX_CHUNK), Fetch(bytes(16), 0, b"x")])
def test_a_fetch_of_what_is_not_there_gets_nothing(fetch: Fetch) -> None:
    assert chunk_of(b"abc", fetch) is None
