"""The instances on a compute node: they begin here, come and go as they migrate, and know their neighbours.

Two instances of one node hand each other work in memory. Right after a move there may still be messages on a channel
between them (nodes/transport.py): then they go on using it, by a detour over the node's own address, until it is idle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address

from microservices.application import Instance
from microservices.routing import Router
from microservices.state import State
from nodes.deployment import Deployment
from nodes.errors import NodeError
from nodes.instances import Executing, InstanceStatistics, RunningInstance, Waiting
from nodes.load_report import InstanceLoad
from nodes.messages import ChannelId
from nodes.transport import Address
from topologies.addressing import DATA_PORT

Key = tuple[int, int]  # application, instance


class Residents:
    """Who is on the node called `node`, and where everybody else is."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._instances: dict[Key, RunningInstance] = {}
        self._addresses: dict[Key, Address] = {}
        self._epochs: dict[Key, int] = {}  # of the decision that each stands there; 1 where it was deployed
        self._routers: dict[int, Router] = {}
        self._since: dict[int, int] = {}  # the first decision on each application, since it was withdrawn
        self._taken: set[Key] = set()  # left as a migration; only the same way leads back
        self._former: Counter[str] = Counter()  # what instances did here before they left
        self._runnable: deque[RunningInstance] = deque()
        self._parked: list[RunningInstance] = []
        self._finishing: list[Executing] = []
        self.detours: set[ChannelId] = set()  # between two instances here, and not in memory
        self.replicated: set[Key] = set()  # begin when a view says so, and are sent to and send by channels only
        self.closed: set[int] = set()  # applications that take no more requests of clients
        self.withdrawn: dict[int, int] = {}  # by which decision each was last taken away; earlier ones count no more

    def deploy(self, deployment: Deployment, router: Router | None = None,
               empty: bool = False) -> tuple[list[int], list[int]]:
        """Run what `deployment` places here, and know where the rest is; at any time, also again with other places.

        What a migration has decided since stays as it is. `empty`: nothing is to run here till the controller says so.
        Returns the numbers of the instances that are new here, and of those elsewhere that have moved. Raises NodeError
        for an instance that runs here and is to run elsewhere: that would be a migration; and for an application that
        was withdrawn by a later decision.
        """
        number = deployment.number
        by = self.withdrawn.get(number, 0)
        if deployment.since <= by:
            raise NodeError(f"{deployment.name} was withdrawn by decision {by}, and is deployed by decision "
                            f"{deployment.since}: that comes too late")
        places = [place for place in deployment.places if place.epoch >= self._epochs.get((number, place.number), 1)]
        leaving = [place.number for place in places
                   if place.node != self._node and (number, place.number) in self._instances]
        if leaving:
            raise NodeError(f"{deployment.name}: instances {leaving} run on {self._node} and are placed elsewhere; a "
                            "live instance is migrated, not deployed")
        known = next((i.router for key, i in self._instances.items() if key[0] == number), None)
        self._routers[number] = router = router or known or Router(deployment.application())
        self._since[number] = max(deployment.since, self._since.get(number, 1))
        self.replicated |= {(number, one) for one in deployment.replicated}
        new, moved = [], []
        for place in places:
            key = (number, place.number)
            address = Address(IPv4Address(place.ip).packed, DATA_PORT)
            if self._addresses.get(key, address) != address:
                moved.append(place.number)
            self.place(key, address, place.epoch)
            if place.node == self._node and key not in self._instances and key not in self._taken and not empty \
                    and key not in self.replicated:
                self._begin(key)
                new.append(place.number)
        self.connect(number)
        return new, moved

    def place(self, key: Key, address: Address, epoch: int) -> None:
        """Note that an instance stands at `address`, by the decision `epoch`."""
        self._addresses[key] = address
        self._epochs[key] = epoch

    def address_of(self, application: int, instance: int) -> Address | None:
        """Return where an instance of a deployment known here stands; None for one that is not."""
        return self._addresses.get((application, instance))

    def epoch_of(self, key: Key) -> int:
        """Return by which decision an instance stands where it does; 0 for one that is not known."""
        return self._epochs.get(key, 0)

    def neighbours(self, key: Key) -> list[tuple[int, int, bytes]]:
        """Return (instance, epoch, IP) of those that may send to an instance, and that it may send to."""
        near = {*(a for a, b in self._routers[key[0]].application.edges if b == key[1]),
                *(b for a, b in self._routers[key[0]].application.edges if a == key[1])}
        return [(number, self._epochs[key[0], number], self._addresses[key[0], number].ip) for number in sorted(near)
                if (key[0], number) in self._addresses]

    def runs(self, key: Key) -> bool:
        """Whether an instance is here and begins requests."""
        instance = self._instances.get(key)
        return instance is not None and not instance.halted

    def kind_of(self, key: Key) -> tuple[Router, Instance] | None:
        """Return the application of an instance and what it is there; None for one that is not known here."""
        router = self._routers.get(key[0])
        if router is None:
            return None
        return next(((router, i) for i in router.application.instances if i.number == key[1]), None)

    # -- leaving and coming --------------------------------------------------------------------------------------------

    def halt(self, key: Key) -> None:
        """Begin no request of an instance any more. What its neighbours here hand over still comes to its inbox."""
        instance = self._instances[key]
        if instance.parked:
            self._parked.remove(instance)
        elif instance.queued:
            self._runnable.remove(instance)
        instance.halted = instance.queued = True  # queued as far as others see: nobody queues it
        instance.parked = False

    def go_on(self, key: Key, now: float) -> None:
        """Begin requests again after `halt`."""
        instance = self._instances[key]
        instance.halted, instance.queued, instance.ready_at = False, bool(instance.inbox), now
        if instance.queued:
            self._runnable.append(instance)

    def is_quiet(self, key: Key) -> bool:
        """Whether none of an instance's requests is being executed."""
        instance = self._instances[key]
        return all(executing.instance is not instance for executing in self._finishing)

    def hold(self, key: Key, requests: Iterable[Waiting]) -> None:
        """Put requests that are still under way into the inbox of an instance that was halted."""
        self._instances[key].inbox.extend(requests)

    def inbox(self, key: Key) -> list[Waiting]:
        return list(self._instances[key].inbox)

    def state(self, application: int, instance: int) -> State:
        """Return the state of an instance on this node; raises KeyError for another."""
        return self._instances[application, instance].state

    def take_out(self, key: Key) -> None:
        """Let an instance leave that was halted and is quiet; those that stay reach it by channel from now on."""
        instance = self._instances.pop(key)
        self._taken.add(key)
        self._former[f"handled {instance.name}"] += instance.handled
        self._former[f"errors {instance.name}"] += instance.errors
        self.detours = {channel for channel in self.detours
                        if channel.application != key[0] or key[1] not in (channel.sender, channel.receiver)}
        self.connect(key[0])

    def put_in(self, key: Key, state: State | None, inbox: Iterable[Waiting]) -> None:
        """Let an instance go on here with `state` (None: a fresh one) and what is in its inbox, first of all.

        Raises NodeError for an application that is not known here.
        """
        instance = self._begin(key)
        self._taken.discard(key)
        if state is not None:
            instance.state = state
        instance.inbox.extend(inbox)
        instance.deepest = len(instance.inbox)
        if instance.inbox:
            instance.queued = True
            self._runnable.append(instance)
        for sender, receiver in self._routers[key[0]].application.edges:
            if key[1] in (sender, receiver) and {(key[0], sender), (key[0], receiver)} <= self._instances.keys():
                self.detours.add(ChannelId(key[0], sender, receiver))
        self.connect(key[0])

    def withdraw(self, application: int, epoch: int) -> None:
        """Have and know nothing of an application any more, by the decision `epoch`."""
        router = self._routers.pop(application, None)
        self._since.pop(application, None)
        for key, instance in self._instances.items():
            if key[0] == application:
                if not instance.halted:
                    self.halt(key)
                instance.inbox.clear()
        self._finishing = [done if done.instance.key[0] != application else done._replace(hops=[], here=[])
                           for done in self._finishing]  # it keeps its core as long as ever, for nobody
        for table in (self._instances, self._addresses, self._epochs):
            for key in [key for key in table if key[0] == application]:
                del table[key]
        self._taken = {key for key in self._taken if key[0] != application}
        self.replicated.difference_update([key for key in self.replicated if key[0] == application])
        self.detours = {channel for channel in self.detours if channel.application != application}
        if router is not None:
            of_it = f"{router.application.name}/"
            for what in [what for what in self._former if what.partition(" ")[2].startswith(of_it)]:
                del self._former[what]
        self.closed.discard(application)
        self.withdrawn[application] = epoch

    def is_withdrawn(self, application: int) -> bool:
        """Whether an application was taken away and is not back."""
        return application in self.withdrawn and application not in self._routers

    def is_of_another_life(self, deployment: Deployment) -> bool:
        """Whether an application is here that was withdrawn since, as its `deployment` tells."""
        return deployment.since > self._since.get(deployment.number, deployment.since)

    def latest_epoch(self, application: int) -> int:
        """Return the latest decision that is known here on any instance of an application; 0 for none."""
        return max((epoch for key, epoch in self._epochs.items() if key[0] == application), default=0)

    def begun(self, application: int) -> int:
        """Return how many requests of an application its instances here have begun, also those that have left."""
        router = self._routers.get(application)
        if router is None:
            return 0
        start = f"handled {router.application.name}/"
        return (sum(count for what, count in self._former.items() if what.startswith(start))
                + sum(i.handled for key, i in self._instances.items() if key[0] == application))

    def outstanding_of(self, application: int) -> int:
        """Return how many requests wait for an application's instances here, or are executed by them."""
        return (sum(len(i.inbox) for key, i in self._instances.items() if key[0] == application)
                + sum(done.instance.key[0] == application and self._instances.get(done.instance.key) is done.instance
                      for done in self._finishing))

    def instance(self, key: Key) -> RunningInstance:
        """Return an instance on this node; raises KeyError for another."""
        return self._instances[key]

    def straighten(self, channels: Iterable[ChannelId]) -> None:
        """Hand over in memory from now on what went by these channels, on which nothing is under way any more."""
        for channel in channels:
            self.detours.discard(channel)
            self.connect(channel.application)

    def is_by_channel(self, channel: ChannelId) -> bool:
        """Whether nothing may ever be handed over in memory there: an end is replicated."""
        return ((channel.application, channel.sender) in self.replicated
                or (channel.application, channel.receiver) in self.replicated)

    def _begin(self, key: Key) -> RunningInstance:
        kind = self.kind_of(key)
        if kind is None:
            raise NodeError(f"no instance {key[1]} of an application {key[0]} is known on {self._node}")
        router, instance = kind
        made = RunningInstance(key, f"{router.application.name}/{instance.name}", router.services[instance.stage],
                               router, instance.stage in router.application.answering)
        self._instances[key] = made
        return made

    def connect(self, number: int) -> None:
        """Let each instance of an application here know its successors: by memory if they are here, else by channel."""
        for key, instance in self._instances.items():
            if key[0] == number:
                instance.local, instance.channels = [], []
                if instance.replica is not None:
                    instance.local.append(instance.replica)
        for sender, receiver in self._routers[number].application.edges:
            here = self._instances.get((number, sender))
            if here is not None:
                channel, other = ChannelId(number, sender, receiver), self._instances.get((number, receiver))
                if other is not None and self.is_by_channel(channel):
                    self.detours.add(channel)
                if other is not None and channel not in self.detours:
                    here.local.append(other)
                else:
                    here.channels.append(channel)

    # -- what they have done -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many requests wait in all inboxes here."""
        return sum(len(i.inbox) for i in self._instances.values())

    def statistics(self) -> list[InstanceStatistics]:
        return [InstanceStatistics(i.name, i.handled, i.errors, i.busy_s, len(i.inbox), i.deepest, i.blocked)
                for i in self._instances.values()]

    def loads(self) -> dict[Key, InstanceLoad]:
        """Return what a heartbeat tells of each instance; a request counts from its begin, when its finish is known."""
        return {key: InstanceLoad(i.handled, round(i.executed_s * 1e9), round(i.busy_s * 1e9))
                for key, i in self._instances.items()}

    def handled(self) -> Counter[str]:
        """Return requests handled and failed per instance that is or was here, by "handled APPLICATION/INSTANCE"."""
        found = self._former.copy()
        for instance in self._instances.values():
            found[f"handled {instance.name}"] += instance.handled
            found[f"errors {instance.name}"] += instance.errors
        return found

    def stopped(self) -> dict[str, int]:
        """Return "stopped APPLICATION/INSTANCE", 1, of each instance that is or was here and begins no requests now."""
        at_work = {i.name for i in self._instances.values() if not i.halted}
        known = {name.partition(" ")[2] for name in self._former} | {i.name for i in self._instances.values()}
        return {f"stopped {name}": 1 for name in sorted(known - at_work)}


def running(counters: Mapping[str, int]) -> set[str]:
    """Return the instances that begin requests on a node with these counters, as APPLICATION/INSTANCE."""
    named = {what: {name.partition(" ")[2] for name in counters if name.startswith(f"{what} ")}
             for what in ("handled", "stopped")}
    return named["handled"] - named["stopped"]
