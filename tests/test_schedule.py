"""Which of all experiments starts next: what is timed has the machine to itself, what is virtual shares it."""

from __future__ import annotations

import pytest

from experiments.runs.registry import EXPERIMENTS
from experiments.runs.run_options import RunOptions
from experiments.runs.run_plan import PLAN, in_order, planned
from experiments.runs.schedule import Job, job_of, minutes_left, startable, unheeded

OPTIONS = RunOptions()


def job(name: str, beside_others: bool = False, minutes: float = 1.0) -> Job:
    return Job(name, OPTIONS, minutes, beside_others, not beside_others)


A, B, C = job("a"), job("b"), job("c")
V, W, X = (job(name, True) for name in "vwx")


def test_what_is_timed_starts_alone_and_in_order() -> None:
    assert startable([A, B], [], 2) == [A]
    assert startable([B], [A], 2) == [] and startable([V], [A], 2) == []


def test_what_is_virtual_fills_the_cores_also_past_what_has_to_wait() -> None:
    assert startable([V, A, W, X], [], 2) == [V, W]
    assert startable([A, W, X], [V], 2) == []  # A is next: it waits for V, and nobody overtakes it
    assert startable([W, A, X], [V], 2) == [W] and startable([W, X], [V], 4) == [W, X]
    assert startable([W], [V, X], 2) == []


def test_every_job_comes_to_run_and_no_two_timed_ones_at_once() -> None:
    pending, running, seen = [V, A, W, B, X, C], [], []
    while pending or running:
        for one in startable(pending, running, 2):
            pending.remove(one)
            running.append(one)
        assert running and len(running) <= 2
        assert len(running) == 1 or all(one.beside_others for one in running)
        seen.append(running.pop(0).name)
    assert sorted(seen) == sorted("vawbxc")


def test_what_takes_the_result_of_another_waits_for_it() -> None:
    after = Job("after", OPTIONS, 1.0, True, False, after="v")
    assert startable([after, V, W], [], 2) == [V, W] and startable([after, W], [V], 2) == [W]
    assert startable([after], [], 2) == [after]


def test_the_forecast_follows_this_machines_pace() -> None:
    assert minutes_left([A, B], [], 2, []) == 2.0
    assert minutes_left([A, B], [], 2, [(C, 3.0)]) == 6.0  # three times as slow as planned
    assert minutes_left([], [(A, 0.25)], 2, []) == 0.75
    assert minutes_left([V, W], [], 2, []) == 1.0 and minutes_left([V, W, X], [], 2, []) == 1.5
    assert minutes_left([job("v", True, 5.0), W], [], 2, []) == 5.0  # no shorter than the longest


def test_a_quick_run_of_all_plays_the_longest_in_virtual_time_and_a_full_one_on_packets() -> None:
    quick, full = RunOptions(quick=True), RunOptions()
    for name in ("fig6", "fig7"):
        short, long = job_of(EXPERIMENTS[name], quick), job_of(EXPERIMENTS[name], full)
        assert short is not None and short.options.simulate and short.beside_others and not short.needs_root
        assert long is not None and not long.options.simulate and not long.beside_others and long.needs_root


def test_a_simulated_run_leaves_out_what_needs_packets() -> None:
    simulate = RunOptions(simulate=True)
    kept = {name for name, one in EXPERIMENTS.items() if job_of(one, simulate) is not None}
    assert {"queue", "fig6", "fig7", "channel-torture"} <= kept and not {"ecmp", "tcp", "table1"} & kept
    assert not any(found.needs_root for one in EXPERIMENTS.values() if (found := job_of(one, simulate)))


def test_a_time_scale_goes_to_those_that_heed_it_and_the_others_are_named() -> None:
    options = RunOptions(time_scale=200.0, retry=2)
    table1, tcp = job_of(EXPERIMENTS["table1"], options), job_of(EXPERIMENTS["tcp"], options)
    assert table1 is not None and (table1.options.time_scale, table1.options.retry) == (200.0, 2)
    assert tcp is not None and (tcp.options.time_scale, tcp.options.retry) == (None, 0)
    first, second = unheeded(list(EXPERIMENTS.values()), options)
    assert first.startswith("--time-scale") and "tcp" in first and "table1" not in first
    assert second.startswith("--retry") and unheeded([EXPERIMENTS["tcp"]], OPTIONS) == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_job_is_one_that_its_experiment_honours(name: str) -> None:
    for options in (RunOptions(), RunOptions(quick=True), RunOptions(quick=True, simulate=True),
                    RunOptions(time_scale=50.0, retry=1)):
        found = job_of(EXPERIMENTS[name], options)
        if found is not None:
            EXPERIMENTS[name].refuse(found.options)


def test_the_plan_knows_every_experiment_and_puts_unknown_ones_last() -> None:
    assert set(EXPERIMENTS) <= set(PLAN)
    assert all(order.index(one.after) < order.index(name) for order in [list(PLAN)] for name, one in PLAN.items()
               if one.after)
    assert in_order(["new", "fig11", "ecmp"]) == ["ecmp", "fig11", "new"]
    assert planned("new").needs_root and planned("new").quick_minutes > 0
    assert set(in_order(list(EXPERIMENTS))) == set(EXPERIMENTS)


def test_in_a_quick_run_all_that_plays_in_virtual_time_stands_together_so_that_no_core_idles_beside_it() -> None:
    jobs = [job for name in in_order(list(EXPERIMENTS)) if (job := job_of(EXPERIMENTS[name], RunOptions(quick=True)))]
    virtual = [number for number, job in enumerate(jobs) if job.beside_others]
    assert len(virtual) >= 7 and virtual == list(range(virtual[0], virtual[-1] + 1))
