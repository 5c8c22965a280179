"""Finds the knee of the latency-throughput graph, "where queueing delay is minimal" (section 2.3), by bisection.

A search is a generator: it yields the load that it wants to see, is sent a Probe, and returns a Knee. So it has no
clock and no testbed; `found_by` drives one with a function that measures.

    closed loop   the fewest outstanding requests that give 97 % of the saturated throughput
    confirmed     the same where another world found it: half as many give less, twice as many hardly more
    open loop     the largest offered rate that is answered to 98 %, at a mean latency of at most twice the unloaded one
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import msgspec

from experiments.clients.latencies import Latencies
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import Verdict

ATTEMPTS = 2  # at one load, if a verdict fails
REPEATS = 3  # at one load, if noise could have decided
NOISE = 0.02  # ours: what two measurements of one load may differ by
FIRST_SHARE = 1 / 64  # of the rate that is first tried high, for the unloaded latency


class Probe(msgspec.Struct, frozen=True):
    """One measurement: `load` is the requests outstanding, or the requests/s offered, all in emulated time.

    `sent_rps`: what was really offered, where that differs from `load` (random arrivals); 0: it does not.
    """

    load: float
    throughput_rps: float
    latencies: Latencies
    verdict: Verdict | None = None
    sent_rps: float = 0.0

    @property
    def faithful(self) -> bool:
        return self.verdict is None or self.verdict.holds

    @property
    def goodput(self) -> float:
        """Answered over offered, for an offered rate."""
        return self.throughput_rps / (self.sent_rps or self.load)


class Knee(msgspec.Struct, frozen=True):
    """What a search found: `probe` at the knee, None where there is none to be trusted, and why in `said`.

    `tried` has every probe, in order. `reference` is what the knee is relative to: the saturated throughput
    (requests/s) of a closed loop, the unloaded mean latency (s) of an open one.
    """

    probe: Probe | None
    tried: tuple[Probe, ...]
    said: str
    reference: float = 0.0

    def lines(self) -> list[str]:
        """Say what was tried, a line for each probe."""
        return [f"{p.load:g}: {p.throughput_rps:.6g} requests/s, mean {p.latencies.mean_s * 1e3:.4g} ms"
                + ("" if p.faithful else "; fidelity refused") + ("  <- the knee" if p is self.probe else "")
                for p in self.tried]


Search = Generator[float, Probe, Knee]


def found_by(search: Search, measure: Callable[[float], Probe]) -> Knee:
    """Run `search` to its end with what `measure` gives for each load."""
    try:
        load = next(search)
        while True:
            load = search.send(measure(load))
    except StopIteration as end:
        knee: Knee = end.value
        return knee


def closed_loop(first: int = 1, most: int = 1 << 16, share: float = 0.97, growth: float = 0.03,
                resolution: float = 0.03) -> Search:
    """Search the fewest outstanding requests whose throughput is `share` of the saturated one.

    Doubles from `first` until the throughput grows by less than `growth`, then bisects between the two doublings that
    the knee lies between, to `resolution` of it. Takes at most 2 log2(most / first) probes, and a second attempt for
    each whose verdict fails; no knee, if that fails too, or if throughput still grows at `most`.
    """
    if not 1 <= first <= most:
        raise ExperimentError(f"from {first} to {most} outstanding requests: the least is 1, and the first not the "
                              "larger")
    return _closed_loop(first, most, share, growth, resolution)


def confirmed(expected: Knee, most: int = 1 << 16, share: float = 0.97, growth: float = 0.03,
              resolution: float = 0.03) -> Search:
    """Search the closed loop's knee where it is expected: on packets, where virtual time has found it.

    By the same definition: the expected number of requests must give `share` of the throughput that saturates, and half
    of it less. Near a flat top two searches that are both right end at different loads, since noise decides where
    `share` is passed; so the expected number stands unless it misses `share` by more than NOISE. If it does not stand,
    the knee is searched as by `closed_loop`, from what was tried on; where twice as many give within `growth` what
    saturates in the other world, more are not tried. Raises ExperimentError where `expected` is no knee.
    """
    if expected.probe is None:
        raise ExperimentError(f"no knee to be confirmed: {expected.said}")
    return _confirmed(int(expected.probe.load), expected.reference, most, share, growth, resolution)


def _confirmed(load: int, expected_rps: float, most: int, share: float, growth: float, resolution: float) -> Search:
    look = _Look()
    found: dict[int, Probe] = {}
    for tried in sorted({max(1, load // 2), load, min(2 * load, most)}):
        probe = yield from look.at(tried)
        if probe is None:
            return look.refused()
        found[tried] = probe
    saturated = max(p.throughput_rps for p in found.values())
    knee, fewer = found[load], found[min(found)]
    enough = knee.throughput_rps >= (share - NOISE) * saturated
    if enough and (fewer is knee or fewer.throughput_rps < share * saturated):
        return Knee(knee, tuple(look.tried), f"{load} outstanding requests, as expected, give "
                    f"{knee.throughput_rps:.6g} requests/s, {knee.throughput_rps / saturated:.1%} of the saturated "
                    f"{saturated:.6g}; {min(found)} give {fewer.throughput_rps / saturated:.1%}", saturated)
    rising = [found[tried] for tried in sorted(found)]
    is_full = abs(rising[-1].throughput_rps / expected_rps - 1) <= growth
    return (yield from _searched(look, rising, is_full, most, share, growth, resolution))


def _closed_loop(first: int, most: int, share: float, growth: float, resolution: float) -> Search:
    look = _Look()
    probe = yield from look.at(first)
    if probe is None:
        return look.refused()
    return (yield from _searched(look, [probe], False, most, share, growth, resolution))


def _searched(look: _Look, rising: list[Probe], is_full: bool, most: int, share: float, growth: float,
              resolution: float) -> Search:
    """Double from the last of `rising` till it grows no more, unless it `is_full` there; then bisect."""
    while not is_full:
        best = max((p.throughput_rps for p in rising[:-1]), default=0.0)
        if best and rising[-1].throughput_rps < (1 + growth) * best:
            break
        if rising[-1].load >= most:
            return look.none(f"throughput still grows at {most} outstanding requests, the most that are tried")
        probe = yield from look.at(min(2 * int(rising[-1].load), most))
        if probe is None:
            return look.refused()
        rising.append(probe)
    saturated = max(p.throughput_rps for p in rising)
    enough = share * saturated
    at = next(i for i, p in enumerate(rising) if p.throughput_rps >= enough)
    above = rising[at]
    low = int(rising[at - 1].load) if at else 0  # if the first is enough already, the knee may lie below it
    while int(above.load) - low > max(1.0, resolution * above.load):
        probe = yield from look.at((low + int(above.load)) // 2)
        if probe is None:
            return look.refused()
        if probe.throughput_rps >= enough:
            above = probe
        else:
            low = int(probe.load)
    return Knee(above, tuple(look.tried), f"{above.load:g} outstanding requests give {above.throughput_rps:.6g} "
                f"requests/s, {above.throughput_rps / saturated:.1%} of the saturated {saturated:.6g}", saturated)


def open_loop(high_rps: float, *, unloaded_rps: float | None = None, least_goodput: float = 0.98,
              latency_factor: float = 2.0, noise: float = 0.02, resolution: float = 0.03,
              most_rps: float = math.inf) -> Search:
    """Search the largest offered rate that is sustained; `high_rps` is a guess at one that is not.

    Sustained: goodput of at least `least_goodput` of what is offered, and a mean latency of at most `latency_factor`
    times that at `unloaded_rps` (a 64th of `high_rps` unless given). Doubles from `high_rps` on if that is sustained,
    up to `most_rps`, and bisects to `resolution`. A probe that misses by no more than `noise` could have is taken
    again, up to three in all, and their mean decides. No knee, if the unloaded probe is not sustained, the last is, or
    a verdict fails twice.
    """
    unloaded = FIRST_SHARE * high_rps if unloaded_rps is None else unloaded_rps
    if not 0 < unloaded < high_rps <= most_rps:
        raise ExperimentError(f"offered rates from {unloaded:g} to {high_rps:g} of at most {most_rps:g} requests/s: "
                              "they must rise, from above 0")
    return _open_loop(high_rps, unloaded, _Sustained(least_goodput, latency_factor, noise), resolution, most_rps)


def _open_loop(high_rps: float, unloaded_rps: float, sustained: _Sustained, resolution: float,
               most_rps: float) -> Search:
    look = _Look()
    base = yield from look.at(unloaded_rps)
    if base is None:
        return look.refused()
    unloaded_s = base.latencies.mean_s
    calm = yield from sustained.decide(look, base, unloaded_s)
    if calm is None:
        return look.refused()
    if not calm:
        return look.none(f"{base.goodput:.1%} are answered of {unloaded_rps:g} requests/s, the rate that was to be "
                         "unloaded")
    good, rate, bad = base, high_rps, math.inf
    while bad == math.inf or bad / good.load > 1 + resolution:
        probe = yield from look.at(rate)
        if probe is None:
            return look.refused()
        held = yield from sustained.decide(look, probe, unloaded_s)
        if held is None:
            return look.refused()
        if held:
            good = probe
        else:
            bad = rate
        if bad == math.inf and rate >= most_rps:
            return look.none(f"{most_rps:g} requests/s, the most that are tried, are still sustained")
        rate = min(2 * rate, most_rps) if bad == math.inf else _between(good.load, bad)
    return Knee(good, tuple(look.tried), f"{good.load:.6g} requests/s are sustained: {good.goodput:.1%} answered, mean "
                f"latency {good.latencies.mean_s / unloaded_s:.2f} times the unloaded; {bad:.6g} are not", unloaded_s)


def _between(good: float, bad: float) -> float:
    """Return where to look next: the geometric middle while they are far apart, as a rate's scale is not known."""
    return math.sqrt(good * bad) if bad > 4 * good else (good + bad) / 2


