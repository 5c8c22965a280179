"""The ends of a channel at a replicated instance: they promise nothing that its backup does not know.

    upstream --> [delivered, not logged | logged] receiver         sender [logged, not sent | in flight] --> downstream
                      `-- arrived, not acknowledged                     '-- numbered as the log has them

What was delivered counts as arrived, and so is not sent again, but is acknowledged only when the backup has the entry
of the request: till then it stays in flight at its sender, who gives it to whoever is promoted. Credit is given as
always. A sending end numbers messages in the order of the log, so a backup can number them alike; a session that begins
anew is told to the log first.
"""

from __future__ import annotations

from collections.abc import Callable

from nodes.channel import BITMAP_BITS, ChannelOptions, Sender
from nodes.channel_images import ReceiverImage
from nodes.channel_receiver import Receiver
from nodes.messages import AckEntry, ChannelId, DataMessage

Restarted = Callable[["LoggedSender", int, list[DataMessage]], None]


class LoggedReceiver(Receiver):
    """A receiving end whose `logged` messages of the present session are known to the backup, and are acknowledged."""

    __slots__ = ("logged",)

    def __init__(self, channel: ChannelId, options: ChannelOptions) -> None:
        super().__init__(channel, options)
        self.logged = 0

    def enter(self, session: int) -> bool:
        if session > self.session:
            self.logged = 0
        return super().enter(session)

    def log(self, session: int, expected: int) -> bool:
        """Note that the backup knows of all before `expected` in `session`; return whether that is news."""
        if session != self.session or expected <= self.logged:
            return False
        self.logged = expected
        return True

    @classmethod
    def of(cls, channel: ChannelId, image: ReceiverImage, options: ChannelOptions, held: int) -> LoggedReceiver:
        made = cls(channel, options)
        made.session, made._expected, made._held = image.session, image.expected, held
        made.logged = image.expected
        return made

    def acknowledgement(self) -> AckEntry:
        """Acknowledge what is logged; what else has come is marked as if it were ahead of order."""
        whole = super().acknowledgement()
        delivered = whole.expected - self.logged
        if not delivered:
            return whole
        bitmap = (1 << delivered - 1) - 1 | whole.bitmap << delivered
        return whole._replace(expected=self.logged, bitmap=bitmap & (1 << BITMAP_BITS) - 1)


class LoggedSender(Sender):
    """A sending end that tells `restarted` of a session that it begins: (itself, how many of the last one had been
    acknowledged, what is to be sent once the backup knows)."""

    __slots__ = ("restarted",)

    def __init__(self, channel: ChannelId, session: int, options: ChannelOptions, now: float) -> None:
        super().__init__(channel, session, options, now)
        self.restarted: Restarted = lambda sender, settled, held: None

    @property
    def settled(self) -> int:
        """How many messages of the session have been acknowledged for good."""
        return self._settled

    @property
    def offered(self) -> int:
        """How many messages of the session were offered."""
        return self._next + len(self._waiting)

    def acknowledged(self, boot: int, entry: AckEntry, now: float, out: list[DataMessage]) -> None:
        if entry.session > self.session:
            # Who served before us began it and died before we knew. What it sent in it, we cannot know: a receiver
            # that had lost its state may get some of it twice.
            self.session = entry.session
            self._restart(now, out)
            return
        super().acknowledged(boot, entry, now, out)

    def _restart(self, now: float, out: list[DataMessage]) -> None:
        settled, held = self._settled, list[DataMessage]()
        super()._restart(now, held)
        self.restarted(self, settled, held)
