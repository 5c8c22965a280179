"""Many UDP flows from one client node to one echo service, each packet accounted for.

Runs as a process of the client's node. The flows take turns at a steady rate, whatever becomes of the answers.
"""

from __future__ import annotations

import contextlib
import resource
import select
import signal
import socket
import struct
import time

import msgspec

from nodes.socket_room import give_room

_PROBE = struct.Struct(">IQ")  # flow, number of the packet
PACKET_BYTES = 64
DRAIN_S = 1.0
STEP_S = 0.002


class ProbeConfig(msgspec.Struct, frozen=True):
    """`flows` source ports from `first_port` on, `packets_per_s` over all of them, until SIGTERM or `limit_s`."""

    ip: str
    target_ip: str
    target_port: int
    flows: int
    first_port: int
    packets_per_s: float
    limit_s: float


class ProbeResult(msgspec.Struct, frozen=True):
    """`packets` lists every packet: source port, when it was sent (Unix time in ns), and how often it was answered."""

    packets: list[tuple[int, int, int]]


def run(config: bytes) -> bytes:
    """Be a probe: take a msgpack ProbeConfig, return a msgpack ProbeResult."""
    told = msgspec.msgpack.decode(config, type=ProbeConfig)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, told.flows + 64), most))
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    in_turn = []
    for flow in range(told.flows):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        give_room(udp)
        udp.bind((told.ip, told.first_port + flow))
        udp.connect((told.target_ip, told.target_port))
        udp.setblocking(False)
        sockets[udp.fileno()] = udp
        in_turn.append(udp)
        poll.register(udp, select.EPOLLIN)
    sent_ns: list[int] = []
    answers = bytearray()
    padding = bytes(PACKET_BYTES - _PROBE.size)

    def hear(wait_s: float) -> None:
        for descriptor, _ in poll.poll(wait_s):
            with contextlib.suppress(OSError):  # an ICMP error about an earlier packet: it stays lost
                _, number = _PROBE.unpack_from(sockets[descriptor].recv(2048))
                answers[number] = min(2, answers[number] + 1)

    stopped: list[int] = []  # a flag, not an exception: that could fall between taking an answer and noting it
    signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
    started = time.monotonic()
    while not stopped and (elapsed := time.monotonic() - started) < told.limit_s:
        while len(sent_ns) < elapsed * told.packets_per_s:
            number, flow = len(sent_ns), len(sent_ns) % told.flows
            sent_ns.append(time.time_ns())
            answers.append(0)
            with contextlib.suppress(OSError):
                in_turn[flow].send(_PROBE.pack(flow, number) + padding)
        hear(STEP_S)
    until = time.monotonic() + DRAIN_S
    while time.monotonic() < until:
        hear(0.05)
    return msgspec.msgpack.encode(ProbeResult(
        [(told.first_port + number % told.flows, sent_ns[number], answers[number]) for number in range(len(answers))]))
