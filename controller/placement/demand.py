"""What an application asks of the nodes that it is placed on: each instance's needs, and what it says to whom.

Section 3.3 names three kinds of constraints. A node's resources and statistics are in constraints.py; here is the
third, the behaviour of a microservice: request size, execution time, how often it is called, and how that varies over a
day. From it follows what an instance takes of a node: memory and disk as such; execution time x rate of the CPU;
request size x rate of the network; and, by Little's law, requests outstanding. Rates are those of the busiest hour.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from controller.errors import PlacementError
from controller.placement.capacity_tree import Shares
from controller.placement.compute_nodes import ComputeNodes, NodeClass
from controller.placement.profile_costs import DEFAULT_COSTS, Costs
from microservices.application import Application
from microservices.assumptions import wire_bytes
from microservices.service import service_class

PARTS = 1_000_000_000  # a node's whole capacity of a resource, in the integers that placement counts in
_NEVER = 1 << 50  # a need for what a node has nothing of
DEFAULT_REQUEST_BYTES = 512.0
# Ours: a request waits as long as it executes, so twice rate x time are outstanding.
OUTSTANDING_PER_EXECUTING = 2.0
PINS = ("", "host", "smartnic")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What is known of a stage's microservice.

    `busiest_hour` is its rate then over the day's mean (1: no diurnal variation). `execution_s` by family of processor
    replaces the profile's, as when an orchestrator has measured it; `pin` is a role that it must run on.
    """

    request_bytes: float = DEFAULT_REQUEST_BYTES
    busiest_hour: float = 1.0
    memory_mb: float | None = None
    disk_mb: float = 0.0
    execution_s: Mapping[str, float] | None = None
    pin: str = ""

    def __post_init__(self) -> None:
        if self.pin not in PINS:
            raise PlacementError(f"pinned to {self.pin!r}; it can be {' or '.join(PINS[1:])}")
        for what in ("request_bytes", "busiest_hour", "memory_mb", "disk_mb"):
            value = getattr(self, what)
            if value is not None and not 0 <= value < math.inf:
                raise PlacementError(f"{what} is {value}; the least is 0")


@dataclass(frozen=True, slots=True)
class Need:
    """What one instance takes of a node of each class, in PARTS of its capacity; None where it may not run.

    `weights` is how much it interferes there with what runs beside it. `primary` is whose backup it is, or -1.
    """

    number: int
    name: str
    stage: str
    service: str
    shares: tuple[Shares | None, ...]
    weights: tuple[int, ...]
    forbidden: frozenset[int] = frozenset()  # node indexes
    primary: int = -1


@dataclass(frozen=True)
class Demand:
    """An application, the rate that it is placed for, and the needs of its instances by number.

    `edges` are (sender, receiver, messages per request of the application).
    """

    application: Application
    rps: float
    needs: tuple[Need, ...]
    sources: tuple[int, ...]
    successors: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, int, float], ...]
    behaviours: Mapping[str, Behaviour]
    costs: Costs = DEFAULT_COSTS
    replicas: Mapping[int, tuple[int, ...]] = field(default_factory=dict)  # primary -> it and its backups

    @property
    def name(self) -> str:
        return self.application.name


def visits(application: Application) -> dict[str, float]:
    """Return how often each stage is called per request: requests spread evenly over sources, shards and targets."""
    counts = dict.fromkeys(application.order(), 0.0)
    for source in application.sources:
        counts[source] = 1.0 / len(application.sources)
    for stage in application.order():
        for c in application.channels_from(stage):
            counts[c.target] += counts[stage] * (1.0 if c.trigger is None else c.trigger.share)
    return counts


