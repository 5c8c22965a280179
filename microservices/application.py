"""An application: a directed acyclic graph of microservices joined by channels (paper sections 2.1 and 3).

It is written as stages and channels between stages. A stage runs one microservice in `shards` instances, each owning
a part of the keys, and each with `backups` replicas. The graph of instances, which is what placement maps to compute
nodes, follows from that:

    monitor (2 shards) -> nids (2 shards)      monitor-1 -> nids-1    keyed: every shard may send to every shard
                                               monitor-1 -> nids-2    aligned: both stages shard by the same key, so
                                               monitor-2 -> nids-1    shard i sends to shard i only
                                               monitor-2 -> nids-2

Every request has exactly one reply. It travels along the answering channels, at most one of which leaves each stage,
and where none takes it further the output is the reply. Other channels carry side branches (analytics set off by an
update, say), which end in state and answer nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from microservices.errors import ApplicationError
from microservices.service import is_known
from microservices.sharding import SLOTS

MAX_INSTANCES = 0xFFFF
_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Stage:
    """`shards` instances of one microservice, made with `options`, and `backups` replicas of each."""

    name: str
    service: str
    shards: int = 1
    backups: int = 0
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))
        if not _NAME.fullmatch(self.name):
            raise ApplicationError(f"stage name {self.name!r}; it is lower-case letters, digits and _")
        if not is_known(self.service):
            raise ApplicationError(f"stage {self.name!r}: unknown microservice {self.service!r}")
        if not 1 <= self.shards <= SLOTS:
            raise ApplicationError(f"stage {self.name!r} has {self.shards} shards; the limits are 1 and {SLOTS}")
        if self.backups < 0:
            raise ApplicationError(f"stage {self.name!r} has {self.backups} backups; the least is 0")


@dataclass(frozen=True, slots=True)
class Trigger:
    """Lets a share of the outputs through: those whose hash, under this seed, falls below the threshold.

    It stands for thresholds on values (Figure 1: updates that set off analytics) with a share that a study can choose.
    """

    name: str
    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ApplicationError(f"trigger {self.name!r} lets {self.share} through; the limits are 0 and 1")

    def fires(self, payload: bytes) -> bool:
        digest = blake2b(payload, digest_size=6, key=self.seed.to_bytes(8, "big", signed=True)).digest()
        return int.from_bytes(digest, "big") < self.share * 2.0**48


@dataclass(frozen=True, slots=True)
class Channel:
    """Outputs of `source` become requests of `target`."""

    source: str
    target: str
    aligned: bool = False
    answers: bool = True
    trigger: Trigger | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One node of the graph. `number` is its name on the wire; `backup` is 0 for a primary, else which replica."""

    number: int
    name: str
    stage: str
    service: str
    shard: int
    backup: int = 0


