"""Simulated annealing, as Service Fabric places (section 3.3): move or swap instances while the temperature falls.

It starts from a random placement that fits, draws a move (one instance to another node) or sometimes a swap (two
change places), and accepts what lowers the cost, or raises it by d with probability exp(-d / temperature). Nothing is
moved to where it does not fit. Only if not even the start fits may it pass through what does not, at a price that
nothing else outweighs, until it does.

**Stop rule.** The first temperature is the mean size of the changes that random moves make. A plateau is PLATEAU
proposals per instance at one temperature; then it falls by a factor of COOLING. It is frozen when PATIENCE plateaus in
a row have not improved the best cost and less than FROZEN of their proposals were accepted although they cost more, or
when the schedule ends (temperature below COLDEST of the first). Then, from the best placement seen, QUENCH more
proposals per instance accept only what lowers the cost. `Schedule(patience=0)` runs the schedule to its end.

The cost of a move is the change that it makes (cost.py), never the whole sum: what it costs to try one does not
depend on the number of nodes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from controller.placement.compute_nodes import Resource
from controller.placement.constraints import NOWHERE, ClusterState
from controller.placement.cost import SERVICE_FABRIC, Weights, scaled_edges, steps_between
from controller.placement.demand import PARTS, Demand, Need

PLATEAU, COOLING, PATIENCE, FROZEN, COLDEST, QUENCH = 12, 0.8, 3, 0.01, 0.001, 20
SWAPS = 0.1  # share of proposals that are swaps
NEAR = 0.7  # with communication in the cost: share of moves towards a node near one that it talks to
EXCESS_PRICE = 1e6  # per whole capacity that is overcommitted


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long it anneals: the numbers of the stop rule above."""

    plateau: int = PLATEAU
    cooling: float = COOLING
    patience: int = PATIENCE
    quench: int = QUENCH
    most_proposals: int = 1 << 62


@dataclass(frozen=True, slots=True)
class Annealed:
    """The best placement seen, by instance number; `stopped` says why it ended."""

    where: dict[int, int]
    proposals: int
    accepted: int
    plateaus: int
    stopped: str


def anneal(demand: Demand, state: ClusterState, survivors: Mapping[int, int] | None = None,
           weights: Weights = SERVICE_FABRIC, seed: int = 1, schedule: Schedule = Schedule()) -> Annealed:
    """Place all of `demand` that is not among `survivors`, which stay; leaves `state` as it is.

    What may run nowhere is left out of the answer; if nothing that fits is found, the answer does not fit.
    """
    rng = random.Random(seed)
    where = _start(demand, state, dict(survivors or {}), rng)
    free_ones = [n.number for n in demand.needs if n.number in where and n.number not in (survivors or {})]
    if not free_ones or len(where) < len(demand.needs):
        return Annealed(where, 0, 0, 0, "nothing to move" if not free_ones else "no room")
    return _Annealing(demand, state, where, free_ones, weights, rng).run(schedule)


def _start(demand: Demand, state: ClusterState, where: dict[int, int], rng: random.Random) -> dict[int, int]:
    """Return a random placement that fits, as far as there is room."""
    taken = []
    for need in demand.needs:
        if need.number in where:
            continue
        closed = state.closed_to(demand, need, where)
        node = state.first_fit_from(need, rng.randrange(len(state.nodes)), closed)
        if node == NOWHERE:
            node = _least_bad(need, state, closed)
        if node != NOWHERE:
            where[need.number] = node
            state.take(need, node)
            taken.append((need, node))
    for need, node in taken:
        state.give_back(need, node)
    return where


def _least_bad(need: Need, state: ClusterState, closed: Collection[int]) -> int:
    """Return the node that would be overcommitted least, in whatever resource, of those that `need` may run on."""

    def lacking(node: int) -> int:
        share = need.shares[state.nodes.class_of[node]]
        assert share is not None
        return sum(max(0, takes - have) for takes, have in zip(share, state.free[node], strict=True))

    choices = state.nodes.of_classes(tuple(s is not None for s in need.shares))
    return min((n for n in choices if n not in closed and n not in state.down), key=lacking, default=NOWHERE)


