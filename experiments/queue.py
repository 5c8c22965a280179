"""The same queue three times: emulated on packets, simulated in virtual time, and from theory.

    c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h      k-nearest neighbours, or a recommender, on 12 SmartNIC cores

An open loop with Poisson arrivals (M/D/12) and a closed loop with N clients (D/D/12). Emulation, simulation and theory
share the service time of Table 1 and nothing else, so where they agree none of them adds or forgets any waiting.
Neither microservice is memory-intensive (section 2.3): the traffic manager has no part in their latencies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from experiments.charts import Measured, QueueData
from experiments.figures import draw, stored
from experiments.measuring import Plan
from experiments.one_queue import CLOSED, CORES, OPEN, Load, OneQueue, QueuePoint
from experiments.points import measured
from experiments.results import Run
from experiments.run_options import RunOptions

RPS_WITHIN, LATENCY_WITHIN = 0.03, 0.10
UTILISATIONS = (0.3, 0.6, 0.8)
CLIENTS, QUICK_CLIENTS = (6, 12, 24), (6, 24)
# Of which a time scale is used that leaves ample room on a small machine: 1 ms of it is a fortieth of a request.
TIME_SCALES = {"knn": 100.0, "recommend": 50.0}
PLAN, QUICK_PLAN = Plan(4000, 500), Plan(900, 150)
SIMULATED_PLAN, QUICK_SIMULATED_PLAN = Plan(12_000, 2000), Plan(6000, 1000)
RETRIES = 2
PACKETS, SIMULATED = "packets", "simulated"

Rows = list[tuple[str, str, str]]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; with `simulate`, without packets. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("queue", options)
    clients = QUICK_CLIENTS if options.quick else CLIENTS
    loads = [Load(OPEN, u) for u in UTILISATIONS] + [Load(CLOSED, n) for n in clients]
    sources = (SIMULATED,) if options.simulate else (PACKETS, SIMULATED)
    plan, simulated_plan = (QUICK_PLAN, QUICK_SIMULATED_PLAN) if options.quick else (PLAN, SIMULATED_PLAN)
    cells = {f"{service}/{load.name}/{source}": (service, load, source)
             for service in TIME_SCALES for source in sources for load in loads}

    with OneQueue() as room:
        def point(name: str) -> QueuePoint:
            service, load, source = cells[name]
            usual = TIME_SCALES[service]
            if source == SIMULATED:
                return room.simulated(service, load, simulated_plan, usual)
            return room.packets(service, load, plan, options.time_scale or usual, options.retry or RETRIES)

        points = measured(result_run, list(cells), point, QueuePoint, say)
    rows, holds = judged(points)
    figures = {name: stored("queue", data) for name, data in figures_of(points).items()}
    result_run.write_data([{"source": name.rpartition("/")[2], **_record(p)} for name, p in points.items()])
    content = {"holds": holds, "rows": rows, "figures": msgspec.to_builtins(figures),
               "points": {name: msgspec.to_builtins(p) for name, p in points.items()}}
    draw(result_run.directory, figures)
    result_run.finish(content)
    return content


def judged(points: Mapping[str, QueuePoint]) -> tuple[Rows, bool]:
    """Return a row for each pair of sources of each load, and whether all agree and every verdict holds."""
    rows: Rows = []
    good = True
    for name, simulated in points.items():
        where, _, source = name.rpartition("/")
        if source != SIMULATED:
            continue
        packets = points.get(f"{where}/{PACKETS}")
        pairs = [("simulated", simulated, "theory", _by_theory(simulated))]
        if packets is not None:
            pairs += [("packets", packets, "theory", _by_theory(packets)), ("packets", packets, "simulated", simulated)]
        for ours, one, theirs, other in pairs:
            rps = carried(one) / carried(other)
            latency = one.mean_s / other.mean_s
            fine = (abs(rps - 1) <= RPS_WITHIN and abs(latency - 1) <= LATENCY_WITHIN and one.holds and other.holds
                    and not one.bad)
            good = good and fine
            refused = "".join(f"; REFUSED: {p.reasons[0]}" for p in (one, other) if not p.holds)
            rows.append((f"{where}, {ours} : {theirs}" + ("" if fine else "  <- off"),
                         f"{one.rps:,.0f} requests/s ({rps - 1:+.1%}), mean {one.mean_s * 1e6:.1f} : "
                         f"{other.mean_s * 1e6:.1f} us ({latency - 1:+.1%})" + refused
                         + (f"; {one.bad}" if one.bad else ""),
                         f"within {RPS_WITHIN:.0%}, {LATENCY_WITHIN:.0%}"))
    return rows, good


def carried(point: QueuePoint) -> float:
    """Return what throughputs are compared by: of an open loop, the share of the arrivals.

    How many arrive in a window is drawn, and says nothing about the queue.
    """
    return point.rps / point.offered_rps if point.kind == OPEN else point.rps


def figures_of(points: Mapping[str, QueuePoint]) -> dict[str, QueueData]:
    """Return a figure for each microservice and kind of loop."""
    found = {}
    for service in dict.fromkeys(p.service for p in points.values()):
        for kind, title, x_label in ((OPEN, f"{service}: M/D/{CORES}", "utilisation"),
                                     (CLOSED, f"{service}: closed loop, {CORES} cores", "clients")):
            curves = {source: tuple(Measured(p.size, p.mean_s, not p.holds) for name, p in points.items()
                                    if (p.service, p.kind) == (service, kind) and name.endswith(f"/{source}"))
                      for source in (PACKETS, SIMULATED)}
            theory = tuple(Measured(p.size, p.theory_s) for name, p in points.items()
                           if (p.service, p.kind) == (service, kind) and name.endswith(f"/{SIMULATED}"))
            found[f"{service}-{kind}"] = QueueData(title, theory, curves[SIMULATED], curves[PACKETS], x_label)
    return found


def _by_theory(point: QueuePoint) -> QueuePoint:
    return msgspec.structs.replace(point, rps=point.theory_rps, mean_s=point.theory_s, holds=True)


def _record(point: QueuePoint) -> dict[str, Any]:
    return {"microservice": point.service, "loop": point.kind, "size": point.size, "time_scale": point.time_scale,
            "replies": point.replies, "rps": point.rps, "offered_rps": point.offered_rps, "mean_us": point.mean_s * 1e6,
            "p50_us": point.p50_s * 1e6, "p99_us": point.p99_s * 1e6, "theory_rps": point.theory_rps,
            "theory_us": point.theory_s * 1e6, "holds": point.holds}
