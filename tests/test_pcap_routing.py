"""What captures prove, and that every broken twin of a sound capture is caught."""

from __future__ import annotations

import heapq
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pcap_room import Room, Seen, hop_on, ip_frame, udp, write_pcap

from controller.tor_program import from_json
from experiments.errors import CaptureError
from experiments.hash_prediction import predictor_of
from experiments.pcap_routing import flow_ports, run
from experiments.routing_judge import RoutingJudge
from experiments.routing_proof import (
    COUNTERS,
    DELIVERY,
    HOST_FLOWS,
    PASSING,
    PREDICTION,
    REQUESTS,
    SHARED_MAC,
    SMARTNIC_PORTS,
    SPREAD,
    TTL,
    RoutingProof,
)
from experiments.routing_verdicts import checks_of, spreads_of
from nodes.messages import KIND_PROBE, KIND_REPLY, KIND_REPLY_PROBE, KIND_REQUEST, AckMessage, DataMessage
from topologies.addressing import CONTROL_PORT, DATA_PORT

TCP = 6


@pytest.fixture
def rack() -> Room:
    """2 x Type2 under 60 requests by SmartNICs and hosts, and 60 UDP and 60 TCP flows to s1h."""
    room = Room("type2x2")
    nics = [f"s{s}n{n}" for s in (1, 2) for n in (1, 2, 3, 4)]
    for i in range(60):
        room.request(1 << 32 | i, "c1", *((nics[i % 8], nics[(i + 3) % 8]) if i % 3 else ("s1n2", "s2h")))
        room.send("c1", "s1h", udp(30_000 + i, 9, b"x" * i))
        room.send("c1", "s1h", struct.pack(">HHII", 40_000 + i, 80, i, 0) + bytes(8), protocol=TCP)
    return room


def failing(proof: RoutingProof) -> set[str]:
    return {c.name for c in proof.checks if c.verdict is False}


def to_host(room: Room) -> list[Seen]:
    return room.send("c1", "s1h", udp(50_000, 9, b"one more"))


def other_port(room: Room, seen: Seen, prefix: str = "tor1-s1") -> str:
    return next(i for i in room.frames if i.startswith(prefix) and i != seen.interface)


def move(room: Room, seen: Seen, interface: str) -> None:
    time_ns, frame = room.frames[seen.interface].pop(seen.position)
    room.frames[interface].append((time_ns, frame))


