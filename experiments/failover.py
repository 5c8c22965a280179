"""Parts of a rack fail under load, one at a time, and what was acknowledged is still there.

    c1, c2 ===> kvs (replicated)                                                s1n1, and a backup on another server
    c1, c2 ===> api (replicated) --> sql --> ema, spike, recommend (replicated)     sql, which cannot be, on a host

Section 3.5 on a rack of packets. Each failure strikes where the store, or the first stage, is served at that time.
After each: no reply wrong, lost or doubled, every write read back, and what clients of shared keys saw linearizable
(experiments/linearizability.py); of IOT-TS, no replicated stage begins anew. What SQL held is lost with its node: it
begins anew elsewhere when that was fenced, and requests that it had then are never answered. Printed is the longest
time that any client had no reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from experiments.client import ClientConfig, ClientResult
from experiments.errors import ExperimentError
from experiments.failing import FAILURES, mend_all
from experiments.results import Run
from experiments.run_options import RunOptions
from experiments.shared_store import SHARED, judged
from experiments.store_checker import CHECKER, READ_BACK, StoreReadBack
from experiments.testbed import Testbed, TestbedOptions
from microservices.application import Application
from microservices.applications import application_named, iot_ts
from microservices.service import service_class
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

CLUSTER, CLIENTS = "type1x3", 2
RUNS, QUICK_RUNS = 20, 2
FIRST_LOAD_REAL_S, BROKEN_REAL_S = 0.7, 2.5
PAIRED_WITHIN_S, RESULT_LIMIT_S = 20.0, 90.0
VALUE_BYTES = 64
PATIENCE_S = 5.0  # of a client of IOT-TS
Results = list[tuple[ClientConfig, ClientResult]]
BAD = ("errors", "wrong", "lost", "late", "duplicated", "foreign")


@dataclass(slots=True)
class Outcome:
    """What came of one failure. `outage_s` is the longest time without a reply to one client, emulated."""

    application: str
    failure: str
    node: str
    outage_s: float = 0.0
    answered: int = 0
    unanswered: int = 0
    paired_after_s: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        return {"application": self.application, "failure": self.failure, "node": self.node,
                "outage_ms": 1e3 * self.outage_s, "answered": self.answered, "unanswered": self.unanswered,
                "paired_after_s": self.paired_after_s, "complaints": "; ".join(self.complaints)}


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` breaks each part less often. Returns {"holds", "rows", ...}."""
    result_run = Run("failover")
    count = QUICK_RUNS if options.quick else RUNS
    inventory = inventory_of(cluster_named(CLUSTER, clients=CLIENTS))
    outcomes: list[Outcome] = []
    for deployment, load in ((store_on(inventory), _StoreLoad), (thermostats_on(inventory), _ThermostatLoad)):
        options_of = TestbedOptions(CLUSTER, clients=CLIENTS, label="failover", deployments=(deployment,),
                                    orchestrator="watch")
        with Testbed.start(options_of) as bed:
            for turn in range(count):
                for failure in FAILURES:
                    outcomes.append(_struck(bed, deployment, failure, load(bed, deployment)))
                    last = outcomes[-1]
                    say(f"{deployment.name}, {failure} at {last.node} ({turn + 1}): {1e3 * last.outage_s:.0f} ms "
                        f"without a reply, paired {last.paired_after_s:.1f} s after it was mended"
                        + (f"; {'; '.join(last.complaints)}" if last.complaints else ""))
    rows = [_row(outcomes, name, failure) for name in dict.fromkeys(o.application for o in outcomes)
            for failure in FAILURES]
    result_run.write_data([outcome.row() for outcome in outcomes])
    content = {"holds": not any(o.complaints for o in outcomes), "rows": rows, "quick": options.quick}
    result_run.finish(content)
    return content


def store_on(inventory: Inventory) -> Deployment:
    """Return the replicated store where it is at first."""
    return deploy(application_named("kvs", 1, 1), {0: "s1n1"}, inventory, replicate=True)


def thermostats_on(inventory: Inventory) -> Deployment:
    """Return IOT-TS where it is at first: all replicated that can be."""
    whole = iot_ts(1, 1)
    stages = tuple(replace(s, backups=0) if service_class(s.service).host_only else s for s in whole.stages)
    application = Application(whole.name, whole.number, stages, whole.channels)
    nodes = dict(enumerate(("s1n1", "s2h", "s2n1", "s3n1", "s3h")))
    return deploy(application, nodes, inventory, replicate=True)


class _Load:
    """Clients at work on a deployment, and what is to be said of their results."""

    def __init__(self, bed: Testbed, deployment: Deployment) -> None:
        self._bed = bed
        self._deployment = deployment
        self._clients: list[tuple[ClientConfig, Any]] = []

    def _start(self, client: str, workload: str, **more: Any) -> None:
        number = self._bed.next_client_number()
        given: dict[str, Any] = {"requests": 0, "flows": 1, "window": 4, "timeout_s": 1e6, "seed": number, **more}
        config = ClientConfig(self._bed.inventory.node(client).ip, number, self._deployment, workload, **given)
        self._clients.append((config, self._bed.start_client(client, config)))

    def stop(self) -> Results:
        """End the clients and return what each was told and what came of it."""
        for _, client in self._clients:
            client.stop()
        return [(config, client.result(RESULT_LIMIT_S)) for config, client in self._clients]

    def complaints(self, results: Results, lone_lost: bool) -> list[str]:
        """Return what is wrong; `lone_lost` if what has no replica was lost meanwhile, with the requests it had."""
        raise NotImplementedError


