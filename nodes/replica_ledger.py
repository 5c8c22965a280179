"""What a replicated instance has consumed and sent, entry by entry: alike at its primary and at its backups.

An entry is one request: where it stood on its channel, the changes of state, and what was sent. The outputs of a
channel are counted, from the first, so how many were acknowledged can be told whatever sessions they went in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from nodes.channel_images import ReceiverImage, SenderImage, data_message
from nodes.errors import NodeError, WireError
from nodes.messages import CLIENT_BIT, DataMessage
from nodes.transport import Address


class Way(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A channel that the instance sends on: `settled` of all that was ever sent to `receiver` were acknowledged.

    `begun` is how many had been sent, by the order of the log, when `session` began: its sequence numbers count from
    there.
    """

    receiver: int
    session: int
    begun: int
    settled: int


class Consumed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A request, by its place on the channel from `sender`, who stands at `ip`, `port`."""

    sender: int
    session: int
    sequence: int
    ip: bytes
    port: int


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a request did. Without one, sessions have begun anew: the `ways` say which."""

    consumed: Consumed | None
    changes: bytes
    ways: list[Way]
    outputs: list[bytes]  # messages as on the wire, but for their numbers

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


class Image(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An instance as a joiner gets it."""

    snapshot: bytes
    consumed: list[Consumed]  # of each channel the last
    ways: list[Way]
    unsettled: list[list[bytes]]  # of each way, in order
    addresses: list[tuple[bytes, int]]  # of each way, where its receiver stood last

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def decode_entry(data: bytes) -> Entry:
    """Read an entry; raises NodeError for anything else."""
    try:
        return msgspec.msgpack.decode(data, type=Entry)
    except msgspec.MsgspecError as error:
        raise NodeError(f"entry of {len(data)} bytes: {error}") from error


def decode_image(data: bytes) -> Image:
    """Read an image; raises NodeError for anything else."""
    try:
        image = msgspec.msgpack.decode(data, type=Image)
    except msgspec.MsgspecError as error:
        raise NodeError(f"image of {len(data)} bytes: {error}") from error
    if not len(image.ways) == len(image.unsettled) == len(image.addresses):
        raise NodeError(f"{len(image.ways)} ways, {len(image.unsettled)} rows of messages, "
                        f"{len(image.addresses)} addresses")
    return image


NOWHERE = Address(bytes(4), 0)  # no message to a client yet, which would say where it is


@dataclass(slots=True)
class _Sent:
    """A channel that the instance sends on, as far as the log tells."""

    session: int
    begun: int = 0
    settled: int = 0
    count: int = 0  # of all that was ever sent
    unsettled: deque[DataMessage] = field(default_factory=deque)
    address: Address = NOWHERE


class Ledger:
    """Consumed and sent, as the entries say that were given to `note`."""

    def __init__(self) -> None:
        self._consumed: dict[int, Consumed] = {}
        self._sent: dict[int, _Sent] = {}

    def begun(self, receiver: int) -> int:
        """Return how many messages the log had for `receiver` when the present session began."""
        sent = self._sent.get(receiver)
        return sent.begun if sent is not None else 0

    def note(self, entry: Entry, outputs: Iterable[DataMessage]) -> None:
        """Follow by `entry`, whose outputs are these messages."""
        if entry.consumed is not None:
            self._consumed[entry.consumed.sender] = entry.consumed
        for way in entry.ways:
            sent = self._sent.get(way.receiver)
            if sent is None:
                sent = self._sent[way.receiver] = _Sent(way.session, way.begun, way.begun, way.begun)
            sent.session, sent.begun = way.session, way.begun
            while sent.settled < way.settled and sent.unsettled:
                sent.unsettled.popleft()
                sent.settled += 1
        for message in outputs:
            receiver = message.channel.receiver
            sent = self._sent.get(receiver)
            if sent is None:
                raise NodeError(f"a message for {receiver}, to whom no way is known")
            sent.count += 1
            sent.unsettled.append(message)
            if receiver & CLIENT_BIT:
                sent.address = Address(message.client_ip, message.client_port)

    def image(self, snapshot: bytes) -> bytes:
        """Return this with the state `snapshot`, for a joiner."""
        ways = [Way(receiver, s.session, s.begun, s.settled) for receiver, s in self._sent.items()]
        return Image(snapshot, list(self._consumed.values()), ways,
                     [[m.encode() for m in s.unsettled] for s in self._sent.values()],
                     [(s.address.ip, s.address.port) for s in self._sent.values()]).encode()

    @classmethod
    def of(cls, image: Image) -> Ledger:
        """Return what an image tells; raises NodeError for what is no message."""
        made = cls()
        made._consumed = {c.sender: c for c in image.consumed}
        for way, unsettled, address in zip(image.ways, image.unsettled, image.addresses, strict=True):
            held = deque(messages_of(unsettled))
            made._sent[way.receiver] = _Sent(way.session, way.begun, way.settled, way.settled + len(held), held,
                                             Address(*address))
        return made

    def clients(self) -> list[tuple[bytes, int]]:
        """Return the addresses, each once, of the clients that send to the instance."""
        return list(dict.fromkeys((c.ip, c.port) for c in self._consumed.values() if c.sender & CLIENT_BIT))

    def receivers(self) -> list[ReceiverImage]:
        """Return the receiving ends as they go on where this is promoted."""
        return [ReceiverImage(c.sender, c.session, c.sequence + 1, c.ip, c.port) for c in self._consumed.values()]

    def senders(self, window: int, address_of: Callable[[int], Address | None]) -> list[SenderImage]:
        """Return the sending ends as they go on where this is promoted: what may not be acknowledged goes once more.

        `window` messages may be under way before credit is known. `address_of` tells where other instances stand.
        """
        found = []
        for receiver, s in self._sent.items():
            first = s.settled - s.begun
            flying = [m.numbered(s.session, first + i).encode() for i, m in enumerate(s.unsettled) if i < window]
            waiting = [m.encode() for i, m in enumerate(s.unsettled) if i >= window]
            address = (None if receiver & CLIENT_BIT else address_of(receiver)) or s.address
            found.append(SenderImage(receiver, s.session, first + len(flying), first, first + window, 0, flying,
                                     waiting, *address))
        return found


def messages_of(data: Iterable[bytes]) -> list[DataMessage]:
    """Read messages; raises NodeError for what is none."""
    try:
        return [data_message(one) for one in data]
    except WireError as error:
        raise NodeError(str(error)) from error
