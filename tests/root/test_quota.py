"""The quota model: whoever computes in a SmartNIC's namespace gets its share of the machine and no more."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator

import pytest

from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions

WINDOW_S = 3.0  # thirty periods of a quota


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions("type1x1", label="quota", pacing=Pacing("quota"))) as started:
        if started.world.subtree is None:
            pytest.skip("no writable control groups here")
        yield started


def test_a_busy_loop_in_a_smartnic_s_namespace_gets_the_core_equivalents_that_are_stated(bed: Testbed) -> None:
    stated = bed.pacing.quota_cores(bed.inventory.node("s1n1"), bed.inventory)
    assert stated is not None
    group = bed._groups["s1n1"]
    loops = [int(bed.net["s1n1"].cmd("sh -c 'while :; do :; done' > /dev/null 2>&1 & echo $!").split()[-1])
             for _ in range(math.ceil(stated))]
    try:
        time.sleep(0.3)
        used, throttled, began = group.usage_seconds(), bed.throttled_ns("s1n1"), time.monotonic()
        time.sleep(WINDOW_S)
        used, took_s = group.usage_seconds() - used, time.monotonic() - began
        assert used / took_s == pytest.approx(stated, rel=0.05)
        assert bed.throttled_ns("s1n1") > throttled
    finally:
        for pid in loops:
            os.kill(pid, signal.SIGKILL)


def test_a_node_that_was_kept_from_the_cpu_still_answers(bed: Testbed) -> None:
    assert set(bed.counters()) == {"s1h", "s1n1"}


def test_links_are_not_shaped_where_only_quotas_hold(bed: Testbed) -> None:
    assert "tbf" not in bed.net["s1n1"].cmd("tc qdisc show")
