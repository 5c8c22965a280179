"""What a load-generating client consists of: its ports, and the requests that it sends."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import cycle, islice

from experiments.clients.load import ClientConfig
from experiments.clients.payload_workload import PayloadWorkload
from microservices.routing import Router
from microservices.workload import Workload
from microservices.workloads import workload_named
from nodes.socket_room import give_room
from nodes.transport import Transport


class Flow:
    """One UDP port of the client: an endpoint with channels of its own."""

    def __init__(self, ip: str, endpoint: int, boot: int) -> None:
        self.endpoint = endpoint
        self.transport = Transport(boot)
        self.sent = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        give_room(self.socket)
        self.socket.bind((ip, 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]


def workload_of(told: ClientConfig) -> Workload:
    """Return what makes and checks the client's requests."""
    if told.payloads:
        return PayloadWorkload(told.payloads)
    return workload_named(told.workload, told.seed, told.payload_bytes, **told.options)


def requests_of(told: ClientConfig, workload: Workload, router: Router) -> Iterator[tuple[bytes, int]]:
    """Yield payloads and the instances they are for; from a pool, none of it takes time during the run."""
    made = ((payload, router.entry(payload)) for payload in workload.requests())
    return cycle(list(islice(made, told.pool))) if told.pool else made
