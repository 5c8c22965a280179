"""The resource controller as a whole: heartbeats in, instances moved, told to clients, written down, and shown."""

from __future__ import annotations

import json
import random

import msgspec
import pytest
from controller_room import APPLICATION, CLIENT, DEPLOYMENT, HOST, INVENTORY, NAMES, NIC, ON_NIC, Room, ip_of, starve

from controller.errors import MigrationError
from controller.migration_journal import MemoryJournal
from controller.overload import OverloadOptions
from controller.resource_controller import MOST_HEARTBEATS, ResourceController
from controller.timeline import STEPS
from microservices.applications import iot_ts
from nodes import messages
from nodes.control_messages import HEARTBEAT_S, Command, Verb
from nodes.deployment import deploy
from nodes.migration_agent import KEEP_S
from nodes.transport import Send


def whats(room: Room) -> list[str]:
    return [event.what for event in room.controller.events]


# -- by itself -------------------------------------------------------------------------------------------------------

def test_a_starving_smartnic_loses_the_instance_with_the_most_cpu_to_its_host() -> None:
    room = Room()
    starve(room)
    room.pass_time(0.5)
    assert room.live_on(ON_NIC[-1]) == [HOST]
    assert all(room.live_on(number) == [NIC] for number in ON_NIC[:-1])
    assert room.controller.where.node_of[DEPLOYMENT.number, ON_NIC[-1]] == HOST
    verdict = next(event for event in room.controller.events if event.what == "verdict")
    assert (verdict.node, verdict.instance) == (NIC, NAMES[ON_NIC[-1]]) and "host starvation" in verdict.detail


def test_a_controller_that_only_watches_says_what_it_would_do_and_moves_nothing() -> None:
    room = Room(automatic=False)
    starve(room, 3.0)
    assert room.live_on(ON_NIC[-1]) == [NIC]
    verdicts = [event for event in room.controller.events if event.what == "verdict"]
    assert len(verdicts) == 1 and "only watches" in verdicts[0].detail  # and then the hold-down
    assert "begin" not in whats(room) and room.controller.counts()["alarms"] == 1


def test_while_nothing_is_wrong_nothing_moves_and_nothing_is_due_before_the_next_slot() -> None:
    room = Room()
    for _ in range(100):
        room.beat(NIC, ON_NIC[0], us=10, queue=3, network=0.5, cpu=0.2)
        room.pass_time(HEARTBEAT_S)
    assert "verdict" not in whats(room) and room.now < room.controller.due() <= room.now + HEARTBEAT_S


def test_heartbeats_wait_for_the_tick_unless_too_many_have_come() -> None:
    room = Room()
    room.beat(NIC)
    assert room.controller.due() <= room.now and room.controller.counts()["heartbeats"] == 0
    room.pass_time(0.02)
    assert room.controller.due() > room.now and room.controller.counts()["heartbeats"] == 1
    for _ in range(MOST_HEARTBEATS):
        room.beat(NIC)
    assert room.controller.counts()["refused_repeated"] == MOST_HEARTBEATS


def test_a_move_that_is_decided_while_a_neighbour_moves_begins_when_that_has_settled() -> None:
    room = Room()
    near = next(a if b == ON_NIC[-1] else b for a, b in APPLICATION.edges if ON_NIC[-1] in (a, b))
    room.loses = lambda send: True
    room.by_hand(NAMES[near], "s3h")
    starve(room)
    postponed = [e for e in room.controller.events if e.what == "verdict"]
    assert len(postponed) == 1 and f"when {NAMES[near]}, its neighbour, has settled" in postponed[0].detail
    with pytest.raises(MigrationError, match="is to move to s1h already"):
        room.by_hand(NAMES[ON_NIC[-1]], "s2h")
    assert len(room.controller.timelines) == 1
    room.loses = lambda send: False
    room.pass_time(3.0)
    assert room.live_on(near) == ["s3h"] and room.live_on(ON_NIC[-1]) == [HOST]
    assert [line.outcome for line in room.controller.timelines.values()] == ["moved", "moved"]
    steps = room.controller.timelines[2].steps_s
    assert steps["detect"] > 0.1


