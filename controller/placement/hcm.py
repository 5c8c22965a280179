"""HCM, the paper's placement: hierarchical and communication-aware (section 3.3, Algorithm 1).

    MS_DAG_TRAVERSE   breadth first from the sources; a source goes to find_first_fit, a descendant to MS_PLACE
    MS_PLACE          the levels around the ancestor's node, nearest first; find_best_fit within a level; where no level
                      has room, find_first_fit, and where that has none, the node closest to the constraints

Algorithm 1 places every direct descendant that it comes by, so one with several ancestors would be placed again from
each, as often as there are paths to it. The text says otherwise: a "breadth-first traversal", which comes to each
vertex once, and "if not already deployed". So here the first ancestor decides and a microservice that is placed stays,
which also lets what survived a failure stay where it is. Where each has one ancestor, both readings are one.

Backups, which Algorithm 1 does not mention, follow when all primaries are placed: from the primary's node, never in its
fault domain, other racks (levels 5 to 8) before its own, as section 3.5 has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping

from controller.placement.constraints import NOWHERE, ClusterState
from controller.placement.demand import Demand, Need
from topologies.distance import Level

BEYOND_SERVER = (Level.RACK_SMARTNIC, Level.RACK_HOST, Level.POD_SMARTNIC, Level.POD_HOST, Level.FAR_SMARTNIC,
                 Level.FAR_HOST)
BACKUP_LEVELS = (*BEYOND_SERVER[2:], *BEYOND_SERVER[:2])


def hcm(demand: Demand, state: ClusterState, survivors: Mapping[int, int] | None = None) -> dict[int, int]:
    """Place all of `demand` that is not among `survivors`; returns instance number -> node index for all of it.

    What it places it takes from `state`. An instance that no node that may run it has the memory and disk for is left
    out of the answer; one that overcommits a node's rates is in it.
    """
    where = dict(survivors or {})
    queue = deque(demand.sources)
    reached = set(demand.sources)
    while queue:
        v = queue.popleft()
        node = where.get(v, NOWHERE)
        if node == NOWHERE:
            need = demand.needs[v]
            node = _deploy(need, _find_first_fit(need, state, state.closed_to(demand, need, where)), where, state)
        for w in demand.successors[v]:
            if w in reached:
                continue
            reached.add(w)
            queue.append(w)
            if w not in where:
                need = demand.needs[w]
                _deploy(need, _ms_place(need, node, state, state.closed_to(demand, need, where)), where, state)
    for need in demand.needs:
        if need.primary >= 0 and need.number not in where:
            closed = state.closed_to(demand, need, where)
            near = where.get(need.primary, NOWHERE)
            _deploy(need, _place_backup(need, near, state, closed), where, state)
    return where


def _deploy(need: Need, node: int, where: dict[int, int], state: ClusterState) -> int:
    if node != NOWHERE:
        where[need.number] = node
        state.take(need, node)
    return node


def _ms_place(need: Need, near: int, state: ClusterState, closed: Collection[int]) -> int:
    """Place a descendant of what runs on node `near` (lines 20 to 26)."""
    if near == NOWHERE:
        return _find_first_fit(need, state, closed)
    if near not in closed and state.fits(need, near):  # level 1
        return near
    nodes = state.nodes
    own = nodes.servers[nodes.server_of[near]][1]
    # Level 2, over PCIe: of a SmartNIC its host, which is the last of its server; of a host all its SmartNICs.
    found = state.best_of(need, own[:-1] if near == own[-1] else own[-1:], closed)
    if found != NOWHERE:
        return found
    for level in BEYOND_SERVER:
        found = state.best_fit(need, nodes.beyond_server(near, level), closed)
        if found != NOWHERE:
            return found
    return _find_first_fit(need, state, closed)


def _place_backup(need: Need, near: int, state: ClusterState, closed: Collection[int]) -> int:
    if near != NOWHERE:
        nodes = state.nodes
        rack = nodes.spots[near].rack
        for level in BACKUP_LEVELS:
            ranges = nodes.beyond_server(near, level)
            elsewhere = nodes.without_rack(ranges, rack) if level >= Level.POD_SMARTNIC else ranges
            found = state.best_fit(need, elsewhere, closed)
            if found != NOWHERE:
                return found
    return _find_first_fit(need, state, closed)


def _find_first_fit(need: Need, state: ClusterState, closed: Collection[int]) -> int:
    """Return the first node that fits; if there is none, the one closest to the constraints."""
    found = state.first_fit(need, closed)
    return found if found != NOWHERE else state.closest(need, closed)
