"""All channels of a node together: bundled acknowledgements, timers, clients that go and come back."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from nodes.channel import ChannelOptions
from nodes.messages import (
    CLIENT_BIT,
    KIND_REPLY,
    KIND_REQUEST,
    MAX_ACK_ENTRIES,
    AckMessage,
    ChannelId,
    DataMessage,
    decode,
    stamp_of,
)
from nodes.transport import CLIENT_BACKLOG, CLIENT_GIVE_UP_S, TIMER_GRAIN_S, Address, Sends, Transport

HERE, THERE, ELSEWHERE = (Address(bytes([10, 1, 1, i]), 58112) for i in (1, 2, 3))
CLIENT = CLIENT_BIT | 1
AT_CLIENT = Address(bytes([10, 1, 254, 1]), 40000)
OPTIONS = ChannelOptions(window=8, backlog=4, ack_every=5)


def request(number: int, sender: int = 1, receiver: int = 2) -> DataMessage:
    return DataMessage(KIND_REQUEST, 5, receiver, number, bytes(4), 1, 0, b"%d" % number, sender)


def reply(number: int) -> DataMessage:
    return DataMessage(KIND_REPLY, 5, 2, CLIENT << 32 | number, AT_CLIENT.ip, AT_CLIENT.port, 0, b"", 2)


def passed(sends: Sends, source: Address, to: Transport, now: float) -> tuple[list[DataMessage], Sends]:
    """Let `to` hear all of `sends`; return what it delivers and what it sends at once."""
    delivered: list[DataMessage] = []
    out: Sends = []
    for send in sends:
        message = decode(send.data)
        if isinstance(message, AckMessage):
            to.acknowledge(source, message, now, out)
        else:
            delivered += to.receive(source, message, now, out)
    return delivered, out


def offered(transport: Transport, *messages: DataMessage, to: Address = THERE, now: float = 0.0) -> Sends:
    out: Sends = []
    for message in messages:
        transport.offer(message, to, now, out)
    return out


def ticked(transport: Transport, now: float) -> Sends:
    out: Sends = []
    transport.tick(now, out)
    return out


def acknowledgements(sends: Sends) -> list[AckMessage]:
    return [m for m in (decode(s.data) for s in sends) if isinstance(m, AckMessage)]


def test_acknowledgements_of_several_channels_share_a_datagram_after_a_moment() -> None:
    sender, receiver = Transport(1, OPTIONS), Transport(2, OPTIONS)
    sends = offered(sender, request(1), request(2, receiver=3), request(3, sender=4))
    delivered, at_once = passed(sends, HERE, receiver, 1.0)
    assert len(delivered) == 3 and at_once == []
    assert receiver.due() == 1.0 + OPTIONS.ack_delay_s and ticked(receiver, 1.0) == []
    out = ticked(receiver, receiver.due())
    (message,) = acknowledgements(out)
    assert [(e.channel.sender, e.channel.receiver, e.expected) for e in message.entries] == [
        (1, 2, 1), (1, 3, 1), (4, 2, 1)]
    assert (out[0].ip, out[0].port) == HERE
    passed(out, THERE, sender, 1.1)
    assert sender.idle and receiver.idle and sender.due() is None


def test_each_peer_gets_acknowledgements_of_its_own_channels_only() -> None:
    receiver = Transport(2, OPTIONS)
    passed(offered(Transport(1, OPTIONS), request(1)), HERE, receiver, 0.0)
    passed(offered(Transport(1, OPTIONS), request(1, sender=9)), ELSEWHERE, receiver, 0.0)
    out = ticked(receiver, 1.0)
    assert {(s.ip, s.port): m.entries[0].channel.sender for s, m in zip(out, acknowledgements(out), strict=True)} == {
        HERE: 1, ELSEWHERE: 9}


def test_many_messages_are_acknowledged_without_waiting() -> None:
    receiver = Transport(2, OPTIONS)
    sends = offered(Transport(1, OPTIONS), *(request(n) for n in range(OPTIONS.ack_every)))
    _, at_once = passed(sends, HERE, receiver, 0.0)
    assert [e.expected for m in acknowledgements(at_once) for e in m.entries] == [OPTIONS.ack_every]


def test_a_double_and_a_gap_are_acknowledged_at_the_next_tick() -> None:
    for order in ([0, 0], [1]):
        receiver = Transport(2, OPTIONS)
        sends = offered(Transport(1, OPTIONS), request(0), request(1))
        passed([sends[i] for i in order], HERE, receiver, 1.0)
        assert len(acknowledgements(ticked(receiver, 1.0))) == 1


def test_more_acknowledgements_than_fit_go_out_in_several_datagrams() -> None:
    receiver = Transport(2, ChannelOptions(ack_every=1 << 30))
    for number in range(MAX_ACK_ENTRIES + 3):
        passed(offered(Transport(1), request(0, sender=number)), HERE, receiver, 0.0)
    assert [len(m.entries) for m in acknowledgements(ticked(receiver, 1.0))] == [MAX_ACK_ENTRIES, 3]


def test_a_lost_datagram_is_due_and_is_sent_again() -> None:
    sender = Transport(1, OPTIONS)
    first = offered(sender, request(1))
    assert sender.due() == OPTIONS.first_rto_s and ticked(sender, 0.99) == []
    again = ticked(sender, 1.0)
    assert [decode(send.data) for send in again] == [replace(decode(first[0].data), sent=stamp_of(1.0))]
    assert sender.counters()["channel_resent"] == 1


def test_timers_are_looked_at_no_more_often_than_their_grain() -> None:
    sender = Transport(1, OPTIONS)
    out: Sends = []
    sender.offer(request(1), THERE, 0.0, out)
    sender.offer(request(2, receiver=3), ELSEWHERE, 0.001, out)
    assert sender.due() == 1.0 and len(ticked(sender, 1.0)) == 1
    assert sender.due() == 1.0 + TIMER_GRAIN_S and ticked(sender, 1.001) == []  # the other waits for the next look
    assert len(ticked(sender, sender.due())) == 1


def test_no_timer_of_any_channel_is_due_before_the_transport_says_so() -> None:
    draw = random.Random(5)
    sender, peer = Transport(1, OPTIONS), Transport(2, OPTIONS)
    now = 0.0
    for step in range(3000):
        now += draw.random() * 0.05
        out = offered(sender, request(step, receiver=draw.randrange(2, 9)), now=now)
        sender.tick(now, out)
        _, back = passed([send for send in out if draw.random() < 0.9], HERE, peer, now)
        for channel in list(peer._receivers):
            while peer._receivers[channel]._held:
                peer.consumed(channel, now)
        peer.tick(now, back)
        passed([send for send in back if draw.random() < 0.9], THERE, sender, now)
        timers = [due for channel in sender._busy if (due := sender._senders[channel].due()) is not None]
        if timers:
            assert sender.due() <= max(min(timers), sender._timers_at)
    assert sender.counters()["channel_resent"] > 100


def test_a_channel_without_credit_has_room_for_its_backlog_only() -> None:
    sender = Transport(1, OPTIONS)
    channel = request(0).channel
    assert sender.has_room(channel)
    offered(sender, *(request(n) for n in range(OPTIONS.window + OPTIONS.backlog - 1)))
    assert sender.has_room(channel)
    offered(sender, request(99))
    assert not sender.has_room(channel) and sender.has_room(channel._replace(receiver=8))


def test_what_is_consumed_gives_credit_for_more() -> None:
    sender, receiver = Transport(1, OPTIONS), Transport(2, OPTIONS)
    sends = offered(sender, *(request(n) for n in range(12)))
    delivered, at_once = passed(sends, HERE, receiver, 0.0)
    assert len(delivered) == OPTIONS.window
    assert passed(at_once + ticked(receiver, 0.1), THERE, sender, 0.1)[1] == []
    for message in delivered[:4]:
        receiver.consumed(message.channel, 0.2)
    _, more = passed(ticked(receiver, 0.2), THERE, sender, 0.2)
    assert [m.request_id for m in passed(more, HERE, receiver, 0.3)[0]] == [8, 9, 10, 11]
    assert receiver.counters()["channel_beyond_credit"] == 0


def test_an_acknowledgement_of_no_channel_here_changes_nothing() -> None:
    stranger, receiver, sender = Transport(1, OPTIONS), Transport(2, OPTIONS), Transport(3, OPTIONS)
    passed(offered(stranger, request(1)), HERE, receiver, 0.0)
    assert passed(ticked(receiver, 1.0), THERE, sender, 1.0) == ([], []) and sender.idle


def test_a_client_that_says_nothing_is_given_up_but_an_instance_never_is() -> None:
    node = Transport(1, OPTIONS)
    offered(node, reply(1), to=AT_CLIENT)
    offered(node, request(1))
    now = 0.0
    while (due := node.due()) is not None and due < 3 * CLIENT_GIVE_UP_S:
        now = due
        ticked(node, now)
    counters = node.counters()
    assert counters["channel_clients_gone"] == 1 and not node.idle
    to_instance = sum(s.resent for s in node._senders.values())
    assert counters["channel_resent"] - to_instance >= CLIENT_GIVE_UP_S / OPTIONS.most_rto_s  # what is past counts on
    assert {c.receiver for c in node._busy} == {2}


def test_a_client_that_acknowledges_is_not_given_up_however_long_it_takes() -> None:
    node, client = Transport(1, OPTIONS), Transport(2, OPTIONS)
    sends = offered(node, *(reply(n) for n in range(OPTIONS.window + 2)), to=AT_CLIENT)
    for step in range(40):  # it consumes nothing, so the last two wait for credit
        _, out = passed(sends, THERE, client, 2.0 * step)
        passed(out + ticked(client, 2.0 * step + 0.1), AT_CLIENT, node, 2.0 * step + 0.1)
        sends = ticked(node, 2.0 * step + 2.0)
    assert node.counters()["channel_clients_gone"] == 0


def test_a_client_that_was_given_up_and_comes_back_gets_what_is_new() -> None:
    node, client = Transport(1, OPTIONS), Transport(2, OPTIONS)
    for number in (0, 1):
        passed(offered(node, reply(number), to=AT_CLIENT), THERE, client, 0.0)
        client.consumed(reply(0).channel, 0.0)
    passed(ticked(client, 1.0), AT_CLIENT, node, 1.0)
    offered(node, reply(2), to=AT_CLIENT, now=2.0)  # never arrives
    for step in range(100):
        ticked(node, 2.0 + step)
    assert node.counters()["channel_clients_gone"] == 1
    delivered, _ = passed(offered(node, reply(3), to=AT_CLIENT, now=200.0), THERE, client, 200.0)
    assert [m.request_id & 0xFF for m in delivered] == [3]
    passed(ticked(client, 201.0), AT_CLIENT, node, 201.0)
    assert node.idle


def test_replies_that_nobody_takes_do_not_pile_up() -> None:
    node = Transport(1, OPTIONS)
    offered(node, *(reply(n) for n in range(CLIENT_BACKLOG + OPTIONS.window + 1)), to=AT_CLIENT)
    ticked(node, 0.1)
    assert node.counters()["channel_clients_gone"] == 1 and node.idle


def test_a_node_that_was_started_anew_is_heard_in_a_session_of_its_own() -> None:
    receiver = Transport(9, OPTIONS)
    before = offered(Transport(1, OPTIONS), request(1), request(2))
    after = offered(Transport(2, OPTIONS), request(3), request(4))
    delivered = [m.request_id for m in passed([before[0], *after, before[1]], HERE, receiver, 0.0)[0]]
    assert delivered == [1, 3, 4]


def test_messages_that_a_rebooted_receiver_lost_are_sent_to_it_again() -> None:
    sender, old, new = Transport(1, OPTIONS), Transport(5, OPTIONS), Transport(6, OPTIONS)
    passed(offered(sender, request(1)), HERE, old, 0.0)
    passed(ticked(old, 0.1), THERE, sender, 0.1)
    lost = offered(sender, request(2), request(3), now=0.2)
    passed(lost, HERE, old, 0.2)
    delivered, _ = passed(ticked(sender, 3.0), HERE, new, 3.0)
    assert delivered == []
    _, again = passed(ticked(new, 3.1), THERE, sender, 3.1)
    assert [m.request_id for m in passed(again, HERE, new, 3.2)[0]] == [2, 3]


def test_a_receiver_that_rebooted_learns_of_the_session_from_a_probe() -> None:
    sender, old, new = Transport(1, OPTIONS), Transport(5, OPTIONS), Transport(6, OPTIONS)
    _, at_once = passed(offered(sender, *(request(n) for n in range(10))), HERE, old, 0.0)
    passed(at_once + ticked(old, 0.1), THERE, sender, 0.1)  # all of the window is taken, two wait for credit
    probe = ticked(sender, 5.0)
    delivered, answer = passed(probe, HERE, new, 5.1)
    assert delivered == [] and len(answer) == 1
    _, again = passed(answer, THERE, sender, 5.2)
    assert [m.request_id for m in passed(again, HERE, new, 5.3)[0]] == [8, 9]


@pytest.mark.parametrize("boot", [0, 1, 0x7FFFFFFF, 1 << 40])
def test_any_boot_number_goes_on_the_wire(boot: int) -> None:
    sender, receiver = Transport(boot, OPTIONS), Transport(boot, OPTIONS)
    delivered, _ = passed(offered(sender, request(1)), HERE, receiver, 0.0)
    assert [m.channel for m in delivered] == [ChannelId(5, 1, 2)]
    passed(ticked(receiver, 1.0), THERE, sender, 1.0)
    assert sender.idle


def test_an_acknowledgement_from_somebody_else_is_not_believed() -> None:
    here, there = Transport(1), Transport(2)
    sent = offered(here, request(0))
    _, answers = passed(sent, HERE, there, 0.0)
    there.tick(1.0, answers)
    acknowledgement = decode(answers[0].data)
    assert isinstance(acknowledgement, AckMessage)
    here.acknowledge(AT_CLIENT, acknowledgement, 1.0, [])
    assert not here.idle and here.counters()["channel_forged"] == 1
    here.acknowledge(THERE, acknowledgement, 1.0, [])
    assert here.idle


def test_those_who_must_hear_at_once_hear_in_the_order_in_which_that_came_up() -> None:
    receiver = Transport(2, OPTIONS)
    sources = [Address(bytes([10, 1, i * 37 % 256, 1]), 58112) for i in range(12)]
    for i, source in enumerate(sources):
        later = request(i, sender=10 + i).numbered(1, 1)  # ahead of number 0, which is to be said at once
        assert receiver.receive(source, later, 0.0, []) == []
    assert [Address(send.ip, send.port) for send in ticked(receiver, 0.0)] == sources
