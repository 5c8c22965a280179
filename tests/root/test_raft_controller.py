"""Three resource controllers on one replicated journal: the leader is killed in the middle of migrations.

    n1, n2, n3: processes in network namespaces of their own    nodes: real migration agents, in this process
          Raft between them <----------------------------------> datagrams, relayed to and from whoever decides

A leader is killed while it is asked something, so that entries may be written or not, and commands sent or not. Its
successor goes on: every migration completes or is rolled back, one instance lives, with its state, where the
successor says. E3_KILLS=50 in the environment is as often as the project's bar wants it; 6 unless it is set.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("controller.raft_journal", reason="pysyncobj is not installed")
from controller_room import DEPLOYMENT, Room
from raft_room import Node, ThreeNodes, others_of
from waiting import until

from nodes.transport import Send, Sends

KILLS = int(os.environ.get("E3_KILLS", "6"))
MOVED = "nfv-fin/nids-1"
NUMBER = next(i.number for i in DEPLOYMENT.application().instances if i.name == "nids-1")
ENDS = ("s2n1", "s3h")
SETTLE_S = 5.0  # emulated
MOST_CALLS = 17  # of a migration that nothing disturbs


class Died(Exception):
    """The controller was killed while it was asked."""


class Remote:
    """What a Room takes for its controller: it asks `node`, and kills it at the call number `dies_at`."""

    def __init__(self, node: Node, draw: random.Random, dies_at: int = 0) -> None:
        self.node, self._draw, self.dies_at = node, draw, dies_at
        self.calls = 0
        self._due: float | None = None

    def receive(self, source: bytes, payload: bytes, now: float, out: Sends) -> None:
        self._ask(out, "receive", source.hex(), payload.hex(), now)

    def tick(self, now: float, out: Sends) -> None:
        self._ask(out, "tick", now)

    def due(self) -> float | None:
        return self._due

    def move(self, instance: str, node: str, now: float, out: Sends) -> int:
        answer = self._ask(out, "move", instance, node, now)
        assert "number" in answer, answer
        return int(answer["number"])

    def state(self) -> dict[str, Any]:
        return self._ask([], "state")

    def _ask(self, out: Sends, *what: object) -> dict[str, Any]:
        self.calls += 1
        if self.calls == self.dies_at:
            process = self.node.process
            assert process.stdin is not None
            process.stdin.write(json.dumps(what) + "\n")
            process.stdin.flush()
            time.sleep(self._draw.uniform(0.0, 0.01))  # an entry takes a few ms to be agreed on
            self.node.kill()
            raise Died
        answer = self.node.ask(*what)
        if "error" in answer:
            raise AssertionError(answer["error"])
        self._due = answer["due"]
        out += [Send(bytes.fromhex(ip), port, bytes.fromhex(data)) for ip, port, data in answer["out"]]
        return answer


class Rack(Room):
    """Nodes whose controller is whoever decides among `three`."""

    def __init__(self, three: ThreeNodes) -> None:
        self.three = three
        self.draw = random.Random("when a leader is killed")
        super().__init__(automatic=False)

    def start_controller(self) -> None:
        self.follow(*self.three.nodes)

    def follow(self, *among: int) -> None:
        """Let one of `among` take over, and ask it from now on."""
        node, _ = self.three.writer(among)
        self.remote = Remote(node, self.draw)
        self.controller = self.remote  # type: ignore[assignment]

    def settle(self) -> dict[str, Any]:
        """Let time pass; return what the controller then knows."""
        self.hear_all()
        self.pass_time(SETTLE_S)
        return self.remote.state()

    def hear_all(self) -> None:
        for name in self.agents:
            self.beat(name)
        self.pass_time(0.1)


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    three = ThreeNodes(tmp_path, Path(__file__).with_name("raft_controller.py"))
    try:
        three.build()
        yield Rack(three)
    finally:
        three.stop()


def test_a_leader_killed_in_the_middle_of_a_migration_leaves_one_instance_where_its_successor_says(
        rack: Rack) -> None:
    known = rack.settle()
    outcomes: Counter[str] = Counter()
    waited_s = []
    key = DEPLOYMENT.number, NUMBER
    moved = 0
    for _ in range(KILLS):
        (source,) = rack.live_on(NUMBER)
        destination = ENDS[0] if source != ENDS[0] else ENDS[1]
        old = rack.remote.node
        rack.remote.dies_at = rack.remote.calls + rack.draw.randint(1, MOST_CALLS)
        with pytest.raises(Died):
            rack.by_hand(MOVED, destination)
            rack.pass_time(SETTLE_S)  # the migration may be over before; then it dies in the quiet after it
        started = time.monotonic()
        rack.follow(*others_of(old))
        waited_s.append(time.monotonic() - started)
        state = rack.settle()
        (owner,) = rack.live_on(NUMBER)
        assert state["places"][MOVED] == owner in (source, destination) and not state["under_way"]
        moved += owner == destination
        assert rack.runs[owner].live[key] == moved  # its state came along each time, and never twice
        assert state["term"] > known["term"] and state["boots"] == known["boots"]
        assert {**state["places"], MOVED: ""} == {**known["places"], MOVED: ""}
        outcomes["completed" if owner == destination else "not moved, or rolled back"] += 1
        known = state
        rack.three.restart(old.number)
        assert until(lambda old=old: "leads" in rack.three.nodes[old.number].ask("status"))  # type: ignore[misc]
    print(f"{KILLS} kills: {dict(outcomes)}; the successor decides after {sorted(waited_s)[len(waited_s) // 2]:.2f} s, "
          f"at most {max(waited_s):.2f} s")


def test_a_leader_in_the_minority_decides_nothing_and_the_majority_goes_on(rack: Rack) -> None:
    rack.settle()
    (source,) = rack.live_on(NUMBER)
    old = rack.remote.node
    old.connected(False)
    refused = old.ask("move", MOVED, ENDS[1], rack.now)
    assert "no majority" in refused["error"] and not refused["out"]
    assert "does not decide" in old.ask("tick", rack.now)["error"]
    rack.follow(*others_of(old))
    assert rack.settle()["places"][MOVED] == source and rack.live_on(NUMBER) == [source]
    rack.by_hand(MOVED, ENDS[1])
    assert rack.settle()["places"][MOVED] == ENDS[1] and rack.live_on(NUMBER) == [ENDS[1]]
    old.connected(True)
    assert "error" in old.ask("move", MOVED, source, rack.now)
    assert rack.settle()["places"][MOVED] == ENDS[1]
