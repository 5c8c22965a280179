"""The operator's view: what is known is shown, what nobody tells is left open, and which testbed is meant."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest
from controller_room import DEPLOYMENT, INVENTORY, Room

from experiments.emulation.bed_facts import BedFacts, chosen_world, facts_in
from experiments.emulation.pacing import Pacing
from experiments.errors import ExperimentError
from experiments.shell.top import SHOWN_EVENTS, asked_of, power_of, top_content, top_views
from experiments.shell.views import rendered
from nodes import journal

PACING = Pacing("calibrated", 20.0)
NODES = [node.name for node in INVENTORY.nodes if node.role in ("host", "smartnic")]


def reports(now_s: float, busy_s: float = 0.0, silent: str = "") -> dict[str, dict[str, int]]:
    return {name: {"now_ns": round(now_s * 1e9), "busy_ns nids": round(busy_s * 1e9), "queue_depth": 7,
                   "handled nfv-fin/nids-1": 1} for name in NODES if name != silent}


def look(silent: str = "", room: Room | None = None) -> dict[str, object]:
    before, after = reports(1.0), reports(2.0, 6.0, silent)
    state = room.controller.state(room.now) if room is not None else None
    events = list(room.controller.events) if room is not None else []
    return top_content(before, after, INVENTORY, [DEPLOYMENT], power_of(before, after, INVENTORY, PACING, [DEPLOYMENT]),
                       state, events)


def row_of(content: dict[str, object], node: str) -> dict[str, object]:
    return next(row for row in content["nodes"] if row["node"] == node)  # type: ignore[attr-defined,no-any-return]


def test_a_node_is_shown_with_what_its_agent_counts() -> None:
    row = row_of(look(), "s1n1")
    assert (row["busy_cores"], row["cores"], row["queue_frames"]) == (6.0, 12, 7)
    assert isinstance(row["active_watts"], float) and row["active_watts"] > 18
    assert row["instances"] == ["nfv-fin/monitor-1", "nfv-fin/nids-3"]


def test_what_nobody_tells_is_left_open() -> None:
    content = look(silent="s2n1")
    row = row_of(content, "s2n1")
    assert (row["busy_cores"], row["queue_frames"], row["active_watts"], row["network"], row["heard_ms"]) == (None,) * 5
    assert content["orchestrator"] is None and content["migrations"] == []
    unpaced = power_of(reports(1.0), reports(2.0), INVENTORY, Pacing(), [DEPLOYMENT])
    assert unpaced is None and power_of({}, {}, INVENTORY, PACING, []) is None


def test_with_a_controller_instances_stand_where_it_says_and_migrations_are_shown() -> None:
    room = Room(automatic=False, loses=lambda send: True)
    room.beat("s1n1", queue=12, network=0.5)
    room.pass_time(0.1)
    room.by_hand("nfv-fin/nids-3", "s1h")
    content = look(room=room)
    row = row_of(content, "s1n1")
    assert row["network"] == pytest.approx(0.5, abs=0.01) and isinstance(row["heard_ms"], float)
    assert [m["state"] for m in content["migrations"]] == ["pushing"]  # type: ignore[attr-defined]
    assert content["orchestrator"] == "watch"
    shown = "".join(rendered(view, 150) for view in top_views(content))
    assert "only watches" in shown and "pushing" in shown and "nfv-fin/nids-3" in shown and "50%" in shown
    moving, = msgspec.json.decode(msgspec.json.encode(content))["migrations"]
    assert (moving["source"], moving["destination"], moving["unanswered"]) == ("s1n1", "s1h", ["s1h"])


def test_a_withdrawal_is_shown_while_it_is_under_way() -> None:
    room = Room(automatic=False, loses=lambda send: True)
    room.controller.withdraw("nfv-fin", room.now, [])
    shown = "".join(rendered(view, 150) for view in top_views(look(room=room)))
    assert "Withdrawals under way" in shown and "closing" in shown
    room.pass_time(6.0)  # nobody answers: what is under way is dropped, and all nodes owe an answer
    content = look(room=room)
    going, = content["withdrawals"]  # type: ignore[misc]
    assert (going["name"], going["state"], list(going["owed"])) == ("nfv-fin", "clearing", sorted(NODES))
    assert all(row["instances"] == [] for row in content["nodes"])  # type: ignore[attr-defined]
    shown = "".join(rendered(view, 150) for view in top_views(content))
    assert "clearing" in shown and ", ".join(sorted(NODES)) in shown


def test_events_are_the_last_ones_only() -> None:
    room = Room(automatic=False)
    for turn in range(4):
        room.by_hand("nfv-fin/nids-3", ("s1h", "s1n1")[turn % 2])
        room.pass_time(1.0)
    shown = look(room=room)["events"]
    last = list(room.controller.events)[-SHOWN_EVENTS:]
    assert [e["sequence"] for e in shown] == [e.sequence for e in last]  # type: ignore[attr-defined]


def test_without_a_controller_there_is_nothing_to_ask() -> None:
    assert asked_of(None) == (None, [])


# -- which testbed ----------------------------------------------------------------------------------------------------

@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


def world(root: Path, name: str) -> int:
    """Make a world that is alive in the eyes of another process: its journal is locked by a child."""
    run_dir = root / name
    run_dir.mkdir()
    (run_dir / journal.JOURNAL_NAME).touch()
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        descriptor = os.open(run_dir / journal.JOURNAL_NAME, os.O_RDWR)
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        os.write(go, b"x")
        os.close(ready)
        import time

        time.sleep(30)
        os._exit(0)
    os.read(ready, 1)
    os.close(ready)
    os.close(go)
    return child


def test_the_only_running_testbed_is_meant_unless_one_is_named(root: Path) -> None:
    children = []
    try:
        with pytest.raises(ExperimentError, match="no testbed is running"):
            chosen_world(root=root)
        children.append(world(root, "w000001"))
        (root / "w00dead").mkdir()
        assert chosen_world(root=root) == root / "w000001"
        children.append(world(root, "w000002"))
        with pytest.raises(ExperimentError, match="several testbeds are running: name one of w000001, w000002"):
            chosen_world(root=root)
        assert chosen_world("w000002", root) == root / "w000002"
        with pytest.raises(ExperimentError, match="no running world 'w00dead'"):
            chosen_world("w00dead", root)
    finally:
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)


def test_what_a_testbed_writes_of_itself_is_read_back(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no testbed that is up"):
        facts_in(tmp_path)
    facts = BedFacts("e3", PACING, (DEPLOYMENT,), "ctl1", 4711)
    facts.write(tmp_path)
    assert facts_in(tmp_path) == facts and [path.name for path in tmp_path.iterdir()] == ["testbed.msgpack"]