def test_a_sound_capture_proves_every_check(rack: Room, tmp_path: Path) -> None:
    proof = run([rack.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert set(proof.unjudged) == {COUNTERS, PASSING}
    assert proof.packets == sum(map(len, rack.frames.values()))
    assert proof.check(DELIVERY).counts["packets in and out"] * 2 == proof.packets
    assert proof.check(REQUESTS).counts == {"requests": 60, "followed": 60}
    assert proof.check(HOST_FLOWS).counts["flows"] == 60 + 60 + 1  # all requests s1n2 > s2h are one flow
    assert proof.kinds["E3 request"] == 20 * 2 + 40 * 2
    assert proof.kinds["E3 reply"] == 60
    assert proof.check(SHARED_MAC).counts["servers with several nodes seen"] == 2


def test_the_ports_of_a_capture_are_counted_by_direction(rack: Room, tmp_path: Path) -> None:
    proof = run([rack.write(tmp_path)])
    assert proof.ports["tor1-c1"] == {"in": 60 + 120, "out": 60}
    assert proof.ports["tor1-ctl1"] == {"in": 0, "out": 0}


def test_captures_in_microseconds_and_of_the_other_byte_order_prove_the_same(rack: Room, tmp_path: Path) -> None:
    rack.write(tmp_path)
    for nano, order in ((False, "<"), (True, ">"), (False, ">")):
        for interface, frames in rack.frames.items():
            write_pcap(tmp_path / f"{interface}.pcap", frames, nano=nano, order=order)
        assert run([tmp_path]).holds


def test_a_packet_that_never_leaves_is_lost(rack: Room, tmp_path: Path) -> None:
    rack.remove(to_host(rack)[-1])
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {DELIVERY}
    assert proof.check(DELIVERY).counts["lost"] == 1
    [evidence] = proof.check(DELIVERY).evidence
    assert (evidence.file, evidence.packet) == ("tor1-c1.pcap", len(rack.frames["tor1-c1"]))
    assert "10.1.254.1:50000 > 10.1.1.1:9 UDP" in str(evidence)


def test_a_packet_that_leaves_twice_is_a_duplicate(rack: Room, tmp_path: Path) -> None:
    out = to_host(rack)[-1]
    rack.frames[out.interface].append((rack.now_ns + 1000, rack.frame(out)))
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {DELIVERY}
    assert proof.check(DELIVERY).counts["duplicated"] == 1


def test_a_packet_that_came_in_twice_and_left_twice_is_no_duplicate(rack: Room, tmp_path: Path) -> None:
    first = to_host(rack)
    rack.inject(first[0].interface, rack.frame(first[0]))
    assert run([rack.write(tmp_path)]).holds


def test_a_packet_from_nowhere_is_found(rack: Room, tmp_path: Path) -> None:
    rack.remove(to_host(rack)[0])
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {DELIVERY}
    assert proof.check(DELIVERY).counts["from nowhere"] == 1


def test_a_smartnic_packet_at_a_sibling_s_port_is_found(rack: Room, tmp_path: Path) -> None:
    out = rack.send("c1", "s1n2", udp(1, 9, b""))[-1]
    move(rack, out, "tor1-s1n3")
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {SMARTNIC_PORTS, DELIVERY}
    assert proof.check(DELIVERY).counts["misrouted"] == 1
    assert "tor1-s1n3" in proof.check(SMARTNIC_PORTS).evidence[0].what


def test_a_host_packet_at_another_server_s_port_is_misrouted(rack: Room, tmp_path: Path) -> None:
    move(rack, to_host(rack)[-1], "tor1-s2n1")
    assert run([rack.write(tmp_path)]).check(DELIVERY).counts["misrouted"] == 1


def test_a_flow_on_two_ports_is_found(rack: Room, tmp_path: Path) -> None:
    to_host(rack)
    out = to_host(rack)[-1]
    move(rack, out, other_port(rack, out))
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {HOST_FLOWS}
    assert proof.check(HOST_FLOWS).counts["on several ports"] == 1


def test_a_flow_on_one_port_that_the_hash_does_not_give_is_found(rack: Room, tmp_path: Path) -> None:
    out = to_host(rack)[-1]
    move(rack, out, other_port(rack, out))
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {PREDICTION}
    assert proof.check(PREDICTION).counts["otherwise"] == 1


def test_without_programs_the_prediction_is_not_judged_but_the_rest_is(rack: Room, tmp_path: Path) -> None:
    rack.write(tmp_path)
    (tmp_path / "programs.json").unlink()
    proof = run([tmp_path])
    assert proof.holds and PREDICTION in proof.unjudged


def test_with_a_dead_port_its_flows_are_predicted_on_the_others_and_no_other_flow_moves(tmp_path: Path) -> None:
    room = Room("type2x1")
    before, after = tmp_path / "before", tmp_path / "after"
    for folder in (before, after):
        folder.mkdir()
        for port in range(200):
            room.send("c1", "s1h", udp(10_000 + port, 9, b""))
        room.write(folder)
        room.frames = {i: [] for i in room.frames}
        group = room.programs["tor1"].groups[0]
        alive = tuple(b for b in group.buckets if room.programs["tor1"].interface(b.port) != "tor1-s1n2")
        room.programs = {"tor1": replace(room.programs["tor1"], groups=(replace(group, buckets=alive),))}
    (after / "programs.json").write_bytes((before / "programs.json").read_bytes())
    assert run([before]).check(PREDICTION).verdict is True
    assert run([after]).check(PREDICTION).verdict is False
    programs = from_json((before / "programs.json").read_bytes())
    assert run([after], predict=predictor_of(programs, dead={"tor1-s1n2"})).check(PREDICTION).verdict is True
    was, now = flow_ports([before])["tor1"], flow_ports([after])["tor1"]
    assert was.keys() == now.keys() and len(was) == 200
    assert {f for f in was if was[f] != now[f]} == {f for f in was if was[f] == "tor1-s1n2"}


def test_a_ttl_that_is_not_decremented_is_found(rack: Room, tmp_path: Path) -> None:
    out = to_host(rack)[-1]
    frame = rack.frame(out)
    rack.replace(out, frame[:22] + bytes([64]) + frame[23:])
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {TTL}
    assert proof.check(TTL).counts["not by 1"] == 1


@pytest.mark.parametrize("end", [0, -1])
def test_a_wrong_mac_of_a_server_is_found(rack: Room, tmp_path: Path, end: int) -> None:
    seen = rack.send("s1n1", "s2n1", udp(1, 9, b""))[end]
    frame, wrong = rack.frame(seen), bytes.fromhex("02e301010099")
    rack.replace(seen, wrong + frame[6:] if end else frame[:6] + wrong + frame[12:])
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {SHARED_MAC}
    assert "02:e3:01:01:00:99" in str(proof.check(SHARED_MAC).evidence[0])


def test_a_frame_that_leaves_with_its_old_source_mac_is_lost_to_the_proof(rack: Room, tmp_path: Path) -> None:
    seen = to_host(rack)
    out = rack.frame(seen[-1])
    rack.replace(seen[-1], out[:6] + rack.frame(seen[0])[6:12] + out[12:])
    assert DELIVERY in failing(run([rack.write(tmp_path)]))


def test_uneven_flows_fail_and_the_p_value_says_so(tmp_path: Path) -> None:
    room = Room("type2x1")
    for port in range(400):
        seen = room.send("c1", "s1h", udp(10_000 + port, 9, b""))
        if port % 2 and seen[-1].interface != "tor1-s1n1":
            move(room, seen[-1], "tor1-s1n1")
    proof = run([room.write(tmp_path)])
    assert SPREAD in failing(proof)
    [spread] = proof.spreads
    assert spread.p_value is not None and spread.p_value < 1e-9
    assert spread.flows["tor1-s1n1"] > 200


def test_even_flows_pass_and_the_p_value_is_that_of_chi_square(tmp_path: Path) -> None:
    room = Room("type2x1")
    for port in range(1000):
        room.send("c1", "s1h", udp(10_000 + port, 9, b""))
    [spread] = run([room.write(tmp_path)]).spreads
    statistic = sum((n - 250) ** 2 / 250 for n in spread.flows.values())
    assert spread.p_value == pytest.approx(_upper_tail_of_chi_square_with_3_degrees(statistic))
    assert all(abs(n - 250) < 50 for n in spread.flows.values())


def _upper_tail_of_chi_square_with_3_degrees(x: float) -> float:
    from math import erfc, exp, pi, sqrt
    return erfc(sqrt(x / 2)) + sqrt(2 * x / pi) * exp(-x / 2)


def test_few_flows_are_not_judged(tmp_path: Path) -> None:
    room = Room("type2x1")
    for port in range(19):
        room.send("c1", "s1h", udp(10_000 + port, 9, b""))
    proof = run([room.write(tmp_path)])
    assert proof.check(SPREAD).verdict is None
    assert "too few flows to judge: 19 over 4 ports; 20 needed" in proof.check(SPREAD).note


def test_bucket_counters_that_agree_hold_and_one_packet_more_fails(rack: Room, tmp_path: Path) -> None:
    rack.write(tmp_path)
    counted = {f"ports of {host}": {} for host in ("s1h", "s2h")}
    for spread in run([tmp_path]).spreads:
        counted[f"ports of {spread.group}"] = dict(spread.packets)
    (tmp_path / "bucket_counters.json").write_bytes(msgspec.json.encode({"tor1": counted}))
    assert run([tmp_path]).check(COUNTERS).verdict is True
    counted["ports of s1h"]["tor1-s1n3"] += 1
    (tmp_path / "bucket_counters.json").write_bytes(msgspec.json.encode({"tor1": counted}))
    proof = run([tmp_path])
    assert failing(proof) == {COUNTERS}
    assert "tor1-s1n3" in proof.check(COUNTERS).evidence[0].file


def test_what_the_rules_forbid_is_counted_by_rule_and_not_lost(rack: Room, tmp_path: Path) -> None:
    rack.send("c1", "s1n1", udp(1, 9, b""), source_ip="10.1.1.12")
    rack.frames["tor1-s1n1"].pop()  # the room on paper has no anti-spoofing; the switch dropped it
    rack.send("c1", "s1n1", udp(1, CONTROL_PORT, b""))
    rack.frames["tor1-s1n1"].pop()
    rack.send("c1", "s1n1", udp(1, 9, b""), destination_ip="10.1.77.1")
    rack.send("c1", "s1n1", udp(1, 9, b""), destination_ip="10.1.255.254")
    rack.send("c1", "s1n1", udp(1, 9, b""), ttl=1)
    rack.send("s2n1", "s1n1", udp(1, CONTROL_PORT, b""))
    proof = run([rack.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.dropped == {"spoofed source": 1, "control port from a client": 1, "no such address": 1,
                             "for the switch itself": 1, "TTL spent": 1}


def test_a_spoofed_packet_that_is_forwarded_is_found(rack: Room, tmp_path: Path) -> None:
    rack.send("c1", "s1n1", udp(1, 9, b""), source_ip="10.1.1.12")
    proof = run([rack.write(tmp_path)])
    assert failing(proof) == {DELIVERY}
    assert proof.check(DELIVERY).counts["forwarded against a rule"] == 1


def test_a_control_packet_of_a_client_that_is_forwarded_is_found(rack: Room, tmp_path: Path) -> None:
    rack.send("c1", "s1n1", udp(1, CONTROL_PORT, b""))
    assert failing(run([rack.write(tmp_path)])) == {DELIVERY}


def test_what_the_switch_answers_itself_is_counted_apart(rack: Room, tmp_path: Path) -> None:
    client, tor = rack.inventory.node("c1"), rack.inventory.switch("tor1")
    rack.frames["tor1-c1"].append((rack.now_ns, ip_frame(tor.mac, client.mac, tor.gateway, client.ip, b"\0" * 8,
                                                         protocol=1)))
    proof = run([rack.write(tmp_path)])
    assert proof.holds and proof.check(DELIVERY).counts["answered by a switch"] == 1


def test_arp_lacp_and_malformed_frames_are_counted_apart(rack: Room, tmp_path: Path) -> None:
    for ethertype, count in ((b"\x08\x06", 3), (b"\x88\x09", 2), (b"\x86\xdd", 1), (b"\x12\x34", 1)):
        rack.frames["tor1-s1n1"] += [(rack.now_ns, bytes(12) + ethertype + bytes(46))] * count
    rack.frames["tor1-s1n1"] += [(rack.now_ns, b"short"), (rack.now_ns, bytes(12) + b"\x08\x00" + b"\x46" * 30)]
    proof = run([rack.write(tmp_path)])
    assert proof.holds
    assert [proof.kinds[k] for k in ("ARP", "LACP", "IPv6", "other", "malformed")] == [3, 2, 1, 1, 2]


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


def test_racks_behind_a_fat_tree_are_proved_switch_by_switch(tmp_path: Path) -> None:
    room = Room("type1x1/4")
    for i in range(40):
        room.request(i, "r1c1", "r2s1n1", "r4s1h")
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.node_paths == {"r1c1 > r2s1n1 > r4s1h > r1c1": 40}
    assert all(" tor2 " in path and " core" in path for path in proof.port_paths)
    assert Counter(s.group for s in proof.spreads)["uplinks"] >= 3


def test_a_packet_lost_at_a_core_is_found_there(tmp_path: Path) -> None:
    room = Room("type1x1/4")
    seen = room.send("r1c1", "r4s1n1", udp(1, 9, b""))
    core_out = next(s for s in seen[::-1] if s.interface.startswith("core"))
    for step in seen[seen.index(core_out):]:
        room.remove(step)
    proof = run([room.write(tmp_path)])
    assert proof.check(DELIVERY).counts["lost"] == 1
    assert proof.check(DELIVERY).evidence[0].file.startswith("core")


def test_a_packet_sent_down_to_the_wrong_rack_is_misrouted(tmp_path: Path) -> None:
    room = Room("type1x1/2")
    out = room.send("r1c1", "r1s1n1", udp(1, 9, b""))[-1]
    move(room, out, "tor1-agg1")
    assert DELIVERY in failing(run([room.write(tmp_path)]))


def test_sightings_in_either_order_within_a_tick_are_joined(rack: Room, tmp_path: Path) -> None:
    for interface, frames in rack.frames.items():  # all within the same tick, and outputs sorted first by name
        rack.frames[interface] = [(time_ns // 100_000 * 100_000, frame) for time_ns, frame in frames]
    assert run([rack.write(tmp_path)]).check(DELIVERY).verdict is True


def test_a_packet_held_longer_than_the_window_is_lost(tmp_path: Path) -> None:
    room = Room("type1x1")
    out = room.send("c1", "s1n1", udp(1, 9, b""))[-1]
    held = room.remove(out)
    room.now_ns += 4_000_000_000
    room.send("c1", "s1n1", udp(2, 9, b""))
    room.now_ns += 4_000_000_000
    room.send("c1", "s1n1", udp(3, 9, b""))
    room.frames["tor1-s1n1"].append((room.now_ns, held))
    room.write(tmp_path)
    assert run([tmp_path], window_s=20).holds
    assert run([tmp_path], window_s=1).check(DELIVERY).counts["lost"] == 1


def test_part_of_a_switch_s_ports_judges_what_it_can(rack: Room, tmp_path: Path) -> None:
    ports = tuple(i for i in rack.frames if not i.startswith("tor1-s2"))
    proof = run([rack.write(tmp_path, only=ports)])
    assert not failing(proof)
    assert proof.check(DELIVERY).verdict is True
    assert "no capture of tor1-s2n1" in proof.check(DELIVERY).note
    assert proof.check(REQUESTS).verdict is None


def test_one_port_alone_proves_no_delivery(rack: Room, tmp_path: Path) -> None:
    proof = run([rack.write(tmp_path, only=("tor1-s1n1",))])
    assert not proof.holds
    assert not failing(proof)
    assert {DELIVERY, TTL} <= set(proof.unjudged)


def test_captures_without_a_packet_prove_nothing(tmp_path: Path) -> None:
    proof = run([Room("type1x1").write(tmp_path)])
    assert not proof.holds
    assert not failing(proof)


def _with_pcie(room: Room, tmp_path: Path) -> list[tuple[int, bytes]]:
    """Write `room` with a capture of s1n1's PCIe link; returns what stands in it."""
    host = bytes([10, 1, 1, 1])
    frames = [(t + 5000 if f[30:34] == host else t - 5000, f) for t, f in room.frames["tor1-s1n1"]
              if host in (f[26:30], f[30:34])]
    room.write(tmp_path)
    write_pcap(tmp_path / "s1n1-pcie.pcap", sorted(frames))
    return frames


def test_a_smartnic_passes_its_host_s_packets_as_they_are(rack: Room, tmp_path: Path) -> None:
    rack.send("s1h", "c1", udp(9, 30_000, b"answer"), by="tor1-s1n1")
    passed = _with_pcie(rack, tmp_path)
    proof = run([tmp_path])
    assert proof.holds, proof.rows()
    assert proof.check(PASSING).counts == {"packets": len(passed), "SmartNICs watched": 1}
    assert proof.ports["s1n1-pcie"] == {"seen": len(passed)}


def test_a_smartnic_that_decrements_the_ttl_or_loses_a_packet_is_found(rack: Room, tmp_path: Path) -> None:
    frames = _with_pcie(rack, tmp_path)
    frames.pop()
    frames[0] = frames[0][0], hop_on(frames[0][1], "02:e3:ff:01:00:01", "02:e3:01:01:00:01")
    write_pcap(tmp_path / "s1n1-pcie.pcap", sorted(frames))
    proof = run([tmp_path])
    assert failing(proof) == {PASSING}
    assert proof.check(PASSING).counts["lost"] == proof.check(PASSING).counts["with another TTL"] == 1


def test_without_an_inventory_captures_are_only_summarised(rack: Room, tmp_path: Path) -> None:
    rack.write(tmp_path)
    (tmp_path / "inventory.json").unlink()
    proof = run([tmp_path])
    assert not proof.holds
    assert proof.checks == ()
    assert proof.packets == sum(map(len, rack.frames.values()))
    assert proof.kinds == {"TCP": 120, "UDP": proof.packets - 120}
    assert proof.ports["tor1-c1"] == {"seen": len(rack.frames["tor1-c1"])}
    assert "nothing is proved" in proof.notes[0]


def test_json_says_whether_the_proof_holds(rack: Room, tmp_path: Path) -> None:
    content = msgspec.json.decode(run([rack.write(tmp_path)]).to_json())
    assert content["holds"] is True
    assert {c["name"]: c["verdict"] for c in content["checks"]}[TTL] is True


def test_at_most_five_packets_stand_as_evidence(rack: Room, tmp_path: Path) -> None:
    for i in range(12):
        rack.remove(rack.send("c1", "s1n1", udp(i, 9, b""))[-1])
    check = run([rack.write(tmp_path)]).check(DELIVERY)
    assert check.counts["lost"] == 12
    assert len(check.evidence) == 5


@pytest.mark.parametrize("name", ["inventory.json", "programs.json", "bucket_counters.json"])
def test_a_broken_companion_file_is_named(rack: Room, tmp_path: Path, name: str) -> None:
    rack.write(tmp_path)
    (tmp_path / name).write_text('{"tor1": 3}')
    with pytest.raises(CaptureError, match=name):
        run([tmp_path])


def test_a_capture_of_an_unknown_interface_is_named(rack: Room, tmp_path: Path) -> None:
    rack.write(tmp_path)
    write_pcap(tmp_path / "eth0.pcap", [])
    with pytest.raises(CaptureError, match="no interface 'eth0'"):
        run([tmp_path])


def test_a_capture_given_twice_is_refused(rack: Room, tmp_path: Path) -> None:
    rack.write(tmp_path)
    with pytest.raises(CaptureError, match="given twice"):
        run([tmp_path, tmp_path / "tor1-c1.pcap"])


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"no \*\.pcap"):
        run([tmp_path])


def test_data_that_is_no_e3_message_is_counted(rack: Room, tmp_path: Path) -> None:
    rack.send("c1", "s1n1", udp(1, DATA_PORT, b"hello"))
    rack.send("c1", "s1n1", udp(1, DATA_PORT, b"\xe3\xa7garbage"))
    proof = run([rack.write(tmp_path)])
    assert proof.kinds["other UDP on the data port"] == proof.kinds["malformed E3 message"] == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 90), st.integers(0, 255), st.integers(0, 80)),
                max_size=40))
def test_damaged_and_hostile_frames_are_judged_without_a_crash(
        damages: list[tuple[int, int, int, int]]) -> None:
    room = Room("type2x2")
    for i in range(20):
        room.request(i, "c1", "s1n1", "s2h")
    interfaces = list(room.frames)
    for port, position, value, size in damages:
        frames = room.frames[interfaces[port]]
        whole = bytearray((frames[position % len(frames)][1] if frames else b"") or bytes(60))
        whole[position % len(whole)] = value
        frames.append((room.now_ns + position, bytes(whole[:size])))
    judge = RoutingJudge(room.inventory, interfaces)
    judge.take_all(heapq.merge(*(
        [(time_ns, source, number, frame) for number, (time_ns, frame) in enumerate(sorted(room.frames[i]), 1)]
        for source, i in enumerate(interfaces))))
    spreads = spreads_of(judge)
    checks_of(judge, room.inventory, predictor_of(room.programs), room.programs, None, spreads)
    assert sum(p.came_in + p.left for p in judge.ports.values()) == sum(map(len, room.frames.values()))
    assert all(s.matcher.waiting() == 0 for s in judge.switches)


def test_the_table_has_a_row_for_every_check_and_one_for_every_packet_of_evidence(rack: Room, tmp_path: Path) -> None:
    out = to_host(rack)
    rack.remove(out[-1])
    proof = run([rack.write(tmp_path)])
    rows = proof.rows()
    assert [row[0] for row in rows if row[0]] == [c.name for c in proof.checks]
    place = [row[0] for row in rows].index(DELIVERY)
    assert rows[place][1] == "FAILS" and "1 lost" in rows[place][2]
    assert rows[place + 1][3].startswith("tor1-c1.pcap packet ") and rows[place + 1][3].endswith("never left tor1")
    assert [row[1] for row in rows if row[0] == PASSING] == ["not judged"]
