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
from microservices.service import REPLY, Microservice, Request, new_service
from microservices.sharding import slot_of, slot_owners

from nodes import messages
from nodes.deployment import Deployment, Instance, Stage
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


class _Channel:
    """The way to one successor stage: which of its shards a payload belongs to."""

    __slots__ = ("key_of", "owners", "shards", "stage")

    def __init__(self, stage: Stage, service: Microservice) -> None:
        self.stage = stage.name
        self.shards = stage.shards
        self.owners = slot_owners(len(stage.shards))
        self.key_of = service.key_of

    def instance_for(self, payload: bytes) -> int:
        if len(self.shards) == 1:
            return self.shards[0]
        return self.shards[self.owners[slot_of(self.key_of(payload))]]


class _Running:
    """An instance at work: its service, its state, and its channels."""

    __slots__ = ("channels", "errors", "handled", "instance", "service", "state")

    def __init__(self, instance: Instance, service: Microservice, channels: list[_Channel]) -> None:
        self.instance = instance
        self.service = service
        self.state = service.new_state()
        self.channels = channels
        self.handled = self.errors = 0


class Execution:
    """All instances that run on `node`, of every deployment. Raises ServiceError for a service there is not."""

    def __init__(self, node: str, deployments: tuple[Deployment, ...] = ()) -> None:
        self._running: dict[tuple[int, int], _Running] = {}
        self._addresses: dict[tuple[int, int], bytes] = {}
        self._names = {d.number: d.application for d in deployments}
        self._unknown = 0
        for deployment in deployments:
            stages = {stage.name: stage for stage in deployment.stages}
            services = {stage.name: new_service(stage.service, **stage.options) for stage in deployment.stages}
            for instance in deployment.instances:
                key = (deployment.number, instance.number)
                self._addresses[key] = IPv4Address(instance.ip).packed
                if instance.node == node:
                    channels = [_Channel(stages[name], services[name]) for name in stages[instance.stage].successors]
                    self._running[key] = _Running(instance, services[instance.stage], channels)

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
        for (application, _), running in self._running.items():
            found[f"handled {self._names[application]}/{running.instance.name}"] = running.handled
            found[f"errors {self._names[application]}/{running.instance.name}"] = running.errors
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
        except Exception as error:  # whatever a user's handler raises must not end the node
            running.errors += 1
            if not isinstance(error, ServiceError):
                log.exception("%s/%s failed on a request", self._names[message.application], running.instance.name)
            why = str(error) or type(error).__name__
            sends.append(_to_client(message, KIND_ERROR, why.encode()[:MAX_ERROR_BYTES]))
            return
        for output in outputs:
            to = output.to
            if to == REPLY or not running.channels:
                sends.append(_to_client(message, KIND_REPLY, output.payload))
                continue
            for channel in running.channels:
                if to is None or to == channel.stage:
                    self._forward(message, channel.instance_for(output.payload), output.payload, work, sends)

    def _forward(self, message: DataMessage, number: int, payload: bytes, work: deque[DataMessage],
                 sends: list[Send]) -> None:
        onward = DataMessage(KIND_REQUEST, message.application, number, message.request_id, message.client_ip,
                             message.client_port, message.hops + 1, payload)
        key = (message.application, number)
        if key in self._running:
            work.append(onward)
        else:
            sends.append(Send(self._addresses[key], DATA_PORT, onward.encode()))


def _to_client(message: DataMessage, kind: int, payload: bytes) -> Send:
    reply = DataMessage(kind, message.application, message.instance, message.request_id, message.client_ip,
                        message.client_port, message.hops + 1, payload)
    return Send(message.client_ip, message.client_port, reply.encode())
