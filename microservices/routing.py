"""Where a request enters an application and where a handler's outputs go next: instance numbers, not addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from microservices.application import Application, Trigger
from microservices.errors import ApplicationError, ServiceError
from microservices.service import REPLY, Microservice, Output, new_service
from microservices.sharding import slot_of, slot_owners

CLIENT = -1


class Hop(NamedTuple):
    """Bytes and the number of the instance they are for, or CLIENT: then they are the request's reply."""

    payload: bytes
    instance: int


class _Way(NamedTuple):
    """One channel as its sender sees it."""

    target: str
    service: Microservice
    first: int
    owners: tuple[int, ...]
    aligned: bool
    answers: bool
    trigger: Trigger | None


class _Place(NamedTuple):
    stage: str
    shard: int
    answering: bool
    ways: tuple[_Way, ...]


class Router:
    """The tables of one application; every compute node and client that knows it has one.

    `services` are the microservices by stage, made anew if not given.
    """

    def __init__(self, application: Application, services: Mapping[str, Microservice] | None = None) -> None:
        self.application = application
        self.services: dict[str, Microservice] = dict(services or services_of(application))
        first: dict[str, int] = {}
        for instance in application.instances:
            first.setdefault(instance.stage, instance.number)
        self._entries = {name: (self.services[name], first[name], slot_owners(application.stage(name).shards))
                         for name in application.sources}
        ways = {stage.name: tuple(
            _Way(c.target, self.services[c.target], first[c.target], slot_owners(application.stage(c.target).shards),
                 c.aligned, c.answers, c.trigger) for c in application.channels_from(stage.name))
            for stage in application.stages}
        answering = application.answering
        self._places = {i.number: _Place(i.stage, i.shard, i.stage in answering, ways[i.stage])
                        for i in application.instances}

    def entry(self, payload: bytes, source: str | None = None) -> int:
        """Return the instance that a client sends `payload` to, at the first source stage if `source` is None."""
        name = self.application.sources[0] if source is None else source
        if name not in self._entries:
            raise ApplicationError(f"{name!r} is not a source; there are {', '.join(self._entries)}")
        service, first, owners = self._entries[name]
        return first + owners[slot_of(service.key_of(payload))]

    def next(self, instance: int, outputs: Sequence[Output]) -> list[Hop]:
        """Return where the outputs of one request go from `instance` (a backup routes like its primary).

        Raises ServiceError if an output names a stage that no channel leads to, or if the outputs do not lead to
        exactly one reply. On a side branch nothing is a reply, and what goes nowhere is over.
        """
        place = self._places[instance]
        hops: list[Hop] = []
        replies = 0
        for payload, to in outputs:
            if to == REPLY:
                hops.append(Hop(payload, CLIENT))
                replies += 1
                continue
            answered = to is not None
            for way in place.ways:
                if to is not None and way.target != to:
                    continue
                answered = answered and not way.answers
                if way.trigger is not None and not way.trigger.fires(payload):
                    continue
                shard = place.shard if way.aligned else way.owners[slot_of(way.service.key_of(payload))]
                hops.append(Hop(payload, way.first + shard))
                if way.answers:
                    answered = True
                    replies += 1
            if to is not None and all(way.target != to for way in place.ways):
                raise ServiceError(f"{place.stage} sends to {to!r}; its channels lead to "
                                   f"{', '.join(way.target for way in place.ways) or 'the client only'}")
            if not answered:
                hops.append(Hop(payload, CLIENT))
                replies += 1
        if not place.answering:
            return [hop for hop in hops if hop.instance != CLIENT]
        if replies != 1:
            raise ServiceError(f"{place.stage} answered one request {replies} times; exactly one output must lead on "
                               "or be the reply")
        return hops


def services_of(application: Application) -> dict[str, Microservice]:
    """Make the microservice of every stage; raises ServiceError."""
    return {stage.name: new_service(stage.service, **stage.options) for stage in application.stages}
