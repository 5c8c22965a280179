"""One microservice on one SmartNIC as a queue: the same load on packets, in virtual time, and from theory.

    c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h      12 cores or fewer, constant service times

Theory is M/D/c with Poisson arrivals and D/D/c in a closed loop (queueing_theory.py), plus the unloaded round trip. It
knows nothing of links and traffic managers, so a queue that is to follow it must be slow beside those.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.fidelity import Verdict
from experiments.measurement.measuring import Measurement, Plan, measure
from experiments.measurement.peak import CHECK_EVERY, MOST_FLOWS, POOL, in_closed_loop
from experiments.measurement.queueing_theory import ClosedLoop, MDc
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.measurement.simulated_bed import SimulatedBed
from experiments.measurement.single_node import unloaded_round_trip_s
from experiments.measurement.time_scale import capacity_of, time_scale_for
from experiments.runs.run_options import AUTO
from microservices.applications import application_named
from microservices.assumptions import DEFAULTS
from microservices.measured import Column
from microservices.profiles import cost_s
from microservices.workloads import workload_named
from nodes.deployment import deploy

CLUSTER, NODE = "liquidio10gx1", "s1n1"
TIMEOUT_S = 1e4
OPEN, CLOSED = "open", "closed"


class Queue(NamedTuple):
    """Which microservice, on how many of the SmartNIC's cores."""

    service: str
    cores: int

    @property
    def name(self) -> str:
        return f"{self.service}-{self.cores}"


class Load(NamedTuple):
    """`open` at a utilisation (0 to 1), or `closed` with so many clients."""

    kind: str
    size: float

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size:g}"


class QueuePoint(msgspec.Struct, frozen=True):
    """What was measured of a queue under one load. `offered_rps`: the arrivals that were really drawn for the window.

    `theory_rps` and `theory_s` are throughput and mean latency by theory, at those arrivals.
    """

    queue: str
    kind: str
    size: float
    time_scale: float
    replies: int
    rps: float
    offered_rps: float
    mean_s: float
    p50_s: float
    p99_s: float
    busy_cores: float
    theory_rps: float
    theory_s: float
    holds: bool
    reasons: tuple[str, ...]
    bad: dict[str, int]


class OneQueue:
    """Measures such queues; the testbed is built when packets are first asked for, and stopped at the end."""

    def __init__(self, label: str = "queue") -> None:
        self._label = label
        self._bed: Testbed | None = None

    def __enter__(self) -> OneQueue:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bed is not None:
            self._bed.stop()

    def simulated(self, queue: Queue, load: Load, plan: Plan, time_scale: float) -> QueuePoint:
        """Measure in virtual time what `packets` measures at that time scale."""
        bed = SimulatedBed(TestbedOptions(CLUSTER, pacing=_pacing(queue, time_scale)))
        config = _config(bed, queue, load)
        bed.repace(bed.pacing, (config.deployment,))
        return _point(queue, load, bed.measure({"c1": config}, plan))

    def packets(self, queue: Queue, load: Load, plan: Plan, time_scale: float | Literal["auto"],
                retries: int = 0) -> QueuePoint:
        """Measure on packets, and again more slowly as long as the machine did not keep up and `retries` are left."""
        if self._bed is None:
            self._bed = Testbed.start(TestbedOptions(CLUSTER, label=self._label))
        config = _config(self._bed, queue, load)
        scale = self._found(self._bed, queue, config) if time_scale == AUTO else float(time_scale)
        bed = self._bed

        def measured_at(time_scale: float) -> tuple[QueuePoint, Verdict, bool]:
            bed.repace(_pacing(queue, time_scale), (config.deployment,))
            found = measure(bed, {"c1": config}, plan)
            return _point(queue, load, found), found.verdict, found.verdict.holds

        return slowed_till_it_holds(measured_at, scale, retries)

    def _found(self, bed: Testbed, queue: Queue, config: ClientConfig) -> float:
        """Return the time scale that suits this machine."""
        capacity = capacity_of(bed, {"c1": in_closed_loop(config, MOST_FLOWS)}, (config.deployment,))
        service_s = service_time_s(queue.service)
        return time_scale_for(queue.cores / service_s, service_s + round_trip_s(), capacity, shortest_s=service_s)


def round_trip_s() -> float:
    return unloaded_round_trip_s(Column.SMARTNIC, DEFAULTS)


@lru_cache(maxsize=8)
def service_time_s(service: str) -> float:
    """Return what a request of the workload takes on one core: all are of one size, or their mean counts."""
    payloads = islice(workload_named(service).requests(), 64)
    return float(np.mean([cost_s(service, Column.SMARTNIC, len(payload)) for payload in payloads]))


def full_rps(queue: Queue) -> float:
    """Return the requests/s at a utilisation of 1."""
    return queue.cores / service_time_s(queue.service)


def theory(queue: Queue, load: Load, offered_rps: float) -> tuple[float, float]:
    """Return throughput in requests/s and mean latency in s."""
    service_s, trip_s = service_time_s(queue.service), round_trip_s()
    if load.kind == OPEN:
        return offered_rps, trip_s + service_s + MDc(offered_rps, service_s, queue.cores).mean_wait_s()
    loop = ClosedLoop(int(load.size), service_s, queue.cores, trip_s)
    return loop.throughput_rps(), loop.latency_s()


def _config(bed: Testbed | SimulatedBed, queue: Queue, load: Load) -> ClientConfig:
    service = queue.service
    application = application_named(service, shards=1)
    deployment = deploy(application, {i.number: NODE for i in application.instances if not i.backup}, bed.inventory)
    config = ClientConfig(bed.inventory.node("c1").ip, 1, deployment, service, timeout_s=TIMEOUT_S)
    if load.kind == CLOSED:
        return in_closed_loop(config, int(load.size))
    return msgspec.structs.replace(config, rate_rps=full_rps(queue) * load.size, flows=MOST_FLOWS,
                                   pool=POOL, check_every=CHECK_EVERY)


def _pacing(queue: Queue, time_scale: float) -> Pacing:
    return Pacing("calibrated", time_scale, cores={NODE: queue.cores})


def _point(queue: Queue, load: Load, found: Measurement) -> QueuePoint:
    offered_rps = _drawn_rps(found) if load.kind == OPEN else found.throughput_rps
    theory_rps, theory_s = theory(queue, load, offered_rps)
    return QueuePoint(queue.name, load.kind, load.size, found.time_scale, found.replies, found.throughput_rps,
                      offered_rps, found.latencies.mean_s, found.latencies.p50_s, found.latencies.p99_s,
                      found.busy_cores(NODE), theory_rps, theory_s, found.verdict.holds, found.verdict.reasons,
                      found.bad())


def _drawn_rps(found: Measurement) -> float:
    """Return the rate of the requests that were to leave within the window."""
    began, ended = (max(counters["now_ns"] for counters in snapshot.values()) / 1e9
                    for snapshot in (found.before, found.after))
    answered_s, latencies_s = found.clients["c1"].replies()
    intended = answered_s - latencies_s
    return int(((intended >= began) & (intended < ended)).sum()) / (ended - began)
