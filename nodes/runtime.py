"""One compute node's runtime: frames or datagrams in, frames or datagrams out, no sockets and no clock.

`ServiceRuntime` is what both kinds of node share: channels and the execution engine. `SmartNicRuntime` owns
both wires of a SmartNIC: a frame is queued by the traffic manager, forwarded by destination IP, and, if it is
for this SmartNIC, goes through the node's own stack to its microservices. `HostRuntime` starts where the
host's Linux stack ends: at UDP datagrams.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from ipaddress import IPv4Address

import msgspec

from microservices.errors import ServiceError
from nodes import frames, messages
from nodes.channel_move import loop_back
from nodes.control_messages import moved_to
from nodes.delay_line import DelayLine
from nodes.deployment import Deployment
from nodes.errors import NodeError, WireError
from nodes.execution import Execution
from nodes.forwarding import Forwarding, Port
from nodes.instances import Foreseen, Waiting
from nodes.ip_stack import UDP_ECHO_PORT, IpStack
from nodes.lacpdu import out_of_sync
from nodes.messages import CLIENT_BIT, KIND_PROBE, KIND_REQUEST, AckMessage, ChannelId, DataMessage, age_s
from nodes.node_control import Controls, NodeControl, ToNodeControl
from nodes.origin import Origin
from nodes.pace import Pace
from nodes.traffic_manager import DEFAULT_CAPACITY_FRAMES, FrameClock, TrafficManager
from nodes.transport import Address, Send, Sends, Transport
from topologies.addressing import CONTROL_PORT, DATA_PORT, is_controller

Frames = list[tuple[int, bytes]]
Datagrams = list[tuple[tuple[str, int], int, bytes]]  # destination, our port, payload
Counters = dict[str, int]
MAX_REASON_BYTES = 400


def packed_mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def packed_ip(text: str) -> bytes:
    return IPv4Address(text).packed


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
                "dropped_not_here": self._not_here,
                **self.transport.counters(), **self.execution.counters()}


class SmartNicRuntime:
    """The agent of one SmartNIC. Feed it with `receive`, let it work with `run`, call `tick` now and then."""

    def __init__(self, ip: str, mac: str, gateway: str, host_ip: str, services: ServiceRuntime,
                 queue_frames: int = DEFAULT_CAPACITY_FRAMES, loses: Callable[[], bool] | None = None,
                 forward_s: float = 0.0) -> None:
        self.traffic: TrafficManager[bytes] = TrafficManager(queue_frames)
        self._urgent: list[tuple[int, bytes]] = []  # the links' own protocols, which no queue holds up
        execution = services.execution
        self._frame_clock = FrameClock(forward_s, lambda: execution.interference) if forward_s else None
        # Queue a frame that came in from Port.NETWORK or Port.HOST; return False if it was dropped.
        self.receive: Callable[[int, bytes], bool] = self._receive_urgent if forward_s else self.traffic.offer
        self.stack = IpStack(packed_ip(ip), packed_mac(mac), packed_ip(gateway), packed_ip(host_ip))
        self._forwarding = Forwarding(self.stack.ip, self.stack.host_ip)
        self.services = services
        self._loses = loses
        self._forwarded = [0, 0, 0]  # to the network, to the host, to ourselves
        self._misrouted = 0  # IPv4 that no table entry lets through
        self._truncated = 0
        self._foreign = 0  # neither IPv4, ARP nor a slow protocol
        self._refused = 0  # control datagrams that are no question
        self._lost = 0  # frames dropped on purpose, to try the channels
        self.unsent = 0  # frames that the driver could not send
        self.control: NodeControl | None = None  # None: no controller to report to
        self.driver_counters: Callable[[], Counters] = dict
        self._switch_said = b""  # its last LACPDU for the host

    def _receive_urgent(self, ingress: int, frame: bytes) -> bool:
        """Queue a frame where frames wait; without a time per frame each `run` is through with all that there are."""
        if frame[12:14] == frames.ETHERTYPE_SLOW:
            self._urgent.append((ingress, frame))
            return True
        return self.traffic.offer(ingress, frame)

    def run(self, budget: int, now: float, out: Frames) -> int:
        """Work off up to `budget` queued frames at `now`, append what must be sent to `out`; return how many."""
        if self._urgent:
            for ingress, frame in self._urgent:  # in order: of two LACPDUs the later one is what its sender is now
                self._not_ipv4(ingress, frame, out)
            self._urgent.clear()
        traffic = self.traffic
        waiting = min(budget, len(traffic))
        if self._frame_clock is not None:
            waiting = self._frame_clock.through_by(now, waiting, len(traffic))
        egress, own, drop, take = self._forwarding.egress, Port.LOCAL, Port.DROP, traffic.take
        forwarded, local, loses = self._forwarded, self._local, self._loses
        ipv4, least = frames.ETHERTYPE_IPV4, frames.MIN_IPV4_FRAME
        for _ in range(waiting):
            ingress, frame = take()
            if loses is not None and frame[12:14] == ipv4 and loses():
                self._lost += 1
                continue
            if frame[12:14] == ipv4 and len(frame) >= least:
                to = egress(ingress, frame[30:34])
                if to is own:
                    forwarded[2] += 1
                    local(frame, now, out)
                elif to is drop:
                    self._misrouted += 1
                else:
                    forwarded[to] += 1
                    out.append((to, frame))
            else:
                self._not_ipv4(ingress, frame, out)
        if self.control is not None and now >= self.control.at:
            told: Controls = []
            self.control.work(now, told)
            self._tell(told, out)
        if self.services.awake:
            sends: Sends = []
            self.services.work(now, sends)
            self._to_wire(sends, out)
        traffic.note_least()
        return waiting

    def due(self) -> float | None:
        """Return when `run` has something to do although no frame comes in."""
        later = self.services.due()
        if self._frame_clock is not None and len(self.traffic):
            forwarded = self._frame_clock.due()
            later = forwarded if later is None else min(forwarded, later)
        return later if self.control is None else _earlier(later, self.control.at)

    @property
    def awake(self) -> bool:
        """Whether there is, or may soon be, something to do although no frame comes in."""
        return (self.services.awake or self.control is not None
                or (self._frame_clock is not None and len(self.traffic) > 0))

    def tick(self, now: float, out: Frames) -> None:
        """Do what is due now and then: keep the gateway's address fresh."""
        self.stack.tick(now, out)

    def lost_network(self, out: Frames) -> None:
        """Tell the host at once that our port to the ToR lost carrier: its PCIe link keeps its own."""
        if self._switch_said:
            with suppress(WireError):
                out.append((Port.HOST, out_of_sync(self._switch_said)))
            self._switch_said = b""

    def counters(self) -> Counters:
        """Return every counter of this node by name."""
        queue = self.traffic.counters()
        return {
            **{f"queue_{name}": value for name, value in asdict(queue).items()},
            "to_network": self._forwarded[Port.NETWORK],
            "to_host": self._forwarded[Port.HOST],
            "to_local": self._forwarded[Port.LOCAL],
            "dropped_misrouted": self._misrouted,
            "dropped_truncated": self._truncated,
            "dropped_foreign": self._foreign,
            "dropped_by_stack": self.stack.refused,
            "dropped_refused": self._refused,
            "dropped_on_purpose": self._lost,
            "dropped_unsent": self.unsent,
            **_counters_of(self.control),
            **self.services.counters(),
            **self.driver_counters(),
        }

    def _local(self, frame: bytes, now: float, out: Frames) -> None:
        datagram = self.stack.receive(frame, out)
        if datagram is None:
            return
        if datagram.port == DATA_PORT:
            sends: Sends = []
            self.services.receive(Address(datagram.source, datagram.source_port), datagram.payload, now, sends)
            self._to_wire(sends, out)
        elif datagram.port == CONTROL_PORT:
            told: Controls = []
            answer = _control_answer(datagram.payload, datagram.source, self.counters, self.services, self.control,
                                     now, told)
            if answer is None:
                self._refused += 1
            elif answer:
                self.stack.send_udp(datagram.source, CONTROL_PORT, datagram.source_port, answer, out)
            self._tell(told, out)
        else:
            self.stack.refused += 1

    def _tell(self, told: Controls, out: Frames) -> None:
        for ip, data in told:
            self.stack.send_udp(ip, CONTROL_PORT, CONTROL_PORT, data, out)

    def _to_wire(self, sends: Sends, out: Frames) -> None:
        for ip, port, data in sends:
            self.stack.send_udp(ip, DATA_PORT, port, data, out)

    def _not_ipv4(self, ingress: int, frame: bytes, out: Frames) -> None:
        kind = frame[12:14]
        other = Port.HOST if ingress == Port.NETWORK else Port.NETWORK
        if len(frame) < frames.ETHERNET_BYTES or kind == frames.ETHERTYPE_IPV4:
            self._truncated += 1
        elif kind == frames.ETHERTYPE_SLOW:
            if ingress == Port.NETWORK:
                self._switch_said = frame
            out.append((other, frame))  # LACP is between the host's team and the ToR
        elif kind == frames.ETHERTYPE_ARP:
            try:
                arp = frames.parse_arp(frame)
            except WireError:
                self._truncated += 1
                return
            if arp.target_ip == self.stack.ip:
                self.stack.receive_arp(ingress, arp, out)
            else:
                out.append((other, frame))
        else:
            self._foreign += 1


