"""The ends of simulated channels: a client's flow, and a transport and an engine that log what passes through them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from microservices.routing import Hop
from nodes import messages
from nodes.channel import ChannelOptions
from nodes.client_places import ClientPlaces
from nodes.control_messages import Command, Verb
from nodes.delay_line import DelayLine
from nodes.deployment import Deployment
from nodes.execution import Execution, RunningInstance
from nodes.messages import (
    CLIENT_BIT,
    KIND_REQUEST,
    TO_CLIENT_KINDS,
    AckMessage,
    ChannelId,
    DataMessage,
    age_s,
)
from nodes.transport import Address, Sends, Transport

FLOW_BITS = 12  # of an endpoint: which of a client's flows
MAX_FLOWS = 1 << FLOW_BITS


class End(Protocol):
    """What stands at an address of the simulated network."""

    address: Address

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None: ...

    def work(self, now: float, out: Sends) -> None: ...

    def due(self) -> float | None: ...


class _Item(NamedTuple):
    request_id: int
    kind: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one channel was offered, and what its receiving end was given, each in order."""

    offered: list[_Item]
    given: list[_Item]

    def complaint(self) -> str | None:
        """Return what is wrong: something lost, invented, doubled, or out of order."""
        if self.given == self.offered:
            return None
        if sorted(self.given) == sorted(self.offered):
            return f"all {len(self.given)} messages were delivered, but out of order"
        lost = len(set(self.offered) - set(self.given))
        strange = len(set(self.given) - set(self.offered))
        doubled = len(self.given) - len(set(self.given))
        return f"of {len(self.offered)} messages {lost} were lost; {doubled} came again, {strange} from nowhere"


class ChannelLog:
    """Everything that the channels of a simulation were offered and gave, also those inside a node."""

    def __init__(self) -> None:
        self.traffic: defaultdict[ChannelId, Traffic] = defaultdict(lambda: Traffic([], []))

    def offered(self, message: DataMessage) -> None:
        self.traffic[message.channel].offered.append(_Item(message.request_id, message.kind, message.payload))

    def given(self, message: DataMessage) -> None:
        self.traffic[message.channel].given.append(_Item(message.request_id, message.kind, message.payload))

    @property
    def messages(self) -> int:
        return sum(len(traffic.offered) for traffic in self.traffic.values())

    def complaints(self) -> list[str]:
        """Return what is wrong with any channel, once nothing is under way any more."""
        return [f"channel {channel.sender:#x} > {channel.receiver:#x} of application {channel.application}: {wrong}"
                for channel, traffic in self.traffic.items() if (wrong := traffic.complaint()) is not None]


class LoggedTransport(Transport):
    """A transport that notes in a log, if it has one, what it is to deliver."""

    def __init__(self, boot: int, options: ChannelOptions | None, log: ChannelLog | None) -> None:
        super().__init__(boot, options)
        self.log = log

    def offer(self, message: DataMessage, to: Address, now: float, out: Sends) -> None:
        if self.log is not None:
            self.log.offered(message)
        super().offer(message, to, now, out)


class LoggedExecution(Execution):
    """An engine that notes in a log, if it has one, what it hands over in memory and what each handler is given."""

    log: ChannelLog | None = None

    def _note_hand_over(self, message: DataMessage) -> None:
        if self.log is not None:
            self.log.offered(message)

    def _handle(self, instance: RunningInstance, message: DataMessage, start: float) -> list[Hop]:
        if self.log is not None:
            self.log.given(message)
        return super()._handle(instance, message, start)


Answered = Callable[["ClientFlow", DataMessage, float, Sends], None]
TurnedAway = Callable[["ClientFlow", list[int]], None]


class ClientFlow:
    """One UDP port of a client: an endpoint with channels of its own.

    `answered` is called for each reply, with the time at which it counts as arrived: when the time has passed that its
    way takes, which `ways` gives by the packed IP of the node that it comes from. `controllers` are asked for what is
    not heard of. `turned_away` is called with the ids of requests that will not be served, with [] for all of them.
    """

    def __init__(self, address: Address, client: int, number: int, deployment: Deployment, transport: Transport,
                 log: ChannelLog | None, ways: Mapping[bytes, float] | None = None,
                 controllers: Iterable[bytes] = ()) -> None:
        self.address = address
        self.transport = transport
        self.answered: Answered = lambda *_: None
        self.turned_away: TurnedAway = lambda *_: None
        self._endpoint = CLIENT_BIT | client << FLOW_BITS | number
        self._application = deployment.number
        self._places = ClientPlaces(deployment, controllers)
        self._log = log
        self._ways = ways or {}
        self._on_the_way = DelayLine[DataMessage]()
        self._count = 0

    def has_asked(self, request_id: int) -> bool:
        """Whether a request left from here."""
        return request_id >> 32 == self._endpoint

    def ask(self, payload: bytes, number: int, now: float, out: Sends) -> int:
        """Send a request to instance `number`, as of `now`; return its id."""
        self._count += 1
        request_id = self._endpoint << 32 | self._count
        message = DataMessage(KIND_REQUEST, self._application, number, request_id, self.address.ip,
                              self.address.port, 0, payload, self._endpoint)
        self.transport.offer(message, self._places[number], now, out)
        return request_id

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        message = messages.decode(payload)
        if isinstance(message, AckMessage):
            self.transport.acknowledge(source, message, now, out)
        elif isinstance(message, DataMessage) and message.kind in TO_CLIENT_KINDS:
            way_s = self._ways.get(source.ip, 0.0)
            for reply in self.transport.receive(source, message, now, out):
                self.transport.consumed(reply.channel, now)
                if self._log is not None:
                    self._log.given(reply)
                arrival = self._on_the_way.arrival_of(reply.channel, now, way_s - age_s(reply.sent, now))
                if arrival > now:
                    self._on_the_way.put(arrival, reply)
                else:
                    self.answered(self, reply, now, out)
        elif isinstance(message, Command):
            self._commanded(source, message, now, out)

    def _commanded(self, source: Address, command: Command, now: float, out: Sends) -> None:
        if command.verb == Verb.WITHDRAW:
            requests = self._places.turned_away(source.ip, command)
            if requests is not None:
                if not requests:
                    self.transport.forget(self._application)
                self.turned_away(self, requests)
        elif (to := self._places.told(source.ip, command)) is not None:
            self.transport.redirect(command.application, command.instance, to, now, out)

    def work(self, now: float, out: Sends) -> None:
        for arrival, reply in self._on_the_way.due_by(now):
            self.answered(self, reply, arrival, out)
        self.transport.tick(now, out)
        if self._places.controllers:
            self._places.ask(self.transport.unheard(), now, out)

    def due(self) -> float | None:
        asks = self._places.due(self.transport.unheard()) if self._places.controllers else None
        times = [t for t in (self.transport.due(), self._on_the_way.due(), asks) if t is not None]
        return min(times) if times else None
