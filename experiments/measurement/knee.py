"""Finds the knee of the latency-throughput graph, "where queueing delay is minimal" (section 2.3), by bisection.

A search is a generator: it yields the load that it wants to see, is sent a Probe, and returns a Knee. So it has no
clock and no testbed; `found_by` drives one with a function that measures.

    closed loop   the fewest outstanding requests that give 97 % of the saturated throughput
    confirmed     the same where another world found it: half as many give less, twice as many hardly more
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import msgspec

from experiments.clients.latencies import Latencies
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import Verdict

ATTEMPTS = 2  # at one load, if a verdict fails
NOISE = 0.02  # ours: what two measurements of one load may differ by


class Probe(msgspec.Struct, frozen=True):
    """One measurement: `load` is the requests outstanding; all in emulated time."""

    load: float
    throughput_rps: float
    latencies: Latencies
    verdict: Verdict | None = None

    @property
    def faithful(self) -> bool:
        return self.verdict is None or self.verdict.holds


class Knee(msgspec.Struct, frozen=True):
    """What a search found: `probe` at the knee, None where there is none to be trusted, and why in `said`.

    `tried` has every probe, in order. `reference` is what the knee is relative to: the saturated throughput,
    in requests/s.
    """

    probe: Probe | None
    tried: tuple[Probe, ...]
    said: str
    reference: float = 0.0


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
