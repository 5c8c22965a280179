"""Whom a client believes when it hears that an instance has moved, and what becomes of what is under way to it."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from controller_room import DEPLOYMENT, INVENTORY, ip_of

from nodes import messages
from nodes.client_places import ClientPlaces
from nodes.control_messages import Command, Verb
from nodes.messages import DataMessage
from nodes.simulated_ends import ClientFlow
from nodes.transport import Address, Sends, Transport
from topologies.addressing import DATA_PORT

CTL = IPv4Address(INVENTORY.node("ctl1").ip).packed
PLACE = DEPLOYMENT.places[0]
HERE, THERE = IPv4Address(PLACE.ip).packed, ip_of("s3h")


def moved(epoch: int = 2, to: bytes = THERE, verb: Verb = Verb.CONNECT, application: int = DEPLOYMENT.number,
          number: int = PLACE.number) -> Command:
    return Command(1, 0, 1, verb, application, number, epoch, to)


@pytest.mark.parametrize("source", [CTL, HERE], ids=["the controller", "the old place"])
def test_a_client_believes_the_controller_and_the_old_place(source: bytes) -> None:
    places = ClientPlaces(DEPLOYMENT)
    assert places[PLACE.number] == Address(HERE, DATA_PORT)
    assert places.told(source, moved()) == places[PLACE.number] == Address(THERE, DATA_PORT)
    assert THERE in places.addresses() and places.refused == 0


@pytest.mark.parametrize(("source", "command"), [
    (THERE, moved()), (ip_of("s2n1"), moved()), (IPv4Address(INVENTORY.node("c1").ip).packed, moved()),
    (CTL, moved(verb=Verb.START)), (CTL, moved(application=999)), (CTL, moved(number=999)),
], ids=["the new place", "another node", "a client", "another verb", "another application", "no such instance"])
def test_a_client_believes_nobody_else_and_nothing_else(source: bytes, command: Command) -> None:
    places = ClientPlaces(DEPLOYMENT)
    assert places.told(source, command) is None
    assert places[PLACE.number].ip == HERE and places.refused == 1


def test_what_is_older_than_what_was_obeyed_is_refused_and_the_same_again_is_no_news() -> None:
    places = ClientPlaces(DEPLOYMENT)
    assert places.told(CTL, moved(5)) is not None
    assert places.told(CTL, moved(5)) is None and places.refused == 0
    assert places.told(CTL, moved(4, HERE)) is None and places.refused == 1
    assert places[PLACE.number].ip == THERE


def test_the_old_place_is_believed_no_more_once_it_is_old() -> None:
    places = ClientPlaces(DEPLOYMENT)
    places.told(CTL, moved(2))
    assert places.told(HERE, moved(9, ip_of("s2n1"))) is None and places.refused == 1


def test_a_client_sends_again_to_the_new_place_what_is_under_way_and_all_that_follows() -> None:
    flow = ClientFlow(Address(IPv4Address(INVENTORY.node("c1").ip).packed, 40_000), 1, 0, DEPLOYMENT, Transport(7),
                      None)
    out: Sends = []
    first = flow.ask(b"one", PLACE.number, 0.0, out)
    flow.receive(Address(CTL, 0xE301), moved().encode(), 0.1, out)
    flow.ask(b"two", PLACE.number, 0.2, out)
    sent = [(send.ip, m.request_id) for send in out if isinstance(m := messages.decode(send.data), DataMessage)]
    assert sent == [(HERE, first), (THERE, first), (THERE, first + 1)]
