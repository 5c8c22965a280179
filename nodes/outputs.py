"""What a request's handler gives, on its way to the next instance, to the client or into a log. Pure."""

from __future__ import annotations

from microservices.errors import ServiceError
from microservices.routing import Hop
from nodes.instances import Outlet, RunningInstance
from nodes.messages import KIND_REQUEST, MAX_PAYLOAD, ChannelId, DataMessage
from nodes.transport import Address, Sends

INBOX_LIMIT = 64  # requests that instances of the same node may leave in an instance's queue
TO_CLIENT_AS_ERROR = -2  # beside CLIENT: where an error goes
LOGGED = -3  # and a request's number in the log of a replicated instance
Output = tuple[DataMessage, Address]


class Collector:
    """An outlet that keeps what is offered."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []

    def has_room(self, channel: ChannelId) -> bool:
        return True

    def offer(self, message: DataMessage, to: Address, now: float, out: Sends) -> None:
        self.outputs.append((message, to))

    def consumed(self, channel: ChannelId, now: float) -> None: ...


def onward_of(message: DataMessage, hop: Hop) -> DataMessage:
    """Return the request that `hop` makes of `message` for another instance."""
    return DataMessage(KIND_REQUEST, message.application, hop.instance, message.request_id, message.client_ip,
                       message.client_port, message.hops + 1 & 0xFF, hop.payload, message.instance)


def has_room(instance: RunningInstance, outlet: Outlet) -> bool:
    return (all(len(other.inbox) < INBOX_LIMIT for other in instance.local)
            and all(outlet.has_room(channel) for channel in instance.channels))


def check_output(payload: object) -> None:
    """Raise ServiceError for what fits no message, wherever it goes: a placement must not make it fail or work."""
    if not isinstance(payload, bytes):
        raise ServiceError(f"an output of type {type(payload).__name__}; it must be bytes")
    if len(payload) > MAX_PAYLOAD:
        raise ServiceError(f"an output of {len(payload)} bytes; a message carries at most {MAX_PAYLOAD}")
