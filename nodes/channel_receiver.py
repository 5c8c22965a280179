"""The receiving end of a channel: order, credit, and what is acknowledged. The sending end is in `channel.py`."""

from __future__ import annotations

from nodes.channel import BITMAP_BITS, ChannelOptions
from nodes.channel_images import ReceiverImage
from nodes.messages import AckEntry, ChannelId, DataMessage


class Receiver:
    """The receiving end of one channel: puts messages in order, once each, and says what it has."""

    __slots__ = ("_ahead", "_expected", "_held", "_options", "_since_told", "channel", "deepest", "doubled", "refused",
                 "session")

    def __init__(self, channel: ChannelId, options: ChannelOptions) -> None:
        self.channel = channel
        self.session = -1
        self._options = options
        self._expected = 0  # the next sequence to deliver
        self._ahead: dict[int, DataMessage] = {}
        self._held = 0  # delivered and not yet consumed, in whichever session
        self._since_told = 0  # consumed since the sender was last told
        self.doubled = self.refused = 0
        self.deepest = 0  # most messages that were ever held here, ahead of order or not consumed

    def enter(self, session: int) -> bool:
        """Begin `session` if it is newer than the present one; return whether it is the present one now."""
        if session > self.session:
            self.session = session
            self._expected = 0
            self._ahead.clear()
        return session == self.session

    def refuse(self, message: DataMessage) -> list[int]:
        """Do not take a message; return its request's id, and those of what came ahead of it; [] if it was taken."""
        if (message.session, message.sequence) < (self.session, self._expected):
            return []
        behind = self._ahead.values() if message.session == self.session else ()
        return list(dict.fromkeys([message.request_id, *(one.request_id for one in behind)]))

    def receive(self, message: DataMessage) -> list[DataMessage]:
        """Take a message and return those that are now in order, each for the first and only time."""
        if not self.enter(message.session):
            return []  # from before the sender's restart
        sequence = message.sequence
        if sequence < self._expected or sequence in self._ahead:
            self.doubled += 1
            return []
        if sequence >= self._edge:
            self.refused += 1  # beyond the credit that it has
            return []
        ready = []
        if sequence > self._expected:
            self._ahead[sequence] = message
        else:
            ready.append(message)
            self._expected += 1
            while self._expected in self._ahead:
                ready.append(self._ahead.pop(self._expected))
                self._expected += 1
            self._held += len(ready)
        self.deepest = max(self.deepest, self._held + len(self._ahead))
        return ready

    def consumed(self) -> bool:
        """Note that a delivered message was taken by its microservice; return whether to tell the sender soon.

        Soon is when the sender may be short of credit: half of the window has been used up since it was told.
        """
        self._held -= 1
        self._since_told += 1
        if self._since_told < max(1, self._options.window // 2):
            return False
        self._since_told = 0
        return True

    def image(self, ip: bytes, port: int) -> ReceiverImage:
        """Return this end as it moves, with where its sender stands."""
        return ReceiverImage(self.channel.sender, self.session, self._expected, ip, port)

    @classmethod
    def of(cls, channel: ChannelId, image: ReceiverImage, options: ChannelOptions, held: int) -> Receiver:
        """Return the end that was made an image of; `held` of its messages are in the inbox."""
        made = cls(channel, options)
        made.session, made._expected, made._held = image.session, image.expected, held
        return made

    @property
    def in_order(self) -> bool:
        """Whether nothing is missing before what has arrived."""
        return not self._ahead

    @property
    def _edge(self) -> int:
        return max(0, self._expected + self._options.window - self._held)

    def acknowledgement(self) -> AckEntry:
        bitmap = 0
        for sequence in self._ahead:
            bit = sequence - self._expected - 1
            if bit < BITMAP_BITS:
                bitmap |= 1 << bit
        return AckEntry(self.channel, self.session, self._expected, bitmap, self._edge)
