"""A summary of measured times, with a histogram that can be merged with those of other clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from experiments.clients import latency_histogram as histograms
from experiments.errors import ExperimentError

QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Latencies(msgspec.Struct, frozen=True):
    """Mean and percentiles in seconds; all 0 when nothing was measured (`count` 0).

    `histogram` holds every value to three digits (latency_histogram.py); empty in results of before it was there.
    """

    count: int
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    p999_s: float = 0.0
    histogram: str = ""


def summary_of(seconds: Sequence[float] | NDArray[np.float64]) -> Latencies:
    """Summarise `seconds`, each one measured duration. Mean, percentiles and maximum are exact.

    Raises ExperimentError for a duration that is negative, not a number, or longer than a day.
    """
    if not len(seconds):
        return Latencies(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    values = np.asarray(seconds, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ExperimentError(f"{int((~np.isfinite(values)).sum())} of {len(values)} latencies are not finite numbers")
    p50, p90, p99, p999 = (float(p) for p in np.percentile(values, [100 * q for q in QUANTILES]))
    histogram = histograms.encoded(histograms.counts_of(np.rint(values * 1e9)))
    return Latencies(len(values), float(values.mean()), p50, p90, p99, float(values.max()), p999, histogram)


def merged(parts: Iterable[Latencies]) -> Latencies:
    """Return what the clients of `parts` measured together. Mean and maximum are exact, percentiles to 0.1 %.

    Raises ExperimentError for a part that measured something and has no histogram.
    """
    full = [part for part in parts if part.count]
    if len(full) < 2:
        return full[0] if full else summary_of(())
    bare = sum(not part.histogram for part in full)
    if bare:
        raise ExperimentError(f"{bare} of {len(full)} summaries have no histogram: they cannot be merged")
    counts = histograms.added([part.histogram for part in full])
    count = sum(part.count for part in full)
    if count != int(counts.sum()):
        raise ExperimentError(f"summaries of {count} latencies whose histograms hold {int(counts.sum())}")
    longest_s = max(part.max_s for part in full)
    p50, p90, p99, p999 = (min(ns / 1e9, longest_s) for ns in histograms.quantiles_ns(counts, QUANTILES))
    mean_s = sum(part.count * part.mean_s for part in full) / count
    return Latencies(count, mean_s, p50, p90, p99, longest_s, p999, histograms.encoded(counts))
