"""Asking for a placement: one call for all algorithms, and for what happens later to a cluster that lives.

    state = ClusterState(cluster)
    placed = place(demand_of(application, rps, state.nodes), state, "hcm")    # deployed onto what is there
    placed.node_names(state)                                                  # {instance number: node name}, for deploy
    state.fail("s1n1"); replace_lost(state, "hcm")                            # only what was there moves
    state.remove(application.name)                                            # gives everything back
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.errors import PlacementError
from controller.placement.annealing import Schedule, anneal
from controller.placement.compute_nodes import HARD
from controller.placement.constraints import ClusterState
from controller.placement.cost import SERVICE_FABRIC, Weights
from controller.placement.demand import Demand
from controller.placement.diagnosis import Violation, refusal, violations
from controller.placement.hcm import hcm
from controller.placement.ilp import TIME_LIMIT_S, solve
from controller.placement.ilp_communication import solve_with_communication

ALGORITHMS = ("hcm", "annealing", "ilp")


@dataclass(frozen=True, slots=True)
class Options:
    """How to place. `weights` are annealing's and the integer program's; HCM has none.

    `overload` accepts what overcommits rates (CPU, network, outstanding requests): HCM then answers with the node
    closest to the constraints, where otherwise the application is refused.
    """

    weights: Weights = SERVICE_FABRIC
    seed: int = 1
    time_limit_s: float = TIME_LIMIT_S
    schedule: Schedule = field(default_factory=Schedule)
    overload: bool = False


DEFAULT_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each instance runs (node indexes), which of them are new there, and what the algorithm says of itself."""

    demand: Demand
    algorithm: str
    where: Mapping[int, int]
    new: frozenset[int]
    notes: Mapping[str, object]
    overcommitted: tuple[Violation, ...] = ()

    def node_names(self, state: ClusterState) -> dict[int, str]:
        """Return {instance number: node name}, of backups too; `nodes.deployment.deploy` takes it."""
        return {n: state.nodes.nodes[node].name for n, node in sorted(self.where.items())}


def place(demand: Demand, state: ClusterState, algorithm: str = "hcm", options: Options = DEFAULT_OPTIONS,
          key: str = "") -> Placement:
    """Place an application onto what is free now, and note in `state` that it runs.

    Raises PlacementError if it does not fit, naming the tightest constraint; `state` is then as it was.
    """
    key = key or demand.name
    if key in state.placed:
        raise PlacementError(f"{key!r} is placed already; remove it first, or give this one another key")
    return _placed(demand, state, {}, algorithm, options, key)


def replace_lost(state: ClusterState, algorithm: str = "hcm",
                 options: Options = DEFAULT_OPTIONS) -> dict[str, Placement]:
    """Place anew, application by application, what runs on nodes that are down; all else stays where it is.

    Returns the new placements of the applications that lost something. Raises PlacementError at the first that does not
    fit; it then stays as it is, on its dead nodes, and those before it are placed.
    """
    changed = {}
    for key, old in list(state.placed.items()):
        survivors = {n: node for n, node in old.where.items() if node not in state.down}
        if len(survivors) == len(old.where):
            continue
        del state.placed[key]
        lost = [(old.demand.needs[n], node) for n, node in old.where.items() if n not in survivors]
        for need, node in lost:
            state.give_back(need, node)
        try:
            changed[key] = _placed(old.demand, state, survivors, algorithm, options, key)
        except PlacementError:
            for need, node in lost:
                state.take(need, node)
            state.note(old.demand, old.where, key)
            raise
    return changed


def _placed(demand: Demand, state: ClusterState, survivors: Mapping[int, int], algorithm: str, options: Options,
            key: str) -> Placement:
    where, notes, taken = _answer(demand, state, survivors, algorithm, options)
    found: list[Violation] = []
    if len(where) == len(demand.needs):
        if not taken:
            for n, node in where.items():
                if n not in survivors:
                    state.take(demand.needs[n], node)
        found = violations(demand, where, state)
        if not found or (options.overload and not any(v.resource in HARD or v.resource is None for v in found)):
            state.note(demand, where, key)
            return Placement(demand, algorithm, where, frozenset(where.keys() - survivors.keys()), notes, tuple(found))
        taken = True
    if taken:
        for n, node in where.items():
            if n not in survivors:
                state.give_back(demand.needs[n], node)
    raise refusal(demand, state, survivors, algorithm, str(notes.get("ended", "")))


def _answer(demand: Demand, state: ClusterState, survivors: Mapping[int, int], algorithm: str,
            options: Options) -> tuple[dict[int, int], dict[str, object], bool]:
    """Return where an algorithm would place everything, what it says of itself, and whether it has taken it."""
    if algorithm == "hcm":
        return hcm(demand, state, survivors), {}, True
    if algorithm == "annealing":
        done = anneal(demand, state, survivors, options.weights, options.seed, options.schedule)
        return done.where, {"proposals": done.proposals, "accepted": done.accepted, "plateaus": done.plateaus,
                            "stopped": done.stopped}, False
    if algorithm == "ilp":
        integer_program = solve_with_communication if options.weights.communication > 0 else solve
        solved = integer_program(demand, state, survivors, options.weights, options.seed, options.time_limit_s)
        return solved.where, {"method": solved.method, "ended": solved.ended, "gap": solved.gap, "bound": solved.bound,
                              "time_limit_s": options.time_limit_s}, False
    raise PlacementError(f"unknown algorithm {algorithm!r}; there are {', '.join(ALGORITHMS)}")
