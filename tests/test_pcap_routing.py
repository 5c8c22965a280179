"""What captures prove, and that every broken twin of a sound capture is caught."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from pcap_room import (
    Room,
    failing,
    ip_frame,
    loaded_rack,
    move,
    other_port,
    to_host,
    udp,
    write_pcap,
)

from controller.tor_program import from_json
from experiments.captures.hash_prediction import predictor_of
from experiments.captures.pcap_routing import flow_ports, run
from experiments.captures.routing_proof import (
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
)
from topologies.addressing import CONTROL_PORT


@pytest.fixture
def rack() -> Room:
    return loaded_rack()


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
