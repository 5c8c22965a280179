"""The channels under torture: a network that loses, doubles and reorders, in virtual time, over all applications.

    c1 --+                            every datagram, request, reply or acknowledgement alike, meets the faults
         |== network ==+-- s1n1, s1h     loss 10 %, duplication 5 %, reordering 10 %
         |             +-- s2n1, s2h
         |             +-- s3n1, s3h  (sections 3 and 4: lossless channels, ordered, flow-controlled)

What each handler and each client is given, channel by channel, must be what was offered: all of it, once, in order.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, astuple, dataclass, fields
from functools import lru_cache
from itertools import islice
from typing import Any

from experiments.emulation.first_placement import place_in_turn
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from microservices.applications import APPLICATIONS, application_named
from microservices.routing import Router
from microservices.workload import Workload
from microservices.workloads import workload_named
from nodes.deployment import Deployment, deploy
from nodes.simulated import NetworkFaults, Simulation
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

CLUSTER = "type1x3"
SHARDS = 2
SEEDS, QUICK_SEEDS = 200, 20
SEEDS_PER_TASK = 25
REQUESTS = 30
FLOWS, WINDOW = 2, 6
POOL = 300  # requests of an application that the seeds draw from: to make a workload costs more than to simulate it
FAULTS = NetworkFaults(loss=0.10, duplication=0.05, reordering=0.10, jitter_s=100e-6)
LIMIT_S = 3600.0  # of virtual time: what is not delivered by then is lost
MAX_COMPLAINTS = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """One application under one seed. `messages` were offered to channels, `requests` asked by the client."""

    application: str
    seed: int
    requests: int
    messages: int
    datagrams: int
    lost: int
    doubled: int
    held_back: int
    resent: int
    virtual_s: float
    fingerprint: int
    complaints: tuple[str, ...]


class _Share(Workload):
    """A seed's requests out of an application's pool, checked by the workload that made them."""

    def __init__(self, whole: Workload, payloads: Sequence[bytes]) -> None:
        self._whole = whole
        self._payloads = payloads

    def requests(self) -> Iterator[bytes]:
        return iter(self._payloads)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        return self._whole.check_reply(request, reply)


@dataclass(frozen=True, slots=True)
class _Subject:
    inventory: Inventory
    deployment: Deployment
    router: Router
    workload: Workload
    pool: tuple[bytes, ...]


@lru_cache(maxsize=len(APPLICATIONS))
def _subject(name: str) -> _Subject:
    inventory = inventory_of(cluster_named(CLUSTER))
    application = application_named(name, SHARDS, backups=0)
    workload = workload_named(name)
    return _Subject(inventory, deploy(application, place_in_turn(application, inventory), inventory),
                    Router(application), workload, tuple(islice(workload.requests(), POOL)))


def torture(name: str, seed: int, requests: int = REQUESTS, faults: NetworkFaults = FAULTS) -> Outcome:
    """Run the application called `name` under `seed` until nothing is left to do, and say what was wrong."""
    subject = _subject(name)
    simulation = Simulation(subject.inventory, [subject.deployment], faults, seed, log=True,
                            routers={subject.deployment.number: subject.router})
    start = seed * requests % POOL
    share = _Share(subject.workload, (subject.pool + subject.pool)[start:start + requests])
    client = simulation.client(subject.deployment, share, requests, WINDOW, FLOWS)
    virtual_s = simulation.run(LIMIT_S)
    assert simulation.log is not None
    complaints = simulation.log.complaints() + client.complaints()
    if len(client.asked) != requests:
        complaints.append(f"{len(client.asked)} of {requests} requests were asked")
    if not simulation.idle:
        complaints.append(f"a channel was still busy after {virtual_s:g} s")
    network = simulation.network.counters()
    resent = sum(flow.transport.counters()["channel_resent"] for flow in client.flows)
    resent += sum(counters["channel_resent"] for counters in simulation.counters().values())
    return Outcome(name, seed, len(client.asked), simulation.log.messages, network.sent, network.lost, network.doubled,
                   network.held_back, resent, simulation.network.last_s, simulation.network.fingerprint,
                   tuple(complaints))


def _some(task: tuple[str, range]) -> list[Outcome]:
    name, seeds = task
    return [torture(name, seed) for seed in seeds]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run every application under every seed, on all cores. Returns {"holds", "rows", ...}."""
    result_run = Run("channel-torture")
    seeds = QUICK_SEEDS if options.quick else SEEDS
    tasks = [(name, range(start, min(start + SEEDS_PER_TASK, seeds)))
             for name in APPLICATIONS for start in range(0, seeds, SEEDS_PER_TASK)]
    say(f"{len(APPLICATIONS)} applications x {seeds} seeds, {REQUESTS} requests each, on {os.cpu_count()} core(s)")
    with ProcessPoolExecutor() as pool:
        outcomes = [outcome for some in pool.map(_some, tasks) for outcome in some]
    with (result_run.directory / "data.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(field.name for field in fields(Outcome))
        table.writerows((*astuple(outcome)[:-1], "; ".join(outcome.complaints)) for outcome in outcomes)
    content = judged(outcomes, seeds)
    result_run.finish({"faults": asdict(FAULTS), **content})
    return content


def judged(outcomes: Sequence[Outcome], seeds: int) -> dict[str, Any]:
    """Return the verdict on `outcomes`, which should be every application under every seed."""
    wrong = [o for o in outcomes if o.complaints]
    datagrams = sum(o.datagrams for o in outcomes)

    def share(what: str) -> str:
        return f"{100 * sum(getattr(o, what) for o in outcomes) / max(1, datagrams):.1f} %"

    runs = len(APPLICATIONS) * seeds
    rows = [("runs: applications x seeds", len(outcomes), str(runs), len(outcomes) == runs),
            ("requests, each with exactly one right reply", sum(o.requests for o in outcomes), str(runs * REQUESTS),
             sum(o.requests for o in outcomes) == runs * REQUESTS),
            ("messages over channels", sum(o.messages for o in outcomes), "", True),
            ("runs with one lost, doubled or out of order", len(wrong), "0", not wrong),
            ("datagrams", datagrams, "", datagrams > 0),
            ("datagrams lost", share("lost"), "10 %", True),
            ("datagrams doubled", share("doubled"), "5 % of the rest", True),
            ("datagrams held back", share("held_back"), "10 % of the rest", True),
            ("messages sent again by channels", sum(o.resent for o in outcomes), "", True)]
    return {"holds": all(ok for *_, ok in rows), "rows": [(w, str(g), n) for w, g, n, _ in rows],
            "complaints": [f"{o.application}, seed {o.seed}: {complaint}"
                           for o in wrong for complaint in o.complaints[:MAX_COMPLAINTS]]}
