"""The checker of a store finds a lost write, a request that was done twice, and one that was overtaken."""

from __future__ import annotations

from itertools import islice

import pytest

from experiments.clients.store_checker import StoreChecker, StoreReadBack
from microservices.applications import application_named
from microservices.direct import DirectRun

STORE = application_named("kvs", 1, 0)


def right(count: int, writer: int = 3) -> tuple[StoreChecker, list[tuple[bytes, bytes]], DirectRun]:
    """Return a checker, its first requests with the replies of a store that does nothing wrong, and that store."""
    checker, store = StoreChecker(5, 64, writer), DirectRun(STORE)
    return checker, [(request, store.ask(request).payload) for request in islice(checker.requests(), count)], store


def complaints(checker: StoreChecker, replies: list[tuple[bytes, bytes]]) -> list[str]:
    return [said for request, reply in replies if (said := checker.check_reply(request, reply)) is not None]


def test_a_store_that_does_nothing_wrong_gets_no_complaint() -> None:
    checker, replies, store = right(3000)
    assert complaints(checker, replies) == []
    back = StoreReadBack(5, 64, 3, 3000)
    assert len(back.right) > 300
    assert all(back.check_reply(request, store.ask(request).payload) is None for request in back.right)


def test_two_writers_do_not_disturb_each_other() -> None:
    store = DirectRun(STORE)
    checkers = [StoreChecker(1, 64, writer) for writer in (1, 2)]
    streams = [checker.requests() for checker in checkers]
    for i in range(2000):
        which = i * i % 3 % 2
        request = next(streams[which])
        assert checkers[which].check_reply(request, store.ask(request).payload) is None


def test_a_request_that_was_done_twice_is_found_at_the_next_count() -> None:
    checker, replies, _ = right(400)
    store = DirectRun(STORE)
    again = [(request, (store.ask(request), store.ask(request) if i == 200 else None)[0].payload)
             for i, (request, _) in enumerate(replies)]
    assert b"incr" in replies[200][0] and len(complaints(checker, again)) > 0


@pytest.mark.parametrize("verb", [b"set", b"incr"])
def test_a_write_that_was_acknowledged_and_lost_is_found_by_reading_back(verb: bytes) -> None:
    _, replies, _ = right(400)
    lost = max(i for i, (request, _) in enumerate(replies) if request.startswith(verb))
    store = DirectRun(STORE)
    for i, (request, _) in enumerate(replies):
        if i != lost:
            store.ask(request)
    back = StoreReadBack(5, 64, 3, 400)
    wrong = [request for request in back.right if back.check_reply(request, store.ask(request).payload) is not None]
    assert [request.split()[1] for request in wrong] == [replies[lost][0].split()[1]]


def test_a_state_that_was_rolled_back_is_found() -> None:
    _, replies, _ = right(200)
    store = DirectRun(STORE)
    for request, _ in replies[:100]:
        store.ask(request)
    for request, _ in replies[120:]:  # 100 to 119 were acknowledged, and forgotten
        store.ask(request)
    back = StoreReadBack(5, 64, 3, 200)
    assert any(back.check_reply(request, store.ask(request).payload) is not None for request in back.right)


def test_replies_out_of_order_are_found_even_if_each_is_right() -> None:
    checker, replies, _ = right(50)
    replies[20], replies[21] = replies[21], replies[20]
    assert any("came before" in said for said in complaints(checker, replies))
