"""A plain reading of Algorithm 1, against which the fast one is held: lists, scans, and nothing remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controller.placement.constraints import ClusterState
from controller.placement.demand import Demand, Need
from topologies.distance import Level, level_between


class Reference:
    """T: the nodes in their order, and what is free on each; taken from a state, which it leaves alone."""

    def __init__(self, state: ClusterState) -> None:
        self.nodes = state.nodes.nodes
        self.free = [list(free) for free in state.free]
        self.up = [node.index for node in self.nodes if node.index not in state.down]

    def ms_dag_traverse(self, demand: Demand, survivors: Mapping[int, int], literally: bool = False) -> dict[int, int]:
        """Lines 4 to 15. `literally`: place a descendant again from every ancestor, as lines 12 to 15 stand."""
        deployed = dict(survivors)
        queue = list(demand.sources)
        seen = set(demand.sources)
        while queue:
            v = queue.pop(0)
            if v not in deployed:
                self._set(demand.needs[v], self.find_first_fit(demand, demand.needs[v], deployed), deployed)
            for w in demand.successors[v]:
                if literally and w in deployed:
                    self._unset(demand.needs[w], deployed)
                elif w in seen:
                    continue
                if w not in deployed:
                    self._set(demand.needs[w], self.ms_place(demand, demand.needs[w], deployed.get(v), deployed),
                              deployed)
                seen.add(w)
                queue.append(w)
        for need in demand.needs:
            if need.primary >= 0 and need.number not in deployed:
                self._set(need, self.place_backup(demand, need, deployed), deployed)
        return deployed

    def ms_place(self, demand: Demand, v: Need, n: int | None, deployed: Mapping[int, int]) -> int | None:
        """Lines 20 to 26."""
        if n is not None:
            for level in Level:
                found = self.find_best_fit(demand, v, self.at_level(n, level), deployed)
                if found is not None:
                    return found
        return self.find_first_fit(demand, v, deployed)

    def place_backup(self, demand: Demand, v: Need, deployed: Mapping[int, int]) -> int | None:
        n = deployed.get(v.primary)
        if n is not None:
            for level in [*Level][4:] + [*Level][2:4]:
                found = self.find_best_fit(demand, v, self.at_level(n, level), deployed)
                if found is not None:
                    return found
        return self.find_first_fit(demand, v, deployed)

    def at_level(self, n: int, level: Level) -> list[int]:
        return [m for m in self.up if level_between(self.nodes[n].spot, self.nodes[m].spot) == level]

    def find_first_fit(self, demand: Demand, v: Need, deployed: Mapping[int, int]) -> int | None:
        for n in self.up:
            if self.may_run(demand, v, n, deployed) and self.has_room(v, n):
                return n
        can_hold = [n for n in self.up if self.may_run(demand, v, n, deployed)
                    and all(self.left(v, n)[r] >= 0 for r in (0, 1))]
        return self._least(can_hold, lambda n: sum(max(0, -left) for left in self.left(v, n)[2:]))

    def find_best_fit(self, demand: Demand, v: Need, candidates: list[int], deployed: Mapping[int, int]) -> int | None:
        fitting = [n for n in candidates if self.may_run(demand, v, n, deployed) and self.has_room(v, n)]
        return self._least(fitting, lambda n: sum(self.left(v, n)))

    def may_run(self, demand: Demand, v: Need, n: int, deployed: Mapping[int, int]) -> bool:
        if v.shares[self.nodes[n].class_index] is None or n in v.forbidden:
            return False
        spot = self.nodes[n].spot
        for other in demand.needs:
            same_shard = v.number in (other.number, other.primary) or other.number == v.primary or (
                v.primary >= 0 and other.primary == v.primary)
            if same_shard and other.number != v.number and other.number in deployed:
                theirs = self.nodes[deployed[other.number]].spot
                if (theirs.rack, theirs.server) == (spot.rack, spot.server):
                    return False
        return True

    def left(self, v: Need, n: int) -> list[int]:
        share = v.shares[self.nodes[n].class_index]
        assert share is not None
        return [have - takes for have, takes in zip(self.free[n], share, strict=True)]

    def has_room(self, v: Need, n: int) -> bool:
        return all(left >= 0 for left in self.left(v, n))

    @staticmethod
    def _least(candidates: list[int], key: Callable[[int], int]) -> int | None:
        return min(candidates, key=lambda n: (key(n), n), default=None)

    def _set(self, v: Need, n: int | None, deployed: dict[int, int]) -> None:
        if n is not None:
            deployed[v.number] = n
            self.free[n] = self.left(v, n)

    def _unset(self, v: Need, deployed: dict[int, int]) -> None:
        n = deployed.pop(v.number)
        share = v.shares[self.nodes[n].class_index]
        assert share is not None
        self.free[n] = [have + takes for have, takes in zip(self.free[n], share, strict=True)]
