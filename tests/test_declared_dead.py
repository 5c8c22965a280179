"""What a dead node ran alone begins anew elsewhere, whatever its instances have been through before."""

from __future__ import annotations

from pathlib import Path

import pytest
from moving_rack import RACK, MovingRack, counter_store

from controller.errors import MigrationError
from controller.fencing import Fencing, to_fence
from controller.resource_controller import ResourceController
from experiments.emulation.orchestrating import placed_as
from nodes.deployment import Deployment
from nodes.simulated import NetworkFaults
from nodes.transport import Sends

CLEAN = NetworkFaults(delay_s=5e-5)
SLOW_S = 0.02  # a request takes at each stage: few of them are enough
FRONT, STORE = (300, 0), (300, 1)


class Rack(MovingRack):
    """Three servers, the store between its two stages on three nodes, and whoever ends nodes and says so."""

    def __init__(self, folder: Path, nodes: tuple[str, str, str] = ("s1n1", "s2n1", "s3n1")) -> None:
        super().__init__(counter_store(folder), nodes, CLEAN, cost=lambda _: lambda *_: SLOW_S)
        self.run(1.3)  # till all are known to be alive

    @property
    def controller(self) -> ResourceController:
        return self.control.controller

    def die(self, *nodes: str, silent_s: float = 0.7) -> None:
        for node in nodes:
            self.simulation.reboot(node, 3600.0)
        self.run(silent_s)

    def comes_back(self, node: str) -> None:
        """Let a node lose its memory, and be back at once."""
        self.simulation.reboot(node)
        self.run(0.2)
        self.settle()

    def declare(self, node: str) -> list[str]:
        out: Sends = []
        stranded = self.controller.declared_dead(node, self.simulation.network.now, out)
        self.simulation.network.after(self.control, out)
        return stranded

    def serves(self) -> bool:
        """Whether a client that comes now gets all its replies."""
        later = self.simulation.client(self.now_deployed(), self.clients[0].workload, 3, 1, client="c2")
        until = self.simulation.network.now + 4.0
        while len(later.answers) < 3 and self.simulation.network.now < until:
            self.run(0.1)
        return len(later.answers) == 3 and not any(answer.is_error for answer in later.answers)

    def now_deployed(self) -> Deployment:
        """Return the deployment as whoever starts now is told it."""
        epochs = self.controller.control.epochs
        return placed_as(self.deployment, [(*key, node, epochs.get(key, 1))
                                           for key, node in self.controller.where.node_of.items()], RACK)

    def lives(self, key: tuple[int, int] = STORE) -> list[str]:
        return [name for name in self.simulation.counters()
                if self.simulation.runtime(name).execution.runs(key)]


def begins_anew_elsewhere(rack: Rack, dead: str) -> str:
    """Declare `dead` dead; return where the store is then, which must be one place that is not `dead`."""
    assert rack.declare(dead) == []
    rack.run(1.0)
    rack.settle()
    (place,) = rack.lives()
    assert place != dead and rack.controller.where.node_of[STORE] == place
    return place


@pytest.fixture
def rack(tmp_path: Path) -> Rack:
    made = Rack(tmp_path)
    made.client(1 << 20, window=1)
    return made


def test_what_was_once_made_afresh_on_its_own_node_begins_anew_elsewhere_when_that_dies(rack: Rack) -> None:
    rack.comes_back("s2n1")
    rack.die("s2n1")
    begins_anew_elsewhere(rack, "s2n1")
    assert rack.serves()


def test_what_was_migrated_once_goes_back_to_its_source_when_its_destination_dies(rack: Rack) -> None:
    rack.move("s2h")
    rack.die("s2h")
    assert rack.declare("s2h") == []
    rack.settle()
    assert rack.lives() == ["s2n1"] and rack.serves()


def test_what_was_migrated_once_begins_anew_when_both_ends_are_dead(rack: Rack) -> None:
    rack.move("s2h")
    rack.die("s2n1", "s2h")
    assert rack.declare("s2n1") == []
    begins_anew_elsewhere(rack, "s2h")
    assert rack.serves()


def test_what_began_anew_elsewhere_begins_anew_once_more_when_that_dies_too(rack: Rack) -> None:
    rack.die("s2n1")
    second = begins_anew_elsewhere(rack, "s2n1")
    rack.die(second)
    third = begins_anew_elsewhere(rack, second)
    assert third not in ("s2n1", second) and rack.serves()


def test_what_began_anew_elsewhere_and_was_lost_with_that_node_for_a_moment_has_one_place(rack: Rack) -> None:
    rack.die("s2n1")
    second = begins_anew_elsewhere(rack, "s2n1")
    rack.comes_back(second)
    assert rack.lives() == [second] and rack.serves()


