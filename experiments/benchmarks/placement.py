"""Placement at scale: time per microservice and quality of HCM, annealing and the integer program, side by side.

Three questions, each answered in one run on one machine:

    scale        10,000 microservices, application after application, onto 100, 1,000 and 10,000 Type2 servers
    stop rule    annealing as it stops by itself, beside a schedule that cools more slowly and never stops early, each
                 application on the same state
    equal time   every algorithm gets the same time per microservice for the same applications on the same state

All times are of the CPU, which all three use one core of.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from controller.placement.annealing import Schedule
from controller.placement.constraints import ClusterState
from controller.placement.cost import SERVICE_FABRIC, WITH_COMMUNICATION, Weights, cost_of
from controller.placement.demand import Demand
from controller.placement.placing import Options, place
from controller.placement.prediction import predict
from experiments.placement_study import MICROSERVICES, Deployed, deploy_all, fat_tree_of, workload

SIZES, QUICK_SIZES = (100, 1000, 10_000), (100, 1000)
QUICK_MICROSERVICES = 2000
TIME_LIMIT_S = 10.0
MAX_HCM_MS, MAX_HCM_GROWTH, MAX_ANNEALING_MS, MAX_ILP_MS = 0.1, 2.0, 3.0, 1000.0
# A plain stop rule to stand beside ours (the paper names none): a schedule that cools by a tenth at a time, to its end.
WHOLE_SCHEDULE = Schedule(plateau=4, cooling=0.9, patience=0, quench=0)
MAX_STOP_RATIO = 1.01  # as good, to a hundredth
STOP_APPLICATIONS = 24
BUDGETS_MS, QUICK_BUDGETS_MS = (0.01, 0.1, 1.0, 10.0, 100.0), (0.01, 0.1, 1.0, 10.0)
EQUAL_APPLICATIONS = 4
COMMUNICATION_APPLICATIONS = 2  # the integer program with communication takes its whole time limit for each
SCALE_COLUMNS = ("algorithm", "servers", "median ms", "mean ms", "max ms", "wanted", "gap, worst", "req./J", "distance",
                 "used", "cost")
STOP_COLUMNS = ("servers", "cost", "cost, whole schedule", "ratio", "wanted", "mean ms", "mean ms, whole schedule")
EQUAL_COLUMNS = ("ms given", "algorithm", "ms taken", "cost", "cost with communication", "distance", "latency us")


@dataclass(frozen=True, slots=True)
class Scale:
    """One algorithm on one size. Milliseconds per microservice; median and maximum over applications."""

    algorithm: str
    servers: int
    microservices: int
    median_ms: float
    mean_ms: float
    max_ms: float
    mean_gap: float | None
    worst_gap: float | None
    requests_per_joule: float
    mean_distance: float
    servers_used: int
    cost: float
    most_ms: float | None


@dataclass(frozen=True, slots=True)
class StopRule:
    servers: int
    cost: float
    whole_cost: float
    mean_ms: float
    whole_mean_ms: float


@dataclass(frozen=True, slots=True)
class EqualTime:
    """One algorithm with so many milliseconds per microservice; None: no answer of its own in that time."""

    given_ms: float
    algorithm: str
    taken_ms: float | None
    cost: float | None
    cost_with_communication: float | None
    mean_distance: float | None
    latency_us: float | None


@dataclass(frozen=True, slots=True)
class Report:
    scale: tuple[Scale, ...]
    stop_rules: tuple[StopRule, ...]
    equal_time: tuple[EqualTime, ...]
    hcm_growth: float
    holds: bool


def measure(quick: bool, say: Callable[[str], None] = lambda _: None) -> Report:
    """Measure all three; about six minutes, or one if `quick`."""
    sizes, count = (QUICK_SIZES, QUICK_MICROSERVICES) if quick else (SIZES, MICROSERVICES)
    scale, stops = [], []
    for servers in sizes:
        for algorithm, weights, most_ms in (("hcm", SERVICE_FABRIC, MAX_HCM_MS),
                                            ("annealing", SERVICE_FABRIC, MAX_ANNEALING_MS),
                                            ("ilp", SERVICE_FABRIC, MAX_ILP_MS),
                                            ("annealing", WITH_COMMUNICATION, MAX_ANNEALING_MS),
                                            ("ilp", WITH_COMMUNICATION, MAX_ILP_MS)):
            near = weights is WITH_COMMUNICATION
            label = f"{algorithm}{', near' * near}"  # communication in its cost
            state = ClusterState(fat_tree_of(servers))
            demands = workload(state, count)
            if near and algorithm == "ilp":
                demands = demands[:COMMUNICATION_APPLICATIONS]
            done = deploy_all(algorithm, state, demands, Options(weights, time_limit_s=TIME_LIMIT_S), label)
            scale.append(_scale(done, most_ms, algorithm == "ilp"))
            say(f"{servers} servers, {label}: {done.mean_ms:.4f} ms per microservice")
            if algorithm == "annealing" and not near:
                stops.append(_stop_rule(servers, demands[:STOP_APPLICATIONS]))
    medians = {row.servers: row.median_ms for row in scale if row.algorithm == "hcm"}
    growth = medians[1000] / medians[100]
    equal = tuple(_equal_time(count, QUICK_BUDGETS_MS if quick else BUDGETS_MS, say))
    holds = (growth < MAX_HCM_GROWTH and all(row.most_ms is None or row.median_ms < row.most_ms for row in scale)
             and all(stop.cost <= MAX_STOP_RATIO * stop.whole_cost for stop in stops))
    return Report(tuple(scale), tuple(stops), equal, growth, holds)


def tables(report: Report) -> Iterable[tuple[str, Sequence[str], Iterable[Sequence[object]]]]:
    """Yield title, columns and rows for people."""
    yield "Scale: Type2 servers in racks of 40; near: with communication in the cost", SCALE_COLUMNS, [
        (r.algorithm, r.servers, f"{r.median_ms:.4f}", f"{r.mean_ms:.4f}", f"{r.max_ms:.3f}",
         "" if r.most_ms is None else f"< {r.most_ms:g}",
         "" if r.mean_gap is None else f"{r.mean_gap:.1%}, {r.worst_gap:.0%}", f"{r.requests_per_joule:,.0f}",
         f"{r.mean_distance:.2f}", r.servers_used, f"{r.cost:.4g}") for r in report.scale]
    yield "Growth from 100 to 1,000 servers", ("algorithm", "times the median", "wanted"), [
        ("hcm", f"{report.hcm_growth:.2f}", f"< {MAX_HCM_GROWTH:g}")]
    yield "Stop rule: annealing beside a slower schedule that runs to its end", STOP_COLUMNS, [
        (s.servers, f"{s.cost:.5g}", f"{s.whole_cost:.5g}", f"{s.cost / s.whole_cost:.3f}", f"<= {MAX_STOP_RATIO:g}",
         f"{s.mean_ms:.3f}", f"{s.whole_mean_ms:.3f}") for s in report.stop_rules]
    yield f"Equal time on 1,000 half-filled servers: means over {EQUAL_APPLICATIONS} applications", EQUAL_COLUMNS, \
        [(f"{e.given_ms:g}", e.algorithm, *_shown(e)) for e in report.equal_time]


def _shown(e: EqualTime) -> tuple[str, ...]:
    if e.taken_ms is None:
        return ("no answer in that time", "", "", "", "")
    return (f"{e.taken_ms:.4f}", f"{e.cost:.4g}", f"{e.cost_with_communication:.4g}", f"{e.mean_distance:.2f}",
            f"{e.latency_us:.1f}")


def _scale(done: Deployed, most_ms: float, gap: bool) -> Scale:
    p = done.prediction
    return Scale(done.algorithm, done.servers, done.microservices, done.median_ms, done.mean_ms, max(done.ms_each),
                 done.mean_gap if gap else None, done.worst_gap if gap else None, p.requests_per_joule,
                 p.mean_distance, p.servers_used, done.cost, most_ms)


def _stop_rule(servers: int, demands: Sequence[tuple[str, Demand]]) -> StopRule:
    state = ClusterState(fat_tree_of(servers))
    schedules = (WHOLE_SCHEDULE, Schedule())
    costs, seconds = [0.0, 0.0], [0.0, 0.0]
    for seed, (key, demand) in enumerate(demands):
        before = [*state.weight]
        for i, schedule in enumerate(schedules):
            if key in state.placed:
                state.remove(key)
            began = time.process_time()
            placement = place(demand, state, "annealing", Options(seed=seed, schedule=schedule), key)
            seconds[i] += time.process_time() - began
            costs[i] += cost_of(demand, placement.where, state.nodes, before, SERVICE_FABRIC).total
    each_ms = [1e3 * s / sum(len(demand.needs) for _, demand in demands) for s in seconds]
    return StopRule(servers, costs[1], costs[0], each_ms[1], each_ms[0])


def _equal_time(count: int, budgets_ms: Sequence[float], say: Callable[[str], None]) -> Iterable[EqualTime]:
    state = ClusterState(fat_tree_of(1000))
    demands = workload(state, count)
    half = len(demands) // 2
    deploy_all("annealing", state, demands[:half], Options(schedule=Schedule(plateau=2)))
    asked = [demand for _, demand in demands[half:half + EQUAL_APPLICATIONS]]
    say(f"equal time: {len(asked)} applications, {', '.join(f'{b:g}' for b in budgets_ms)} ms per microservice")
    proposals_per_ms = _speed(asked, state)
    for given_ms in budgets_ms:
        for name, algorithm, weights in (("hcm", "hcm", SERVICE_FABRIC), ("annealing", "annealing", SERVICE_FABRIC),
                                         ("annealing, near", "annealing", WITH_COMMUNICATION),
                                         ("ilp", "ilp", SERVICE_FABRIC)):
            yield _within(given_ms, name, algorithm, weights, asked, state, proposals_per_ms)


def _speed(asked: Sequence[Demand], state: ClusterState) -> float:
    began = time.process_time()
    proposals = 0
    for demand in asked:
        placement = place(demand, state, "annealing", key="speed")
        proposals += int(str(placement.notes["proposals"]))
        state.remove("speed")
    return proposals / ((time.process_time() - began) * 1e3)


def _within(given_ms: float, name: str, algorithm: str, weights: Weights, asked: Sequence[Demand], state: ClusterState,
            proposals_per_ms: float) -> EqualTime:
    figures: list[tuple[float, float, float, float, float]] = []
    for demand in asked:
        total = max(1, round(given_ms * len(demand.needs) * proposals_per_ms))
        # As many proposals as the time allows, over a whole schedule of some thirty plateaus.
        schedule = Schedule(plateau=max(1, round(total / len(demand.needs) / 30)), patience=0, most_proposals=total)
        options = Options(weights, time_limit_s=max(0.001, given_ms * len(demand.needs) / 1e3), schedule=schedule)
        before = [*state.weight]
        began = time.process_time()
        placement = place(demand, state, algorithm, options, "within")
        taken_ms = (time.process_time() - began) * 1e3 / len(demand.needs)
        state.remove("within")
        # An answer that came late, by more than what measuring costs, or is another algorithm's, is none.
        if taken_ms > 1.5 * given_ms + 0.02 or "annealing" in str(placement.notes.get("ended", "")):
            return EqualTime(given_ms, name, None, None, None, None, None)
        found = predict([(demand, placement.where)], state.nodes)
        figures.append((taken_ms, cost_of(demand, placement.where, state.nodes, before, SERVICE_FABRIC).total,
                        cost_of(demand, placement.where, state.nodes, before, WITH_COMMUNICATION).total,
                        found.mean_distance, (found.latency_s or 0.0) * 1e6))
    return EqualTime(given_ms, name, *(statistics.fmean(column) for column in zip(*figures, strict=True)))
