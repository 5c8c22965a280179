"""The controller's side of replication: who serves and who backs up, on what grounds, and in what order it is told."""

from __future__ import annotations

import itertools

import pytest
from replica_desk import IPS, KEY, PLACES, Desk, Journal, connects, paired, views

from controller.errors import MigrationError
from controller.membership import Life
from controller.migration_journal import Term, decode_entries, encode_entry
from controller.replica_steps import (
    TRANSITIONS,
    Event,
    ReplicaError,
    State,
    ToNode,
    Viewed,
)
from nodes.control_messages import Refusal
from nodes.replication_messages import NOBODY, Part, Stands, View


def test_an_instance_begins_where_it_is_placed_and_gets_a_backup_in_another_rack() -> None:
    desk = Desk()
    desk.control.found(*KEY, ["c1"], at="s1n1")
    founding = views(desk.tick())
    assert founding == {"s1n1": View(1, 1, *KEY, 1, 1, IPS["s1n1"])}
    repairing = views(desk.says("s1n1", Part.SERVING))
    joiner = desk.state[-1]
    assert desk.state == ("repairing", "s1n1", joiner) and PLACES[joiner].rack == 2
    assert repairing == {"s1n1": View(1, 0, *KEY, 2, 0, IPS["s1n1"], NOBODY, IPS[joiner]),
                         joiner: View(1, 1, *KEY, 2, 0, IPS["s1n1"], NOBODY, IPS[joiner])}
    assert list(repairing) == [joiner, "s1n1"]  # who is to follow first
    desk.says(joiner, Part.CATCHING_UP)
    assert desk.state[0] == "repairing"
    desk.says(joiner, Part.FOLLOWING)
    assert desk.state == ("paired", "s1n1", joiner)


def test_neighbours_are_told_of_a_new_primary_until_they_answer() -> None:
    desk = Desk()
    desk.control.found(*KEY, ["c1", "s4h"], at="s1n1")
    assert connects(desk.tick()) == {"c1": IPS["s1n1"], "s4h": IPS["s1n1"]}
    desk.connected("s4h", 1)
    assert connects(desk.tick(1.0)) == {"c1": IPS["s1n1"]}
    desk.control.booted("s4h", 2)
    assert connects(desk.tick(1.0)) == {"c1": IPS["s1n1"], "s4h": IPS["s1n1"]}


def test_a_silent_primary_is_replaced_by_its_backup_and_told_so_when_it_returns() -> None:
    desk, backup = paired()
    desk.lives["s1n1"] = Life.SUSPECT
    assert desk.tick(10.0) == []
    desk.lives["s1n1"] = Life.DEAD
    assert set(views(desk.tick())) == {backup} and desk.state == ("paired", "s1n1", backup)  # first it is asked
    out = desk.says(backup, Part.FOLLOWING)
    assert desk.state[:2] == ("repairing", backup)  # alone, and at once somebody new beside it
    assert [v.epoch for v in views(out).values()].count(5) == 3
    assert views(out)["s1n1"].primary == IPS[backup] and connects(out) == {"c1": IPS[backup]}
    desk.says("s1n1", Part.OUT)
    assert "s1n1" not in views(desk.tick(1.0))


def test_a_backup_that_falls_silent_keeps_its_part_till_another_has_everything() -> None:
    desk, backup = paired()
    desk.lives[backup] = Life.DEAD
    desk.tick()
    joiner = desk.state[-1]
    assert desk.state == ("replacing", "s1n1", backup, joiner)
    desk.says(joiner, Part.FOLLOWING)
    assert desk.state == ("paired", "s1n1", joiner)


def test_a_primary_that_dies_while_its_silent_backup_is_replaced_leaves_that_one_to_go_on() -> None:
    desk, backup = paired()
    desk.lives[backup] = Life.DEAD
    desk.tick()
    desk.control.booted("s1n1", 2)
    desk.lives["s1n1"], desk.lives[backup] = Life.JOINING, Life.ALIVE
    desk.tick()
    desk.says(backup, Part.FOLLOWING)
    assert desk.state[1] == backup and "nowhere" not in [h.what for h in desk.control.happenings]


