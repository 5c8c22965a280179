"""A load-generating client: a closed loop of requests from one client node, every reply checked.

Runs as a process of the client's node. Each of `flows` UDP ports is an endpoint of its own with `window` requests
outstanding. Requests and replies travel on the same lossless channels as between nodes, so a lost datagram is
sent again; a request is only lost if there is no reply at all within `timeout_s`.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections import deque
from ipaddress import IPv4Address
from typing import Any

import msgspec

from experiments.errors import ExperimentError
from experiments.latencies import Latencies, summary_of
from experiments.oracle import Oracle
from experiments.payload_workload import PayloadWorkload
from microservices.routing import Router
from microservices.workload import Workload
from microservices.workloads import workload_named
from nodes import messages
from nodes.agent import SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.messages import CLIENT_BIT, KIND_REPLY, KIND_REQUEST, TO_CLIENT_KINDS, AckMessage, DataMessage
from nodes.transport import Address, Sends, Transport
from topologies.addressing import DATA_PORT

MAX_COMPLAINTS = 5
REMEMBERED_REPLIES = 1 << 20
FLOW_BITS = 12  # of an endpoint: which of a client's flows
MAX_FLOWS = 1 << FLOW_BITS
TURN_S = 0.01
LINGER_S = 1.0


class ClientConfig(msgspec.Struct, frozen=True):
    """What a client does: `requests` in all (0: until SIGTERM), over `flows` ports, each with `window` outstanding.

    A request without a reply after `timeout_s` is lost. `client_number` keeps request ids apart between clients.
    `payloads`, if there are any, are sent in turn in place of what `workload` makes. `exact` holds every reply against
    the oracle, byte for byte: with one flow, one request outstanding, and no other client of this application.
    """

    ip: str
    client_number: int
    deployment: Deployment
    workload: str
    requests: int = 1000
    flows: int = 8
    window: int = 4
    payload_bytes: int = 512
    seed: int = 1
    timeout_s: float = 10.0
    options: dict[str, Any] = {}
    payloads: tuple[bytes, ...] = ()
    exact: bool = False


class ClientResult(msgspec.Struct, frozen=True):
    """What came of it. Every request sent is in exactly one of `answered`, `errors`, `wrong` and `lost`.

    `late` and `duplicated` count replies beyond the first or after the timeout; `longest_gap_s` is the longest
    time without any reply, `resent` the datagrams that the client's channels repeated. Latencies in seconds.
    """

    sent: int
    answered: int
    errors: int
    wrong: int
    lost: int
    late: int
    duplicated: int
    foreign: int
    seconds: float
    longest_gap_s: float
    latencies: Latencies
    complaints: list[str]
    resent: int = 0


def run(config: bytes) -> bytes:
    """Be a client: take a msgpack ClientConfig, return a msgpack ClientResult."""
    return msgspec.msgpack.encode(_Client(msgspec.msgpack.decode(config, type=ClientConfig)).run())


class _Flow:
    """One UDP port of the client: an endpoint with channels of its own."""

    def __init__(self, ip: str, endpoint: int, boot: int) -> None:
        self.endpoint = endpoint
        self.transport = Transport(boot)
        self.sent = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES)
        self.socket.bind((ip, 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def send(self, sends: Sends) -> None:
        for ip, port, data in sends:
            with contextlib.suppress(OSError):  # lost like any other datagram: the channel sends it again
                self.socket.sendto(data, (str(IPv4Address(ip)), port))
        sends.clear()


def _workload(told: ClientConfig) -> Workload:
    if told.payloads:
        return PayloadWorkload(told.payloads)
    return workload_named(told.workload, told.seed, told.payload_bytes, **told.options)


class _Client:
    def __init__(self, told: ClientConfig) -> None:
        if told.requests < 0 or not 1 <= told.flows <= MAX_FLOWS or told.window < 1:
            raise ExperimentError(f"{told.requests} requests over {told.flows} flows with {told.window} outstanding: "
                                  f"the least are 0, 1 and 1, and {MAX_FLOWS} flows the most")
        self.told = told
        if told.exact and told.flows * told.window != 1:
            raise ExperimentError(f"{told.flows} flows with {told.window} outstanding; exact replies are known "
                                  "only for one request at a time")
        self._oracle = Oracle(told.deployment.application()) if told.exact else None
        self.workload = _workload(told)
        self._payloads = self.workload.requests()
        self._router = Router(told.deployment.application())
        self._nodes = {place.number: Address(IPv4Address(place.ip).packed, DATA_PORT)
                       for place in told.deployment.places}
        self._client_ip = IPv4Address(told.ip).packed
        boot = int(time.monotonic() * 10)
        flows = [_Flow(told.ip, CLIENT_BIT | told.client_number << FLOW_BITS | i, boot) for i in range(told.flows)]
        self._flows = {flow.socket.fileno(): flow for flow in flows}
        self._sent = 0
        self._waiting: dict[int, tuple[float, bytes, _Flow]] = {}
        self._done: set[int] = set()
        self._timed_out: set[int] = set()
        self._order: deque[int] = deque()
        self._counts = dict.fromkeys(("answered", "errors", "wrong", "lost", "late", "duplicated", "foreign"), 0)
        self._complaints: list[str] = []
        self._latencies: list[float] = []
        self._longest_gap = 0.0
        self._sends: Sends = []
        self._stopped = False  # told to send no more requests

    def run(self) -> ClientResult:
        poll = select.epoll()
        for descriptor in self._flows:
            poll.register(descriptor, select.EPOLLIN)
        started = self._last_reply = time.monotonic()
        # A flag, not an exception: that could fall between taking a reply and counting it.
        signal.signal(signal.SIGTERM, self._stop)
        for flow in self._flows.values():
            for _ in range(self.told.window):
                self._request(flow)
        while self._waiting:
            self._turn(poll)
        took_s = time.monotonic() - started
        until = time.monotonic() + LINGER_S  # the last acknowledgements leave, or the other ends would repeat replies
        while time.monotonic() < until and not all(f.transport.idle for f in self._flows.values()):
            self._turn(poll)
        return ClientResult(self._sent, **self._counts, seconds=took_s, longest_gap_s=self._longest_gap,
                            resent=sum(f.transport.counters()["channel_resent"] for f in self._flows.values()),
                            latencies=summary_of(self._latencies), complaints=self._complaints)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def _turn(self, poll: select.epoll) -> None:
        """Hear what has come, for a moment at most, and do what is due."""
        for descriptor, _ in poll.poll(TURN_S):
            flow = self._flows[descriptor]
            for _ in range(2 * self.told.window):
                try:
                    data, source = flow.socket.recvfrom(1 << 16)
                except BlockingIOError:
                    break
                except OSError:
                    continue  # an ICMP error about an earlier datagram: the channel sends it again
                self._receive(flow, data, Address(IPv4Address(source[0]).packed, source[1]))
        now = time.monotonic()
        for flow in self._flows.values():
            flow.transport.tick(now, self._sends)
            flow.send(self._sends)
        self._sweep(now)

    def _request(self, flow: _Flow) -> None:
        if self._stopped or (self.told.requests and self._sent >= self.told.requests):
            return
        payload = next(self._payloads)
        number = self._router.entry(payload)
        self._sent += 1
        flow.sent += 1
        request_id = flow.endpoint << 32 | flow.sent
        message = DataMessage(KIND_REQUEST, self.told.deployment.number, number, request_id, self._client_ip,
                              flow.port, 0, payload, flow.endpoint)
        now = time.monotonic()
        self._waiting[request_id] = (now, payload, flow)
        flow.transport.offer(message, self._nodes[number], now, self._sends)
        flow.send(self._sends)

    def _receive(self, flow: _Flow, data: bytes, source: Address) -> None:
        now = time.monotonic()
        try:
            message = messages.decode(data)
        except WireError:
            self._counts["foreign"] += 1
            return
        if isinstance(message, AckMessage):
            flow.transport.acknowledge(source, message, now, self._sends)
        elif isinstance(message, DataMessage) and message.kind in TO_CLIENT_KINDS:
            for reply in flow.transport.receive(source, message, now, self._sends):
                flow.transport.consumed(reply.channel, now)
                self._reply(flow, reply, now)
        else:
            self._counts["foreign"] += 1
        flow.send(self._sends)

    def _reply(self, flow: _Flow, message: DataMessage, now: float) -> None:
        self._longest_gap = max(self._longest_gap, now - self._last_reply)
        self._last_reply = now
        waiting = self._waiting.pop(message.request_id, None)
        if waiting is None:
            kind = "duplicated" if message.request_id in self._done else \
                "late" if message.request_id in self._timed_out else "foreign"
            self._counts[kind] += 1
            return
        sent_at, payload, sender = waiting
        self._remember(message.request_id)
        self._latencies.append(now - sent_at)
        what, complaint = self._judged(payload, message, sent_at)
        if sender is not flow:
            what, complaint = "wrong", "the reply came to another port than the request left from"
        if complaint:
            self._count(what, message.request_id, complaint)
        else:
            self._counts[what] += 1
        self._request(sender)

    def _judged(self, payload: bytes, message: DataMessage, sent_at: float) -> tuple[str, str]:
        """Return which count a first reply belongs to, and the complaint if it is not "answered"."""
        is_error = message.kind != KIND_REPLY
        if self._oracle is not None:
            complaint = self._oracle.complaint(payload, message.payload, is_error, sent_at)
            if complaint is not None:
                return "wrong", complaint
        if is_error and self._oracle is None:
            complaint = self.workload.check_error(payload, message.payload.decode(errors="replace"))
            return ("errors", complaint) if complaint is not None else ("answered", "")
        if not is_error and (complaint := self.workload.check_reply(payload, message.payload)) is not None:
            return "wrong", complaint
        return "answered", ""

    def _remember(self, request_id: int) -> None:
        self._done.add(request_id)
        self._order.append(request_id)
        if len(self._order) > REMEMBERED_REPLIES:
            self._done.discard(self._order.popleft())

    def _sweep(self, now: float) -> None:
        """Give up on requests older than the timeout, and send others in their place."""
        for request_id in [i for i, (sent_at, _, _) in self._waiting.items() if sent_at < now - self.told.timeout_s]:
            flow = self._waiting.pop(request_id)[2]
            self._timed_out.add(request_id)
            self._count("lost", request_id, f"no reply within {self.told.timeout_s:g} s")
            self._request(flow)

    def _count(self, what: str, request_id: int, complaint: str) -> None:
        self._counts[what] += 1
        if len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(f"request {request_id:#x}: {complaint}")
