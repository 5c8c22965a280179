"""A mixed-integer linear program in the making, and HiGHS to solve it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

OPTIMAL, LIMIT, INFEASIBLE = 0, 1, 2  # scipy's words for how it ended
RELATIVE_GAP = 1e-7


@dataclass(frozen=True, slots=True)
class Solution:
    """How solving ended. `values` is empty if nothing feasible was found; `bound` is what no solution can undercut."""

    status: int
    values: tuple[float, ...]
    bound: float


class IntegerProgram:
    """Columns with costs and rows between limits; minimised."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.constant = 0.0
        self._upper: list[float] = []
        self._integer: list[int] = []
        self._entries: tuple[list[int], list[int], list[float]] = ([], [], [])
        self._least: list[float] = []
        self._most: list[float] = []

    def column(self, cost: float, upper: float, integer: bool = False) -> int:
        """Add a variable from 0 to `upper`; returns its number."""
        self.costs.append(cost)
        self._upper.append(upper)
        self._integer.append(int(integer))
        return len(self.costs) - 1

    def row(self, entries: Iterable[tuple[int, float]], least: float, most: float) -> None:
        """Add least <= sum(factor x column) <= most."""
        rows, columns, factors = self._entries
        number = len(self._least)
        for column, factor in entries:
            rows.append(number)
            columns.append(column)
            factors.append(factor)
        self._least.append(least)
        self._most.append(most)

    def solve(self, time_limit_s: float) -> Solution:
        """Solve until optimal or out of time; the same program is always solved the same way."""
        rows, columns, factors = self._entries
        if not self.costs:  # which scipy would refuse
            empty = all(least <= 0 <= most for least, most in zip(self._least, self._most, strict=True))
            return Solution(OPTIMAL if empty else INFEASIBLE, (), self.constant if empty else math.inf)
        matrix = csr_array((factors, (rows, columns)), shape=(len(self._least), len(self.costs)))
        result = milp(np.array(self.costs), integrality=np.array(self._integer),
                      bounds=Bounds(np.zeros(len(self.costs)), np.array(self._upper)),
                      constraints=LinearConstraint(matrix, np.array(self._least), np.array(self._most)),
                      options={"time_limit": time_limit_s, "mip_rel_gap": RELATIVE_GAP})
        bound = result.get("mip_dual_bound")
        if bound is None or not math.isfinite(bound):
            bound = result.fun if result.status == OPTIMAL else -math.inf
        values = () if result.x is None else tuple(float(v) for v in result.x)
        return Solution(int(result.status), values, bound + self.constant)
