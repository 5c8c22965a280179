"""When an open loop's requests are to leave: Poisson, or at a constant rate; the same seed gives the same times."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 4096


def intended_times(start_s: float, rate_rps: float, arrivals: str, seed: int, client: int = 0) -> Iterator[float]:
    """Yield times in emulated seconds without end, the first at `start_s` or, if "poisson", some time later.

    Clients of different numbers draw different times from one seed: sent all at the same moments, their requests
    would not be Poisson together.
    """
    if arrivals == "constant":
        n = 0
        while True:
            yield start_s + n / rate_rps
            n += 1
    draw = np.random.default_rng((seed, client))
    at = start_s
    while True:
        for gap in draw.exponential(1.0 / rate_rps, CHUNK):
            at += float(gap)
            yield at