@pytest.mark.parametrize("life", [Life.DEAD, Life.LEAVING])
@pytest.mark.parametrize("lost", ["nobody", "joiner", "primary"])
def test_of_a_backup_and_who_replaces_it_on_the_same_server_only_one_goes_on(life: Life, lost: str) -> None:
    desk, backup = paired()
    server = PLACES[backup].domain
    desk.full = {name for name in PLACES if PLACES[name].domain != server}
    desk.lives[backup] = life
    desk.tick()
    state, primary, _, joiner = desk.state
    assert state == "replacing" and PLACES[joiner].domain == server and primary == "s1n1"
    desk.says(backup, Part.FOLLOWING)  # it wakes, or was never silent: both have a part in this view
    desk.lives[backup] = Life.ALIVE
    if lost == "nobody":
        desk.says(joiner, Part.FOLLOWING)
    else:
        desk.lives[joiner if lost == "joiner" else primary] = Life.DEAD
        desk.tick()
        desk.says(backup, Part.FOLLOWING)
    goes_on = {"nobody": (primary, joiner), "joiner": (primary, backup), "primary": (backup,)}[lost]
    assert desk.state[1:] == goes_on
    out = joiner if backup in goes_on else backup
    assert desk.epoch == (told := views(desk.tick(1.0))[out]).epoch
    assert IPS[out] not in (told.primary, told.backup, told.joiner)


@pytest.mark.parametrize("life", [Life.SUSPECT, Life.DEAD])
def test_with_both_silent_nothing_is_decided_till_one_is_back(life: Life) -> None:
    desk, backup = paired()
    desk.lives["s1n1"], desk.lives[backup] = Life.DEAD, life
    assert desk.tick(10.0) == [] and desk.state == ("paired", "s1n1", backup)
    desk.lives[backup] = Life.ALIVE
    desk.tick()
    desk.says(backup, Part.FOLLOWING)
    assert desk.state[1] == backup


def test_a_backup_that_does_not_answer_is_not_promoted_though_it_was_heard_a_moment_ago() -> None:
    desk, backup = paired()
    desk.lives["s1n1"] = Life.DEAD
    desk.tick(1.0)
    desk.tick()
    desk.lives["s1n1"], desk.lives[backup] = Life.ALIVE, Life.DEAD
    desk.tick(1.0)
    assert desk.state[:3] == ("replacing", "s1n1", backup)


def test_silence_does_not_replace_who_serves_alone_and_a_restart_does() -> None:
    desk, _ = paired()
    desk.lives.update(dict.fromkeys([n for n in PLACES if n != "s1n1"], Life.DEAD))
    desk.tick()
    assert desk.state == ("alone", "s1n1")
    desk.lives.update(dict.fromkeys(PLACES, Life.ALIVE), s1n1=Life.DEAD)
    for _ in range(100):
        desk.tick(1.0)
    assert desk.state == ("alone", "s1n1")
    desk.control.booted("s1n1", 2)
    desk.tick()
    assert desk.state[0] == "founding"
    assert "nowhere" in [h.what for h in desk.control.happenings]


def test_who_serves_alone_is_replaced_once_it_is_kept_from_the_network() -> None:
    desk, _ = paired()
    desk.lives.update(dict.fromkeys([n for n in PLACES if n != "s1n1"], Life.DEAD))
    desk.tick()
    desk.lives.update(dict.fromkeys(PLACES, Life.ALIVE), s1n1=Life.DEAD)
    desk.control.fenced("s1n1")
    out = desk.tick()
    assert desk.state[0] == "founding" and desk.state[1] != "s1n1" and "s1n1" not in views(out)


def test_a_backup_that_has_restarted_is_no_backup_and_joins_again() -> None:
    desk, backup = paired()
    desk.full = set(PLACES) - {backup}
    desk.says(backup, Part.OUT, boot=2)
    assert desk.state == ("repairing", "s1n1", backup) and "alone" in [h.what for h in desk.control.happenings]
    assert views(desk.sent)[backup].boot == 2


def test_an_answer_of_an_earlier_run_counts_for_nothing() -> None:
    desk = Desk()
    desk.control.found(*KEY, [], at="s1n1")
    desk.tick()
    desk.says("s1n1", Part.SERVING)
    joiner = desk.state[-1]
    desk.control.booted(joiner, 5)
    desk.says(joiner, Part.FOLLOWING, boot=1)
    assert desk.state[0] == "repairing"


def test_a_backup_that_says_it_has_nothing_is_not_promoted() -> None:
    desk, backup = paired()
    desk.lives["s1n1"] = Life.DEAD
    desk.tick()
    desk.says(backup, Part.OUT, refusal=Refusal.OUT_OF_PLACE)
    desk.says(desk.state[-1], Part.JOINING)
    assert desk.state[0] == "founding"


def test_a_joiner_that_dies_makes_room_for_another() -> None:
    desk = Desk()
    desk.control.found(*KEY, [], at="s1n1")
    desk.tick()
    desk.says("s1n1", Part.SERVING)
    first = desk.state[-1]
    desk.lives[first] = Life.DEAD
    desk.tick()
    assert desk.state[0] == "repairing" and desk.state[-1] != first