# -- by hand ---------------------------------------------------------------------------------------------------------

def test_an_instance_moved_by_hand_runs_there_only_and_can_come_back() -> None:
    room = Room(automatic=False)
    for turn, to in enumerate((HOST, NIC, "s2h", NIC), start=1):
        number = room.by_hand(NAMES[ON_NIC[0]], to)
        room.pass_time(1.0)
        assert room.live_on(ON_NIC[0]) == [to] and number == turn
        assert room.runs[to].live[DEPLOYMENT.number, ON_NIC[0]] == turn
        room.pass_time(KEEP_S + 1)
    assert [line.outcome for line in room.controller.timelines.values()] == ["moved"] * 4


def test_neighbours_learn_the_new_place_and_nobody_else_does() -> None:
    room = Room(automatic=False)
    number = ON_NIC[0]
    key, source = (DEPLOYMENT.number, number), room.live_on(number)[0]
    room.by_hand(NAMES[number], "s3h")
    room.pass_time(1.0)
    near = {n for edge in APPLICATION.edges if number in edge for n in edge} - {number}
    nodes = {p.node for p in DEPLOYMENT.places if p.number in near} | {source, "s3h"}
    assert {name for name, run in room.runs.items() if run.where.get(key) == ip_of("s3h")} == nodes


def test_clients_that_sent_to_it_are_told_by_the_controller() -> None:
    room = Room(automatic=False)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    room.pass_time(1.0)
    commands = [messages.decode(data) for *address, data in room.told_clients if tuple(address) == CLIENT]
    assert commands and all(isinstance(c, Command) and (c.verb, c.peer, c.instance) == (
        Verb.CONNECT, ip_of(HOST), ON_NIC[0]) for c in commands)


@pytest.mark.parametrize(("instance", "node", "says"), [
    ("nobody", HOST, "no instance 'nobody'"),
    (NAMES[ON_NIC[0]], "s9h", "no host or SmartNIC 's9h'"),
    (NAMES[ON_NIC[0]], "c1", "no host or SmartNIC 'c1'"),
    (NAMES[ON_NIC[0]], NIC, "already"),
])
def test_a_move_that_cannot_be_is_refused_with_the_reason(instance: str, node: str, says: str) -> None:
    room = Room()
    with pytest.raises(MigrationError, match=says):
        room.by_hand(instance, node)
    assert not room.controller.control.open


def test_an_instance_that_is_on_its_way_does_not_begin_another() -> None:
    room = Room(loses=lambda send: True)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    with pytest.raises(MigrationError, match="on its way"):
        room.by_hand(NAMES[ON_NIC[0]], "s2h")
    starve(room)
    assert not any(NAMES[ON_NIC[0]] == e.instance for e in room.controller.events if e.what == "verdict")


def test_what_is_pinned_to_hosts_moves_to_no_smartnic_and_what_does_not_fit_moves_nowhere() -> None:
    application = iot_ts(shards=6)
    inventory = INVENTORY
    hosts = {i.number: HOST for i in application.instances}
    deployment = deploy(application, hosts, inventory)
    controller = ResourceController(inventory, [deployment])
    sql = next(i for i in application.instances if i.service == "sql")
    with pytest.raises(MigrationError, match="hosts only"):
        controller.move(f"{application.name}/{sql.name}", NIC, 0.0, [])
    other = next(i for i in application.instances if i.service != "sql")
    controller.orchestrator.table.free_mb[:] = 1.0
    with pytest.raises(MigrationError, match="MB free"):
        controller.move(f"{application.name}/{other.name}", NIC, 0.0, [])


def test_a_name_may_be_short_where_only_one_instance_has_it() -> None:
    room = Room()
    short = NAMES[ON_NIC[0]].partition("/")[2]
    assert room.controller.where.key_of(short) == (DEPLOYMENT.number, ON_NIC[0])
    other = deploy(APPLICATION.__class__("other", 99, APPLICATION.stages, APPLICATION.channels),
                   {p.number: p.node for p in DEPLOYMENT.places}, INVENTORY)
    room.controller.deploy(other, room.now)
    with pytest.raises(MigrationError, match="other/"):
        room.controller.where.key_of(short)