@dataclass(frozen=True, slots=True)
class Application:
    """A named graph, checked when made; raises ApplicationError. `number` is unique in a testbed."""

    name: str
    number: int
    stages: tuple[Stage, ...]
    channels: tuple[Channel, ...]

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        if not names or len(set(names)) != len(names):
            raise ApplicationError(f"{self.name}: stages {names}; names must be distinct and at least one")
        if not 0 <= self.number <= 0xFFFF:
            raise ApplicationError(f"{self.name}: number {self.number}; the limits are 0 and {0xFFFF}")
        count = sum(stage.shards * (1 + stage.backups) for stage in self.stages)
        if count > MAX_INSTANCES:
            raise ApplicationError(f"{self.name}: {count} instances; the limit is {MAX_INSTANCES}")
        self._check_channels()
        self._check_shape()

    def stage(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ApplicationError(f"{self.name}: no stage {name!r}; there are {', '.join(s.name for s in self.stages)}")

    def channels_from(self, stage: str) -> tuple[Channel, ...]:
        return tuple(c for c in self.channels if c.source == stage)

    @property
    def sources(self) -> tuple[str, ...]:
        """Stages that clients send to."""
        targets = {c.target for c in self.channels}
        return tuple(s.name for s in self.stages if s.name not in targets)

    @property
    def sinks(self) -> tuple[str, ...]:
        senders = {c.source for c in self.channels}
        return tuple(s.name for s in self.stages if s.name not in senders)

    @property
    def answering(self) -> frozenset[str]:
        """Stages on a request's way to its reply; the others run on side branches."""
        reached = set(self.sources)
        for stage in self.order():
            if stage in reached:
                reached |= {c.target for c in self.channels_from(stage) if c.answers}
        return frozenset(reached)

    def order(self) -> tuple[str, ...]:
        """Return the stages, every one after those that send to it; raises ApplicationError on a cycle."""
        sorter: TopologicalSorter[str] = TopologicalSorter({s.name: [] for s in self.stages})
        for channel in self.channels:
            sorter.add(channel.target, channel.source)
        try:
            return tuple(sorter.static_order())
        except CycleError as error:
            raise ApplicationError(f"{self.name}: a cycle, {' -> '.join(reversed(error.args[1]))}") from None

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The nodes of the graph: all primaries, stage by stage and shard by shard, then all backups."""
        made: list[Instance] = []
        for backup in range(1 + max(stage.backups for stage in self.stages)):
            for stage in self.stages:
                if backup <= stage.backups:
                    for shard in range(stage.shards):
                        name = f"{stage.name}-{shard + 1}" + (f"b{backup}" if backup else "")
                        made.append(Instance(len(made), name, stage.name, stage.service, shard, backup))
        return tuple(made)

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Return (sender, receiver) numbers of the primaries that may send to each other."""
        first: dict[str, int] = {}
        for instance in self.instances:
            first.setdefault(instance.stage, instance.number)
        found = []
        for c in self.channels:
            for shard in range(self.stage(c.source).shards):
                for other in (shard,) if c.aligned else range(self.stage(c.target).shards):
                    found.append((first[c.source] + shard, first[c.target] + other))
        return tuple(found)

    def fan_outs(self) -> dict[int, int]:
        """Return how many instances each primary may send to, for those that send at all."""
        counts: dict[int, int] = {}
        for sender, _ in self.edges:
            counts[sender] = counts.get(sender, 0) + 1
        return counts

    def _check_channels(self) -> None:
        seen = set()
        for c in self.channels:
            source, target = self.stage(c.source), self.stage(c.target)
            if (c.source, c.target) in seen:
                raise ApplicationError(f"{self.name}: more than one channel {c.source} -> {c.target}")
            seen.add((c.source, c.target))
            if c.aligned and source.shards != target.shards:
                raise ApplicationError(f"{self.name}: aligned channel {c.source} -> {c.target} joins {source.shards} "
                                       f"shards to {target.shards}; they must be as many")
        for stage in self.stages:
            answering = [c.target for c in self.channels_from(stage.name) if c.answers]
            if len(answering) > 1:
                raise ApplicationError(f"{self.name}: {stage.name} answers through {' and '.join(answering)}; "
                                       "a request has one reply, so all but one must be answers=False")

    def _check_shape(self) -> None:
        self.order()
        joined, frontier = {self.stages[0].name}, [self.stages[0].name]
        while frontier:
            here = frontier.pop()
            near = {c.target for c in self.channels if c.source == here}
            near |= {c.source for c in self.channels if c.target == here}
            frontier += near - joined
            joined |= near
        if len(joined) != len(self.stages):
            apart = [s.name for s in self.stages if s.name not in joined]
            raise ApplicationError(f"{self.name}: no channel joins {', '.join(apart)} to the rest")
        answering = self.answering
        for c in self.channels:
            if c.target in answering and not (c.answers and c.source in answering):
                raise ApplicationError(f"{self.name}: side channel {c.source} -> {c.target} leads back to the stages "
                                       "that answer, so a request could have two replies")
