"""Spike detector: a value far from the moving mean of its key, in standard deviations, is a spike (Z-score).

The smoothed Z-score method: a value is held against the mean and the population standard deviation of the `lag` values
before it. A spike enters that history only with weight `influence`, the value before it with the rest, so that it does
not widen the band for those that follow. With fewer than `lag` values seen, or with a deviation of 0 and no change,
there is no spike.
"""

from __future__ import annotations

from math import sqrt
from struct import Struct

from microservices.errors import ServiceError
from microservices.records import Record, RecordService, value_of
from microservices.reliable import Hashtable
from microservices.service import Accelerator
from microservices.state import State

MAX_LAG = 1000


class Spike(RecordService):
    """Adds 1 (spike upwards), -1 (downwards) or 0. Lag, threshold and influence are ours."""

    name = "spike"
    memory_mb = 64
    stateful = True
    accelerators = frozenset({Accelerator.FPU})

    def __init__(self, lag: int = 30, threshold: float = 3.5, influence: float = 0.5) -> None:
        if not 2 <= lag <= MAX_LAG or threshold <= 0.0 or not 0.0 <= influence <= 1.0:
            raise ServiceError(f"lag {lag}, threshold {threshold}, influence {influence}; the limits are 2 to "
                               f"{MAX_LAG}, above 0, and 0 to 1")
        self.lag, self.threshold, self.influence = lag, threshold, influence
        self._window = Struct(f"<{lag}d")
        self._one = Struct("<d")

    def new_state(self) -> State:
        """The last `lag` smoothed values of each key, as little-endian doubles, oldest first."""
        return State(hashtables={"history": Hashtable(str, bytes)})

    def answer(self, record: Record, state: State, now_s: float) -> int:
        histories = state.hashtables["history"]
        value = value_of(record)
        history: bytes = histories.get(record.key, b"")
        if len(history) < self._window.size:
            histories[record.key] = history + self._one.pack(value)
            return 0
        window = self._window.unpack(history)
        mean = sum(window) / self.lag
        deviation = sqrt(sum([(v - mean) * (v - mean) for v in window]) / self.lag)
        verdict = 0
        if abs(value - mean) > self.threshold * deviation:
            verdict = 1 if value > mean else -1
            value = self.influence * value + (1.0 - self.influence) * window[-1]
        histories[record.key] = history[8:] + self._one.pack(value)
        return verdict
