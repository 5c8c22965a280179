"""Which instances run where, and where each sends its output: what a runtime needs to know of an application."""

from __future__ import annotations

from typing import Any

import msgspec


class Instance(msgspec.Struct, frozen=True):
    """One node of an application's graph, placed. `number` is what the wire calls it."""

    number: int
    name: str
    stage: str
    node: str
    ip: str


class Stage(msgspec.Struct, frozen=True):
    """All shards of one microservice: `shards` are instance numbers, `successors` stages."""

    name: str
    service: str
    options: dict[str, Any]
    shards: tuple[int, ...]
    successors: tuple[str, ...]


class Deployment(msgspec.Struct, frozen=True):
    """An application as placed. `number` is what the wire calls it, unique in a testbed."""

    number: int
    application: str
    stages: tuple[Stage, ...]
    instances: tuple[Instance, ...]

    @property
    def source(self) -> Stage:
        """The stage that no other leads to: where clients send their requests."""
        led_to = {name for stage in self.stages for name in stage.successors}
        return next(stage for stage in self.stages if stage.name not in led_to)

    def instance(self, number: int) -> Instance:
        return next(i for i in self.instances if i.number == number)
