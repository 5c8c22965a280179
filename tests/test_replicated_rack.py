"""A replicated instance on a rack in virtual time: whatever fails, clients get each reply once, and nothing is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from moving_rack import RACK
from replicated_rack import ReplicatedRack, counter_chain, lone_store

from controller.errors import MigrationError
from microservices.application import Application, Stage
from nodes.deployment import deploy
from nodes.errors import NodeError
from nodes.simulated import NetworkFaults

CLEAN = NetworkFaults(delay_s=5e-5)
LOSSY = NetworkFaults(loss=0.02, duplication=0.01, reordering=0.01, delay_s=50e-6, jitter_s=20e-6, reordering_s=1e-3)


def test_a_replicated_store_answers_and_its_backup_has_what_it_answered() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    assert rack.replica().primary == "s1n1"
    rack.client(500)
    rack.finish()
    rack.run(0.1)
    assert rack.judged() == []


@pytest.mark.parametrize("faults", [CLEAN, LOSSY], ids=["no loss", "2 % lost"])
def test_when_the_primarys_server_dies_the_backup_goes_on_and_nothing_is_lost_or_done_twice(
        faults: NetworkFaults) -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, faults)
    client = rack.client()
    rack.client(name="c2", window=1)
    rack.run(0.2)
    before = rack.replica()
    rack.kill_server(before.primary)
    answered = len(client.answers)
    took_s = rack.until(lambda: len(client.answers) > answered + 10)
    assert took_s < 1.5 and rack.replica().primary == before.backup
    rack.until(rack.paired)
    rack.run(0.2)
    rack.finish()
    assert rack.judged() == []


@pytest.mark.parametrize("faults", [CLEAN, LOSSY], ids=["no loss", "2 % lost"])
@pytest.mark.parametrize("backups", [(1, 1, 1), (0, 1, 0), (1, 0, 1)], ids=["all", "the store", "its neighbours"])
def test_neighbours_of_what_is_promoted_send_there_and_get_from_there_exactly_once(
        tmp_path: Path, backups: tuple[int, int, int], faults: NetworkFaults) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path, backups=backups), {0: "s1n1", 1: "s2n1", 2: "s3n1"}, faults)
    client = rack.client()
    rack.client(name="c2", window=1)
    rack.run(0.1)
    struck = "s2n1" if backups[1] else "s1n1"
    rack.kill(struck)
    answered = len(client.answers)
    rack.until(lambda: len(client.answers) > answered + 5)
    rack.until(rack.paired)
    rack.finish()
    assert rack.judged() == []


def test_replicas_on_one_node_with_their_neighbours_follow_each_other(tmp_path: Path) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path), {0: "s1n1", 1: "s1n1", 2: "s1n1"}, LOSSY)
    client = rack.client()
    rack.run(0.1)
    rack.kill_server("s1n1")
    answered = len(client.answers)
    rack.until(lambda: len(client.answers) > answered + 5)
    rack.until(rack.paired)
    rack.finish()
    assert rack.judged() == []


@pytest.mark.parametrize("seed", range(12))
def test_whatever_dies_while_another_replica_lives_nothing_is_lost_or_done_twice(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    faults = NetworkFaults(draw.choice((0, 0.02, 0.1)), draw.choice((0, 0.02)), draw.choice((0, 0.05)), delay_s=5e-5,
                           jitter_s=draw.choice((0, 1e-4)), reordering_s=1e-3)
    costs = draw.choice(((0.0,), (1e-5, 2e-3)))
    places = {number: draw.choice(("s1n1", "s1h", "s2n1", "s2h", "s3n1", "s3h")) for number in range(3)}
    rack = ReplicatedRack(counter_chain(tmp_path), places, faults, seed, cost=lambda _: lambda *_: draw.choice(costs))
    rack.client(window=draw.choice((1, 4)))
    rack.client(name="c2", window=1)
    for _ in range(4):
        rack.run(0.7 + draw.random() * 0.2)  # whoever died before is known to be dead
        rack.until(rack.paired)
        victim = draw.choice([name for r in rack.replicas() for name in (r.primary, r.backup)])
        if draw.random() < 0.5:
            rack.kill_server(victim, down_s=draw.choice((0.05, 0.4, 2.0)))
        else:
            rack.kill(victim, down_s=draw.choice((0.05, 0.4, 2.0)))
    rack.run(0.5)
    rack.until(rack.paired)
    rack.finish()
    assert rack.judged() == [] and min(len(c.answers) for c in rack.clients) > 10


OWN = """
from microservices.errors import StateError
from microservices.service import Microservice
from microservices.state import State


class Heap(State):
    def start_changes(self):
        raise StateError("a heap of its own, which nobody can follow")


class Own(Microservice):
    name = "own"
    memory_mb = 1

    def new_state(self):
        return Heap()

    def handle(self, request, state):
        return ()
"""


def test_what_cannot_be_replicated_is_refused_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    with pytest.raises(NodeError, match="store-1 cannot be replicated: a heap of its own, which nobody can follow"):
        deploy(Application("lone", 302, (Stage("store", f"{path}:Own", 1, 1),), ()), {0: "s1h"}, RACK, replicate=True)


def test_what_is_replicated_does_not_migrate() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    with pytest.raises(MigrationError, match="is replicated"):
        rack.control.move("store-1", "s2n1")


def test_what_runs_alone_begins_anew_elsewhere_when_its_node_is_fenced(tmp_path: Path) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path, backups=(1, 1, 0)), {0: "s1n1", 1: "s2n1", 2: "s3n1"}, CLEAN)
    client = rack.client()
    rack.run(0.1)
    rack.kill("s3n1", down_s=60.0)
    rack.run(0.7)
    controller, out = rack.control.controller, []
    assert controller.state(rack.now).nodes[-1].life == "dead"
    assert controller.declared_dead("s3n1", rack.now, out) == []
    rack.simulation.network.after(rack.control, out)
    rack.until(lambda: not controller.control.open)
    where = controller.where.node_of[300, 2]
    assert where != "s3n1" and rack.simulation.runtime(where).execution.runs((300, 2))
    assert [event.instance for event in controller.events if event.what == "nowhere"] == ["counters/last-1"]
    later = rack.client(50, name="c2")
    rack.until(lambda: len(later.answers) == 50)
    assert len(client.answers) > 0 and later.complaints() == []
