"""The two ends of a channel with a network between them that loses, doubles and reorders."""

from __future__ import annotations

import heapq
import itertools

from hypothesis import strategies as st

from nodes.channel import ChannelOptions, Sender
from nodes.channel_receiver import Receiver
from nodes.messages import (
    KIND_REQUEST,
    PROBE_KINDS,
    AckEntry,
    ChannelId,
    DataMessage,
)

CHANNEL = ChannelId(1, 2, 3)
SMALL = ChannelOptions(window=4, backlog=3)


def message(number: int, kind: int = KIND_REQUEST) -> DataMessage:
    """A message before its channel has numbered it."""
    return DataMessage(kind, CHANNEL.application, CHANNEL.receiver, number, bytes(4), 1, 0, b"%d" % number,
                       CHANNEL.sender)


def numbers(messages: list[DataMessage]) -> list[int]:
    return [m.request_id for m in messages]


def sender_with(count: int, options: ChannelOptions = SMALL, session: int = 7) -> tuple[Sender, list[DataMessage]]:
    """Return a sender that was offered `count` messages at 0 s, and what it sent."""
    sender, out = Sender(CHANNEL, session, options, 0.0), []
    for number in range(count):
        sender.offer(message(number), 0.0, out)
    return sender, out


def ack(expected: int, bitmap: int = 0, edge: int = 0, session: int = 7) -> AckEntry:
    return AckEntry(CHANNEL, session, expected, bitmap, edge)


class Pair:
    """A sender and a receiver with datagrams on two wires between them; `fates` give each datagram's delays."""

    def __init__(self, data_fates: list[list[float]], ack_fates: list[list[float]], service_s: float) -> None:
        self.sender, self.receiver = Sender(CHANNEL, 7, SMALL, 0.0), Receiver(CHANNEL, SMALL)
        self.offered: list[int] = []
        self.delivered: list[int] = []
        self._fates = {"data": iter(data_fates), "ack": iter(ack_fates)}
        self._events: list[tuple[float, int, str, object]] = []
        self._order = itertools.count()
        self._service_s = service_s
        self._serving = 0

    def run(self, offers: int) -> float:
        """Offer so many messages as there is room, till all are acknowledged; return when that was."""
        now = 0.0
        while len(self.offered) < offers or not self.sender.idle:
            out: list[DataMessage] = []
            while len(self.offered) < offers and self.sender.has_room:
                self.offered.append(len(self.offered))
                self.sender.offer(message(self.offered[-1]), now, out)
            self._send("data", out, now)
            due = self.sender.due()
            assert self._events or due is not None, "nothing is under way and nothing is due"
            if self._events and (due is None or self._events[0][0] <= due):
                now, _, kind, what = heapq.heappop(self._events)
                self._happen(kind, what, now)
            else:
                now = due
                again: list[DataMessage] = []
                self.sender.tick(now, again)
                assert again, "a tick that is due does something"
                self._send("data", again, now)
            assert now < 1e4
        return now

    def _happen(self, kind: str, what: object, now: float) -> None:
        out: list[DataMessage] = []
        if kind == "data" and what.kind in PROBE_KINDS:
            assert self.receiver.enter(what.session)
            self._send("ack", [self.receiver.acknowledgement()], now)
        elif kind == "data":
            for ready in self.receiver.receive(what):
                self.delivered.append(ready.request_id)
                heapq.heappush(self._events, (now + self._service_s, next(self._order), "consumed", None))
            self._send("ack", [self.receiver.acknowledgement()], now)
        elif kind == "consumed":
            if self.receiver.consumed():
                self._send("ack", [self.receiver.acknowledgement()], now)
        else:
            self.sender.acknowledged(1, what, now, out)
            self._send("data", out, now)

    def _send(self, kind: str, what: list, now: float) -> None:
        for one in what:
            for delay_s in next(self._fates[kind], [0.01]):
                heapq.heappush(self._events, (now + delay_s, next(self._order), kind, one))


fates = st.lists(st.lists(st.floats(0.001, 3.0), max_size=3), max_size=60)
