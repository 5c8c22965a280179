"""A summary of measured times."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np


class Latencies(msgspec.Struct, frozen=True):
    """Mean and percentiles in seconds; all 0 when nothing was measured (`count` 0)."""

    count: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float


def summary_of(seconds: Sequence[float]) -> Latencies:
    """Summarise `seconds`, each one measured duration."""
    if not seconds:
        return Latencies(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    values = np.asarray(seconds)
    p50, p90, p99 = (float(p) for p in np.percentile(values, (50, 90, 99)))
    return Latencies(len(values), float(values.mean()), p50, p90, p99, float(values.max()))
