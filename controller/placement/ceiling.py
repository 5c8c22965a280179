"""How many requests per second a cluster could serve at best, if work could be split at will: a linear program.

It bounds what any placement can carry, and gives commands a rate to place for where the user names none.
"""

from __future__ import annotations

from math import inf

import numpy as np
from scipy.optimize import linprog

from controller.errors import PlacementError
from controller.placement.compute_nodes import Resource
from controller.placement.constraints import ClusterState
from controller.placement.demand import PARTS, demand_of
from controller.placement.profile_costs import DEFAULT_COSTS, Costs
from microservices.application import Application

_PROBE_RPS = 1000.0  # needs are in proportion to the rate, so any will do


def ceiling_rps(application: Application, state: ClusterState, costs: Costs = DEFAULT_COSTS,
                split: bool = False) -> float:
    """Return the rate at which the rates of all nodes (CPU, network, outstanding requests) would be full.

    An instance is in one node, so a rate at which one instance fills the node best for it is a bound, too, unless
    they may be `split`, as many copies of the application are.
    Raises PlacementError for an application that takes nothing of any node, so that nothing bounds it.
    """
    demand = demand_of(application, _PROBE_RPS, state.nodes, backups=False, costs=costs)
    classes = range(len(state.nodes.classes))
    free = [[sum(max(0, state.free[n][r]) for n in state.nodes.of_class[c]) / PARTS for r in Resource] for c in classes]
    stages = list(dict.fromkeys(need.stage for need in demand.needs))
    columns = [(s, c) for s in range(len(stages)) for c in classes]
    per_stage = {stage: [need for need in demand.needs if need.stage == stage] for stage in stages}
    upper, limits = [], []
    for c in classes:
        for r in (Resource.CPU, Resource.NETWORK, Resource.OUTSTANDING):
            row = np.zeros(len(columns) + 1)
            for i, (s, c2) in enumerate(columns):
                share = per_stage[stages[s]][0].shares[c]
                if c2 == c and share is not None:
                    row[i] = share[r] * len(per_stage[stages[s]]) / PARTS
            if row.any():
                upper.append(row)
                limits.append(free[c][r])
    equal = np.zeros((len(stages), len(columns) + 1))
    for i, (s, c) in enumerate(columns):
        equal[s, i] = float(per_stage[stages[s]][0].shares[c] is not None)
    equal[:, -1] = -1.0  # every stage handles the whole rate, in units of the probe
    if not upper:
        raise PlacementError(f"{application.name} takes no time on any node, so no rate is too high for it: name one")
    alone = [max(1 / most if (most := max(share[Resource.CPU:]) / PARTS) else inf
                 for share in needs[0].shares if share is not None) for needs in per_stage.values()]
    objective = np.zeros(len(columns) + 1)
    objective[-1] = -1.0
    result = linprog(objective, A_ub=np.array(upper), b_ub=np.array(limits), A_eq=equal, b_eq=np.zeros(len(stages)))
    if result.status != 0:
        raise PlacementError(f"{application.name}: nothing bounds its rate on {state.nodes.cluster.name}: name one")
    return (float(result.x[-1]) if split else min(float(result.x[-1]), *alone)) * _PROBE_RPS
