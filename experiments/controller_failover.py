"""The resource controller's leader is killed in the middle of a migration, again and again, and another goes on.

    ctl1, ctl2, ctl3     the leader is killed at a random moment of a migration ---x    another reads how far it was
    c1, c2 ===> store (KVS)                 s1n1 <-> s1h
    c1, c2 ---> front --> store --> last    s2n1 <-> s3h           as in migration.py: writers that know every reply

Each migration completes or is rolled back, and afterwards one node runs the instance, the one that the controller
names. How far it was when the leader was killed is read from the journal; where that says that the migration was over,
or not begun, the kill does not count. Who takes over must know at once who is alive and where everything else is. A
leader that is cut off must decide nothing while the majority goes on (minority.py). Then the same with one controller,
which is started again and goes on from its file.
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
from controller.migration_journal import Ended, Entry, Started, Term, Turned
from experiments.emulation.testbed import Testbed, TestbedOptions
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
from experiments.minority import Minority, cut_off, judge_minorities
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from nodes.residents import running
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

KILLS, QUICK_KILLS = {3: 50, 1: 20}, {3: 5, 1: 3}  # by how many controllers there are
MINORITIES, QUICK_MINORITIES = 3, 1
MOST_TRIES = 4  # for each kill that is to count
LONGEST_WAIT_REAL_S = 0.03  # a migration on this rack takes about that long
WINDOW = 8
SETTLED_WITHIN_S = 30.0
RESULT_LIMIT_S = 120.0
LOOK_AGAIN_S = 0.02
OVER = "over"


class Kill(msgspec.Struct, frozen=True):
    """One kill. `state`: how far the migration was, as State has it, or OVER; `lives`: the nodes that ran it then.

    `knew`: at its first word who went on held all nodes for alive, and knew where all other instances are.
    """

    instance: str
    source: str
    destination: str
    state: str
    owner: str
    lives: tuple[str, ...]
    settled_s: float  # real, from the kill on; with one controller, from its new start on
    controllers: int = 1
    killed: str = "ctl1"
    successor: str = "ctl1"
    decided_s: float = 0.0  # real, from the kill till another decided
    knew: bool = True

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
    rows: list[tuple[str, str, str, bool]] = []
    kills: list[Kill] = []
    for controllers, wanted in (QUICK_KILLS if options.quick else KILLS).items():
        minorities = 0 if controllers == 1 else QUICK_MINORITIES if options.quick else MINORITIES
        found, checked = _with(controllers, wanted, minorities)
        say(f"{_name(controllers)}: {len(found)} kills, {sum(kill.counts for kill in found)} in the middle of a "
            "migration")
        rows += [(f"{_name(controllers)}: {what}", measured, limit, ok)
                 for what, measured, limit, ok in (*judge(found, wanted), *checked)]
        kills += found
    result_run.write_data([{**msgspec.to_builtins(kill), "lives": " ".join(kill.lives), "outcome": kill.outcome}
                           for kill in kills])
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "quick": options.quick,
               "kills": len(kills)}
    result_run.finish(content)
    return content


def _name(controllers: int) -> str:
    return "one controller" if controllers == 1 else f"{controllers} controllers"


def _with(controllers: int, wanted: int, minorities: int) -> tuple[list[Kill], list[tuple[str, str, str, bool]]]:
    """Return all kills on a rack with so many controllers, and what else was checked there, as rows."""
    draw = random.Random("when the controller is killed")
    stores = stores_on(inventory_of(cluster_named(CLUSTER, clients=CLIENTS)))
    with Testbed.start(TestbedOptions(CLUSTER, clients=CLIENTS, label="failover", orchestrator="watch",
                                      deployments=tuple(store.deployment for store in stores),
                                      controllers=controllers)) as bed:
        numbers = itertools.count(1)
        writing = [(store, start_writer(bed, store, client, next(numbers), WINDOW))
                   for store in stores for client in ("c1", "c2")]
        await_lives(bed)
        turns = [_Turn(store, store.ends[0]) for store in stores]
        kills = _kills(bed, turns, wanted, draw)
        cuts = [_minority(bed, turn) for turn in itertools.islice(itertools.cycle(turns), minorities)]
        for _, (client, _) in writing:
            client.stop()
        wrote = [(store, client.result(RESULT_LIMIT_S), writer) for store, (client, writer) in writing]
        for store, result, writer in wrote:
            store.written.append(result)
            store.read.append(read_back(bed, store, next(numbers), writer, result.sent))
    rows = judge_minorities(cuts)
    for store in stores:
        rows += [answers_row(f"{store.instance}: {WRITTEN}", store.written),
                 answers_row(f"{store.instance}: {READ}", store.read)]
        rows.append((f"{store.instance}: longest time without a reply to one writer",
                     f"{max(r.longest_gap_s for r in store.written):.3f} s", "", True))
    return kills, rows


def await_lives(bed: Testbed) -> None:
    """Wait till all nodes are held for alive, which takes a second of heartbeats."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while not _all_alive(bed):
        if time.monotonic() > deadline:
            raise ExperimentError(f"not all nodes are held for alive after {SETTLED_WITHIN_S:g} s")
        time.sleep(LOOK_AGAIN_S)


