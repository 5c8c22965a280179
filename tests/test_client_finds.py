"""A client that hears nothing of an instance asks the controllers, and goes on, each request once, where it is now."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
from moving_rack import CONTROLLER, RACK, Repeated
from replicated_rack import ReplicatedRack, counter_chain, lone_store

from nodes import messages
from nodes.client_places import ASK_S, ClientPlaces
from nodes.control_messages import Command, Verb
from nodes.deployment import deploy
from nodes.messages import CLIENT_BIT, ChannelId
from nodes.simulated import NetworkFaults, SimulatedClient
from nodes.transport import Address, Sends
from topologies.addressing import DATA_PORT

CLEAN = NetworkFaults(delay_s=5e-5)
WITHIN_S = 2.0  # the primary is declared dead after half a second; then it takes another till it is asked for
C1 = IPv4Address(RACK.node("c1").ip).packed
LONE = deploy(lone_store(), {0: "s1n1"}, RACK)
STORE = ChannelId(LONE.number, CLIENT_BIT | 1, 0)


def counting(rack: ReplicatedRack, name: str = "c2") -> SimulatedClient:
    """Start a client that counts in the key of the rack's first client, and that nobody has heard of."""
    return rack.simulation.client(rack.deployment, Repeated(b"incr k0 1\r\n"), 20, 1, client=name)


def test_a_client_whose_first_request_died_with_the_primary_finds_who_serves_now() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    rack.kill("s1n1", down_s=3600.0)
    began = rack.now
    client = rack.client(30)
    assert rack.now - began < WITHIN_S
    rack.until(lambda: len(client.answers) == 30)
    assert rack.judged() == []


@pytest.mark.parametrize("seed", range(8))
def test_whenever_the_primary_dies_after_a_clients_first_request_left_it_is_done_once(seed: int) -> None:
    draw = random.Random(seed)
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, NetworkFaults(draw.choice((0, 0.1)), delay_s=5e-5), seed)
    known = rack.client(5)
    rack.until(lambda: len(known.answers) == 5)
    stranger = counting(rack)
    rack.run(draw.choice((0.0, 2e-5, 7e-5, 1.2e-4, 1.8e-4, 2.2e-4, 1e-3)))
    rack.kill("s1n1", down_s=3600.0)
    rack.until(lambda: len(stranger.answers) == 20)
    assert sorted(int(answer.payload) for answer in stranger.answers) == list(range(6, 26))
    assert stranger.complaints() == []


def test_a_client_finds_what_ran_alone_and_began_anew_elsewhere(tmp_path) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path, backups=(0, 1, 1)), {0: "s3n1", 1: "s2n1", 2: "s1n1"}, CLEAN)
    rack.run(1.0)
    rack.kill("s3n1", down_s=3600.0)
    out: Sends = []
    assert rack.control.controller.declared_dead("s3n1", rack.now, out) == []
    rack.simulation.network.after(rack.control, out)
    client = rack.client(30)
    rack.until(lambda: len(client.answers) == 30)
    assert rack.judged() == []


def test_a_client_that_is_heard_asks_nobody() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    asked = []
    controller = rack.control.controller
    controller.asked = lambda *question: asked.append(question)
    client = rack.client(30)
    rack.until(lambda: len(client.answers) == 30)
    rack.run(2.0)
    assert asked == []
    rack.kill(controller.where.node_of[301, 0], down_s=3600.0)
    counting(rack)
    rack.run(2.2 * ASK_S)
    assert len(asked) == 2


# -- whom it asks, and when ------------------------------------------------------------------------------------------

def questions(places: ClientPlaces, since: float, now: float) -> list[bytes]:
    out: Sends = []
    places.ask([(STORE, since)], now, out)
    assert all(send.port == DATA_PORT and messages.decode(send.data) == Command(
        0, 0, 0, Verb.WHERE, LONE.number, 0, 1, places[0].ip) for send in out)
    return [send.ip for send in out]


def test_all_controllers_are_asked_once_nothing_was_heard_for_a_while_and_again_after_as_long() -> None:
    others = (CONTROLLER, bytes((10, 1, 253, 2)))
    places = ClientPlaces(LONE, others)
    assert places.due([(STORE, 1.0)]) == 1.0 + ASK_S and places.due([]) is None
    assert questions(places, 1.0, 1.0 + ASK_S / 2) == []
    assert questions(places, 1.0, 1.0 + ASK_S) == list(others)
    assert questions(places, 1.0, 1.0 + ASK_S) == []  # for another channel to the same instance
    assert places.due([(STORE, 1.0)]) == 1.0 + 2 * ASK_S
    assert questions(places, 1.0, 1.0 + 2 * ASK_S) == list(others)
    assert questions(places, 9.0, 9.0 + ASK_S / 2) == []  # it was heard meanwhile


def test_where_there_is_no_controller_nobody_is_asked() -> None:
    assert questions(ClientPlaces(LONE), 0.0, 99.0) == [] and ClientPlaces(LONE).due([(STORE, 0.0)]) is None


# -- what a controller answers ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def rack() -> ReplicatedRack:
    return ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)


def answered(rack: ReplicatedRack, source: bytes, payload: bytes) -> list[Command]:
    out: Sends = []
    rack.control.controller.asked(Address(source, 40_000), payload, out)
    assert all((send.ip, send.port) == (source, 40_000) for send in out)
    return [messages.decode(send.data) for send in out]


def where(application: int = 301, number: int = 0, verb: Verb = Verb.WHERE) -> bytes:
    return Command(0, 0, 0, verb, application, number, 1).encode()


def test_a_controller_says_where_an_instance_is_and_by_which_decision(rack: ReplicatedRack) -> None:
    (said,) = answered(rack, C1, where())
    replica = rack.replica()
    assert (said.verb, said.epoch, said.peer) == (Verb.CONNECT, replica.epoch, IPv4Address(RACK.node("s1n1").ip).packed)


@pytest.mark.parametrize(("source", "payload"), [
    (IPv4Address(RACK.node("s2n1").ip).packed, where()), (C1, where(999)), (C1, where(number=7)),
    (C1, where(verb=Verb.FREEZE)), (C1, b""), (C1, b"\xe3\xa7\x01\x13 noise")],
    ids=["a compute node", "no such application", "no such instance", "a command", "nothing", "noise"])
def test_all_else_is_counted_and_not_answered(rack: ReplicatedRack, source: bytes, payload: bytes) -> None:
    before = rack.control.controller.counts()["refused_unanswerable"]
    assert answered(rack, source, payload) == []
    assert rack.control.controller.counts()["refused_unanswerable"] == before + 1
