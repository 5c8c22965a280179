"""An application with a place for each of its instances: what every node and client is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from microservices.application import Application, Channel, Stage
from microservices.errors import ServiceError, StateError
from microservices.service import new_service
from nodes.errors import NodeError
from topologies.inventory import Inventory


class Place(msgspec.Struct, frozen=True):
    """Where instance `number` runs, by the decision `epoch`: 1 where it was deployed, later ones of migrations."""

    number: int
    node: str
    ip: str
    epoch: int = 1


class _Stage(msgspec.Struct, frozen=True):
    name: str
    service: str
    shards: int
    backups: int
    options: dict[str, Any]


class Deployment(msgspec.Struct, frozen=True):
    """A placed application in a form that travels. Make it with `deploy`; `application` gives the graph back.

    The instances `replicated` begin where their place is, if it is alive, and go where the controller's views say.
    Decisions before `since` were on an application that has been withdrawn: this one has nothing of it.
    """

    name: str
    number: int
    stages: tuple[_Stage, ...]
    channels: tuple[Channel, ...]
    places: tuple[Place, ...]
    replicated: tuple[int, ...] = ()
    since: int = 1

    def application(self) -> Application:
        stages = tuple(Stage(s.name, s.service, s.shards, s.backups, s.options) for s in self.stages)
        return Application(self.name, self.number, stages, self.channels)

    def place(self, number: int) -> Place:
        for place in self.places:
            if place.number == number:
                return place
        raise NodeError(f"{self.name} has no instance {number}; there are {len(self.places)}")


def deploy(application: Application, nodes: Mapping[int, str], inventory: Inventory,
           replicate: bool = False) -> Deployment:
    """Place each primary of `application` on the node that `nodes` names for its number.

    With `replicate`, instances of stages with backups have one, which the resource controller places. Raises NodeError
    for an instance without a node or that cannot be replicated, TopologyError for a node that is not there.
    """
    places, replicated = [], []
    for instance in application.instances:
        if instance.backup:
            continue  # the resource controller's to place
        if instance.number not in nodes:
            raise NodeError(f"{application.name}: no node for {instance.name}")
        entry = inventory.node(nodes[instance.number])
        if entry.role not in ("host", "smartnic"):
            raise NodeError(f"{application.name}: {instance.name} cannot run on {entry.name}, a {entry.role}")
        places.append(Place(instance.number, entry.name, entry.ip))
        stage = application.stage(instance.stage)
        if replicate and stage.backups:
            try:
                new_service(stage.service, **stage.options).new_state().start_changes()
            except (ServiceError, StateError) as error:
                raise NodeError(f"{application.name}: {instance.name} cannot be replicated: {error}") from error
            replicated.append(instance.number)
    stages = tuple(_Stage(s.name, s.service, s.shards, s.backups, dict(s.options)) for s in application.stages)
    return Deployment(application.name, application.number, stages, application.channels, tuple(places),
                      tuple(replicated))