@pytest.mark.parametrize("state", ["pushing", "stopping", "moving", "switching", "finishing"])
@pytest.mark.parametrize("victims", [("s2n1",), ("s2h",), ("s2n1", "s2h"), ("s2h", "s2n1")])
def test_a_migration_under_way_ends_with_one_instance_whichever_of_its_ends_are_declared_dead(
        rack: Rack, state: str, victims: tuple[str, ...]) -> None:
    rack.control.move("store-1", "s2h")
    rack.stage(state)
    rack.die(*victims)
    for victim in victims:
        assert rack.declare(victim) == []
    rack.run(1.0)
    rack.settle()
    (place,) = rack.lives()
    assert place not in victims and rack.controller.where.node_of[STORE] == place
    assert not rack.controller.control.stranded() and rack.serves()


def test_nobody_waits_for_a_migration_that_was_given_up(rack: Rack) -> None:
    rack.control.move("store-1", "s2h")
    rack.stage("moving")
    rack.die("s2n1", "s2h")
    rack.declare("s2n1")
    begins_anew_elsewhere(rack, "s2h")
    assert [line.outcome for line in rack.controller.timelines.values()] == ["lost", "restarted"]


def test_a_node_that_is_cut_off_while_it_still_seems_alive_gets_nothing_of_what_it_ran(rack: Rack) -> None:
    rack.die("s2n1", silent_s=0.0)
    begins_anew_elsewhere(rack, "s2n1")


def test_what_has_no_place_gets_one_as_soon_as_there_is_room_and_says_so_once(rack: Rack) -> None:
    rack.comes_back("s2n1")
    free = rack.controller.orchestrator.table.free_mb
    had, free[:] = free.copy(), 0.0
    rack.die("s2n1")
    assert rack.declare("s2n1") == ["counters/store-1"]
    rack.run(2.0)
    assert rack.lives() == [] and [e.what for e in rack.controller.events].count("nowhere") == 1
    free[:] = had
    rack.run(1.0)
    rack.settle()
    assert len(rack.lives()) == 1 and rack.serves()


def test_what_has_no_place_is_made_afresh_on_its_own_node_when_that_is_back_first(rack: Rack) -> None:
    rack.controller.orchestrator.table.free_mb[:] = 0.0
    rack.die("s2n1")
    assert rack.declare("s2n1") == ["counters/store-1"]
    rack.comes_back("s2n1")
    assert rack.lives() == ["s2n1"]


def test_nothing_moves_to_or_from_a_node_that_was_declared_dead(rack: Rack) -> None:
    rack.die("s3h")
    rack.declare("s3h")
    with pytest.raises(MigrationError, match="s3h was declared dead"):
        rack.control.move("store-1", "s3h")


# -- who is cut off --------------------------------------------------------------------------------------------------

def asked_for(rack: Rack) -> list[str]:
    return to_fence(rack.controller, Fencing(rack.controller.failover.membership), rack.simulation.network.now)


@pytest.mark.parametrize(("state", "silent"), [
    ("pushing", "s2n1"), ("stopping", "s2n1"), ("moving", "s2n1"), ("switching", "s2h"), ("finishing", "s2h")])
def test_who_holds_an_instance_that_is_on_its_way_is_cut_off_like_any_other(
        rack: Rack, state: str, silent: str) -> None:
    rack.control.move("store-1", "s2h")
    rack.stage(state)
    rack.die(silent)
    assert asked_for(rack) == [silent]
    rack.declare(silent)
    rack.settle()
    assert asked_for(rack) == [] and len(rack.lives()) == 1


# -- neighbours ------------------------------------------------------------------------------------------------------

def test_what_begins_anew_is_told_where_its_neighbours_went_before(rack: Rack) -> None:
    rack.move("s2h")
    for _ in range(3):  # the last time, the store is there, too, goes back, and its channels must find each other
        place = rack.controller.where.node_of[FRONT]
        rack.die(place)
        assert rack.declare(place) == []
        rack.run(1.0)
        rack.settle()
        assert rack.serves(), f"after {place} died"


def test_neighbours_that_are_lost_together_find_each_other_again(tmp_path: Path) -> None:
    rack = Rack(tmp_path, ("s2n1", "s2n1", "s2n1"))
    rack.client(1 << 20, window=1)
    rack.die("s2n1")
    assert rack.declare("s2n1") == []
    rack.run(1.0)
    rack.settle()
    places = {tuple(rack.lives((300, number))) for number in range(3)}
    assert len(places) > 1, "the hash puts them all on one node: choose another application number"
    assert rack.serves()


def test_what_goes_back_to_its_source_is_found_by_neighbours_that_have_moved_meanwhile(rack: Rack) -> None:
    rack.move("s2h")
    rack.control.move("front-1", "s1h")
    rack.settle()
    rack.die("s2h")
    assert rack.declare("s2h") == []
    rack.settle()
    assert rack.lives() == ["s2n1"] and rack.serves()
