"""What a placement can be expected to do: throughput, latency, power, requests per joule, distance of its channels.

Every number follows from Table 1, Table 4 and the assumptions, for requests that spread evenly:

    throughput  the rate at which the first core, port or PCIe link is full
    latency     of one request at a given rate: execution along the path to its reply, the ways between the nodes, and
                waiting for a core, by the M/M/c queue of each node (c its cores, their mean time per request)
    power       idle power of all servers, and what each node draws above it; a server's peak is its limit
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from controller.errors import PlacementError
from controller.placement.compute_nodes import ComputeNodes
from controller.placement.demand import Demand, time_on, visits
from controller.placement.profile_costs import Costs
from microservices.assumptions import wire_bytes
from microservices.measured import Column
from topologies.distance import Level

HIGHEST_UTILISATION = 0.999  # beyond it a queue has no mean worth telling


@dataclass(frozen=True, slots=True)
class Prediction:
    """`rps` is the rate that watts, latency and requests per joule are for; `most_rps` what the placement can carry.

    `limit` names what is full then. `distances` are messages per request by level of their channel; `mean_distance`
    their mean level (1: all in one node). `latency_s` is None beyond what can be carried.
    """

    rps: float
    most_rps: float
    limit: str
    latency_s: float | None
    watts: float
    requests_per_joule: float
    mean_distance: float
    distances: Mapping[int, float]
    nodes_used: int
    servers_used: int


@dataclass(slots=True)
class _Use:
    """What one node does per second, for all applications."""

    rates: dict[str, float]
    busy: dict[str, float]


def predict(placements: Iterable[tuple[Demand, Mapping[int, int]]], nodes: ComputeNodes,
            scale: float = 1.0) -> Prediction:
    """Return what applications that run together do, each at `scale` times the rate that it was placed for.

    Throughput and latency are sums and means over the applications. Raises PlacementError if there is none.
    """
    placed = list(placements)
    if not placed:
        raise PlacementError("nothing is placed, so there is nothing to predict")
    costs = placed[0][0].costs
    uses, wires, distances = _uses(placed, nodes)
    full, limit = _fullest(uses, wires, nodes)
    rps = sum(demand.rps for demand, _ in placed)
    watts = _watts(uses, nodes, costs, scale)
    messages = sum(distances.values())
    total = rps * scale
    latency = None
    if full * scale < HIGHEST_UTILISATION and rps > 0:
        latency = sum(_latency_s(demand, where, nodes, uses, scale) * demand.rps for demand, where in placed) / rps
    return Prediction(
        total, rps / full if full > 0 else inf, limit, latency, watts, total / watts if watts > 0 else inf,
        sum(level * n for level, n in distances.items()) / messages if messages else 1.0,
        {level: n / len(placed) for level, n in sorted(distances.items())},
        len(uses), len({nodes.server_of[n] for n in uses}))


def _uses(placed: list[tuple[Demand, Mapping[int, int]]], nodes: ComputeNodes,
          ) -> tuple[dict[int, _Use], dict[tuple[str, int], float], dict[int, float]]:
    """Return what nodes do, the Gb/s into servers' ports and over their PCIe links, and messages by level."""
    uses: dict[int, _Use] = {}
    wires: dict[tuple[str, int], float] = {}
    distances: dict[int, float] = {}

    def carry(kind: str, at: int, gbps: float) -> None:
        wires[kind, at] = wires.get((kind, at), 0.0) + gbps

    def arrive(node: int, gbps: float) -> None:
        """Take it at the ports of the node's server: all are its own, but where the host's and SmartNICs' are apart."""
        server, _ = nodes.servers[nodes.server_of[node]]
        carry("SmartNIC ports" if server.dedicated and nodes.spots[node].nic else "ports", nodes.server_of[node], gbps)

    for demand, where in placed:
        per_stage = visits(demand.application)
        for need in demand.needs:
            if need.primary >= 0 or need.number not in where:
                continue
            node = where[need.number]
            rate = demand.rps * per_stage[need.stage] / demand.application.stage(need.stage).shards
            kind = nodes.classes[nodes.class_of[node]]
            use = uses.setdefault(node, _Use({}, {}))
            use.rates[need.service] = use.rates.get(need.service, 0.0) + rate
            cores = rate * time_on(need.service, demand.behaviours[need.stage], kind, demand.costs)
            use.busy[need.service] = use.busy.get(need.service, 0.0) + cores
            if need.stage in demand.application.sources:
                arrive(node, _gbps(demand, need.stage, rate))
        for a, b, traffic in demand.edges:
            if a not in where or b not in where:
                continue
            here, there = where[a], where[b]
            level = nodes.level(here, there)
            distances[level] = distances.get(level, 0.0) + traffic
            gbps = _gbps(demand, demand.needs[b].stage, demand.rps * traffic)
            if level == Level.SAME_SERVER:
                carry("PCIe", max(here, there, key=lambda n: nodes.spots[n].nic), gbps)
            elif level > Level.SAME_SERVER:
                arrive(there, gbps)
    return uses, wires, distances


def _gbps(demand: Demand, stage: str, rate: float) -> float:
    return rate * wire_bytes(demand.behaviours[stage].request_bytes) * 8e-9


