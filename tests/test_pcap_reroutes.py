"""The proof over captures in which links between switches die: what is excused, and that nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pcap_room import Room, failing, udp

from controller.fabric_repair import ends_of, repair
from controller.tor_status import RepairStatus
from experiments.captures.pcap_routing import flow_ports, run
from experiments.captures.reroutes import SLACK_NS, Reroutes
from experiments.captures.routing_proof import DELIVERY, HOST_FLOWS, PREDICTION, REQUESTS, SPREAD
from experiments.errors import CaptureError

CUT = ("agg1-tor1", "tor1-agg1")
ALONE = (*CUT, "agg2-tor1", "tor1-agg2")
SECOND_NS = 1_000_000_000


@pytest.fixture
def racks() -> Room:
    room = Room("type1x1/4")
    talk(room)
    return room


def talk(room: Room, flows: int = 24) -> None:
    """Let a client of each pod send to both, and back."""
    for i in range(flows):
        for source, target in (("r1c1", "r3c1"), ("r3c1", "r1c1"), ("r2c1", "r1c1"), ("r4c1", "r2c1")):
            room.send(source, target, udp(30_000 + i, 9, b"x"))


def happens(room: Room, *dead: str, meanwhile: Callable[[], None] = lambda: None, in_force: bool = True) -> None:
    """Let `dead` be all dead interfaces from now on; a second later all switches do what follows."""
    room.now_ns += SECOND_NS
    noticed_s, room.dead = room.now_ns / 1e9, frozenset(dead)
    meanwhile()
    room.now_ns += SECOND_NS // 100
    room.repairs.append(RepairStatus(noticed_s, tuple(sorted(dead)), 7, room.now_ns / 1e9))
    if in_force:
        room.programs = repair(room.told, ends_of(room.told, dead)).programs
    room.now_ns += SECOND_NS


def test_a_link_that_is_gone_round_and_comes_back_leaves_the_proof_whole(racks: Room, tmp_path: Path) -> None:
    happens(racks, *CUT)
    talk(racks)
    happens(racks)
    talk(racks)
    proof = run([racks.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert proof.check(HOST_FLOWS).counts["flows"] > 0 and proof.check(SPREAD).verdict is not False
    assert len(proof.notes) == 2 and "agg1-tor1, tor1-agg1; gone round after 0.010 s" in proof.notes[0]


def test_without_word_of_the_dead_link_the_same_captures_prove_nothing(racks: Room, tmp_path: Path) -> None:
    happens(racks, *CUT)
    talk(racks)
    racks.repairs.clear()
    assert failing(run([racks.write(tmp_path)])) >= {HOST_FLOWS}


def test_what_was_lost_over_the_link_till_it_was_gone_round_is_excused_and_counted(racks: Room, tmp_path: Path) -> None:
    happens(racks, *CUT, meanwhile=lambda: talk(racks))
    talk(racks)
    proof = run([racks.write(tmp_path)])
    assert proof.holds, proof.rows()
    counts = proof.check(DELIVERY).counts
    assert counts["lost at a link cut a moment ago"] > 5 and counts["lost"] == 0


@pytest.mark.parametrize("late_ns", [SLACK_NS + SECOND_NS // 10, 10 * SECOND_NS])
def test_a_switch_that_goes_on_sending_to_where_it_ends_is_a_black_hole(
        racks: Room, late_ns: int, tmp_path: Path) -> None:
    happens(racks, *CUT)
    racks.programs = {**racks.programs, "tor3": racks.told["tor3"]}
    racks.now_ns += late_ns - SECOND_NS
    talk(racks)
    proof = run([racks.write(tmp_path)])
    assert failing(proof) >= {DELIVERY, PREDICTION}
    assert proof.check(DELIVERY).counts["lost"] > 3
    assert "never left agg3" in str(proof.check(DELIVERY).evidence[0])


def test_an_app_that_says_gone_round_and_has_told_nobody_is_found_out(racks: Room, tmp_path: Path) -> None:
    happens(racks, *CUT, in_force=False)
    talk(racks)
    assert DELIVERY in failing(run([racks.write(tmp_path)]))


def test_a_loss_elsewhere_while_the_link_is_being_gone_round_is_still_one(racks: Room, tmp_path: Path) -> None:
    def lose_one() -> None:
        racks.remove(racks.send("r4c1", "r3c1", udp(5, 9, b"x"))[-1])

    happens(racks, *CUT, meanwhile=lose_one)
    proof = run([racks.write(tmp_path)])
    assert failing(proof) == {DELIVERY} and proof.check(DELIVERY).counts["lost"] == 1


def test_a_flow_that_takes_a_way_of_neither_program_is_found_even_between_them(racks: Room, tmp_path: Path) -> None:
    def astray() -> None:
        out = racks.send("r3c1", "r4c1", udp(30_000, 9, b"x"))[1]
        other = {"tor3-agg3": "tor3-agg4", "tor3-agg4": "tor3-agg3"}[out.interface]
        time_ns, frame = racks.frames[out.interface].pop(out.position)
        racks.frames[other].append((time_ns, frame))

    happens(racks, *CUT, meanwhile=astray)
    assert PREDICTION in failing(run([racks.write(tmp_path)]))


def test_what_no_way_is_left_for_is_dropped_by_rule_at_its_first_switch(racks: Room, tmp_path: Path) -> None:
    happens(racks, *ALONE)
    talk(racks)
    proof = run([racks.write(tmp_path)])
    assert DELIVERY not in failing(proof), proof.rows()
    assert proof.check(DELIVERY).counts["dropped by rule"] == 24 * 3
    assert proof.dropped == {"no way left": 24 * 3}


def test_a_request_that_was_cut_off_with_the_link_is_counted_apart(racks: Room, tmp_path: Path) -> None:
    happens(racks, *CUT, meanwhile=lambda: [racks.request(1 << 32 | i, "r3c1", "r1s1n1") for i in range(40)] and None)
    for i in range(40, 60):
        racks.request(1 << 32 | i, "r3c1", "r1s1n1")
    proof = run([racks.write(tmp_path)])
    assert proof.holds, proof.rows()
    counts = proof.check(REQUESTS).counts
    assert counts["cut off with a link"] > 3 and counts["followed"] + counts["cut off with a link"] == 60


def test_captures_that_begin_while_a_link_is_dead_are_judged_by_the_repaired_programs(tmp_path: Path) -> None:
    room = Room("type1x1/4")
    happens(room, *CUT)
    talk(room)
    proof = run([room.write(tmp_path)])
    assert proof.holds, proof.rows()
    assert set(flow_ports([tmp_path])["tor1"].values()) >= {"tor1-agg2"}
    assert "tor1-agg1" not in flow_ports([tmp_path])["tor1"].values()


def test_between_two_programs_is_from_a_little_before_the_news_till_a_little_after_all_do_it() -> None:
    room = Room("type1x1/4")
    made = Reroutes(room.inventory, room.told, [RepairStatus(100.0, CUT, 7, 101.0), RepairStatus(110.0, (), 7, 0.0),
                                                RepairStatus(111.0, CUT, 7, 112.0)])
    seconds = {99.0: (0,), 99.9: (0, 1), 101.2: (0, 1), 102.0: (1,), 110.0: (1, 2), 111.5: (1, 2, 3), 113.0: (3,)}
    assert {at: made.at(round(at * 1e9)) for at in seconds} == seconds
    assert made.during(round(105e9), round(106e9)) == (1,)


@pytest.mark.parametrize("text", [b"", b"{}", b'[{"noticed_s": "x"}]'])
def test_repairs_that_are_none_are_refused(racks: Room, text: bytes, tmp_path: Path) -> None:
    racks.write(tmp_path)
    (tmp_path / "repairs.json").write_bytes(text)
    with pytest.raises(CaptureError, match=r"repairs\.json"):
        run([tmp_path])
