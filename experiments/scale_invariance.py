"""One workload played at the time scales D, 2D and 4D: what it measures must not depend on how slowly it is played.

    c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h      k-nearest neighbours on 12 SmartNIC cores, open and closed loop
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from experiments.errors import ExperimentError
from experiments.measurement.measuring import Plan
from experiments.measurement.one_queue import CLOSED, OPEN, Load, OneQueue, Queue, QueuePoint
from experiments.queue import carried
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import AUTO, RunOptions

QUEUE = Queue("knn", 12)
# Twice as many clients as cores: with, say, 18 on 12 cores half of the constant latencies are long and half are short,
# and a median between the two says nothing.
LOADS = (Load(OPEN, 0.7), Load(CLOSED, 24))
FIRST_SCALE = 50.0
TIMES = (1, 2, 4)
WITHIN = 0.05
PLAN, QUICK_PLAN = Plan(4000, 500), Plan(1000, 200)


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment, from `time_scale` on if that is given. Returns {"holds", "rows", ...}.

    Raises ExperimentError for a time scale that is no number.
    """
    if options.time_scale == AUTO:
        raise ExperimentError("scale-invariance plays at D, 2 D and 4 D: --time-scale must be a number")
    result_run = Run.begin("scale-invariance", options)
    first = FIRST_SCALE if options.time_scale is None else options.time_scale
    cells = {f"{load.name}/D={first * times:g}": (load, first * times) for load in LOADS for times in TIMES}
    with OneQueue("scale") as room:
        def point(name: str) -> QueuePoint:
            load, scale = cells[name]
            return room.packets(QUEUE, load, QUICK_PLAN if options.quick else PLAN, scale)

        points = measured(result_run, list(cells), point, QueuePoint, say)
    rows, holds = judged(points)
    result_run.write_data([{"loop": p.kind, "size": p.size, "time_scale": p.time_scale, "replies": p.replies,
                            "rps": p.rps, "offered_rps": p.offered_rps, "p50_us": p.p50_s * 1e6,
                            "mean_us": p.mean_s * 1e6, "p99_us": p.p99_s * 1e6, "holds": p.holds}
                           for p in points.values()])
    content = {"holds": holds, "rows": rows, "points": {name: msgspec.to_builtins(p) for name, p in points.items()}}
    result_run.finish(content)
    return content


def judged(points: Mapping[str, QueuePoint]) -> tuple[list[tuple[str, str, str]], bool]:
    """Return a row for each point beside the one at the largest scale of its load, and whether all agree and hold."""
    rows = []
    good = True
    for name, one in points.items():
        slowest = max((p for p in points.values() if (p.kind, p.size) == (one.kind, one.size)),
                      key=lambda p: p.time_scale)
        rps = carried(one) / carried(slowest)
        median = one.p50_s / slowest.p50_s
        fine = abs(rps - 1) <= WITHIN and abs(median - 1) <= WITHIN and one.holds and not one.bad
        good = good and fine
        rows.append((name + ("" if fine else "  <- off"),
                     f"{one.rps:,.0f} requests/s ({rps - 1:+.1%}), median {one.p50_s * 1e6:.1f} us ({median - 1:+.1%})"
                     + ("" if one.holds else f"; REFUSED: {one.reasons[0]}") + (f"; {one.bad}" if one.bad else ""),
                     f"within {WITHIN:.0%} of D={slowest.time_scale:g}"))
    return rows, good
