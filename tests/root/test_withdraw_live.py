"""Two applications on a running rack, of which one is withdrawn under load and comes back; the other answers it all.

    c1, c2 --- tor1 === s1n1, s2n1, s3n1 === s1h, s2h, s3h        ctl1 --- tor1
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from waiting import until
from withdraw_room import (
    CLUSTER,
    GOING,
    STAYING,
    assert_all_right,
    assert_nothing_wrong,
    client,
    counted,
    ended,
    instances,
)

from controller.errors import MigrationError, PlacementError
from experiments.emulation.live_rack import LiveRack
from experiments.emulation.testbed import Testbed, TestbedOptions
from microservices.applications import application_named


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions(CLUSTER, clients=2, label="withdraw", deployments=(GOING, STAYING),
                                      orchestrator="watch")) as started:
        assert until(lambda: {node.life for node in started.asked().state().nodes} == {"alive"})
        yield started


def restored(bed: Testbed) -> None:
    """Have both applications on the rack again, and all of it at work."""
    for deployment in (GOING, STAYING):
        if deployment.name not in [known.name for known in bed.deployed()]:
            bed.deploy(deployment)
        assert_all_right(client(bed, deployment, "c1", 100).result(60.0), 100)


def test_withdrawn_under_load_it_answers_or_turns_away_and_the_other_answers_every_request(bed: Testbed) -> None:
    going, staying = client(bed, GOING, "c1"), client(bed, STAYING, "c2")
    time.sleep(2.0)
    told = bed.withdraw(GOING.name)
    assert (told.state, told.owed, told.dropped) == ("withdrawn", (), 0)
    left = going.result(20.0)  # by itself: who is turned away sends nothing more
    assert left.answered > 50 and left.turned_away > 0 and left.answered + left.turned_away == left.sent, left
    assert_nothing_wrong(left)
    time.sleep(1.0)
    assert_all_right(ended(staying), 50)
    assert counted(bed, GOING.name) == set() and counted(bed, STAYING.name)
    assert instances(bed) == {STAYING.name} and bed.deployed() == (STAYING,)
    whats = [event.what for event in bed.asked().events() if GOING.name in event.detail]
    assert whats[-4:] == ["settling", "closing", "clearing", "withdrawn"]
    restored(bed)


def test_whoever_comes_afterwards_is_turned_away_at_once(bed: Testbed) -> None:
    bed.withdraw(GOING.name)
    began = time.monotonic()
    result = client(bed, GOING, "c1", 1000).result(20.0)
    assert result.turned_away == result.sent == 8 and not result.answered and time.monotonic() - began < 5.0, result
    assert_nothing_wrong(result)
    assert bed.withdraw(GOING.name).state == "withdrawn"  # once more changes nothing
    restored(bed)


def test_deployed_again_it_begins_with_nothing(bed: Testbed) -> None:
    for _ in range(2):
        bed.withdraw(GOING.name)
        bed.deploy(GOING)
        assert_all_right(client(bed, GOING, "c1", 200).result(60.0), 200)
        handled = {name: count for counters in bed.counters().values() for name, count in counters.items()
                   if name.startswith(f"handled {GOING.name}/monitor")}
        assert sum(handled.values()) == 200, handled
    assert bed.migrate(f"{GOING.name}/ipsec-1", "s2n1").outcome == "moved"
    assert bed.migrate(f"{GOING.name}/ipsec-1", GOING.place(next(
        i.number for i in GOING.application().instances if i.name == "ipsec-1")).node).outcome == "moved"
    restored(bed)


def test_an_application_that_there_is_not_is_named_with_those_there_are(bed: Testbed) -> None:
    with pytest.raises(MigrationError, match=f"no application 'rta-sf' is deployed; there are {GOING.name}"):
        bed.withdraw("rta-sf")


def test_a_controller_that_is_killed_in_the_middle_of_it_ends_it_when_it_is_back(bed: Testbed) -> None:
    staying, going = client(bed, STAYING, "c2"), client(bed, GOING, "c1")
    time.sleep(1.0)
    bed.asked().withdraw(GOING.name)
    bed.kill_controller()
    bed.start_controller()
    assert until(lambda: [w.state for w in bed.asked().state().withdrawals] == ["withdrawn"])
    assert until(lambda: not bed.asked().state().withdrawals[0].owed)
    assert counted(bed, GOING.name) == set()
    assert_nothing_wrong(going.result(30.0))
    bed.kill_controller()
    bed.start_controller()
    assert instances(bed) == {STAYING.name} and bed.deployed() == (STAYING,)
    assert_all_right(ended(staying), 50)
    restored(bed)


def test_a_smartnic_that_hung_meanwhile_is_told_to_stop_its_instances_when_it_goes_on(bed: Testbed) -> None:
    bed.fail("hang", "s1n1")
    told = bed.withdraw(GOING.name)
    assert told.state == "withdrawn" and "s1n1" in told.owed
    bed.heal("hang", "s1n1")
    assert until(lambda: not bed.asked().state().withdrawals[0].owed)
    assert counted(bed, GOING.name) == set()
    bed.wait_until_ready()
    restored(bed)


def test_an_agent_that_is_started_anew_does_not_bring_it_back(bed: Testbed) -> None:
    bed.withdraw(GOING.name)
    bed.fail("crash", "s2n1")
    bed.heal("crash", "s2n1")
    bed.wait_until_ready()
    assert until(lambda: not bed.asked().state().withdrawals[0].owed)
    assert counted(bed, GOING.name) == set() and instances(bed) == {STAYING.name}
    restored(bed)


def test_what_placement_put_on_the_rack_is_taken_from_it_and_can_be_placed_again(bed: Testbed) -> None:
    rack = LiveRack(bed)
    application = application_named("rta-sf", shards=1, backups=0)
    before = list(rack.state.free)
    for _ in range(2):
        rack.deploy(application, 100.0)
        assert_all_right(client(bed, rack.deployments[application.name], "c1", 50).result(60.0), 50)
        rack.withdraw(application.name)
        rack.observe()
        assert rack.state.free == before
        assert counted(bed, application.name) == set()
    with pytest.raises(PlacementError, match="no application"):
        rack.withdraw(application.name)


# -- from another process ----------------------------------------------------------------------------------------------

def e3(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "experiments.cli", *words], capture_output=True, text=True, timeout=90,
                          check=False)


def test_withdraw_and_deploy_work_from_another_process(bed: Testbed) -> None:
    world = bed.world.id
    unknown = e3("withdraw", "nobody", "--world", world)
    assert unknown.returncode == 2 and GOING.name in unknown.stderr and STAYING.name in unknown.stderr
    done = e3("withdraw", GOING.name, "--world", world, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "withdrawn", done.stderr
    look = json.loads(e3("top", world, "--looks", "1", "--every", "0.3", "--json").stdout)
    assert not any(name.startswith(GOING.name) for node in look["nodes"] for name in node["instances"])
    events = [json.loads(line) for line in e3("events", world).stdout.splitlines()]
    assert any(event["what"] == "withdrawn" and GOING.name in event["detail"] for event in events)
    again = e3("deploy", GOING.name, "--world", world)
    assert again.returncode == 0 and "ipsec-1" in again.stdout, again.stderr
    twice = e3("deploy", GOING.name, "--world", world)
    assert twice.returncode == 2 and "deployed already" in twice.stderr
    known = bed.deployed()
    assert [d.name for d in known] == [STAYING.name, GOING.name]
    assert_all_right(client(bed, known[1], "c1", 100).result(60.0), 100)
