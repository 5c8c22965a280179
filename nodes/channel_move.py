"""What of the channels moves with an instance, and how they go on at its new place as if nothing had been.

    upstream W --channel--> [ahead | inbox | state | waiting, in flight] --channel--> downstream Y, clients
                             not moved   `------ moves, as one package ------'

A receiving end moves as (session, next expected) and the messages that it delivered and nobody began, which are in the
inbox; what came ahead of order is still in flight at its sender. A sending end moves whole. Since both move in one
package with the state, and one node goes on from it, every request is executed once and every message sent once.
docs/orchestrator.md says what follows for neighbours, and what is still to be built into the runtime.

These functions reach into Transport, Sender and Receiver, whose methods they are to become.
"""

from __future__ import annotations

import msgspec

from nodes import messages
from nodes.channel import Receiver, Sender, _InFlight
from nodes.errors import NodeError, WireError
from nodes.messages import ChannelId, DataMessage
from nodes.transport import Address, Send, Sends, Transport

BEFORE_ANY_BOOT = -1  # boots are not negative: whoever answers next is taken for one that has begun anew


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


class InboxImage(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A request that was not begun: as on the wire, and whether it came by a channel (else from its old node)."""

    message: bytes
    by_channel: bool
    over_network: bool


class Package(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A frozen instance: all that another node needs to go on with it.

    `snapshot` is its state (microservices/state.py). Channels that begin anew at the new place take a session from
    `session_floor` on, so that they are later than any that began at the old one.
    """

    application: int
    instance: int
    snapshot: bytes
    inbox: list[InboxImage]
    receivers: list[ReceiverImage]
    senders: list[SenderImage]
    session_floor: int

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    def requests(self) -> list[tuple[DataMessage, bool, bool]]:
        """Return the inbox: message, whether it came by a channel, and whether over the network."""
        return [(_data_message(one.message), one.by_channel, one.over_network) for one in self.inbox]


def decode_package(data: bytes, application: int, instance: int) -> Package:
    """Read a package; raises NodeError if it is damaged, of another instance, or does not fit together."""
    try:
        package = msgspec.msgpack.decode(data, type=Package)
        if (package.application, package.instance) != (application, instance):
            raise NodeError(f"a package of {package.application}/{package.instance} for {application}/{instance}")
        held = [m for m, by_channel, _ in package.requests() if by_channel]
        known = {image.sender for image in package.receivers}
        for sender in package.senders:
            numbers = [_data_message(m).sequence for m in sender.in_flight]
            if numbers != list(range(sender.next - len(numbers), sender.next)) or sender.settled > sender.next:
                raise NodeError(f"in flight to {sender.receiver} are {numbers}, next is {sender.next}")
            for one in sender.waiting:
                _data_message(one)
    except (msgspec.MsgspecError, WireError) as error:
        raise NodeError(f"package of {len(data)} bytes: {error}") from error
    if any(m.sender not in known for m in held):
        raise NodeError(f"package of {application}/{instance}: a request by a channel that has no receiving end")
    return package


def take_out(transport: Transport, application: int, instance: int) -> tuple[list[ReceiverImage], list[SenderImage],
                                                                            int]:
    """Take all channel ends of an instance out of `transport`; return them, and the session to begin others with."""
    receivers = [c for c in transport._receivers if (c.application, c.receiver) == (application, instance)]
    senders = [c for c in transport._senders if (c.application, c.sender) == (application, instance)]
    taken, sent, floor = [], [], transport._session
    for channel in receivers:
        receiver, source = transport._receivers.pop(channel), transport._sources.pop(channel)
        taken.append(ReceiverImage(channel.sender, receiver.session, receiver._expected, source.ip, source.port))
        for owed in transport._owed.values():
            owed.pop(channel, None)
    for channel in senders:
        sender, to = transport._senders.pop(channel), transport._addresses.pop(channel)
        transport._busy.discard(channel)
        floor = max(floor, sender.session + 1)
        sent.append(SenderImage(channel.receiver, sender.session, sender._next, sender._settled, sender._edge,
                                sender._peer_boot, [one.message.encode() for one in sender._in_flight.values()],
                                [message.encode() for message in sender._waiting], to.ip, to.port))
    return taken, sent, floor


def put_in(transport: Transport, package: Package, now: float, out: Sends) -> None:
    """Let the channels of a package go on here: what is in flight is sent again at once, and by this node."""
    application, instance = package.application, package.instance
    held = [m.sender for m, by_channel, _ in package.requests() if by_channel]
    for image in package.receivers:
        channel = ChannelId(application, image.sender, instance)
        receiver = transport._receivers[channel] = Receiver(channel, transport.options)
        receiver.session, receiver._expected = image.session, image.expected
        receiver._held = held.count(image.sender)
        transport._sources[channel] = Address(image.ip, image.port)
    transport._session = max(transport._session, package.session_floor)
    for sent in package.senders:
        messages_in_flight = [_data_message(one) for one in sent.in_flight]
        waiting = [_data_message(one) for one in sent.waiting]
        channel = ChannelId(application, instance, sent.receiver)
        sender = transport._senders[channel] = Sender(channel, sent.session, transport.options, now)
        sender._next, sender._settled, sender._edge, sender._peer_boot = (sent.next, sent.settled, sent.edge,
                                                                          sent.peer_boot)
        sender._in_flight = {m.sequence: _InFlight(m, now, tries=2) for m in messages_in_flight}
        sender._waiting.extend(waiting)
        transport._addresses[channel] = Address(sent.ip, sent.port)
        leaving = list(messages_in_flight)
        sender._pump(now, leaving)
        if not sender.idle:
            transport._busy.add(channel)
            transport._expect(sender)
        transport._leave(channel, leaving, now, out)


def redirect(transport: Transport, application: int, instance: int, to: Address, now: float, out: Sends) -> None:
    """Send what is for an instance to `to` from now on, what is in flight once more, and acknowledge there.

    Whoever answers from there first is taken for one that has begun anew: if it has all that was acknowledged the
    session goes on, else a new one begins with what was not.
    """
    for channel, sender in transport._senders.items():
        if (channel.application, channel.receiver) != (application, instance):
            continue
        transport._addresses[channel] = to
        sender._peer_boot, sender._backoff, sender.quiet_since = BEFORE_ANY_BOOT, 1.0, now
        leaving: list[DataMessage] = []
        for sent in sender._in_flight.values():
            sent.arrived = False
            sender._resend(sent, now, leaving)
        if not sender.idle:
            transport._expect(sender)
        transport._leave(channel, leaving, now, out)
    for channel in transport._receivers:
        if (channel.application, channel.sender) == (application, instance):
            old = transport._sources[channel]
            transport._sources[channel] = to
            if channel in transport._owed.get(old, {}):
                transport._owed.setdefault(to, {})[channel] = transport._owed[old].pop(channel)


def loop_back(out: Sends, own_ip: bytes) -> list[Send]:
    """Take out of `out` what this node sent to itself, which no wire carries: after a move two ends may meet here."""
    own = [send for send in out if send.ip == own_ip]
    if own:
        out[:] = [send for send in out if send.ip != own_ip]
    return own


def _data_message(data: bytes) -> DataMessage:
    message = messages.decode(data)
    if not isinstance(message, DataMessage):
        raise WireError(f"{type(message).__name__} where a request or reply should be")
    return message
