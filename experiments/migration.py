"""A stateful microservice moves back and forth under load, and no request is lost, done twice or overtaken.

    c1, c2 ===> store (KVS)                 s1n1 <-> s1h      where requests enter: clients follow it
    c1, c2 ---> front --> store --> last    s2n1 <-> s3h      between two others, on s3n1 and s1h: they follow it

Section 3.4 on a rack of packets: every write that was acknowledged is readable, counters count each request once, and
replies come in order; then with lossy SmartNICs; then at calibrated speed, for the time that each step takes ("10s to
100s of milliseconds" in all, section 5.6).
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from controller.control_requests import ToldTimeline
from controller.timeline import STEPS
from experiments.clients.client import ClientConfig, ClientResult
from experiments.clients.echo_service import NAME as ECHO
from experiments.clients.store_checker import CHECKER, READ_BACK, StoreReadBack
from experiments.emulation.pacing import UNPACED, Pacing
from experiments.emulation.running import RunningClient
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.charts import GroupedBar, GroupedData
from experiments.views.figures import draw, stored
from microservices.application import Application, Channel, Stage
from microservices.applications import application_named
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

CLUSTER, CLIENTS = "type1x3", 2
CHAIN_NUMBER = 950
MIGRATIONS, QUICK_MIGRATIONS = 100, 10  # of each store
TIMED_MIGRATIONS, QUICK_TIMED_MIGRATIONS = 40, 6
FRAME_LOSS = 0.02
TIME_SCALE = 20.0
WINDOW = 8
VALUE_BYTES = 256
FIRST_LOAD_REAL_S = 0.5  # before the first migration
MIGRATION_LIMIT_S = 60.0  # real
RESULT_LIMIT_S = 120.0
BAD = ("errors", "wrong", "lost", "late", "duplicated", "foreign")
WRITTEN, READ = "requests answered right, once and in order", "keys and counters read back afterwards"
Rows = list[tuple[str, str, str, bool]]


@dataclass(frozen=True, slots=True)
class Phase:
    """One rack: its speed, its loss, how often each store moves, and how many requests each writer has under way."""

    name: str
    migrations: int
    pacing: Pacing = UNPACED
    frame_loss: float = 0.0
    window: int = WINDOW


@dataclass(slots=True)
class Store:
    """A store that moves between two nodes, and what came of it. `number` tells writers of different stores apart."""

    number: int
    deployment: Deployment
    instance: str
    ends: tuple[str, str]
    lines: list[ToldTimeline] = field(default_factory=list)
    written: list[ClientResult] = field(default_factory=list)
    read: list[ClientResult] = field(default_factory=list)


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` moves each store less often. Returns {"holds", "rows", ...}."""
    result_run = Run("migration")
    count, timed = ((QUICK_MIGRATIONS, QUICK_TIMED_MIGRATIONS) if options.quick else (MIGRATIONS, TIMED_MIGRATIONS))
    # At calibrated speed twelve cores share a store's requests, and only one at a time has a determined order.
    phases = (Phase("no loss", count), Phase(f"{FRAME_LOSS:.0%} of frames lost", count, frame_loss=FRAME_LOSS),
              Phase("calibrated speed", timed, Pacing("calibrated", TIME_SCALE), window=1))
    rows: Rows = []
    data: list[dict[str, Any]] = []
    for phase in phases:
        stores, counters = _moved(phase, say)
        for store in stores:
            _judge(rows, phase, store)
            data += [{"phase": phase.name, "instance": line.instance, "migration": line.migration,
                      "source": line.source, "destination": line.destination, "outcome": line.outcome,
                      "state_bytes": line.state_bytes,
                      **{f"{step}_ms": 1e3 * line.steps_s[step] if step in line.steps_s else None
                         for step in STEPS if step != "detect"}} for line in store.lines]
        if phase.frame_loss:
            dropped = sum(c.get("dropped_on_purpose", 0) for c in counters.values())
            rows.append(("frames that SmartNICs dropped on purpose", str(dropped), "> 0", dropped > 0))
    result_run.write_data(data)
    # The last phase: the others are unpaced, so their times are this machine's.
    figures = {"steps": stored("grouped", GroupedData(
        "Steps of a cold migration, median", "emulated time (ms)",
        tuple(GroupedBar(step, store.instance, 1e3 * middle) for store in stores
              for step, (middle, _) in step_times(store.lines).items())))}
    draw(result_run.directory, figures)
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "quick": options.quick,
               "figures": figures}
    result_run.finish(content)
    return content


def stores_on(inventory: Inventory) -> list[Store]:
    """Return the two stores where they are at first."""
    alone = application_named("kvs", 1, 0)
    chain = Application("chained", CHAIN_NUMBER, (Stage("front", ECHO), Stage("store", "kvs"), Stage("last", ECHO)),
                        (Channel("front", "store"), Channel("store", "last")))
    return [Store(0, deploy(alone, {0: "s1n1"}, inventory), "kvs/kvs-1", ("s1n1", "s1h")),
            Store(1, deploy(chain, {0: "s3n1", 1: "s2n1", 2: "s1h"}, inventory), "chained/store-1", ("s2n1", "s3h"))]


