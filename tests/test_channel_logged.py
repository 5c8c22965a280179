"""A replicated instance's ends of channels: what is acknowledged, and how sessions begin anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodes.channel import ChannelOptions, Sender
from nodes.channel_images import ReceiverImage
from nodes.channel_logged import LoggedReceiver, LoggedSender
from nodes.channel_receiver import Receiver
from nodes.messages import KIND_REQUEST, AckEntry, ChannelId, DataMessage

CHANNEL = ChannelId(1, 2, 3)
OPTIONS = ChannelOptions(window=8, backlog=8)


def message(sequence: int, session: int = 7) -> DataMessage:
    return DataMessage(KIND_REQUEST, 1, 3, sequence, bytes(4), 1, 0, b"%d" % sequence, 2, session, sequence)


def test_what_was_delivered_and_is_not_logged_counts_as_arrived_and_is_not_acknowledged() -> None:
    receiver = LoggedReceiver(CHANNEL, OPTIONS)
    sender, out = Sender(CHANNEL, 7, OPTIONS, 0.0), []
    for number in range(4):
        sender.offer(message(number), 0.0, out)
    for one in (out[0], out[1], out[3]):
        receiver.receive(one)
    said = receiver.acknowledgement()
    assert (said.expected, said.bitmap) == (0, 0b101)
    sender.acknowledged(1, said, 0.01, [])
    resent: list[DataMessage] = []
    sender.tick(5.0, resent)
    assert [m.sequence for m in resent] == [0, 2] and not sender.idle
    assert receiver.log(7, 2) and not receiver.log(7, 2) and not receiver.log(6, 9)
    assert (receiver.acknowledgement().expected, receiver.acknowledgement().bitmap) == (2, 0b1)


@given(st.lists(st.integers(0, 7), max_size=20), st.integers(0, 8))
def test_an_acknowledgement_tells_of_the_arrivals_that_an_unreplicated_one_does(arrivals: list[int],
                                                                                logged: int) -> None:
    plain, held = Receiver(CHANNEL, OPTIONS), LoggedReceiver(CHANNEL, OPTIONS)
    for sequence in arrivals:
        plain.receive(message(sequence))
        held.receive(message(sequence))
    whole = plain.acknowledgement()
    held.log(7, min(logged, whole.expected))
    said = held.acknowledgement()

    def arrived(entry: AckEntry) -> set[int]:
        return {*range(entry.expected), *(entry.expected + 1 + bit for bit in range(64) if entry.bitmap >> bit & 1)}

    assert said.edge == whole.edge and arrived(said) <= arrived(whole)
    assert arrived(whole) - arrived(said) <= {held.logged}  # the first that is not logged has no bit


def test_a_session_that_begins_anew_at_the_sender_has_nothing_logged() -> None:
    receiver = LoggedReceiver(CHANNEL, OPTIONS)
    receiver.receive(message(0))
    receiver.log(7, 1)
    receiver.receive(message(0, session=8))
    assert receiver.acknowledgement() == AckEntry(CHANNEL, 8, 0, 0, 7)


def test_who_is_promoted_acknowledges_what_its_ledger_says() -> None:
    receiver = LoggedReceiver.of(CHANNEL, ReceiverImage(2, 7, 5, bytes(4), 1), OPTIONS, 0)
    assert receiver.acknowledgement() == AckEntry(CHANNEL, 7, 5, 0, 13)
    assert receiver.receive(message(4)) == [] and receiver.doubled == 1


def sender_with(count: int) -> tuple[LoggedSender, list[tuple[int, int, list[int]]]]:
    sender, told = LoggedSender(CHANNEL, 7, OPTIONS, 0.0), []
    sender.restarted = lambda of, settled, held: told.append((of.session, settled, [m.sequence for m in held]))
    for number in range(count):
        sender.offer(message(number), 0.0, [])
    return sender, told


def test_a_sender_whose_receiver_lost_its_state_tells_the_log_first_and_sends_nothing_yet() -> None:
    sender, told = sender_with(4)
    out: list[DataMessage] = []
    sender.acknowledged(1, AckEntry(CHANNEL, 7, 2, 0, 10), 0.1, out)
    assert (sender.settled, sender.offered, told) == (2, 4, [])
    sender.acknowledged(2, AckEntry(CHANNEL, 7, 0, 0, 8), 0.2, out)
    assert told == [(8, 2, [0, 1])] and out == []


def test_a_sender_that_hears_of_a_later_session_than_its_own_begins_one_after_that() -> None:
    sender, told = sender_with(2)
    sender.acknowledged(1, AckEntry(CHANNEL, 9, 0, 0, 8), 0.1, [])
    assert told == [(10, 0, [0, 1])]
