"""What annealing and the integer program minimise: co-execution interference first, communication if asked.

The paper says that its cost has "the highest weight on minimizing co-execution interference" (section 5.4) and gives no
formula. Ours is a weighted sum of four counts, each about as large as the number of instances:

    interference   over all pairs on one node, w x w' / cores: w is 1, and on a SmartNIC 1 + how much a memory-intensive
                   microservice stretches the agent's work there (section 2.4). What runs there already counts, too
    load           the shares of their nodes' CPUs that instances take: Service Fabric's balance, a slow node's price
    same rack      backups in their primary's rack (section 3.5 puts them in others)
    communication  over all messages, how many levels beyond the same node they go; scaled to one message per instance

Service Fabric "ignores network topology and favors spreading load": its weights leave communication out. The second set
puts it highest, as HCM does, so that one can compare algorithms instead of aims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controller.placement.compute_nodes import ComputeNodes, Resource
from controller.placement.demand import PARTS, Demand


@dataclass(frozen=True, slots=True)
class Weights:
    """How much each count weighs (ours)."""

    interference: float = 10.0
    load: float = 1.0
    same_rack: float = 5.0
    communication: float = 0.0


SERVICE_FABRIC = Weights()
WITH_COMMUNICATION = Weights(communication=100.0)


@dataclass(frozen=True, slots=True)
class Cost:
    """The four counts of one application's placement, and their weighted sum."""

    interference: float
    load: float
    same_rack: int
    communication: float
    total: float


def cost_of(demand: Demand, where: Mapping[int, int], nodes: ComputeNodes, weight_before: Sequence[int],
            weights: Weights) -> Cost:
    """Return what a placement costs; `weight_before` by node is how much what runs there already interferes.

    Instances that `where` does not place count for nothing.
    """
    here: dict[int, list[int]] = {}
    load = 0.0
    for need in demand.needs:
        node = where.get(need.number)
        if node is None:
            continue
        share = need.shares[nodes.class_of[node]]
        assert share is not None
        load += share[Resource.CPU] / PARTS
        here.setdefault(node, []).append(need.weights[nodes.class_of[node]])
    interference = 0.0
    for node, own in here.items():
        pairs = (sum(own) ** 2 - sum(w * w for w in own)) / 2 + sum(own) * weight_before[node]
        interference += pairs / nodes.classes[nodes.class_of[node]].cores
    replicas = [(where[n.primary], where[n.number]) for n in demand.needs if n.primary in where and n.number in where]
    same_rack = sum(nodes.spots[a].rack == nodes.spots[b].rack for a, b in replicas)
    communication = sum(traffic * (nodes.level(where[a], where[b]) - 1) for a, b, traffic in scaled_edges(demand)
                        if a in where and b in where)
    total = (weights.interference * interference + weights.load * load + weights.same_rack * same_rack
             + weights.communication * communication)
    return Cost(interference, load, same_rack, communication, total)


def scaled_edges(demand: Demand) -> list[tuple[int, int, float]]:
    """Return the edges with traffic scaled so that it adds up to the number of primaries."""
    total = sum(traffic for *_, traffic in demand.edges)
    if total <= 0:
        return [(a, b, 0.0) for a, b, _ in demand.edges]
    scale = sum(need.primary < 0 for need in demand.needs) / total
    return [(a, b, traffic * scale) for a, b, traffic in demand.edges]


def steps_between(nodes: ComputeNodes) -> Callable[[int, int], int]:
    """Return a function of two node indexes: how many levels beyond the same node the second is, quickly."""
    server_of = nodes.server_of
    rack = [spot.rack for spot in nodes.spots]
    pod = [spot.pod for spot in nodes.spots]
    on_host = [int(spot.nic == 0) for spot in nodes.spots]

    def steps(here: int, there: int) -> int:
        if here == there:
            return 0
        if server_of[here] == server_of[there] and (on_host[here] or on_host[there]):
            return 1
        if rack[here] == rack[there]:
            return 2 + on_host[there]
        return (4 if pod[here] == pod[there] else 6) + on_host[there]

    return steps