def _moved(phase: Phase, say: Callable[[str], None]) -> tuple[list[Store], dict[str, dict[str, int]]]:
    """Move the stores of a fresh rack; return them with what came of it, and the agents' counters at the end."""
    inventory = inventory_of(cluster_named(CLUSTER, clients=CLIENTS))
    stores = stores_on(inventory)
    options = TestbedOptions(CLUSTER, clients=CLIENTS, label="migration", pacing=phase.pacing,
                             deployments=tuple(store.deployment for store in stores), frame_loss=phase.frame_loss,
                             orchestrator="watch")
    with Testbed.start(options) as bed:
        numbers = itertools.count(1)
        writing = [(store, start_writer(bed, store, client, next(numbers), phase.window))
                   for store in stores for client in ("c1", "c2")]
        time.sleep(FIRST_LOAD_REAL_S)
        for turn in range(phase.migrations):
            for store in stores:
                store.lines.append(bed.migrate(store.instance, store.ends[(turn + 1) % 2], MIGRATION_LIMIT_S))
        for _, (client, _) in writing:
            client.stop()
        wrote = [(store, client.result(RESULT_LIMIT_S), writer) for store, (client, writer) in writing]
        for store, result, writer in wrote:
            store.written.append(result)
            store.read.append(read_back(bed, store, next(numbers), writer, result.sent))
        for store in stores:
            say(f"{phase.name}: {store.instance} moved {len(store.lines)} times under "
                f"{sum(r.answered for r in store.written)} requests; steps in ms, median: {_medians(store.lines)}")
        return stores, bed.counters()


def start_writer(bed: Testbed, store: Store, client: str, number: int, window: int) -> tuple[RunningClient, int]:
    """Start a writer of its own keys that works till it is stopped; return it, and the number that its keys have."""
    config = ClientConfig(bed.inventory.node(client).ip, number, store.deployment, CHECKER, requests=0, flows=1,
                          window=window, payload_bytes=VALUE_BYTES, seed=number, timeout_s=1e6,
                          options={"writer": number})
    return bed.start_client(client, config), number


def read_back(bed: Testbed, store: Store, number: int, writer: int, sent: int) -> ClientResult:
    """Read all that `writer` wrote with `sent` requests; each reply is checked."""
    keys = len(StoreReadBack(writer, VALUE_BYTES, writer, sent).right)
    config = ClientConfig(bed.inventory.node("c1").ip, number, store.deployment, READ_BACK, requests=keys, flows=1,
                          window=4, payload_bytes=VALUE_BYTES, seed=writer, timeout_s=1e6,
                          options={"writer": writer, "sent": sent})
    return bed.start_client("c1", config).result(RESULT_LIMIT_S)


def _judge(rows: Rows, phase: Phase, store: Store) -> None:
    what = f"{phase.name}: {store.instance}"
    moved = sum(line.outcome == "moved" for line in store.lines)
    rows.append((f"{what} moved", f"{moved} of {len(store.lines)} times", f"{phase.migrations}",
                 moved == phase.migrations))
    rows += [answers_row(f"{what}: {WRITTEN}", store.written), answers_row(f"{what}: {READ}", store.read)]
    longest = max(r.longest_gap_s for r in store.written)
    size = max((line.state_bytes for line in store.lines), default=0)
    rows.append((f"{what}: longest time without a reply to one writer", f"{1e3 * longest:.3g} ms", "", True))
    rows.append((f"{what}: state moved, at most", f"{size:,} bytes", "> 0", size > 0))
    times = step_times(store.lines)
    rows.append((f"{what}: steps in ms, median (longest)",
                 ", ".join(f"{step} {1e3 * mid:.3g} ({1e3 * most:.3g})" for step, (mid, most) in times.items()),
                 'in all "10s to 100s of ms"', True))


def answers_row(what: str, results: Sequence[ClientResult]) -> tuple[str, str, str, bool]:
    """Return a row that holds if every request of `results` was answered, once and right."""
    sent, answered = sum(r.sent for r in results), sum(r.answered for r in results)
    bad = {kind: count for kind in BAD if (count := sum(getattr(r, kind) for r in results))}
    unfinished = sum(r.unfinished for r in results)
    told = f"{answered} of {sent}" + "".join(f", {count} {kind}" for kind, count in bad.items())
    if unfinished:
        told += f", {unfinished} unanswered"
    complaint = next((c for r in results for c in r.complaints), "")
    return (what, told + (f" ({complaint})" if complaint else ""), "all",
            answered == sent > 0 and not bad and not unfinished)


def step_times(lines: Sequence[ToldTimeline]) -> dict[str, tuple[float, float]]:
    """Return of each step that there was the median and the longest time, in emulated seconds."""
    return {step: (median(times), max(times)) for step, times in _times(lines)}


def _times(lines: Sequence[ToldTimeline]) -> Iterator[tuple[str, list[float]]]:
    for step in STEPS:
        times = [line.steps_s[step] for line in lines if step in line.steps_s]
        if times:
            yield step, times


def _medians(lines: Sequence[ToldTimeline]) -> str:
    return ", ".join(f"{step} {1e3 * mid:.3g}" for step, (mid, _) in step_times(lines).items())
