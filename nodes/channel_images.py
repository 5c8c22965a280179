"""The two ends of a channel as they move with their instance: nouns, and what belongs together in them.

A receiving end moves as (session, next expected): what it delivered and nobody began is in the instance's inbox, and
what came ahead of order is still in flight at its sender. A sending end moves whole.
"""

from __future__ import annotations

import msgspec

from nodes import messages
from nodes.errors import NodeError, WireError
from nodes.messages import DataMessage


class ReceiverImage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The receiving end of a channel. Its sender stands at `ip`, `port`."""

    sender: int
    session: int
    expected: int
    ip: bytes
    port: int


class SenderImage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The sending end of a channel to whoever stands at `ip`, `port`; messages as on the wire."""

    receiver: int
    session: int
    next: int
    settled: int
    edge: int
    peer_boot: int | None
    in_flight: list[bytes]
    waiting: list[bytes]
    ip: bytes
    port: int

    def check(self) -> None:
        """Raise NodeError if the numbers do not fit together, WireError for what is no message."""
        numbers = [data_message(m).sequence for m in self.in_flight]
        if numbers != list(range(self.next - len(numbers), self.next)) or self.settled > self.next:
            raise NodeError(f"in flight to {self.receiver} are {numbers}, next is {self.next}")
        for one in self.waiting:
            data_message(one)


def data_message(data: bytes) -> DataMessage:
    """Read a message that a channel carries; raises WireError for any other."""
    message = messages.decode(data)
    if not isinstance(message, DataMessage):
        raise WireError(f"{type(message).__name__} where a request or reply should be")
    return message
