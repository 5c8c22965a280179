"""A lossless, ordered, flow-controlled channel over datagrams that may be lost, doubled, or overtaken.

The two ends are pure state machines, the receiving one in `channel_receiver.py`; `transport.py` gives them addresses
and timers.

    sender    offer -> [waiting] -> (credit) -> [in flight] -> acknowledged
    receiver  [ahead of order] -> delivered in order -> consumed (gives credit)

What arrived ahead of order stays in flight at the sender: a receiver that loses its state loses that, too. As in
TCP, a receiver must be gone for longer than a datagram stays under way (RFC 9293, "quiet time").

Numbering, cumulative and selective acknowledgement and the retransmission timer follow TCP (RFC 9293, 2018,
6298); credit is a window edge, as in HTTP/2 (RFC 9113) but counted in messages. Time is emulated seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from msgspec.structs import replace

from nodes.channel_images import SenderImage, data_message
from nodes.messages import KIND_PROBE, KIND_REPLY_PROBE, TO_CLIENT_KINDS, AckEntry, ChannelId, DataMessage

BITMAP_BITS = 64
OVERTAKEN_S = 1.0  # ours: no acknowledgement is under way for longer
BEFORE_ANY_BOOT = -1  # boots are not negative: whoever answers next is taken for one that has begun anew


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """Ours: the paper says "lossless" and "flow-controlled" and gives no numbers.

    `window` is the most messages that a receiver holds unconsumed; `backlog` how many may wait for credit before
    the sender's microservice is stopped. A retransmission waits for the measured round trip and its variation,
    within `least_rto_s` and `most_rto_s`; `first_rto_s` before anything was measured.
    """

    window: int = 64
    backlog: int = 32
    first_rto_s: float = 1.0
    least_rto_s: float = 0.25
    most_rto_s: float = 4.0
    ack_delay_s: float = 0.02
    ack_every: int = 16


@dataclass(slots=True)
class _InFlight:
    message: DataMessage
    sent_at: float
    tries: int = 1
    arrived: bool = False  # ahead of order, as the receiver said
    passed_over: int = 0  # acknowledgements that named later messages but not this one


class Sender:
    """The sending end of `channel`, starting session `session` with sequence 0."""

    __slots__ = ("_backoff", "_boot_before_move", "_boots", "_edge", "_in_flight", "_moved_at", "_next", "_of_image",
                 "_options", "_peer_boot", "_probed_at", "_rtt", "_rtt_variation", "_settled", "_starved", "_waiting",
                 "channel", "deepest", "heard_at", "quiet_since", "resent", "session")

    def __init__(self, channel: ChannelId, session: int, options: ChannelOptions, now: float) -> None:
        self.channel = channel
        self.session = session
        self._options = options
        self._next = 0  # sequence of the next new message
        self._settled = 0  # every sequence below it has been acknowledged
        self._edge = options.window  # what a receiver that has said nothing yet is sure to take
        self._waiting: deque[DataMessage] = deque()
        self._in_flight: dict[int, _InFlight] = {}  # in order of sequence
        self._peer_boot: int | None = None
        self._boot_before_move: int | None = None  # the last known there, when this end or the receiver moved
        self._moved_at = now  # when this end or the receiver moved last
        self._boots: dict[Hashable, int] = {}  # of each place that the receiver left, the last that was heard
        self.heard_at: Hashable = None  # the place of who acknowledged last
        self._of_image = False  # made of an image, and not heard of the receiver since
        self._rtt: float | None = None
        self._rtt_variation = 0.0
        self._backoff = 1.0
        self._starved = False  # of credit, with nothing in flight whose acknowledgement could bring any
        self._probed_at = now  # since when it is starved, or asked for credit last
        self.resent = 0
        self.deepest = 0  # most messages that ever waited for credit
        self.quiet_since = now  # since when nothing was heard of the receiver

    @property
    def idle(self) -> bool:
        """Whether everything offered has been acknowledged."""
        return not self._in_flight and not self._waiting

    @property
    def has_room(self) -> bool:
        """Whether more may be offered without stretching the backlog; who offers should stop while it has not."""
        return len(self._waiting) < self._options.backlog

    @property
    def waiting(self) -> int:
        """How many messages wait for credit."""
        return len(self._waiting)

    @property
    def outstanding(self) -> int:
        """How many messages are not acknowledged."""
        return len(self._in_flight) + len(self._waiting)

    def offer(self, message: DataMessage, now: float, out: list[DataMessage]) -> None:
        """Take a message for delivery; what may be sent at once is appended to `out`."""
        if self.idle:
            self.quiet_since = now
        self._waiting.append(message)
        self._pump(now, out)

    def acknowledged(self, boot: int, entry: AckEntry, now: float, out: list[DataMessage]) -> None:
        """Take an acknowledgement; a receiver that has lost its state gets everything it owes again."""
        if (entry.session, entry.expected) > (self.session, self._next) and self._of_image:
            # Whoever was made of the same image, or a later one, has sent more than we know, and is gone: what we send
            # would be taken for that.
            self.session = max(self.session, entry.session)
            self._peer_boot, self.quiet_since, self._of_image = boot, now, False
            self._restart(now, out)
            return
        if entry.session != self.session or entry.expected > self._next:
            return
        self._of_image = False
        if self._peer_boot is not None and boot != self._peer_boot:
            if boot < self._peer_boot:
                return  # from the receiver's earlier run, overtaken by one from its present
            if entry.expected < self._settled:
                # Of a run known before the move: overtaken, unless it is still said when nothing can be under way.
                if boot != self._boot_before_move or now - self._moved_at > OVERTAKEN_S:
                    self._peer_boot, self.quiet_since = boot, now
                    self._restart(now, out)
                return
            self._peer_boot, self.quiet_since = boot, now
            # Nothing is missing before what it has, so this session can go on; to begin another would repeat what it
            # has delivered meanwhile. What it does not have may have been lost with its earlier run, or have come to
            # its new place before it did.
            for sent in self._in_flight.values():
                sent.arrived = False
            self._settle(entry, now)
            self._resend_all(now, out)
        self._peer_boot, self.quiet_since = boot, now
        self._settle(entry, now)
        self._edge = max(self._edge, entry.edge)
        if self._is_unsaid(entry):
            self._resend_all(now, out)
        self._resend_overtaken(entry, now, out)
        self._pump(now, out)

    def due(self) -> float | None:
        """Return when `tick` has something to do, None while there is nothing."""
        for sent in self._in_flight.values():
            if not sent.arrived:
                return sent.sent_at + self._timeout()
        return self._probed_at + self._timeout() if self._starved else None

    def tick(self, now: float, out: list[DataMessage]) -> None:
        """Send again what is overdue; ask for credit when waiting for it and nothing is in flight."""
        due = self.due()
        if due is None or now < due:
            return
        if self._in_flight:
            timeout = self._timeout()
            for sent in self._in_flight.values():
                if not sent.arrived and sent.sent_at + timeout <= now:
                    self._resend(sent, now, out)
        else:
            self._probed_at = now
            first = self._waiting[0]
            kind = KIND_REPLY_PROBE if first.kind in TO_CLIENT_KINDS else KIND_PROBE
            out.append(replace(first.numbered(self.session, self._next), kind=kind, payload=b""))
        self._backoff = min(self._backoff * 2, 64.0)

    def image(self, ip: bytes, port: int) -> SenderImage:
        """Return this end as it moves, with where its receiver stands."""
        unheard = self._peer_boot == BEFORE_ANY_BOOT
        return SenderImage(self.channel.receiver, self.session, self._next, self._settled, self._edge,
                           self._boot_before_move if unheard else self._peer_boot,
                           [one.message.encode() for one in self._in_flight.values()],
                           [message.encode() for message in self._waiting], ip, port)

    @classmethod
    def of(cls, channel: ChannelId, image: SenderImage, options: ChannelOptions, now: float) -> Sender:
        """Return the end that was made an image of. `resume` sends what is in flight again."""
        made = cls(channel, image.session, options, now)
        made._next, made._settled, made._edge = image.next, image.settled, image.edge
        # The receiver may not believe us before it is told where we are: its first word shows what it has.
        made._peer_boot = None if image.peer_boot is None else BEFORE_ANY_BOOT
        made._boot_before_move = image.peer_boot
        made._of_image = True
        for message in map(data_message, image.in_flight):
            made._in_flight[message.sequence] = _InFlight(message, now)
        made._waiting.extend(map(data_message, image.waiting))
        return made

    def resume(self, now: float, out: list[DataMessage]) -> None:
        """Go on at a new place: send all that is in flight again at once."""
        self._resend_all(now, out)
        self._pump(now, out)

    def redirect(self, left: Hashable, to: Hashable, now: float, out: list[DataMessage]) -> None:
        """Go on with a receiver that has moved from one place to another: send all that is in flight once more.

        Whoever answers next is taken for one that has begun anew: if it has all that was acknowledged the session goes
        on, else a new one begins with what was not. A run of the new place that was heard before is no such: what it
        seems to lack it had not yet when it said so, and other words of its have overtaken that.
        """
        if self.heard_at is not None and self._peer_boot is not None and self._peer_boot != BEFORE_ANY_BOOT:
            self._boots[self.heard_at] = self._peer_boot
        before = self._boot_before_move if left == to else None
        self._peer_boot, self._boot_before_move = BEFORE_ANY_BOOT, self._boots.get(to, before)
        self._moved_at = now
        self._backoff, self.quiet_since = 1.0, now
        for sent in self._in_flight.values():
            sent.arrived = False
        self._resend_all(now, out)

    def _settle(self, entry: AckEntry, now: float) -> None:
        """Forget what is acknowledged for good, and mark what has arrived ahead of order."""
        last = entry.expected + entry.bitmap.bit_length()
        news = False
        for sequence in [s for s in self._in_flight if s <= last]:
            if sequence >= entry.expected and not _has(entry, sequence):
                continue
            sent = self._in_flight[sequence]
            if not sent.arrived:
                sent.arrived = news = True
                if sent.tries == 1:  # Karn: a repeated message's answer may be to either
                    self._measured(now - sent.sent_at)
            if sequence < entry.expected:
                del self._in_flight[sequence]
        self._settled = max(self._settled, entry.expected)
        if news:
            self._backoff = 1.0

    def _is_unsaid(self, entry: AckEntry) -> bool:
        """Whether the receiver lacks what it said had arrived ahead of order; then only `entry` is believed of that.

        So it is if the message that it expects is one of those. A receiver that was frozen and goes on in the same run
        has lost them (RFC 2018, section 8, calls it reneging; Linux tells it by the same sign).
        """
        first = next(iter(self._in_flight.values()), None)
        if first is None or not first.arrived:
            return False
        for sequence, sent in self._in_flight.items():
            sent.arrived = entry.expected == self._settled and _has(entry, sequence)
        return True

    def _pump(self, now: float, out: list[DataMessage]) -> None:
        while self._waiting and self._next < self._edge:
            message = self._waiting.popleft().numbered(self.session, self._next)
            self._in_flight[self._next] = _InFlight(message, now)
            self._next += 1
            out.append(message)
        self.deepest = max(self.deepest, len(self._waiting))
        starved = bool(self._waiting) and not self._in_flight
        if starved and not self._starved:
            self._probed_at = now
        self._starved = starved

    def _resend(self, sent: _InFlight, now: float, out: list[DataMessage]) -> None:
        sent.sent_at = now
        sent.tries += 1
        sent.passed_over = 0
        self.resent += 1
        out.append(sent.message)

    def _resend_all(self, now: float, out: list[DataMessage]) -> None:
        for sent in self._in_flight.values():
            if not sent.arrived:
                self._resend(sent, now, out)

    def _resend_overtaken(self, entry: AckEntry, now: float, out: list[DataMessage]) -> None:
        if not entry.bitmap:
            return
        last = entry.expected + entry.bitmap.bit_length()
        for sequence, sent in self._in_flight.items():
            if sequence >= last:
                break
            if sent.arrived:
                continue
            sent.passed_over += 1
            if sent.passed_over >= 3 and sent.tries == 1:
                self._resend(sent, now, out)

    def _restart(self, now: float, out: list[DataMessage]) -> None:
        """Begin a new session with everything that is not settled."""
        self.session = self.session + 1 & 0xFFFFFFFF
        self._waiting.extendleft([sent.message for sent in self._in_flight.values()][::-1])
        self._in_flight.clear()
        self._next = self._settled = 0
        self._edge = self._options.window
        self._backoff = 1.0
        self._pump(now, out)

    def _measured(self, rtt: float) -> None:
        if self._rtt is None:
            self._rtt, self._rtt_variation = rtt, rtt / 2
        else:
            self._rtt_variation += (abs(self._rtt - rtt) - self._rtt_variation) / 4
            self._rtt += (rtt - self._rtt) / 8

    def _timeout(self) -> float:
        options = self._options
        measured = options.first_rto_s if self._rtt is None else self._rtt + 4 * self._rtt_variation
        return min(options.most_rto_s, max(options.least_rto_s, measured) * self._backoff)


def _has(entry: AckEntry, sequence: int) -> bool:
    bit = sequence - entry.expected - 1
    return 0 <= bit < BITMAP_BITS and bool(entry.bitmap >> bit & 1)