def test_a_joiner_that_is_complete_is_promoted_though_it_was_never_made_backup() -> None:
    desk = Desk()
    desk.control.found(*KEY, [], at="s1n1")
    desk.tick()
    desk.says("s1n1", Part.SERVING)
    joiner = desk.state[-1]
    desk.lives["s1n1"] = Life.DEAD
    desk.tick(1.0)
    assert desk.state == ("repairing", "s1n1", joiner)
    desk.says(joiner, Part.FOLLOWING)
    desk.says(joiner, Part.FOLLOWING)
    assert desk.state[1] == joiner


@pytest.mark.parametrize(("part", "state"), [(Part.FOLLOWING, "paired"), (Part.CATCHING_UP, "founding")])
def test_a_joiner_that_outlives_the_primary_is_asked_before_anything_begins_anew(part: Part, state: str) -> None:
    desk = Desk()
    desk.control.found(*KEY, [], at="s1n1")
    desk.tick()
    desk.says("s1n1", Part.SERVING)
    joiner = desk.state[-1]
    desk.says(joiner, Part.CATCHING_UP)
    desk.control.booted("s1n1", 2)
    desk.lives["s1n1"] = Life.JOINING
    assert joiner in views(desk.tick(1.0)) and desk.state == ("repairing", "s1n1", joiner)
    desk.says(joiner, part)
    desk.says(joiner, part)
    has_it = part is Part.FOLLOWING
    assert has_it is (desk.state[1] == joiner and "nowhere" not in [h.what for h in desk.control.happenings])
    assert state in [h.what for h in desk.control.happenings]


def test_a_backup_in_the_same_rack_is_exchanged_for_one_in_another_when_there_is_one() -> None:
    desk = Desk()
    desk.lives.update({n: Life.DEAD for n in PLACES if PLACES[n].rack == 2})
    desk.control.found(*KEY, [], at="s1n1")
    desk.tick()
    desk.says("s1n1", Part.SERVING)
    near = desk.state[-1]
    assert PLACES[near].domain == "s2"
    desk.says(near, Part.FOLLOWING)
    desk.tick()
    assert desk.state == ("paired", "s1n1", near)
    desk.lives.update({n: Life.ALIVE for n in PLACES if PLACES[n].rack == 2})
    desk.tick()
    far = desk.state[-1]
    assert desk.state == ("replacing", "s1n1", near, far) and PLACES[far].rack == 2
    desk.says(far, Part.FOLLOWING)
    assert desk.state == ("paired", "s1n1", far) and views(desk.sent)[near].backup == IPS[far]
    desk.tick()
    assert desk.state == ("paired", "s1n1", far)


def test_a_backup_that_only_the_primary_does_not_hear_is_replaced_and_left_alone_for_a_while() -> None:
    desk, backup = paired()
    desk.full = set(PLACES) - {backup}
    desk.says("s1n1", Part.SERVING, silent=IPS[backup])
    assert desk.state == ("alone", "s1n1")
    desk.tick(9.0)
    assert desk.state == ("alone", "s1n1")
    desk.tick(1.1)
    assert desk.state == ("repairing", "s1n1", backup)
    desk.says("s1n1", Part.SERVING, silent=IPS[backup])
    assert desk.state == ("alone", "s1n1")


def test_a_primary_that_hears_neither_backup_nor_joiner_is_the_one_to_go() -> None:
    desk, backup = paired()
    desk.says("s1n1", Part.SERVING, silent=IPS[backup])
    joiner = desk.state[-1]
    assert desk.state == ("replacing", "s1n1", backup, joiner)
    desk.says("s1n1", Part.SERVING, silent=IPS[joiner])
    desk.says(backup, Part.FOLLOWING)
    assert desk.state[1] == backup


def test_nobody_but_the_primary_can_have_a_replica_replaced() -> None:
    desk, backup = paired()
    desk.says(backup, Part.FOLLOWING, silent=IPS["s1n1"])
    desk.says("s1n1", Part.SERVING, silent=IPS["s1n1"])
    desk.says("s4h", Part.OUT, silent=IPS[backup])
    assert desk.state == ("paired", "s1n1", backup)


def test_a_node_that_is_to_leave_is_emptied() -> None:
    desk, backup = paired()
    desk.lives[backup] = Life.LEAVING
    desk.tick()
    assert desk.state[:3] == ("replacing", "s1n1", backup)
    desk.says(desk.state[-1], Part.FOLLOWING)
    second = desk.state[-1]
    assert backup not in desk.state
    desk.lives["s1n1"] = Life.LEAVING
    desk.tick()
    desk.says(second, Part.FOLLOWING)
    assert desk.state[1] == second and "s1n1" not in desk.state


