"""The orchestrator on a running rack: moves by hand, a controller that is killed, nodes that come back, operators.

    c1 --- tor1 === s1n1, s2n1, s3n1 === s1h, s2h, s3h        ctl1 --- tor1
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from waiting import until

from controller.errors import MigrationError
from experiments.clients.client import ClientConfig, ClientResult
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from microservices.applications import nfv_fin
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x3"
INVENTORY = inventory_of(cluster_named(CLUSTER))
APPLICATION = nfv_fin(shards=3)
DEPLOYMENT = deploy(APPLICATION, place_in_turn(APPLICATION, INVENTORY), INVENTORY)
MOVED, FROM, TO = "nfv-fin/nids-3", "s1n1", "s1h"


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions(CLUSTER, label="orchestrator", deployments=(DEPLOYMENT,),
                                      orchestrator="watch")) as started:
        yield started


def sent(bed: Testbed, requests: int = 300) -> ClientResult:
    number = bed.next_client_number()
    return bed.start_client("c1", ClientConfig(bed.inventory.node("c1").ip, number, DEPLOYMENT, DEPLOYMENT.name,
                                               requests, seed=number, timeout_s=30.0)).result(60.0)


def assert_all_right(result: ClientResult, requests: int = 300) -> None:
    assert result.answered == requests, result
    assert not (result.errors or result.wrong or result.lost or result.duplicated or result.foreign), result


def handled(bed: Testbed, node: str, instance: str = MOVED) -> int:
    return bed.counters(node)[node].get(f"handled {instance}", 0)


def test_every_node_is_heard_of_by_the_controller(bed: Testbed) -> None:
    assert until(lambda: all(node.heard_s is not None for node in bed.asked().state().nodes))
    assert all(node.heard_s is not None and node.heard_s < 1.0 for node in bed.asked().state().nodes)


def test_an_instance_that_was_moved_by_hand_does_its_work_there(bed: Testbed) -> None:
    told = bed.migrate(MOVED, TO)
    assert (told.outcome, told.owner) == ("moved", TO) and told.steps_s["total"] > 0
    before = handled(bed, TO), handled(bed, FROM)
    assert_all_right(sent(bed))
    assert handled(bed, TO) > before[0] and handled(bed, FROM) == before[1]
    bed.migrate(MOVED, FROM)
    assert_all_right(sent(bed))


def test_what_cannot_be_moved_is_refused_with_the_reason(bed: Testbed) -> None:
    with pytest.raises(MigrationError, match="already"):
        bed.migrate(MOVED, FROM)
    with pytest.raises(MigrationError, match="no instance"):
        bed.migrate("nfv-fin/nobody-1", TO)
    with pytest.raises(MigrationError, match="no host or SmartNIC"):
        bed.migrate(MOVED, "c1")


def test_a_controller_that_was_killed_goes_on_from_its_journal(bed: Testbed) -> None:
    bed.migrate(MOVED, TO)
    term = bed.asked().state().term
    bed.kill_controller()
    with pytest.raises(MigrationError, match="no resource controller answers"):
        bed.asked().state()
    assert_all_right(sent(bed))  # nodes and clients need no controller to go on
    bed.start_controller()
    state = bed.asked().state()
    assert state.term == term + 1
    assert MOVED in next(node for node in state.nodes if node.name == TO).instances
    assert until(lambda: not bed.asked().state().under_way)
    assert bed.migrate(MOVED, FROM).outcome == "moved"
    assert_all_right(sent(bed))


def test_a_controller_that_is_killed_in_the_middle_of_a_migration_ends_it_when_it_is_back(bed: Testbed) -> None:
    for to in (TO, FROM):
        number = bed.asked().move(MOVED, to)
        bed.kill_controller()
        bed.start_controller()
        assert until(lambda: not bed.asked().state().under_way), number
        where = [node.name for node in bed.asked().state().nodes if MOVED in node.instances]
        live = [name for name in (FROM, TO) if f"handled {MOVED}" in bed.counters(name)[name]]
        assert len(where) == 1 and where[0] in live
        assert_all_right(sent(bed))
    if where[0] != FROM:
        bed.migrate(MOVED, FROM)


def test_a_second_controller_cannot_start_beside_the_first(bed: Testbed) -> None:
    with pytest.raises(ExperimentError, match="runs already"):
        bed.start_controller()
    assert bed.asked().state().nodes


def test_a_smartnic_that_lost_its_power_is_told_what_to_run_and_runs_it_afresh(bed: Testbed) -> None:
    bed.fail("smartnic", "s2n1")
    bed.heal("smartnic", "s2n1")
    assert until(lambda: "s2n1" in bed.counters("s2n1") and not bed.not_running_on("s2n1"))
    assert until(lambda: not bed.asked().state().under_way)
    assert any(event.what == "rebooted" and event.node == "s2n1" for event in bed.asked().events())
    bed.wait_until_ready()
    assert_all_right(sent(bed))


# -- from another process --------------------------------------------------------------------------------------------

def e3(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "experiments.cli", *words], capture_output=True, text=True, timeout=60,
                          check=False)


def test_top_migrate_and_events_work_from_another_process(bed: Testbed) -> None:
    world = bed.world.id
    moved = e3("migrate", MOVED, TO, "--world", world, "--json")
    assert moved.returncode == 0 and json.loads(moved.stdout)["owner"] == TO, moved.stderr
    looks = e3("top", world, "--looks", "2", "--every", "0.3", "--json")
    lines = [json.loads(line) for line in looks.stdout.splitlines()]
    assert len(lines) == 2 and lines[0]["now_s"] < lines[1]["now_s"], looks.stderr
    assert MOVED in next(node for node in lines[1]["nodes"] if node["node"] == TO)["instances"]
    events = [json.loads(line) for line in e3("events", world).stdout.splitlines()]
    moves = [event for event in events if event["migration"]]  # nodes that are heard for long enough are told, too
    assert moves[-1]["what"] == "done" and moves[-1]["instance"] == MOVED
    back = e3("migrate", MOVED, FROM, "--world", world)
    assert back.returncode == 0 and "moved" in back.stdout, back.stderr
    refused = e3("migrate", MOVED, FROM, "--world", world)
    assert refused.returncode == 2 and "already" in refused.stderr
