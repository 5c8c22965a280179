"""The resource controller is killed in the middle of a migration, again and again; it goes on from its journal.

    ctl1 ---x  killed at a random moment of a migration            started again: reads how far it was, and goes on
    c1, c2 ===> store (KVS)                 s1n1 <-> s1h
    c1, c2 ---> front --> store --> last    s2n1 <-> s3h           as in migration.py: writers that know every reply

Each migration completes or is rolled back, and afterwards one node runs the instance, the one that the controller
names. How far it was when it was killed is read from the journal; where that says that the migration was over, or not
begun, the kill does not count.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec

from controller.errors import MigrationError
from controller.migration_journal import Ended, Entry, Started, Turned, decode_entries
from experiments.errors import ExperimentError
from experiments.migration import (
    CLIENTS,
    CLUSTER,
    READ,
    WRITTEN,
    Store,
    answers_row,
    read_back,
    start_writer,
    stores_on,
)
from experiments.orchestrating import JOURNAL_NAME
from experiments.results import Run
from experiments.run_options import RunOptions
from experiments.testbed import Testbed, TestbedOptions
from nodes.residents import running
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

KILLS, QUICK_KILLS = 50, 10
MOST_TRIES = 4  # for each kill that is to count
LONGEST_WAIT_REAL_S = 0.03  # a migration on this rack takes about that long
WINDOW = 8
FIRST_LOAD_REAL_S = 0.5
SETTLED_WITHIN_S = 30.0
RESULT_LIMIT_S = 120.0
LOOK_AGAIN_S = 0.02
OVER = "over"


class Kill(msgspec.Struct, frozen=True):
    """One kill. `state`: how far the migration was, as State has it, or OVER; `lives`: the nodes that ran it then."""

    instance: str
    source: str
    destination: str
    state: str
    owner: str
    lives: tuple[str, ...]
    settled_s: float  # real, from the controller's new start on

    @property
    def counts(self) -> bool:
        return self.state != OVER

    @property
    def outcome(self) -> str:
        return {self.destination: "completed", self.source: "rolled back"}.get(self.owner, "elsewhere")


@dataclass(slots=True)
class _Turn:
    """A store, and at which of its two ends it is."""

    store: Store
    at: str

    @property
    def other(self) -> str:
        one, two = self.store.ends
        return two if self.at == one else one


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` kills less often. Returns {"holds", "rows", ...}."""
    result_run = Run("controller-failover")
    wanted = QUICK_KILLS if options.quick else KILLS
    draw = random.Random("when the controller is killed")
    stores = stores_on(inventory_of(cluster_named(CLUSTER, clients=CLIENTS)))
    with Testbed.start(TestbedOptions(CLUSTER, clients=CLIENTS, label="failover", orchestrator="watch",
                                      deployments=tuple(store.deployment for store in stores))) as bed:
        numbers = itertools.count(1)
        writing = [(store, start_writer(bed, store, client, next(numbers), WINDOW))
                   for store in stores for client in ("c1", "c2")]
        time.sleep(FIRST_LOAD_REAL_S)
        kills = _kills(bed, [_Turn(store, store.ends[0]) for store in stores], wanted, draw)
        for _, (client, _) in writing:
            client.stop()
        wrote = [(store, client.result(RESULT_LIMIT_S), writer) for store, (client, writer) in writing]
        for store, result, writer in wrote:
            store.written.append(result)
            store.read.append(read_back(bed, store, next(numbers), writer, result.sent))
    say(f"{len(kills)} kills, {sum(kill.counts for kill in kills)} of them in the middle of a migration")
    rows = judge(kills, wanted)
    for store in stores:
        rows += [answers_row(f"{store.instance}: {WRITTEN}", store.written),
                 answers_row(f"{store.instance}: {READ}", store.read)]
        rows.append((f"{store.instance}: longest time without a reply to one writer",
                     f"{max(r.longest_gap_s for r in store.written):.3f} s", "", True))
    result_run.write_data([{**msgspec.to_builtins(kill), "lives": " ".join(kill.lives), "outcome": kill.outcome}
                           for kill in kills])
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "quick": options.quick,
               "kills": len(kills)}
    result_run.finish(content)
    return content


