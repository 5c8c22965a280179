"""The emulated clock, waiting to the microsecond, and the line that holds messages until their way is over."""

from __future__ import annotations

import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.delay_line import DelayLine
from nodes.emulated_clock import LEAST_TIME_SCALE, MOST_TIME_SCALE, EmulatedClock, started_now
from nodes.errors import NodeError
from nodes.messages import ChannelId
from nodes.readiness import FEW, LEAST_REST_REAL_S, REST_S, Readiness, rest_at

CHANNEL, OTHER = ChannelId(1, 2, 3), ChannelId(1, 2, 4)


# -- the clock -------------------------------------------------------------------------------------------------

@pytest.fixture
def monotonic(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The real time, to be set."""
    shown = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: shown[0])
    return shown


def test_an_emulated_second_lasts_as_many_real_ones_as_the_time_scale_says(monotonic: list[float]) -> None:
    clock = started_now(400.0)
    now = clock.reader()
    assert now() == 0.0
    monotonic[0] += 400.0
    assert now() == 1.0


def test_all_who_are_told_the_same_clock_read_the_same(monotonic: list[float]) -> None:
    clock = started_now(8.0)
    monotonic[0] += 3.0
    later = EmulatedClock(clock.start_s, clock.time_scale)  # as another process is told it
    assert later.reader()() == clock.reader()() == 3.0 / 8.0


@pytest.mark.parametrize("scale", [0.0, -1.0, LEAST_TIME_SCALE / 2, MOST_TIME_SCALE * 2, math.nan, math.inf])
def test_a_time_scale_that_no_run_can_have_is_refused_with_the_limits(scale: float) -> None:
    with pytest.raises(NodeError, match=r"time scale .*0\.001 and 1e\+06"):
        EmulatedClock(0.0, scale)


# -- waiting ---------------------------------------------------------------------------------------------------

@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """More pairs of sockets than one call of select is given."""
    made = [socket.socketpair() for _ in range(FEW + 1)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


def readiness_of(pairs: list[tuple[socket.socket, socket.socket]], rest_s: float = 0.0) -> Readiness:
    readiness = Readiness(rest_s)
    for end, _ in pairs:
        readiness.register(end)
    return readiness


@pytest.mark.parametrize("count", [1, FEW, FEW + 1])
def test_what_can_be_read_is_found_however_many_are_watched(pairs: list[tuple[socket.socket, socket.socket]],
                                                            count: int) -> None:
    watched = pairs[:count]
    readiness = readiness_of(watched)
    assert readiness.wait(0.0) == []
    for _, other in (watched[0], watched[-1]):
        other.send(b"x")
    wanted = {watched[0][0].fileno(), watched[-1][0].fileno()}
    assert set(readiness.wait(1.0)) == set(readiness.wait(0.0)) == wanted


@pytest.mark.parametrize("count", [1, FEW + 1])
def test_a_wait_of_less_than_a_millisecond_is_neither_none_nor_a_whole_one(
        pairs: list[tuple[socket.socket, socket.socket]], count: int) -> None:
    readiness = readiness_of(pairs[:count])
    took = []
    for _ in range(50):
        began = time.perf_counter()
        assert readiness.wait(0.0003) == []
        took.append(time.perf_counter() - began)
    assert min(took) >= 0.0003
    assert sorted(took)[5] < 0.0009  # epoll alone would take 1 ms; the slower ones are the machine's


@pytest.mark.parametrize("count", [1, FEW + 1])
def test_what_was_due_already_is_not_waited_for(pairs: list[tuple[socket.socket, socket.socket]], count: int) -> None:
    began = time.perf_counter()
    assert readiness_of(pairs[:count]).wait(-5.0) == []
    assert time.perf_counter() - began < 0.5


def test_between_two_looks_lies_the_rest_even_if_there_is_something_to_read(
        pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    readiness = readiness_of(pairs[:1], rest_s=0.005)
    pairs[0][1].send(b"x")
    readiness.wait(1.0)
    began = time.perf_counter()
    for _ in range(4):
        assert readiness.wait(0.0)
    assert time.perf_counter() - began >= 4 * 0.005 * 0.98


def test_a_wait_that_is_longer_than_the_rest_does_not_become_longer(
        pairs: list[tuple[socket.socket, socket.socket]], monkeypatch: pytest.MonkeyPatch) -> None:
    readiness = readiness_of(pairs[:1], rest_s=0.005)
    readiness.wait(0.0)
    slept: list[float] = []
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(readiness, "_wait", lambda timeout_s: waited.append(timeout_s) or [])
    readiness.wait(0.02)
    assert 0.0 < slept[0] <= 0.005 and slept[0] + waited[0] == pytest.approx(0.02)


def test_who_plays_fast_does_not_rest_and_who_plays_slowly_rests_as_long_in_emulated_time() -> None:
    assert rest_at(1.0) == rest_at(0.99 * LEAST_REST_REAL_S / REST_S) == 0.0
    assert rest_at(400.0) == pytest.approx(400.0 * REST_S)
    assert rest_at(800.0) == 2 * rest_at(400.0)


def test_a_descriptor_that_was_closed_at_the_other_end_can_be_read() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        readiness = Readiness()
        readiness.register(reader)
        os.close(write)
        assert readiness.wait(1.0) == [read]


# -- the delay line --------------------------------------------------------------------------------------------

def test_a_message_counts_as_arrived_when_its_way_is_over_and_not_before() -> None:
    line = DelayLine[str]()
    arrival = line.arrival_of(CHANNEL, 1.0, 0.25)
    line.put(arrival, "a")
    assert (arrival, line.due(), line.empty) == (1.25, 1.25, False)
    assert list(line.due_by(1.2499)) == []
    assert list(line.due_by(1.3)) == [(1.25, "a")]  # at its own time, not at that of the look
    assert line.due() is None and line.empty


@pytest.mark.parametrize("rest_s", [0.0, -3.0])
def test_what_was_longer_under_way_than_its_way_takes_has_arrived_now(rest_s: float) -> None:
    assert DelayLine[str]().arrival_of(CHANNEL, 7.0, rest_s) == 7.0


def test_a_later_message_of_a_channel_does_not_overtake_and_one_of_another_does() -> None:
    line = DelayLine[str]()
    slow = line.arrival_of(CHANNEL, 0.0, 2.0)
    assert line.arrival_of(CHANNEL, 1.0, 0.0) == slow == 2.0
    assert line.arrival_of(OTHER, 1.0, 0.5) == 1.5
    assert line.arrival_of(CHANNEL, 2.5, 0.0) == 2.5  # what came before has arrived meanwhile


def test_what_arrives_at_one_time_keeps_the_order_in_which_it_came() -> None:
    line = DelayLine[object]()
    things = [object() for _ in range(20)]  # which cannot be compared: the order must be decided without
    for thing in things:
        line.put(1.0, thing)
    assert [held for _, held in line.due_by(1.0)] == things


@given(st.lists(st.tuples(st.sampled_from([CHANNEL, OTHER]), st.floats(0.0, 2.0), st.floats(-1.0, 5.0)), max_size=40))
def test_every_message_arrives_once_in_its_channel_s_order_and_never_early(
        steps: list[tuple[ChannelId, float, float]]) -> None:
    line = DelayLine[tuple[ChannelId, int]]()
    now, came, arrived = 0.0, {}, []
    for number, (channel, pause_s, rest_s) in enumerate(steps):
        now += pause_s
        arrived += list(line.due_by(now))
        arrival = line.arrival_of(channel, now, rest_s)
        came[number] = (channel, now + max(0.0, rest_s))
        line.put(arrival, (channel, number))
    arrived += list(line.due_by(math.inf))
    by_channel = defaultdict(list)
    for at, (channel, number) in arrived:
        assert came[number][0] is channel and at >= came[number][1]
        by_channel[channel].append((at, number))
    assert sorted(number for _, (_, number) in arrived) == list(range(len(steps))) and line.empty
    for found in by_channel.values():
        assert found == sorted(found) and [n for _, n in found] == sorted(n for _, n in found)
        latest = 0.0  # none waits for anything but its own way and those before it
        for at, number in found:
            latest = max(latest, came[number][1])
            assert at == latest
