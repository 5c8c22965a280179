"""What moves where when a detector sees something, and no flapping."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overload_room import FAST, Rack, placed, room

from controller.errors import HeartbeatError
from controller.heartbeats import Gate
from controller.load_table import NOWHERE, LoadTable, PlacedInstance
from controller.orchestrator import Orchestrator
from controller.overload import OverloadOptions
from nodes.control_messages import HEARTBEAT_S, NO_INSTANCE, Heartbeat, float_code
from nodes.messages import decode

# -- host starvation -------------------------------------------------------------------------------------------------

def test_a_standing_queue_beside_an_idle_network_moves_the_hottest_microservice_to_the_host() -> None:
    rack = Rack(placed(1, 1, 1)).reported(1, 0.2, 0.5, 0.1)
    rack.starve(1, 10)
    assert [(m.application, m.number, m.node, m.to) for m in rack.moves] == [(1, 1, 1, 0)]
    assert "host starvation" in rack.moves[0].cause and "highest CPU" in rack.moves[0].why


def test_a_queue_beside_a_busy_network_is_congestion_and_moves_nothing() -> None:
    rack = Rack(placed(1)).reported(1, 0.5)
    rack.starve(1, 40, network=0.9)
    assert not rack.moves


def test_a_queue_that_empties_now_and_then_is_no_standing_queue() -> None:
    rack = Rack(placed(1)).reported(1, 0.5)
    for _ in range(20):
        rack.starve(1, 3, queue=4000)
        rack.starve(1, 1, queue=0)
    assert not rack.moves


def test_lost_heartbeats_do_not_hide_a_standing_queue() -> None:
    rack = Rack(placed(1)).reported(1, 0.5)
    for _ in range(8):
        rack.slot += 2
        rack.starve(1, 1)
    assert len(rack.moves) == 1


def test_a_host_is_never_relieved() -> None:
    rack = Rack(placed(0))
    rack.starve(0, 40, queue=4000)
    assert not rack.moves


# -- microservice overload -------------------------------------------------------------------------------------------

def executions(rack: Rack, node: int, instance: int, times_us: Iterator[float] | list[float]) -> None:
    for us in times_us:
        rack.slot += 1
        rack.beat(node, instance, us=us, cpu=0.3)


def test_an_execution_time_a_quarter_above_its_average_is_overload_and_one_of_a_tenth_is_not() -> None:
    for factor, moves in ((1.4, 1), (1.1, 0), (0.5, 0)):
        rack = Rack(placed(1))
        executions(rack, 1, 0, [100.0] * 30 + [100.0 * factor] * 5)
        assert len(rack.moves) == moves
    assert rack.orchestrator.counters.alarms == 0


def test_a_single_slow_report_is_no_overload() -> None:
    rack = Rack(placed(1))
    executions(rack, 1, 0, ([100.0] * 10 + [500.0]) * 10)
    assert not rack.moves


def test_the_hottest_moves_whichever_grew_slow() -> None:
    rack = Rack(placed(1, 1)).reported(1, 0.1, 0.9)
    executions(rack, 1, 0, [100.0] * 30 + [150.0] * 5)
    assert [(m.number, m.cause) for m in rack.moves] == [(1, "microservice overload")]


# -- no flapping -----------------------------------------------------------------------------------------------------

def moves_of_a_queue_at_the_threshold(seed: int, options: OverloadOptions = FAST) -> int:
    draw = random.Random(seed)
    rack = Rack(placed(1, 1, 1, 1), options).reported(1, 0.2, 0.2, 0.2, 0.2)
    for _ in range(1000):
        rack.starve(1, 1, queue=FAST.queue_frames + draw.randint(-6, 6), network=FAST.network_share - 0.02)
        rack.carry_out()
    return len(rack.moves)


def moves_of_execution_times_at_the_threshold(seed: int, options: OverloadOptions = FAST) -> int:
    draw = random.Random(seed)
    rack = Rack(placed(1, 1, 1, 1), options).reported(1, 0.1, 0.5, 0.4, 0.3)
    average = 100.0
    for _ in range(1000):  # always a fifth above whatever the average has become, give or take a little
        us = average * (1 + FAST.excess + draw.uniform(-0.02, 0.02)) % 1e6
        average += FAST.average_weight * (us - average)
        executions(rack, 1, 0, [us])
        rack.carry_out()
    return len(rack.moves)


@pytest.mark.parametrize("moves", [moves_of_a_queue_at_the_threshold, moves_of_execution_times_at_the_threshold])
def test_a_load_at_the_threshold_for_a_thousand_heartbeats_moves_one_microservice_at_most(
        moves: Callable[..., int]) -> None:
    found = [moves(seed) for seed in range(25)]
    assert set(found) <= {0, 1} and 1 in found


def test_without_the_hold_down_such_a_load_would_move_one_after_the_other() -> None:
    assert moves_of_a_queue_at_the_threshold(1, OverloadOptions(hold_down_s=1.0)) > 2


def test_far_beyond_the_threshold_as_many_move_as_it_takes_but_not_at_once() -> None:
    rack = Rack(placed(1, 1, 1)).reported(1, 0.9, 0.5, 0.4)
    for _ in range(100):
        rack.starve(1, 1, queue=4000)
        rack.carry_out()
    assert [m.number for m in rack.moves][:3] == [0, 1, 2]
    assert all(b.slot - a.slot >= 20 for a, b in zip(rack.moves, rack.moves[1:], strict=False))


def test_nothing_more_leaves_a_smartnic_while_a_migration_from_it_is_under_way() -> None:
    rack = Rack(placed(1, 1)).reported(1, 0.9, 0.5)
    rack.starve(1, 200, queue=4000)
    assert len(rack.moves) == 1
    rack.orchestrator.stayed(1, 0)
    rack.starve(1, 40, queue=4000)
    assert len(rack.moves) == 2 and rack.moves[1].number == 0


# -- where to --------------------------------------------------------------------------------------------------------

def test_where_the_host_is_full_another_host_of_the_rack_takes_it_and_the_decision_says_so() -> None:
    rack = Rack([*placed(1), PlacedInstance(2, 0, 0, 950.0)]).reported(1, 0.5)
    rack.starve(1, 10)
    assert [m.to for m in rack.moves] == [3] and "host is full" in rack.moves[0].why


def test_a_host_whose_cores_are_busy_is_full() -> None:
    rack = Rack([*placed(1), PlacedInstance(2, 0, 0, 10.0)]).reported(1, 0.5)
    rack.beat(0, 0, application=2, us=10, cpu=0.95)
    rack.starve(1, 10)
    assert [m.to for m in rack.moves] == [3]


def test_where_no_host_has_room_a_smartnic_takes_it() -> None:
    rack = Rack([*placed(1), PlacedInstance(2, 0, 0, 950.0), PlacedInstance(2, 1, 3, 950.0)]).reported(1, 0.5)
    rack.starve(1, 10)
    assert [m.to for m in rack.moves] == [2] and "another SmartNIC" in rack.moves[0].why


def test_where_the_hottest_fits_nowhere_the_next_one_moves() -> None:
    rack = Rack([PlacedInstance(1, 0, 1, 900.0), PlacedInstance(1, 1, 1, 50.0),
                 *(PlacedInstance(2, i, n, 900.0) for i, n in enumerate((0, 2, 3, 4, 5)))]).reported(1, 0.8, 0.1)
    rack.starve(1, 10)
    assert [(m.number, m.to) for m in rack.moves] == [(1, 0)] and "share number 2" in rack.moves[0].why


def test_where_nothing_has_room_it_stays_and_that_is_said_once() -> None:
    others = [PlacedInstance(2, i, n, 990.0) for i, n in enumerate((0, 2, 3, 4, 5))]
    rack = Rack([PlacedInstance(1, 0, 1, 50.0), *others])
    rack.reported(1, 0.8).starve(1, 200)
    assert [(m.to, m.why) for m in rack.moves] == [(NOWHERE, "no node of the rack has room")]


def test_what_is_pinned_does_not_move() -> None:
    rack = Rack([*placed(1, movable=False), PlacedInstance(1, 1, 1, 10.0)]).reported(1, 0.9, 0.1)
    rack.starve(1, 10)
    assert [m.number for m in rack.moves] == [1]


def test_room_is_set_aside_for_what_is_on_its_way() -> None:
    rack = Rack([PlacedInstance(1, 0, 1, 600.0), PlacedInstance(1, 1, 2, 600.0)])
    rack.reported(1, 0.5)
    rack.beat(2, 1, us=10, cpu=0.5)
    for _ in range(10):
        rack.slot += 1
        rack.beat(1, queue=100)
        rack.beat(2, queue=100)
    assert [(m.number, m.to) for m in rack.moves] == [(0, 0), (1, 3)]


def test_an_instance_that_has_arrived_is_believed_from_its_new_node_only() -> None:
    rack = Rack(placed(1, 1)).reported(1, 0.9, 0.1)
    rack.starve(1, 10)
    rack.orchestrator.arrived(1, 0, 0)
    table = rack.orchestrator.table
    assert list(table.on_node(0)) == [0] and list(table.on_node(1)) == [1]
    assert table.free_mb[0] == 900.0 and table.free_mb[1] == 900.0
    rack.slot += 1
    rack.beat(1, 0, us=10, cpu=0.9)
    assert rack.orchestrator.counters.foreign_instance == 1
    rack.beat(0, 0, us=10, cpu=0.4)
    assert rack.orchestrator.counters.foreign_instance == 1 and table.node_cpu[0] == 102


# -- who is believed -------------------------------------------------------------------------------------------------

def admitted(gate: Gate, node: int, slot: int, now_slot: int) -> int:
    data = Heartbeat(slot % 65536, 0, 0, 0, 0, 0, 0, 0).encode()
    parts = gate.admit(np.array([10 << 24 | node + 1], dtype=np.uint32), data, now_slot * HEARTBEAT_S)
    return sum(len(part.node) for part, _ in parts)


def test_each_heartbeat_is_believed_once_and_an_old_or_early_one_never() -> None:
    gate = Gate(room().ips)
    assert admitted(gate, 1, 100, 100) == 1
    assert admitted(gate, 1, 100, 100) == 0 and gate.refused.repeated == 1
    assert admitted(gate, 1, 99, 101) == 0 and gate.refused.repeated == 2
    assert admitted(gate, 1, 102, 101) == 1  # our clock may be a little behind
    assert admitted(gate, 2, 79, 100) == 0 and gate.refused.late == 1
    assert admitted(gate, 2, 102, 100) == 0 and gate.refused.ahead == 1
    assert admitted(gate, 2, 65536 + 3, 65536 + 4) == 1  # slot numbers go round


def test_a_source_that_is_no_node_is_not_believed() -> None:
    gate = Gate(room().ips)
    data = Heartbeat(1, 0, 0, 0, 0, 0, 0, 0).encode()
    for ip in (10 << 24 | 200, 11 << 24 | 1, 0):
        assert not sum(len(part.node) for part, _ in gate.admit(np.array([ip], dtype=np.uint32), data, HEARTBEAT_S))
    assert gate.refused.unknown_source == 3


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=20), st.integers(0, 10**6))
def test_random_bytes_do_no_harm(rows: list[bytes], now_slot: int) -> None:
    orchestrator = Orchestrator(room(), placed(1))
    sources = np.array([10 << 24 | i % 12 + 1 for i in range(len(rows))], dtype=np.uint32)
    assert not orchestrator.take(sources, b"".join(rows), now_slot * HEARTBEAT_S)


def test_data_and_sources_must_belong_together() -> None:
    with pytest.raises(HeartbeatError, match="17 bytes for 1"):
        list(Gate(room().ips).admit(np.array([1], dtype=np.uint32), bytes(17), 0.0))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.builds(
    Heartbeat, st.integers(0, 3), st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535),
    st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))), max_size=40))
def test_the_fast_decoder_agrees_with_the_plain_one(rows: list[tuple[int, Heartbeat]]) -> None:
    gate = Gate(room().ips)
    sources = np.array([10 << 24 | node + 1 for node, _ in rows], dtype=np.uint32)
    data = b"".join(heartbeat.encode() for _, heartbeat in rows)
    found = []
    for part, _ in gate.admit(sources, data, 2 * HEARTBEAT_S):
        found += zip(*(column.tolist() for column in (
            part.node, part.slot, part.application, part.instance, part.execution_ns, part.queue_frames, part.network,
            part.cpu)), strict=True)
    wanted = []
    for node, heartbeat in rows:
        plain = decode(heartbeat.encode())
        assert isinstance(plain, Heartbeat)
        wanted.append((node, plain.slot, plain.application, plain.instance, plain.execution_ns, plain.queue_frames,
                       max(plain.transmitted, plain.received), plain.cpu))
    for node in range(12):
        newest = -1
        believed = [row for row in wanted if row[0] == node and row[1] > newest and (newest := row[1]) >= 0]
        assert [row for row in found if row[0] == node] == believed


def test_a_node_that_reports_twice_in_one_batch_is_taken_in_order() -> None:
    rack = Rack(placed(1)).reported(1, 0.5)
    beats = [Heartbeat(rack.slot + i, 1, NO_INSTANCE, 0, float_code(100, 4, 8), 0, 0, 0).encode() for i in range(1, 9)]
    moves = rack.orchestrator.take(np.full(8, 10 << 24 | 2, dtype=np.uint32), b"".join(beats),
                                   (rack.slot + 8) * HEARTBEAT_S)
    assert len(moves) == 1 and rack.orchestrator.counters.heartbeats == 9


def test_a_node_that_rebooted_is_noticed() -> None:
    rack = Rack(placed(1))
    for boot in (7, 7, 70_000):
        rack.slot += 1
        data = Heartbeat(rack.slot, boot & 0xFFFF, NO_INSTANCE, boot >> 16, 0, 0, 0, 0).encode()
        rack.orchestrator.take(np.array([10 << 24 | 2], dtype=np.uint32), data, rack.slot * HEARTBEAT_S)
    assert rack.orchestrator.reboots == [(1, 70_000)]


# -- tables ----------------------------------------------------------------------------------------------------------

def test_an_instance_is_found_by_application_and_number_also_where_numbers_have_gaps() -> None:
    table = LoadTable(room(), [PlacedInstance(*key, 1, 1.0) for key in ((3, 7), (1, 0), (1, 2))])
    assert [table.name_of(table.row_of(*key)) for key in ((3, 7), (1, 0), (1, 2))] == [(3, 7), (1, 0), (1, 2)]
    for key in ((1, 1), (1, 3), (2, 0), (3, 8), (65535, 65535), (0, 0)):
        with pytest.raises(HeartbeatError, match=f"{key[0]}/{key[1]}"):
            table.row_of(*key)


def test_an_instance_cannot_be_placed_twice_or_nowhere() -> None:
    with pytest.raises(HeartbeatError, match="twice"):
        LoadTable(room(), [PlacedInstance(1, 0, 1, 1.0), PlacedInstance(1, 0, 2, 1.0)])
    with pytest.raises(HeartbeatError, match="12"):
        LoadTable(room(), [PlacedInstance(1, 0, 12, 1.0)])


@pytest.mark.parametrize("change", [{"excess": 0}, {"average_weight": 0}, {"queue_frames": 1}, {"reports": 0}])
def test_options_that_make_no_sense_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(HeartbeatError):
        OverloadOptions(**change)  # type: ignore[arg-type]
