"""What `./e3 place` says: where everything runs, and what that is expected to do, as JSON and as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from controller.placement.ceiling import ceiling_rps
from controller.placement.compute_nodes import Resource
from controller.placement.constraints import ClusterState
from controller.placement.cost import SERVICE_FABRIC, WITH_COMMUNICATION, cost_of
from controller.placement.demand import PARTS, Need, demand_of
from controller.placement.placing import ALGORITHMS, Options, Placement, place
from controller.placement.prediction import predict
from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.sharding import SLOTS
from topologies.cluster import Cluster
from topologies.distance import Level

NODE_COLUMNS = ("node", "runs", "CPU", "memory", "network")
FIGURE_COLUMNS = ("what", "predicted")
DEFAULT_SHARE = 0.5
MOST_BACKUPS = 7
LEVEL_NAMES = {
    Level.SAME_NODE: "the same node", Level.SAME_SERVER: "the same server, over PCIe",
    Level.RACK_SMARTNIC: "a SmartNIC in this rack", Level.RACK_HOST: "a host in this rack",
    Level.POD_SMARTNIC: "a SmartNIC in this pod", Level.POD_HOST: "a host in this pod",
    Level.FAR_SMARTNIC: "a SmartNIC in another pod", Level.FAR_HOST: "a host in another pod"}


def placed_on(application: Application, cluster: Cluster, algorithm: str, communication: bool, rps: float, seed: int,
              time_limit_s: float) -> tuple[Placement, ClusterState]:
    """Place `application` on an empty cluster; `rps` 0 is half of what the cluster could serve at best.

    Raises ExperimentError for an option out of its limits, PlacementError if the application does not fit.
    """
    if algorithm not in ALGORITHMS:
        raise ExperimentError(f"no algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
    if communication and algorithm == "hcm":
        raise ExperimentError("hcm goes by communication as it is; --communication is for annealing and ilp")
    if not 0 <= rps <= 1e12:
        raise ExperimentError(f"{rps:g} requests/s; the limits are 0 (choose for me) and 1e12")
    if not 0.1 <= time_limit_s <= 3600:
        raise ExperimentError(f"a time limit of {time_limit_s:g} s; the limits are 0.1 and 3600")
    state = ClusterState(cluster)
    rate = rps or DEFAULT_SHARE * ceiling_rps(application, state) / (1 + _backup_share(application))
    options = Options(WITH_COMMUNICATION if communication else SERVICE_FABRIC, seed, time_limit_s)
    return place(demand_of(application, rate, state.nodes), state, algorithm, options), state


def size(shards: int, backups: int) -> tuple[int, int]:
    """Return both if they are within their limits; raises ExperimentError."""
    if not 1 <= shards <= SLOTS:
        raise ExperimentError(f"{shards} shards; the limits are 1 and {SLOTS}")
    if not 0 <= backups <= MOST_BACKUPS:
        raise ExperimentError(f"{backups} backups; the limits are 0 and {MOST_BACKUPS}")
    return shards, backups


def _backup_share(application: Application) -> float:
    """Return how much backups reserve over primaries, at most."""
    return float(max(stage.backups for stage in application.stages))


def content_of(placement: Placement, state: ClusterState, communication: bool) -> dict[str, Any]:
    """Return the placement, its cost by annealing's and the program's measure, and what it is predicted to do."""
    demand, nodes = placement.demand, state.nodes
    found = predict([(demand, placement.where)], nodes)
    weights = WITH_COMMUNICATION if communication else SERVICE_FABRIC
    cost = cost_of(demand, placement.where, nodes, [0] * len(nodes), weights)
    names = placement.node_names(state)
    return {
        "application": demand.name, "cluster": nodes.cluster.name, "algorithm": placement.algorithm,
        "communication_in_cost": communication, "notes": dict(placement.notes),
        "requests_per_s": demand.rps, "predicted": {
            "most_requests_per_s": found.most_rps, "limit": found.limit, "latency_s": found.latency_s,
            "watts": found.watts, "requests_per_joule": found.requests_per_joule,
            "mean_distance": found.mean_distance,
            "messages_per_request": {int(level): n for level, n in found.distances.items()},
            "nodes_used": found.nodes_used, "servers_used": found.servers_used},
        "cost": {"total": cost.total, "interference": cost.interference, "load": cost.load,
                 "backups_in_the_primarys_rack": cost.same_rack, "communication": cost.communication},
        "instances": [{"number": n.number, "name": n.name, "stage": n.stage, "service": n.service,
                       "backup_of": None if n.primary < 0 else demand.needs[n.primary].name,
                       "node": names[n.number]} for n in demand.needs],
        "nodes": [{"name": name, "runs": runs, **_used(state, name)} for name, runs in _by_node(placement, state)]}


def node_rows(content: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    for node in content["nodes"]:
        yield node["name"], node["runs"], *(f"{node[what]:.0%}" for what in ("cpu", "memory", "network"))


def figure_rows(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is predicted, each in a unit that is easy to read."""
    p = content["predicted"]
    latency = p["latency_s"]
    yield "placed for", f"{content['requests_per_s']:,.0f} requests/s"
    yield "throughput", f"{p['most_requests_per_s']:,.0f} requests/s, where {p['limit']} are full"
    yield "latency", "no end: more than it carries" if latency is None else f"{latency * 1e6:,.1f} us, mean"
    yield "power", f"{p['watts']:,.1f} W, all servers"
    yield "requests per joule", f"{p['requests_per_joule']:,.1f}"
    yield "mean distance", f"{p['mean_distance']:.2f} (1: all in one node)"
    for level, messages in p["messages_per_request"].items():
        yield f"  to {LEVEL_NAMES[Level(level)]}", f"{messages:.3g} messages per request"
    yield "nodes, servers used", f"{p['nodes_used']}, {p['servers_used']}"
    cost = content["cost"]
    yield "cost", f"{cost['total']:.4g} (interference {cost['interference']:.3g}, load {cost['load']:.3g})"
    for what, value in content["notes"].items():
        yield what.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)


def _by_node(placement: Placement, state: ClusterState) -> Iterator[tuple[str, str]]:
    members: dict[int, dict[tuple[str, bool], list[int]]] = {}
    for need in placement.demand.needs:
        here = members.setdefault(placement.where[need.number], {})
        here.setdefault((need.stage, need.primary >= 0), []).append(shard_of(need))
    for node in sorted(members):
        runs = "; ".join(f"{stage} {ranges(shards)}{' (backup)' * backup}"
                         for (stage, backup), shards in members[node].items())
        yield state.nodes.nodes[node].name, runs


def shard_of(need: Need) -> int:
    """Return the shard, from 1, that an instance owns or is a backup of."""
    return int(need.name.rpartition("-")[2].partition("b")[0])


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as people write them: 1-4, 7."""
    runs: list[list[int]] = []
    for n in sorted(numbers):
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 2 else ", ".join(map(str, r)) for r in runs)


def _used(state: ClusterState, name: str) -> dict[str, float]:
    free = state.free[state.nodes.node(name).index]
    return {"cpu": 1 - free[Resource.CPU] / PARTS, "memory": 1 - free[Resource.MEMORY] / PARTS,
            "network": 1 - free[Resource.NETWORK] / PARTS}
