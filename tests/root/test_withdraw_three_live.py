"""An application is withdrawn from a rack with three controllers whose leaders are killed, and from one with none."""

import time

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

from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError


def test_the_next_leader_of_three_goes_on_and_never_brings_it_back() -> None:
    with Testbed.start(TestbedOptions(CLUSTER, clients=2, label="withdraw3", deployments=(GOING, STAYING),
                                      orchestrator="watch", controllers=3)) as bed:
        assert until(lambda: {node.life for node in bed.asked().state().nodes} == {"alive"})
        staying = client(bed, STAYING, "c2")
        going = client(bed, GOING, "c1")
        time.sleep(1.0)
        bed.asked().withdraw(GOING.name)
        first = bed.kill_controller()
        assert until(lambda: [(w.state, w.owed) for w in bed.asked().state().withdrawals] == [("withdrawn", ())])
        assert counted(bed, GOING.name) == set()
        assert_nothing_wrong(going.result(30.0))
        bed.start_controller(first)
        bed.kill_controller(bed.leader())
        assert until(lambda: instances(bed) == {STAYING.name}) and bed.deployed() == (STAYING,)
        bed.deploy(GOING)
        assert_all_right(client(bed, GOING, "c1", 100).result(60.0), 100)
        assert_all_right(ended(staying), 50)


def test_with_the_orchestrator_off_nobody_can_withdraw() -> None:
    with Testbed.start(TestbedOptions("type1x1", label="withdraw-off", deployments=())) as bed, \
            pytest.raises(ExperimentError, match="orchestrator of this testbed is off"):
        bed.withdraw("nfv-fin")
