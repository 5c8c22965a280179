"""A stateful instance moves live between nodes, by the controller's commands over the network, while requests pass."""

from __future__ import annotations

import random
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from moving_rack import RACK, MovingRack, counter_store, lone_store

from controller.errors import MigrationError
from controller.resource_controller import ResourceController
from experiments.emulation.pacing import Pacing
from experiments.measurement.simulated_bed import calibration_of
from microservices.application import Application, Stage
from nodes.deployment import deploy
from nodes.messages import AckMessage
from nodes.simulated import NetworkFaults

COMPUTING = [entry.name for entry in RACK.nodes if entry.role in ("host", "smartnic")]
LOSSY = NetworkFaults(loss=0.02, duplication=0.01, reordering=0.01, delay_s=50e-6, jitter_s=20e-6, reordering_s=1e-3)


def rack(folder: Path, nodes: tuple[str, ...] = ("s1n1", "s2n1", "s3n1"), **more) -> MovingRack:
    """All of the rack's six nodes, paced and linked as in a testbed."""
    application = counter_store(folder)
    placed = deploy(application, dict(enumerate(nodes)), RACK)
    calibration = calibration_of(Pacing("calibrated", 1.0), RACK, (placed,))
    return MovingRack(application, nodes, calibration=calibration, **more)


def test_a_store_moves_under_load_with_its_state_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    moving = rack(tmp_path)
    moving.client(2000)
    moving.run(0.02)
    took_s = moving.move("s2h")
    assert took_s < 0.2
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) == 2000


@pytest.mark.parametrize("faults", [NetworkFaults(delay_s=5e-5), LOSSY], ids=["no loss", "2 % lost"])
@pytest.mark.parametrize("places", [("s2h", "s2n1"), ("s1n1", "s3n1", "s2n1", "s1h")],
                         ids=["to and fro", "to its neighbours' nodes, too"])
def test_in_a_hundred_moves_under_load_nothing_is_lost_or_done_twice(tmp_path: Path, places: tuple[str, ...],
                                                                     faults: NetworkFaults) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), faults)
    moving.client(1 << 20, window=16)
    moving.client(1 << 20, window=1, name="c2")
    for turn in range(100):
        moving.move(places[turn % len(places)])
        moving.run(0.004)
    moving.stop_clients()
    moving.finish()
    assert moving.complaints() == [] and sum(len(client.answers) for client in moving.clients) > 1000
    assert moving.simulation.idle


@pytest.mark.parametrize("told", [True, False], ids=["by the controller", "by the old place"])
@pytest.mark.parametrize("faults", [NetworkFaults(delay_s=5e-5), LOSSY], ids=["no loss", "2 % lost"])
def test_clients_that_send_to_it_themselves_are_told_and_follow(faults: NetworkFaults, told: bool,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    if not told:
        monkeypatch.setattr(ResourceController, "_tell_clients", lambda *_: None)
    else:
        for module in ("service_runtime", "local_instances"):
            monkeypatch.setattr(f"nodes.{module}.moved_to", lambda *_: AckMessage(1, ()).encode())
    moving = MovingRack(lone_store(), ("s2n1",), faults)
    moving.client(1 << 20, window=4)
    moving.client(1 << 20, window=1, name="c2")
    for turn in range(30):
        moving.move(("s2h", "s2n1", "s1n1")[turn % 3])
        moving.run(0.005)
    moving.stop_clients()
    moving.finish()
    assert moving.complaints() == [] and min(len(client.answers) for client in moving.clients) > 100


def test_a_request_that_runs_is_ended_before_its_instance_goes(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), NetworkFaults(delay_s=5e-5),
                        cost=lambda _: lambda service, size, origin: 5e-3 if service == "kvs" else 1e-5)
    moving.client(200, window=8)
    moving.run(0.0123)
    for node in ("s2h", "s1n1", "s2n1"):
        assert moving.move(node) > 1e-3
        moving.run(0.0087)
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) == 200


def test_a_binary_that_is_not_the_microservice_is_refused_and_counted_and_the_instance_stays(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), artifact=lambda _: b"import os\n")
    moving.client(300)
    moving.control.move("store-1", "s2h")
    moving.settle()
    moving.finish()
    assert moving.where() == ["s2n1"] and moving.complaints() == []
    assert moving.control_of("s2h")["control fetched: unusable"] == 1
    assert not any("control" in name for name in moving.control_of("s2n1"))


def test_what_cannot_be_moved_stays_where_it_is() -> None:
    application = Application("lone", 302, (Stage("store", "sql"),), ())
    moving = MovingRack(application, ("s2h",))
    moving.control.move("store-1", "s1h")
    moving.settle()
    assert moving.where() == ["s2h"] and moving.control_of("s1h")["control fetched: unusable"] == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("state", ["pushing", "stopping", "moving"])
def test_if_the_destination_dies_before_the_commit_the_source_goes_on_and_nothing_is_lost(tmp_path: Path, state: str,
                                                                                          seed: int) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), LOSSY, seed)
    moving.client(400)
    moving.run(0.02)
    moving.control.move("store-1", "s2h")
    moving.stage(state)
    moving.simulation.reboot("s2h", down_s=0.05)
    moving.settle()
    if state != "pushing":  # nothing was lost with it then, and it is pushed once more
        assert moving.where() == ["s2n1"]
        moving.move("s2h")  # which has come back
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) == 400


def test_if_the_source_dies_after_the_commit_the_destination_goes_on_and_nothing_is_lost(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), LOSSY, 5)
    moving.client(400)
    moving.run(0.02)
    moving.control.move("store-1", "s2h")
    moving.stage("switching")
    moving.simulation.reboot("s2n1", down_s=0.05)
    moving.settle()
    moving.finish()
    assert moving.where() == ["s2h"] and moving.complaints() == [] and len(moving.clients[0].answers) == 400