def _kills(bed: Testbed, turns: Sequence[_Turn], wanted: int, draw: random.Random) -> list[Kill]:
    """Kill the controller till `wanted` kills fell into a migration, or too many did not."""
    kills: list[Kill] = []
    for turn in itertools.cycle(turns):
        if sum(kill.counts for kill in kills) >= wanted or len(kills) >= MOST_TRIES * wanted:
            return kills
        kill = _killed(bed, turn, draw.uniform(0.0, LONGEST_WAIT_REAL_S))
        turn.at = kill.owner
        kills.append(kill)
    return kills


def _killed(bed: Testbed, turn: _Turn, after_s: float) -> Kill:
    """Begin to move a store, kill the controller `after_s` later, start another; return what became of it."""
    instance, source, destination = turn.store.instance, turn.at, turn.other
    migration = bed.asked().move(instance, destination)
    time.sleep(after_s)
    bed.fail("controller")
    state = state_in(decode_entries((bed.world.run_dir / JOURNAL_NAME).read_bytes()), migration)
    started = time.monotonic()
    bed.heal("controller")
    owner = _settled(bed, turn.store)
    settled_s = time.monotonic() - started
    return Kill(instance, source, destination, state, owner, living(_all_counters(bed), instance), settled_s)


def _all_counters(bed: Testbed) -> dict[str, dict[str, int]]:
    """Ask all agents; raises ExperimentError if one does not answer, since it may run anything."""
    computing = {n.name for n in bed.inventory.nodes if n.role in ("host", "smartnic")}
    found = bed.counters()
    if found.keys() != computing:
        raise ExperimentError(f"no answer from {', '.join(sorted(computing - found.keys()))}: what runs there?")
    return found


def living(counters: Mapping[str, Mapping[str, int]], instance: str) -> tuple[str, ...]:
    """Return the nodes whose agents say that `instance` begins requests there now, whatever the controller says."""
    return tuple(sorted(name for name, counted in counters.items() if instance in running(counted)))


def state_in(entries: Iterable[Entry], migration: int) -> str:
    """Return how far the journal says that a migration is; OVER if it has ended, or never began.

    Raises ExperimentError for a journal that does not know it.
    """
    state = ""
    for entry in entries:
        if isinstance(entry, Started | Turned | Ended) and entry.migration == migration:
            state = "decided" if isinstance(entry, Started) else OVER if isinstance(entry, Ended) else entry.state
    if not state:
        raise ExperimentError(f"the journal knows nothing of migration {migration}, which was begun")
    return state


def _settled(bed: Testbed, store: Store) -> str:
    """Wait till nothing is under way any more; return the node that has the instance."""
    number = next(i.number for i in store.deployment.application().instances
                  if f"{store.deployment.name}/{i.name}" == store.instance)
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if not bed.asked().state().under_way:
                return next(node for application, instance, node, _ in bed.asked().places()
                            if (application, instance) == (store.deployment.number, number))
        except MigrationError:
            pass  # it is busy with what it found
        time.sleep(LOOK_AGAIN_S)
    raise ExperimentError(f"{store.instance} has not settled {SETTLED_WITHIN_S:g} s after the controller's start")


def judge(kills: Sequence[Kill], wanted: int) -> list[tuple[str, str, str, bool]]:
    """Return (what, measured, wanted, whether it is so)."""
    counted = [kill for kill in kills if kill.counts]
    outcomes = Counter(kill.outcome for kill in counted)
    states = Counter(kill.state for kill in counted)
    alone = sum(kill.lives == (kill.owner,) for kill in kills)
    times = [kill.settled_s for kill in counted] or [0.0]
    other = next((f" ({k.instance} lives on {' and '.join(k.lives) or 'no node'}; the controller says {k.owner})"
                  for k in kills if k.lives != (k.owner,)), "")
    return [("kills in the middle of a migration", f"{len(counted)} of {len(kills)}", f">= {wanted}",
             len(counted) >= wanted),
            ("how far the migrations were", ", ".join(f"{state} {n}" for state, n in sorted(states.items())), "", True),
            ("migrations that completed, or were rolled back",
             ", ".join(f"{what} {n}" for what, n in sorted(outcomes.items())), f"{len(counted)} in all",
             not outcomes["elsewhere"]),
            ("times that one instance lived, where the controller says", f"{alone}{other}", str(len(kills)),
             alone == len(kills)),
            ("settled after the controller's new start, median (longest)",
             f"{median(times):.2f} s ({max(times):.2f} s)", f"< {SETTLED_WITHIN_S:g} s", True)]
