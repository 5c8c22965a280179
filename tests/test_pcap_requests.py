"""Requests followed through captures: every step, also of messages sent again, in fragments or on branches."""

from __future__ import annotations

from pathlib import Path

import pytest
from pcap_room import (
    Room,
    Seen,
    failing,
    loaded_rack,
    udp,
)

from experiments.captures.pcap_routing import run
from experiments.captures.routing_proof import (
    REQUESTS,
)
from nodes.messages import KIND_PROBE, KIND_REPLY, KIND_REPLY_PROBE, KIND_REQUEST, AckMessage, DataMessage
from topologies.addressing import DATA_PORT


@pytest.fixture
def rack() -> Room:
    return loaded_rack()


def test_requests_are_followed_by_their_ports(rack: Room, tmp_path: Path) -> None:
    room = Room("type2x3")
    for i in range(5):
        room.request(i, "c1", "s1n1", "s2n1", "s3n1")
    for i in range(5, 8):
        room.request(i, "c1", "s1n1", "s1n2")
    room.request(8, "c1", "s1n3", "s2h")
    proof = run([room.write(tmp_path)])
    assert proof.node_paths == {"c1 > s1n1 > s2n1 > s3n1 > c1": 5, "c1 > s1n1 > s1n2 > c1": 3,
                                "c1 > s1n3 > s2h > c1": 1}
    [path] = [p for p in proof.port_paths if "s2h" in p]
    assert path.startswith("c1 > s1n3 > s2n") and "+s2h" in path and path.endswith(" > c1")


def test_a_step_inside_a_server_is_marked_as_unseen(tmp_path: Path) -> None:
    room = Room("type1x2")
    seen = room.request(7, "c1", "s1n1", "s1h", "s2n1")
    for step in sorted(seen[2:4], key=lambda s: -s.position):  # s1n1 > s1h goes over PCIe
        room.remove(step)
    proof = run([room.write(tmp_path)])
    assert proof.holds
    assert proof.node_paths == {"c1 > s1n1 ~ s1h > s2n1 > c1": 1}


def test_a_request_that_forks_has_its_branches_in_its_path(tmp_path: Path) -> None:
    room = Room("type1x3")
    seen = room.request(7, "c1", "s1n1", "s2n1")
    forked = room.frame(seen[2])
    room.inject("tor1-s1n1", forked[:30] + bytes([10, 1, 3, 11]) + forked[34:])
    assert run([room.write(tmp_path)]).node_paths == {"c1 > s1n1 > s2n1 > c1 | s1n1 > s3n1": 1}


def let_settle(room: Room, first_id: int) -> None:
    """Let so much time go by, with three other requests in it, that what was answered before is done with."""
    for i in range(3):
        room.now_ns += 300_000_000
        room.request(first_id + i, "c1", "s1n1")


def test_a_branch_that_goes_on_long_after_the_reply_is_no_request_of_its_own(tmp_path: Path) -> None:
    room = Room("type1x3")
    carried = room.frame(room.request(7, "c1", "s1n1", "s2n1")[2])[34:]
    let_settle(room, 100)
    room.send("s1n1", "s3n1", carried)
    let_settle(room, 200)
    room.send("s3n1", "s2n1", carried)
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.node_paths == {"c1 > s1n1 > s2n1 > c1": 1, "c1 > s1n1 > c1": 6}
    assert proof.check(REQUESTS).counts == {"requests": 7, "followed": 7, "messages long after the reply": 2}


def test_a_branch_after_the_reply_from_where_the_request_never_was_is_not_followed(tmp_path: Path) -> None:
    room = Room("type1x3")
    carried = room.frame(room.request(7, "c1", "s1n1", "s2n1")[2])[34:]
    let_settle(room, 100)
    room.send("s3n1", "s2n1", carried)
    proof = run([room.write(tmp_path)])
    assert not proof.holds
    assert proof.check(REQUESTS).counts["not followed"] == 1


def sent_again(room: Room, seen: list[Seen]) -> list[Seen]:
    """Let the channel repeat the message that was first seen so, in a packet of its own."""
    frame = room.frame(seen[0])
    return room.inject(seen[0].interface, frame[:18] + b"\x7f\xff" + frame[20:])


