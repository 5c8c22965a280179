"""Placement as an integer program, solved by HiGHS: the cost of cost.py, exactly.

Instances that ask for the same form a *kind* k with `count[k]` members; nodes that are alike (class, what is free, what
runs there) are interchangeable. With x[k,n] the instances of kind k on node n and W[n] the interference that is added
to it,

    minimise   sum over n of  10/cores[n] x ( W[n]^2/2 + sum over k of x[k,n] w[k,n] (before[n] - w[k,n]/2) )
               + sum of load[k,n] x[k,n] + 5 x sum over stages of together[s]
    so that    sum over n of x[k,n] = count[k]                            every instance is placed once
               sum over k of share[k,n,r] x[k,n] <= free[n,r]             every resource r of every node n
               W[n] = sum over k of w[k,n] x[k,n]
               x[k,n] + x[k',n] <= count[k], summed over a server         k' the backups of k: by Hall's theorem this is
                                                                          when they can be paired across fault domains
               together[s] >= x[k,.] + x[k',.] - count[k], in each rack   pairs that must share a rack
               x[k,n] integer

W[n]^2 is convex and W[n] an integer, so unit steps with slopes 1, 3, 5, ... make it linear without any error.

**Exact or aggregated.** A placement of A instances touches at most A servers, so of equal servers of a rack only A are
kept, and of equal racks only A; that loses nothing. What is still larger than EXACT_COLUMNS is solved aggregated: all
nodes that are alike are one with as much more of everything, which is a relaxation, so its bound holds for the
placement that is then made from it. Which of the two it was, the bound, and the gap to it are part of the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from controller.placement.annealing import Schedule, anneal
from controller.placement.capacity_tree import Shares
from controller.placement.compute_nodes import Resource
from controller.placement.constraints import ClusterState
from controller.placement.cost import SERVICE_FABRIC, Cost, Weights, cost_of
from controller.placement.demand import PARTS, Demand, Need
from controller.placement.integer_program import INFEASIBLE, OPTIMAL, IntegerProgram, Solution
from controller.placement.rounding import Slot, spread_out

TIME_LIMIT_S = 60.0
EXACT_COLUMNS = 3000
MOST_TANGENTS = 12
ROW_SCALE = 1e5  # a node's whole capacity in the rows of the program


@dataclass(frozen=True, slots=True)
class Solved:
    """The answer by instance number (empty: there is none), what nothing can undercut, and how it was found.

    `gap` is (cost - bound) / cost; `method` is "exact" or "aggregated"; `ended` says how the solver did.
    """

    where: dict[int, int]
    cost: Cost | None
    bound: float
    gap: float
    method: str
    ended: str


@dataclass(frozen=True, slots=True)
class Kind:
    """Instances that ask for the same.

    `partner` is the kind of their backups, or -1. `alone` is true of one instance that is told from others like it.
    """

    need: Need
    members: tuple[int, ...]
    partner: int = -1
    alone: bool = False


def solve(demand: Demand, state: ClusterState, kept: Mapping[int, int], weights: Weights = SERVICE_FABRIC,
          seed: int = 1, time_limit_s: float = TIME_LIMIT_S) -> Solved:
    """Place all of `demand` that is not among `kept`, which stay; leaves `state` as it is.

    Communication is not in this program, whatever its weight: ilp_communication.py's has it.
    """
    kinds = kinds_of(demand, kept)
    slots = exact_slots(state, kinds, demand, kept)
    exact = len(slots) * len(kinds) <= EXACT_COLUMNS
    if not exact:
        slots = aggregated_slots(state, kinds, by_rack=bool(demand.replicas))
    solution, counts = solved_counts(kinds, slots, demand, state, kept, weights, time_limit_s)
    method = "exact" if exact else "aggregated"
    if solution.status == INFEASIBLE:
        return Solved({}, None, math.inf, 0.0, method, "no placement satisfies all constraints")
    where = dict(kept)
    if counts:
        where = spread_out(demand, state, kept, [(k.need, k.members) for k in kinds], slots, counts)
    ended = "optimal" if solution.status == OPTIMAL else f"time limit of {time_limit_s:g} s"
    if len(where) < len(demand.needs):
        # No answer in time, or one that packs differently than it aggregates: a short annealing stands in.
        where = anneal(demand, state, kept, weights, seed, Schedule()).where
        ended += "; the answer is annealing's"
    bound = max(0.0, solution.bound) + kept_cost(demand, state, kept, weights)
    return finished(demand, state, kept, where, weights, bound, method, ended)


def finished(demand: Demand, state: ClusterState, kept: Mapping[int, int], where: dict[int, int], weights: Weights,
             bound: float, method: str, ended: str) -> Solved:
    """Return an answer with its cost, and its gap to `bound`."""
    if len(where) < len(demand.needs):
        return Solved({}, None, bound, 1.0, method, f"{ended}; nothing that fits was found")
    cost = cost_of(demand, where, state.nodes, weight_without(demand, state, kept), weights)
    gap = max(0.0, (cost.total - bound) / cost.total) if cost.total > 1e-9 else 0.0
    return Solved(where, cost, bound, gap, method, ended)


def weight_without(demand: Demand, state: ClusterState, kept: Mapping[int, int]) -> list[int]:
    """Return how much what runs on each node interferes, without the application itself."""
    before = [*state.weight]
    for n, node in kept.items():
        before[node] -= demand.needs[n].weights[state.nodes.class_of[node]]
    return before


def kept_cost(demand: Demand, state: ClusterState, kept: Mapping[int, int], weights: Weights) -> float:
    """Return what the survivors cost whatever is done, apart from communication: the program does not count it."""
    alone = replace(weights, communication=0.0)
    return cost_of(demand, kept, state.nodes, weight_without(demand, state, kept), alone).total


def kinds_of(demand: Demand, kept: Mapping[int, int], separate: bool = False) -> list[Kind]:
    """Return the instances to place by what they ask for, each on its own if `separate` or if replicas demand it."""
    many = {n for group in demand.replicas.values() for n in group
            if len(group) > 2 or any(other in kept for other in group)}
    keys: dict[tuple[str, bool, int], list[int]] = {}
    for need in demand.needs:
        if need.number not in kept:
            alone = need.number if separate or need.number in many else -1
            keys.setdefault((need.stage, need.primary >= 0, alone), []).append(need.number)
    order = {key: i for i, key in enumerate(keys)}
    kinds = []
    for (stage, backup, alone), members in keys.items():
        partner = -1 if backup or alone != -1 else order.get((stage, True, -1), -1)
        kinds.append(Kind(demand.needs[members[0]], tuple(members), partner, alone != -1))
    return kinds


def exact_slots(state: ClusterState, kinds: Sequence[Kind], demand: Demand, kept: Mapping[int, int]) -> list[Slot]:
    """Return each node once that is worth considering: of equal servers as many as there are instances."""
    nodes = state.nodes
    most = sum(len(kind.members) for kind in kinds)
    special = {nodes.server_of[node] for node in kept.values()}
    racks: dict[int, dict[object, list[int]]] = {}
    for s, (_, members) in enumerate(nodes.servers):
        signature: object = ("kept", s) if s in special else tuple(_signature(state, kinds, n) for n in members)
        same = racks.setdefault(nodes.spots[members[0]].rack, {}).setdefault(signature, [])
        if len(same) < most:
            same.append(s)
    if not demand.replicas:  # then a rack means nothing
        racks = {0: _merged(racks.values(), most)}
    seen: dict[object, int] = {}
    slots = []
    for groups in racks.values():
        whole = frozenset((signature, len(same)) for signature, same in groups.items())
        seen[whole] = seen.get(whole, 0) + 1
        if seen[whole] <= most:
            for same in groups.values():
                slots += [Slot((n,), s) for s in same for n in nodes.servers[s][1] if n not in state.down]
    return slots


def _merged(groups: object, most: int) -> dict[object, list[int]]:
    merged: dict[object, list[int]] = {}
    for rack in groups:  # type: ignore[attr-defined]
        for signature, same in rack.items():
            merged.setdefault(signature, []).extend(same)
    return {signature: same[:most] for signature, same in merged.items()}


def aggregated_slots(state: ClusterState, kinds: Sequence[Kind], by_rack: bool) -> list[Slot]:
    """Return the nodes that are up, those that are alike as one; only those of one rack, if `by_rack`."""
    alike: dict[object, list[int]] = {}
    for node, spot in enumerate(state.nodes.spots):
        if node not in state.down:
            alike.setdefault((_signature(state, kinds, node), by_rack and spot.rack), []).append(node)
    return [Slot(tuple(members), -1) for members in alike.values()]


def _signature(state: ClusterState, kinds: Sequence[Kind], node: int) -> tuple[object, ...]:
    banned = tuple(k for k, kind in enumerate(kinds) if node in kind.need.forbidden)
    return state.nodes.class_of[node], state.free[node], state.weight[node], banned


def solved_counts(kinds: Sequence[Kind], slots: Sequence[Slot], demand: Demand, state: ClusterState,
                  kept: Mapping[int, int], weights: Weights,
                  time_limit_s: float) -> tuple[Solution, dict[tuple[int, int], int]]:
    """Return how the solver ended, and how many of each kind go to each slot, by (kind, slot)."""
    total = sum(max(kind.need.weights) * len(kind.members) for kind in kinds)
    steps = 4 + 2 * math.ceil(total / max(1, sum(len(slot.nodes) for slot in slots)))
    while True:
        program = IntegerProgram()
        x = columns_of(program, kinds, slots, state, weights, steps)
        if demand.replicas:
            replica_rows(program, x, kinds, slots, demand, state, kept, weights)
        solution = program.solve(time_limit_s)
        if not solution.values:
            return solution, {}
        counts = {key: round(solution.values[column]) for key, column in x.items()
                  if round(solution.values[column]) > 0}
        heaviest = max((sum(kinds[k].need.weights[state.nodes.class_of[slots[s].nodes[0]]] * n
                            for (k, s2), n in counts.items() if s2 == s) / len(slots[s].nodes)
                        for s in {s for _, s in counts}), default=0)
        if heaviest <= steps or steps >= total or len(slots[0].nodes) > 1:
            return solution, counts
        steps = min(total, 4 * steps)  # the last step underestimates: it must not be needed


def columns_of(program: IntegerProgram, kinds: Sequence[Kind], slots: Sequence[Slot], state: ClusterState,
               weights: Weights, steps: int) -> dict[tuple[int, int], int]:
    """Add x[k,n], the steps of W[n]^2, and the rows that bind them; returns the columns of x by (kind, slot)."""
    nodes = state.nodes
    x: dict[tuple[int, int], int] = {}
    for s, slot in enumerate(slots):
        first, many = slot.nodes[0], len(slot.nodes)
        c = nodes.class_of[first]
        per_pair = weights.interference / nodes.classes[c].cores
        mine = []
        for k, kind in enumerate(kinds):
            share = kind.need.shares[c]
            if share is None or first in kind.need.forbidden or not has_room(share, state.free[first]):
                continue
            w = kind.need.weights[c]
            cost = per_pair * w * state.weight[first] + weights.load * share[Resource.CPU] / PARTS
            if many == 1:
                cost -= per_pair * w * w / 2
            x[k, s] = program.column(cost, len(kind.members), integer=True)
            mine.append((x[k, s], share, w, len(kind.members)))
        for r in Resource:
            if sum(share[r] * most for _, share, _, most in mine) > state.free[first][r] * many:
                program.row([(column, share[r] / PARTS * ROW_SCALE) for column, share, _, _ in mine if share[r]],
                            -math.inf, state.free[first][r] / PARTS * ROW_SCALE * many)
        if mine and many == 1:
            ladder = [program.column(per_pair * (2 * j + 1) / 2, 1.0 if j < steps else math.inf)
                      for j in range(steps + 1)]
            program.row([*((column, float(w)) for column, _, w, _ in mine), *((z, -1.0) for z in ladder)], 0.0, 0.0)
        elif mine:
            pairs = program.column(per_pair / 2, math.inf)  # twice the pairs; at least those of an even spread
            for j in range(1, min(steps, MOST_TANGENTS) + 1):
                for unit in (0, 1):  # once as they weigh, once as if each weighed 1
                    program.row([(pairs, 1.0), *((column, float(-((2 * j + 1) * w - w * w) if not unit else -2 * j))
                                                 for column, _, w, _ in mine)], -j * (j + 1) * many, math.inf)
    for k, kind in enumerate(kinds):
        program.row([(column, 1.0) for (k2, _), column in x.items() if k2 == k], len(kind.members), len(kind.members))
    return x


def has_room(share: Shares, free: Shares) -> bool:
    return all(takes <= have for takes, have in zip(share, free, strict=True))


def replica_rows(program: IntegerProgram, x: Mapping[tuple[int, int], int], kinds: Sequence[Kind],
                  slots: Sequence[Slot], demand: Demand, state: ClusterState, kept: Mapping[int, int],
                  weights: Weights) -> None:
    """Keep replicas out of each other's fault domains, and price those that share a rack."""
    nodes = state.nodes
    by_server: dict[int, list[int]] = {}
    by_rack: dict[int, list[int]] = {}
    for s, slot in enumerate(slots):
        if slot.server >= 0:  # where several servers are one, their fault domains wait for the rounding
            by_server.setdefault(slot.server, []).append(s)
        by_rack.setdefault(nodes.spots[slot.nodes[0]].rack, []).append(s)

    def bind(members: Sequence[int], most: Mapping[int, float]) -> None:
        for server, inside in by_server.items():
            program.row([(x[k, s], 1.0) for k in members for s in inside if (k, s) in x], -math.inf, most[server])

    def price(members: Sequence[int], count: int, fixed_rack: int = 0) -> None:
        together = program.column(weights.same_rack, math.inf)
        for rack, inside in by_rack.items():
            entries = [(x[k, s], 1.0) for k in members for s in inside if (k, s) in x]
            program.row([*entries, (together, -1.0)], -math.inf, count - (rack == fixed_rack))

    for k, kind in enumerate(kinds):
        if kind.partner >= 0:
            bind((k, kind.partner), dict.fromkeys(by_server, len(kind.members)))
            price((k, kind.partner), len(kind.members))
    alone = {kind.members[0]: k for k, kind in enumerate(kinds) if kind.alone}
    for primary, group in demand.replicas.items():
        free = [alone[n] for n in group if n in alone]
        if free:
            taken = {nodes.server_of[kept[n]] for n in group if n in kept}
            bind(free, {server: 0.0 if server in taken else 1.0 for server in by_server})
            for backup in group[1:]:
                if primary in alone and backup in alone:
                    price((alone[primary], alone[backup]), 1)
                elif primary in alone or backup in alone:
                    one, other = (primary, backup) if primary in alone else (backup, primary)
                    price((alone[one],), 1, nodes.spots[kept[other]].rack)
