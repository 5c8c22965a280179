"""What the resource controller makes of losses, forgeries and replays: late at most, and never another move."""

from __future__ import annotations

import random

from controller_room import APPLICATION, CLIENT, DEPLOYMENT, HOST, NAMES, NIC, ON_NIC, Room, ip_of

from nodes.artifact import artifact_of
from nodes.control_messages import HEARTBEAT_S, Answer, Command, Fetch, Heartbeat, Refusal, Standing, Verb
from nodes.fetching import digest_of
from nodes.transport import Sends


def whats(room: Room) -> list[str]:
    return [event.what for event in room.controller.events]


def test_lost_datagrams_delay_migrations_and_change_nothing_else() -> None:
    draw = random.Random(7)
    room = Room(automatic=False, loses=lambda send: draw.random() < 0.15)
    for turn in range(30):
        room.by_hand(NAMES[ON_NIC[0]], HOST if turn % 2 == 0 else NIC)
        for _ in range(100):
            room.pass_time(0.2)
            if not room.controller.control.open:
                break
    assert room.live_on(ON_NIC[0]) == [NIC]
    assert {line.outcome for line in room.controller.timelines.values()} == {"moved"}


def test_a_binary_with_another_digest_moves_nothing_and_is_counted() -> None:
    room = Room(automatic=False)
    room.controller._artifact = lambda service: artifact_of(service) + b"# and more"
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    room.pass_time(1.0)
    assert room.live_on(ON_NIC[0]) == [NIC] and room.agents[HOST].counters["fetched: unusable"] == 1
    assert [line.outcome for line in room.controller.timelines.values()] == ["stayed"]


def test_what_is_no_business_of_a_controller_is_counted_and_does_nothing() -> None:
    room = Room()
    out: Sends = []
    hear = room.controller.receive
    beat = Heartbeat(round(room.now / HEARTBEAT_S), DEPLOYMENT.number, ON_NIC[0], 1, 255, 0, 0, 255)
    answer = Answer(1, 1, 1, Verb.START, Standing.LIVE, Refusal.NONE, DEPLOYMENT.number, ON_NIC[0], 9)
    client = CLIENT[0]
    for source, payload in ((client, beat.encode()), (client, answer.encode()), (client, Fetch(bytes(16), 0).encode()),
                            (ip_of(NIC), b""), (ip_of(NIC), b"\xe3\xa7\x01\x99"), (ip_of(NIC), bytes(16)),
                            (ip_of(NIC), beat.encode()[:15]),
                            (ip_of(NIC), Command(1, 0, 1, Verb.FREEZE, 1, 1, 1).encode())):
        hear(source, payload, room.now, out)
    room.pass_time(0.1)
    counts = room.controller.counts()
    assert not out and not room.controller.control.open and "verdict" not in whats(room)
    assert counts["refused_unknown_source"] == 1 and counts["refused_answers_and_fetches"] == 2
    assert counts["refused_undecodable"] == 4 and counts["refused_not_for_a_controller"] == 1


def test_a_node_cannot_make_another_nodes_instance_move() -> None:
    room = Room()
    for _ in range(20):
        for number in ON_NIC:
            room.beat("s2n1", number, us=10 if number % 2 else 10_000, cpu=1.0)
            room.pass_time(HEARTBEAT_S)
    assert not room.controller.timelines and room.controller.counts()["foreign_instance"] == 20 * len(ON_NIC)


def test_replayed_heartbeats_raise_no_alarm() -> None:
    room = Room()
    old = [Heartbeat(round(room.now / HEARTBEAT_S) + i, DEPLOYMENT.number, ON_NIC[0], 1, 255, 0, 0, 255).encode()
           for i in range(20)]
    room.now += 60.0
    for beat in old:
        room.hear(NIC, beat)
        room.pass_time(HEARTBEAT_S)
    assert not room.controller.timelines and room.controller.counts()["refused_late"] == len(old)


def old_term(room: Room, node: str, verb: Verb, migration: int = 1) -> None:
    """Let `node` say that it obeys a later controller than ours."""
    control = room.controller.control
    room.hear(node, Answer(control.term, 1, migration, verb, Standing.LIVE, Refusal.OLD_TERM, DEPLOYMENT.number,
                           ON_NIC[0], 2).encode())


def test_one_server_cannot_depose_the_controller_and_two_that_were_asked_can() -> None:
    room = Room(automatic=False, loses=lambda send: True)
    old_term(room, HOST, Verb.PREPARE)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    for node, verb in (("s2n1", Verb.PREPARE), ("s3h", Verb.FREEZE), (NIC, Verb.PREPARE)):
        old_term(room, node, verb)  # who was not asked
    old_term(room, HOST, Verb.PREPARE)
    room.pass_time(6.0)  # given up: the source is to go on
    old_term(room, NIC, Verb.RESUME)
    assert not room.controller.state(room.now).deposed
    room.by_hand(NAMES[ON_NIC[1]], "s2h")
    control = room.controller.control
    room.hear("s2h", Answer(control.term, 1, 2, Verb.PREPARE, Standing.ABSENT, Refusal.OLD_TERM, DEPLOYMENT.number,
                            ON_NIC[1], 2).encode())
    assert room.controller.state(room.now).deposed


def test_a_fetch_of_what_is_being_pushed_is_served_to_the_two_ends_only() -> None:
    room = Room(automatic=False, loses=lambda send: True)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    fetch = Fetch(digest_of(artifact_of(APPLICATION.instances[ON_NIC[0]].service)), 0).encode()
    served: dict[str, Sends] = {}
    for node in (HOST, NIC, "s2h"):
        room.controller.receive(ip_of(node), fetch, room.now, served.setdefault(node, []))
    assert [len(served[node]) for node in (HOST, NIC, "s2h")] == [1, 1, 0]
