"""Thousands of random schedules of failures in virtual time: whatever fails, what clients saw is linearizable.

The runtimes, the replication and the resource controller are those of a testbed; sockets, links and time are simulated
(failing_rack.py draws the racks, schedule.py a schedule, random_strikes.py says what fails). A seed always
gives the same schedule.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

import msgspec

from controller.replica_steps import Event as Turn
from experiments.failures.random_strikes import AT_CONTROLLER, AT_NODES, KINDS, MOST_AT_ONCE
from experiments.failures.schedule import Outcome, played
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions

SEEDS, QUICK_SEEDS = 2000, 200
SEEDS_PER_POINT = 20
MOST_COMPLAINTS = 3  # of a schedule, on a line of its own each
Row = tuple[str, str, str, bool]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Play all schedules on all cores, or the one of `options.seed` alone. Returns {"holds", "rows", ...}."""
    if options.seed is not None:
        return replayed(options.seed, say)
    seeds = range(QUICK_SEEDS if options.quick else SEEDS)
    points = {f"seeds {some[0]}-{some[-1]}": some for start in seeds[::SEEDS_PER_POINT]
              if (some := seeds[start:start + SEEDS_PER_POINT])}
    result_run = Run.begin("failover", options)
    say(f"{len(seeds)} schedules on {os.cpu_count()} core(s)")
    with ProcessPoolExecutor() as pool:
        def play(point: str) -> list[Outcome]:
            found = list(pool.map(kept, points[point]))
            for complaint in complaints_of(found):
                say(complaint)
            return found

        try:
            parts = measured(result_run, list(points), play, list[Outcome], say)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # who stops a run does not wait for the schedules of its point
            raise
    outcomes = [outcome for part in parts.values() for outcome in part]
    rows = judge(outcomes, len(seeds))
    result_run.write_data([row_of(outcome) for outcome in outcomes])
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "quick": options.quick,
               "complaints": complaints_of(outcomes)}
    result_run.finish(content)
    return content


def kept(seed: int) -> Outcome:
    """Play a schedule; its timeline is kept only if something was wrong."""
    outcome = played(seed)
    if not outcome.complaints:
        outcome.timeline = []
    return outcome


def replayed(seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Play one schedule, and say all that happened in it."""
    outcome = played(seed)
    lines = [f"{at_s:8.3f} s  {what}" for at_s, what in outcome.timeline]
    for line in lines:
        say(line)
    for complaint in outcome.complaints:
        say(f"seed {seed}: {complaint}")
    result_run = Run("failover-schedule")
    (result_run.directory / "timeline.txt").write_text("\n".join([*lines, *outcome.complaints, ""]))
    rows = [("complaints", str(len(outcome.complaints)), "0"),
            ("requests", f"{outcome.operations}, {outcome.during} of them while something failed", ""),
            ("longest time without a reply", f"{1e3 * outcome.outage_s:.0f} ms", ""),
            ("whole after all was mended", f"{outcome.whole_after_s:.2f} s", ""),
            ("timeline", str(result_run.directory / "timeline.txt"), "")]
    content = {"holds": not outcome.complaints, "rows": rows, "outcome": msgspec.to_builtins(outcome)}
    result_run.finish(content)
    return content


def complaints_of(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what was wrong, each with the seed that shows it again."""
    return [f"seed {outcome.seed}: {complaint}" for outcome in outcomes
            for complaint in outcome.complaints[:MOST_COMPLAINTS]]


def judge(outcomes: Sequence[Outcome], seeds: int) -> list[Row]:
    """Return (what, measured, wanted, whether it is so) of schedules of which there should be so many."""
    wrong = [o.seed for o in outcomes if o.complaints]
    unanswered = sum(o.unanswered for o in outcomes)
    turns, moves = _sum(o.turns for o in outcomes), _sum(o.moves for o in outcomes)
    promoted, made_anew = turns[Turn.PRIMARY_LOST.value], turns[Turn.COMPLETE.value]
    return [("schedules played", str(len(outcomes)), str(seeds), len(outcomes) == seeds),
            ("schedules with a complaint",
             f"{len(wrong)}: seeds {', '.join(map(str, wrong[:5]))}" if wrong else "0", "0", not wrong),
            ("requests", f"{sum(o.operations for o in outcomes)}", "", True),
            ("requests never answered", str(unanswered), "0", not unanswered),
            ("requests made while something failed", str(sum(o.during for o in outcomes)), "more than 0",
             any(o.during for o in outcomes)),
            *_strikes(outcomes),
            ("backups promoted", str(promoted), "more than 0", promoted > 0),
            ("backups that joined, the first ones too", str(made_anew), "more than 0", made_anew > 0),
            ("joiners lost on the way", str(turns[Turn.JOINER_LOST.value]), "", True),
            ("migrations of the bystander, and rolled back", f"{moves['moved']}, {moves['rolled back']}",
             "each more than 0", moves["moved"] > 0 < moves["rolled back"]),
            ("times that the bystander lost state", str(sum(o.set_back for o in outcomes)), "", True),
            ("messages that clients repeated", str(sum(o.resent for o in outcomes)), "", True),
            ("datagrams lost", f"{sum(o.lost for o in outcomes)} of {sum(o.datagrams for o in outcomes)}", "", True),
            ("longest time without a reply", _times([o.outage_s for o in outcomes]), "", True),
            ("whole after all was mended", _times([o.whole_after_s for o in outcomes]), "", True)]


def _strikes(outcomes: Sequence[Outcome]) -> list[Row]:
    struck, primaries = _sum(o.struck for o in outcomes), _sum(o.primaries for o in outcomes)
    rows: list[Row] = [(f"{kind}, of which at a primary", f"{struck[kind]}, {primaries[kind]}", "each more than 0",
                        primaries[kind] > 0) for kind in AT_NODES]
    rows += [(kind, str(struck[kind]), "more than 0", struck[kind] > 0) for kind in AT_CONTROLLER]
    three = sum(o.most_at_once == MOST_AT_ONCE for o in outcomes)
    return [*rows, (f"schedules with {MOST_AT_ONCE} failures at once", str(three), "more than 0", three > 0),
            ("strikes given up: memory of both replicas", str(sum(o.spared for o in outcomes)), "", True)]


def _sum(counts: Any) -> Counter[str]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return total


def _times(seconds: Sequence[float]) -> str:
    return f"{median(seconds):.2f} s (median), {max(seconds):.2f} s (most)" if seconds else "none"


def row_of(outcome: Outcome) -> dict[str, Any]:
    """Return a schedule as a line of the table."""
    counts = {f"{kind}": outcome.struck.get(kind, 0) for kind in KINDS}
    return {"seed": outcome.seed, "shape": outcome.shape, **counts, "at_primaries": sum(outcome.primaries.values()),
            "most_at_once": outcome.most_at_once, "promoted": outcome.turns.get(Turn.PRIMARY_LOST.value, 0),
            "joined": outcome.turns.get(Turn.COMPLETE.value, 0), "moved": outcome.moves.get("moved", 0),
            "rolled_back": outcome.moves.get("rolled back", 0), "set_back": outcome.set_back,
            "requests": outcome.operations, "during_failures": outcome.during, "unanswered": outcome.unanswered,
            "resent": outcome.resent,
            "datagrams": outcome.datagrams, "lost": outcome.lost, "outage_ms": 1e3 * outcome.outage_s,
            "whole_after_s": outcome.whole_after_s, "virtual_s": outcome.virtual_s,
            "fingerprint": outcome.fingerprint, "complaints": "; ".join(outcome.complaints)}
