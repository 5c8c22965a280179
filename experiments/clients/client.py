"""A load-generating client: requests from one client node in a closed or an open loop, replies checked.

Runs as a process of the client's node. Each of `flows` UDP ports is an endpoint of its own. Requests and replies travel
on the same lossless channels as between nodes, so a lost datagram is sent again; a request is only lost if there is no
reply at all within `timeout_s`. All times are those of the emulated clock.
"""

from __future__ import annotations

import math
import signal
import time
from array import array
from collections import deque
from collections.abc import Iterator
from ipaddress import IPv4Address
from itertools import cycle, islice

import msgspec

from experiments.clients.arrivals import intended_times
from experiments.clients.client_flow import Flow, requests_of, workload_of
from experiments.clients.latencies import summary_of
from experiments.clients.load import FLOW_BITS, ClientConfig, ClientResult, Exchange
from experiments.clients.reply_judge import ReplyJudge
from microservices.routing import Router
from nodes import messages
from nodes.client_places import ClientPlaces
from nodes.control_messages import Command, Verb
from nodes.delay_line import DelayLine
from nodes.errors import WireError
from nodes.lateness import Lateness, summary
from nodes.messages import CLIENT_BIT, KIND_REPLY, KIND_REQUEST, TO_CLIENT_KINDS, AckMessage, DataMessage, age_s
from nodes.readiness import Readiness, rest_at
from nodes.socket_drops import udp_drops
from nodes.transport import Address, Sends
from topologies.addressing import is_computing

MAX_COMPLAINTS = 5
REMEMBERED_REPLIES = 1 << 20
TURN_S = 0.01  # real: how often timers are looked at, and the longest wait
BATCH = 64  # datagrams read from one port before the others get their turn
BURST = 64  # requests of an open loop that may leave before replies are looked at again

__all__ = ["ClientConfig", "ClientResult", "run"]


def run(config: bytes) -> bytes:
    """Be a client: take a msgpack ClientConfig, return a msgpack ClientResult."""
    return msgspec.msgpack.encode(_Client(msgspec.msgpack.decode(config, type=ClientConfig)).run())