# -- nodes and controllers that die ----------------------------------------------------------------------------------

def test_a_node_that_comes_back_with_nothing_gets_its_instances_afresh() -> None:
    room = Room()
    room.beat(NIC)
    room.pass_time(0.1)
    room.boot(NIC)
    room.beat(NIC)
    room.pass_time(2.0)
    assert all(room.live_on(number) == [NIC] for number in ON_NIC)
    assert whats(room).count("rebooted") == 1
    assert {line.outcome for line in room.controller.timelines.values()} == {"restarted"}


@pytest.mark.parametrize("new_controller", [False, True])
def test_a_node_that_comes_back_with_nothing_again_and_again_gets_its_instances_every_time(
        new_controller: bool) -> None:
    room = Room()
    room.beat(NIC)
    room.pass_time(0.1)
    for _ in range(3):
        room.boot(NIC)
        if new_controller:
            room.start_controller()
        room.beat(NIC)
        room.pass_time(2.0)
        assert all(room.live_on(number) == [NIC] for number in ON_NIC)
        assert not room.controller.control.open


def test_a_node_that_loses_its_memory_while_its_instances_are_made_afresh_gets_them_all_the_same() -> None:
    room = Room()
    room.beat(NIC)
    room.pass_time(0.1)
    lossy = random.Random(5)
    room.loses = lambda send: lossy.random() < 0.3
    for _ in range(6):
        room.boot(NIC)
        room.beat(NIC)
        room.pass_time(0.05)
    room.loses = lambda send: False
    room.pass_time(5.0)
    assert all(room.live_on(number) == [NIC] for number in ON_NIC)
    assert not room.controller.control.open


def test_a_node_that_restarts_before_it_was_ever_heard_of_gets_its_instances_if_somebody_says_so() -> None:
    room = Room()
    room.boot(NIC)
    room.controller.started_again(NIC)
    room.beat(NIC)
    room.pass_time(2.0)
    assert all(room.live_on(number) == [NIC] for number in ON_NIC)
    with pytest.raises(MigrationError, match="s9n1"):
        room.controller.started_again("s9n1")


def test_a_node_that_restarts_while_the_controller_is_away_is_noticed_by_its_journal() -> None:
    room = Room()
    room.beat(NIC)
    room.pass_time(0.1)
    room.boot(NIC)
    room.start_controller()
    room.beat(NIC)
    room.pass_time(2.0)
    assert all(room.live_on(number) == [NIC] for number in ON_NIC)


def test_if_the_destination_dies_after_a_move_the_source_goes_on_with_what_it_froze() -> None:
    room = Room(automatic=False)
    for node in (NIC, HOST):
        room.beat(node)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    room.pass_time(1.0)
    room.boot(HOST)
    room.beat(HOST)
    room.pass_time(3.0)
    assert room.live_on(ON_NIC[0]) == [NIC]
    assert room.controller.where.node_of[DEPLOYMENT.number, ON_NIC[0]] == NIC


@pytest.mark.parametrize("after_s", [0.0, 0.005, 0.02, 0.05, 0.3])
def test_a_controller_that_restarts_goes_on_from_its_journal_and_ends_with_one_live_instance(after_s: float) -> None:
    dropped = random.Random(3)
    room = Room(automatic=False, loses=lambda send: dropped.random() < 0.3)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    room.pass_time(after_s)
    room.loses = lambda send: False
    room.start_controller()
    room.pass_time(10.0)
    live = room.live_on(ON_NIC[0])
    assert len(live) == 1 and [room.controller.where.node_of[DEPLOYMENT.number, ON_NIC[0]]] == live
    assert not room.controller.control.open
    room.by_hand(NAMES[ON_NIC[0]], "s3h")
    room.pass_time(2.0)
    assert room.live_on(ON_NIC[0]) == ["s3h"]


def test_a_restarted_controller_knows_where_things_went_and_reserves_memory_there() -> None:
    room = Room(automatic=False)
    before = room.controller.orchestrator.table.free_mb.copy()
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    room.pass_time(1.0)
    expected = room.controller.orchestrator.table.free_mb.copy()
    room.start_controller()
    assert room.controller.where.node_of[DEPLOYMENT.number, ON_NIC[0]] == HOST
    assert (room.controller.orchestrator.table.free_mb == expected).all() and (expected != before).any()


