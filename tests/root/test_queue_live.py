"""The emulated part of the queue experiment, small: packets carry what theory says, at the latency that it says."""

from __future__ import annotations

import pytest

from experiments.measurement.measuring import Plan
from experiments.measurement.one_queue import CLOSED, OPEN, Load, OneQueue, Queue

QUEUE = Queue("knn", 12)
TIME_SCALE = 150.0


def test_packets_are_queued_as_theory_says() -> None:
    with OneQueue("test-queue") as room:
        points = [room.packets(QUEUE, load, Plan(500, 100, most_real_s=15.0), TIME_SCALE)
                  for load in (Load(OPEN, 0.7), Load(CLOSED, 24))]
    for point in points:
        assert not point.bad and point.replies > 400
        expected_rps = point.offered_rps if point.kind == OPEN else point.theory_rps
        assert point.rps == pytest.approx(expected_rps, rel=0.05)
        assert point.mean_s == pytest.approx(point.theory_s, rel=0.10)
