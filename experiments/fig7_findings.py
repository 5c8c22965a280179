"""What Figure 7's points say, beside section 5.2's text; in both directions. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from controller.control_requests import ToldTimeline
from experiments.measurement.e3_placement import MIGRATED
from experiments.measurement.host_starvation import StarvedHost
from experiments.measurement.rack_peak import RackPeak
from experiments.measurement.replayed_orchestrator import Moved
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.fig7_chart import RiseCurve, RiseData
from experiments.views.figures import StoredFigure, stored

WITHOUT, CPU, GAIN = "without", "cpu", "gain"
RULES = {CPU: "the highest CPU share", GAIN: "of what Table 1 has better on a host"}
LITTLE = 0.1  # ours: what "little effect" means
# Section 5.2's text: "up to".
PAPER_FACTOR, PAPER_LATENCY_CUT = 29.0, 0.89


class Live(msgspec.Struct, frozen=True):
    """A rise of the load that was played in full, and the window at its end: see rising_load.Risen.

    `before` is the forecast of the same load where nothing moves. `own_before` and `own` are the own peaks of the
    placement that it began with and of the one that it arrived at (`nodes`): by them it is judged, as all else is. Runs
    of an earlier version have none.
    """

    decisions: tuple[Moved, ...]
    nodes: dict[int, str]
    before: RackPeak
    peak: RackPeak
    curve: tuple[tuple[float, float, float], ...]
    migrations: tuple[ToldTimeline, ...]
    quiet: bool
    own_before: RackPeak | None = None
    own: RackPeak | None = None

    @property
    def pair(self) -> tuple[RackPeak, RackPeak]:
        """What is compared: the own peaks of the placements before and after; without them, what one load gave."""
        return (self.before, self.peak) if self.own is None or self.own_before is None else (self.own_before, self.own)

    @property
    def factor(self) -> float:
        """What the moves gain in requests per Joule."""
        before, after = self.pair
        return after.requests_per_joule / before.requests_per_joule

    @property
    def faithful(self) -> bool:
        return all(p.holds and not p.bad for p in (self.peak, *self.pair))


class Point(msgspec.Struct, frozen=True):
    """A bar of the figure.

    `nodes` by instance number, as the orchestrator left them after its `decisions`. `own` is this placement's own peak;
    `loaded` is measured with as many requests outstanding as `reference` has, the forecast peak of E3's own placement.
    """

    application: str
    way: str
    nodes: dict[int, str]
    decisions: tuple[Moved, ...]
    reference: RackPeak
    loaded: RackPeak
    own: RackPeak
    live: Live | None = None

    @property
    def moves(self) -> tuple[Moved, ...]:
        return tuple(d for d in self.decisions if d.destination)

    @property
    def faithful(self) -> bool:
        """Whether the machine kept up with all measurements, and every reply was right."""
        kept_up = all(p.holds and not p.bad for p in (self.loaded, self.own))
        return kept_up and (self.live is None or self.live.faithful)


class Change(msgspec.Struct, frozen=True):
    """What a rule makes of an application: `factor` in requests per Joule, latencies as shares that they change by.

    Each placement at its own peak; `loaded_factor` and `loaded_mean` are those with as many requests outstanding.
    """

    factor: float
    mean: float
    p99: float
    throughput: float
    loaded_factor: float
    loaded_mean: float


def change(without: Point, point: Point) -> Change:
    """Return what differs between two placements of an application."""
    before, after = without.own, point.own
    return Change(after.requests_per_joule / before.requests_per_joule, after.mean_s / before.mean_s - 1,
                  after.p99_s / before.p99_s - 1, after.rps / before.rps,
                  point.loaded.requests_per_joule / without.loaded.requests_per_joule,
                  point.loaded.mean_s / without.loaded.mean_s - 1)


def judged(found: Mapping[str, Point]) -> tuple[list[tuple[str, str, str]], bool]:
    """Return the rows, and whether section 5.2 holds by the second rule.

    It holds if requests per Joule rise in the four applications that the text names, also by the moves of a load that
    was played in full, and change by no more than LITTLE in the others, each placement at its own peak. The first rule
    is reported and not judged.
    """
    rows: list[tuple[str, str, str]] = []
    holds = {}
    for rule in RULES:
        more, holds[rule] = _of_rule(rule, {(p.application, p.way): p for p in found.values()})
        rows += more
    starved = sorted({p.application for p in found.values() for d in p.decisions if d.cause == "host starvation"})
    rows.append(("applications in which the starvation detector spoke", ", ".join(starved) or "none", ""))
    return rows, holds[GAIN] and all(p.faithful for p in found.values())


def _of_rule(rule: str, points: Mapping[tuple[str, str], Point]) -> tuple[list[tuple[str, str, str]], bool]:
    applications = list(dict.fromkeys(application for application, _ in points))
    changes = {name: change(points[name, WITHOUT], points[name, rule]) for name in applications}
    rows, live_rose = [], []
    for name, made in changes.items():
        without, point = points[name, WITHOUT], points[name, rule]
        rows.append((f"{name}, {rule}", _said(made, without, point), expected(name)))
        if point.live is not None:
            live_rose.append(point.live.factor > 1)
            rows.append((f"{name}, {rule}, live", _said_live(point.live),
                         f"x{made.factor:.2f}, moved: {_counted(point.moves)}"))
    named = [name for name in applications if name in MIGRATED]
    others = [name for name in applications if name not in MIGRATED]
    rose = [name for name in named if changes[name].factor > 1]
    calm = [name for name in others if abs(changes[name].factor - 1) <= LITTLE]
    culprits = [name for name in named if next(iter(moved_services(points[name, rule])), "") == MIGRATED[name]]
    best = max(applications, key=lambda name: changes[name].factor)
    fastest = min(applications, key=lambda name: changes[name].mean)
    rows += [
        (f"{rule} ({RULES[rule]}): the text's culprit moves first", f"{len(culprits)} of {len(named)}",
         f"{len(named)}"),
        (f"{rule}: requests/J rise where it says so", f"{len(rose)} of {len(named)}", f"{len(named)}"),
        (f"{rule}: little effect elsewhere", f"{len(calm)} of {len(others)}", f"{len(others)}"),
        (f"{rule}: largest gain in requests/J", f"{changes[best].factor:.2f}x ({best})", f"up to {PAPER_FACTOR:g}x"),
        (f"{rule}: largest cut in mean latency", f"{-changes[fastest].mean:.0%} ({fastest})",
         f"up to {PAPER_LATENCY_CUT:.0%}")]
    return rows, len(rose) == len(named) and len(calm) == len(others) and all(live_rose)


def said_of_starvation(found: StarvedHost) -> tuple[str, str, str]:
    """Return the row of a host whose network a busy SmartNIC holds up."""
    return ("a neighbour on the host of a busy SmartNIC (virtual time)",
            f"{found.starved_rps:,.0f}/s with {found.queue_frames} frames waiting, {found.relieved_rps:,.0f}/s after "
            + (", ".join(f"{m.cause} moved {m.service} at {m.at_s:.2f} s" for m in found.moves) or "nothing moved"),
            "host starvation is seen and ended")


def expected(application: str) -> str:
    """Return what section 5.2 says of an application."""
    return f"{MIGRATED[application]} moves" if application in MIGRATED else "little effect"


def moved_services(point: Point) -> Counter[str]:
    """Return how many instances of each microservice the orchestrator moved, the first mover's first."""
    return Counter(move.service for move in point.moves)


