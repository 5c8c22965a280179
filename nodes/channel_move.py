"""A frozen instance as one package: its state, its inbox, and the ends of its channels.

    upstream W --channel--> [ahead | inbox | state | waiting, in flight] --channel--> downstream Y, clients
                             not moved   `------ moves, as one package ------'

Since all of it moves in one package, and one node goes on from it, every request is executed once and every message
sent once. docs/orchestrator.md says what follows for neighbours.
"""

from __future__ import annotations

import msgspec

from nodes.channel_images import ReceiverImage, SenderImage, data_message
from nodes.errors import NodeError, WireError
from nodes.messages import DataMessage
from nodes.transport import Sends


class InboxImage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A request that was not begun: as on the wire, and whether it came by a channel (else from its old node)."""

    message: bytes
    by_channel: bool
    over_network: bool


class PlaceImage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where an instance of the same application stands, by the decision `epoch`."""

    instance: int
    epoch: int
    ip: bytes


class Package(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A frozen instance: all that another node needs to go on with it.

    `snapshot` is its state (microservices/state.py). Channels that begin anew at the new place take a session from
    `session_floor` on, so that they are later than any that began at the old one. `places` are those of its
    neighbours: when they moved, the new node was not told, if nothing was on it that they have to do with.
    """

    application: int
    instance: int
    snapshot: bytes
    inbox: list[InboxImage]
    receivers: list[ReceiverImage]
    senders: list[SenderImage]
    session_floor: int
    places: list[PlaceImage]

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def requests(self) -> list[tuple[DataMessage, bool, bool]]:
        """Return the inbox: message, whether it came by a channel, and whether over the network."""
        return [(data_message(one.message), one.by_channel, one.over_network) for one in self.inbox]


def decode_package(data: bytes, application: int, instance: int) -> Package:
    """Read a package; raises NodeError if it is damaged, of another instance, or does not fit together."""
    try:
        package = msgspec.msgpack.decode(data, type=Package)
        if (package.application, package.instance) != (application, instance):
            raise NodeError(f"a package of {package.application}/{package.instance} for {application}/{instance}")
        held = [m for m, by_channel, _ in package.requests() if by_channel]
        known = {image.sender for image in package.receivers}
        for sender in package.senders:
            sender.check()
    except (msgspec.MsgspecError, WireError) as error:
        raise NodeError(f"package of {len(data)} bytes: {error}") from error
    if any(m.sender not in known for m in held):
        raise NodeError(f"package of {application}/{instance}: a request by a channel that has no receiving end")
    return package


def loop_back(out: Sends, own_ip: bytes) -> Sends:
    """Take out of `out` what this node sent to itself, which no wire carries: after a move two ends may meet here."""
    own = [send for send in out if send.ip == own_ip]
    if own:
        out[:] = [send for send in out if send.ip != own_ip]
    return own
