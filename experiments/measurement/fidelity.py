"""The fidelity verdict: whether the machine kept up with what it emulated, and by how much it did not.

A verdict is on one run at one time scale. All durations here are emulated: a delay of the machine that lasted 1 ms
counts as 1 ms / D, so a larger time scale D makes the same machine more faithful.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from experiments.errors import ExperimentError

MOST_TIME_SCALE = 1000.0
LEAST_STEP, MOST_STEP = 1.25, 8.0  # of the time scale, from one try to the next
STEP_MARGIN = 1.25  # beyond what the worst ratio asks for: the next run is not quite like this one
BLIND_STEP = 2.0  # where a ratio says nothing about how much more time is needed
SHARE, SECONDS, COUNT = "%", "s", ""


class FidelityLimits(msgspec.Struct, frozen=True):
    """What a run may show at most; an experiment that stands more, or less, sets its own.

    Of overruns, lateness and turns: as shares of the mean latency that clients measured. `overrun_share` is of what all
    overruns together add to a request, as if none was beside another. `process_cpu`: of one core, None: not judged,
    because a busy process that still is in time does no harm.
    """

    overrun_share: float = 0.02
    late_p50_share: float = 0.05
    late_p99_share: float = 0.25
    turn_p99_share: float = 0.25
    unmodelled_drops: int = 0
    throttled_s: float = 0.0
    machine_cpu: float = 0.95
    process_cpu: float | None = None


USUAL_LIMITS = FidelityLimits()


class Observed(msgspec.Struct, frozen=True):
    """What is known of a run: `sources` are the counters of each node and each client, by its name.

    `requests` were answered. `drops`: frames lost outside the modelled queues, by place (a switch's port, a qdisc).
    CPU: busy shares, 0 to 1, of the whole machine and of one core by its busiest process, which is `busiest_process`;
    `own_cpu` is what the testbed itself used of the whole machine. Where that is known, it is judged in place of the
    machine's: a testbed weighs more than what runs beside it (nodes/cgroups.py), and where that does get in its way,
    lateness shows it.
    """

    sources: dict[str, dict[str, int]]
    mean_latency_s: float
    requests: int
    drops: dict[str, int] = {}
    machine_cpu: float = 0.0
    process_cpu: float = 0.0
    busiest_process: str = ""
    own_cpu: float | None = None


class Figure(msgspec.Struct, frozen=True):
    """One judged value, at the place where it was worst; `unit` "%" means that 0.01 reads 1 %. No limit: not judged."""

    name: str
    where: str
    value: float
    limit: float | None
    unit: str = COUNT

    @property
    def holds(self) -> bool:
        return self.limit is None or self.value <= self.limit

    @property
    def ratio(self) -> float:
        """Value over limit; infinite beyond a limit of 0, and 0 without a limit."""
        if self.limit is None or not self.value:
            return 0.0
        return self.value / self.limit if self.limit else math.inf

    def said(self) -> str:
        """Say the value, its place and the limit, as a reason for refusal reads."""
        where = f" at {self.where}" if self.where else ""
        least = "none is allowed" if self.limit == 0 else f"the limit is {_shown(self.limit or 0.0, self.unit)}"
        return f"{self.name}{where}: {_shown(self.value, self.unit)}, {least}"


class Verdict(msgspec.Struct, frozen=True):
    """Whether a run holds, why not, and every figure that was looked at."""

    holds: bool
    reasons: tuple[str, ...]
    figures: tuple[Figure, ...]

    def figure(self, name: str) -> Figure | None:
        return next((f for f in self.figures if f.name == name), None)


def judge(observed: Observed, limits: FidelityLimits = USUAL_LIMITS) -> Verdict:
    """Return the verdict on what was observed.

    A run of which nothing is known does not hold: without a latency, or without a source that says how late it was.
    """
    blind = []
    if not _known(observed.mean_latency_s):
        blind.append(f"no latency was measured (mean {observed.mean_latency_s:g} s): lateness has no scale")
    if not any("late_p99_ns" in counters for counters in observed.sources.values()):
        blind.append(f"none of {len(observed.sources)} nodes and clients says how late it was")
    figures = _figures(observed, limits)
    reasons = (*blind, *(f.said() for f in figures if not f.holds))
    return Verdict(not reasons, reasons, figures)


def combined(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Return the verdict on several parts of one run, by their names: it holds if all do; no part, and it does not."""
    if not verdicts:
        return Verdict(False, ("no part of the run has a verdict",), ())
    worst: dict[str, Figure] = {}
    for part, verdict in verdicts.items():
        for figure in verdict.figures:
            known = worst.get(figure.name)
            if known is None or (figure.ratio, figure.value) > (known.ratio, known.value):
                worst[figure.name] = msgspec.structs.replace(figure, where=f"{part} {figure.where}".strip())
    reasons = tuple(f"{part}: {reason}" for part, verdict in verdicts.items() for reason in verdict.reasons)
    return Verdict(all(v.holds for v in verdicts.values()), reasons, tuple(worst.values()))


def next_time_scale(verdict: Verdict, time_scale: float, most: float = MOST_TIME_SCALE) -> float | None:
    """Return the time scale at which a run that was refused should hold; None if it is beyond `most`.

    Lateness and load go with 1/D, so the worst ratio of value to limit is how much larger D must be. A saturated
    machine hides how much it was short of, and one drop may stand for many: there the step is a blind doubling. Steps
    stay between 1.25 and 8 times. A verdict that holds returns `time_scale` itself.
    """
    if not 0 < time_scale < math.inf:
        raise ExperimentError(f"time scale {time_scale:g}: it must be a number above 0")
    if verdict.holds:
        return time_scale
    if time_scale >= most:
        return None
    steps = [BLIND_STEP if math.isinf(f.ratio) or f.name in _SATURATING else f.ratio * STEP_MARGIN
             for f in verdict.figures if not f.holds]
    step = min(MOST_STEP, max(LEAST_STEP, *steps) if steps else BLIND_STEP)
    return min(most, _rounded_up(time_scale * step))


_SATURATING = ("CPU of the machine", "CPU used by the testbed", "CPU of the busiest process")


def _figures(observed: Observed, limits: FidelityLimits) -> tuple[Figure, ...]:
    sources, mean_s = observed.sources, observed.mean_latency_s
    drops = {**observed.drops, **{f"{name}'s sockets": c.get("dropped_socket", 0) for name, c in sources.items()}}

    def late(name: str, counter: str, share: float) -> Figure:
        where, value = _worst((source, c.get(counter, 0) / 1e9) for source, c in sources.items())
        return Figure(name, where, value, share * mean_s if _known(mean_s) else None, SECONDS)

    return (
        Figure("overruns per request", _worst((name, c.get("overrun_ns", 0)) for name, c in sources.items())[0],
               sum(c.get("overrun_ns", 0) for c in sources.values()) / 1e9 / max(1, observed.requests),
               limits.overrun_share * mean_s if _known(mean_s) else None, SECONDS),
        late("lateness p50", "late_p50_ns", limits.late_p50_share),
        late("lateness p99", "late_p99_ns", limits.late_p99_share),
        late("turn of a loop p99", "turn_p99_ns", limits.turn_p99_share),
        Figure("frames dropped outside the modelled queues", *_sum(drops), limits.unmodelled_drops),
        Figure("throttled by its control group",
               *_worst((name, c.get("throttled_ns", 0) / 1e9) for name, c in sources.items()), limits.throttled_s,
               SECONDS),
        Figure("CPU of the machine", "", observed.machine_cpu,
               limits.machine_cpu if observed.own_cpu is None else None, SHARE),
        *([] if observed.own_cpu is None else
          [Figure("CPU used by the testbed", "", observed.own_cpu, limits.machine_cpu, SHARE)]),
        Figure("CPU of the busiest process", observed.busiest_process, observed.process_cpu, limits.process_cpu,
               SHARE),
    )


def _known(mean_latency_s: float) -> bool:
    return mean_latency_s > 0 and math.isfinite(mean_latency_s)


def _worst(found: Iterable[tuple[str, float]]) -> tuple[str, float]:
    """Return the place with the largest value, the first of equals; without a place, where nothing is above 0."""
    where, value = max(found, key=lambda pair: pair[1], default=("", 0.0))
    return (where, value) if value else ("", 0.0)


def _sum(found: Mapping[str, int]) -> tuple[str, int]:
    """Return the places that a sum comes from, those with most first, and the sum."""
    places = sorted((place for place, number in found.items() if number), key=lambda place: -found[place])
    where = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    return where, sum(found.values())


def _shown(value: float, unit: str) -> str:
    if unit == SHARE:
        return f"{100 * value:.3g} %"
    if unit == SECONDS:
        for factor, name in ((1.0, "s"), (1e3, "ms")):
            if value * factor >= 1:
                return f"{value * factor:.3g} {name}"
        return f"{value * 1e6:.3g} us"
    return f"{value:g}"


def _rounded_up(value: float) -> float:
    """Return `value` rounded up to two digits, as people write a time scale."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit - 1e-9) * unit, 12)