def _counted(moves: Iterable[Moved]) -> str:
    counts = Counter(move.service for move in moves)
    return ", ".join(f"{count} {service}" for service, count in counts.items()) or "nothing"


def _said_live(live: Live) -> str:
    moves = [d for d in live.decisions if d.destination]
    before, after = live.before, live.peak
    own_before, own = live.pair
    took = [line.steps_s["total"] * 1e3 for line in live.migrations if "total" in line.steps_s]
    return (f"requests/J x{live.factor:.2f}, mean {own.mean_s / own_before.mean_s - 1:+.0%}; under one load "
            f"x{after.requests_per_joule / before.requests_per_joule:.2f}, mean {after.mean_s / before.mean_s - 1:+.0%}"
            f"; moved: {_counted(moves)}"
            + (f", {moves[0].at_s:.1f} to {moves[-1].at_s:.1f} s after the rise" if moves else "")
            + (f"; a migration took {min(took):.2g} to {max(took):.2g} ms" if took else "")
            + ("" if live.quiet else "; not at rest yet")
            + ("" if live.faithful else "; REFUSED"))


def _said(made: Change, without: Point, point: Point) -> str:
    stays = len(point.decisions) - len(point.moves)
    return (f"requests/J x{made.factor:.2f} ({without.own.requests_per_joule:.4g} to "
            f"{point.own.requests_per_joule:.4g}), mean {made.mean:+.0%}, p99 {made.p99:+.0%}; under one load "
            f"x{made.loaded_factor:.2f}, mean {made.loaded_mean:+.0%}; moved: {_counted(point.moves)}"
            + (f"; {stays} alarms moved nothing" if stays else "")
            + ("" if point.faithful and without.faithful else "; REFUSED"))


