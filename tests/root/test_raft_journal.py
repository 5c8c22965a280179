"""The controller's journal on three nodes: a leader dies, is cut off, is held up, returns."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("controller.raft_journal", reason="pysyncobj is not installed")
from raft_room import ThreeNodes, others_of
from waiting import until


@pytest.fixture
def room(tmp_path: Path) -> Iterator[ThreeNodes]:
    room = ThreeNodes(tmp_path, Path(__file__).with_name("raft_node.py"))
    try:
        room.build()
        yield room
    finally:
        room.stop()


def test_when_the_leader_dies_another_goes_on_with_the_same_entries_and_it_returns_as_a_follower(
        room: ThreeNodes) -> None:
    first, run = room.writer()
    took_s = first.ask("append", 50)["took_s"]
    first.kill()
    started = time.monotonic()
    second, later = room.writer(others_of(first))
    print(f"50 entries in {took_s:.3f} s; another writes after {time.monotonic() - started:.2f} s")
    assert later > run and second.epochs == list(range(50))
    second.ask("append", 50, 60)
    back = room.restart(first.number)
    assert until(lambda: back.epochs == list(range(60)))
    assert not back.ask("status")["writes"] and second.ask("append", 60, 61).get("took_s")


def test_whichever_of_three_is_killed_it_returns_and_hears_all_that_it_missed(room: ThreeNodes) -> None:
    for number in (1, 2, 3):
        room.nodes[number].kill()
        room.writer(others_of(room.nodes[number]))[0].ask("append", number - 1, number)
        back, agreed = room.restart(number), list(range(number))
        assert until(lambda back=back, agreed=agreed: back.epochs == agreed)  # type: ignore[misc]


def test_a_leader_that_is_cut_off_decides_nothing_and_is_not_the_writer_when_it_returns(room: ThreeNodes) -> None:
    old, _ = room.writer()
    old.ask("append", 10)
    old.connected(False)
    assert "no majority" in old.ask("append", 100, 101)["error"]
    assert until(lambda: not old.ask("status")["leads"])
    assert "error" in old.ask("append", 101, 102) and "error" in old.ask("take over")
    new, _ = room.writer(others_of(old))
    new.ask("append", 10, 20)
    old.connected(True)
    assert until(lambda: old.epochs == list(range(20)))
    assert "error" in old.ask("append", 102, 103) and not old.ask("status")["writes"]
    assert all(room.nodes[n].epochs == list(range(20)) for n in others_of(old))


def test_a_controller_that_was_replaced_while_it_was_held_up_writes_nothing_more(room: ThreeNodes) -> None:
    old, _ = room.writer()
    old.ask("append", 5)
    old.process.send_signal(signal.SIGSTOP)
    new, _ = room.writer(others_of(old))
    new.ask("append", 5, 8)
    old.process.send_signal(signal.SIGCONT)
    assert "error" in old.ask("append", 100, 101)
    assert until(lambda: old.epochs == list(range(8)))
    assert new.epochs == list(range(8))


def test_one_of_three_alone_never_leads(room: ThreeNodes) -> None:
    room.writer()
    alone, *rest = room.nodes.values()
    for node in rest:
        node.kill()
    assert until(lambda: not alone.ask("status")["leads"])
    for _ in range(20):
        time.sleep(0.1)
        assert not alone.ask("status")["leads"] and "error" in alone.ask("take over")
