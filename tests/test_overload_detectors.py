"""Both detectors of overload against a plain reference, under random loads."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overload_room import FAST

from controller.overload import GROSS, MARGINAL, NONE, ExecutionDetector, StarvationDetector
from nodes.control_messages import HEARTBEAT_S


@dataclass
class PlainStarvation:
    """One node, read straight off the rule: a queue is standing when its least in the interval is above a threshold."""

    seen: list[tuple[int, int]] = field(default_factory=list)  # (slot, queue) of the present stretch

    def update(self, slot: int, queue: int, network: int) -> int:
        options = FAST
        if self.seen and slot - self.last > options.silence_s / HEARTBEAT_S:
            self.seen.clear()
        self.last = slot
        threshold = options.queue_frames // 2 if self.seen else options.queue_frames
        limit = round((options.network_share + (0.05 if self.seen else 0)) * 255)
        if queue < threshold or network >= limit:
            self.seen.clear()
            return 0
        self.seen.append((slot, queue))
        if slot - self.seen[0][0] < round(options.interval_s / HEARTBEAT_S):
            return 0
        return GROSS if min(q for _, q in self.seen) >= options.gross * options.queue_frames else MARGINAL


@dataclass
class PlainOverload:
    """One instance: reports in a row that exceed the moving average of those before."""

    average: float = 0.0
    reports: int = 0
    row: int = 0

    def update(self, execution_ns: int) -> int:
        options, badness = FAST, 0
        excess = (execution_ns - self.average) / self.average if self.average else 0.0
        if self.reports >= options.warm_up_reports and execution_ns - self.average > options.excess * self.average:
            self.row += 1
            if self.row >= options.reports:
                badness = GROSS if excess > options.gross * options.excess else MARGINAL
        elif excess < options.excess / 2:
            self.row = 0
        weight = options.average_weight
        # The table holds averages as 32-bit floats.
        self.average = float(np.float32(execution_ns if not self.reports
                                        else self.average + weight * (execution_ns - self.average)))
        self.reports += 1
        return badness


def starvation_beside_the_reference(seed: int) -> set[int]:
    """Compare the two at every step of a random load; return what they found."""
    draw, said = random.Random(seed), set()
    nodes = 5
    detector, plain = StarvationDetector(nodes, FAST), [PlainStarvation() for _ in range(nodes)]
    last = np.full(nodes, -1, dtype=np.int32)
    slot = 0
    high = draw.choice((80, 200, 600))
    for _ in range(150):
        slot += draw.choice((1, 1, 1, 1, 2, 30))
        chosen = np.array(sorted(draw.sample(range(nodes), draw.randint(1, nodes))), dtype=np.intp)
        queue = np.array([draw.randint(20, high) if draw.random() < 0.97 else 0 for _ in chosen], dtype=np.int32)
        network = np.array([draw.choice((0, 100, 203, 204, 210, 217, 255)) if draw.random() < 0.2 else 50
                            for _ in chosen], dtype=np.uint8)
        found = detector.update(chosen, np.full(len(chosen), slot, dtype=np.int32), last[chosen], queue, network)
        last[chosen] = slot
        assert found.tolist() == [plain[n].update(slot, int(q), int(u))
                                  for n, q, u in zip(chosen, queue, network, strict=True)]
        said |= set(found.tolist())
    return said


def execution_beside_the_reference(seed: int) -> set[int]:
    """Compare the two at every step of a random load; return what they found."""
    draw, said = random.Random(seed), set()
    instances = 4
    detector, plain = ExecutionDetector(instances, FAST), [PlainOverload() for _ in range(instances)]
    level = [draw.randint(1, 10**6) for _ in range(instances)]
    for _ in range(200):
        chosen = np.array(sorted(draw.sample(range(instances), draw.randint(1, instances))), dtype=np.intp)
        for i in chosen:
            if draw.random() < 0.05:
                level[i] = max(1, int(level[i] * draw.choice((0.3, 0.8, 1.15, 1.3, 2.5))))
        execution = np.array([int(level[i] * draw.uniform(0.97, 1.03)) + 1 for i in chosen], dtype=np.int64)
        found = detector.update(chosen, execution)
        wanted = [plain[i].update(int(e)) for i, e in zip(chosen, execution, strict=True)]
        assert found.tolist() == wanted
        said |= set(wanted)
    return said


BESIDE = pytest.mark.parametrize("beside_the_reference", [
    starvation_beside_the_reference, execution_beside_the_reference], ids=["starvation", "execution"])


@BESIDE
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_detector_equals_the_plain_reference(beside_the_reference: Callable[[int], set[int]], seed: int) -> None:
    beside_the_reference(seed)


@BESIDE
def test_that_comparison_sees_all_degrees_of_badness(beside_the_reference: Callable[[int], set[int]]) -> None:
    assert set().union(*map(beside_the_reference, range(20))) == {NONE, MARGINAL, GROSS}