def _all_alive(bed: Testbed) -> bool:
    return {node.life for node in bed.asked().state().nodes} == {"alive"}


def _kills(bed: Testbed, turns: Sequence[_Turn], wanted: int, draw: random.Random) -> list[Kill]:
    """Kill the controller till `wanted` kills fell into a migration, or too many did not."""
    kills: list[Kill] = []
    for turn in itertools.cycle(turns):
        if sum(kill.counts for kill in kills) >= wanted or len(kills) >= MOST_TRIES * wanted:
            return kills
        after_s = draw.uniform(0.0, LONGEST_WAIT_REAL_S)
        kill = killed(bed, turn.store, turn.at, turn.other, after_s)
        turn.at = kill.owner
        kills.append(kill)
    return kills


def killed(bed: Testbed, store: Store, source: str, destination: str, after_s: float) -> Kill:
    """Begin to move a store, kill the leader `after_s` later, let another go on; return what became of it.

    In the end the controller runs on all its nodes again.
    """
    several, others = bed.options.controllers > 1, _others(bed, store)
    migration = bed.asked().move(store.instance, destination)
    time.sleep(after_s)
    bed.fail("controller")
    (failure,) = [f for f in bed.broken if f.kind == "controller"]
    started = time.monotonic()
    if not several:
        bed.heal("controller")
    successor = bed.leader()
    decided_s = time.monotonic() - started
    knew = not several or (_all_alive(bed) and _others(bed, store) == others)
    owner = _settled(bed, store)
    settled_s = time.monotonic() - started
    state = state_in(until_next_term(bed.asked().history(migration)), migration)
    lives = living(_all_counters(bed), store.instance)
    if several:
        bed.heal("controller")
        _await_follower(bed, failure.names[0], successor)
    return Kill(store.instance, source, destination, state, owner, lives, settled_s, bed.options.controllers,
                next(iter(failure.names), successor), successor, decided_s, knew)


def _others(bed: Testbed, store: Store) -> dict[tuple[int, int], str]:
    """Return where all instances are but the store's."""
    return {(application, number): node for application, number, node, _ in bed.asked().places()
            if (application, number) != _key(store)}


def _key(store: Store) -> tuple[int, int]:
    return store.deployment.number, next(i.number for i in store.deployment.application().instances
                                         if f"{store.deployment.name}/{i.name}" == store.instance)


def _await_follower(bed: Testbed, name: str, leader: str) -> None:
    """Wait till a controller node that was started again has heard who leads, and a second of all heartbeats."""
    deadline, all_of = time.monotonic() + SETTLED_WITHIN_S, len(bed.agents)
    while (role := bed.asked().roles().get(name)) is None or (role.leader, role.alive) != (leader, all_of):
        if time.monotonic() > deadline:
            raise ExperimentError(f"{name} follows nobody {SETTLED_WITHIN_S:g} s after its new start")
        time.sleep(LOOK_AGAIN_S)


def _minority(bed: Testbed, turn: _Turn) -> Minority:
    """Cut the leader off and let the majority move a store; return what came of it."""
    found = cut_off(bed, turn.store.instance, turn.other, lambda: _settled(bed, turn.store),
                    lambda: living(_all_counters(bed), turn.store.instance))
    turn.at = found.owner
    return found


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


def until_next_term(entries: Iterable[Entry]) -> list[Entry]:
    """Return what was written before another controller went on."""
    return list(itertools.takewhile(lambda entry: not isinstance(entry, Term), entries))


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
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while time.monotonic() < deadline:
        try:
            if not bed.asked().state().under_way:
                return next(node for application, instance, node, _ in bed.asked().places()
                            if (application, instance) == _key(store))
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
    rows = [("kills in the middle of a migration", f"{len(counted)} of {len(kills)}", f">= {wanted}",
             len(counted) >= wanted),
            ("how far the migrations were", ", ".join(f"{state} {n}" for state, n in sorted(states.items())), "", True),
            ("migrations that completed, or were rolled back",
             ", ".join(f"{what} {n}" for what, n in sorted(outcomes.items())), f"{len(counted)} in all",
             not outcomes["elsewhere"]),
            ("times that one instance lived, where the controller says", f"{alone}{other}", str(len(kills)),
             alone == len(kills))]
    if any(kill.controllers > 1 for kill in kills):
        decided = [kill.decided_s for kill in kills]
        knew = sum(kill.knew and kill.successor != kill.killed for kill in kills)
        rows += [("times that another went on, and knew who is alive and where everything is", str(knew),
                  str(len(kills)), knew == len(kills)),
                 ("another decided after the kill, median (longest)", f"{median(decided):.2f} s ({max(decided):.2f} s)",
                  "", True)]
    return [*rows, ("settled after the kill, or one controller's new start, median (longest)",
                    f"{median(times):.2f} s ({max(times):.2f} s)", f"< {SETTLED_WITHIN_S:g} s", True)]
