"""The execution engine of one compute node: a message in, its microservice run to completion, messages out.

Instances on the same node hand each other work through an in-memory queue; what is for another node leaves
as a message. A handler that raises becomes an error reply to the client, never a silent drop.
"""

from __future__ import annotations

import logging
from collections import deque
from ipaddress import IPv4Address
from typing import NamedTuple

from microservices.errors import ServiceError
from microservices.routing import CLIENT, Router
from microservices.service import Microservice, Request
from microservices.state import State
from nodes import messages
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.messages import KIND_ERROR, KIND_REPLY, KIND_REQUEST, DataMessage
from topologies.addressing import DATA_PORT

MAX_ERROR_BYTES = 200
log = logging.getLogger(__name__)


class Send(NamedTuple):
    """A message that leaves this node: to `ip` (4 bytes), UDP `port`."""

    ip: bytes
    port: int
    data: bytes


class _Running:
    """An instance at work."""

    __slots__ = ("answering", "errors", "handled", "name", "router", "service", "state")

    def __init__(self, name: str, service: Microservice, router: Router, answering: bool) -> None:
        self.name = name
        self.service = service
        self.router = router
        self.answering = answering  # on the way to the reply, not on a side branch
        self.state: State = service.new_state()
        self.handled = self.errors = 0


class Execution:
    """All instances that run on `node`, of every deployment. Raises ServiceError for a service there is not."""

    def __init__(self, node: str, deployments: tuple[Deployment, ...] = ()) -> None:
        self._running: dict[tuple[int, int], _Running] = {}
        self._addresses: dict[tuple[int, int], bytes] = {}
        self._unknown = 0
        for deployment in deployments:
            application = deployment.application()
            router = Router(application)
            instances = {i.number: i for i in application.instances}
            for place in deployment.places:
                key = (deployment.number, place.number)
                self._addresses[key] = IPv4Address(place.ip).packed
                if place.node == node:
                    instance = instances[place.number]
                    self._running[key] = _Running(f"{application.name}/{instance.name}",
                                                  router.services[instance.stage], router,
                                                  instance.stage in application.answering)

    def handle(self, payload: bytes, now: float) -> list[Send]:
        """Take the message in a datagram and return what must be sent; raises WireError if it is no request.

        `now` is emulated time in seconds, which handlers see.
        """
        message = messages.decode(payload)
        if not isinstance(message, DataMessage) or message.kind != KIND_REQUEST:
            raise WireError("not a request")
        sends: list[Send] = []
        work = deque((message,))
        while work:
            self._step(work.popleft(), now, work, sends)
        return sends

    def counters(self) -> dict[str, int]:
        """Return requests handled and failed per instance, by "handled APPLICATION/INSTANCE"."""
        found = {"dropped_unknown_instance": self._unknown}
        for running in self._running.values():
            found[f"handled {running.name}"] = running.handled
            found[f"errors {running.name}"] = running.errors
        return found

    def _step(self, message: DataMessage, now: float, work: deque[DataMessage], sends: list[Send]) -> None:
        running = self._running.get((message.application, message.instance))
        if running is None:
            self._unknown += 1
            sends.append(_to_client(message, KIND_ERROR, b"no such instance on this node"))
            return
        running.handled += 1
        try:
            outputs = running.service.handle(Request(message.payload, now), running.state)
            hops = running.router.next(message.instance, outputs)
        except Exception as error:  # whatever a user's handler raises must not end the node
            running.errors += 1
            if not isinstance(error, ServiceError):
                log.exception("%s failed on a request", running.name)
            if running.answering:
                why = str(error) or type(error).__name__
                sends.append(_to_client(message, KIND_ERROR, why.encode()[:MAX_ERROR_BYTES]))
            return
        for data, number in hops:
            if number == CLIENT:
                sends.append(_to_client(message, KIND_REPLY, data))
                continue
            onward = DataMessage(KIND_REQUEST, message.application, number, message.request_id, message.client_ip,
                                 message.client_port, message.hops + 1, data)
            key = (message.application, number)
            if key in self._running:
                work.append(onward)
            else:
                sends.append(Send(self._addresses[key], DATA_PORT, onward.encode()))


def _to_client(message: DataMessage, kind: int, payload: bytes) -> Send:
    reply = DataMessage(kind, message.application, message.instance, message.request_id, message.client_ip,
                        message.client_port, message.hops + 1, payload)
    return Send(message.client_ip, message.client_port, reply.encode())
