"""A link flaps: when it counts as dead."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.fabric_repair import End
from controller.link_watch import HELD_S, TRANSITIONS, LinkWatch, PortState, Seen

ONE, OTHER = End("tor1", 3), End("agg1", 1)


def test_a_port_that_goes_down_counts_at_once_and_one_that_comes_up_when_it_has_stayed() -> None:
    watch = LinkWatch()
    watch.tell(ONE, True, 0.0)
    assert watch.dead(0.0) == frozenset() and watch.changes_at_s() is None
    watch.tell(ONE, False, 1.0)
    assert watch.dead(1.0) == {ONE} and watch.changes_at_s() is None
    watch.tell(ONE, True, 2.0)
    assert watch.dead(2.0) == {ONE} and watch.changes_at_s() == 2.0 + HELD_S
    assert watch.dead(1.99 + HELD_S) == {ONE}
    assert watch.dead(2.0 + HELD_S) == frozenset() and watch.changes_at_s() is None


def test_what_is_heard_first_is_believed() -> None:
    watch = LinkWatch()
    watch.tell(ONE, False, 0.0)
    watch.tell(OTHER, True, 0.0)
    assert watch.dead(0.0) == {ONE} and watch.states() == {ONE: PortState.DOWN, OTHER: PortState.UP}


def test_being_told_the_same_again_changes_nothing() -> None:
    watch = LinkWatch()
    for now_s in (0.0, 1.0, 2.0):
        watch.tell(ONE, False, now_s)
    watch.tell(ONE, True, 3.0)
    watch.tell(ONE, True, 3.9)  # as when only another flag of the port has changed
    assert watch.changes_at_s() == 3.0 + HELD_S
    watch.tell(ONE, False, 3.95)
    watch.tell(ONE, True, 3.96)
    assert watch.dead(3.0 + HELD_S) == {ONE}


def test_it_is_known_since_when_ports_are_as_they_are() -> None:
    watch = LinkWatch()
    watch.tell(ONE, True, 0.0)
    watch.tell(OTHER, True, 0.5)
    watch.tell(ONE, False, 2.0)
    watch.tell(OTHER, False, 1.0)
    watch.tell(ONE, False, 3.0)
    assert (watch.since_s([ONE]), watch.since_s([ONE, OTHER]), watch.since_s([])) == (2.0, 1.0, None)
    watch.tell(ONE, True, 4.0)
    watch.dead(4.0 + HELD_S)
    assert watch.since_s([ONE]) == 4.0


@given(st.lists(st.tuples(st.floats(0.001, 3.0), st.booleans()), max_size=60))
def test_however_a_link_flaps_it_changes_twice_at_most_in_the_time_that_it_is_held(
        flaps: list[tuple[float, bool]]) -> None:
    watch = LinkWatch()
    watch.tell(ONE, True, 0.0)
    now_s, last, changed_at = 0.0, frozenset[End](), []
    for wait_s, up in flaps:
        due_s = watch.changes_at_s()
        for look_s in sorted({now_s + wait_s, *([due_s] if due_s is not None and due_s < now_s + wait_s else [])}):
            if watch.dead(look_s) != last:
                last = watch.dead(look_s)
                changed_at.append(look_s)
        now_s += wait_s
        watch.tell(ONE, up, now_s)
        if watch.dead(now_s) != last:
            last = watch.dead(now_s)
            changed_at.append(now_s)
    for first, third in zip(changed_at, changed_at[2:], strict=False):
        assert third - first >= HELD_S * 0.999


def test_the_table_knows_every_state_and_no_way_from_down_to_up_but_over_held() -> None:
    assert {state for state, _ in TRANSITIONS} == set(PortState)
    assert [state for (state, seen), after in TRANSITIONS.items() if after is PortState.UP] == [PortState.HELD]
    assert (PortState.HELD, Seen.STAYED_UP) in TRANSITIONS