@dataclass(frozen=True, slots=True)
class _Sustained:
    least_goodput: float
    latency_factor: float
    noise: float

    def decide(self, look: _Look, probe: Probe, unloaded_s: float) -> Generator[float, Probe, bool | None]:
        """Return whether the rate of `probe` is sustained, looking again where noise could decide.

        None if a verdict failed at that.
        """
        goodputs, means = [probe.goodput], [probe.latencies.mean_s]
        limit_s = self.latency_factor * unloaded_s
        while True:
            goodput, mean_s = (sum(found) / len(found) for found in (goodputs, means))
            if goodput >= self.least_goodput and mean_s <= limit_s:
                return True
            near = goodput >= self.least_goodput - self.noise and mean_s <= limit_s * (1 + self.noise)
            if not near or len(goodputs) == REPEATS:
                return False
            again = yield from look.at(probe.load)
            if again is None:
                return None
            goodputs.append(again.goodput)
            means.append(again.latencies.mean_s)


@dataclass(slots=True)
class _Look:
    """What a search has tried so far."""

    tried: list[Probe] = field(default_factory=list)

    def at(self, load: float) -> Generator[float, Probe, Probe | None]:
        """Ask for a probe at `load`, again if its verdict fails; None if none held."""
        for _ in range(ATTEMPTS):
            probe = yield load
            self.tried.append(probe)
            if probe.faithful:
                return probe
        return None

    def refused(self) -> Knee:
        last = self.tried[-1]
        reasons = "; ".join(last.verdict.reasons) if last.verdict else ""
        return self.none(f"at {last.load:g} the machine did not keep up, {ATTEMPTS} times: {reasons}")

    def none(self, why: str) -> Knee:
        return Knee(None, tuple(self.tried), f"no knee: {why}")
