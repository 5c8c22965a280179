"""From how many instances of each kind go to which nodes, to which instance goes to which node."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controller.placement.compute_nodes import Resource
from controller.placement.constraints import ClusterState
from controller.placement.demand import Demand, Need


@dataclass(frozen=True, slots=True)
class Slot:
    """A node, or several that are alike. `server` is its server where there is one node only, else -1."""

    nodes: tuple[int, ...]
    server: int


def spread_out(demand: Demand, state: ClusterState, kept: Mapping[int, int],
               kinds: Sequence[tuple[Need, Sequence[int]]], slots: Sequence[Slot],
               counts: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """Return instance number -> node, evenly over the nodes of each slot; those that fit nowhere are left out.

    Leaves `state` as it is.
    """
    heaps = {s: [(state.weight[n], n) for n in slots[s].nodes] for _, s in counts}
    for heap in heaps.values():
        heapq.heapify(heap)
    where = dict(kept)
    taken: list[tuple[Need, int]] = []
    chosen: dict[int, list[int]] = {}
    for (k, s), count in sorted(counts.items(), key=lambda item: _heaviest_first(kinds[item[0][0]][0], item[0], state,
                                                                                 slots)):
        need = kinds[k][0]
        for _ in range(count):
            node = _least_laden(need, heaps[s], state)
            if node >= 0:
                chosen.setdefault(k, []).append(node)
                state.take(need, node)
                taken.append((need, node))
                heapq.heappush(heaps[s], (state.weight[node], node))
    _name(demand, state, kinds, chosen, where)
    for need, node in taken:
        state.give_back(need, node)
    return where


def _heaviest_first(need: Need, key: tuple[int, int], state: ClusterState, slots: Sequence[Slot]) -> tuple[int, ...]:
    c = state.nodes.class_of[slots[key[1]].nodes[0]]
    share = need.shares[c]
    return (-need.weights[c], -max(share) if share else 0, -(share[Resource.CPU] if share else 0), *key)


def _least_laden(need: Need, heap: list[tuple[int, int]], state: ClusterState) -> int:
    """Take the node that is laden least and has room off the heap; -1 if there is none."""
    aside, found = [], -1
    while heap:
        laden, node = heapq.heappop(heap)
        if laden == state.weight[node] and state.fits(need, node):
            found = node
            break
        aside.append((state.weight[node], node))
    for entry in aside:
        heapq.heappush(heap, entry)
    return found


def _name(demand: Demand, state: ClusterState, kinds: Sequence[tuple[Need, Sequence[int]]],
          chosen: Mapping[int, Sequence[int]], where: dict[int, int]) -> None:
    """Say which instance goes to which of the nodes chosen for its kind: backups away from their primaries."""
    for k, (need, members) in enumerate(kinds):
        nodes = list(chosen.get(k, ()))
        if need.primary < 0:
            where.update(zip(sorted(members), sorted(nodes), strict=False))
            continue
        for number, node in _paired(demand, state, members, nodes, where).items():
            where[number] = node


def _paired(demand: Demand, state: ClusterState, members: Sequence[int], nodes: Sequence[int],
            where: Mapping[int, int]) -> dict[int, int]:
    """Return backups' nodes so that none is in a fault domain with its primary, and few in a rack with it.

    An assignment problem: 1 for a rack in common, and far more than all together for a server in common.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    server_of, spots = state.nodes.server_of, state.nodes.spots
    never = 10.0 * (len(members) + 1)
    prices = np.zeros((len(members), len(nodes)))
    for i, number in enumerate(members):
        servers = state.replica_servers(demand, demand.needs[number], where)
        primary = where.get(demand.needs[number].primary)
        for j, node in enumerate(nodes):
            if server_of[node] in servers:
                prices[i, j] = never
            elif primary is not None and spots[primary].rack == spots[node].rack:
                prices[i, j] = 1.0
    rows, columns = linear_sum_assignment(prices)
    return {members[i]: nodes[j] for i, j in zip(rows, columns, strict=True) if prices[i, j] < never}