def _fullest(uses: Mapping[int, _Use], wires: Mapping[tuple[str, int], float],
             nodes: ComputeNodes) -> tuple[float, str]:
    full, limit = 0.0, "nothing"
    for node, use in uses.items():
        share = sum(use.busy.values()) / nodes.classes[nodes.class_of[node]].cores
        if share > full:
            full, limit = share, f"the cores of {nodes.nodes[node].name}"
    for (kind, at), gbps in wires.items():
        if kind == "ports":
            server, members = nodes.servers[at]
            have = nodes.classes[nodes.class_of[members[-1]]].network_gbps
            name = f"the ports of the server of {nodes.nodes[members[-1]].name}"
        elif kind == "SmartNIC ports":
            server, members = nodes.servers[at]
            have = sum(nic.port_gbps for nic in server.smartnics)
            name = f"the SmartNICs' ports of the server of {nodes.nodes[members[-1]].name}"
        else:
            server = nodes.servers[nodes.server_of[at]][0]
            have = server.smartnics[nodes.spots[at].nic - 1].pcie_gbps
            name = f"the PCIe link of {nodes.nodes[at].name}"
        if gbps / have > full:
            full, limit = gbps / have, name
    return full, limit


def _watts(uses: Mapping[int, _Use], nodes: ComputeNodes, costs: Costs, scale: float) -> float:
    total = 0.0
    for server, members in nodes.servers:
        watts = server.idle_watts
        for node in members:
            use = uses.get(node)
            if use is not None:
                watts += costs.node_watts(nodes.classes[nodes.class_of[node]], server,
                                          {name: rate * scale for name, rate in use.rates.items()},
                                          {name: cores * scale for name, cores in use.busy.items()})
        total += min(watts, server.peak_watts) if costs.assumptions.cap_at_peak else watts
    return total


def _latency_s(demand: Demand, where: Mapping[int, int], nodes: ComputeNodes, uses: Mapping[int, _Use],
               scale: float) -> float:
    """Return the mean time from a client's request to its reply."""
    application = demand.application
    answering = application.answering
    per_stage = visits(application)
    waits: dict[int, float] = {}
    total = 0.0
    replies = dict.fromkeys(answering, 0.0)
    for stage in answering:
        onward = sum(1.0 if c.trigger is None else c.trigger.share
                     for c in application.channels_from(stage) if c.answers)
        replies[stage] = per_stage[stage] * max(0.0, 1.0 - onward)
    for need in demand.needs:
        if need.primary >= 0 or need.stage not in answering or need.number not in where:
            continue
        node = where[need.number]
        kind = nodes.classes[nodes.class_of[node]]
        if node not in waits:
            waits[node] = _wait_s(uses[node], kind.cores, scale)
        shards = application.stage(need.stage).shards
        once = time_on(need.service, demand.behaviours[need.stage], kind, demand.costs) + waits[node]
        total += per_stage[need.stage] / shards * once
        client_way = one_way_s(nodes, demand.costs, None, node)
        if need.stage in application.sources:
            total += per_stage[need.stage] / shards * client_way
        total += replies[need.stage] / shards * client_way
    answers = {(c.source, c.target) for c in application.channels if c.answers}
    for a, b, traffic in demand.edges:
        if (demand.needs[a].stage, demand.needs[b].stage) in answers:
            total += traffic * one_way_s(nodes, demand.costs, where[a], where[b])
    return total


def _wait_s(use: _Use, cores: int, scale: float) -> float:
    """Return the mean wait for a core in an M/M/c queue (Erlang's C formula)."""
    rate, offered = sum(use.rates.values()) * scale, sum(use.busy.values()) * scale
    if rate <= 0 or offered <= 0:
        return 0.0
    if offered >= cores:
        return inf
    blocking = 1.0
    for k in range(1, cores + 1):
        blocking = offered * blocking / (k + offered * blocking)
    waiting = blocking / (1 - offered / cores * (1 - blocking))
    return waiting * (offered / rate) / (cores - offered)


def one_way_s(nodes: ComputeNodes, costs: Costs, here: int | None, there: int | None) -> float:
    """Return the unloaded time from one node to another, None being a client (sections 2.4 and 3.1)."""
    a = costs.assumptions
    bypass_way_s = a.host_host_rtt_s / 2
    if here is not None and there is not None:
        level = nodes.level(here, there)
        if level == Level.SAME_NODE:
            return a.in_node_s
        if level == Level.SAME_SERVER:
            return bypass_way_s * (1 - a.smartnic_host_rtt_cut)
    # One way over a ToR is half at one end and half at the other, beyond the switch's own time; clients use bypass.
    factor = a.linux_rtt_factor if costs.stack is Column.LINUX else 1.0
    ends = []
    for node in (here, there):
        whole = bypass_way_s
        if node is not None:
            whole *= factor if nodes.spots[node].nic == 0 else 1 - a.smartnic_smartnic_rtt_cut
        ends.append((whole - a.tor_s) / 2)
    hops = 1
    if here is not None and there is not None and level > Level.RACK_HOST:
        hops = 3 if level <= Level.POD_HOST else 5
    return sum(ends) + hops * a.tor_s
