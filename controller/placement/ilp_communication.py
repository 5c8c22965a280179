"""The integer program with communication in its cost (see ilp.py for the rest of it).

Each instance i has a column x[i,n] for each node n. A message over an edge i -> j costs as many levels as j's node is
beyond i's: 6, and 1 more to a host, if it went to another pod. What being nearer saves is a column for each place,
which is 1 only if both are there (at most the sum of i's x in that place, and of j's):

    same pod    saves 2     same rack   2 more     over PCIe   1 more to the SmartNIC, 2 to the host
    same node   2 more, and 1 more if it is a host

These columns need not be integer: with x integer they are. That is exact, and large: edges x nodes columns. So where
there are more than MOST_NODES nodes, the program is given some of the servers only: those that an annealing with the
same cost uses, and then others in order. Its own bound then says nothing of the rest; that of the program without
communication, over all servers, does, since communication costs at least nothing, and is what is reported.

The answer is the better of the solver's and of that annealing's, and says whose it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller.placement.annealing import anneal
from controller.placement.constraints import ClusterState
from controller.placement.cost import Weights, cost_of, scaled_edges
from controller.placement.demand import Demand
from controller.placement.ilp import (
    Kind,
    Solved,
    columns_of,
    finished,
    kept_cost,
    kinds_of,
    replica_rows,
    solve,
    weight_without,
)
from controller.placement.integer_program import INFEASIBLE, OPTIMAL, IntegerProgram
from controller.placement.rounding import Slot

MOST_NODES = 24
MOST_COLUMNS = 12_000  # edges x nodes
PAST_RACK_LEVELS, POD_SAVES, RACK_SAVES = 6, 2, 2


def solve_with_communication(demand: Demand, state: ClusterState, kept: Mapping[int, int], weights: Weights, seed: int,
                             time_limit_s: float) -> Solved:
    """Place all of `demand` that is not `kept`; leaves `state` as it is."""
    start = anneal(demand, state, kept, weights, seed).where
    whole = len(state.nodes) <= MOST_NODES
    kinds = kinds_of(demand, kept, separate=True)
    edges = max(1, len(demand.edges))
    slots = _candidates(state, start, whole, MOST_COLUMNS // edges)
    program = IntegerProgram()
    small = len(demand.edges) * len(slots) <= MOST_COLUMNS and kinds
    x, ended, bound, status = {}, "too large for the solver; the answer is annealing's", 0.0, OPTIMAL
    found: dict[int, int] = {}
    if small:
        total = sum(max(kind.need.weights) for kind in kinds)
        x = columns_of(program, kinds, slots, state, weights, total)
        replica_rows(program, x, kinds, slots, demand, state, kept, weights)
        _Edges(program, demand, state, kept, kinds, slots, x, weights).add()
        solution = program.solve(time_limit_s)
        bound, status = max(0.0, solution.bound) + kept_cost(demand, state, kept, weights), solution.status
        ended = "optimal" if status == OPTIMAL else f"time limit of {time_limit_s:g} s"
        if solution.values:
            found = dict(kept)
            for (k, s), column in x.items():
                if solution.values[column] > 0.5:
                    found[kinds[k].members[0]] = slots[s].nodes[0]
    if whole and status == INFEASIBLE:
        return Solved({}, None, math.inf, 0.0, "exact", "no placement satisfies all constraints")
    method = "exact"
    if not whole or not small:
        method = f"exact over {len(slots)} of {len(state.nodes)} nodes"
        relaxed = solve(demand, state, kept, replace(weights, communication=0.0), seed, time_limit_s)
        bound = relaxed.bound
    where = _better(demand, state, kept, found, start, weights)
    if where is start and found:
        ended += "; the answer is annealing's"
    return finished(demand, state, kept, where, weights, bound, method, ended)


def _better(demand: Demand, state: ClusterState, kept: Mapping[int, int], found: dict[int, int], start: dict[int, int],
            weights: Weights) -> dict[int, int]:
    before = weight_without(demand, state, kept)

    def price(where: dict[int, int]) -> float:
        if len(where) < len(demand.needs):
            return math.inf
        return cost_of(demand, where, state.nodes, before, weights).total

    return found if price(found) <= price(start) + 1e-9 and found else start


def _candidates(state: ClusterState, start: Mapping[int, int], whole: bool, most: int) -> list[Slot]:
    """Return the nodes that the program may use: all, or those of `start` and then whole servers, up to `most`."""
    nodes = state.nodes
    if whole:
        chosen = set(range(len(nodes)))
    else:
        chosen = set(start.values())
        used = dict.fromkeys(nodes.server_of[n] for n in sorted(chosen))
        for server in (*used, *range(len(nodes.servers))):
            members = set(nodes.servers[server][1])
            if len(chosen | members) > max(most, MOST_NODES):
                break
            chosen |= members
    return [Slot((n,), nodes.server_of[n]) for n in sorted(chosen) if n not in state.down]


@dataclass
class _Edges:
    """Adds what messages cost to a program."""

    program: IntegerProgram
    demand: Demand
    state: ClusterState
    kept: Mapping[int, int]
    kinds: Sequence[Kind]
    slots: Sequence[Slot]
    x: Mapping[tuple[int, int], int]
    weights: Weights

    def add(self) -> None:
        nodes = self.state.nodes
        everywhere = [slot.nodes[0] for slot in self.slots] + list(self.kept.values())
        self.kind_of = {kind.members[0]: k for k, kind in enumerate(self.kinds)}
        self.slot_of = {slot.nodes[0]: s for s, slot in enumerate(self.slots)}
        at = sorted(set(everywhere))
        pods = _grouped(at, [spot.pod for spot in nodes.spots])
        racks = _grouped(at, [spot.rack for spot in nodes.spots])
        servers = _grouped(at, nodes.server_of)
        hosts = [n for n in at if nodes.spots[n].nic == 0]
        for a, b, traffic in scaled_edges(self.demand):
            price = traffic * self.weights.communication
            if price <= 0 or (a in self.kept and b in self.kept):
                if price > 0:
                    self.program.constant += price * (nodes.level(self.kept[a], self.kept[b]) - 1)
                continue
            self.program.constant += price * PAST_RACK_LEVELS
            self._price_hosts(b, hosts, price)
            for group in pods.values():
                self._saving(a, b, group, group, price * POD_SAVES)
            for group in racks.values():
                self._saving(a, b, group, group, price * RACK_SAVES)
            for group in servers.values():
                host = [n for n in group if nodes.spots[n].nic == 0]
                cards = [n for n in group if nodes.spots[n].nic > 0]
                if host and cards:
                    self._saving(a, b, host, cards, price)
                    self._saving(a, b, cards, host, price * 2)
            for n in at:
                self._saving(a, b, [n], [n], price * (3 if nodes.spots[n].nic == 0 else 2))

    def _price_hosts(self, b: int, hosts: Sequence[int], price: float) -> None:
        entries, constant = self._inside(b, hosts)
        self.program.constant += price * constant
        for column in entries:
            self.program.costs[column] += price

    def _saving(self, a: int, b: int, here: Sequence[int], there: Sequence[int], saved: float) -> None:
        ends = [self._inside(a, here), self._inside(b, there)]
        if any(not entries and not constant for entries, constant in ends):
            return
        column = self.program.column(-saved, 1.0)
        for entries, constant in ends:
            if not constant:
                self.program.row([(column, 1.0), *((e, -1.0) for e in entries)], -math.inf, 0.0)

    def _inside(self, i: int, places: Sequence[int]) -> tuple[list[int], int]:
        """Return the columns that say whether instance `i` is in `places`; for a survivor none, and 1 if it is."""
        if i in self.kept:
            return [], int(self.kept[i] in places)
        k = self.kind_of[i]
        found = [self.x.get((k, self.slot_of[n])) for n in places if n in self.slot_of]
        return [c for c in found if c is not None], 0


def _grouped(at: Sequence[int], key: Sequence[int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for n in at:
        groups.setdefault(key[n], []).append(n)
    return groups
