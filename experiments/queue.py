"""The same queue three times: emulated on packets, simulated in virtual time, and from theory.

    c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h      k-nearest neighbours on 12 SmartNIC cores, a recommender on 4

An open loop with Poisson arrivals (M/D/c) and a closed loop with N clients (D/D/c). Emulation, simulation and theory
share the service time of Table 1 and nothing else, so where they agree none of them adds or forgets any waiting.
Neither microservice is memory-intensive (section 2.3): the traffic manager has no part in their latencies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from experiments.measurement.measuring import Plan
from experiments.measurement.one_queue import CLOSED, OPEN, Load, OneQueue, Queue, QueuePoint, full_rps, theory
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.charts import Measured, QueueData
from experiments.views.figures import draw, stored

RPS_WITHIN, LATENCY_WITHIN = 0.03, 0.10
UTILISATIONS = (0.3, 0.6, 0.8)
# With the time scale that each is played at: ample room on a small machine, of which 1 ms is a fortieth of a request.
QUEUES = {Queue("knn", 12): 100.0, Queue("recommend", 4): 40.0}
REQUESTS, QUICK_REQUESTS = 4000, 1000  # on packets at the highest utilisation; where less waits, less is enough
LONG, QUICK_LONG = Plan(20_000, 2000), Plan(8000, 800)
RETRIES = 2
PACKETS, SIMULATED, LONG_SIMULATED = "packets", "simulated", "simulated, long"
PAIRS = ((LONG_SIMULATED, "theory"), (PACKETS, "theory"), (PACKETS, SIMULATED))

Rows = list[tuple[str, str, str]]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; with `simulate`, without packets. Returns {"holds", "rows", ...}.

    What is simulated to be held against packets has their arrivals and as many of them; what is held against theory
    is longer, because theory speaks of the mean of many.
    """
    result_run = Run.begin("queue", options)
    sources = (LONG_SIMULATED,) if options.simulate else (PACKETS, SIMULATED, LONG_SIMULATED)
    most, long = (QUICK_REQUESTS, QUICK_LONG) if options.quick else (REQUESTS, LONG)
    cells = {f"{queue.name}/{load.name}/{source}": (queue, load, source)
             for queue in QUEUES for source in sources for load in loads(queue, options.quick)}

    with OneQueue() as room:
        def point(name: str) -> QueuePoint:
            queue, load, source = cells[name]
            usual = QUEUES[queue]
            plan = long if source == LONG_SIMULATED else plan_of(load, most)
            if source == PACKETS:
                return room.packets(queue, load, plan, options.time_scale or usual, options.retry or RETRIES)
            return room.simulated(queue, load, plan, usual)

        points = measured(result_run, list(cells), point, QueuePoint, say)
    rows, holds = judged(points)
    figures = {name: stored("queue", data) for name, data in figures_of(points).items()}
    result_run.write_data([{"source": name.rpartition("/")[2], **_record(p)} for name, p in points.items()])
    content = {"holds": holds, "rows": rows, "figures": msgspec.to_builtins(figures),
               "points": {name: msgspec.to_builtins(p) for name, p in points.items()}}
    draw(result_run.directory, figures)
    result_run.finish(content)
    return content


def loads(queue: Queue, quick: bool) -> list[Load]:
    """Return the utilisations, and clients that are too few for the cores, just enough, and too many."""
    shares = (0.5, 2) if quick else (0.5, 1, 2)
    return [Load(OPEN, u) for u in UTILISATIONS] + [Load(CLOSED, queue.cores * share) for share in shares]


def plan_of(load: Load, most: int) -> Plan:
    requests = round(most * (load.size / max(UTILISATIONS) if load.kind == OPEN else 0.4))
    return Plan(requests, requests // 6)


def judged(points: Mapping[str, QueuePoint]) -> tuple[Rows, bool]:
    """Return a row for each pair of sources of each load, and whether all agree and every verdict holds."""
    rows: Rows = []
    good = True
    for where in dict.fromkeys(name.rpartition("/")[0] for name in points):
        for source, other_source in PAIRS:
            one = points.get(f"{where}/{source}")
            if one is None:
                continue
            other = _by_theory(one) if other_source == "theory" else points[f"{where}/{other_source}"]
            rps, latency = carried(one) / carried(other), one.mean_s / other.mean_s
            fine = (abs(rps - 1) <= RPS_WITHIN and abs(latency - 1) <= LATENCY_WITHIN and one.holds and other.holds
                    and not one.bad)
            good = good and fine
            rows.append((f"{where}, {source} : {other_source}" + ("" if fine else "  <- off"),
                         f"{one.rps:,.0f} requests/s ({rps - 1:+.1%}), mean {one.mean_s * 1e6:.1f} : "
                         f"{other.mean_s * 1e6:.1f} us ({latency - 1:+.1%})"
                         + "".join(f"; REFUSED: {p.reasons[0]}" for p in (one, other) if not p.holds)
                         + (f"; {one.bad}" if one.bad else ""), f"within {RPS_WITHIN:.0%}, {LATENCY_WITHIN:.0%}"))
    return rows, good


def carried(point: QueuePoint) -> float:
    """Return what throughputs are compared by: of an open loop, the share of the arrivals.

    How many arrive in a window is drawn, and says nothing about the queue.
    """
    return point.rps / point.offered_rps if point.kind == OPEN else point.rps


def figures_of(points: Mapping[str, QueuePoint]) -> dict[str, QueueData]:
    """Return a figure for each queue and kind of loop."""
    found = {}
    for queue in QUEUES:
        for kind, title, x_label in ((OPEN, f"{queue.service}: M/D/{queue.cores}", "utilisation"),
                                     (CLOSED, f"{queue.service}: closed loop, {queue.cores} cores", "clients")):
            curves = {source: tuple(Measured(p.size, p.mean_s, not p.holds) for name, p in points.items()
                                    if (p.queue, p.kind) == (queue.name, kind) and name.endswith(f"/{source}"))
                      for source in (PACKETS, LONG_SIMULATED)}
            sizes = [u / 100 for u in range(5, 90, 2)] if kind == OPEN else range(1, 2 * queue.cores + 1)
            line = tuple(Measured(x, theory(queue, Load(kind, x), x * full_rps(queue))[1]) for x in sizes)
            found[f"{queue.name}-{kind}"] = QueueData(title, line, curves[LONG_SIMULATED], curves[PACKETS], x_label,
                                                      tuple(p.x for p in curves[LONG_SIMULATED]))
    return found


def _by_theory(point: QueuePoint) -> QueuePoint:
    return msgspec.structs.replace(point, rps=point.theory_rps, mean_s=point.theory_s, holds=True)


def _record(point: QueuePoint) -> dict[str, Any]:
    return {"queue": point.queue, "loop": point.kind, "size": point.size, "time_scale": point.time_scale,
            "replies": point.replies, "rps": point.rps, "offered_rps": point.offered_rps, "mean_us": point.mean_s * 1e6,
            "p50_us": point.p50_s * 1e6, "p99_us": point.p99_s * 1e6, "theory_rps": point.theory_rps,
            "theory_us": point.theory_s * 1e6, "holds": point.holds}
