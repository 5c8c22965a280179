"""Requests that will not be served: which ones a channel takes no more, and whom a client believes about it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from controller_room import DEPLOYMENT, INVENTORY

from nodes import messages
from nodes.client_places import ClientPlaces
from nodes.control_messages import NO_INSTANCE, Command, UnderWay, Verb, requests_in, turned_away
from nodes.delay_line import DelayLine
from nodes.errors import WireError
from nodes.foresight import Foresight
from nodes.messages import CLIENT_BIT, KIND_REQUEST, ChannelId, DataMessage
from nodes.simulated_ends import ClientFlow
from nodes.transport import Address, Send, Sends, Transport

CTL = IPv4Address(INVENTORY.node("ctl1").ip).packed
CLIENT = Address(IPv4Address(INVENTORY.node("c1").ip).packed, 40_000)
PLACE = DEPLOYMENT.places[0]
HERE = IPv4Address(PLACE.ip).packed
KEY = DEPLOYMENT.number, PLACE.number


def request(sequence: int, session: int = 5, application: int = 7, client: int = 1) -> DataMessage:
    return DataMessage(KIND_REQUEST, application, 0, 100 + sequence, CLIENT.ip, CLIENT.port, 0, b"x",
                       CLIENT_BIT | client, session, sequence)


# -- channels ----------------------------------------------------------------------------------------------------------

def test_what_was_taken_is_not_refused_what_is_new_is_with_all_that_came_ahead_of_it() -> None:
    transport, out = Transport(1), list[Send]()
    assert transport.refuse(request(0)) == [100]  # nothing has come yet
    assert [m.sequence for m in transport.receive(CLIENT, request(0), 0.0, out)] == [0]
    transport.receive(CLIENT, request(2), 0.0, out)
    transport.receive(CLIENT, request(3), 0.0, out)
    assert transport.refuse(request(0)) == []
    assert transport.refuse(request(1)) == [101, 102, 103]
    assert transport.refuse(request(3)) == [103, 102]
    assert transport.refuse(request(0, session=4)) == []  # of before its client began anew
    assert transport.refuse(request(0, session=6)) == [100]
    assert [m.sequence for m in transport.receive(CLIENT, request(1), 0.0, out)] == [1, 2, 3]  # it was only asked


def test_an_application_is_forgotten_with_its_channels_and_no_other_is() -> None:
    transport, out = Transport(1), list[Send]()
    for application in (7, 8):
        transport.receive(CLIENT, request(0, application=application), 0.0, out)
        reply = reply_to(request(0, application=application))
        transport.offer(reply, CLIENT, 0.0, out)
        transport.offer(reply, CLIENT, 0.0, out)
    assert transport.clients(7) == [CLIENT] and transport.outstanding(7) == transport.outstanding(8) == 2
    transport.forget(7)
    assert transport.clients(7) == [] and transport.outstanding(7) == 0
    assert transport.clients(8) == [CLIENT] and transport.outstanding(8) == 2
    assert {channel.application for channel, _ in transport.unheard()} == {8}
    out.clear()
    transport.tick(5.0, out)
    assert {m.application for send in out if isinstance(m := messages.decode(send.data), DataMessage)} == {8}


def reply_to(message: DataMessage) -> DataMessage:
    """Return the reply to a request of client 1."""
    return DataMessage(messages.KIND_REPLY, message.application, 0, (CLIENT_BIT | 1) << 32 | message.request_id,
                       message.client_ip, message.client_port, 1, b"y", 0)


def test_what_begins_after_an_application_was_forgotten_is_a_later_session() -> None:
    transport, out = Transport(1), list[Send]()
    sessions = []
    for _ in range(3):
        transport.offer(reply_to(request(0)), CLIENT, 0.0, out)
        sent = messages.decode(out[-1].data)
        assert isinstance(sent, DataMessage)
        sessions.append(sent.session)
        transport.forget(7)
    assert sessions == sorted(set(sessions))


def test_what_was_computed_ahead_for_nobody_takes_no_room_and_holds_nobody_up() -> None:
    foresight, one, other = Foresight(2), ChannelId(7, 0, 1), ChannelId(8, 0, 1)
    foresight.computed()
    foresight.computed()
    foresight.left((one, other))
    assert not foresight.admits(ChannelId(9, 0, 1))
    foresight.forget(7, 2)
    assert foresight.admits(one) and not foresight.admits(other)


def test_a_delay_line_counts_what_it_holds() -> None:
    line = DelayLine[int]()
    for held in range(5):
        line.put(float(held), held)
    assert line.count(lambda held: held % 2 == 0) == 3


# -- the wire ----------------------------------------------------------------------------------------------------------

def test_what_a_client_is_told_names_requests_or_none() -> None:
    for named in ([], [1], [1 << 63, 7]):
        command = messages.decode(turned_away(KEY, 9, named, term=3))
        assert isinstance(command, Command) and requests_in(command.payload) == named
        assert (command.verb, command.application, command.instance, command.epoch, command.term) == (
            Verb.WITHDRAW, *KEY, 9, 3)
    with pytest.raises(WireError, match="9 bytes of request ids"):
        requests_in(bytes(9))


def test_what_is_under_way_is_read_as_it_was_said() -> None:
    said = UnderWay(3, 1 << 20, 1 << 40)
    assert UnderWay.of(said.packed()) == said
    for wrong in (b"", bytes(15), bytes(17)):
        with pytest.raises(WireError, match=f"{len(wrong)} bytes of what is under way"):
            UnderWay.of(wrong)


# -- clients -----------------------------------------------------------------------------------------------------------

def told(epoch: int = 2, instance: int = PLACE.number, payload: bytes = b"") -> Command:
    return Command(1, 0, 0, Verb.WITHDRAW, DEPLOYMENT.number, instance, epoch, payload=payload)


@pytest.mark.parametrize("instance", [PLACE.number, NO_INSTANCE])
@pytest.mark.parametrize("source", [CTL, HERE], ids=["the controller", "its place"])
def test_a_client_believes_the_controller_and_where_it_sends_to(source: bytes, instance: int) -> None:
    places = ClientPlaces(DEPLOYMENT)
    assert places.turned_away(source, told(instance=instance)) == []
    assert places.turned_away(source, told(instance=instance, payload=bytes(7) + b"\x05")) == [5]
    assert places.refused == 0


STRANGER = IPv4Address("10.1.9.1").packed  # a host's, if there were so many


@pytest.mark.parametrize(("source", "command"), [
    (STRANGER, told()), (STRANGER, told(instance=NO_INSTANCE)), (CLIENT.ip, told()),
    (CTL, replace(told(), application=999)), (CTL, replace(told(), verb=Verb.CLOSE)), (CTL, told(payload=b"123")),
    (CTL, told(epoch=0)), (CTL, told(epoch=0, instance=NO_INSTANCE)),
], ids=["another node", "another node of all", "a client", "another application", "another verb", "half an id",
        "of before it was deployed", "all of before it was deployed"])
def test_a_client_believes_nobody_else_and_nothing_older(source: bytes, command: Command) -> None:
    places = ClientPlaces(DEPLOYMENT)
    assert places.turned_away(source, command) is None and places.refused == 1


def test_a_client_that_is_told_of_all_repeats_nothing_any_more() -> None:
    flow, heard = ClientFlow(CLIENT, 1, 0, DEPLOYMENT, Transport(7), None), list[list[int]]()
    flow.turned_away = lambda _, requests: heard.append(requests)
    out: Sends = []
    first = flow.ask(b"one", PLACE.number, 0.0, out)
    flow.receive(Address(HERE, 1), turned_away(KEY, 2, [first]), 0.1, out)
    assert heard == [[first]] and flow.due() is not None  # others may still be answered
    flow.receive(Address(HERE, 1), turned_away(KEY, 2), 0.1, out)
    assert heard == [[first], []] and flow.due() is None and flow.has_asked(first)
