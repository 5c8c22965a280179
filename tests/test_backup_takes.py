"""What a backup takes of its node: memory for a copy of the state, core time for taking in what the primary did."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from moving_rack import RACK, Repeated
from replicated_rack import ReplicatedRack, counter_chain, lone_store

from experiments.emulation.pacing import Pacing
from experiments.measurement.simulated_bed import calibration_of
from experiments.shell.top import top_content, top_views
from microservices.kvs import Kvs
from nodes.deployment import deploy
from nodes.execution import Execution
from nodes.origin import Origin
from nodes.simulated import NetworkFaults, Simulation
from nodes.simulated_links import Calibration

CLEAN = NetworkFaults(delay_s=5e-5)


def taken_mb(rack: ReplicatedRack) -> dict[str, float]:
    """Return the memory of each node that the controller counts as taken."""
    table = rack.control.controller.orchestrator.table
    names = rack.control.controller.names
    return {name: mb for name, mb in zip(names, table.nodes.memory_mb - table.free_mb, strict=True) if mb}


def wanted_mb(rack: ReplicatedRack) -> dict[str, float]:
    """Return what the instances and copies that stand take of each node."""
    where, found = rack.control.controller.where, dict.fromkeys(rack.control.controller.names, 0.0)
    for key, node in where.node_of.items():
        found[node] += where.instances[key].memory_mb
    for r in rack.replicas():
        for name in (r.backup, r.joiner):
            if name:
                found[name] += where.instances[r.application, r.number].memory_mb
    return {name: mb for name, mb in found.items() if mb}


def test_a_backup_takes_as_much_memory_as_its_primary() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    assert taken_mb(rack) == dict.fromkeys(("s1n1", rack.replica().backup), Kvs.memory_mb)


def test_whoever_dies_memory_is_counted_where_instances_and_copies_stand(tmp_path: Path) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path), {0: "s1n1", 1: "s2n1", 2: "s3n1"}, CLEAN)
    draw = random.Random(4)
    for _ in range(4):
        rack.kill(draw.choice([name for r in rack.replicas() for name in (r.primary, r.backup)]), down_s=0.6)
        for _ in range(8):
            rack.run(0.1)
            assert taken_mb(rack) == wanted_mb(rack)
        rack.run(1.0)
        rack.until(rack.paired)
    assert taken_mb(rack) == wanted_mb(rack) and len(wanted_mb(rack)) > 1


def test_a_controller_that_restarts_and_one_that_is_told_of_more_count_it_too(tmp_path: Path) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path), {0: "s1n1", 1: "s2n1", 2: "s3n1"}, CLEAN)
    controller = rack.control.controller
    controller.deploy(deploy(lone_store(), {0: "s1h"}, RACK), rack.now)  # tables begin anew
    assert taken_mb(rack) == wanted_mb(rack)
    successor = type(controller)(RACK, [rack.deployment], controller._journal, automatic=False)
    rack.control.controller = successor
    assert taken_mb(rack) == wanted_mb(rack) and {r.backup for r in rack.replicas()} != {""}


def test_where_there_is_room_for_a_primary_or_a_backup_nobody_gets_both() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    controller, more = rack.control.controller, deploy(lone_store(302), {0: "s1h"}, RACK, replicate=True)
    for name in controller.names:
        rack.simulation.runtime(name).deploy(more)
    controller.deploy(more, rack.now)
    table = controller.orchestrator.table
    table.free_mb -= table.nodes.memory_mb - 1.5 * Kvs.memory_mb
    rack.until(lambda: len(rack.replicas()) == 2 and rack.paired())
    assert len({name for r in rack.replicas() for name in (r.primary, r.backup)}) == 4
    assert (table.free_mb >= 0).all()


def test_top_shows_what_each_node_backs_up_and_how_much_memory_is_left() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    content = top_content({}, {}, RACK, [rack.deployment], None, rack.control.controller.state(rack.now), [])
    rows = {row["node"]: row for row in content["nodes"]}
    backup = rack.replica().backup
    assert [name for name, row in rows.items() if row["backups"]] == [backup]
    assert rows[backup]["backups"] == ["lone/store-1"] and rows[backup]["instances"] == []
    memory_mb = RACK.node(backup).memory_gb * 1024
    assert rows[backup]["free_mb"] == memory_mb - Kvs.memory_mb
    shown = top_views(content)[0]
    assert shown.columns[-1] == "backs up" and ("lone/store-1" in row[-1] for row in shown.rows)


def calibrated() -> Calibration:
    return calibration_of(Pacing("calibrated", 1.0), RACK, (deploy(lone_store(), {0: "s1n1"}, RACK),))


def busy_s(rack: ReplicatedRack, node: str) -> float:
    return rack.simulation.runtime(node).execution.cores.busy_s.get("kvs", 0.0)


def test_a_backup_s_cores_are_busy_with_what_the_primary_did() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, calibration=calibrated())
    client = rack.client(100)
    rack.until(lambda: len(client.answers) == 100)
    rack.run(0.1)
    primary, backup = busy_s(rack, "s1n1"), busy_s(rack, rack.replica().backup)
    assert backup > 0.1 * primary  # the two may be of different classes
    others = {name: busy_s(rack, name) for name in rack.simulation.counters()
              if name not in ("s1n1", rack.replica().backup)}
    assert set(others.values()) == {0.0}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_taking_in_an_update_costs_its_share_of_a_request_of_as_many_bytes(share: float) -> None:
    engine = Execution("s1n1", cores=1, cost=lambda _, size, origin: 1e-6 * size + (origin is not Origin.NETWORK),
                       copy_share=share)
    for number in range(10):
        engine.copied("kvs", 100 + number, 0.0)
    assert engine.cores.busy_s.get("kvs", 0.0) == pytest.approx(share * 1e-6 * (1000 + 45))


def test_what_is_not_paced_costs_what_it_takes() -> None:
    engine = Execution("s1n1", copy_share=1.0)
    engine.copied("kvs", 100, 0.0)
    assert engine.cores.busy_s == {}


def test_a_request_waits_for_a_core_that_takes_in_an_update_and_is_done_when_it_is_free() -> None:
    simulation = Simulation(RACK, [deploy(lone_store(), {0: "s1n1"}, RACK)], CLEAN, cost=lambda _: lambda *_: 0.001)
    execution = simulation.runtime("s1n1").execution
    execution._copy_share = 1.0
    for _ in range(2 * execution.cores.count):  # all cores, twice
        execution.copied("kvs", 100, 0.0)
    client = simulation.client(simulation._deployments[0], Repeated(b"set k 0 0 1\r\n0\r\n"), 3, window=3)
    simulation.run()
    assert [round(answer.answered_s, 4) for answer in client.answers] == [0.0031] * 3
