"""What is wrong with a placement, and why an application does not fit: the tightest constraint, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.errors import PlacementError
from controller.placement.compute_nodes import UNITS, Resource
from controller.placement.constraints import ClusterState
from controller.placement.demand import PARTS, Demand, Need
from controller.placement.hcm import hcm


@dataclass(frozen=True, slots=True)
class Violation:
    """A constraint that a placement breaks. `resource` is None where something may not run there at all."""

    node: str
    resource: Resource | None
    words: str


def violations(demand: Demand, where: Mapping[int, int], state: ClusterState) -> list[Violation]:
    """Return what is wrong with a placement that `state` has taken: too little of something, or a place not allowed."""
    nodes = state.nodes
    found = []
    for need in demand.needs:
        node = where[need.number]
        name = nodes.nodes[node].name
        kind = nodes.classes[nodes.class_of[node]]
        if need.shares[nodes.class_of[node]] is None:
            found.append(Violation(name, None, f"{need.name} may not run on a {kind.role}"))
        if node in need.forbidden:
            found.append(Violation(name, None, f"{need.name} is forbidden on {name}"))
        if node in state.down:
            found.append(Violation(name, None, f"{name} is down"))
        elif nodes.server_of[node] in state.replica_servers(demand, need, where):
            found.append(Violation(name, None, f"{need.name} shares the fault domain of {name} with its replica"))
    for node in dict.fromkeys(where.values()):
        if node in state.down:
            continue
        capacity = nodes.classes[nodes.class_of[node]].capacity
        for r in Resource:
            free = state.free[node][r]
            if free < 0:
                over = f"{-free / PARTS * capacity[r]:.3g} {UNITS[r]} more than its {capacity[r]:g}"
                found.append(Violation(nodes.nodes[node].name, r, f"{r.phrase} of {nodes.nodes[node].name}: {over}"))
    return found


def refusal(demand: Demand, state: ClusterState, survivors: Mapping[int, int], algorithm: str,
            said: str) -> PlacementError:
    """Return the error for an application that does not fit, with the tightest constraint of what fits nowhere.

    Tightest is the constraint that most nodes fail; of equals, the resource that even the best node lacks most of.
    HCM shows which instance it is: the first that it finds no place for.
    """
    where = hcm(demand, state, survivors)
    for n, node in where.items():
        if n not in survivors:
            state.give_back(demand.needs[n], node)
    before: dict[int, int] = dict(survivors)
    stuck: Need | None = None
    for n, node in where.items():  # in the order in which HCM placed them
        if n in survivors:
            continue
        if not state.fits(demand.needs[n], node):
            stuck = demand.needs[n]
            break
        state.take(demand.needs[n], node)
        before[n] = node
    try:
        if stuck is None:
            stuck = next((need for need in demand.needs if need.number not in where), None)
        if stuck is None:  # the algorithm found no place where HCM does
            return PlacementError(f"{algorithm} found no place for {demand.name} (hcm does){': ' * bool(said)}{said}")
        return PlacementError(f"{demand.name} does not fit: {tightest(demand, stuck, state, before)}")
    finally:
        for n, node in before.items():
            if n not in survivors:
                state.give_back(demand.needs[n], node)


def tightest(demand: Demand, need: Need, state: ClusterState, where: Mapping[int, int]) -> str:
    """Return, in words, the constraint that keeps `need` from most nodes, given what is placed already."""
    nodes = state.nodes
    closed = state.replica_servers(demand, need, where)
    failing: dict[str, int] = {}
    best: dict[Resource, tuple[float, int]] = {}
    for node in range(len(nodes)):
        share = need.shares[nodes.class_of[node]]
        for cause, holds in (("failed nodes", node in state.down), ("pinning", share is None),
                             ("forbidden nodes", node in need.forbidden),
                             ("fault domains", nodes.server_of[node] in closed)):
            if holds:
                failing[cause] = failing.get(cause, 0) + 1
        if share is None or node in state.down:
            continue
        for r in Resource:
            if share[r] > state.free[node][r]:
                failing[r.phrase] = failing.get(r.phrase, 0) + 1
                lacking = (share[r] - state.free[node][r]) / PARTS
                if r not in best or lacking < best[r][0]:
                    best[r] = lacking, node
    if not failing:
        return f"{need.name} fits on every node by itself"
    lacks = {r.phrase: lacking for r, (lacking, _) in best.items()}
    name = max(failing, key=lambda cause: (failing[cause], lacks.get(cause, 0.0)))
    others = ", ".join(f"{cause} {count}" for cause, count in sorted(failing.items()) if cause != name)
    text = (f"{need.name} finds no node; the tightest constraint is {name}, which {failing[name]} of {len(nodes)} "
            "nodes fail")
    for r, (_, node) in best.items():
        if r.phrase == name:
            capacity = nodes.classes[nodes.class_of[node]].capacity[r]
            share = need.shares[nodes.class_of[node]]
            assert share is not None
            have = max(0.0, state.free[node][r] / PARTS * capacity)
            asked = share[r] / PARTS * capacity
            if capacity <= 0:
                return f"{text}: {nodes.nodes[node].name}, like all others, has none"
            text += (f": it needs {_amount(asked)} {UNITS[r]}, and {nodes.nodes[node].name}, the nearest to that, has "
                     f"{_amount(have)} of {_amount(capacity)} free")
    return text + (f" (others: {others})" if others else "")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