def test_no_place_means_alone_and_a_place_that_comes_is_used() -> None:
    desk, backup = paired()
    desk.full = set(PLACES)
    desk.lives[backup] = Life.DEAD
    desk.tick()
    assert desk.state == ("alone", "s1n1")
    desk.full.discard("s2h")
    desk.tick()
    assert desk.state == ("repairing", "s1n1", "s2h")


def test_a_view_is_in_the_journal_before_it_is_told() -> None:
    desk, _ = paired()
    written = len(desk.journal.written)
    seen: list[int] = []

    class Watched(list[ToNode]):
        def __iadd__(self, more: object) -> Watched:  # type: ignore[override]
            seen.append(len(desk.journal.written))
            return super().__iadd__(more)  # type: ignore[arg-type, return-value]
    desk.lives["s1n1"] = Life.DEAD
    desk.control.tick(desk.now, Watched())
    assert seen[:2] == [written + 1, written + 2]


def test_a_controller_that_restarts_goes_on_where_the_journal_ends_and_asks_everybody() -> None:
    first, backup = paired()
    first.lives["s1n1"] = Life.DEAD
    first.tick()
    journal = Journal(tuple(decode_entries(b"".join(encode_entry(e) for e in first.journal.written))))
    desk = Desk(journal)
    desk.lives["s1n1"] = Life.DEAD
    assert desk.state == first.state and desk.epoch == first.epoch and desk.control.term == first.control.term + 1
    out = desk.tick()
    assert set(views(out)) == {"s1n1", backup, desk.state[-1]} and {v.term for v in views(out).values()} == {2}
    assert connects(out) == {"c1": IPS[backup]}
    assert desk.epochs[KEY] == first.epoch


def test_a_controller_that_has_a_successor_falls_silent() -> None:
    desk, backup = paired()
    desk.says("s1n1", Part.SERVING, refusal=Refusal.OLD_TERM)
    desk.lives["s1n1"] = Life.DEAD
    assert desk.control.deposed and desk.tick(10.0) == [] and desk.state == ("paired", "s1n1", backup)


def test_what_is_not_answered_is_repeated_more_and_more_rarely() -> None:
    desk = Desk()
    desk.control.found(*KEY, [], at="s1n1")
    times = []
    for _ in range(200):
        if desk.tick(0.05):
            times.append(desk.now)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert gaps[0] < 0.2 and max(gaps) == pytest.approx(1.0, abs=0.06)
    assert all(b > a - 0.06 for a, b in itertools.pairwise(gaps))


def test_a_pair_that_is_settled_says_nothing_and_nothing_is_due() -> None:
    desk, _ = paired()
    assert desk.tick(10.0) == [] and desk.control.due() is None


def test_epochs_are_shared_with_whoever_else_decides() -> None:
    desk, _ = paired()
    desk.epochs[KEY] = 40
    desk.lives["s1n1"] = Life.DEAD
    desk.tick()
    assert desk.epoch == 42


def test_answers_from_nowhere_are_counted() -> None:
    desk, _ = paired()
    desk.control.answered(bytes((9, 9, 9, 9)), Stands(1, 1, *KEY, 1, Part.OUT, 0, 0), 0.0, [])
    assert desk.control.refused == 1


def test_what_cannot_be_is_refused() -> None:
    desk, _ = paired()
    with pytest.raises(ReplicaError, match="already"):
        desk.control.found(*KEY, [])
    with pytest.raises(ReplicaError, match="no place"):
        desk.control.found(1, 9, [], at="s9h")
    with pytest.raises(MigrationError, match="line 2"):
        decode_entries(encode_entry(Term(1)) + b"{}\n")


def test_a_journal_whose_last_line_was_cut_short_is_read_to_there() -> None:
    entries = [Term(1), Viewed(1, 2, 3, "paired", "a", "b", "", {"a": 1}, ("c",), "why")]
    data = b"".join(map(encode_entry, entries))
    assert decode_entries(data) == entries and decode_entries(data[:-3]) == entries[:1]


def test_every_state_can_be_reached_and_every_loss_be_met() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    for state in State:
        if state not in (State.NOWHERE, State.FOUNDING):
            assert (state, Event.ALL_GONE) in TRANSITIONS
    assert {(State.PAIRED, Event.PRIMARY_LOST), (State.PAIRED, Event.BACKUP_LOST), (State.PAIRED, Event.CANDIDATE),
            (State.REPLACING, Event.PRIMARY_LOST), (State.REPLACING, Event.JOINER_LOST)} <= set(TRANSITIONS)
