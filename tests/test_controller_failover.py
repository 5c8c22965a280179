"""What the controller's failover experiment makes of a journal and of kills."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from moving_rack import MovingRack, counter_store

from controller.migration_journal import Ended, Entry, Started, Term, Turned, history_of
from experiments.controller_failover import OVER, Kill, judge, living, state_in, until_next_term
from experiments.errors import ExperimentError
from experiments.minority import Minority, judge_minorities

STARTED = Started(1, 7, 3, 0, "s1n1", "s1h", ("s2n1",), 2)
GOOD = Kill("kvs/kvs-1", "s1n1", "s1h", "moving", "s1h", ("s1h",), 0.5)


@pytest.mark.parametrize(("entries", "state"), [
    ([STARTED], "decided"),
    ([STARTED, Turned(7, "pushing", 2, "s1n1"), Turned(7, "moving", 2, "s1n1")], "moving"),
    ([STARTED, Turned(7, "moving", 2, "s1n1"), Turned(8, "pushing", 2, "s2n1"), Term(2)], "moving"),
    ([STARTED, Turned(7, "finishing", 3, "s1h"), Ended(7, "s1h", 3)], OVER)])
def test_how_far_a_migration_was_is_the_last_that_the_journal_says_of_it(entries: list[Entry], state: str) -> None:
    assert state_in(entries, 7) == state


def test_a_journal_that_does_not_know_the_migration_is_refused() -> None:
    with pytest.raises(ExperimentError, match="nothing of migration 9"):
        state_in([STARTED], 9)


def failing(kills: list[Kill], wanted: int = 2) -> list[str]:
    return [what for what, *_, ok in judge(kills, wanted) if not ok]


def test_kills_that_end_with_one_instance_at_either_end_hold() -> None:
    back = msgspec.structs.replace(GOOD, owner="s1n1", lives=("s1n1",))
    assert (GOOD.outcome, back.outcome) == ("completed", "rolled back")
    assert not failing([GOOD, back])


@pytest.mark.parametrize(("differing", "found"), [
    ({"lives": ("s1h", "s1n1")}, "times that one instance lived, where the controller says"),
    ({"lives": ()}, "times that one instance lived, where the controller says"),
    ({"lives": ("s1n1",)}, "times that one instance lived, where the controller says"),
    ({"owner": "s2h", "lives": ("s2h",)}, "migrations that completed, or were rolled back"),
    ({"state": OVER}, "kills in the middle of a migration")])
def test_two_instances_or_none_or_one_elsewhere_or_too_few_kills_are_found(
        differing: dict[str, object], found: str) -> None:
    assert failing([GOOD, msgspec.structs.replace(GOOD, **differing)]) == [found]


THREE = msgspec.structs.replace(GOOD, controllers=3, killed="ctl1", successor="ctl2", decided_s=0.8)
WENT_ON = "times that another went on, and knew who is alive and where everything is"


def test_of_three_controllers_another_goes_on_with_all_that_the_killed_one_knew() -> None:
    assert not failing([THREE, THREE])
    assert failing([THREE, msgspec.structs.replace(THREE, successor="ctl1")]) == [WENT_ON]
    assert failing([THREE, msgspec.structs.replace(THREE, knew=False)]) == [WENT_ON]


def test_how_far_a_migration_was_is_what_was_written_before_the_next_term() -> None:
    entries = history_of([STARTED, Turned(7, "moving", 2, "s1n1"), Started(1, 8, 3, 1, "s1n1", "s1h", (), 2), Term(2),
                          Ended(7, "s1h", 3)], 7)
    assert entries[-2:] == [Term(2), Ended(7, "s1h", 3)] and len(entries) == 4
    assert state_in(until_next_term(entries), 7) == "moving"
    assert history_of([Term(1)], 7) == []


CUT = Minority("ctl1", "ctl2", "no majority agreed", 1.1, 0.9, 0, "s1h", ("s1h",), True)


def test_a_leader_that_was_cut_off_and_decided_nothing_holds() -> None:
    assert all(ok for *_, ok in judge_minorities([CUT, CUT])) and judge_minorities([]) == []


@pytest.mark.parametrize("differing", [{"refused": ""}, {"new": "ctl1"}, {"began": 1}, {"lives": ("s1h", "s1n1")},
                                       {"lives": ()}, {"owner": "s1n1"}, {"follows": False}])
def test_a_leader_that_was_cut_off_and_decided_something_is_found(differing: dict[str, object]) -> None:
    (_, measured, _, ok), _ = judge_minorities([CUT, msgspec.structs.replace(CUT, **differing)])
    assert not ok and measured.startswith("1 (Minority(")


# -- where an instance lives, as agents say it -----------------------------------------------------------------------

def lives(moving: MovingRack, instance: str = "counters/store-1") -> tuple[str, ...]:
    return living(moving.simulation.counters(), instance)


def test_an_instance_lives_where_it_moved_to_and_not_where_it_once_was(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"))
    moving.client(200)
    for node in ("s2h", "s1h", "s2n1", "s2h"):
        moving.move(node)
        assert lives(moving) == (node,)
    assert lives(moving, "counters/front-1") == ("s1n1",)


def test_an_instance_that_is_frozen_on_its_way_lives_nowhere(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"))
    moving.client(200)
    moving.control.move("store-1", "s2h")
    moving.stage("moving")
    assert lives(moving) == ()
    moving.settle()
    assert lives(moving) == ("s2h",)


def test_a_second_living_copy_is_found_also_where_the_instance_once_was(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"))
    moving.client(200)
    moving.move("s2h")
    for node in ("s2n1", "s3h"):
        moving.simulation.runtime(node).execution.put_in(moving.key, None, ())
    assert lives(moving) == ("s2h", "s2n1", "s3h")
    assert failing([msgspec.structs.replace(GOOD, owner="s1h", lives=lives(moving))], 1) == [
        "times that one instance lived, where the controller says"]
