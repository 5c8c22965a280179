"""Parts of a rack fail under load, one at a time, and what was acknowledged is still there.

    c1, c2 ===> kvs (replicated)                                                s1n1, and a backup on another server
    c1, c2 ===> api (replicated) --> sql --> ema, spike, recommend (replicated)     sql alone, on a host

Section 3.5 on a rack of packets. Each failure strikes where a replica is at that time: of three times it is the
primary, the fourth time the backup, of each stage of IOT-TS in turn. After each: no reply wrong, lost or doubled, every
write read back, and what clients of shared keys saw linearizable (judging.py); no replicated stage begins
anew. What SQL held is lost with its node: it begins anew elsewhere once that is cut off (power_switch.py), and requests
that it had then may never be answered, or twice. Printed is the longest time that a client had no reply.

With `--simulate` nothing is real but the code: random schedules of overlapping failures on racks in virtual time
(schedules.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import msgspec

from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.failures import schedules as failover_schedules
from experiments.failures.aims import KINDS
from experiments.failures.live_load import CLIENTS, Load, StoreLoad, ThermostatLoad, store_on, thermostats_on
from experiments.failures.live_strike import Outcome, struck
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.figures import StoredFigure, draw, stored
from nodes.deployment import Deployment
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

CLUSTER = "type1x3"
TURNS, QUICK_TURNS = 20, 2
TURNS_IN_A_WORLD = 2  # what a store holds grows with every failure, and with it what a joiner must fetch
APPLICATIONS: tuple[tuple[Callable[[Inventory], Deployment], Callable[[Testbed, Deployment], Load]], ...] = (
    (store_on, StoreLoad), (thermostats_on, ThermostatLoad))


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` breaks each part less often, `simulate` plays schedules in virtual time.

    Returns {"holds", "rows", ...}. Raises ExperimentError for a seed without `simulate`.
    """
    if options.simulate:
        return failover_schedules.run(options, say)
    if options.seed is not None:
        raise ExperimentError(f"seed {options.seed}: failures on packets are drawn from none; add --simulate")
    inventory = inventory_of(cluster_named(CLUSTER, clients=len(CLIENTS)))
    turns = range(1, (QUICK_TURNS if options.quick else TURNS) + 1)
    points: dict[str, tuple[int, int, str]] = {}
    for index, (deployed, _) in enumerate(APPLICATIONS):
        name = deployed(inventory).name
        points |= {f"{name}/{turn}/{kind}": (index, turn, kind) for turn in turns for kind in KINDS}
    result_run = Run.begin("failover", options)
    with contextlib.closing(_Worlds(inventory)) as worlds:
        def strike(point: str) -> Outcome:
            index, turn, kind = points[point]
            outcome = worlds.struck(index, turn, kind)
            for complaint in outcome.complaints:
                say(f"{point} at {outcome.node}: {complaint}")
            return outcome

        found = measured(result_run, list(points), strike, Outcome, say)
    outcomes = list(found.values())
    rows = judge(outcomes, turns)
    result_run.write_data([outcome.row() for outcome in outcomes])
    figures = figures_of(outcomes)
    draw(result_run.directory, figures)
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "quick": options.quick,
               "figures": figures, "outcomes": msgspec.to_builtins(outcomes)}
    result_run.finish(content)
    return content


def figures_of(outcomes: Sequence[Outcome]) -> dict[str, StoredFigure]:
    """Return for each application how long it was without a reply, by kind of failure."""
    figures = {}
    for name in dict.fromkeys(o.application for o in outcomes):
        times = {kind: [1e3 * o.outage_s for o in outcomes if (o.application, o.failure) == (name, kind)]
                 for kind in KINDS}
        figures[f"outage-{name}"] = stored("grouped", GroupedData(
            f"{name}: longest time without a reply", "time without a reply (ms)",
            tuple(GroupedBar(kind, label, of(found)) for kind, found in times.items() if found
                  for label, of in (("median", median), ("most", max)))))
    return figures


class _Worlds:
    """The testbed at work, if any: one for some turns of one application, and a new one after any complaint."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._of: tuple[int, int] | None = None
        self._bed: Testbed | None = None

    def struck(self, index: int, turn: int, kind: str) -> Outcome:
        """Let a part fail in turn number `turn` of application number `index`."""
        of = index, (turn - 1) // TURNS_IN_A_WORLD
        deployed, load = APPLICATIONS[index]
        deployment = deployed(self._inventory)
        if self._of != of or self._bed is None:
            self.close()
            self._bed, self._of = Testbed.start(TestbedOptions(
                CLUSTER, clients=len(CLIENTS), label="failover", deployments=(deployment,), orchestrator="watch",
                fencing=True)), of
        outcome = struck(self._bed, deployment, kind, turn, load(self._bed, deployment))
        if outcome.complaints:
            self.close()
        return outcome

    def close(self) -> None:
        """End what is at work."""
        if self._bed is not None:
            self._bed.stop()
            self._bed = None


def judge(outcomes: Sequence[Outcome], turns: Sequence[int]) -> list[tuple[str, str, str, bool]]:
    """Return (what, measured, wanted, whether it is so) for each kind of failure of each application, then for all."""
    rows = []
    for name in dict.fromkeys(o.application for o in outcomes):
        for kind in KINDS:
            of = [o for o in outcomes if (o.application, o.failure) == (name, kind)]
            bad = sum(bool(o.complaints) for o in of)
            times = [1e3 * o.outage_s for o in of]
            rows.append((f"{name}, {kind}: {len(of)} times",
                         f"{bad} with complaints; without a reply {median(times):.0f} ms (median), {max(times):.0f} ms "
                         f"(most); whole {median(o.whole_after_s for o in of):.1f} s after it was mended",
                         "0 with complaints", not bad and len(of) == len(turns)))
    return rows
