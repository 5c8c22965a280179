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
from collections.abc import Callable, Iterable, Mapping

from microservices.errors import ServiceError
from microservices.routing import CLIENT, Hop, Router
from microservices.service import Request
from microservices.state import State
from nodes.cores import NEVER, Cores
from nodes.deployment import Deployment
from nodes.foresight import Foresight
from nodes.instances import CostModel, Executing, Foreseen, HandOver, Outlet, RunningInstance, Waiting
from nodes.lateness import Lateness
from nodes.messages import KIND_ERROR, KIND_REPLY, ChannelId, DataMessage
from nodes.origin import Origin
from nodes.outputs import LOGGED, TO_CLIENT_AS_ERROR, Collector, Output, check_output, has_room, onward_of
from nodes.residents import Key, Residents
from nodes.transport import Address, Sends

MAX_ERROR_BYTES = 200
log = logging.getLogger(__name__)


class Execution(Residents):
    """All instances on `node`, of every deployment, on `cores` cores.

    `cost` says how long a request keeps a core; None means that nothing is paced: a request finishes when its
    handler returns. `stopwatch` reads emulated time, if anything does: it measures what is not paced, and finds
    overruns in what is, handlers whose real computing ended after their emulated finish. `hol` is how much a core that
    executes a microservice slows the traffic manager. Where cores are taken, the next handler runs up to `ahead_s`
    before its core is free, and all else is as if it had not: so a driver that wakes late is not late with it. The same
    goes for up to `foresight` requests that are known before their time (`foresee`). What is copied here from a primary
    keeps a core for `copy_share` of the time of a request of as many bytes.
    `routers`, by application number, are used where given: many nodes in one process can share them. `empty`: nothing
    runs here till somebody puts it in. Raises ServiceError for a service that there is not.
    """

    def __init__(self, node: str, deployments: tuple[Deployment, ...] = (), cores: int = 1,
                 cost: CostModel | None = None, stopwatch: Callable[[], float] | None = None,
                 routers: Mapping[int, Router] | None = None, hol: Callable[[str], float] | None = None,
                 sleep_after_s: float = 0.0, in_node_s: float = 0.0, empty: bool = False, ahead_s: float = 0.0,
                 foresight: int = 0, copy_share: float = 0.0) -> None:
        super().__init__(node)
        self.cores = Cores(cores, sleep_after_s)
        self.interference = 0.0  # what the requests on the cores add to the traffic manager's time on a frame
        self.lateness = Lateness()
        self._hol = hol
        self._in_node_s = in_node_s
        self._ahead_s = ahead_s
        self._ahead: list[tuple[float, int, RunningInstance]] = []  # computed before their time, and when that is
        self._foresight = Foresight(foresight if cost is not None and stopwatch is not None else 0)
        self._copy_share = copy_share
        self._copying_until = NEVER  # when the last core that copies is free: no request finishes then
        self._looked = NEVER  # when `run` last did what could be done
        self._overruns = self._overrun_max_ns = 0
        self._overrun_s = 0.0  # by which they were too late, all together
        self._computing_s = 0.0  # that handlers really took
        self._order = itertools.count()
        self._cost = cost
        self._stopwatch = stopwatch
        self._unknown = 0
        for deployment in deployments:
            self.deploy(deployment, (routers or {}).get(deployment.number), empty)

    @property
    def foresight(self) -> int:
        """How many requests may be computed before their time."""
        return self._foresight.limit

    def foresee(self, message: DataMessage, channel: ChannelId, arrival: float,
                in_memory: bool = False) -> Foreseen | None:
        """Run the handler of a request that is to be submitted at `arrival`, if it may run; what it gave goes with it.

        Every request is told here as soon as it is known, where there is foresight: what came by one channel is
        computed in its order. An instance is in no hurry to leave: its foreseen requests get their cores first.
        """
        instance = self._instances.get((message.application, message.instance))
        if instance is None or instance.halted or not self._foresight.admits(channel):
            self._foresight.left((channel,))
            return None
        if in_memory:
            self._note_hand_over(message)
        self._foresight.computed()
        instance.foreseen += 1
        return Foreseen(*self._computed(instance, message, max(arrival, self.cores.next_free_at)))

    def submit(self, message: DataMessage, channel: ChannelId | None, now: float, outlet: Outlet, out: Sends,
               origin: Origin = Origin.NODE, foreseen: Foreseen | None = None) -> None:
        """Queue a request that came by `channel` (None: from this node). One for no instance here is answered so."""
        instance = self._instances.get((message.application, message.instance))
        if instance is None:
            self._unknown += 1
            self._foresight.caught_up(message.channel)
            self._to_client(message, KIND_ERROR, b"no such instance on this node", now, outlet, out)
            if channel is not None:
                outlet.consumed(channel, now)
            return
        if instance.halted and foreseen is not None:
            self._begin_foreseen(instance, Waiting(message, channel, now, origin, foreseen), now, outlet)
            return
        instance.inbox.append(Waiting(message, channel, now, origin, foreseen))
        if len(instance.inbox) > instance.deepest:
            instance.deepest = len(instance.inbox)
        if not instance.queued and not instance.parked:
            instance.queued = True
            self._runnable.append(instance)

    def copied(self, service: str, size: int, now: float) -> None:
        """Give a core the work of taking `size` bytes of what a primary of `service` did into a copy here."""
        if self._cost is not None and self._copy_share:
            busy = self._copy_share * self._cost(service, size, Origin.NETWORK)
            self._copying_until = max(self._copying_until, self.cores.occupy(service, now, busy)[1])

    def run(self, now: float, outlet: Outlet, out: Sends) -> None:
        """Do all that can be done by `now`: finish what is due and start what there is a free core for."""
        self._looked = now
        self._unpark(now, outlet)
        while True:
            while self._finishing and (due := self._finishing[0].finish) <= now:
                if self._ahead and self._ahead[0][0] < due:
                    self._begin_on_core(heapq.heappop(self._ahead)[2])
                else:
                    self._finish(heapq.heappop(self._finishing), now, outlet, out)
            while self._ahead and self._ahead[0][0] <= now:
                self._begin_on_core(heapq.heappop(self._ahead)[2])
            if not self._runnable:
                self._unpark(now, outlet)  # what ran last may have made room for who waits for it
                if not self._runnable:
                    return
            if self._cost is not None and not self.cores.is_idle(now) and not self._may_compute_ahead(now, outlet):
                return
            self._start(self._runnable.popleft(), now, outlet, out)

    def _finish(self, done: Executing, now: float, outlet: Outlet, out: Sends) -> None:
        """Let what `done` gave leave, and go on who waited for that."""
        self.lateness.record(now - done.finish)
        if self._hol is not None:
            self.interference -= self._hol(done.instance.service.name)
        for message, foreseen in done.here:
            if foreseen is not None or self._in_memory(message):
                if foreseen is None:
                    self._note_hand_over(message)
                self.submit(message, None, done.finish + self._in_node_s, outlet, out, foreseen=foreseen)
            else:  # the receiver has left meanwhile
                self._foresight.caught_up(message.channel)
                outlet.offer(message, self._addresses[message.application, message.instance], done.finish, out)
        self._pass_on(done.instance, done.message, done.hops, done.finish, outlet, out)
        self._unpark(now, outlet)

    def due(self) -> float | None:
        """Return when `run` has something to do next; None while nothing is being executed."""
        at = self._finishing[0].finish if self._finishing else None
        if self._copying_until > self._looked:  # who waits for a core may get one that copied
            waits = (self.cores.next_free_at,) if self._runnable else ()
            begins = (self._ahead[0][0],) if self._ahead else ()
            at = min((t for t in (at, *waits, *begins) if t is not None), default=None)
        return at

    @property
    def idle(self) -> bool:
        """Whether nothing is queued, held up or being executed."""
        return not (self._runnable or self._parked or self._finishing)

    @property
    def outstanding(self) -> int:
        """How many requests wait or are being executed here."""
        return sum(len(i.inbox) for i in self._instances.values()) + len(self._finishing)

    def counters(self) -> dict[str, int]:
        """Return requests handled and failed per instance, by "handled APPLICATION/INSTANCE", and who has stopped."""
        found = {"dropped_unknown_instance": self._unknown, "outstanding": self.outstanding, "overruns": self._overruns,
                 "overrun_max_ns": self._overrun_max_ns, "overrun_ns": round(self._overrun_s * 1e9),
                 "computing_ns": round(self._computing_s * 1e9),
                 **self.cores.counters(), **self.lateness.counters("late")}
        found.update(self.handled())
        return found | self.stopped()

    def _start(self, instance: RunningInstance, now: float, outlet: Outlet, out: Sends) -> None:
        if not has_room(instance, outlet):
            instance.queued = False
            instance.parked = True
            instance.blocked += 1
            self._parked.append(instance)
            return
        waiting = instance.inbox.popleft()
        if waiting.channel is not None:
            outlet.consumed(waiting.channel, now)
        if self._cost is None:
            instance.executed_s += self._run_unpaced(instance, waiting.message, now, outlet, out) - waiting.arrived
            self._turn_again(instance)
        else:
            begins = self.cores.next_free_at
            self._run_paced(instance, waiting)
            if begins > now:
                heapq.heappush(self._ahead, (begins, next(self._order), instance))
            else:
                self._begin_on_core(instance)

    def halt(self, key: Key) -> None:
        instance = self._instances[key]
        for entry in self._ahead:
            if entry[2] is instance:  # there is one at most: its next turn comes when this one has begun
                self._ahead.remove(entry)
                heapq.heapify(self._ahead)
                self._begin_on_core(instance)
                break
        super().halt(key)

    def begin_foreseen(self, key: Key, now: float, outlet: Outlet) -> None:
        """Let those of a halted instance's requests that are computed have their cores: they are in its state."""
        instance = self._instances[key]
        waiting = list(instance.inbox)
        instance.inbox.clear()
        for one in waiting:
            if one.foreseen is None:
                instance.inbox.append(one)
            else:
                self._begin_foreseen(instance, one, now, outlet)

    def _begin_foreseen(self, instance: RunningInstance, waiting: Waiting, now: float, outlet: Outlet) -> None:
        if waiting.channel is not None:
            outlet.consumed(waiting.channel, now)
        self._run_paced(instance, waiting)
        if self._hol is not None:
            self.interference += self._hol(instance.service.name)

    def is_quiet(self, key: Key) -> bool:
        """Whether none of an instance's requests is being executed, or is to be because its handler has run."""
        return not self._instances[key].foreseen and super().is_quiet(key)

    def withdraw(self, application: int, epoch: int) -> None:
        self._foresight.forget(application, sum(i.foreseen for k, i in self._instances.items() if k[0] == application))
        super().withdraw(application, epoch)

    def take_out(self, key: Key) -> None:
        for waiting in self._instances[key].inbox:
            self._foresight.caught_up(waiting.message.channel)
        super().take_out(key)

    def put_in(self, key: Key, state: State | None, inbox: Iterable[Waiting]) -> None:
        waiting = tuple(inbox)
        if self.foresight:
            self._foresight.left(one.message.channel for one in waiting)
        super().put_in(key, state, waiting)

    def _begin_on_core(self, instance: RunningInstance) -> None:
        """Note that a request of `instance` is on its core now, and let the next one wait for its turn."""
        if self._hol is not None:
            self.interference += self._hol(instance.service.name)
        self._turn_again(instance)

    def _turn_again(self, instance: RunningInstance) -> None:
        """Let an instance that has begun a request wait for its next turn, if it has another."""
        instance.queued = bool(instance.inbox)
        if instance.queued:
            self._runnable.append(instance)

    def _may_compute_ahead(self, now: float, outlet: Outlet) -> bool:
        return self.cores.is_idle(now + self._ahead_s) and has_room(self._runnable[0], outlet)

    def _run_paced(self, instance: RunningInstance, waiting: Waiting) -> None:
        """Run the handler now unless it has run, and let what it gave leave at its computed finish.

        A driver that wakes late must not make the core late: work starts when it came, there was room for what comes
        of it, and the core was free.
        """
        assert self._cost is not None
        message, _, arrived, origin, foreseen = waiting
        name = instance.service.name
        busy = self._cost(name, len(message.payload), origin)
        start, finish = self.cores.occupy(name, max(arrived, instance.ready_at), busy)
        if foreseen is not None:
            hops, ended = foreseen
            self._foresight.used()
            instance.foreseen -= 1
        else:
            self._foresight.caught_up(message.channel)
            hops, ended = self._computed(instance, message, start)
        if ended > finish:
            self._overruns += 1
            self._overrun_s += ended - finish
            self._overrun_max_ns = max(self._overrun_max_ns, round((ended - finish) * 1e9))
        here: list[HandOver] = []
        if self.foresight:
            hops, here = self._foresee_next(message, hops, finish)
        heapq.heappush(self._finishing, Executing(finish, next(self._order), instance, message, hops, here))
        instance.busy_s += busy
        instance.executed_s += finish - arrived

    def _computed(self, instance: RunningInstance, message: DataMessage, start: float) -> tuple[list[Hop], float]:
        """Run the handler; return what it gave and when it was through, the latter 0 if nobody measures that."""
        if self._stopwatch is None:
            return self._handle(instance, message, start), 0.0
        began = self._stopwatch()
        hops = self._handle(instance, message, start)
        ended = self._stopwatch()
        self._computing_s += ended - began
        return hops, ended

    def _foresee_next(self, message: DataMessage, hops: list[Hop],
                      finish: float) -> tuple[list[Hop], list[HandOver]]:
        """Compute what is handed over on this node at `finish`; return it, and the hops that lead elsewhere."""
        elsewhere, here = [], []
        for hop in hops:
            onward = onward_of(message, hop) if (message.application, hop.instance) in self._instances else None
            if onward is not None and self._in_memory(onward):
                here.append(HandOver(onward, self.foresee(onward, onward.channel, finish + self._in_node_s, True)))
            else:
                elsewhere.append(hop)
        return elsewhere, here

    def _run_unpaced(self, instance: RunningInstance, message: DataMessage, now: float, outlet: Outlet,
                     out: Sends) -> float:
        """Run the handler and send on what it gave; return when it was done."""
        began = self._stopwatch() if self._stopwatch is not None else 0.0
        hops = self._handle(instance, message, now)
        busy = self._stopwatch() - began if self._stopwatch is not None else 0.0
        self.cores.note_busy(instance.service.name, busy)
        instance.busy_s += busy
        self._pass_on(instance, message, hops, now, outlet, out)
        return now + busy

    def _handle(self, instance: RunningInstance, message: DataMessage, start: float) -> list[Hop]:
        """Run the handler; an error becomes the reply, marked by a hop to no instance."""
        instance.handled += 1
        try:
            outputs = instance.service.handle(Request(message.payload, start), instance.state)
            for output in outputs:
                check_output(output.payload)
            hops = instance.router.next(message.instance, outputs)
        except Exception as error:  # whatever a user's handler raises must not end the node
            instance.errors += 1
            if not isinstance(error, ServiceError):
                log.exception("%s failed on a request", instance.name)
            hops = [Hop((str(error) or type(error).__name__).encode()[:MAX_ERROR_BYTES], TO_CLIENT_AS_ERROR)]
        return hops if instance.replica is None else instance.replica.handled(message, hops)

    def _pass_on(self, instance: RunningInstance, message: DataMessage, hops: list[Hop], finish: float,
                 outlet: Outlet, out: Sends) -> None:
        """Send on what a request that was done at `finish` gave."""
        for payload, number in hops:
            if number == CLIENT:
                self._to_client(message, KIND_REPLY, payload, finish, outlet, out)
            elif number < 0:
                if number == LOGGED:
                    assert instance.replica is not None
                    instance.replica.finished(payload, finish)
                elif instance.answering:
                    self._to_client(message, KIND_ERROR, payload, finish, outlet, out)
            else:
                onward = onward_of(message, Hop(payload, number))
                if self._in_memory(onward):
                    self._note_hand_over(onward)
                    self.submit(onward, None, finish + self._in_node_s, outlet, out,
                                foreseen=self.foresee(onward, onward.channel, finish) if self.foresight else None)
                else:
                    outlet.offer(onward, self._addresses[message.application, number], finish, out)

    def _note_hand_over(self, message: DataMessage) -> None:
        """Called with each request that one instance here gives another, in the order in which they are given."""

    def _in_memory(self, message: DataMessage) -> bool:
        """Whether a request of an instance here gets to its receiver in memory."""
        return (message.application, message.instance) in self._instances and not (
            self.detours and message.channel in self.detours)

    def outputs(self, instance: RunningInstance, message: DataMessage, hops: list[Hop]) -> list[Output]:
        """Return the messages that a replicated instance sends for a request, and where to: all go by channel."""
        collected = Collector()
        self._pass_on(instance, message, hops, 0.0, collected, [])
        return collected.outputs

    def _to_client(self, message: DataMessage, kind: int, payload: bytes, now: float, outlet: Outlet,
                   out: Sends) -> None:
        reply = DataMessage(kind, message.application, message.instance, message.request_id, message.client_ip,
                            message.client_port, message.hops + 1 & 0xFF, payload, message.instance)
        outlet.offer(reply, Address(message.client_ip, message.client_port), now, out)

    def _unpark(self, now: float, outlet: Outlet) -> None:
        if self._parked:
            waiting, self._parked = self._parked, []
            for instance in waiting:
                if has_room(instance, outlet):
                    instance.parked, instance.queued, instance.ready_at = False, True, now
                    self._runnable.append(instance)
                else:
                    self._parked.append(instance)
