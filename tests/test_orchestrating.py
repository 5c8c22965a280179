"""Where a testbed says that instances are, and what it refuses of an orchestrator."""

from __future__ import annotations

import pytest
from controller_room import DEPLOYMENT, INVENTORY

from experiments.emulation.orchestrating import placed_as, spread
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.emulation.testbed_options import ORCHESTRATOR
from experiments.errors import ExperimentError
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of


def test_a_deployment_is_told_as_the_controller_has_it_and_the_rest_as_it_was_deployed() -> None:
    number = DEPLOYMENT.places[0].number
    told = placed_as(DEPLOYMENT, [(DEPLOYMENT.number, number, "s3h", 7), (DEPLOYMENT.number + 1, number, "s2h", 9)],
                     INVENTORY)
    place = told.place(number)
    assert (place.node, place.ip, place.epoch) == ("s3h", INVENTORY.node("s3h").ip, 7)
    assert [p for p in told.places if p.number != number] == [p for p in DEPLOYMENT.places if p.number != number]
    assert placed_as(DEPLOYMENT, [], INVENTORY) == DEPLOYMENT


def test_an_orchestrator_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    for known in ORCHESTRATOR:
        assert TestbedOptions(orchestrator=known).orchestrator == known
    with pytest.raises(ExperimentError, match="'maybe'; there are off, watch, on"):
        TestbedOptions(orchestrator="maybe")


def test_a_controller_runs_on_one_node_or_on_three() -> None:
    assert TestbedOptions(controllers=3).controllers == 3
    for number in (0, 2, 4):
        with pytest.raises(ExperimentError, match=f"{number} controllers; there can be 1 or 3"):
            TestbedOptions(controllers=number)
    with pytest.raises(ExperimentError, match="has 1 controller nodes; 3 are needed"):
        Testbed.start(TestbedOptions(cluster_named("type1x3"), controllers=3))


@pytest.mark.parametrize(("cluster", "each", "names"), [
    ("type1x3", 3, ["ctl1", "ctl2", "ctl3"]), ("type1x1/2", 2, ["r1ctl1", "r2ctl1", "r1ctl2"]),
    ("type1x1/4", 1, ["r1ctl1", "r2ctl1", "r3ctl1"])])
def test_three_controllers_stand_in_as_many_racks_as_there_are(cluster: str, each: int, names: list[str]) -> None:
    nodes = inventory_of(cluster_named(cluster, controllers=each)).of_role("controller")
    assert [node.name for node in spread(nodes)][:3] == names