def test_a_message_that_was_sent_again_is_one_step_of_its_request(tmp_path: Path) -> None:
    room = Room("type1x3")
    seen = room.request(7, "c1", "s1n1", "s2n1")
    for hop in (seen[2:4], seen[:2], seen[4:]):
        sent_again(room, hop)
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.node_paths == {"c1 > s1n1 > s2n1 > c1": 1}
    assert proof.check(REQUESTS).counts == {"requests": 1, "followed": 1, "messages sent again": 3}


def test_a_message_sent_again_after_its_request_was_answered_is_no_request_of_its_own(tmp_path: Path) -> None:
    room = Room("type1x1/4")
    first = room.request(7, "r1c1", "r2s1n1", "r4s1h")
    for i in range(3):
        room.now_ns += 300_000_000
        room.request(100 + i, "r1c1", "r2s1n1")
    assert first[-10].interface.startswith("tor4")
    sent_again(room, first[-10:])
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.check(REQUESTS).counts == {"requests": 4, "followed": 4, "messages sent again": 1}


def test_a_request_whose_message_was_lost_between_switches_is_followed_by_the_next_copy(tmp_path: Path) -> None:
    room = Room("type1x1/4")
    seen = room.request(7, "r1c1", "r4s1n1")
    middle = next(i for i, s in enumerate(seen) if s.interface.startswith("core"))
    sent_again(room, seen[:2])
    lost = [s for s in seen[middle:] if s.interface.startswith(("core", "agg", "tor4"))][:3]
    for step in sorted(lost, key=lambda s: (s.interface, -s.position)):
        room.remove(step)
    proof = run([room.write(tmp_path)])
    assert REQUESTS not in failing(proof)
    assert proof.check(REQUESTS).counts["followed"] == 1


def test_probes_and_acknowledgements_are_counted_and_are_no_steps(tmp_path: Path) -> None:
    room = Room("type1x3")
    room.request(7, "c1", "s1n1")
    client = bytes([10, 1, 254, 1])
    for message in (DataMessage(KIND_PROBE, 1, 3, 8, client, 4000, 0, b""),
                    DataMessage(KIND_REPLY_PROBE, 1, 3, 9, client, 4000, 0, b""), AckMessage(1, ())):
        room.send("s1n1", "s2n1", udp(DATA_PORT, DATA_PORT, message.encode()))
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.check(REQUESTS).counts == {"requests": 1, "followed": 1}
    assert (proof.kinds["E3 probe"], proof.kinds["E3 reply_probe"], proof.kinds["E3 ack"]) == (1, 1, 1)


def test_a_request_without_a_reply_is_not_followed(rack: Room, tmp_path: Path) -> None:
    seen = rack.request(99, "c1", "s1n1")
    for step in seen[-2:]:
        rack.remove(step)
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {REQUESTS}
    assert "request 0x63: c1 > s1n1: no reply was seen" in str(proof.check(REQUESTS).evidence[0])


def test_a_request_that_skips_a_step_is_not_followed(rack: Room, tmp_path: Path) -> None:
    seen = rack.request(99, "c1", "s1n1", "s2n1", "s1n3")
    rack.remove(seen[2]), rack.remove(seen[3])
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {REQUESTS}
    assert "goes on from s2n1, which it had not reached" in proof.check(REQUESTS).evidence[0].what


def test_a_message_in_fragments_is_followed_by_its_first(tmp_path: Path) -> None:
    room = Room("type2x1")
    client = bytes([10, 1, 254, 1])
    for source, destination, kind in (("c1", "s1h", KIND_REQUEST), ("s1h", "c1", KIND_REPLY)):
        message = DataMessage(kind, 1, 0, 5, client, 4000, 0, bytes(2000)).encode()
        carried = udp(4000, DATA_PORT, message) if source == "c1" else udp(DATA_PORT, 4000, message)
        by = "tor1-s1n1" if source == "s1h" else None
        room.send(source, destination, carried[:1480], fragment=0x2000, by=by)
        room.send(source, destination, carried[1480:], fragment=1480 // 8, by=by)  # hashed without ports
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.node_paths == {"c1 > s1h > c1": 1}
    assert (proof.kinds["E3 request"], proof.kinds["E3 reply"]) == (1, 1)
