"""What a testbed decides about applications that come onto it and go from it."""

from __future__ import annotations

import msgspec
import pytest

from controller.controller_events import WithdrawalState
from experiments.emulation.coming_and_going import decided_from, placed_beside, said_of
from experiments.emulation.first_placement import place_in_turn, shards_for
from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.applications import application_named, nfv_fin
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

INVENTORY = inventory_of(cluster_named("type1x3"))
PRESENT = deploy(nfv_fin(3), place_in_turn(nfv_fin(3), INVENTORY), INVENTORY)


def test_an_application_is_placed_in_turn_beside_those_there_are() -> None:
    application = application_named("rta-sf", shards_for(INVENTORY))
    made = placed_beside(application, INVENTORY, [PRESENT])
    assert {place.number: place.node for place in made.places} == place_in_turn(application, INVENTORY)
    assert made.since == 1


def test_one_that_is_there_is_not_deployed_twice_nor_another_with_its_number() -> None:
    with pytest.raises(ExperimentError, match="nfv-fin is deployed already"):
        placed_beside(nfv_fin(2), INVENTORY, [PRESENT])
    same = nfv_fin(2)
    other = Application("mine", same.number, same.stages, same.channels)
    with pytest.raises(ExperimentError, match=f"mine has number {same.number}, as nfv-fin has, which is deployed"):
        placed_beside(other, INVENTORY, [PRESENT])


def test_a_deployment_begins_with_the_first_decision_that_it_may_and_keeps_later_ones() -> None:
    later = msgspec.structs.replace(PRESENT, places=(
        msgspec.structs.replace(PRESENT.places[0], epoch=9), *PRESENT.places[1:]))
    made = decided_from(later, 5)
    assert made.since == 5 and [place.epoch for place in made.places] == [9] + [5] * (len(made.places) - 1)
    assert [place.node for place in made.places] == [place.node for place in PRESENT.places]
    assert decided_from(PRESENT, 1) == PRESENT
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Deployment) == made


def test_as_many_shards_as_there_are_smartnics_or_hosts() -> None:
    for cluster, shards in (("type1x3", 3), ("type2x1", 4), ("beefyx2", 2)):
        assert shards_for(inventory_of(cluster_named(cluster))) == shards


@pytest.mark.parametrize(("owed", "said"), [
    ((), "shop is withdrawn, with 3 requests and messages dropped"),
    (("s1h", "s1n1"), "shop is withdrawn, with 3 requests and messages dropped; s1h, s1n1, away now, will be told when "
                      "back")])
def test_how_it_ended_is_a_sentence(owed: tuple[str, ...], said: str) -> None:
    assert said_of(WithdrawalState(7, "shop", "withdrawn", 9, owed, 3)) == said
