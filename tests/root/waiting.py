"""Wait for what the testbed does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], bool], within_s: float = 20.0) -> bool:
    """Return whether `true` became so within `within_s` real seconds; asks every 20 ms."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
