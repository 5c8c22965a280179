"""The steps of a withdrawal as the controller decides them, with nodes that say what a test lets them."""

from __future__ import annotations

from itertools import pairwise

import pytest

from controller.membership import Life
from controller.migration_journal import (
    Added,
    Ended,
    Journal,
    MemoryJournal,
    Replay,
    Started,
    Term,
    Turned,
    Viewed,
    WithdrawalTurned,
    decode_entries,
    encode_entry,
    of_living,
    with_added,
)
from controller.migration_steps import MOST_RETRY_S, Outgoing
from controller.withdrawal import (
    DRAIN_S,
    LIMIT_S,
    ROUND_S,
    SETTLE_S,
    TRANSITIONS,
    Event,
    State,
    Withdrawal,
    WithdrawalControl,
)
from microservices.application import Application, Stage
from nodes.control_messages import NO_INSTANCE, Answer, Command, Refusal, Standing, UnderWay, Verb, pack_addresses
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

NODES = ("n1", "n2", "n3")
APPLICATION, NAME, TERM, LATEST = 7, "shop", 3, 5
CLIENT = (bytes((10, 0, 0, 1)), 40_000)


class Desk:
    """One controller's withdrawals, the nodes' lives, and what is told to whom."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal or MemoryJournal()
        self.lives = dict.fromkeys(NODES, Life.ALIVE)
        self.holders = {"n1"}
        self.settles = True
        self.turns: list[tuple[State, str]] = []
        self.now = 100.0
        self.out: Outgoing = []
        self.control = WithdrawalControl(self.journal, NODES, self.lives.__getitem__, TERM, lambda _: LATEST,
                                         lambda _: self.holders, lambda _: self.settles,
                                         lambda w, why, _: self.turns.append((w.state, why)))

    def begin(self) -> Withdrawal:
        return self.control.begin(APPLICATION, NAME, self.now, self.out)

    def tick(self, after_s: float = 0.0) -> list[Command]:
        """Let so much time pass; return what is said, and to whom in `to`."""
        self.now += after_s
        self.out.clear()
        self.control.tick(self.now, self.out)
        return [command for _, command in self.out]

    @property
    def to(self) -> list[str]:
        return [node for node, _ in self.out]

    def says(self, node: str | None, verb: Verb, size: int = 0, payload: bytes = b"", epoch: int = LATEST + 1,
             term: int = TERM, refusal: Refusal = Refusal.NONE) -> None:
        self.control.answered(node, Answer(term, 1, 0, verb, Standing.ABSENT, refusal, APPLICATION, NO_INSTANCE, epoch,
                                           size, payload=payload), self.now, self.out)

    def round(self, *nodes: str, outstanding: int = 0, begun: int = 0) -> None:
        """Let nodes say in this round what is under way."""
        number = self.control.of[APPLICATION].round
        for node in nodes or NODES:
            self.says(node, Verb.CLOSE, payload=UnderWay(number, outstanding, begun).packed())

    def clear(self, *nodes: str, size: int = 0) -> None:
        for node in nodes or NODES:
            self.says(node, Verb.WITHDRAW, size, pack_addresses([CLIENT]))

    @property
    def state(self) -> State:
        return self.control.of[APPLICATION].state


def brought_to(state: State, desk: Desk | None = None) -> Desk:
    desk = desk or Desk()
    desk.settles = state is not State.SETTLING
    desk.begin()
    if state in (State.CLEARING, State.GONE):
        desk.round()
        desk.tick(ROUND_S)
        desk.round()
    if state is State.GONE:
        desk.clear()
    assert desk.state is state
    return desk


def happens(desk: Desk, event: Event) -> None:
    """Let something become true, whatever state the withdrawal is in."""
    if event is Event.SETTLED:
        desk.settles = True
        desk.tick()
    elif event is Event.DRAINED:
        desk.round()
        desk.tick(ROUND_S)
        desk.round()
    elif event is Event.CLEARED:
        desk.clear()
    else:
        desk.tick(LIMIT_S.get(desk.state, SETTLE_S + DRAIN_S))


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_a_withdrawal_takes_the_turns_of_the_table_and_no_others(state: State, event: Event) -> None:
    desk = brought_to(state)
    before = desk.journal.entries()
    happens(desk, event)
    wanted = TRANSITIONS.get((state, event), state)
    assert desk.state is wanted
    if wanted is not state:
        assert desk.turns[-1] == (wanted, event.value)
        assert [entry.state for entry in desk.journal.entries()[len(before):]] == [wanted.value]
    else:
        assert desk.journal.entries() == before


def test_all_that_is_decided_is_written_down_before_anybody_is_told() -> None:
    class Watched(MemoryJournal):
        def append(self, entry: object) -> None:
            told.append(len(desk.out))
            super().append(entry)  # type: ignore[arg-type]

    told: list[int] = []
    desk = Desk.__new__(Desk)
    desk.out = []
    Desk.__init__(desk, Watched())
    desk.settles = False
    desk.begin()
    assert told == [0] and desk.out == []
    desk.settles = True
    desk.control.tick(desk.now, desk.out)
    assert told == [0, 0] and len(desk.out) == len(NODES)


def test_nobody_is_told_anything_before_what_is_on_its_way_has_settled_and_then_everybody_is() -> None:
    desk = brought_to(State.SETTLING)
    assert desk.tick(1.0) == []
    desk.settles = True
    said = desk.tick()
    assert desk.to == list(NODES)
    assert {(one.verb, one.application, one.instance, one.epoch, one.term) for one in said} == {
        (Verb.CLOSE, APPLICATION, NO_INSTANCE, LATEST, TERM)}


def test_one_round_in_which_nothing_is_under_way_is_not_enough() -> None:
    desk = brought_to(State.CLOSING)
    desk.round()
    assert desk.state is State.CLOSING
    assert desk.tick() == [] and {one.size for one in desk.tick(ROUND_S)} == {2}
    desk.round()
    assert desk.state is State.CLEARING


def test_a_request_that_is_begun_between_two_rounds_shows() -> None:
    desk = brought_to(State.CLOSING)
    for begun in (1, 2, 3):  # it was on its way from one node to another whenever either was asked
        desk.round(begun=begun)
        desk.tick(ROUND_S)
        assert desk.state is State.CLOSING
    desk.round(begun=3)
    assert desk.state is State.CLEARING


def test_while_anybody_has_something_under_way_it_goes_on() -> None:
    desk = brought_to(State.CLOSING)
    for _ in range(5):
        desk.round("n1", "n2")
        desk.round("n3", outstanding=1)
        desk.tick(ROUND_S)
    assert desk.state is State.CLOSING


def test_what_was_said_in_an_earlier_round_does_not_count_for_this_one() -> None:
    desk = brought_to(State.CLOSING)
    early = UnderWay(1, 0, 0).packed()
    desk.round()
    desk.tick(ROUND_S)
    for _ in range(3):
        for node in NODES:
            desk.says(node, Verb.CLOSE, payload=early)
    assert desk.state is State.CLOSING


def test_who_is_silent_is_asked_again_less_and_less_often_and_the_others_are_not() -> None:
    desk = brought_to(State.CLOSING)
    desk.round("n1", "n2")
    asked = []
    for _ in range(300):
        if desk.tick(0.01):
            asked.append(round(desk.now - 100.0, 2))
            assert desk.to == ["n3"]
    assert 4 < len(asked) < 12
    assert all(later - earlier <= MOST_RETRY_S + 0.02 for earlier, later in pairwise(asked))


def test_a_dead_node_is_waited_for_only_if_it_has_something_of_it_and_no_longer_than_the_limit() -> None:
    desk = brought_to(State.CLOSING)
    desk.lives["n3"] = Life.DEAD
    desk.round("n1", "n2")
    desk.tick(ROUND_S)
    desk.round("n1", "n2")
    assert desk.state is State.CLEARING
    desk = brought_to(State.CLOSING)
    desk.lives["n3"], desk.holders = Life.DEAD, {"n1", "n3"}
    for _ in range(3):
        desk.round("n1", "n2")
        desk.tick(1.0)
    assert desk.state is State.CLOSING
    desk.tick(DRAIN_S)
    assert desk.state is State.CLEARING and desk.turns[-1][1] == Event.TOO_LATE.value


def test_a_controller_that_has_just_begun_takes_nobody_for_away() -> None:
    desk = brought_to(State.CLEARING)
    desk.lives.update(dict.fromkeys(NODES, Life.DEAD))  # it has heard nobody yet
    desk.clear("n1")
    desk.tick(1.0)
    assert desk.state is State.CLEARING and desk.to == ["n2", "n3"]
    desk.lives["n1"] = Life.ALIVE  # and now for as long as it takes to have heard all
    desk.tick()
    assert desk.state is State.GONE and desk.control.of[APPLICATION].owed == {"n2", "n3"}


def test_who_was_away_is_told_when_it_is_heard_again_and_not_before() -> None:
    desk = brought_to(State.CLEARING)
    desk.lives["n3"] = Life.DEAD
    desk.clear("n1", "n2")
    assert desk.state is State.GONE
    assert desk.journal.entries()[-1] == WithdrawalTurned(APPLICATION, NAME, "withdrawn", LATEST + 1, ("n3",))
    assert all(desk.tick(1.0) == [] for _ in range(5))
    desk.lives["n3"] = Life.JOINING
    said, = desk.tick(1.0)
    assert desk.to == ["n3"] and (said.verb, said.epoch) == (Verb.WITHDRAW, LATEST + 1)
    desk.clear("n3")
    assert desk.tick(2.0) == [] and desk.control.of[APPLICATION].owed == set()


def test_whoever_begins_another_run_is_told_again() -> None:
    desk = brought_to(State.GONE)
    desk.control.booted("n2")
    desk.tick()
    assert desk.to == ["n2"]


def test_what_was_dropped_is_counted_once_per_node_however_often_it_says_so() -> None:
    desk = brought_to(State.CLEARING)
    desk.clear("n1", size=3)
    desk.clear("n1", size=3)
    desk.clear("n2", "n3", size=1)
    w = desk.control.of[APPLICATION]
    assert sum(w.dropped.values()) == 5 and w.clients == {CLIENT}


@pytest.mark.parametrize("wrong", [{"term": TERM - 1}, {"epoch": LATEST}, {"refusal": Refusal.OLD_TERM}])
def test_answers_to_something_else_are_no_answers(wrong: dict[str, int]) -> None:
    desk = brought_to(State.CLEARING)
    for node in NODES:
        desk.says(node, Verb.WITHDRAW, **wrong)  # type: ignore[arg-type]
    assert desk.control.of[APPLICATION].owed == set(NODES)
    desk.says(None, Verb.WITHDRAW)
    assert desk.control.refused == 1 and desk.state is State.CLEARING


def test_a_payload_that_says_nothing_is_no_answer() -> None:
    desk = brought_to(State.CLOSING)
    for _ in range(2):
        for node in NODES:
            desk.says(node, Verb.CLOSE, payload=b"noise")
        desk.tick(ROUND_S)
    assert desk.state is State.CLOSING


def test_who_has_been_replaced_is_silent() -> None:
    desk = brought_to(State.CLOSING)
    desk.control.silent = True
    entries = desk.journal.entries()
    assert desk.tick(SETTLE_S + DRAIN_S) == [] and desk.journal.entries() == entries


@pytest.mark.parametrize("state", State)
def test_a_controller_that_restarts_goes_on_in_the_same_state_and_gives_it_its_whole_time_again(state: State) -> None:
    again = Desk(brought_to(state).journal)
    again.settles = state is not State.SETTLING
    again.now = 500.0
    assert again.state is state
    said = again.tick()
    assert again.state is state and len(again.journal.entries()) == len(brought_to(state).journal.entries())
    verbs = {State.CLOSING: {Verb.CLOSE}, State.CLEARING: {Verb.WITHDRAW}}
    assert {one.verb for one in said} == verbs.get(state, set())
    if state in LIMIT_S:
        again.tick(LIMIT_S[state] - 1.0)
        assert again.state is state
        again.tick(1.0)
        assert again.state is TRANSITIONS[state, Event.TOO_LATE]


def test_withdrawn_again_it_takes_a_later_decision() -> None:
    desk = brought_to(State.GONE)
    assert desk.control.first_epoch(APPLICATION) == LATEST + 2 and desk.control.first_epoch(99) == 1
    assert desk.control.begin(APPLICATION, NAME, desk.now, desk.out).state is State.CLOSING
    assert desk.control.is_going(APPLICATION) and not desk.control.is_cleared(APPLICATION)


# -- the journal -------------------------------------------------------------------------------------------------------

INVENTORY = inventory_of(cluster_named("type1x3"))


def deployment(number: int, node: str) -> Deployment:
    return deploy(Application(f"a{number}", number, (Stage("store", "kvs"),), ()), {0: node}, INVENTORY)


def told_of(number: int, migration: int) -> list[object]:
    """Return all that a journal may say of the instance of an application."""
    return [Added.of(deployment(number, "s1h")),
            Started(1, migration, number, 0, "s1h", "s2h", (), 2), Turned(migration, "switching", 2, "s2h"),
            Ended(migration, "s2h", 2), Viewed(number, 0, 3, "alone", "s2h", "", "", {}, ())]


def cleared(number: int, state: str = "clearing") -> WithdrawalTurned:
    return WithdrawalTurned(number, f"a{number}", state, 4)


def test_of_what_was_cleared_a_journal_tells_nothing_but_that_and_of_others_all() -> None:
    entries = [Term(1), *told_of(1, 1), *told_of(2, 2), cleared(1), Term(2)]
    assert of_living(entries) == [Term(1), *told_of(2, 2), cleared(1), Term(2)]
    assert of_living([*entries, *told_of(1, 3)]) == [Term(1), *told_of(2, 2), cleared(1), Term(2), *told_of(1, 3)]


@pytest.mark.parametrize("state", ["settling", "closing"])
def test_before_it_is_cleared_everything_still_counts(state: str) -> None:
    entries = [Term(1), *told_of(1, 1), cleared(1, state)]
    assert of_living(entries) == entries
    assert [d.number for d in with_added([deployment(2, "s1h")], entries)] == [2, 1]


def test_a_configuration_does_not_bring_back_what_was_cleared_and_what_was_deployed_later_wins() -> None:
    first, second = deployment(1, "s1h"), deployment(1, "s3h")
    assert with_added([first], [cleared(1)]) == ()
    assert with_added([first], [cleared(1), Added.of(second)]) == (second,)
    assert with_added([first], [Added.of(first), cleared(1), Added.of(second), cleared(1)]) == ()


def test_a_replay_has_no_migration_of_what_was_cleared_and_goes_on_counting_them() -> None:
    def binary_of(application: int, _instance: int) -> bytes:
        assert application != 1  # of what is gone nobody has the source
        return b""

    replay = Replay([Term(1), *told_of(2, 1), *told_of(1, 2), cleared(1), Term(2)], binary_of)
    assert list(replay.open) == [1] and replay.last == 2 and replay.term == 2
    assert (1, 0) not in replay.epochs


def test_its_lines_are_read_as_they_were_written() -> None:
    line = WithdrawalTurned(APPLICATION, NAME, "withdrawn", 9, ("n1", "n2"))
    assert decode_entries(encode_entry(line)) == [line]
