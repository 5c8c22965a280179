"""Three controller nodes on a running rack: the leader is killed, is cut off, comes back; one of two goes on.

    ctl1, ctl2, ctl3 --- tor1 === s1n1, s2n1, s3n1 === s1h, s2h, s3h        c1 --- tor1
"""

import socket
from collections.abc import Iterator

import pytest
from waiting import until

from controller.errors import MigrationError
from experiments.clients.client import ClientConfig
from experiments.emulation.control_plane import inside
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from microservices.applications import nfv_fin
from nodes.deployment import deploy
from nodes.residents import running
from topologies.addressing import RAFT_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x3"
INVENTORY = inventory_of(cluster_named(CLUSTER))
APPLICATION = nfv_fin(shards=3)
DEPLOYMENT = deploy(APPLICATION, place_in_turn(APPLICATION, INVENTORY), INVENTORY)
MOVED = "nfv-fin/nids-3"
ENDS = ("s1n1", "s1h")


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions(CLUSTER, label="controllers", deployments=(DEPLOYMENT,), orchestrator="watch",
                                      controllers=3)) as started:
        assert until(lambda: lives(started) == {"alive"})
        yield started


def lives(bed: Testbed) -> set[str]:
    return {node.life for node in bed.asked().state().nodes}


def places(bed: Testbed) -> dict[int, str]:
    return {number: node for _, number, node, _ in bed.asked().places()}


def owner(bed: Testbed) -> str:
    return next(node.name for node in bed.asked().state().nodes if MOVED in node.instances)


def settle(bed: Testbed) -> str:
    """Wait till nothing is under way; return the one node that runs the instance, by its own word."""
    assert until(lambda: not bed.asked().state().under_way)
    counters = bed.counters()
    (one,) = [name for name, found in counters.items() if MOVED in running(found)]
    assert one == owner(bed)
    return one


def other_of(node: str) -> str:
    return ENDS[1] if node == ENDS[0] else ENDS[0]


def refused(bed: Testbed) -> int:
    """Return how many packets to the journal's port the ToR dropped."""
    return sum(rule.packets for rule in bed.rule_counters("tor1").values() if rule.name.startswith("Raft"))


def assert_it_works(bed: Testbed, requests: int = 100) -> None:
    number = bed.next_client_number()
    result = bed.start_client("c1", ClientConfig(bed.inventory.node("c1").ip, number, DEPLOYMENT, DEPLOYMENT.name,
                                                 requests, seed=number, timeout_s=30.0)).result(60.0)
    assert result.answered == requests and not (result.errors or result.wrong or result.lost or result.duplicated)


def test_one_decides_and_the_others_say_who(bed: Testbed) -> None:
    leader = bed.leader()
    assert until(lambda: {role.leader for role in bed.asked().roles().values()} == {leader})
    assert [name for name, role in bed.asked().roles().items() if role.decides] == [leader]
    assert len(bed.asked().roles()) == 3


def test_the_leader_is_killed_in_the_middle_of_a_migration_and_another_goes_on_with_all_that_it_knew(
        bed: Testbed) -> None:
    source, before = settle(bed), places(bed)
    number = next(n for n, node in before.items() if APPLICATION.instances[n].name == "nids-3")
    term = bed.asked().state().term
    bed.asked().move(MOVED, other_of(source))
    bed.fail("controller")
    killed = next(failure.names[0] for failure in bed.broken)
    successor = bed.leader()
    assert successor != killed
    state = bed.asked().state()
    assert {node.life for node in state.nodes} == {"alive"} and state.term > term
    assert settle(bed) in (source, other_of(source))
    after = places(bed)
    assert {**after, number: ""} == {**before, number: ""}
    assert_it_works(bed)
    bed.heal("controller")
    assert bed.leader() == successor
    assert until(lambda: bed.asked().roles()[killed].leader == successor)


def test_a_leader_in_the_minority_decides_nothing_and_the_majority_goes_on(bed: Testbed) -> None:
    source, old = settle(bed), bed.leader()
    bed.fail("partition", old)
    try:
        with pytest.raises(MigrationError, match="no majority"):
            bed.asked().move(MOVED, other_of(source))
        assert until(lambda: not bed.asked().roles()[old].decides)
        new = bed.leader()
        assert new != old and owner(bed) == source
        assert bed.migrate(MOVED, other_of(source)).outcome == "moved"
        assert not bed.asked().roles()[old].decides
    finally:
        bed.heal("partition", old)
    # Who comes back may make the others elect once more, and not the same: it follows whoever leads then.
    assert until(lambda: bed.asked().roles()[old].leader == bed.leader())
    assert settle(bed) == other_of(source)
    assert_it_works(bed)


def test_one_of_three_alone_decides_nothing_and_two_go_on(bed: Testbed) -> None:
    source = settle(bed)
    first = bed.kill_controller()
    second = bed.kill_controller(bed.leader())
    (alone,) = bed.running_controllers()
    assert alone not in (first, second)
    with pytest.raises(MigrationError, match="none of 3 controller nodes decides"):
        bed.asked().move(MOVED, other_of(source))  # asked for 5 s
    assert not bed.asked().roles()[alone].decides
    assert_it_works(bed)  # nodes and clients need nobody to go on
    bed.start_controller()
    assert settle(bed) == source and len(bed.asked().roles()) == 3


def test_what_runs_cannot_be_started_again_nor_what_is_dead_be_killed(bed: Testbed) -> None:
    with pytest.raises(ExperimentError, match="runs already"):
        bed.start_controller()
    with pytest.raises(ExperimentError, match="no resource controller is running on 's1h'"):
        bed.kill_controller("s1h")


@pytest.mark.parametrize("node", ["c1", "s1h"])
def test_nobody_but_controllers_reaches_the_port_of_their_journal(bed: Testbed, node: str) -> None:
    with inside(bed.node_pid("ctl2")), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as controller:
        controller.settimeout(2.0)
        controller.connect((bed.inventory.node("ctl1").ip, RAFT_PORT))
    before = refused(bed)
    with inside(bed.node_pid(node)), socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stranger:
        stranger.settimeout(1.0)
        with pytest.raises(OSError):
            stranger.connect((bed.inventory.node("ctl1").ip, RAFT_PORT))
    assert refused(bed) > before
