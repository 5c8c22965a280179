"""The two ends of a channel: everything once and in order whatever the network does, and never beyond the credit."""

from __future__ import annotations

import itertools

import pytest
from channel_pair import CHANNEL, SMALL, Pair, ack, fates, message, numbers, sender_with
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nodes.channel import Sender
from nodes.channel_receiver import Receiver
from nodes.messages import (
    KIND_PROBE,
    KIND_REPLY,
    KIND_REPLY_PROBE,
    KIND_REQUEST,
    PROBE_KINDS,
    AckEntry,
    DataMessage,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 40), fates, fates, st.sampled_from([0.0, 0.05, 1.0]))
def test_whatever_a_network_does_for_a_while_all_is_delivered_once_in_order_within_the_credit(
        offers: int, data_fates: list[list[float]], ack_fates: list[list[float]], service_s: float) -> None:
    pair = Pair(data_fates, ack_fates, service_s)
    pair.run(offers)
    assert pair.delivered == pair.offered == list(range(offers))
    assert pair.receiver.refused == 0
    assert pair.receiver.deepest <= SMALL.window
    assert pair.sender.deepest <= SMALL.backlog


class AnyOrder(RuleBasedStateMachine):
    """Datagrams under way are delivered, lost or copied in any order, and either end may lose its state."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.boot, self.session = 0.0, 1, 7
        self.sender, self.receiver = Sender(CHANNEL, 7, SMALL, 0.0), Receiver(CHANNEL, SMALL)
        self.data: list[DataMessage] = []
        self.acks: list[tuple[int, AckEntry]] = []
        self.offered = 0
        self.owed_from = 0  # by the sender's present run
        self.got: list[int] = []  # by the receiver's present run
        self.ever: set[int] = set()
        self.held = 0

    @rule()
    def offer(self) -> None:
        if self.sender.has_room:
            self.sender.offer(message(self.offered), self.now, self.data)
            self.offered += 1

    @rule(step_s=st.floats(0.01, 5.0))
    def wait(self, step_s: float) -> None:
        self.now += step_s
        self.sender.tick(self.now, self.data)

    @precondition(lambda self: self.data)
    @rule(which=st.integers(0, 1000), copy=st.booleans())
    def arrive(self, which: int, copy: bool) -> None:
        one = self.data[which % len(self.data)]
        if not copy:
            self.data.remove(one)
        if one.kind in PROBE_KINDS:
            if self.receiver.enter(one.session):
                self.acks.append((self.boot, self.receiver.acknowledgement()))
            return
        ready = numbers(self.receiver.receive(one))
        self.got += ready
        self.ever.update(ready)
        self.held += len(ready)
        self.acks.append((self.boot, self.receiver.acknowledgement()))

    @precondition(lambda self: self.acks)
    @rule(which=st.integers(0, 1000), copy=st.booleans())
    def acknowledge(self, which: int, copy: bool) -> None:
        one = self.acks[which % len(self.acks)]
        if not copy:
            self.acks.remove(one)
        self.sender.acknowledged(*one, self.now, self.data)

    @precondition(lambda self: self.data)
    @rule(which=st.integers(0, 1000))
    def lose(self, which: int) -> None:
        del self.data[which % len(self.data)]

    @precondition(lambda self: self.held)
    @rule()
    def consume(self) -> None:
        self.held -= 1
        if self.receiver.consumed():
            self.acks.append((self.boot, self.receiver.acknowledgement()))

    @rule()
    def reboot_the_receiver(self) -> None:
        self.boot += 1
        self.receiver = Receiver(CHANNEL, SMALL)
        self.data.clear()  # it is gone for longer than a datagram stays under way, either way
        self.acks.clear()
        self.held, self.got = 0, []

    @rule()
    def reboot_the_sender(self) -> None:
        self.session += 1000
        self.sender = Sender(CHANNEL, self.session, SMALL, self.now)
        self.owed_from = self.offered

    @invariant()
    def in_order_and_once(self) -> None:
        assert self.got == sorted(set(self.got))
        assert self.held <= SMALL.window
        assert self.receiver.deepest <= SMALL.window

    def teardown(self) -> None:
        for _ in range(10_000):
            if self.sender.idle:
                break
            while self.data:
                self.arrive(0, False)
            while self.held:
                self.consume()
            while self.acks:
                self.acknowledge(0, False)
            self.wait(5.0)
        assert self.sender.idle
        self.in_order_and_once()
        assert self.ever >= set(range(self.owed_from, self.offered))


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase


def test_a_timeout_doubles_up_to_its_limit_and_recovers_with_the_first_news() -> None:
    sender, _ = sender_with(1)
    at = []
    for _ in range(4):
        at.append(sender.due())
        sender.tick(at[-1], [])
    assert [b - a for a, b in itertools.pairwise([0.0, *at])] == [1.0, 2.0, 4.0, 4.0]
    sender.acknowledged(1, ack(1, edge=5), 11.0, [])
    sender.offer(message(1), 12.0, [])
    assert sender.due() == 13.0  # what was sent several times measures nothing: Karn


def test_a_timeout_follows_the_round_trip_and_its_variation() -> None:
    sender, _ = sender_with(1)
    sender.acknowledged(1, ack(1, edge=9), 0.2, [])
    sender.offer(message(1), 1.0, [])
    assert sender.due() == pytest.approx(1.0 + 0.2 + 4 * 0.1)
    sender.acknowledged(1, ack(2, edge=9), 1.001, [])
    for number in range(2, 60):
        sender.offer(message(number), float(number), [])
        sender.acknowledged(1, ack(number + 1, edge=99), number + 0.001, [])
    sender.offer(message(60), 60.0, [])
    assert sender.due() == 60.0 + SMALL.least_rto_s


@given(st.floats(0.0, 1e6), st.floats(1e-6, 3.0))
def test_what_is_due_is_done_at_that_very_moment(start_s: float, rtt_s: float) -> None:
    sender = Sender(CHANNEL, 7, SMALL, start_s)
    sender.offer(message(0), start_s, [])
    sender.acknowledged(1, ack(1, edge=9), start_s + rtt_s, [])
    sender.offer(message(1), start_s + 4.0, [])
    out: list[DataMessage] = []
    sender.tick(sender.due(), out)
    assert numbers(out) == [1]


def test_no_more_than_the_window_is_sent_before_credit_comes() -> None:
    sender, out = sender_with(7)
    assert numbers(out) == [0, 1, 2, 3] and sender.waiting == 3 and not sender.has_room
    sender.acknowledged(1, ack(4, edge=5), 0.1, out)
    assert numbers(out) == [0, 1, 2, 3, 4]
    sender.acknowledged(1, ack(5, edge=7), 0.2, out)
    assert numbers(out) == list(range(7))


def test_an_acknowledgement_that_was_overtaken_takes_no_credit_back() -> None:
    sender, out = sender_with(4)
    for expected, edge in ((4, 6), (2, 4)):
        sender.acknowledged(1, ack(expected, edge=edge), 0.1, out)
    for number in (4, 5, 6):
        sender.offer(message(number), 0.2, out)
    assert numbers(out) == list(range(6))


def test_a_message_that_three_acknowledgements_passed_over_is_sent_again_at_once_and_once() -> None:
    sender, _ = sender_with(4)
    out: list[DataMessage] = []
    for bitmap in (0b1, 0b11):
        sender.acknowledged(1, ack(0, bitmap, 4), 0.1, out)
    assert out == []
    for bitmap in (0b111, 0b111, 0b111, 0b111):
        sender.acknowledged(1, ack(0, bitmap, 4), 0.1, out)
    assert numbers(out) == [0] and sender.resent == 1


def test_only_what_is_missing_is_sent_again() -> None:
    sender, _ = sender_with(4)
    sender.acknowledged(1, ack(1, 0b01, 4), 0.1, [])  # 0 and 2 have arrived
    out: list[DataMessage] = []
    sender.tick(sender.due(), out)
    assert numbers(out) == [1, 3]


def test_acknowledgements_of_another_session_or_of_what_was_never_sent_are_ignored() -> None:
    sender, _ = sender_with(2)
    out: list[DataMessage] = []
    for entry in (ack(2, edge=9, session=6), ack(2, edge=9, session=8), ack(3, edge=9)):
        sender.acknowledged(1, entry, 0.1, out)
    assert out == [] and not sender.idle and sender.due() == 1.0


def test_a_double_is_counted_and_dropped_whether_it_was_delivered_or_is_ahead_of_order() -> None:
    receiver, (first, _, third, _) = Receiver(CHANNEL, SMALL), sender_with(4)[1]
    for one in (first, third):
        receiver.receive(one)
        assert receiver.receive(one) == []
    assert receiver.doubled == 2 and receiver.acknowledgement().bitmap == 0b1


def test_a_later_session_begins_at_the_first_message_and_the_earlier_is_over() -> None:
    receiver = Receiver(CHANNEL, SMALL)
    first, second = sender_with(3, session=7)[1], sender_with(2, session=8)[1]
    assert numbers(receiver.receive(first[0]) + receiver.receive(second[0])) == [0, 0]
    assert receiver.receive(first[1]) == []
    entry = receiver.acknowledgement()
    assert (entry.session, entry.expected) == (8, 1)


def test_a_receiver_that_still_holds_an_earlier_session_s_messages_gives_no_credit_for_their_place() -> None:
    receiver = Receiver(CHANNEL, SMALL)
    for one in sender_with(4, session=7)[1]:
        receiver.receive(one)
    (first, *_) = sender_with(4, session=8)[1]
    assert receiver.receive(first) == [] and receiver.refused == 1
    assert receiver.acknowledgement().edge == 0
    receiver.consumed()
    assert receiver.acknowledgement().edge == 1
    assert numbers(receiver.receive(first)) == [0] and receiver.deepest == SMALL.window


def test_a_rebooted_receiver_gets_again_what_it_had_ahead_of_order() -> None:
    sender, sent = sender_with(4)
    old = Receiver(CHANNEL, SMALL)
    for one in (sent[0], sent[2], sent[3]):
        old.receive(one)
    sender.acknowledged(1, old.acknowledgement(), 0.1, [])
    new, out = Receiver(CHANNEL, SMALL), []
    assert new.receive(sent[1]) == []
    sender.acknowledged(2, new.acknowledgement(), 0.2, out)
    assert numbers(out) == [1, 2, 3] and {m.session for m in out} == {8}
    assert numbers([m for one in out for m in new.receive(one)]) == [1, 2, 3]


def test_a_reboot_before_anything_was_settled_repeats_nothing() -> None:
    sender, sent = sender_with(3)
    sender.acknowledged(1, ack(0, 0b1, 4), 0.1, [])  # the earlier run had 1, but not 0
    new, out = Receiver(CHANNEL, SMALL), []
    got = numbers(new.receive(sent[0]))
    sender.acknowledged(2, new.acknowledgement(), 0.2, out)
    got += numbers([m for one in sent[1:] for m in new.receive(one)])  # were under way, too
    sender.tick(9.0, out)
    got += numbers([m for one in out for m in new.receive(one)])
    assert got == [0, 1, 2]


@pytest.mark.parametrize("late", [False, True], ids=["in order", "an earlier one comes last"])
def test_a_receiver_that_goes_on_without_what_it_had_ahead_of_order_gets_it_again(late: bool) -> None:
    sender, sent = sender_with(4)
    before = Receiver(CHANNEL, SMALL)
    for one in sent[1:]:
        before.receive(one)
    said = before.acknowledgement()
    assert (said.expected, said.bitmap) == (0, 0b111)
    sender.acknowledged(1, said, 0.1, [])
    after = Receiver.of(CHANNEL, before.image(bytes(4), 9), SMALL, 0)  # in the same run of the node
    again: list[DataMessage] = []
    for entry in (after.acknowledgement(), *[said] * late):
        sender.acknowledged(1, entry, 0.2, again)
    assert again == []  # the first may be under way
    sender.tick(5.0, again)
    assert numbers(again) == [0]
    delivered = after.receive(again.pop())
    sender.acknowledged(1, after.acknowledgement(), 5.1, again)
    assert numbers(again) == [1, 2, 3]
    for one in again:
        delivered += after.receive(one)
    sender.acknowledged(1, after.acknowledgement(), 5.2, again)
    assert numbers(delivered) == [0, 1, 2, 3] and len(again) == 3 and sender.idle


def test_of_what_a_receiver_lacks_after_all_nothing_is_sent_again_that_it_has_by_now() -> None:
    sender, _ = sender_with(4)
    sender.acknowledged(1, ack(0, 0b111), 0.1, [])
    again: list[DataMessage] = []
    sender.acknowledged(1, ack(1, 0b10), 0.2, again)  # 0 and 3, not 1 and 2
    assert numbers(again) == [1, 2]


def test_an_acknowledgement_of_an_earlier_run_that_comes_late_begins_nothing() -> None:
    sender, _ = sender_with(3)
    sender.acknowledged(2, ack(1, edge=5), 0.1, [])
    out: list[DataMessage] = []
    sender.acknowledged(1, ack(0, edge=4), 0.2, out)
    assert out == [] and sender.session == 7


@pytest.mark.parametrize(("kind", "probe_kind"), [(KIND_REQUEST, KIND_PROBE), (KIND_REPLY, KIND_REPLY_PROBE)])
def test_who_waits_for_credit_asks_for_it_even_while_more_is_offered(kind: int, probe_kind: int) -> None:
    sender = Sender(CHANNEL, 7, SMALL, 0.0)
    for number in range(5):
        sender.offer(message(number, kind), 0.0, [])
    sender.acknowledged(1, ack(4, edge=4), 0.01, [])
    out: list[DataMessage] = []
    for step in range(1, 40):
        sender.offer(message(4 + step, kind), step * 0.1, out)
        sender.acknowledged(1, ack(4, edge=4), step * 0.1, out)
        sender.tick(step * 0.1, out)
    assert {m.kind for m in out} == {probe_kind} and len(out) >= 3
    assert {(m.sequence, m.payload) for m in out} == {(4, b"")}


def test_a_probe_tells_a_rebooted_receiver_the_session_and_the_sender_of_the_reboot() -> None:
    sender, _ = sender_with(6)
    sender.acknowledged(1, ack(4, edge=4), 0.01, [])
    out: list[DataMessage] = []
    sender.tick(sender.due(), out)
    new = Receiver(CHANNEL, SMALL)
    assert [m.kind for m in out] == [KIND_PROBE] and new.enter(out[0].session)
    out.clear()
    sender.acknowledged(2, new.acknowledgement(), 5.0, out)
    assert numbers([m for one in out for m in new.receive(one)]) == [4, 5]


@pytest.mark.parametrize("later_session", [False, True])
def test_an_end_that_goes_on_from_before_its_successor_sent_more_is_heard_in_a_session_of_its_own(
        later_session: bool) -> None:
    """Where the other copy that went on from the same image has died, and its receiver is further than we know."""
    first, receiver = Sender(CHANNEL, 7, SMALL, 0.0), Receiver(CHANNEL, SMALL)
    sent: list[DataMessage] = []
    first.offer(message(0), 0.0, sent)
    image = first.image(b"1234", 5)
    if later_session:
        receiver.enter(9)
    for number in (1, 2):
        first.offer(message(number), 0.0, sent)
    for one in sent if not later_session else [m.numbered(9, i) for i, m in enumerate(sent)]:
        for _ in receiver.receive(one):
            receiver.consumed()
    back = Sender.of(CHANNEL, image, SMALL, 1.0)
    again: list[DataMessage] = []
    back.offer(message(3), 1.0, again)
    assert [ready for one in again for ready in receiver.receive(one)] == []
    answer, fresh = receiver.acknowledgement(), list[DataMessage]()
    back.acknowledged(1, answer, 1.1, fresh)
    assert back.session > answer.session
    assert numbers([ready for one in fresh for ready in receiver.receive(one)]) == [0, 3]
