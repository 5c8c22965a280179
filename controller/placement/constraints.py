"""The state of a cluster as placement sees it: what every node has free, what runs where, what is down.

Section 3.3's first two kinds of constraints live here: available memory, disk, CPU and network of each node, and the
requests outstanding at it. The third kind, the behaviour of microservices, is in demand.py. What one asks for and what
another has are integers, PARTS of a node's capacity, so that nothing is lost by taking and giving back.

Which node is *best* and which is *closest to the constraints* is open in the paper. Here:

    best      of the nodes that fit, the one that would have least left: the least sum, over the five resources, of the
              shares of its capacity that stay free
    closest   of the nodes that may run it and have the memory and disk, the one that would be overcommitted least: the
              least sum, over CPU, network and outstanding requests, of the shares of its capacity that are lacking

Ties go to the first in the order of compute_nodes.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from controller.errors import PlacementError
from controller.placement.capacity_tree import ABSENT, CapacityTree, Shares
from controller.placement.compute_nodes import ComputeNodes, Range, Resource
from controller.placement.demand import PARTS, Demand, Need
from topologies.cluster import Cluster

NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Placed:
    """An application that is deployed: what it asked for and the node index of each instance number."""

    demand: Demand
    where: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class UsedByOthers:
    """What something else than our applications takes of a node."""

    memory_mb: float = 0.0
    disk_mb: float = 0.0
    cpu_cores: float = 0.0
    network_gbps: float = 0.0


class ClusterState:
    """What is free and what is placed; changed by `commit`, `remove`, `fail`, `heal` and what nodes report."""

    def __init__(self, cluster: Cluster | ComputeNodes) -> None:
        self.nodes = nodes = cluster if isinstance(cluster, ComputeNodes) else ComputeNodes(cluster)
        self.free: list[Shares] = [(PARTS,) * 5] * len(nodes)
        self.weight = [0] * len(nodes)  # how much what runs on a node interferes there, see cost.py
        self.down: set[int] = set()
        self.placed: dict[str, Placed] = {}
        self._others: dict[int, Shares] = {}
        self._taken: list[Shares] = [(0,) * 5] * len(nodes)
        self._class_of = nodes.class_of
        self._position = [node.position for node in nodes.nodes]
        self._trees = [CapacityTree([self.free[i] for i in members]) for members in nodes.of_class]

    # -- what changes it -------------------------------------------------------------------------------------

    def take(self, need: Need, node: int) -> None:
        """Reserve `need` on a node, whether it fits or not."""
        c = self._class_of[node]
        share = need.shares[c]
        assert share is not None
        tm, td, tc, tn, to = self._taken[node]
        m, d, cpu, n, o = share
        self._taken[node] = (tm + m, td + d, tc + cpu, tn + n, to + o)
        self.weight[node] += need.weights[c]
        if node in self.down:
            return
        fm, fd, fc, fn, fo = self.free[node]
        free = self.free[node] = (fm - m, fd - d, fc - cpu, fn - n, fo - o)
        self._trees[c].set(self._position[node], free)

    def give_back(self, need: Need, node: int) -> None:
        """Undo `take`."""
        c = self._class_of[node]
        share = need.shares[c]
        assert share is not None
        tm, td, tc, tn, to = self._taken[node]
        m, d, cpu, n, o = share
        self._taken[node] = (tm - m, td - d, tc - cpu, tn - n, to - o)
        self.weight[node] -= need.weights[c]
        self._refresh(node)

    def note(self, demand: Demand, where: Mapping[int, int], key: str = "") -> None:
        """Note that an application, whose needs are taken already, is deployed so, under `key` (its name by default).

        Raises PlacementError for a key that is there.
        """
        key = key or demand.name
        self._check_new(key)
        self.placed[key] = Placed(demand, dict(where))

    def remove(self, key: str) -> Placed:
        """Give back all that the application placed under `key` takes; returns it. Raises PlacementError."""
        placed = self.placed_as(key)
        for need in placed.demand.needs:
            self.give_back(need, placed.where[need.number])
        return self.placed.pop(key)

    def placed_as(self, key: str) -> Placed:
        if key not in self.placed:
            raise PlacementError(f"no application {key!r} is placed; there are {', '.join(self.placed) or 'none'}")
        return self.placed[key]

    def fail(self, name: str) -> tuple[str, ...]:
        """Note that a node is down; returns the names of all that went down with it.

        A host takes its SmartNICs with it, since they share its power supply (section 3.5).
        """
        node = self.nodes.node(name)
        lost = self._with_server(node.index) if node.spot.nic == 0 else (node.index,)
        for index in lost:
            self.down.add(index)
            self._refresh(index)
        return tuple(self.nodes.nodes[i].name for i in lost)

    def heal(self, name: str) -> None:
        index = self.nodes.node(name).index
        self.down.discard(index)
        self._refresh(index)

    def report(self, name: str, outstanding: int = 0, others: UsedByOthers = UsedByOthers()) -> None:
        """Note what a node reports: requests outstanding at it now, and what others than our applications take.

        What is outstanding beyond that which the placed applications are expected to have counts until the next report.
        """
        index = self.nodes.node(name).index
        capacity = self.nodes.classes[self._class_of[index]].capacity
        used = (others.memory_mb, others.disk_mb, others.cpu_cores, others.network_gbps)
        if outstanding < 0 or min(used) < 0:
            raise PlacementError(f"{name} reports {outstanding} requests, {used} in use; the least is 0")
        m, d, c, n = (round(u / have * PARTS) if have > 0 else 0 for u, have in zip(used, capacity, strict=False))
        waiting = round(outstanding / capacity[Resource.OUTSTANDING] * PARTS)
        self._others[index] = (m, d, c, n, max(0, waiting - self._taken[index][Resource.OUTSTANDING]))
        self._refresh(index)

    def _refresh(self, node: int) -> None:
        if node in self.down:
            free: Shares = ABSENT
        else:
            tm, td, tc, tn, to = self._taken[node]
            m, d, c, n, o = self._others.get(node, (0, 0, 0, 0, 0))
            free = (PARTS - tm - m, PARTS - td - d, PARTS - tc - c, PARTS - tn - n, PARTS - to - o)
        self.free[node] = free
        self._trees[self._class_of[node]].set(self._position[node], free)

    def _check_new(self, key: str) -> None:
        if key in self.placed:
            raise PlacementError(f"{key!r} is placed already; remove it first, or give this one another key")

    def _with_server(self, node: int) -> tuple[int, ...]:
        return self.nodes.servers[self.nodes.server_of[node]][1]

    # -- what is asked of it ---------------------------------------------------------------------------------

    def fits(self, need: Need, node: int) -> bool:
        """Say whether a node has enough of every resource and may run `need`; fault domains are the caller's."""
        share = need.shares[self._class_of[node]]
        if share is None:
            return False
        m, d, c, n, o = share
        fm, fd, fc, fn, fo = self.free[node]
        return m <= fm and d <= fd and c <= fc and n <= fn and o <= fo and node not in need.forbidden

    def replica_servers(self, demand: Demand, need: Need, where: Mapping[int, int]) -> set[int]:
        """Return the servers on which other replicas of `need` run: its fault domains that are taken (section 3.5)."""
        primary = need.number if need.primary < 0 else need.primary
        group = demand.replicas.get(primary, ())
        return {self.nodes.server_of[where[other]] for other in group if other != need.number and other in where}

    def closed_to(self, demand: Demand, need: Need, where: Mapping[int, int]) -> Collection[int]:
        """Return the nodes that `need` may not run on: forbidden, or in a fault domain with another replica."""
        if not demand.replicas:
            return need.forbidden
        servers = self.replica_servers(demand, need, where)
        return need.forbidden.union(*(self.nodes.servers[s][1] for s in servers)) if servers else need.forbidden

    def first_fit(self, need: Need, closed: Collection[int] = ()) -> int:
        """Return the first node that fits, or NOWHERE."""
        found = NOWHERE
        for kind, start, end in self._open(self.nodes.whole(), closed):
            share = need.shares[kind]
            if share is None:
                continue
            position = self._trees[kind].first(share, start, end)
            if position >= 0:
                index = self.nodes.of_class[kind][position]
                if found < 0 or index < found:
                    found = index
        return found

    def first_fit_from(self, need: Need, node: int, closed: Collection[int] = ()) -> int:
        """Return a node that fits: of each class the first from a place on, around, then the nearest after `node`."""
        found, least = NOWHERE, len(self.nodes)
        whole = self.nodes.whole()
        starts = [bisect_left(self.nodes.of_class[r.class_index], node) for r in whole]
        for ranges in ([Range(r.class_index, s, r.end) for r, s in zip(whole, starts, strict=True)],
                       [Range(r.class_index, 0, s) for r, s in zip(whole, starts, strict=True)]):
            for kind, start, end in self._open(ranges, closed):
                share = need.shares[kind]
                position = -1 if share is None else self._trees[kind].first(share, start, end)
                if position >= 0:
                    index = self.nodes.of_class[kind][position]
                    if (index - node) % len(self.nodes) < least:
                        found, least = index, (index - node) % len(self.nodes)
            if found != NOWHERE:
                return found
        return found

    def best_fit(self, need: Need, ranges: Iterable[Range], closed: Collection[int] = ()) -> int:
        """Return the node of `ranges` that would have least left, or NOWHERE."""
        found, least = NOWHERE, 0
        for kind, start, end in self._open(ranges, closed):
            share = need.shares[kind]
            if share is None:
                continue
            total, position = self._trees[kind].best(share, start, end)
            if position >= 0:
                left = total - sum(share)
                index = self.nodes.of_class[kind][position]
                if found < 0 or left < least or (left == least and index < found):
                    found, least = index, left
        return found

    def best_of(self, need: Need, candidates: Iterable[int], closed: Collection[int] = ()) -> int:
        """Return the same of a few nodes given by index."""
        found, least = NOWHERE, 0
        for node in candidates:
            if node not in closed and self.fits(need, node):
                share = need.shares[self._class_of[node]]
                assert share is not None
                left = sum(self.free[node]) - sum(share)
                if found < 0 or left < least or (left == least and node < found):
                    found, least = node, left
        return found

    def closest(self, need: Need, closed: Collection[int] = ()) -> int:
        """Return the node closest to the constraints, or NOWHERE if none that may run it has the memory and disk."""
        found, least = NOWHERE, 0
        for kind, start, end in self._open(self.nodes.whole(), closed):
            share = need.shares[kind]
            if share is None:
                continue
            excess, position = self._trees[kind].closest(share, start, end)
            if position >= 0:
                index = self.nodes.of_class[kind][position]
                if found < 0 or excess < least or (excess == least and index < found):
                    found, least = index, excess
        return found

    def _open(self, ranges: Iterable[Range], closed: Collection[int]) -> Iterable[tuple[int, int, int]]:
        """Return `ranges` as (class, start, end) without the nodes that are closed."""
        if not closed:
            return [(r.class_index, r.start, r.end) for r in ranges]
        shut: dict[int, list[int]] = {}
        for node in closed:
            shut.setdefault(self._class_of[node], []).append(self._position[node])
        pieces = []
        for r in ranges:
            start = r.start
            for position in sorted(p for p in shut.get(r.class_index, ()) if r.start <= p < r.end):
                if start < position:
                    pieces.append((r.class_index, start, position))
                start = position + 1
            if start < r.end:
                pieces.append((r.class_index, start, r.end))
        return pieces
