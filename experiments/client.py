"""A load-generating client: a closed loop of requests from one client node, every reply checked.

Runs as a process of the client's node. Each of `flows` UDP ports keeps `window` requests outstanding, so the
load follows the service's speed and nothing overflows.
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
from experiments.workloads import new_workload
from microservices.routing import Router
from nodes import messages
from nodes.agent import SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.messages import KIND_REPLY, KIND_REQUEST, DataMessage
from topologies.addressing import DATA_PORT

MAX_COMPLAINTS = 5
REMEMBERED_REPLIES = 1 << 20
SWEEP_S = 0.1


class ClientConfig(msgspec.Struct, frozen=True):
    """What a client does: `requests` in all (0: until SIGTERM), over `flows` ports, each with `window` outstanding.

    A request without a reply after `timeout_s` is lost. `client_number` keeps request ids apart between clients.
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
    timeout_s: float = 2.0
    options: dict[str, Any] = {}


class ClientResult(msgspec.Struct, frozen=True):
    """What came of it. Every request sent is in exactly one of `answered`, `errors`, `wrong` and `lost`.

    `late` and `duplicated` count replies beyond the first or after the timeout; `longest_gap_s` is the longest
    time without any reply. Latencies in seconds.
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


class _Stop(Exception):
    pass


def _raise_stop(*_: object) -> None:
    raise _Stop


def run(config: bytes) -> bytes:
    """Be a client: take a msgpack ClientConfig, return a msgpack ClientResult."""
    return msgspec.msgpack.encode(_Client(msgspec.msgpack.decode(config, type=ClientConfig)).run())


class _Client:
    def __init__(self, told: ClientConfig) -> None:
        if told.requests < 0 or told.flows < 1 or told.window < 1:
            raise ExperimentError(f"{told.requests} requests over {told.flows} flows with {told.window} outstanding: "
                                  "the least are 0, 1 and 1")
        self.told = told
        self.workload = new_workload(told.workload, told.seed, told.payload_bytes, told.options)
        self._payloads = self.workload.requests()
        self._router = Router(told.deployment.application())
        self._ips = {place.number: place.ip for place in told.deployment.places}
        self._client_ip = IPv4Address(told.ip).packed
        self._sequence = 0
        self._waiting: dict[int, tuple[float, bytes, socket.socket]] = {}
        self._done: set[int] = set()
        self._timed_out: set[int] = set()
        self._order: deque[int] = deque()
        self._counts = dict.fromkeys(("answered", "errors", "wrong", "lost", "late", "duplicated", "foreign"), 0)
        self._complaints: list[str] = []
        self._latencies: list[float] = []
        self._longest_gap = 0.0

    def run(self) -> ClientResult:
        poll = select.epoll()
        sockets: dict[int, socket.socket] = {}
        for _ in range(self.told.flows):
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, SOCKET_BUFFER_BYTES)
            udp.bind((self.told.ip, 0))
            udp.setblocking(False)
            sockets[udp.fileno()] = udp
            poll.register(udp, select.EPOLLIN)
        started = last_reply = time.monotonic()
        signal.signal(signal.SIGTERM, _raise_stop)
        try:
            for udp in sockets.values():
                for _ in range(self.told.window):
                    self._send(udp)
            sweep_at = started + SWEEP_S
            while self._waiting:
                events = poll.poll(SWEEP_S)
                for descriptor, _ in events:
                    udp = sockets[descriptor]
                    for _ in range(self.told.window):
                        try:
                            data = udp.recv(1 << 16)
                        except BlockingIOError:
                            break
                        except OSError:
                            continue  # an ICMP error about an earlier request: it will time out
                        now = time.monotonic()
                        self._longest_gap = max(self._longest_gap, now - last_reply)
                        last_reply = now
                        self._receive(data, now, udp)
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + SWEEP_S
                    self._sweep()
        except _Stop:
            self._sweep(timeout_s=self.told.timeout_s)
        return ClientResult(self._sequence - len(self._waiting), **self._counts, seconds=time.monotonic() - started,
                            longest_gap_s=self._longest_gap, latencies=summary_of(self._latencies),
                            complaints=self._complaints)

    def _send(self, udp: socket.socket) -> None:
        if self.told.requests and self._sequence >= self.told.requests:
            return
        payload = next(self._payloads)
        number = self._router.entry(payload)
        self._sequence += 1
        request_id = self.told.client_number << 32 | self._sequence
        data = DataMessage(KIND_REQUEST, self.told.deployment.number, number, request_id, self._client_ip,
                           udp.getsockname()[1], 0, payload).encode()
        self._waiting[request_id] = (time.monotonic(), payload, udp)
        with contextlib.suppress(OSError):  # lost like any other packet: the sweep counts it
            udp.sendto(data, (self._ips[number], DATA_PORT))

    def _receive(self, data: bytes, now: float, udp: socket.socket) -> None:
        try:
            message = messages.decode(data)
        except WireError:
            self._counts["foreign"] += 1
            return
        if not isinstance(message, DataMessage):
            self._counts["foreign"] += 1
            return
        waiting = self._waiting.pop(message.request_id, None)
        if waiting is None:
            kind = "duplicated" if message.request_id in self._done else \
                "late" if message.request_id in self._timed_out else "foreign"
            self._counts[kind] += 1
            return
        sent_at, payload, sender = waiting
        self._remember(message.request_id)
        self._latencies.append(now - sent_at)
        complaint = None
        if sender is not udp:
            complaint = "the reply came to another port than the request left from"
        elif message.kind == KIND_REPLY:
            complaint = self.workload.check_reply(payload, message.payload)
        if complaint is not None:
            self._counts["wrong"] += 1
            self._complain(message.request_id, complaint)
        elif message.kind != KIND_REPLY:
            self._counts["errors"] += 1
            self._complain(message.request_id, message.payload.decode(errors="replace"))
        else:
            self._counts["answered"] += 1
        self._send(sender)

    def _remember(self, request_id: int) -> None:
        self._done.add(request_id)
        self._order.append(request_id)
        if len(self._order) > REMEMBERED_REPLIES:
            self._done.discard(self._order.popleft())

    def _sweep(self, timeout_s: float | None = None) -> None:
        """Give up on requests older than the timeout, and send others in their place."""
        oldest = time.monotonic() - (self.told.timeout_s if timeout_s is None else timeout_s)
        for request_id in [i for i, (sent_at, _, _) in self._waiting.items() if sent_at < oldest]:
            _, _, udp = self._waiting.pop(request_id)
            self._timed_out.add(request_id)
            self._counts["lost"] += 1
            self._complain(request_id, f"no reply within {self.told.timeout_s:g} s")
            self._send(udp)

    def _complain(self, request_id: int, what: str) -> None:
        if len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(f"request {request_id:#x}: {what}")
