"""The execution engine of one compute node: requests in, microservices run to completion on cores, messages out.

    inbox of each instance --round robin over cores--> handler --at its finish--> successors' inboxes, or channels

Section 3: the engine is work-conserving, runs requests to completion, and steers them to cores round robin.
Instances on one node hand each other work through bounded in-memory queues with many producers and one
consumer (section 4). An instance whose output has nowhere to go does not take its next request, so pressure
travels upstream, to the client at last. Cores are virtual: what a request costs is the driver's to say.
"""

from __future__ import annotations

import heapq
import itertools
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple, Protocol

from microservices.errors import ServiceError
from microservices.routing import CLIENT, Hop, Router
from microservices.service import Microservice, Request
from microservices.state import State
from nodes.cores import Cores
from nodes.deployment import Deployment
from nodes.lateness import Lateness
from nodes.messages import KIND_ERROR, KIND_REPLY, KIND_REQUEST, MAX_PAYLOAD, ChannelId, DataMessage
from nodes.transport import Address, Sends
from topologies.addressing import DATA_PORT

MAX_ERROR_BYTES = 200
INBOX_LIMIT = 64  # requests that instances of the same node may leave in an instance's queue
CostModel = Callable[[str, int, bool], float]  # (microservice, payload bytes, over the network) -> seconds on one core
log = logging.getLogger(__name__)


class Outlet(Protocol):
    """Where an engine's messages go that are for elsewhere, and who wants to know what it took: the node's channels."""

    def has_room(self, channel: ChannelId) -> bool: ...

    def offer(self, message: DataMessage, to: Address, now: float, out: Sends) -> None:
        """Send `message` as of `now`, which may be a little in the past: when what it says was ready."""

    def consumed(self, channel: ChannelId, now: float) -> None: ...


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


class _Waiting(NamedTuple):
    """A request in an inbox. `arrived` is emulated time; `channel` is None for one from this node."""

    message: DataMessage
    channel: ChannelId | None
    arrived: float
    over_network: bool


class _Executing(NamedTuple):
    """A request on a core, and what its handler gave, which leaves at `finish`."""

    finish: float
    order: int
    instance: RunningInstance
    message: DataMessage
    hops: list[Hop]


class RunningInstance:
    """An instance on this node: its microservice, its state, and what waits for it."""

    __slots__ = ("answering", "blocked", "busy_s", "channels", "deepest", "errors", "handled", "inbox", "key", "local",
                 "name", "parked", "queued", "ready_at", "router", "service", "state")

    def __init__(self, key: tuple[int, int], name: str, service: Microservice, router: Router, answering: bool) -> None:
        self.key = key
        self.name = name
        self.service = service
        self.router = router
        self.answering = answering  # on the way to the reply, not on a side branch
        self.state: State = service.new_state()
        self.inbox: deque[_Waiting] = deque()
        self.local: list[RunningInstance] = []  # successors on this node
        self.channels: list[ChannelId] = []  # to successors elsewhere
        self.queued = self.parked = False
        self.ready_at = 0.0  # when it last got room downstream
        self.handled = self.errors = self.deepest = self.blocked = 0
        self.busy_s = 0.0


