"""All channels of one node: finds the channel of each datagram, bundles acknowledgements, keeps the timers.

Pure: datagrams come in with their source and leave tagged with their destination; `now` is emulated seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from nodes.channel import ChannelOptions, Sender
from nodes.channel_images import ReceiverImage, SenderImage
from nodes.channel_logged import LoggedReceiver, LoggedSender, Restarted
from nodes.channel_receiver import Receiver
from nodes.messages import (
    CLIENT_BIT,
    MAX_ACK_ENTRIES,
    PROBE_KINDS,
    AckEntry,
    AckMessage,
    ChannelId,
    DataMessage,
    stamp_of,
)

CLIENT_GIVE_UP_S = 30.0  # ours: a client that says nothing for so long has gone, and its replies with it
CLIENT_BACKLOG = 4096  # ours: a client that lets so many replies wait for credit has stopped reading them
TIMER_GRAIN_S = 0.005
AT_ONCE = float("-inf")  # before all times: at the next tick


class Address(NamedTuple):
    """Where a datagram goes: an IPv4 address of 4 bytes and a UDP port."""

    ip: bytes
    port: int


class Send(NamedTuple):
    """A datagram that leaves this node."""

    ip: bytes
    port: int
    data: bytes


Sends = list[Send]


class Transport:
    """The channels that begin or end here. `boot` must differ from that of any earlier run of this node, and grow."""

    def __init__(self, boot: int, options: ChannelOptions | None = None) -> None:
        self.boot = boot & 0x7FFFFFFF
        self.options = options or ChannelOptions()
        self._senders: dict[ChannelId, Sender] = {}
        self._addresses: dict[ChannelId, Address] = {}
        self._receivers: dict[ChannelId, Receiver] = {}
        self._sources: dict[ChannelId, Address] = {}
        self._busy: set[ChannelId] = set()  # senders with something in flight or waiting
        self._owed: dict[Address, dict[ChannelId, int]] = {}  # acknowledgements, and how many messages each covers
        self._owed_at: float | None = None  # when the oldest of them must leave
        self._urgent: dict[Address, None] = {}  # who must hear at once, the others not; in the order of their claims
        self._urgent_at = 0.0
        self._timers_at = 0.0
        self._earliest: float | None = None  # no sender has anything to repeat before; None: none will
        self._session = self.boot  # of the next channel to begin here
        self._resent_before = self._doubled_before = self._refused_before = 0  # on channels that were given up, or left
        self.gave_up = 0
        # Asked once about a channel that nobody here has the receiving end of: whether one is to begin.
        self.admits: Callable[[Address, ChannelId, Sends], bool] = lambda source, channel, out: True
        self.replicated: set[tuple[int, int]] = set()  # instances whose ends promise only what their log has
        self.restarted: Restarted = lambda sender, settled, held: None  # see LoggedSender
        self.forged = 0  # acknowledgements from somebody who is not at the channel's other end

    def offer(self, message: DataMessage, to: Address, now: float, out: Sends) -> None:
        """Send `message` on its channel, in order and once, to whoever stands at `to`."""
        channel = message.channel
        sender = self._senders.get(channel)
        if sender is None:
            sender = self._senders[channel] = Sender(channel, self._session, self.options, now)
        self._addresses[channel] = to
        self._busy.add(channel)
        leaving: list[DataMessage] = []
        sender.offer(message, now, leaving)
        self._expect(sender)
        self._leave(channel, leaving, now, out)

    def renew(self, boot: int) -> None:
        """Count as a later run from now on: what begins here now may stand in for what ran on another node before."""
        self.boot = max(self.boot, boot & 0x7FFFFFFF)
        self._session = max(self._session, self.boot)

    def redirect(self, application: int, instance: int, to: Address, now: float, out: Sends) -> None:
        """Go on with an instance that stands at `to` from now on: send there what is in flight, and acknowledge there.

        Both ends may find each other in any order: what came before it was believed is sent again as soon as the other
        end is heard of.
        """
        for channel, sender in self._senders.items():
            if (channel.application, channel.receiver) != (application, instance):
                continue
            left, self._addresses[channel] = self._addresses[channel], to
            leaving: list[DataMessage] = []
            sender.redirect(left, to, now, leaving)
            if not sender.idle:
                self._expect(sender)
            self._leave(channel, leaving, now, out)
        for channel in self._receivers:
            if (channel.application, channel.sender) == (application, instance):
                self._owe_no_more(channel)
                self._sources[channel] = to
                self._owe(to, channel, now, at_once=True)

    def take_out(self, application: int, instance: int) -> tuple[list[SenderImage], int]:
        """Take an instance's sending ends out; return them, and the least session to begin others with elsewhere."""
        taken, floor = [], self._session
        for channel in [c for c in self._senders if (c.application, c.sender) == (application, instance)]:
            sender, to = self._senders.pop(channel), self._addresses.pop(channel)
            self._busy.discard(channel)
            self._resent_before += sender.resent
            floor = max(floor, sender.session + 1)
            taken.append(sender.image(*to))
        return taken, floor

    def take_out_receivers(self, application: int, instance: int) -> list[ReceiverImage]:
        """Take an instance's receiving ends out: from now on nothing is acknowledged in its name."""
        taken = []
        for channel in [c for c in self._receivers if (c.application, c.receiver) == (application, instance)]:
            self._owe_no_more(channel)
            receiver = self._receivers.pop(channel)
            self._doubled_before += receiver.doubled
            self._refused_before += receiver.refused
            taken.append(receiver.image(*self._sources.pop(channel)))
        return taken

    def put_in(self, application: int, instance: int, senders: Iterable[SenderImage], session_floor: int, now: float,
               out: Sends) -> None:
        """Let the sending ends of an instance go on here; what is in flight is sent again at once."""
        self._session = max(self._session, session_floor)
        kind = LoggedSender if (application, instance) in self.replicated else Sender
        for image in senders:
            channel = ChannelId(application, instance, image.receiver)
            sender = self._senders[channel] = kind.of(channel, image, self.options, now)
            if isinstance(sender, LoggedSender):
                sender.restarted = self.restarted
            self._addresses[channel] = Address(image.ip, image.port)
            leaving: list[DataMessage] = []
            sender.resume(now, leaving)
            if not sender.idle:
                self._busy.add(channel)
                self._expect(sender)
            self._leave(channel, leaving, now, out)

    def put_in_receivers(self, application: int, instance: int, receivers: Iterable[ReceiverImage],
                         held: Mapping[int, int], now: float) -> None:
        """Let the receiving ends of an instance go on here; `held` says how many messages of each sender it still has.

        Their senders are told at once what has come.
        """
        kind = LoggedReceiver if (application, instance) in self.replicated else Receiver
        for image in receivers:
            channel, source = ChannelId(application, image.sender, instance), Address(image.ip, image.port)
            self._receivers[channel] = kind.of(channel, image, self.options, held.get(image.sender, 0))
            self._sources[channel] = source
            self._owe(source, channel, now, at_once=True)

    def unheard(self) -> list[tuple[ChannelId, float]]:
        """Return the channels that begin here on which something is under way, and since when nothing was heard."""
        return [(channel, self._senders[channel].quiet_since) for channel in self._busy]

    def is_idle(self, channel: ChannelId) -> bool:
        """Whether nothing is under way on a channel that begins here."""
        return channel not in self._busy

    def readdress(self, application: int, receiver: int, to: Address) -> None:
        """Send what is under way to an instance to where it is now, when it is to be sent again."""
        for channel in self._addresses:
            if channel.application == application and channel.receiver == receiver:
                self._addresses[channel] = to

    def has_room(self, channel: ChannelId) -> bool:
        """Whether who feeds `channel` may go on."""
        sender = self._senders.get(channel)
        return sender is None or sender.has_room

    def receive(self, source: Address, message: DataMessage, now: float, out: Sends) -> list[DataMessage]:
        """Take a data message or probe from `source`; return what is now in order, each for the first time."""
        channel = message.channel
        receiver = self._receivers.get(channel)
        if receiver is None:
            if not self.admits(source, channel, out):
                return []
            kind = LoggedReceiver if (channel.application, channel.receiver) in self.replicated else Receiver
            receiver = self._receivers[channel] = kind(channel, self.options)
        self._sources[channel] = source
        if message.kind in PROBE_KINDS:
            if receiver.enter(message.session):
                self._owe(source, channel, now, at_once=True)
                self._send_owed(source, out)
            return []
        ready = receiver.receive(message)
        covered = self._owe(source, channel, now, at_once=not ready or not receiver.in_order)
        if covered >= self.options.ack_every:
            self._send_owed(source, out)
        return ready

    def refuse(self, message: DataMessage) -> list[int]:
        """Do not take a request; return the ids of what is not taken with it, none where it was taken before."""
        receiver = self._receivers.get(message.channel)
        return [message.request_id] if receiver is None else receiver.refuse(message)

    def outstanding(self, application: int) -> int:
        """Return how many messages of an application left, or are to leave, here and are not acknowledged."""
        return sum(self._senders[channel].outstanding for channel in self._busy if channel.application == application)

    def clients(self, application: int) -> list[Address]:
        """Return where the clients stand, each once, from whom messages came to an application's instances here."""
        return list(dict.fromkeys(source for channel, source in self._sources.items()
                                  if channel.application == application and channel.sender & CLIENT_BIT))

    def forget(self, application: int) -> None:
        """Take all ends of an application's channels away. What begins later counts as later."""
        for instance in {channel.receiver for channel in self._receivers if channel.application == application}:
            self.take_out_receivers(application, instance)
        for instance in {channel.sender for channel in self._senders if channel.application == application}:
            self._session = max(self._session, self.take_out(application, instance)[1])

    def consumed(self, channel: ChannelId, now: float) -> None:
        """Note that a delivered message of `channel` was taken, which gives its sender credit."""
        if self._receivers[channel].consumed():
            self._owe(self._sources[channel], channel, now, at_once=True)

    def logged_sender(self, channel: ChannelId, to: Address, now: float) -> LoggedSender:
        """Return the sending end of a replicated instance's channel to who stands at `to`, made if there is none."""
        sender = self._senders.get(channel)
        if sender is None:
            sender = self._senders[channel] = LoggedSender(channel, self._session, self.options, now)
            sender.restarted = self.restarted
            self._addresses[channel] = to
        assert isinstance(sender, LoggedSender)
        return sender

    def source_of(self, channel: ChannelId) -> Address:
        """Return where the sender of a channel that ends here stands."""
        return self._sources[channel]

    def logged(self, channel: ChannelId, session: int, expected: int, now: float) -> None:
        """Note that what came on a replicated instance's channel before `expected` is known to its backup."""
        receiver = self._receivers.get(channel)
        if isinstance(receiver, LoggedReceiver) and receiver.log(session, expected):
            self._owe(self._sources[channel], channel, now, at_once=False)

    def send_held(self, channel: ChannelId, held: list[DataMessage], now: float, out: Sends) -> None:
        """Send what a sending end gave to `restarted`, now that the backup knows; it repeats the rest by itself."""
        if channel in self._senders:
            self._leave(channel, held, now, out)

    def acknowledge(self, source: Address, message: AckMessage, now: float, out: Sends) -> None:
        """Take acknowledgements from `source` of channels that begin here and end there."""
        for entry in message.entries:
            sender = self._senders.get(entry.channel)
            if sender is None:
                continue
            if self._addresses[entry.channel] != source:
                self.forged += 1
                continue
            sender.heard_at = source
            leaving: list[DataMessage] = []
            sender.acknowledged(message.boot, entry, now, leaving)
            self._leave(entry.channel, leaving, now, out)
            if sender.idle:
                self._busy.discard(entry.channel)
            else:
                self._expect(sender)

    def tick(self, now: float, out: Sends) -> None:
        """Do what is due: acknowledgements that have waited long enough, and messages to repeat."""
        if self._urgent:
            for address in self._urgent:
                self._send_owed(address, out)
            self._urgent.clear()
        if self._owed_at is not None and now >= self._owed_at:
            self.flush(out)
        if now < self._timers_at or self._earliest is None or now < self._earliest:
            return
        self._timers_at = now + TIMER_GRAIN_S
        self._earliest = None
        for channel in list(self._busy):
            sender = self._senders[channel]
            if channel.receiver & CLIENT_BIT and (now - sender.quiet_since > CLIENT_GIVE_UP_S
                                                  or sender.waiting > CLIENT_BACKLOG):
                self._give_up(channel)
                continue
            leaving: list[DataMessage] = []
            sender.tick(now, leaving)
            self._expect(sender)
            self._leave(channel, leaving, now, out)

    def flush(self, out: Sends) -> None:
        """Send every acknowledgement that is owed, before its time: for an end that is about to go."""
        for address in list(self._owed):
            self._send_owed(address, out)
        self._owed_at = None
        self._urgent.clear()

    def due(self) -> float | None:
        """Return when `tick` has something to do; None while nothing is under way."""
        repeats_at = max(self._earliest, self._timers_at) if self._busy and self._earliest is not None else None
        times = [t for t in (repeats_at, self._owed_at, self._urgent_at if self._urgent else None) if t is not None]
        return min(times) if times else None

    def _expect(self, sender: Sender) -> None:
        """Note when `sender` may have something to repeat: too early is no harm, `tick` looks again."""
        due = AT_ONCE if sender.waiting > CLIENT_BACKLOG else sender.due()
        if due is not None and (self._earliest is None or due < self._earliest):
            self._earliest = due

    @property
    def idle(self) -> bool:
        """Whether all that was offered has been acknowledged and nothing is owed."""
        return not self._busy and not self._owed

    def counters(self) -> dict[str, int]:
        """Return totals over all channels, and of "deepest" the most of any."""
        senders, receivers = self._senders.values(), self._receivers.values()
        return {"channel_resent": self._resent_before + sum(s.resent for s in senders),
                "channel_doubled": self._doubled_before + sum(r.doubled for r in receivers),
                "channel_beyond_credit": self._refused_before + sum(r.refused for r in receivers),
                "channel_deepest_backlog": max((s.deepest for s in senders), default=0),
                "channel_deepest_window": max((r.deepest for r in receivers), default=0),
                "channel_forged": self.forged,
                "channel_clients_gone": self.gave_up}

    def _give_up(self, channel: ChannelId) -> None:
        """Forget a client that is gone. Should it come back, the channel begins again in a later session."""
        sender = self._senders.pop(channel)
        self._busy.discard(channel)
        if isinstance(sender, LoggedSender):  # what is in the log for it is still to be offered
            made = self._senders[channel] = LoggedSender(channel, sender.session + 1, self.options, sender.quiet_since)
            made.restarted = self.restarted
            made.restarted(made, sender.offered, [])
        else:
            del self._addresses[channel]
        self._session = max(self._session, sender.session + 1)
        self._resent_before += sender.resent
        self.gave_up += 1

    def _leave(self, channel: ChannelId, leaving: list[DataMessage], now: float, out: Sends) -> None:
        if leaving:
            to, stamp = self._addresses[channel], stamp_of(now)
            for one in leaving:
                out.append(Send(to.ip, to.port, one.encode(stamp)))

    def _owe(self, address: Address, channel: ChannelId, now: float, at_once: bool) -> int:
        owed = self._owed.setdefault(address, {})
        owed[channel] = owed.get(channel, 0) + 1
        if at_once:
            if not self._urgent:
                self._urgent_at = now
            self._urgent[address] = None
        elif self._owed_at is None:
            self._owed_at = now + self.options.ack_delay_s
        return sum(owed.values())

    def _owe_no_more(self, channel: ChannelId) -> None:
        """Forget acknowledgements that are owed on a channel."""
        source = self._sources[channel]
        owed = self._owed.get(source)
        if owed is not None and owed.pop(channel, None) is not None and not owed:
            del self._owed[source]
            self._urgent.pop(source, None)

    def _send_owed(self, address: Address, out: Sends) -> None:
        channels = list(self._owed.pop(address, ()))
        for start in range(0, len(channels), MAX_ACK_ENTRIES):
            entries: tuple[AckEntry, ...] = tuple(
                self._receivers[c].acknowledgement() for c in channels[start:start + MAX_ACK_ENTRIES])
            out.append(Send(address.ip, address.port, AckMessage(self.boot, entries).encode()))