def test_a_node_that_starts_again_is_told_what_to_run(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"))
    moving.client(50)
    moving.finish()
    moving.simulation.reboot("s3n1", down_s=0.05)  # where the last stage is, which keeps nothing
    assert not moving.simulation.runtime("s3n1").execution.statistics()
    moving.run(1.0)
    assert [s.name for s in moving.simulation.runtime("s3n1").execution.statistics()] == ["counters/last-1"]
    later = moving.client(50)
    moving.finish()
    assert len(later.answers) == 50 and later.complaints() == []


def test_who_comes_from_a_node_that_has_started_again_brings_along_where_its_neighbours_are(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), LOSSY, 2)
    moving.client(20)
    moving.finish()
    moving.move("s2h")
    present = deploy(counter_store(tmp_path), {0: "s1n1", 1: "s2h", 2: "s3n1"}, RACK)
    moving.simulation.reboot("s1n1", 0.05, [present])  # where the first stage is
    moving.run(1.0)
    moving.settle()
    for node in ("s3h", "s1h"):  # which nobody told of the store's move
        moving.control.move("front-1", node)
        moving.settle()
    moving.clients.clear()
    later = moving.client(50)
    moving.finish()
    assert later.complaints() == [] and len(later.answers) == 50


def test_who_passes_by_a_node_that_knew_a_neighbours_place_by_chance_only_brings_along_when_it_came_there(
        tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s2h"), LOSSY)
    moving.client(1 << 20)
    for instance, node in (("last-1", "s1h"),  # of which s2n1 is told, where the store is
                           ("store-1", "s3n1"),
                           ("last-1", "s2h"),  # back, of which s2n1 is not told
                           ("store-1", "s3h"),  # which was told of neither, and knows it at s2h since the deployment
                           ("store-1", "s2n1")):
        moving.control.move(instance, node)
        moving.settle()
        moving.run(0.003)
    moving.stop_clients()
    moving.finish()
    assert moving.complaints() == [] and moving.simulation.idle and len(moving.clients[0].answers) > 50
    believed = [moving.simulation.runtime(node).execution.neighbours(moving.key)[-1] for node in ("s3h", "s2n1")]
    assert believed == [(2, 3, IPv4Address(RACK.node("s2h").ip).packed)] * 2  # last-1, by the third decision on it


def test_heartbeats_of_an_instance_come_from_where_it_is(tmp_path: Path) -> None:
    moving = rack(tmp_path)
    moving.client(400, window=1)
    moving.move("s2h")
    refused = moving.control.controller.counts()["foreign_instance"]
    moving.run(0.5)
    assert moving.simulation.runtime("s2n1").execution.loads() == {}
    assert moving.simulation.runtime("s2h").execution.loads()[moving.key].finished > 0
    assert moving.control.controller.counts()["foreign_instance"] == refused


def test_counters_of_requests_stay_with_the_node_that_handled_them(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"))
    moving.client(300)
    moving.run(0.01)
    for node in ("s2h", "s2n1", "s2h"):
        moving.move(node)
    moving.finish()
    counted = [moving.simulation.counters()[node].get("handled counters/store-1", 0) for node in ("s2n1", "s2h")]
    assert sum(counted) == 301 and min(counted) > 0


def test_two_neighbours_move_one_after_the_other_and_meet_on_one_node(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), LOSSY, 3)
    moving.client(1 << 20, window=2)
    for turn in range(24):
        instance, node = (("store-1", "s1h"), ("front-1", "s1h"), ("last-1", "s1h"), ("store-1", "s2n1"),
                          ("front-1", "s2n1"), ("last-1", "s3n1"))[turn % 6]
        moving.control.move(instance, node)
        moving.settle()
        moving.run(0.003)
    with pytest.raises(MigrationError, match=r"counters/store-1, its neighbour, is on its way"):
        moving.control.move("store-1", "s1h")
        moving.control.move("front-1", "s1h")
    moving.settle()
    moving.stop_clients()
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) > 50
    assert not any(moving.simulation.runtime(node).execution.detours for node in moving.simulation.counters())


@pytest.mark.parametrize("foresight", [0, 5, 256])
@pytest.mark.parametrize("seed", range(8))
def test_any_instance_moves_anywhere_at_any_time_and_nothing_is_lost_or_done_twice(
        tmp_path: Path, seed: int, foresight: int) -> None:
    draw = random.Random(seed)
    faults = NetworkFaults(draw.choice((0, 0.02, 0.15)), draw.choice((0, 0.02)), draw.choice((0, 0.05)), delay_s=5e-5,
                           jitter_s=draw.choice((0, 1e-4)), reordering_s=1e-3)
    costs = draw.choice(((0.0,), (1e-5, 2e-3)))
    moving = MovingRack(counter_store(tmp_path), [draw.choice(COMPUTING) for _ in range(3)], faults, seed,
                        cost=lambda _: lambda *_: draw.choice(costs), foresight=foresight)
    moving.client(1 << 20, window=draw.choice((1, 4)))
    moving.client(1 << 20, name="c2")
    begun = 0
    for _ in range(30):
        with suppress(MigrationError):  # it is there, or on its way, or a neighbour is
            moving.control.move(draw.choice(("front-1", "store-1", "last-1")), draw.choice(COMPUTING))
            begun += 1
        if draw.random() < 0.7:
            moving.settle()
        moving.run(draw.random() * draw.choice((5e-4, 5e-3)))
    moving.stop_clients()
    moving.settle()
    moving.finish()
    assert moving.complaints() == [] and moving.simulation.idle and begun > 10
