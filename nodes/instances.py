"""What an execution engine keeps of each instance, and what it needs around it: nouns, no decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from microservices.routing import Hop, Router
from microservices.service import Microservice
from microservices.state import State
from nodes.messages import ChannelId, DataMessage
from nodes.origin import Origin
from nodes.transport import Address, Sends

CostModel = Callable[[str, int, Origin], float]  # (microservice, payload bytes, came by) -> seconds on one core


class Outlet(Protocol):
    """Where an engine's messages go that are for elsewhere, and who wants to know what it took: the node's channels."""

    def has_room(self, channel: ChannelId) -> bool: ...

    def offer(self, message: DataMessage, to: Address, now: float, out: Sends) -> None:
        """Send `message` as of `now`, which may be a little in the past: when what it says was ready."""

    def consumed(self, channel: ChannelId, now: float) -> None: ...


class HasInbox(Protocol):
    """What may be too full for who feeds it to go on."""

    @property
    def inbox(self) -> Sized: ...


class RequestLogging(HasInbox, Protocol):
    """What a replicated instance's requests go through on their way out (nodes/request_log.py)."""

    def handled(self, message: DataMessage, hops: list[Hop]) -> list[Hop]:
        """Take down what a handler did and gave; return what stands for that till its finish."""

    def finished(self, serial: bytes, finish: float) -> None:
        """Note that a request's core time is over: what it gave leaves when the backup has its entry."""


@dataclass(frozen=True, slots=True)
class InstanceStatistics:
    """What an instance has done. `busy_s` is core time by the cost model or, where there is none, as measured.

    `waiting` requests are in its inbox, `deepest` was the most; `blocked` counts the times that it had to wait
    for room downstream.
    """

    name: str
    handled: int
    errors: int
    busy_s: float
    waiting: int
    deepest: int
    blocked: int


class Foreseen(NamedTuple):
    """What a handler gave that ran before its request had a core, and when it was through."""

    hops: list[Hop]
    ended: float


class Waiting(NamedTuple):
    """A request in an inbox. `arrived` is emulated time; `channel` is None for one from this node.

    `foreseen` is what its handler gave, where that has run already.
    """

    message: DataMessage
    channel: ChannelId | None
    arrived: float
    origin: Origin
    foreseen: Foreseen | None = None


class HandOver(NamedTuple):
    """A request that one instance gives to another on the same node."""

    message: DataMessage
    foreseen: Foreseen | None


class Executing(NamedTuple):
    """A request on a core, and what its handler gave, which leaves at `finish`.

    `here` is for instances on this node where they compute ahead; `hops` is the rest.
    """

    finish: float
    order: int
    instance: RunningInstance
    message: DataMessage
    hops: list[Hop]
    here: list[HandOver]


class RunningInstance:
    """An instance on this node: its microservice, its state, and what waits for it."""

    __slots__ = ("answering", "blocked", "busy_s", "channels", "deepest", "errors", "executed_s", "foreseen", "halted",
                 "handled", "inbox", "key", "local", "name", "parked", "queued", "ready_at", "replica",
                 "router", "service", "state")

    def __init__(self, key: tuple[int, int], name: str, service: Microservice, router: Router, answering: bool) -> None:
        self.key = key
        self.name = name
        self.service = service
        self.router = router
        self.answering = answering  # on the way to the reply, not on a side branch
        self.state: State = service.new_state()
        self.inbox: deque[Waiting] = deque()
        self.local: list[HasInbox] = []  # successors on this node
        self.replica: RequestLogging | None = None  # None: not replicated
        self.channels: list[ChannelId] = []  # to successors elsewhere
        self.queued = self.parked = False
        self.foreseen = 0  # requests whose handler has run and that have no core yet
        self.halted = False  # about to leave: begins nothing more
        self.ready_at = 0.0  # when it last got room downstream
        self.handled = self.errors = self.deepest = self.blocked = 0
        self.busy_s = 0.0
        self.executed_s = 0.0  # from each request's arrival in the inbox to its finish
