"""A dead node that ran something alone is asked for till somebody has cut it off; nobody else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from replicated_rack import ReplicatedRack, counter_chain, lone_store

from controller.fencing import ASK_AGAIN_S, Fencing, to_fence
from controller.membership import Membership
from experiments.emulation.node_setup import pid_file
from experiments.emulation.power_switch import cut_off
from experiments.emulation.testbed import TestbedOptions
from experiments.errors import ExperimentError
from nodes.control_messages import HEARTBEAT_S
from nodes.nursery import process_name
from nodes.simulated import NetworkFaults

CLEAN = NetworkFaults(delay_s=5e-5)


def heard(membership: Membership, last: np.ndarray, slots: range, *nodes: int) -> None:
    """Let `nodes` be heard in each of `slots`, and the others be silent."""
    for slot in slots:
        last[list(nodes)] = slot
        membership.tick(slot * HEARTBEAT_S)


def test_who_is_silent_for_the_timeout_and_holds_something_is_asked_for_again_and_again() -> None:
    last = np.full(3, -1, dtype=np.int32)
    membership = Membership(("a", "b", "c"), last)
    fencing = Fencing(membership)
    heard(membership, last, range(30), 0, 1, 2)
    assert fencing.due(1.5, ["a", "b"]) == []
    heard(membership, last, range(30, 45), 1, 2)
    assert fencing.due(2.2, ["a", "b"]) == ["a"]
    assert fencing.due(2.2 + ASK_AGAIN_S / 2, ["a", "b"]) == []
    assert fencing.due(2.2 + ASK_AGAIN_S, ["a", "b"]) == ["a"]
    assert fencing.due(9.9, ["b"]) == []


def test_a_controller_that_has_just_begun_asks_for_nobody_but_for_whom_it_never_hears() -> None:
    last = np.full(3, -1, dtype=np.int32)
    membership = Membership(("a", "b", "c"), last)
    fencing = Fencing(membership)
    assert fencing.due(0.0, ["a", "b", "c"]) == []
    heard(membership, last, range(10), 1, 2)
    assert fencing.due(0.5, ["a", "b", "c"]) == []
    heard(membership, last, range(10, 30), 1, 2)
    assert fencing.due(1.5, ["a", "b", "c"]) == ["a"]


def test_only_what_nobody_else_can_serve_has_its_node_cut_off_and_then_begins_anew(tmp_path: Path) -> None:
    rack = ReplicatedRack(counter_chain(tmp_path, backups=(1, 1, 0)), {0: "s1n1", 1: "s2n1", 2: "s3n1"}, CLEAN)
    controller, out = rack.control.controller, []
    fencing = Fencing(controller.failover.membership)
    rack.kill("s3n1", down_s=60.0)
    rack.run(0.3)
    assert to_fence(controller, fencing, rack.now) == []
    rack.run(0.4)
    assert to_fence(controller, fencing, rack.now) == ["s3n1"]
    assert controller.declared_dead("s3n1", rack.now, out) == []
    rack.simulation.network.after(rack.control, out)
    rack.run(ASK_AGAIN_S)
    assert to_fence(controller, fencing, rack.now) == []
    rack.until(lambda: not controller.control.open)
    rack.run(ASK_AGAIN_S)
    assert to_fence(controller, fencing, rack.now) == [] and controller.where.node_of[300, 2] != "s3n1"
    assert [event.node for event in controller.events if event.what == "fence"] == ["s3n1"]


def test_who_holds_replicas_alone_is_never_asked_for() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    rack.kill_server("s1n1", down_s=60.0)
    controller = rack.control.controller
    fencing = Fencing(controller.failover.membership)
    rack.run(1.0)
    assert to_fence(controller, fencing, rack.now) == []


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is called as the agent of s1n1 is."""
    name = process_name("s1n1")
    process = subprocess.Popen([sys.executable, "-c", f"import ctypes, time; ctypes.CDLL(None).prctl(15, {name!r}"
                                ".encode(), 0, 0, 0); time.sleep(60)"])
    (tmp_path / pid_file("s1n1")).write_bytes(b"%d" % process.pid)
    yield process
    process.kill()
    process.wait(5)


def named(pid: int, name: str) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() == name


def test_the_power_switch_ends_the_agent_of_the_node_and_knows_when_none_runs(
        tmp_path: Path, agent: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 5.0
    while not named(agent.pid, process_name("s1n1")):
        assert time.monotonic() < until
    assert cut_off(tmp_path, "s1n1") and agent.wait(5) == -9
    assert cut_off(tmp_path, "s1n1")  # again: it is off
    assert not cut_off(tmp_path, "s9n9")  # nobody knows of it


def test_the_power_switch_leaves_a_process_alone_that_only_has_the_number(tmp_path: Path) -> None:
    (tmp_path / pid_file("s1n1")).write_bytes(b"%d" % os.getpid())
    assert cut_off(tmp_path, "s1n1")  # and we are still here


def test_without_an_orchestrator_nothing_can_be_fenced() -> None:
    with pytest.raises(ExperimentError, match="orchestrator off"):
        TestbedOptions(fencing=True)
