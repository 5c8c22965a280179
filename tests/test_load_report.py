"""Counters become heartbeats: shares of what there is, the least queue, and a turn for every instance."""

from __future__ import annotations

import pytest

from nodes.control_messages import HEARTBEAT_S, NO_INSTANCE, Heartbeat
from nodes.errors import NodeError
from nodes.load_report import InstanceLoad, LoadReporter, NodeLoad

BOOT = 0x00ABCDEF


class Node:
    """A node whose instances finish requests between heartbeats."""

    def __init__(self, cores: int = 2) -> None:
        self.reporter = LoadReporter(cores, port_gbps=10.0, boot=BOOT, now_s=0.0)
        self.beats = 0
        self.instances: dict[tuple[int, int], InstanceLoad] = {}
        self.bytes = 0

    def work(self, key: tuple[int, int], finished: int, executed_ns: int, busy_ns: int) -> None:
        old = self.instances.get(key, InstanceLoad(0, 0, 0))
        self.instances[key] = InstanceLoad(old.finished + finished, old.executed_ns + executed_ns,
                                           old.busy_ns + busy_ns)

    def beat(self, queue: int = 0, came: int = 0) -> Heartbeat:
        self.beats += 1
        self.bytes += came
        return self.reporter.heartbeat(NodeLoad(queue, 0, self.bytes, dict(self.instances)), self.beats * HEARTBEAT_S)

    def after_boot(self) -> Node:
        for _ in range(3):
            assert self.beat().boot == BOOT
        return self


def test_the_first_heartbeats_tell_the_boot_number_and_then_one_a_second() -> None:
    node = Node().after_boot()
    told = []
    for beat in range(3, 60):
        node.work((1, 1), 1, 10, 10)
        told.append((beat, node.beat().boot))
    assert [beat for beat, boot in told if boot is not None] == [20, 40]


def test_a_node_without_work_tells_its_boot_number_only() -> None:
    node = Node()
    assert {node.beat().boot for _ in range(30)} == {BOOT}


def test_busy_instances_take_turns_and_none_is_left_out() -> None:
    node = Node().after_boot()
    keys = [(1, 5), (1, 2), (2, 0)]
    order = []
    for _ in range(12):
        for key in keys:
            node.work(key, 1, 10, 10)
        heartbeat = node.beat()
        order.append((heartbeat.application, heartbeat.instance))
    assert order == [(1, 2), (1, 5), (2, 0)] * 4


def test_a_turn_covers_all_that_happened_since_the_last_one() -> None:
    node = Node(cores=2).after_boot()
    node.work((1, 1), 1, 5_000, 0)
    node.work((1, 2), 1, 0, 0)
    node.beat()  # (1, 1)
    node.work((1, 1), 3, 30_000, 20_000_000)
    node.work((1, 2), 1, 0, 0)
    assert node.beat().instance == 2
    node.work((1, 1), 1, 50_000, 20_000_000)
    heartbeat = node.beat()
    assert heartbeat.instance == 1
    assert heartbeat.execution_ns == pytest.approx(20_000, rel=0.001)  # 80 us of four requests
    assert heartbeat.cpu == round(255 * 40e-3 / (2 * 0.1))  # 40 ms of core time in 100 ms on two cores


def test_an_instance_that_falls_idle_gets_one_more_turn_and_is_then_passed_over() -> None:
    node = Node().after_boot()
    node.work((1, 1), 1, 10, 50_000_000)
    assert node.beat().cpu > 0
    last = node.beat()
    assert (last.instance, last.cpu, last.execution) == (1, 0, 0)
    assert node.beat().instance == NO_INSTANCE


def test_an_instance_that_leaves_and_comes_back_counts_anew() -> None:
    node = Node().after_boot()
    node.work((1, 1), 100, 1_000_000, 1_000)
    node.beat()
    del node.instances[1, 1]
    node.beat()
    node.work((1, 1), 2, 4_000, 10)
    assert node.beat().execution_ns == 2_000


def test_utilisation_is_of_the_ports_rate_and_the_queue_is_the_least() -> None:
    node = Node().after_boot()
    heartbeat = node.beat(queue=100, came=int(10e9 / 8 * HEARTBEAT_S / 2))
    assert heartbeat.received == 128 and heartbeat.transmitted == 0 and heartbeat.queue_frames == 100
    assert node.beat().received == 0


def test_slots_follow_emulated_time() -> None:
    node = Node()
    assert [node.beat().slot for _ in range(40)] == list(range(1, 41))


def test_time_that_stands_still_is_refused() -> None:
    node = Node()
    node.beat()
    with pytest.raises(NodeError, match="above 0"):
        node.reporter.heartbeat(NodeLoad(0, 0, 0, {}), HEARTBEAT_S)