class HostRuntime:
    """The runtime of a host: its services behind the Linux stack's UDP sockets."""

    def __init__(self, services: ServiceRuntime) -> None:
        self.services = services
        self._refused = 0
        self.unsent = 0  # datagrams that the driver could not send
        self.control: NodeControl | None = None  # None: no controller to report to
        self.driver_counters: Callable[[], Counters] = dict

    def receive(self, source: tuple[str, int], port: int, payload: bytes, now: float, out: Datagrams) -> None:
        """Take the datagram that `source` sent at `now` to our UDP `port`; append what must be sent to `out`."""
        if port == DATA_PORT:
            sends: Sends = []
            self.services.receive(Address(packed_ip(source[0]), source[1]), payload, now, sends)
            self._to_sockets(sends, out)
        elif port == UDP_ECHO_PORT:
            if source[1] != UDP_ECHO_PORT:  # two echo ports would talk for ever
                out.append((source, port, payload))
        else:
            told: Controls = []
            answer = _control_answer(payload, packed_ip(source[0]), self.counters, self.services, self.control, now,
                                     told)
            if answer is None:
                self._refused += 1
            elif answer:
                out.append((source, port, answer))
            self._tell(told, out)

    def work(self, now: float, out: Datagrams) -> None:
        if self.control is not None and now >= self.control.at:
            told: Controls = []
            self.control.work(now, told)
            self._tell(told, out)
        sends: Sends = []
        self.services.work(now, sends)
        self._to_sockets(sends, out)

    def due(self) -> float | None:
        later = self.services.due()
        return later if self.control is None else _earlier(later, self.control.at)

    def counters(self) -> Counters:
        return {"dropped_refused": self._refused, "dropped_unsent": self.unsent, **_counters_of(self.control),
                **self.services.counters(), **self.driver_counters()}

    def _tell(self, told: Controls, out: Datagrams) -> None:
        for ip, data in told:
            out.append(((str(IPv4Address(ip)), CONTROL_PORT), CONTROL_PORT, data))

    def _to_sockets(self, sends: Sends, out: Datagrams) -> None:
        for ip, port, data in sends:
            out.append(((str(IPv4Address(ip)), port), DATA_PORT, data))