def demand_of(application: Application, rps: float, nodes: ComputeNodes, *,
              behaviours: Mapping[str, Behaviour] | None = None, forbidden: Mapping[str, Collection[str]] | None = None,
              backups: bool = True, costs: Costs = DEFAULT_COSTS) -> Demand:
    """Return what `application` asks for at `rps` requests/s, the mean of a day.

    `behaviours` by stage, where they differ from the default; `forbidden` node names by stage; `backups` False leaves
    them out, as deployments without failover do. Raises PlacementError; ServiceError without a profile.
    """
    if not 0.0 <= rps < math.inf:
        raise PlacementError(f"{application.name} at {rps} requests/s; the least is 0")
    known = {stage.name for stage in application.stages}
    for what in (behaviours or {}, forbidden or {}):
        for name in what:
            if name not in known:
                raise PlacementError(f"{application.name} has no stage {name!r}; there are {', '.join(sorted(known))}")
    asked = {name: (behaviours or {}).get(name, Behaviour()) for name in known}
    per_stage = visits(application)
    taken = {s.name: _stage_needs(s.service, asked[s.name], rps * per_stage[s.name] / s.shards, nodes, costs)
             for s in application.stages}
    banned = {name: frozenset(nodes.node(n).index for n in (forbidden or {}).get(name, ())) for name in known}
    primaries: dict[tuple[str, int], int] = {}
    groups: dict[int, list[int]] = {}
    needs = []
    for instance in application.instances:
        if instance.backup and not backups:
            continue
        primary = -1
        if instance.backup:
            primary = primaries[instance.stage, instance.shard]
            groups.setdefault(primary, [primary]).append(instance.number)
        else:
            primaries[instance.stage, instance.shard] = instance.number
        shares, weights = taken[instance.stage]
        needs.append(Need(instance.number, instance.name, instance.stage, instance.service, shares, weights,
                          banned[instance.stage], primary))
    successors: list[list[int]] = [[] for _ in needs]
    edges = []
    for sender, receiver, traffic in _traffic(application, per_stage, primaries):
        successors[sender].append(receiver)
        edges.append((sender, receiver, traffic))
    sources = tuple(n.number for n in needs if n.stage in application.sources and n.primary < 0)
    return Demand(application, rps, tuple(needs), sources, tuple(tuple(s) for s in successors), tuple(edges), asked,
                  costs, {p: tuple(g) for p, g in groups.items()})


def _traffic(application: Application, per_stage: Mapping[str, float],
             primaries: Mapping[tuple[str, int], int]) -> list[tuple[int, int, float]]:
    found = []
    for c in application.channels:
        sent = per_stage[c.source] * (1.0 if c.trigger is None else c.trigger.share)
        shards, others = application.stage(c.source).shards, application.stage(c.target).shards
        for i in range(shards):
            for j in (i,) if c.aligned else range(others):
                share = 1.0 / shards if c.aligned else 1.0 / (shards * others)
                found.append((primaries[c.source, i], primaries[c.target, j], sent * share))
    return found


def _stage_needs(service: str, behaviour: Behaviour, rate_rps: float,
                 nodes: ComputeNodes, costs: Costs) -> tuple[tuple[Shares | None, ...], tuple[int, ...]]:
    made = service_class(service)
    if made.host_only and behaviour.pin == "smartnic":
        raise PlacementError(f"{service} runs on hosts only (section 4) and cannot be pinned to SmartNICs")
    pin = "host" if made.host_only else behaviour.pin
    memory_mb = made.memory_mb if behaviour.memory_mb is None else behaviour.memory_mb
    busiest_rps = rate_rps * behaviour.busiest_hour
    shares: list[Shares | None] = []
    for kind in nodes.classes:
        if pin and kind.role != pin:
            shares.append(None)
            continue
        executing = busiest_rps * time_on(service, behaviour, kind, costs)
        gbps = busiest_rps * wire_bytes(behaviour.request_bytes) * 8e-9
        amounts = (memory_mb, behaviour.disk_mb, executing, gbps, executing * OUTSTANDING_PER_EXECUTING)
        m, d, c, n, o = (_parts(a, have) for a, have in zip(amounts, kind.capacity, strict=True))
        shares.append((m, d, c, n, o))
    if all(share is None for share in shares):
        raise PlacementError(f"{service} must run on a {pin}; {nodes.cluster.name} has none")
    return tuple(shares), tuple(costs.interference_weight(service, kind) for kind in nodes.classes)


def time_on(service: str, behaviour: Behaviour, kind: NodeClass, costs: Costs = DEFAULT_COSTS) -> float:
    """Return the seconds that one request takes a core of a node of `kind`."""
    if behaviour.execution_s is not None:
        if kind.family not in behaviour.execution_s:
            raise PlacementError(f"{service}: no execution time on {kind.family}; there are "
                                 f"{', '.join(behaviour.execution_s)}")
        return behaviour.execution_s[kind.family] / kind.speed
    return costs.execution_s(service, kind, behaviour.request_bytes)


def _parts(amount: float, capacity: float) -> int:
    if amount <= 0:
        return 0
    return min(_NEVER, math.ceil(amount / capacity * PARTS)) if capacity > 0 else _NEVER
