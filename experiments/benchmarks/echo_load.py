"""The two plain programs of the datapath benchmark: a UDP echo, and a client that asks echoes in turn.

Both are blocking sockets of the Linux stack in a loop, the same code whatever stands between them.
"""

from __future__ import annotations

import random
import socket
import struct
import time

import msgspec

from experiments.errors import ExperimentError

REPLY_TIMEOUT_S = 2
IP_FREEBIND = 15
_TIMEVAL = struct.Struct("@ll")


class EchoConfig(msgspec.Struct, frozen=True):
    """Where to echo."""

    ip: str
    port: int


class LoadConfig(msgspec.Struct, frozen=True):
    """What to ask of each of `targets` (IP and port) in each of `rounds` rounds, after an uncounted one.

    `requests` of `payload_bytes`, `window` of them outstanding; then `lone_requests` one at a time.
    """

    ip: str
    targets: tuple[tuple[str, int], ...]
    rounds: int
    requests: int
    lone_requests: int
    window: int
    payload_bytes: int
    seed: int


class TargetLoad(msgspec.Struct, frozen=True):
    """What one target gave: requests/s in each round, and every lone round trip in seconds."""

    requests_per_s: list[float]
    round_trips_s: list[float]


def echo(config: bytes) -> None:
    """Send every datagram back to where it came from, until killed. `config` is a msgpack EchoConfig."""
    told = msgspec.msgpack.decode(config, type=EchoConfig)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    udp.bind((told.ip, told.port))
    receive, send = udp.recvfrom, udp.sendto
    while True:
        payload, source = receive(1 << 16)
        send(payload, source)


def load(config: bytes) -> bytes:
    """Ask all targets in every round, in an order drawn anew; return a msgpack list of TargetLoad in their order.

    `config` is a msgpack LoadConfig. Raises ExperimentError when a reply is missing or is not what was sent.
    """
    told = msgspec.msgpack.decode(config, type=LoadConfig)
    draw = random.Random(told.seed)
    found = [TargetLoad([], []) for _ in told.targets]
    sockets = [_connected(told.ip, target) for target in told.targets]
    for number in range(-1, told.rounds):
        for index in draw.sample(range(len(sockets)), len(sockets)):
            payload = draw.randbytes(told.payload_bytes)
            seconds = _windowed(sockets[index], payload, told.requests, told.window)
            trips = _one_by_one(sockets[index], payload, told.lone_requests)
            if number >= 0:  # the round before has found routes, neighbours and the switch's flows
                found[index].requests_per_s.append(told.requests / seconds)
                found[index].round_trips_s.extend(trips)
    return msgspec.msgpack.encode(found)


def _connected(ip: str, target: tuple[str, int]) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((ip, 0))
    udp.connect(target)
    # The kernel's timeout: Python's own would cost a call of poll before each recv.
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(REPLY_TIMEOUT_S, 0))
    deadline = time.monotonic() + REPLY_TIMEOUT_S
    while True:
        try:
            udp.send(b"are you there?")
            udp.recv(1 << 16)
            return udp
        except (ConnectionRefusedError, BlockingIOError) as error:  # it may be starting still
            if time.monotonic() > deadline:
                raise ExperimentError(f"{target}: no echo for {REPLY_TIMEOUT_S} s: {error.strerror}") from None
            time.sleep(0.01)


def _windowed(udp: socket.socket, payload: bytes, requests: int, window: int) -> float:
    """Return the seconds that `requests` took with `window` of them outstanding."""
    send, receive = udp.send, udp.recv
    answered = 0
    window = min(window, requests)
    try:
        start = time.perf_counter()
        for _ in range(window):
            send(payload)
        for _ in range(requests - window):
            if receive(1 << 16) != payload:
                raise _wrong(udp)
            send(payload)
            answered += 1
        for _ in range(window):
            if receive(1 << 16) != payload:
                raise _wrong(udp)
            answered += 1
        return time.perf_counter() - start
    except BlockingIOError:
        raise ExperimentError(f"{udp.getpeername()}: {answered} of {requests} requests answered, then none "
                              f"for {REPLY_TIMEOUT_S} s") from None


def _one_by_one(udp: socket.socket, payload: bytes, requests: int) -> list[float]:
    """Return the seconds that each of `requests` took, asked one at a time."""
    trips = []
    for _ in range(requests):
        start = time.perf_counter()
        udp.send(payload)
        try:
            reply = udp.recv(1 << 16)
        except BlockingIOError:
            raise ExperimentError(f"{udp.getpeername()}: no answer for {REPLY_TIMEOUT_S} s") from None
        trips.append(time.perf_counter() - start)
        if reply != payload:
            raise _wrong(udp)
    return trips


def _wrong(udp: socket.socket) -> ExperimentError:
    return ExperimentError(f"{udp.getpeername()}: a reply is not what was sent")