def _earlier(one: float | None, other: float) -> float:
    return other if one is None or other < one else one


def _counters_of(control: NodeControl | None) -> Counters:
    return control.counters() if control is not None else {}


def _control_answer(payload: bytes, source: bytes, counters: Callable[[], Counters],
                    services: ServiceRuntime, control: NodeControl | None, now: float,
                    told: Controls) -> bytes | None:
    """Answer a question for counters from any node that may ask, and a deployment from a controller; None: refused.

    What belongs to the orchestrator is `control`'s, which appends to `told` what it says and to whom.
    The ToR lets no false source address in, so `source` can be believed.
    """
    try:
        message = messages.decode(payload)
    except WireError:
        return None
    if isinstance(message, ToNodeControl):
        if control is None:
            return None
        control.receive(source, message, now, told)
        return b""
    if not isinstance(message, messages.StatsMessage):
        return None
    if message.kind == messages.KIND_STATS_QUERY:
        report = msgspec.msgpack.encode(counters())
        return messages.StatsMessage(messages.KIND_STATS_REPORT, message.query_id, report).encode()
    if message.kind == messages.KIND_DEPLOY and is_controller(source):
        why = b""
        try:
            services.deploy(msgspec.msgpack.decode(message.payload, type=Deployment))
        except (NodeError, ServiceError, msgspec.DecodeError) as error:
            why = str(error).encode()[:MAX_REASON_BYTES]
        return messages.StatsMessage(messages.KIND_DEPLOYED, message.query_id, why).encode()
    return None
