"""Applications that come onto a running rack and go from it, told from whichever process."""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec.structs import replace

from controller.control_client import ControllerClient
from controller.controller_events import WithdrawalState
from experiments.emulation.control_plane import ControlPlane
from experiments.emulation.first_placement import place_in_turn
from experiments.errors import ExperimentError
from microservices.application import Application
from nodes.deployment import Deployment, deploy
from topologies.inventory import Inventory, NodeEntry

GONE = "withdrawn"
LOOK_AGAIN_S = 0.02
WITHIN_S = 60.0  # real, and so many emulated ones beside: more than all its steps have together
WITHIN_EMULATED_S = 20.0


def tell(plane: ControlPlane, nodes: Iterable[NodeEntry], deployment: Deployment,
         resource: ControllerClient | None) -> Deployment:
    """Let `nodes` run and know a deployment, and then the controller; return it with the decision that it is now by.

    Raises ExperimentError, naming them, for nodes that refuse or do not answer, MigrationError for an application that
    is being withdrawn.
    """
    if resource is not None:
        deployment = decided_from(deployment, resource.first_epoch(deployment.number))
    nodes = list(nodes)
    answers = plane.deploy(nodes, deployment)
    bad = {node.name: answers.get(node.name, "no answer") for node in nodes if answers.get(node.name, "?")}
    if bad:
        raise ExperimentError(f"{deployment.name} is not deployed everywhere: "
                              + "; ".join(f"{name}: {why}" for name, why in bad.items()))
    if resource is not None:
        resource.deployed(deployment)
    return deployment


def decided_from(deployment: Deployment, first: int) -> Deployment:
    """Return a deployment of an application whose first decision is `first`: its instances stand where they do by that
    or a later one."""
    return replace(deployment, since=first, places=tuple(replace(place, epoch=max(place.epoch, first))
                                                         for place in deployment.places))


def placed_beside(application: Application, inventory: Inventory, present: Iterable[Deployment]) -> Deployment:
    """Place an application in turn; raises ExperimentError for the name or number of one that is deployed."""
    for other in present:
        if other.name == application.name or other.number == application.number:
            raise ExperimentError(f"{other.name} is deployed already" if other.name == application.name else
                                  f"{application.name} has number {application.number}, as {other.name} has, which is "
                                  "deployed")
    return deploy(application, place_in_turn(application, inventory), inventory)


def withdrawn(resource: ControllerClient, name: str, time_scale: float) -> WithdrawalState:
    """Withdraw an application and return how that ended: whoever is there has nothing of it any more.

    Raises MigrationError if there is none, ExperimentError if it takes longer than WITHIN_S and WITHIN_EMULATED_S.
    """
    deadline = time.monotonic() + WITHIN_S + WITHIN_EMULATED_S * time_scale
    found = resource.withdraw(name)
    while found.state != GONE:
        if time.monotonic() > deadline:
            raise ExperimentError(f"{name} is not withdrawn yet, it is {found.state}"
                                  + (f": {', '.join(found.owed)} have not answered" if found.owed else ""))
        time.sleep(LOOK_AGAIN_S)
        found = next((w for w in resource.state().withdrawals if w.name == name), found)
    return found


def said_of(state: WithdrawalState) -> str:
    """Return how a withdrawal ended, as a sentence."""
    away = f"; {', '.join(state.owed)}, away now, will be told when back" if state.owed else ""
    return f"{state.name} is withdrawn, with {state.dropped} requests and messages dropped{away}"
