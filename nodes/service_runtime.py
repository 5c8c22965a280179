"""What runs on a compute node of either kind: channels and the execution engine; datagrams in, datagrams out.

No sockets and no clock: whoever drives it says what came in, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodes import messages
from nodes.channel_move import loop_back
from nodes.control_messages import NO_INSTANCE, moved_to, turned_away
from nodes.delay_line import DelayLine
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.execution import Execution
from nodes.instances import Foreseen, Waiting
from nodes.messages import CLIENT_BIT, KIND_PROBE, KIND_REQUEST, AckMessage, ChannelId, DataMessage, age_s
from nodes.origin import Origin
from nodes.pace import Pace
from nodes.transport import Address, Send, Sends, Transport

Counters = dict[str, int]


class ServiceRuntime:
    """What runs on a compute node of either kind: channels and the execution engine, at the level of datagrams."""

    def __init__(self, execution: Execution, transport: Transport, pace: Pace | None = None) -> None:
        self.execution = execution
        self.transport = transport
        self.awake = False  # whether there is, or may soon be, something for `work` to do
        self._ways = dict(pace.ways) if pace is not None else {}
        self._origins = dict.fromkeys(pace.pcie if pace is not None else (), Origin.PCIE)  # others: the network
        self._client_way_s = pace.client_way_s if pace is not None else 0.0
        self._on_the_way = DelayLine[tuple[DataMessage, ChannelId, Origin, Foreseen | None]]()
        # A boot number that is later than any before; the driver knows the time.
        self.boot_now: Callable[[], int] = lambda: self.transport.boot + 1
        self.own: Address | None = None  # needed where instances come and go
        self.pending: Sends = []  # what is to leave at the next `work` that `changed` asks for
        self._meets_itself = False
        self._undecodable = 0
        self._forged = 0
        self._not_here = 0
        self._turned_away = 0
        transport.admits = self._admits
        transport.replicated = execution.replicated

    def stand_at(self, own: Address) -> None:
        """Let instances come and go from now on: two ends of a channel may then meet on this node."""
        self.own = own
        self._ways[own.ip] = 0.0
        self._origins[own.ip] = Origin.NODE

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        """Take a datagram from the data port. Call `work` when all that has come is in."""
        self.awake = True
        try:
            message = messages.decode(payload)
        except WireError:
            self._undecodable += 1
            return
        if isinstance(message, AckMessage):
            self.transport.acknowledge(source, message, now, out)
        elif isinstance(message, DataMessage) and message.kind in (KIND_REQUEST, KIND_PROBE):
            channel = message.channel
            if (self.execution.closed or self.execution.withdrawn) and self._turns_away(source, message, out):
                return
            if source != self._stands_at(message):
                self._forged += 1
                return
            origin = self._origins.get(source.ip, Origin.NETWORK)
            way_s = self._ways.get(source.ip, self._client_way_s)
            for request in self.transport.receive(source, message, now, out):
                arrival = self._on_the_way.arrival_of(channel, now, way_s - age_s(request.sent, now))
                foreseen = self.execution.foresee(request, channel, arrival) if self.execution.foresight else None
                if arrival > now:
                    self._on_the_way.put(arrival, (request, channel, origin, foreseen))
                else:
                    self.execution.submit(request, channel, now, self.transport, out, origin, foreseen)
        else:
            self._undecodable += 1

    def _stands_at(self, message: DataMessage) -> Address | None:
        """Return where the sender of `message` must be: nobody may begin a channel in another's name.

        The ToR lets no false source address in, so a datagram's source can be believed.
        """
        if message.sender & CLIENT_BIT:
            return Address(message.client_ip, message.client_port)
        return self.execution.address_of(message.application, message.sender)

    def _turns_away(self, source: Address, message: DataMessage, out: Sends) -> bool:
        """Tell a client that it comes for a closed or withdrawn application; False where this is not so."""
        execution, key = self.execution, (message.application, message.instance)
        if not message.sender & CLIENT_BIT:
            return False
        if execution.is_withdrawn(key[0]):
            refused, epoch = [], execution.withdrawn[key[0]]
        else:
            if key[0] not in execution.closed or message.kind != KIND_REQUEST or not execution.runs(key):
                return False
            refused, epoch = self.transport.refuse(message), execution.epoch_of(key)
            if not refused:
                return False
        self._turned_away += 1
        out.append(Send(*source, turned_away(key, epoch, refused)))
        return True

    def _admits(self, source: Address, channel: ChannelId, out: Sends) -> bool:
        """Whether a channel may begin to end here. A client that comes to an old place is told the new one.

        What nobody knows is admitted, and answered with an error.
        """
        key = channel.application, channel.receiver
        at = self.execution.address_of(*key)
        if at is None or self.execution.runs(key):
            return True
        self._not_here += 1
        if channel.sender & CLIENT_BIT and self.own not in (None, at):
            out.append(Send(*source, moved_to(key, at.ip, self.execution.epoch_of(key))))
        return False

    def work(self, now: float, out: Sends) -> None:
        """Execute what can be executed, and do what is due on the channels."""
        if self.execution.detours:
            self._straighten(now)
        for arrival, (request, channel, origin, foreseen) in self._on_the_way.due_by(now):
            self.execution.submit(request, channel, arrival, self.transport, out, origin, foreseen)
        self.execution.run(now, self.transport, out)
        self.transport.tick(now, out)
        if self._meets_itself:
            self._loop(now, out)
        self.awake = not (self.execution.idle and self.transport.idle and self._on_the_way.empty)

    def _loop(self, now: float, out: Sends) -> None:
        """Send what waits for it, and let what is for this node itself arrive here at once: no wire carries it."""
        assert self.own is not None
        out += self.pending
        self.pending.clear()
        while own := loop_back(out, self.own.ip):
            for send in own:
                self.receive(self.own, send.data, now, out)
            self.execution.run(now, self.transport, out)
            self.transport.tick(now, out)

    def _straighten(self, now: float) -> None:
        """Let instances that have met here use memory, where their channel has nothing under way any more."""
        idle = [channel for channel in self.execution.detours
                if self.transport.is_idle(channel) and self._on_the_way.is_clear(channel, now)
                and not self.execution.is_by_channel(channel)]
        if idle:
            self.execution.straighten(idle)

    def hold_back(self, key: tuple[int, int], now: float) -> None:
        """Put what is on its way to an instance that was halted into its inbox; what is computed is executed."""
        coming = self._on_the_way.take(lambda held: (held[0].application, held[0].instance) == key)
        self.execution.hold(key, [Waiting(request, channel, arrival, origin, foreseen)
                                  for arrival, (request, channel, origin, foreseen) in coming])
        self.execution.begin_foreseen(key, now, self.transport)

    def outstanding_of(self, application: int) -> int:
        """Return how many requests and messages of an application wait here, are executed, or are not acknowledged."""
        coming = self._on_the_way.count(lambda held: held[0].application == application)
        return coming + self.execution.outstanding_of(application) + self.transport.outstanding(application)

    def withdraw(self, application: int, epoch: int, clients: Iterable[Address]) -> None:
        """Have nothing of an application any more, by the decision `epoch`, and tell its `clients`."""
        self._on_the_way.take(lambda held: held[0].application == application)
        self.execution.withdraw(application, epoch)
        self.transport.forget(application)
        self.pending += [Send(*client, turned_away((application, NO_INSTANCE), epoch)) for client in clients]
        self.changed()

    def changed(self) -> None:
        """Note that an instance has come, gone or moved: `work` is needed, and may have to do with this node itself."""
        self.awake = self._meets_itself = True

    def due(self) -> float | None:
        """Return when `work` has something to do although nothing comes in; None while not `awake`."""
        if not self.awake:
            return None
        times = [t for t in (self.execution.due(), self.transport.due(), self._on_the_way.due()) if t is not None]
        return min(times) if times else None

    def deploy(self, deployment: Deployment) -> None:
        """Run and know what `deployment` says from now on; raises NodeError, and ServiceError for what there is not."""
        new, moved = self.execution.deploy(deployment)
        if new:
            self.transport.renew(self.boot_now())
        for number in moved:
            to = self.execution.address_of(deployment.number, number)
            assert to is not None
            self.transport.readdress(deployment.number, number, to)

    def counters(self) -> Counters:
        return {"dropped_undecodable": self._undecodable, "dropped_forged": self._forged,
                "dropped_not_here": self._not_here, "turned_away": self._turned_away,
                **self.transport.counters(), **self.execution.counters()}
