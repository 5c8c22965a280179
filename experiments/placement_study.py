"""Ten thousand microservices onto growing clusters: what placing costs and how good it is (section 5.6, Table 6).

Times are of the CPU: all three algorithms work in this process and on one core, so what else the machine does is out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from controller.placement.ceiling import ceiling_rps
from controller.placement.constraints import ClusterState
from controller.placement.cost import Weights, cost_of
from controller.placement.demand import Demand, demand_of
from controller.placement.placing import Options, place
from controller.placement.prediction import Prediction, predict
from experiments.errors import ExperimentError
from microservices.applications import APPLICATIONS, application_named
from topologies.catalog import TYPE2
from topologies.cluster import Cluster, Rack

MICROSERVICES = 10_000
SERVERS_PER_RACK = 40  # section 5.6
SIZES = (100, 200, 400, 600, 800, 1000)
RATE_SHARE = 0.25  # of what the smallest cluster could serve; backups reserve as much again
SMALLEST = 100
FEWEST = 2000  # with fewer, an instance would be more than a node can hold


def fat_tree_of(servers: int) -> Cluster:
    """Return Type2 servers in racks of 40, the last one perhaps with fewer."""
    racks = [Rack((TYPE2,) * min(SERVERS_PER_RACK, servers - first)) for first in range(0, servers, SERVERS_PER_RACK)]
    return Cluster(f"type2, {servers} servers", tuple(racks))


def rates(microservices: int = MICROSERVICES) -> dict[str, float]:
    """Return the requests/s of one copy of each application, the same whatever the cluster."""
    state = ClusterState(fat_tree_of(SMALLEST))
    sizes = {name: len(application_named(name).instances) for name in APPLICATIONS}
    copies = microservices / (sum(sizes.values()) / len(sizes))
    return {name: RATE_SHARE * ceiling_rps(application_named(name), state, split=True) / copies
            for name in APPLICATIONS}


def workload(state: ClusterState, microservices: int = MICROSERVICES) -> list[tuple[str, Demand]]:
    """Return Table 3's applications in turn, each of the paper's size, until there are so many microservices."""
    at = rates(max(microservices, FEWEST))
    demands = {name: demand_of(application_named(name), at[name], state.nodes) for name in APPLICATIONS}
    found: list[tuple[str, Demand]] = []
    count, turn = 0, 0
    while count < microservices:
        name = list(APPLICATIONS)[turn % len(APPLICATIONS)]
        found.append((f"{name} {turn // len(APPLICATIONS) + 1}", demands[name]))
        count += len(demands[name].needs)
        turn += 1
    return found


@dataclass(frozen=True, slots=True)
class Deployed:
    """How a workload was deployed. Times are per microservice, one figure for each application in turn."""

    algorithm: str
    servers: int
    microservices: int
    ms_each: tuple[float, ...]
    violations: int
    costs: tuple[float, ...]
    worst_gap: float
    mean_gap: float
    prediction: Prediction

    @property
    def median_ms(self) -> float:
        return statistics.median(self.ms_each)

    @property
    def mean_ms(self) -> float:
        return statistics.fmean(self.ms_each)

    @property
    def cost(self) -> float:
        return sum(self.costs)


def deploy_all(algorithm: str, state: ClusterState, demands: Sequence[tuple[str, Demand]], options: Options,
               label: str = "", yardstick: Weights | None = None) -> Deployed:
    """Deploy application after application onto `state`; its time is from the question to the answer noted.

    Costs are by `yardstick`, which HCM does not know of. Raises ExperimentError if the result breaks a constraint.
    """
    times, costs, gaps, placements = [], [], [], []
    weights = yardstick or options.weights
    for key, demand in demands:
        before = [*state.weight]
        began = time.process_time()
        placement = place(demand, state, algorithm, options, key)
        times.append((time.process_time() - began) * 1e3 / len(demand.needs))
        costs.append(cost_of(demand, placement.where, state.nodes, before, weights).total)
        gap = placement.notes.get("gap")
        if isinstance(gap, float):
            gaps.append(gap)
        placements.append(placement)
    broken = _broken(state)
    if broken:
        raise ExperimentError(f"{label or algorithm}: {broken} constraints are violated; none may be")
    return Deployed(label or algorithm, len(state.nodes.servers), sum(len(d.needs) for _, d in demands), tuple(times),
                    broken, tuple(costs), max(gaps, default=0.0), statistics.fmean(gaps) if gaps else 0.0,
                    predict([(p.demand, p.where) for p in placements], state.nodes))


def _broken(state: ClusterState) -> int:
    """Return how many constraints do not hold, added up anew from what is placed."""
    broken = 0
    totals = [[0] * 5 for _ in state.nodes.nodes]
    server_of = state.nodes.server_of
    for placed in state.placed.values():
        for need in placed.demand.needs:
            node = placed.where[need.number]
            share = need.shares[state.nodes.class_of[node]]
            if share is None or node in need.forbidden or node in state.down:
                broken += 1
                continue
            broken += need.primary >= 0 and server_of[placed.where[need.primary]] == server_of[node]
            totals[node] = [a + b for a, b in zip(totals[node], share, strict=True)]
    fresh = ClusterState(state.nodes)
    return broken + sum(t > f for total, free in zip(totals, fresh.free, strict=True)
                        for t, f in zip(total, free, strict=True))