def test_a_journal_of_instances_that_no_deployment_has_is_refused() -> None:
    room = Room(automatic=False, journal=MemoryJournal())
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    with pytest.raises(MigrationError, match="no deployment"):
        ResourceController(INVENTORY, (), room.journal)


# -- what else is deployed -------------------------------------------------------------------------------------------

def test_what_is_deployed_later_is_watched_too_and_what_is_under_way_stays_so() -> None:
    room = Room(loses=lambda send: True)
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    free = room.controller.orchestrator.table.free_mb.copy()
    stage = APPLICATION.stages[:1]
    more = APPLICATION.__class__("more", 77, stage, ())
    room.controller.deploy(deploy(more, {i.number: "s3h" for i in more.instances}, INVENTORY), room.now)
    table = room.controller.orchestrator.table
    assert table.state["moving"][table.row_of(DEPLOYMENT.number, ON_NIC[0])]
    assert (table.free_mb <= free).all() and (table.free_mb < free).sum() == 1
    assert whats(room)[-1] == "deployed"


def test_a_deployment_cannot_move_what_runs() -> None:
    room = Room()
    places = {p.number: p.node for p in DEPLOYMENT.places} | {ON_NIC[0]: HOST}
    with pytest.raises(MigrationError, match="by migration only"):
        room.controller.deploy(deploy(APPLICATION, places, INVENTORY), room.now)


# -- what is told ----------------------------------------------------------------------------------------------------

def test_the_timeline_of_a_migration_tells_how_long_each_step_took() -> None:
    room = Room(options=OverloadOptions())
    starve(room)
    room.pass_time(0.5)
    line, = room.controller.timelines.values()
    steps = line.steps_s
    assert list(steps) == list(STEPS) and all(took >= 0 for took in steps.values())
    assert steps["held"] == pytest.approx(steps["stop"] + steps["transfer"] + steps["resume"])
    assert line.state_bytes > 0 and (line.source, line.destination, line.owner) == (NIC, HOST, HOST)
    assert "highest CPU" in line.why


def test_events_are_numbered_in_order_of_time_and_each_is_a_line_of_json() -> None:
    room = Room()
    starve(room)
    room.pass_time(0.5)
    events = list(room.controller.events)
    assert [e.sequence for e in events] == list(range(1, len(events) + 1))
    assert [e.now_s for e in events] == sorted(e.now_s for e in events)
    lines = [json.loads(msgspec.json.encode(event)) for event in events]
    assert [line["what"] for line in lines if line["migration"]] == [
        "begin", "stopping", "moving", "switching", "finishing", "reconnected", "done"]


def test_the_state_shows_what_heartbeats_said_and_what_is_under_way() -> None:
    room = Room(automatic=False)
    room.beat(NIC, ON_NIC[0], us=10, queue=12, network=0.5, cpu=0.25)
    room.pass_time(0.1)
    room.loses = lambda send: True
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    state = room.controller.state(room.now)
    nic = next(node for node in state.nodes if node.name == NIC)
    assert (nic.queue_frames, round(nic.network, 2), round(nic.cpu, 2)) == (12, 0.5, 0.25)
    assert nic.heard_s is not None and 0.05 <= nic.heard_s <= 0.15 and NAMES[ON_NIC[0]] in nic.instances
    assert next(node for node in state.nodes if node.name == HOST).heard_s is None
    moving, = state.under_way
    assert (moving.instance, moving.state, moving.unanswered) == (NAMES[ON_NIC[0]], "pushing", (HOST,))
    assert msgspec.json.decode(msgspec.json.encode(state))["counts"]["heartbeats"] == 1


def test_a_datagram_that_is_sent_is_for_the_control_port_or_a_client() -> None:
    room = Room(automatic=False)
    sent: list[Send] = []
    room.loses = lambda send: bool(sent.append(send))
    room.by_hand(NAMES[ON_NIC[0]], HOST)
    room.pass_time(1.0)
    assert {send.port for send in sent} == {0xE301, CLIENT[1]}
