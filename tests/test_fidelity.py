"""The fidelity verdict: what it refuses, what it says, and where it sends a run that was refused."""

from __future__ import annotations

import math
import os
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.errors import ExperimentError
from experiments.measurement.fidelity import (
    MOST_TIME_SCALE,
    FidelityLimits,
    Observed,
    Verdict,
    combined,
    judge,
    next_time_scale,
)
from experiments.measurement.machine_load import LoadMeter, machine_times, thread_times

FAITHFUL = {"overruns": 10, "overrun_ns": 20_000_000, "finishes": 1000, "late_p50_ns": 50_000,
            "late_p99_ns": 250_000, "late_max_ns": 9_000_000, "turn_p50_ns": 1000, "turn_p99_ns": 250_000,
            "turn_max_ns": 2_000_000, "dropped_socket": 0, "throttled_ns": 0}
REQUESTS = 1000
CLIENT = {"late_p50_ns": 1000, "late_p99_ns": 2000, "turn_p99_ns": 2000}


def observed(drops: dict[str, int] | None = None, machine_cpu: float = 0.95, **counters: int) -> Observed:
    """A run whose mean latency is 1 ms, all at its limit unless told otherwise."""
    sources = {"s1n1": {**FAITHFUL, **counters}, "c1": CLIENT}
    return Observed(sources, 1e-3, REQUESTS, drops or {}, machine_cpu, 1.0, "s1n1")


def test_a_run_at_all_its_limits_holds() -> None:
    verdict = judge(observed())
    assert verdict.holds and not verdict.reasons and len(verdict.figures) == 8


@pytest.mark.parametrize(("counters", "words"), [
    ({"overrun_ns": 21_000_000}, ["overruns per request at s1n1", "21 us", "limit is 20 us"]),
    ({"late_p50_ns": 51_000}, ["lateness p50 at s1n1", "51 us", "50 us"]),
    ({"late_p99_ns": 2_000_000}, ["lateness p99 at s1n1", "2 ms", "250 us"]),
    ({"turn_p99_ns": 300_000}, ["turn of a loop p99 at s1n1", "300 us", "250 us"]),
    ({"dropped_socket": 3}, ["dropped", "s1n1's sockets", "3", "none is allowed"]),
    ({"throttled_ns": 7_000_000}, ["throttled", "s1n1", "7 ms", "none is allowed"]),
])
def test_each_counter_over_its_limit_is_a_reason_with_place_value_and_limit(counters: dict[str, int],
                                                                             words: list[str]) -> None:
    verdict = judge(observed(**counters))
    (reason,) = verdict.reasons
    assert not verdict.holds and all(word in reason for word in words), reason


def test_drops_in_the_switch_and_a_saturated_machine_are_reasons() -> None:
    verdict = judge(observed({"tor1-c1": 2, "tor1-s1n1": 5, "tor1-s2n1": 0}, machine_cpu=0.97))
    assert verdict.reasons == ("frames dropped outside the modelled queues at tor1-s1n1, tor1-c1: 7, none is allowed",
                               "CPU of the machine: 97 %, the limit is 95 %")


def test_of_several_nodes_the_worst_is_named() -> None:
    verdict = judge(Observed({"s1n1": FAITHFUL, "s2n1": {**FAITHFUL, "late_p50_ns": 70_000}}, 1e-3, 2 * REQUESTS))
    assert verdict.reasons == ("lateness p50 at s2n1: 70 us, the limit is 50 us",)


def test_overruns_count_by_what_all_nodes_together_add_to_a_request_however_many_they_are() -> None:
    nodes = {"s1n1": {**FAITHFUL, "overruns": 900, "overrun_ns": 8_000_000},
             "s2n1": {**FAITHFUL, "overruns": 2, "overrun_ns": 13_000_000}}
    assert judge(Observed(nodes, 1e-3, 1050)).holds
    assert judge(Observed(nodes, 1e-3, 1000)).reasons == ("overruns per request at s2n1: 21 us, the limit is 20 us",)


def test_what_nobody_measured_is_not_held_to_be_good() -> None:
    for nothing in (Observed({}, 1e-3, 1), Observed({"s1n1": {"finishes": 5}}, 1e-3, 1),
                    Observed({"c1": CLIENT}, 0.0, 1), Observed({"c1": CLIENT}, math.nan, 1)):
        verdict = judge(nothing)
        assert not verdict.holds and len(verdict.reasons) == 1, verdict.reasons
        assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict
        assert next_time_scale(verdict, 3.0) == 6.0


def test_an_experiment_sets_its_own_limits() -> None:
    late = observed(late_p99_ns=400_000)
    assert not judge(late).holds and judge(late, FidelityLimits(late_p99_share=0.5)).holds
    assert not judge(observed(), FidelityLimits(process_cpu=0.9)).holds