def figures_of(found: Mapping[str, Point]) -> dict[str, StoredFigure]:
    """Return Figure 7: requests per Joule and latencies at each placement's peak, over those without orchestrator."""
    def grouped(title: str, value: Callable[[RackPeak], float], of: Callable[[Point], RackPeak]) -> StoredFigure:
        bars = [GroupedBar(p.application, p.way, value(of(p)) / value(of(found[f"{p.application}/{WITHOUT}"])),
                           not p.faithful) for p in found.values()]
        return stored("grouped", GroupedData(title, "relative to without orchestrator", tuple(bars)))

    return {"figure": grouped("Figure 7a: requests per Joule", lambda peak: peak.requests_per_joule, lambda p: p.own),
            "latency": grouped("Figure 7b: mean latency", lambda peak: peak.mean_s, lambda p: p.own),
            "p99": grouped("Figure 7c: 99th percentile latency", lambda peak: peak.p99_s, lambda p: p.own),
            "loaded": grouped("Requests per Joule, all placements under one load",
                              lambda peak: peak.requests_per_joule, lambda p: p.loaded), **_rises(found)}


def _rises(found: Mapping[str, Point]) -> dict[str, StoredFigure]:
    curves = tuple(RiseCurve(f"{p.application}, {p.way}", tuple((at_s, rps) for at_s, rps, _ in p.live.curve),
                             not p.live.peak.holds or bool(p.live.peak.bad))
                   for p in found.values() if p.live is not None)
    return {"rise": stored("fig7-rise", RiseData(curves))} if curves else {}


def record(point: Point) -> dict[str, Any]:
    """Return a line of data.csv."""
    loaded, own = point.loaded, point.own
    return {"application": point.application, "orchestrator": point.way, "outstanding": loaded.outstanding,
            "rps": loaded.rps, "mean_ms": loaded.mean_s * 1e3, "p99_ms": loaded.p99_s * 1e3,
            "wall_w": loaded.wall_watts, "requests_per_joule": loaded.requests_per_joule, "moves": len(point.moves),
            "moved": " ".join(moved_services(point)), "alarms": len(point.decisions), "own_peak_rps": own.rps,
            "own_peak_requests_per_joule": own.requests_per_joule, "e3_peak_rps": point.reference.rps,
            "own_peak_mean_ms": own.mean_s * 1e3, "own_peak_p99_ms": own.p99_s * 1e3, "own_peak_wall_w": own.wall_watts,
            "e3_peak_requests_per_joule": point.reference.requests_per_joule, "time_scale": own.time_scale,
            "simulated": loaded.simulated, "own_peak_simulated": own.simulated, "holds": point.faithful}