class _Client:
    def __init__(self, told: ClientConfig) -> None:
        self.told = told
        self._clock = told.clock.reader()
        workload = workload_of(told)
        self._judge = ReplyJudge(told, workload)
        self._requests = requests_of(told, workload, Router(told.deployment.application()))
        self._places = ClientPlaces(told.deployment, [IPv4Address(ip).packed for ip in told.controllers])
        self._names = {ip: str(IPv4Address(ip)) for ip in self._places.addresses()}
        self._ips = {name: ip for ip, name in self._names.items()}
        self._names |= {ip: str(IPv4Address(ip)) for ip in self._places.controllers}
        self._client_ip = IPv4Address(told.ip).packed
        boot = int(time.monotonic() * 10)
        self._flows = [Flow(told.ip, CLIENT_BIT | told.client_number << FLOW_BITS | i, boot)
                       for i in range(told.flows)]
        self._endpoints = {flow.endpoint for flow in self._flows}
        self._strays = 0
        self._unsent = 0
        self._sent = 0
        self._waiting: dict[int, tuple[float, bytes, Flow]] = {}
        self._on_the_way = DelayLine[tuple[Flow, DataMessage]]()
        self._done: set[int] = set()
        self._timed_out: set[int] = set()
        self._order: deque[int] = deque()
        self._counts = dict.fromkeys(("answered", "errors", "wrong", "lost", "late", "duplicated", "foreign",
                                      "turned_away"), 0)
        self._withdrawn = False  # the application is, or is about to be
        self._complaints: list[str] = []
        self._history: list[Exchange] = []
        self._answered_s, self._latencies_s = array("d"), array("d")
        self._longest_gap = 0.0
        self._behind, self._turns = Lateness(), Lateness()
        self._sends: Sends = []
        self._stopped_at: float | None = None  # real time at which it was told to send no more
        self._look_at = 0.0  # real time at which timers are looked at next

    def run(self) -> ClientResult:
        readiness = Readiness(rest_at(self.told.clock.time_scale) if self.told.ways else 0.0)
        by_descriptor = {}
        for flow in self._flows:
            readiness.register(flow.socket)
            by_descriptor[flow.socket.fileno()] = flow
        started = self._last_reply = self._clock()
        # A flag, not an exception: that could fall between taking a reply and counting it.
        signal.signal(signal.SIGTERM, self._stop)
        intended: Iterator[float] | None = None
        upcoming = 0.0
        if self.told.rate_rps:
            intended = intended_times(started, self.told.rate_rps, self.told.arrivals, self.told.seed,
                                      self.told.draw)
            upcoming = next(intended)
        else:
            for flow in islice(cycle(self._flows), self.told.outstanding or self.told.flows * self.told.window):
                self._request(flow, started, started)
        turn = cycle(self._flows)
        while (self._waiting or (intended is not None and not self._finished)) and not self._drained:
            wait_s = TURN_S
            due = self._on_the_way.due()
            if intended is not None and not self._finished and (due is None or upcoming < due):
                due = upcoming
            if due is not None:
                wait_s = min(wait_s, (due - self._clock()) * self.told.clock.time_scale)
            ready = readiness.wait(wait_s)
            now = self._clock()
            for descriptor in ready:
                self._hear(by_descriptor[descriptor], now)
            for arrival, (flow, message) in self._on_the_way.due_by(now):
                self._reply(flow, message, arrival, now)
            if intended is not None:
                for _ in range(BURST):
                    if upcoming > now or self._finished:
                        break
                    self._request(next(turn), upcoming, now)
                    upcoming = next(intended)
            self._look_at_timers(now)
            self._turns.record(self._clock() - now)
        took_s = self._clock() - started
        if self.told.history:
            self._history += [Exchange(payload, asked_s, None, math.inf)
                              for asked_s, payload, _ in self._waiting.values()]
        for flow in self._flows:  # or the other ends would repeat what we have
            flow.transport.flush(self._sends)
            self._send(flow)
        return ClientResult(
            self._sent, **self._counts, seconds=took_s, longest_gap_s=self._longest_gap,
            latencies=summary_of(self._latencies_s), complaints=self._complaints,
            resent=sum(f.transport.counters()["channel_resent"] for f in self._flows), checked=self._judge.checked,
            unfinished=len(self._waiting), answered_s=self._answered_s.tobytes(),
            latencies_s=self._latencies_s.tobytes(), behind=summary("behind", self._behind.counters("behind")),
            turns=summary("turn", self._turns.counters("turn")), dropped_socket=udp_drops() + self._unsent,
            strays=self._strays, history=tuple(self._history))

    def _stop(self, *_: object) -> None:
        self._stopped_at = time.monotonic()

    @property
    def _finished(self) -> bool:
        """Whether no more requests are to be sent."""
        return self._withdrawn or self._stopped_at is not None or 0 < self.told.requests <= self._sent

    @property
    def _drained(self) -> bool:
        return self._stopped_at is not None and time.monotonic() - self._stopped_at > self.told.drain_real_s

    def _look_at_timers(self, now: float) -> None:
        real_now = time.monotonic()
        if real_now < self._look_at:
            return
        self._look_at = real_now + TURN_S
        for flow in self._flows:
            flow.transport.tick(now, self._sends)
            if self._places.controllers:
                self._places.ask(flow.transport.unheard(), now, self._sends)
            self._send(flow)
        self._sweep(now)

    def _request(self, flow: Flow, intended: float, now: float) -> None:
        """Send a request that was to leave at `intended`, if there is one to send."""
        if self._finished:
            return
        payload, number = next(self._requests)
        self._sent += 1
        flow.sent += 1
        request_id = flow.endpoint << 32 | flow.sent
        message = DataMessage(KIND_REQUEST, self.told.deployment.number, number, request_id, self._client_ip,
                              flow.port, 0, payload, flow.endpoint)
        self._waiting[request_id] = (intended, payload, flow)
        self._behind.record(now - intended)
        flow.transport.offer(message, self._places[number], intended, self._sends)
        self._send(flow)

    def _send(self, flow: Flow) -> None:
        for ip, port, data in self._sends:
            try:
                flow.socket.sendto(data, (self._names[ip], port))
            except BlockingIOError:
                self._unsent += 1  # no queue of the emulated rack was full, but our socket: the verdict is to know
            except OSError:
                pass  # lost like any other datagram: the channel sends it again
        self._sends.clear()

    def _hear(self, flow: Flow, now: float) -> None:
        """Take what has come to one port."""
        receive = flow.socket.recvfrom
        for _ in range(BATCH):
            try:
                data, source = receive(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error about an earlier datagram: the channel sends it again
            ip = self._ips.get(source[0]) or self._new_node(source[0])
            try:
                message = messages.decode(data)
            except WireError:
                ip = None
            else:
                if isinstance(message, Command):
                    self._connect(IPv4Address(source[0]).packed, message, now)
                    continue
            if ip is None:
                self._counts["foreign"] += 1
            elif isinstance(message, AckMessage):
                flow.transport.acknowledge(Address(ip, source[1]), message, now, self._sends)
            elif isinstance(message, DataMessage) and message.kind in TO_CLIENT_KINDS:
                if message.request_id >> 32 not in self._endpoints:
                    self._strays += 1  # a reply to whoever had this port before us
                    continue
                self._take(flow, message, Address(ip, source[1]), now)
            else:
                self._counts["foreign"] += 1
        if self._sends:
            self._send(flow)

    def _new_node(self, name: str) -> bytes | None:
        """Return the packed IP of a host or SmartNIC that replies for the first time: an instance may have gone there.

        None for what else may send to us.
        """
        ip = IPv4Address(name).packed
        if not is_computing(ip):
            return None
        self._names[ip], self._ips[name] = name, ip
        return ip

    def _connect(self, source_ip: bytes, command: Command, now: float) -> None:
        """Send to an instance where it is now, if who says so can be believed: also what is under way, of all ports."""
        if command.verb == Verb.WITHDRAW:
            requests = self._places.turned_away(source_ip, command)
            if requests is not None:
                self._turned_away(requests)
            return
        to = self._places.told(source_ip, command)
        if to is None:
            return
        self._new_node(str(IPv4Address(to.ip)))
        for flow in self._flows:
            flow.transport.redirect(command.application, command.instance, to, now, self._sends)
            self._send(flow)

    def _turned_away(self, requests: list[int]) -> None:
        """Take it that `requests`, or all, will not be served, since the application is withdrawn: ask nothing more."""
        self._withdrawn = True
        if not requests:
            for flow in self._flows:
                flow.transport.forget(self.told.deployment.number)
        for request_id in requests or list(self._waiting):
            waiting = self._waiting.pop(request_id, None)
            if waiting is not None:
                if self.told.history:
                    self._history.append(Exchange(waiting[1], waiting[0], None, math.inf))
                self._timed_out.add(request_id)
                self._count("turned_away", request_id, "the application is withdrawn")

    def _take(self, flow: Flow, message: DataMessage, source: Address, now: float) -> None:
        way_s = self.told.ways.get(source.ip, 0.0)
        for reply in flow.transport.receive(source, message, now, self._sends):
            flow.transport.consumed(reply.channel, now)
            arrival = self._on_the_way.arrival_of(reply.channel, now, way_s - age_s(reply.sent, now))
            if arrival > now:
                self._on_the_way.put(arrival, (flow, reply))
            else:
                self._reply(flow, reply, now, now)

    def _reply(self, flow: Flow, message: DataMessage, arrival: float, now: float) -> None:
        self._longest_gap = max(self._longest_gap, arrival - self._last_reply)
        self._last_reply = arrival
        waiting = self._waiting.pop(message.request_id, None)
        if waiting is None:
            kind = "duplicated" if message.request_id in self._done else \
                "late" if message.request_id in self._timed_out else "foreign"
            self._counts[kind] += 1
            return
        asked_s, payload, sender = waiting
        if self.told.history:
            done = message.kind == KIND_REPLY  # an error says nothing of what has been done
            self._history.append(Exchange(payload, asked_s, message.payload if done else None,
                                          arrival if done else math.inf))
        self._remember(message.request_id)
        self._answered_s.append(arrival)
        self._latencies_s.append(arrival - asked_s)
        if not self.told.rate_rps:
            self._request(sender, arrival, now)
        what, complaint = self._judge.verdict(payload, message, asked_s)
        if sender is not flow:
            what, complaint = "wrong", "the reply came to another port than the request left from"
        if complaint:
            self._count(what, message.request_id, complaint)
        else:
            self._counts[what] += 1

    def _remember(self, request_id: int) -> None:
        self._done.add(request_id)
        self._order.append(request_id)
        if len(self._order) > REMEMBERED_REPLIES:
            self._done.discard(self._order.popleft())

    def _sweep(self, now: float) -> None:
        """Give up on requests older than the timeout, and send others in their place."""
        overdue = now - self.told.timeout_s
        if overdue < 0:
            return
        for request_id in [i for i, (asked_s, _, _) in self._waiting.items() if asked_s < overdue]:
            asked_s, payload, flow = self._waiting.pop(request_id)
            if self.told.history:
                self._history.append(Exchange(payload, asked_s, None, math.inf))
            self._timed_out.add(request_id)
            self._count("lost", request_id, f"no reply within {self.told.timeout_s:g} s")
            if not self.told.rate_rps:
                self._request(flow, now, now)

    def _count(self, what: str, request_id: int, complaint: str) -> None:
        self._counts[what] += 1
        if len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(f"request {request_id:#x}: {complaint}")