def test_a_verdict_goes_into_a_manifest_and_comes_back() -> None:
    verdict = judge(observed(overrun_ns=900_000_000, throttled_ns=1))
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_a_run_of_several_parts_holds_if_all_do_and_names_the_part() -> None:
    good, bad = judge(observed()), judge(observed(overrun_ns=900_000_000))
    assert combined({"a": good, "b": good}).holds and not combined({}).holds
    both = combined({"a": good, "b": bad})
    assert both.reasons == ("b: overruns per request at s1n1: 900 us, the limit is 20 us",)
    assert both.figure("overruns per request").where == "b s1n1"  # type: ignore[union-attr]


def test_the_next_time_scale_comes_from_the_worst_ratio() -> None:
    assert next_time_scale(judge(observed()), 10.0) == 10.0
    assert next_time_scale(judge(observed(late_p99_ns=500_000, late_p50_ns=60_000)), 10.0) == 25.0
    assert next_time_scale(judge(observed(dropped_socket=1)), 10.0) == 20.0
    assert next_time_scale(judge(observed(machine_cpu=1.0)), 10.0) == 20.0
    assert next_time_scale(judge(observed(late_p99_ns=10**9)), 10.0) == 80.0
    assert next_time_scale(judge(Observed({}, 0.0, 0)), 10.0) is not None


@given(st.integers(0, 10**10), st.integers(0, 1000), st.floats(1, MOST_TIME_SCALE))
def test_the_next_time_scale_is_larger_and_bounded(late: int, drops: int, time_scale: float) -> None:
    verdict = judge(observed(late_p99_ns=late, dropped_socket=drops))
    found = next_time_scale(verdict, time_scale)
    if verdict.holds:
        assert found == time_scale
    elif time_scale >= MOST_TIME_SCALE:
        assert found is None
    else:
        assert found is not None and time_scale < found <= MOST_TIME_SCALE


def test_lateness_that_goes_with_the_time_scale_is_cured_in_few_tries() -> None:
    time_scale, tries = 1.0, 0
    while not (verdict := judge(observed(late_p99_ns=int(90e6 / time_scale)))).holds:
        time_scale, tries = next_time_scale(verdict, time_scale) or 0.0, tries + 1
    assert 360 <= time_scale <= 720 and tries <= 4


def test_a_time_scale_of_nothing_is_refused() -> None:
    with pytest.raises(ExperimentError, match="time scale 0"):
        next_time_scale(judge(observed()), 0.0)


def test_the_load_is_read_from_the_differences_of_proc(tmp_path: Path) -> None:
    def write(cpu: str, used: int) -> None:
        (tmp_path / "stat").write_text(f"cpu  {cpu} 0 0\ncpu0 1 2 3\n")
        task = tmp_path / "42" / "task" / "43"
        task.mkdir(parents=True, exist_ok=True)
        (task / "stat").write_text(f"43 (an (odd) name) S 1 1 1 0 -1 0 0 0 0 0 {used} 5 0 0 20 0 1 0 100\n")

    write("100 0 100 800 0 0 0 0", 10)
    assert (machine_times(tmp_path).busy, machine_times(tmp_path).total) == (200, 1000)
    assert thread_times(42, tmp_path) == {43: 15} and thread_times(41, tmp_path) == {}
    meter = LoadMeter({"s1n1": 42, "gone": 41}, tmp_path)
    write("110 0 120 820 10 0 20 20", 10**6)
    load = meter.read()
    assert load.machine_cpu == pytest.approx(70 / 100) and load.busiest_process == "s1n1" and load.process_cpu == 1.0


def test_a_busy_thread_shows_in_the_load() -> None:
    stop = threading.Event()
    meter = LoadMeter({"this test": os.getpid()})
    worker = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    worker.start()
    time.sleep(0.3)
    load = meter.read()
    stop.set()
    worker.join()
    assert load.busiest_process == "this test" and load.process_cpu > 0.1 and 0 < load.machine_cpu <= 1


def test_a_proc_of_another_form_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "stat").write_text("intr 5\n")
    with pytest.raises(ExperimentError, match="intr 5"):
        machine_times(tmp_path)


def test_where_the_testbed_s_own_cpu_is_known_that_is_judged_and_not_what_runs_beside_it() -> None:
    base = Observed({"s1n1": {"late_p99_ns": 1}}, 1e-3, 1, machine_cpu=1.0)
    assert not judge(base).holds
    beside = judge(msgspec.structs.replace(base, own_cpu=0.4))
    assert beside.holds and beside.figure("CPU of the machine") is not None
    full = judge(msgspec.structs.replace(base, own_cpu=0.99))
    assert not full.holds and "CPU used by the testbed" in full.reasons[0]
