"""What clients saw over time, and what was broken or moved meanwhile: pure, for a plot and for judging."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ONCE_S = 0.1


class Moment(msgspec.Struct, frozen=True):
    """A step as it was done: due `at_s`, begun at `began_s`, over at `ended_s`, seconds since the load began.

    `quiet_s`: the longest time without any reply that began after this and before the next step. `migration`: the
    number of the one that it began, 0 for none.
    """

    at_s: float
    began_s: float
    ended_s: float
    verb: str
    words: str
    part: str
    quiet_s: float = 0.0
    migration: int = 0


class Bin(msgspec.Struct, frozen=True):
    """Replies that came from `at_s` on, for one bin's length; latencies in ms, None where there is no reply."""

    at_s: float
    replies: int
    rps: float
    p50_ms: float | None
    p99_ms: float | None


class Timeline(msgspec.Struct, frozen=True):
    """All of one run; `end_s` is when the load ended."""

    title: str
    end_s: float
    bin_s: float
    bins: tuple[Bin, ...]
    moments: tuple[Moment, ...]

    @property
    def has_latency(self) -> bool:
        return any(b.p50_ms is not None for b in self.bins)


class Stretch(msgspec.Struct, frozen=True):
    """A stretch in which something was broken, or moved if not `broken`, and its number on the plot."""

    number: int
    begin_s: float
    end_s: float
    words: str
    broken: bool = True

    @property
    def said(self) -> str:
        """What it was and when, as it stands below the plot; what is over at once has one time."""
        times = f"{self.begin_s:.1f} to {self.end_s:.1f} s"
        return f"{self.words}, {times}" if self.broken or self.end_s - self.begin_s > ONCE_S else \
            f"{self.words}, at {self.begin_s:.1f} s"


def binned(answered_s: Floats, latencies_s: Floats | None, end_s: float, bin_s: float) -> tuple[Bin, ...]:
    """Return the bins from 0 to `end_s` of replies at `answered_s` (in any order) with their latencies, if known."""
    order = np.argsort(answered_s, kind="stable")
    at, latency = answered_s[order], None if latencies_s is None else latencies_s[order]
    edges = np.arange(0.0, end_s + bin_s / 2, bin_s)
    cuts = np.searchsorted(at, edges)
    found = []
    for i in range(len(edges) - 1):
        count = int(cuts[i + 1] - cuts[i])
        p50 = p99 = None
        if latency is not None and count:
            p50, p99 = (1e3 * float(np.percentile(latency[cuts[i]:cuts[i + 1]], q)) for q in (50, 99))
        found.append(Bin(float(edges[i]), count, count / bin_s, p50, p99))
    return tuple(found)


def longest_quiet(answered_s: Floats, begin_s: float, end_s: float) -> float:
    """Return the longest time without a reply that began from `begin_s` till `end_s`, wherever it ended.

    It counts from `begin_s` itself, and to `end_s` if nothing comes any more.
    """
    at = np.sort(answered_s)
    at = at[at >= begin_s]
    starts = np.concatenate(([begin_s], at[at < end_s]))
    after = np.searchsorted(at, starts, side="right")
    ends = np.append(at, max(end_s, begin_s))[after]
    return float(np.max(ends - starts, initial=0.0))


def with_quiet(moments: Sequence[Moment], answered_s: Floats, end_s: float) -> tuple[Moment, ...]:
    """Return `moments` with how long it was quiet after each."""
    ends = [*(later.began_s for later in moments[1:]), end_s]
    return tuple(msgspec.structs.replace(moment, quiet_s=longest_quiet(answered_s, moment.began_s, end))
                 for moment, end in zip(moments, ends, strict=True))


def stretches_of(moments: Sequence[Moment], end_s: float) -> list[Stretch]:
    """Return from when to when each part was broken and each instance moved, numbered in order of their beginning."""
    found: list[Stretch] = []
    for i, moment in enumerate(moments):
        if moment.verb == "heal":
            continue
        broken = moment.verb == "fail"
        over = moment.ended_s if not broken else next(
            (m.began_s for m in moments[i + 1:] if m.verb == "heal" and m.part == moment.part), end_s)
        found.append(Stretch(len(found) + 1, moment.began_s, over, moment.words.removeprefix("fail "), broken))
    return found