class _Annealing:
    """The placement as it stands, what is free and how much interferes under it, and its cost."""

    def __init__(self, demand: Demand, state: ClusterState, where: dict[int, int], free_ones: list[int],
                 weights: Weights, rng: random.Random) -> None:
        self.needs, self.where, self.movable, self.weights, self.rng = demand.needs, where, free_ones, weights, rng
        nodes = self.nodes = state.nodes
        self.class_of = nodes.class_of
        self.inverse_cores = [weights.interference / kind.cores for kind in nodes.classes]
        self.free = [*state.free]
        self.heft = [*state.weight]
        self.down = state.down
        self.steps = steps_between(nodes)
        self.talks: list[list[tuple[int, float, bool]]] = [[] for _ in demand.needs]
        if weights.communication > 0:
            for a, b, traffic in scaled_edges(demand):
                if traffic > 0 and a in where and b in where:
                    self.talks[a].append((b, traffic * weights.communication, True))
                    self.talks[b].append((a, traffic * weights.communication, False))
        self.group: list[tuple[int, ...]] = [() for _ in demand.needs]
        for members in demand.replicas.values():
            for n in members:
                self.group[n] = tuple(other for other in members if other != n)
        self.choices = [nodes.of_classes(tuple(s is not None for s in need.shares)) for need in demand.needs]
        survivors = where.keys() - set(free_ones)
        for n, node in where.items():
            if n not in survivors:
                self._put(self.needs[n], node, 1)
        self.excess = sum(self._excess(node) for node in {where[n] for n in free_ones})

    def run(self, schedule: Schedule) -> Annealed:
        cost, best, best_where = 0.0, 0.0, dict(self.where)  # relative to the start
        per_plateau = max(40, schedule.plateau * len(self.movable))
        first = temperature = self._typical_change()
        if self.excess:  # hot enough to shuffle what does not fit, and then through the schedule
            temperature = max(first, EXCESS_PRICE * self.excess / PARTS)
        idle = plateaus = proposals = accepted = 0
        stopped = "the schedule ended"
        while temperature >= first * COLDEST or plateaus == 0:
            before, uphill = best, 0
            for _ in range(min(per_plateau, schedule.most_proposals - proposals)):
                change = self._propose(temperature)
                proposals += 1
                if change is not None:
                    accepted += 1
                    uphill += change > 1e-12
                    cost += change
                    if cost < best - 1e-9:
                        best = cost
                        best_where = self.where.copy()
            plateaus += 1
            if proposals >= schedule.most_proposals:
                stopped = "as many proposals as were allowed"
                break
            idle = idle + 1 if best == before and uphill <= FROZEN * per_plateau else 0
            if schedule.patience and idle >= schedule.patience and not self.excess:
                stopped = f"frozen for {idle} plateaus"
                break
            temperature *= schedule.cooling
        left = min(schedule.quench * len(self.movable), schedule.most_proposals - proposals)
        return Annealed(self._quenched(best_where, left), proposals + left, accepted, plateaus, stopped)

    def _quenched(self, best_where: dict[int, int], proposals: int) -> dict[int, int]:
        """Return what becomes of the best placement if only what lowers the cost is accepted from there on."""
        for i in self.movable:
            if self.where[i] != best_where[i]:
                self._move(i, best_where[i])
        self.excess = sum(self._excess(node) for node in {self.where[i] for i in self.movable})
        for _ in range(proposals):
            self._propose(0.0)
        return self.where

    def _typical_change(self) -> float:
        sizes = []
        for _ in range(max(20, len(self.movable))):
            i = self.movable[int(self.rng.random() * len(self.movable))]
            sizes.append(abs(self._change(i, self._target(i))))
        changes = [s for s in sizes if s > 0]
        return sum(changes) / len(changes) if changes else 1e-6

    def _propose(self, temperature: float) -> float | None:
        """Try one move or swap; returns the change of cost if it was made."""
        rng = self.rng
        i = self.movable[int(rng.random() * len(self.movable))]
        if rng.random() < SWAPS:
            return self._swap(i, self.movable[int(rng.random() * len(self.movable))], temperature)
        target = self._target(i)
        if target == self.where[i] or not self._allowed(i, target):
            return None
        change = self._change(i, target)
        fits = self._room(self.needs[i], target)
        if not fits or self.excess:
            if not self.excess:
                return None
            change += self._excess_change(i, target) * EXCESS_PRICE / PARTS
        if change > 0 and (temperature <= 0 or rng.random() >= math.exp(-change / temperature)):
            return None
        if self.excess:
            self.excess += self._excess_change(i, target)
        self._move(i, target)
        return change

    def _swap(self, i: int, j: int, temperature: float) -> float | None:
        here, there = self.where[i], self.where[j]
        needs = self.needs
        if (here == there or needs[i].shares[self.class_of[there]] is None
                or needs[j].shares[self.class_of[here]] is None):
            return None
        before = self._excess(here) + self._excess(there)
        change = self._change(i, there)
        self._move(i, there)
        change += self._change(j, here)
        self._move(j, here)
        grown = self._excess(here) + self._excess(there) - before
        change += grown * EXCESS_PRICE / PARTS
        if (self._allowed(i, there) and self._allowed(j, here) and grown <= 0
                and (change <= 0 or (temperature > 0 and self.rng.random() < math.exp(-change / temperature)))):
            self.excess += grown
            return change
        self._move(j, there)
        self._move(i, here)
        return None

    def _target(self, i: int) -> int:
        rng = self.rng
        talks = self.talks[i]
        if talks and rng.random() < NEAR:
            near = self.where[talks[int(rng.random() * len(talks))][0]]
            if rng.random() < 0.5:
                target = near
            else:
                server = self.nodes.server_of[near]
                if rng.random() < 0.5:  # a server of the same rack, as often as not next door
                    server = self.nodes.neighbour(server, int(rng.random() * 1000))
                members = self.nodes.servers[server][1]
                target = members[int(rng.random() * len(members))]
            if self.needs[i].shares[self.class_of[target]] is not None:
                return target
        choices = self.choices[i]
        return choices[int(rng.random() * len(choices))]

    def _allowed(self, i: int, target: int) -> bool:
        if target in self.down or target in self.needs[i].forbidden:
            return False
        if self.group[i]:
            server_of = self.nodes.server_of
            return all(server_of[self.where[other]] != server_of[target] for other in self.group[i])
        return True

    def _room(self, need: Need, node: int) -> bool:
        m, d, c, n, o = need.shares[self.class_of[node]]  # type: ignore[misc]
        fm, fd, fc, fn, fo = self.free[node]
        return bool(m <= fm and d <= fd and c <= fc and n <= fn and o <= fo)

    def _change(self, i: int, target: int) -> float:
        """Return by how much the cost changes if instance `i` moves to `target`, apart from what does not fit."""
        here = self.where[i]
        if here == target:
            return 0.0
        need = self.needs[i]
        a, b = self.class_of[here], self.class_of[target]
        w, v = need.weights[a], need.weights[b]
        change = v * self.heft[target] * self.inverse_cores[b] - w * (self.heft[here] - w) * self.inverse_cores[a]
        old, new = need.shares[a], need.shares[b]
        change += self.weights.load * (new[Resource.CPU] - old[Resource.CPU]) / PARTS  # type: ignore[index]
        steps, where = self.steps, self.where
        for other, traffic, sends in self.talks[i]:
            there = where[other]
            if sends:
                change += traffic * (steps(target, there) - steps(here, there))
            else:
                change += traffic * (steps(there, target) - steps(there, here))
        if self.group[i]:
            change += self.weights.same_rack * self._rack_change(i, here, target)
        return change

    def _rack_change(self, i: int, here: int, target: int) -> int:
        spots = self.nodes.spots
        old, new = spots[here].rack, spots[target].rack
        primary = self.needs[i].primary
        partners = [primary] if primary >= 0 else list(self.group[i])
        return sum((spots[self.where[p]].rack == new) - (spots[self.where[p]].rack == old) for p in partners)

    def _move(self, i: int, target: int) -> None:
        need = self.needs[i]
        self._put(need, self.where[i], -1)
        self._put(need, target, 1)
        self.where[i] = target

    def _put(self, need: Need, node: int, sign: int) -> None:
        c = self.class_of[node]
        m, d, cpu, n, o = need.shares[c]  # type: ignore[misc]
        fm, fd, fc, fn, fo = self.free[node]
        self.free[node] = (fm - sign * m, fd - sign * d, fc - sign * cpu, fn - sign * n, fo - sign * o)
        self.heft[node] += sign * need.weights[c]

    def _excess(self, node: int) -> int:
        return -sum(f for f in self.free[node] if f < 0)

    def _excess_change(self, i: int, target: int) -> int:
        here = self.where[i]
        before = self._excess(here) + self._excess(target)
        need = self.needs[i]
        self._put(need, here, -1)
        self._put(need, target, 1)
        after = self._excess(here) + self._excess(target)
        self._put(need, target, -1)
        self._put(need, here, 1)
        return after - before
