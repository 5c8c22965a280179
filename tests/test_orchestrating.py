"""Where a testbed says that instances are, and what it refuses of an orchestrator."""

from __future__ import annotations

import pytest
from controller_room import DEPLOYMENT, INVENTORY

from experiments.errors import ExperimentError
from experiments.orchestrating import placed_as
from experiments.testbed import TestbedOptions
from experiments.testbed_options import ORCHESTRATOR


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
