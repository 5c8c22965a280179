"""Both sides of a migration, one command at a time: the order of steps, the journal, and hostile control traffic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from migration_room import BINARY, CLIENTS, DESTINATION, IPS, SOURCE, WRITER, Room

from controller.errors import MigrationError
from controller.migration import MigrationControl
from controller.migration_journal import (
    Booted,
    Ended,
    MemoryJournal,
    Started,
    Term,
    Turned,
    decode_entries,
    encode_entry,
)
from controller.migration_steps import TRANSITIONS, Event, State
from nodes import messages
from nodes.authority import Authority
from nodes.control_messages import Answer, Chunk, Command, ControlMessage, Fetch, Refusal, Standing, Verb
from nodes.errors import WireError
from nodes.fetching import digest_of
from nodes.migration_agent import DOES, KEEP_S, MigrationAgent

CTL = IPS["ctl"]
ENTRIES = [Term(1), Started(1, 1, 2, 3, "a", "b", ("c", "d"), 4, "why"), Turned(1, "switching", 5, "b", 6, b"\0" * 16),
           Ended(1, "b", 5), Booted("a", 7)]


def moved(seed: int = 1, loss: float = 0.0) -> Room:
    room = Room(seed, loss)
    room.run(0.05)
    room.begin()
    room.run(5.0, lambda: room.settled)
    return room


def obey(room: Room, node: str, command: Command, source: bytes = CTL) -> list[Answer]:
    out: list[tuple[bytes, ControlMessage]] = []
    room.nodes[node].agent.receive(source, command, room.now, out)
    return [message for _, message in out if isinstance(message, Answer)]


def command(verb: Verb, epoch: int, **more: object) -> Command:
    values = {"term": 1, "boot": 0, "migration": 1, "application": 1, "instance": 7, **more}
    return Command(verb=verb, epoch=epoch, **values)  # type: ignore[arg-type]


# -- the tables ------------------------------------------------------------------------------------------------------

def test_every_state_is_reached_and_left_and_only_events_that_there_are_lead_on() -> None:
    assert set(TRANSITIONS.values()) == set(State) - {State.PUSHING}
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_nothing_but_a_command_to_start_or_resume_makes_an_instance_live() -> None:
    makes_live = {does for (standing, verb), does in DOES.items() if verb in (Verb.START, Verb.RESUME)}
    assert makes_live == {"_start", "_start_fresh", "_resume", "_stay"}
    assert not {does for (_, verb), does in DOES.items() if verb not in (Verb.START, Verb.RESUME)} & {
        "_start", "_start_fresh", "_resume"}
    assert all(does == "_stay" for (standing, verb), does in DOES.items()
               if standing is Standing.LIVE and verb is not Verb.FREEZE)


# -- the journal -----------------------------------------------------------------------------------------------------

def test_the_journal_reads_what_it_wrote_and_leaves_out_a_line_that_a_crash_cut() -> None:
    data = b"".join(map(encode_entry, ENTRIES))
    assert decode_entries(data) == ENTRIES
    assert decode_entries(data[:-3]) == ENTRIES[:-1]


def test_a_line_that_is_no_entry_is_refused_by_number() -> None:
    with pytest.raises(MigrationError, match="line 2"):
        decode_entries(encode_entry(ENTRIES[0]) + b"{}\n" + encode_entry(ENTRIES[1]))


def test_a_turn_of_a_migration_that_never_started_is_refused() -> None:
    with pytest.raises(MigrationError, match="migration 9"):
        MigrationControl(MemoryJournal([Turned(9, "moving", 1, "a")]), IPS, CTL, lambda *_: b"")


def test_the_commit_is_in_the_journal_before_anybody_is_told() -> None:
    room = moved()
    entries = decode_entries(b"".join(room.log))
    assert [type(e).__name__ for e in entries if not isinstance(e, Booted)] == ["Term", "Started", "Turned", "Turned",
                                                                               "Ended"]
    assert [e.state for e in entries if isinstance(e, Turned)] == ["switching", "finishing"]


def test_each_controller_has_a_term_of_its_own() -> None:
    journal = MemoryJournal()
    terms = [MigrationControl(journal, IPS, CTL, lambda *_: b"").term for _ in range(3)]
    assert terms == [1, 2, 3]


def test_a_controller_that_has_a_successor_falls_silent() -> None:
    room = Room(1, loss=0.0)
    room.run(0.05)
    room.nodes[SOURCE].agent.authority.term = 99
    room.nodes[DESTINATION].agent.authority.term = 99
    room.begin()
    room.run(0.5)
    assert room.controller is not None and room.controller.deposed
    assert room.checker.runners() == [SOURCE]


# -- what cannot be --------------------------------------------------------------------------------------------------

def test_an_instance_moves_once_at_a_time_and_to_another_node() -> None:
    room = Room(1)
    control = room.controller
    assert control is not None
    control.begin(1, 7, SOURCE, DESTINATION, (), 0.0, [])
    with pytest.raises(MigrationError, match="on its way"):
        control.begin(1, 7, SOURCE, DESTINATION, (), 0.0, [])
    with pytest.raises(MigrationError, match="already"):
        control.begin(1, 8, SOURCE, SOURCE, (), 0.0, [])
    with pytest.raises(MigrationError, match="nowhere"):
        control.begin(1, 9, SOURCE, "nowhere", (), 0.0, [])


def test_a_destination_that_is_never_there_costs_nothing_but_the_attempt() -> None:
    room = Room(1, loss=0.0)
    room.run(0.05)
    room.cut = {frozenset(("ctl", DESTINATION))}
    room.begin()
    room.run(8.0)
    room.cut.clear()
    room.run(10.0, lambda: room.settled)
    assert [h.what for h in room.happenings] == ["begin", "resuming", "finishing", "done"]
    assert room.checker.runners() == [SOURCE] and not room.checker.verdict()


@pytest.mark.parametrize(("broken", "refusal"), [(BINARY[:-1] + b"?", "wrong digest"), (b"?" * 1000, "unusable")])
def test_a_binary_that_is_not_what_it_should_be_moves_nothing(broken: bytes, refusal: str) -> None:
    room = Room(1, loss=0.0)
    room.run(0.05)
    control = room.controller
    assert control is not None
    if refusal == "unusable":  # announced as it is, and no binary of this microservice
        control._binary_of = lambda *_: broken
        room.begin()
    else:  # changed on the way
        room.begin()
        control.open[1].binary = BINARY
        fetch = control.fetch
        control.fetch = lambda source, asked: swapped(fetch(source, asked))  # type: ignore[method-assign]
    room.run(5.0, lambda: room.settled)
    assert room.nodes[DESTINATION].agent.counters[f"fetched: {refusal}"] >= 1
    assert "moving" not in [h.what for h in room.happenings]
    assert room.checker.runners() == [SOURCE] and not room.checker.verdict()


def swapped(chunk: Chunk | None) -> Chunk | None:
    return chunk and Chunk(chunk.digest, chunk.offset, chunk.payload[::-1])


@pytest.mark.parametrize("what", ["declared_dead", "booted"])
def test_a_controller_that_restarts_tells_all_neighbours_also_if_it_first_hears_that_the_other_end_is_gone(
        what: str) -> None:
    room = Room(1, loss=0.0)
    room.run(0.2)
    room.cut = {frozenset(("ctl", WRITER))}
    room.begin()
    room.run(2.0)
    assert room.happenings[-1].what == "finishing" and room.nodes[WRITER].local.where is None
    room.kill_controller()
    room.cut.clear()
    room.kill(SOURCE)
    if what == "booted":
        room.boot(SOURCE)
    room.start_controller()
    room._tell(what, SOURCE, *((room.nodes[SOURCE].boot,) if what == "booted" else ()))
    room.run(5.0, lambda: room.settled)
    assert room.settled and room.nodes[WRITER].local.where == IPS[DESTINATION]


def test_an_instance_whose_node_came_back_without_it_is_made_afresh_once() -> None:
    room = Room(1, loss=0.1)
    room.kill(SOURCE)
    room.boot(SOURCE)
    out: list[object] = []
    assert room.controller is not None
    room.controller.restart(1, 7, SOURCE, (WRITER,), 0.0, out)  # type: ignore[arg-type]
    room.after(out)
    room.run(5.0, lambda: room.settled)
    assert room.checker.runners() == [SOURCE]


# -- commands that come late, again, or from somebody else -----------------------------------------------------------

def test_the_same_command_again_changes_nothing_and_is_answered_alike() -> None:
    room = moved()
    epoch = room.nodes[DESTINATION].agent.epoch(1, 7)
    again = command(Verb.START, epoch, size=5, digest=bytes(16))
    assert [a.standing for _ in range(3) for a in obey(room, DESTINATION, again)] == [Standing.LIVE] * 3
    assert room.checker.runners() == [DESTINATION]


@pytest.mark.parametrize("verb", [v for v in Verb if v is not Verb.CONNECT])
def test_a_command_of_an_earlier_epoch_is_refused_and_counted(verb: Verb) -> None:
    room = moved()
    for node in (SOURCE, DESTINATION):
        (answer,) = obey(room, node, command(verb, 1))
        assert answer.refusal == Refusal.OLD_EPOCH
        assert room.nodes[node].agent.counters["refused: old epoch"] == 1
    assert room.checker.runners() == [DESTINATION]


def test_an_old_address_does_not_replace_a_newer_one() -> None:
    room = moved()
    (answer,) = obey(room, WRITER, command(Verb.CONNECT, 1, peer=IPS["s2h"]))
    assert answer.refusal == Refusal.OLD_EPOCH and room.nodes[WRITER].local.where == IPS[DESTINATION]


def test_a_command_for_an_earlier_run_of_a_node_makes_nothing_live() -> None:
    room = Room(1)
    node = room.nodes[DESTINATION]
    obey(room, DESTINATION, command(Verb.PREPARE, 5, peer=CTL, size=len(BINARY), digest=digest_of(BINARY)))
    node.agent._here[1, 7].standing = Standing.PREPARED
    for boot in (node.boot - 1, node.boot + 1, 0):  # 0, any run, is not enough to start from nothing
        (answer,) = obey(room, DESTINATION, command(Verb.START, 5, boot=boot))
        assert answer.refusal in (Refusal.OTHER_BOOT, Refusal.OUT_OF_PLACE)
    assert node.local.live is None


def test_a_binary_that_is_half_pushed_is_fetched_from_the_controller_that_took_over() -> None:
    room, successor = Room(1), bytes((10, 1, 253, 2))
    agent = room.nodes[DESTINATION].agent
    agent.authority.ips = (CTL, successor)
    what = {"size": len(BINARY), "digest": digest_of(BINARY)}
    obey(room, DESTINATION, command(Verb.PREPARE, 5, peer=CTL, **what))
    (answer,) = obey(room, DESTINATION, command(Verb.PREPARE, 5, peer=successor, term=2, **what), successor)
    assert answer.refusal == Refusal.NONE and answer.standing == Standing.PREPARING
    asked: list[tuple[bytes, ControlMessage]] = []
    agent.tick(room.now + 1.0, asked)
    assert {ip for ip, message in asked if isinstance(message, Fetch)} == {successor}
    (answer,) = obey(room, DESTINATION, command(Verb.PREPARE, 5, peer=CTL, **what))
    assert answer.refusal == Refusal.OLD_TERM


@pytest.mark.parametrize("sender", ["s2h", "s1h", "s2n1", "a client"])
def test_commands_from_anybody_but_the_controller_are_counted_and_nothing_moves(sender: str) -> None:
    room = moved()
    ip = IPS.get(sender, bytes((10, 1, 254, 1)))
    for node in (SOURCE, DESTINATION, WRITER):
        before = room.nodes[node].agent.standing(1, 7), room.nodes[node].local.where
        for verb in Verb:
            assert not obey(room, node, command(verb, 99, peer=ip), ip)
        assert (room.nodes[node].agent.standing(1, 7), room.nodes[node].local.where) == before
        assert room.nodes[node].agent.counters["command not from the controller"] == len(Verb)
    assert room.checker.runners() == [DESTINATION]


def test_a_replay_of_everything_that_was_ever_sent_moves_nothing() -> None:
    room = Room(3, loss=0.1)
    recorded: list[tuple[str, str, bytes]] = []
    send = room.send
    room.send = lambda source, to, data: (recorded.append((source, to, data)), send(source, to, data))[1]  # type: ignore[method-assign, func-returns-value]
    for ends in ((SOURCE, DESTINATION), (DESTINATION, SOURCE), (SOURCE, DESTINATION)):
        out: list[object] = []
        assert room.controller is not None
        room.controller.begin(1, 7, *ends, (WRITER, *ends), room.now, out)  # type: ignore[arg-type]
        room.after(out)
        room.run(room.now + 20, lambda: room.settled)
    room.send = send  # type: ignore[method-assign]
    draw = random.Random(1)
    for _ in range(3):
        for source, to, data in draw.sample(recorded, len(recorded)):
            room.arrive(source, to, data)
            room.checker.look()
    room.run(room.now + 1.0)
    assert room.checker.runners() == [DESTINATION] and not room.checker.verdict() and room.settled


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(IPS)), st.sampled_from(list(IPS)[1:]), st.one_of(
    st.binary(max_size=80).map(lambda b: b"\xe3\xa7\x01" + b),
    st.builds(lambda verb, epoch, boot, size: command(verb, epoch, boot=boot, size=size).encode(),
              st.sampled_from(list(Verb)), st.integers(0, 5), st.integers(0, 9),
              st.sampled_from((0, 10, 2**32 - 1)))))))
def test_whatever_comes_no_two_nodes_run_the_instance_and_nobody_breaks(traffic: list[tuple[str, str, bytes]]) -> None:
    room = Room(1)
    for source, to, data in traffic:
        if source != "ctl":  # whom the ToR vouches for
            room.arrive(source, to, data)
        else:
            try:
                room.nodes[to].agent.receive(CTL, messages.decode(data), 0.0, [])  # type: ignore[arg-type]
            except WireError:
                continue
        room.checker.look()
    assert not room.checker.complaints


def test_answers_and_fetches_from_strangers_are_counted_by_the_controller() -> None:
    room = moved()
    control = room.controller
    assert control is not None
    stranger = bytes((10, 1, 254, 1))
    control.answered(stranger, Answer(1, 0, 1, Verb.START, Standing.LIVE, 0, 1, 7, 2), 0.0, [])
    assert control.fetch(stranger, Fetch(digest_of(BINARY), 0)) is None
    assert control.refused == 2


def test_a_node_gives_what_it_froze_to_the_destination_only() -> None:
    room = Room(1)
    obey(room, SOURCE, command(Verb.FREEZE, 2, peer=IPS[DESTINATION]))
    room.now = 1.0
    agent = room.nodes[SOURCE].agent
    agent.tick(1.0, [])
    assert agent.standing(1, 7) is Standing.FROZEN
    for node, chunks in (("s2h", 0), ("ctl", 0), (DESTINATION, 1)):
        out: list[tuple[bytes, ControlMessage]] = []
        agent.receive(IPS[node], Fetch(digest_of(agent.package(1, 7)), 0), 1.0, out)
        assert len(out) == chunks
    assert agent.counters["fetch of what is not there, or not theirs"] == 2


def test_what_is_released_can_be_resumed_for_a_while_and_is_then_forgotten() -> None:
    for wait_s, refusal in ((KEEP_S - 1, Refusal.NONE), (KEEP_S + 1, Refusal.OUT_OF_PLACE)):
        room = moved()
        agent = room.nodes[SOURCE].agent
        assert agent.standing(1, 7) is Standing.RELEASED and agent.due(room.now) is not None
        agent.tick(room.now + wait_s, [])
        out: list[tuple[bytes, ControlMessage]] = []
        agent.receive(CTL, command(Verb.RESUME, 9), room.now + wait_s, out)
        assert [m.refusal for _, m in out if isinstance(m, Answer)] == [refusal]


def test_too_large_a_thing_is_not_even_begun() -> None:
    agent = MigrationAgent(Room(1).nodes[SOURCE].local, Authority(CTL), 1)
    out: list[tuple[bytes, ControlMessage]] = []
    agent.receive(CTL, command(Verb.PREPARE, 1, size=2**32 - 1), 0.0, out)
    assert [m.refusal for _, m in out if isinstance(m, Answer)] == [Refusal.TOO_LARGE] and len(out) == 1


# -- clients -----------------------------------------------------------------------------------------------------------

def test_the_controller_learns_from_the_destination_whom_to_tell_and_tells_them_the_new_place() -> None:
    room = moved()
    control = room.controller
    assert control is not None
    migration = control.closed[1, 7]
    assert migration.clients == CLIENTS
    told = control.for_clients(migration)
    assert told is not None and (told.verb, told.peer, told.epoch) == (Verb.CONNECT, IPS[DESTINATION], migration.epoch)


def test_clients_hear_nothing_of_a_migration_that_did_not_come_to_its_commit() -> None:
    room = Room(1, loss=0.0)
    room.run(0.05)
    room.begin()
    assert room.controller is not None and room.controller.for_clients(room.controller.open[1]) is None
