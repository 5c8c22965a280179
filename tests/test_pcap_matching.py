"""Joining a packet's two sightings, in bounded memory."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.captures.packet_matching import REMEMBERED, Matcher, Sighting


def sighting(time_ns: int, port: int = 0) -> Sighting:
    return Sighting(time_ns, port, 1, b"flow", 64)


def settled(matcher: Matcher) -> tuple[int, int, int]:
    kinds = [tuple(map(len, matcher.next_window())) for _ in range(2)]
    return tuple(map(sum, zip(*kinds, strict=True)))  # type: ignore[return-value]


def test_the_oldest_of_equal_packets_is_taken_first() -> None:
    matcher = Matcher()
    matcher.arrived(1, sighting(10))
    matcher.next_window()
    matcher.arrived(1, sighting(20))
    assert [matcher.left(1, sighting(t)).time_ns for t in (30, 31)] == [10, 20]


def test_an_arrival_lives_at_least_one_window_and_at_most_two() -> None:
    matcher = Matcher()
    matcher.arrived(1, sighting(10))
    assert matcher.next_window().never_left == []
    assert matcher.next_window().never_left == [sighting(10)]
    assert matcher.waiting() == 0


def test_memory_does_not_grow_with_packets_that_match() -> None:
    matcher = Matcher()
    for i in range(5 * REMEMBERED):
        matcher.arrived(i, sighting(i))
        assert matcher.left(i, sighting(i)) is not None
    assert matcher.waiting() == 0
    assert len(matcher._matched) + len(matcher._matched_before) <= 2 * REMEMBERED


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60), st.integers(0, 2**32))
def test_matches_and_leftovers_are_those_of_two_multisets(events: list[tuple[int, bool]], seed: int) -> None:
    random.Random(seed).shuffle(events)
    matcher, matched = Matcher(), 0
    for time_ns, (identity, arrives) in enumerate(events):
        note = matcher.arrived if arrives else matcher.left
        matched += note(identity, sighting(time_ns)) is not None
    came = Counter(i for i, arrives in events if arrives)
    left = Counter(i for i, arrives in events if not arrives)
    never_left, duplicated, never_came = settled(matcher)
    assert matched == (came & left).total()
    assert never_left == (came - left).total()
    assert duplicated + never_came == (left - came).total()