class Execution:
    """All instances on `node`, of every deployment, on `cores` cores.

    `cost` says how long a request keeps a core; None means that nothing is paced: a request finishes when its
    handler returns. `stopwatch` reads emulated time, if anything does: it measures what is not paced, and finds
    overruns in what is, handlers whose real computing ended after their emulated finish. `hol` is how much a core that
    executes a microservice slows the traffic manager. `routers`, by application number, are used where given: many
    nodes in one process can share them. Raises ServiceError for a service that there is not.
    """

    def __init__(self, node: str, deployments: tuple[Deployment, ...] = (), cores: int = 1,
                 cost: CostModel | None = None, stopwatch: Callable[[], float] | None = None,
                 routers: Mapping[int, Router] | None = None, hol: Callable[[str], float] | None = None,
                 sleep_after_s: float = 0.0, in_node_s: float = 0.0) -> None:
        self._instances: dict[tuple[int, int], RunningInstance] = {}
        self._addresses: dict[tuple[int, int], Address] = {}
        self._runnable: deque[RunningInstance] = deque()
        self._parked: list[RunningInstance] = []
        self.cores = Cores(cores, sleep_after_s)
        self.interference = 0.0  # what the requests on the cores add to the traffic manager's time on a frame
        self.lateness = Lateness()
        self._hol = hol
        self._in_node_s = in_node_s
        self._overruns = self._overrun_max_ns = 0
        self._computing_s = 0.0  # that handlers really took
        self._finishing: list[_Executing] = []
        self._order = itertools.count()
        self._cost = cost
        self._stopwatch = stopwatch
        self._unknown = 0
        for deployment in deployments:
            self._deploy(node, deployment, (routers or {}).get(deployment.number))

    def _deploy(self, node: str, deployment: Deployment, router: Router | None) -> None:
        if router is None:
            router = Router(deployment.application())
        application = router.application
        names = {i.number: i for i in application.instances}
        for place in deployment.places:
            key = (deployment.number, place.number)
            self._addresses[key] = Address(IPv4Address(place.ip).packed, DATA_PORT)
            if place.node == node:
                instance = names[place.number]
                self._instances[key] = RunningInstance(key, f"{application.name}/{instance.name}",
                                                 router.services[instance.stage], router,
                                                 instance.stage in application.answering)
        for sender, receiver in application.edges:
            instance_here = self._instances.get((deployment.number, sender))
            if instance_here is not None:
                other = self._instances.get((deployment.number, receiver))
                if other is not None:
                    instance_here.local.append(other)
                else:
                    instance_here.channels.append(ChannelId(deployment.number, sender, receiver))

    def submit(self, message: DataMessage, channel: ChannelId | None, now: float, outlet: Outlet, out: Sends,
               over_network: bool = False) -> None:
        """Queue a request that came by `channel` (None: from this node). One for no instance here is answered so."""
        instance = self._instances.get((message.application, message.instance))
        if instance is None:
            self._unknown += 1
            self._to_client(message, KIND_ERROR, b"no such instance on this node", now, outlet, out)
            if channel is not None:
                outlet.consumed(channel, now)
            return
        instance.inbox.append(_Waiting(message, channel, now, over_network))
        if len(instance.inbox) > instance.deepest:
            instance.deepest = len(instance.inbox)
        if not instance.queued and not instance.parked:
            instance.queued = True
            self._runnable.append(instance)

    def run(self, now: float, outlet: Outlet, out: Sends) -> None:
        """Do all that can be done by `now`: finish what is due and start what there is a free core for."""
        self._unpark(now, outlet)
        while True:
            while self._finishing and self._finishing[0].finish <= now:
                done = heapq.heappop(self._finishing)
                self.lateness.record(now - done.finish)
                if self._hol is not None:
                    self.interference -= self._hol(done.instance.service.name)
                self._pass_on(done.instance, done.message, done.hops, done.finish, outlet, out)
                self._unpark(now, outlet)
            if not self._runnable:
                self._unpark(now, outlet)  # what ran last may have made room for who waits for it
                if not self._runnable:
                    return
            if self._cost is not None and not self.cores.is_idle(now):
                return
            self._start(self._runnable.popleft(), now, outlet, out)

    def due(self) -> float | None:
        """Return when `run` has something to do next; None while nothing is being executed."""
        return self._finishing[0].finish if self._finishing else None

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, held up or being executed."""
        return not (self._runnable or self._parked or self._finishing)

    def statistics(self) -> list[InstanceStatistics]:
        return [InstanceStatistics(i.name, i.handled, i.errors, i.busy_s, len(i.inbox), i.deepest, i.blocked)
                for i in self._instances.values()]

    def address_of(self, application: int, instance: int) -> Address | None:
        """Return where an instance of a deployment known here stands; None for one that is not."""
        return self._addresses.get((application, instance))

    def state(self, application: int, instance: int) -> State:
        """Return the state of an instance on this node; raises KeyError for another."""
        return self._instances[application, instance].state

    def counters(self) -> dict[str, int]:
        """Return requests handled and failed per instance, by "handled APPLICATION/INSTANCE"."""
        found = {"dropped_unknown_instance": self._unknown, "overruns": self._overruns,
                 "overrun_max_ns": self._overrun_max_ns, "computing_ns": round(self._computing_s * 1e9),
                 **self.cores.counters(), **self.lateness.counters("late")}
        for statistics in self.statistics():
            found[f"handled {statistics.name}"] = statistics.handled
            found[f"errors {statistics.name}"] = statistics.errors
        return found

    def _start(self, instance: RunningInstance, now: float, outlet: Outlet, out: Sends) -> None:
        instance.queued = False
        if not _has_room(instance, outlet):
            instance.parked = True
            instance.blocked += 1
            self._parked.append(instance)
            return
        message, channel, arrived, over_network = instance.inbox.popleft()
        if channel is not None:
            outlet.consumed(channel, now)
        if self._cost is None:
            self._run_unpaced(instance, message, now, outlet, out)
        else:
            self._run_paced(instance, message, max(arrived, instance.ready_at), over_network)
        if instance.inbox and not instance.queued:
            instance.queued = True
            self._runnable.append(instance)

    def _run_paced(self, instance: RunningInstance, message: DataMessage, ready: float, over_network: bool) -> None:
        """Run the handler now, and let what it gave leave at its computed finish.

        A driver that wakes late must not make the core late: work starts when it came, there was room for what comes
        of it, and the core was free.
        """
        assert self._cost is not None
        name = instance.service.name
        busy = self._cost(name, len(message.payload), over_network)
        start, finish = self.cores.occupy(name, ready, busy)
        began = self._stopwatch() if self._stopwatch is not None else 0.0
        hops = self._handle(instance, message, start)
        if self._hol is not None:
            self.interference += self._hol(name)
        if self._stopwatch is not None:
            ended = self._stopwatch()
            self._computing_s += ended - began
            if ended > finish:
                self._overruns += 1
                self._overrun_max_ns = max(self._overrun_max_ns, round((ended - finish) * 1e9))
        heapq.heappush(self._finishing, _Executing(finish, next(self._order), instance, message, hops))
        instance.busy_s += busy

    def _run_unpaced(self, instance: RunningInstance, message: DataMessage, now: float, outlet: Outlet,
                     out: Sends) -> None:
        began = self._stopwatch() if self._stopwatch is not None else 0.0
        hops = self._handle(instance, message, now)
        busy = self._stopwatch() - began if self._stopwatch is not None else 0.0
        self.cores.note_busy(instance.service.name, busy)
        instance.busy_s += busy
        self._pass_on(instance, message, hops, now, outlet, out)

    def _handle(self, instance: RunningInstance, message: DataMessage, start: float) -> list[Hop]:
        """Run the handler; an error becomes the reply, marked by a hop to no instance."""
        instance.handled += 1
        try:
            outputs = instance.service.handle(Request(message.payload, start), instance.state)
            for output in outputs:
                _check_output(output.payload)
            return instance.router.next(message.instance, outputs)
        except Exception as error:  # whatever a user's handler raises must not end the node
            instance.errors += 1
            if not isinstance(error, ServiceError):
                log.exception("%s failed on a request", instance.name)
            return [Hop((str(error) or type(error).__name__).encode()[:MAX_ERROR_BYTES], _ERROR)]

    def _pass_on(self, instance: RunningInstance, message: DataMessage, hops: list[Hop], finish: float,
                 outlet: Outlet, out: Sends) -> None:
        """Send on what a request that was done at `finish` gave."""
        for payload, number in hops:
            if number == _ERROR:
                if instance.answering:
                    self._to_client(message, KIND_ERROR, payload, finish, outlet, out)
            elif number == CLIENT:
                self._to_client(message, KIND_REPLY, payload, finish, outlet, out)
            else:
                onward = DataMessage(KIND_REQUEST, message.application, number, message.request_id, message.client_ip,
                                     message.client_port, message.hops + 1 & 0xFF, payload, message.instance)
                if (message.application, number) in self._instances:
                    self.submit(onward, None, finish + self._in_node_s, outlet, out)
                else:
                    outlet.offer(onward, self._addresses[message.application, number], finish, out)

    def _to_client(self, message: DataMessage, kind: int, payload: bytes, now: float, outlet: Outlet,
                   out: Sends) -> None:
        reply = DataMessage(kind, message.application, message.instance, message.request_id, message.client_ip,
                            message.client_port, message.hops + 1 & 0xFF, payload, message.instance)
        outlet.offer(reply, Address(message.client_ip, message.client_port), now, out)

    def _unpark(self, now: float, outlet: Outlet) -> None:
        if self._parked:
            waiting, self._parked = self._parked, []
            for instance in waiting:
                if _has_room(instance, outlet):
                    instance.parked, instance.queued, instance.ready_at = False, True, now
                    self._runnable.append(instance)
                else:
                    self._parked.append(instance)


_ERROR = -2  # beside CLIENT: where an error goes


def _has_room(instance: RunningInstance, outlet: Outlet) -> bool:
    return (all(len(other.inbox) < INBOX_LIMIT for other in instance.local)
            and all(outlet.has_room(channel) for channel in instance.channels))


def _check_output(payload: object) -> None:
    """Raise ServiceError for what fits no message, wherever it goes: a placement must not make it fail or work."""
    if not isinstance(payload, bytes):
        raise ServiceError(f"an output of type {type(payload).__name__}; it must be bytes")
    if len(payload) > MAX_PAYLOAD:
        raise ServiceError(f"an output of {len(payload)} bytes; a message carries at most {MAX_PAYLOAD}")
