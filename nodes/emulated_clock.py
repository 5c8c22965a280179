"""The emulated clock: one second of it takes `time_scale` real seconds, and every node of a testbed shares it.

CLOCK_MONOTONIC is common to all network namespaces, so a start and a scale are all that a process must be told.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from nodes.errors import NodeError

LEAST_TIME_SCALE, MOST_TIME_SCALE = 1e-3, 1e6


class EmulatedClock(msgspec.Struct, frozen=True):
    """Emulated seconds since `start_s` (CLOCK_MONOTONIC), at `time_scale` real seconds each.

    Raises NodeError for a scale that no run can have.
    """

    start_s: float = 0.0
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        if not LEAST_TIME_SCALE <= self.time_scale <= MOST_TIME_SCALE:
            raise NodeError(f"time scale {self.time_scale}; the limits are {LEAST_TIME_SCALE:g} and "
                            f"{MOST_TIME_SCALE:g}")

    def reader(self) -> Callable[[], float]:
        """Return the function that reads the clock: made once, called at every turn."""
        monotonic, start_s, time_scale = time.monotonic, self.start_s, self.time_scale
        return lambda: (monotonic() - start_s) / time_scale


def started_now(time_scale: float) -> EmulatedClock:
    """Return a clock that reads 0 now."""
    return EmulatedClock(time.monotonic(), time_scale)