class _StoreLoad(_Load):
    """Two writers of keys of their own, and two that share theirs."""

    def __init__(self, bed: Testbed, deployment: Deployment) -> None:
        super().__init__(bed, deployment)
        space = bed.next_client_number()
        for client in ("c1", "c2"):
            writer = bed.next_client_number()
            self._start(client, CHECKER, payload_bytes=VALUE_BYTES, seed=writer, options={"writer": writer})
            self._start(client, SHARED, flows=2, window=1, payload_bytes=VALUE_BYTES, history=True, seed=writer,
                        options={"writer": writer, "space": space})

    def complaints(self, results: Results, lone_lost: bool) -> list[str]:
        found = [f"{config.workload.rpartition(':')[2]}: {said}" for config, result in results
                 for said in _said_of(result) if result.answered != result.sent or said]
        for config, result in results:
            if config.workload != CHECKER:
                continue
            writer = config.options["writer"]
            wanted = len(StoreReadBack(config.seed, VALUE_BYTES, writer, result.sent).right)
            reading = ClientConfig(self._bed.inventory.node("c1").ip, self._bed.next_client_number(),
                                   self._deployment, READ_BACK, requests=wanted, flows=1, window=4,
                                   payload_bytes=VALUE_BYTES, seed=config.seed, timeout_s=1e6,
                                   options={"writer": writer, "sent": result.sent})
            read = self._bed.start_client("c1", reading).result(RESULT_LIMIT_S)
            found += [f"reading back: {said}" for said in _said_of(read)]
        verdict = judged(result for config, result in results if config.history)
        if not verdict:
            found.append(str(verdict))
        return found


class _ThermostatLoad(_Load):
    """Two clients that report readings."""

    def __init__(self, bed: Testbed, deployment: Deployment) -> None:
        super().__init__(bed, deployment)
        for client in ("c1", "c2"):
            self._start(client, deployment.name, flows=2, timeout_s=PATIENCE_S)

    def complaints(self, results: Results, lone_lost: bool) -> list[str]:
        excused = ("lost", "late") if lone_lost else ()
        return [said for _, result in results for said in _said_of(result, excused)]


def _said_of(result: ClientResult, excused: tuple[str, ...] = ()) -> list[str]:
    """Return what is wrong with a client's replies."""
    found = [f"{count} {kind}" for kind in BAD if kind not in excused and (count := getattr(result, kind))]
    if result.unfinished:
        found.append(f"{result.unfinished} unanswered")
    return [*found, *result.complaints[:1]] if found else []


def _struck(bed: Testbed, deployment: Deployment, failure: str, load: _Load) -> Outcome:
    """Break something under `load`, mend it, and judge."""
    first = min(deployment.replicated)
    node = next(r.primary for r in bed.replicas() if (r.application, r.number) == (deployment.number, first))
    outcome = Outcome(deployment.name, failure, node)
    seen = max((event.sequence for event in bed.asked().events()), default=0)
    time.sleep(FIRST_LOAD_REAL_S)
    clock = bed.clock.reader()
    broken_s = clock()
    mend = FAILURES[failure](bed, node)
    until = time.monotonic() + BROKEN_REAL_S
    while time.monotonic() < until:
        time.sleep(0.1)
        _look(bed, outcome)
    mend()
    mend_all(bed)
    mended = time.monotonic()
    while bed.unpaired():
        if time.monotonic() - mended > PAIRED_WITHIN_S:
            outcome.complaints.append(f"not paired again: {bed.unpaired()}")
            break
        time.sleep(0.1)
        _look(bed, outcome)
    outcome.paired_after_s = time.monotonic() - mended
    time.sleep(FIRST_LOAD_REAL_S)
    results = load.stop()
    for _, result in results:
        times, _ = result.replies()
        after = np.concatenate(([broken_s], np.sort(times[times > broken_s])))
        if len(after) < 2:
            outcome.complaints.append("a client has had no reply since")
            continue
        outcome.outage_s = max(outcome.outage_s, float(np.diff(after).max()))
    outcome.answered = sum(result.answered for _, result in results)
    outcome.unanswered = sum(result.lost + result.unfinished for _, result in results)
    replicated = {r.instance for r in bed.replicas()}
    anew = {event.instance for event in bed.asked().events(seen) if event.what == "nowhere"}
    outcome.complaints += load.complaints(results, bool(anew - replicated))
    outcome.complaints += [f"{name} began anew" for name in sorted(anew & replicated)]
    return outcome


def _look(bed: Testbed, outcome: Outcome) -> None:
    """See that replicas stand apart, and cut off for good what is dead and has what nobody else can serve."""
    if bed.controller_gone():
        return
    outcome.complaints += bed.replicas_together()
    state = bed.asked().state()
    replicated = {r.instance for r in state.replicas}
    for node in state.nodes:
        if node.life == "dead" and set(node.instances) - replicated:
            stranded = bed.fence(node.name)
            if stranded:
                raise ExperimentError(f"{', '.join(stranded)} of {node.name} have no place elsewhere")


def _row(outcomes: list[Outcome], application: str, failure: str) -> tuple[str, str, str]:
    of = [o for o in outcomes if (o.application, o.failure) == (application, failure)]
    bad = sum(bool(o.complaints) for o in of)
    times = [1e3 * o.outage_s for o in of]
    return (f"{application}, {failure}: {len(of)} times",
            f"{bad} with complaints; without a reply {median(times):.0f} ms (median), {max(times):.0f} ms (most)",
            "0 with complaints")
