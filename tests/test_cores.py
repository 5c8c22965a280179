"""Virtual cores, which are busy, awake or asleep, and the histogram of how late things were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.cores import NEVER, Cores
from nodes.lateness import Lateness, LatenessSummary, summary


def test_a_request_starts_when_it_came_or_when_a_core_is_free() -> None:
    cores = Cores(2)
    assert [cores.occupy("kvs", 1.0, 2.0) for _ in range(3)] == [(1.0, 3.0), (1.0, 3.0), (3.0, 5.0)]
    assert not cores.is_idle(2.9) and cores.is_idle(3.0)


def test_the_core_that_has_been_idle_the_longest_is_the_next_in_turn() -> None:
    cores = Cores(3)
    for ready, busy_s in ((0.0, 3.0), (0.0, 1.0), (0.0, 2.0)):  # cores 0, 1, 2 are free again at 3, 1, 2
        cores.occupy("kvs", ready, busy_s)
    for core in (1, 2, 0):
        cores.occupy("kvs", 10.0, 1.0)
        assert cores.free_at[core] == 11.0
    assert cores.free_at == (11.0, 11.0, 11.0)


def test_busy_time_is_by_microservice_and_complete() -> None:
    cores = Cores(2)
    cores.occupy("kvs", 0.0, 2e-6)
    cores.occupy("sql", 0.0, 5e-6)
    cores.occupy("kvs", 0.0, 2e-6)
    cores.note_busy("sql", 1e-6)
    assert cores.counters() == {"busy_ns kvs": 4000, "busy_ns sql": 6000}


def test_a_core_that_runs_out_of_work_is_awake_for_a_while_and_then_asleep() -> None:
    cores = Cores(1, sleep_after_s=0.5)
    cores.occupy("kvs", 0.0, 1.0)
    cores.occupy("sql", 1.2, 1.0)  # 0.2 s awake, before a request of SQL
    cores.occupy("kvs", 9.0, 1.0)  # 6.8 s idle, of which 0.5 awake
    assert cores.lull_s == {"sql": pytest.approx(0.2), "kvs": 0.5}


def test_a_core_that_goes_from_request_to_request_has_no_lull() -> None:
    cores = Cores(1, sleep_after_s=0.5)
    for _ in range(3):
        cores.occupy("kvs", 0.0, 1.0)
    assert cores.lull_s == {}


def test_a_core_that_had_no_request_yet_slept_until_its_first() -> None:
    cores = Cores(4, sleep_after_s=0.5)
    for core in range(4):
        assert cores.free_at[core] == NEVER
        cores.occupy("kvs", 100.0, 1.0)
    assert cores.lull_s == {} and cores.free_at == (101.0,) * 4


@given(st.integers(1, 5), st.floats(0.0, 2.0),
       st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 3.0)), min_size=1, max_size=60))
def test_cores_are_work_conserving_and_their_time_adds_up(count: int, sleep_after_s: float,
                                                          steps: list[tuple[float, float]]) -> None:
    cores = Cores(count, sleep_after_s)
    now, spans = 0.0, []
    for gap_s, busy_s in steps:
        now += gap_s
        free = cores.free_at
        start, finish = cores.occupy("kvs", now, busy_s)
        assert start == max(now, min(free))  # none waits beside an idle core
        assert finish == start + busy_s
        spans.append((start, finish))
    for start, _ in spans:
        assert sum(s <= start < f for s, f in spans) <= count
    idle_s = count * max(f for _, f in spans) - sum(busy for _, busy in steps)
    assert cores.busy_s["kvs"] == pytest.approx(sum(busy for _, busy in steps))
    assert 0.0 <= cores.lull_s.get("kvs", 0.0) <= min(idle_s, len(steps) * sleep_after_s) + 1e-9


# -- lateness --------------------------------------------------------------------------------------------------

def recorded(*late_s: float) -> dict[str, int]:
    lateness = Lateness()
    for one in late_s:
        lateness.record(one)
    return lateness.counters("late")


def test_nothing_counted_is_all_zero() -> None:
    assert summary("late", {}) == summary("late", {"turn below_ns 5": 3}) == LatenessSummary()


def test_what_was_early_or_in_time_counts_as_not_late_at_all() -> None:
    assert summary("late", recorded(-1.0, 0.0, 1e-9)) == LatenessSummary(3, 0, 0, 0)


def test_the_smallest_lateness_does_not_hide_what_was_in_time() -> None:
    counters = recorded(*[0.0] * 50, 1.05e-9, 1.3e-9, 1.6e-9, 2.5e-9)
    assert sum(counters.values()) == 54
    assert summary("late", counters) == LatenessSummary(54, 0, 3, 3)


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=200))
def test_percentiles_are_never_too_low_and_at_most_a_fifth_too_high(late_s: list[float]) -> None:
    found = summary("late", recorded(*late_s))
    assert found.count == len(late_s)
    ordered = sorted(one * 1e9 for one in late_s)
    for said, share in ((found.p50_ns, 0.5), (found.p99_ns, 0.99), (found.max_ns, 1.0)):
        rank = next(i for i in range(len(ordered)) if i + 1 >= share * len(ordered) - 1e-9)
        exact = ordered[rank]
        assert (said == 0 and exact <= 1.0 + 1e-6) or exact * (1 - 1e-9) <= said <= exact * 1.1893 + 1


def test_two_reports_differ_by_what_happened_between_them() -> None:
    lateness = Lateness()
    for _ in range(1000):
        lateness.record(5.0)
    before = lateness.counters("late")
    for late_s in (*[1e-6] * 98, 1e-3, 1e-3):
        lateness.record(late_s)
    found = summary("late", lateness.counters("late"), before)
    assert found.count == 100
    assert 1000 <= found.p50_ns <= 1190 and 1_000_000 <= found.p99_ns == found.max_ns <= 1_190_000


def test_names_do_not_mix() -> None:
    counters = {**recorded(1e-3), **{name.replace("late", "turn"): n for name, n in recorded(1e-6, 1e-6).items()}}
    assert (summary("late", counters).count, summary("turn", counters).count) == (1, 2)
