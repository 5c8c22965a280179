"""Proofs of several racks, of parts of a switch, of SmartNICs, and of captures that are broken or hostile."""

from __future__ import annotations

import heapq
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pcap_room import (
    Room,
    failing,
    hop_on,
    loaded_rack,
    move,
    to_host,
    udp,
    write_pcap,
)

from experiments.captures.hash_prediction import predictor_of
from experiments.captures.pcap_routing import capture_files, run
from experiments.captures.routing_judge import RoutingJudge
from experiments.captures.routing_proof import (
    DELIVERY,
    PASSING,
    REQUESTS,
    TTL,
)
from experiments.captures.routing_verdicts import checks_of, spreads_of
from experiments.errors import CaptureError
from topologies.addressing import DATA_PORT


@pytest.fixture
def rack() -> Room:
    return loaded_rack()


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
    content = msgspec.json.decode(msgspec.json.encode(run([rack.write(tmp_path)]).content()))
    assert content["holds"] is True
    assert {c["name"]: c["verdict"] for c in content["checks"]}[TTL] is True


def test_at_most_five_packets_stand_as_evidence(rack: Room, tmp_path: Path) -> None:
    for i in range(12):
        rack.remove(rack.send("c1", "s1n1", udp(i, 9, b""))[-1])
    check = run([rack.write(tmp_path)]).check(DELIVERY)
    assert check.counts["lost"] == 12
    assert len(check.evidence) == 5


@pytest.mark.parametrize("name", ["inventory.json", "programs.json", "bucket_counters.json", "repairs.json"])
@pytest.mark.parametrize("content", [b'{"tor1": 3}', b'{"\xff": 3}'])
def test_a_broken_companion_file_is_named(rack: Room, tmp_path: Path, name: str, content: bytes) -> None:
    rack.write(tmp_path)
    (tmp_path / name).write_bytes(content)
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


def test_a_run_s_directory_stands_for_its_captures_and_one_without_any_is_refused(tmp_path: Path) -> None:
    captures = tmp_path / "run" / "captures"
    captures.mkdir(parents=True)
    with pytest.raises(CaptureError, match=r"run: no \*\.pcap in this directory, nor in its captures/"):
        capture_files([tmp_path / "run"])
    (captures / "tor1-c1.pcap").touch()
    assert capture_files([tmp_path / "run"]) == capture_files([captures]) == [captures / "tor1-c1.pcap"]
