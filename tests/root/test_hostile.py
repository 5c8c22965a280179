"""What must not get through a running rack: spoofed sources, control ports from clients, hostile frames."""

import random
import socket
import time
from collections.abc import Iterator

import pytest

from experiments.emulation.control_plane import inside
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from nodes import frames, messages
from nodes.emulated_node import run_in
from nodes.errors import NodeError
from nodes.frames import packed_ip, packed_mac
from nodes.nursery import Order
from topologies.addressing import CONTROL_PORT, DATA_PORT


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions("type1x2", label="hostile")) as started:
        yield started


@pytest.fixture
def wire(bed: Testbed) -> Iterator[socket.socket]:
    """A raw socket on the client's one interface."""
    with inside(bed.net["c1"].pid):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        raw.bind(("c1-net", 0))
    with raw:
        yield raw


def udp(bed: Testbed, source: str, destination: str, port: int, payload: bytes) -> bytes:
    a, b = packed_ip(source), packed_ip(destination)
    ethernet = packed_mac(bed.inventory.switch("tor1").mac) + packed_mac(bed.inventory.node("c1").mac) \
        + frames.ETHERTYPE_IPV4
    return frames.udp_frame(ethernet, a, b, 4000, port, 1, payload)


def dropped(bed: Testbed, words: str, at_least: int) -> int:
    """Wait for the switch's counters, which come up to a second late; return those of drops named with `words`."""
    deadline = time.monotonic() + 5
    while True:
        counted = sum(c.packets for c in bed.rule_counters("tor1").values() if c.drops and words in c.name)
        if counted >= at_least or time.monotonic() > deadline:
            return counted
        time.sleep(0.1)


def test_a_spoofed_source_is_dropped_and_counted(bed: Testbed, wire: socket.socket) -> None:
    victim, target = bed.inventory.node("s2h"), bed.inventory.node("s1n1")
    before = bed.counters("s1n1")["s1n1"]["to_local"]
    for _ in range(20):
        wire.send(udp(bed, victim.ip, target.ip, 7, b"not from s2h"))
    assert dropped(bed, "tor1-c1", 20) >= 20
    assert bed.counters("s1n1")["s1n1"]["to_local"] - before <= 2  # the questions for counters themselves


def test_a_control_port_cannot_be_reached_from_a_client(bed: Testbed, wire: socket.socket) -> None:
    client = bed.inventory.node("c1")
    query = messages.StatsMessage(messages.KIND_STATS_QUERY, 1).encode()
    before = dropped(bed, "control port", 0)
    for name in ("s1n1", "s2h"):
        wire.send(udp(bed, client.ip, bed.inventory.node(name).ip, CONTROL_PORT, query))
    assert dropped(bed, "control port", before + 2) == before + 2


def test_ten_thousand_hostile_frames_leave_both_agents_answering(bed: Testbed, wire: socket.socket) -> None:
    client, draw = bed.inventory.node("c1"), random.Random(7)
    request = messages.DataMessage(messages.KIND_REQUEST, 1, 3, 77, packed_ip(client.ip), 4000, 0, b"p" * 64).encode()
    for _ in range(10_000):
        target = bed.inventory.node(draw.choice(("s1n1", "s1h", "s2n1", "s2h")))
        payload = bytearray(request if draw.random() < 0.8 else draw.randbytes(draw.randrange(600)))
        for _ in range(draw.randrange(5)):
            if payload:
                payload[draw.randrange(len(payload))] = draw.randrange(256)
        frame = bytearray(udp(bed, client.ip, target.ip, draw.choice((DATA_PORT, 7, draw.randrange(65536))),
                              bytes(payload[:draw.randrange(len(payload) + 1)])))
        if draw.random() < 0.2:
            frame[draw.randrange(14, len(frame))] ^= 1 << draw.randrange(8)
        wire.send(bytes(frame))
    answered = bed.counters()
    assert set(answered) == {"s1h", "s1n1", "s2h", "s2n1"}
    assert sum(c["dropped_undecodable"] for c in answered.values()) > 0
    assert all(bed.nursery.status(bed.agents[name]) is None for name in answered)


def test_a_name_that_is_nowhere_is_refused(bed: Testbed) -> None:
    with pytest.raises(ExperimentError, match="s9n9"):
        bed.fail("link", "s9n9")
    with pytest.raises(ExperimentError, match="no SmartNIC 's1h'"):
        bed.fail("smartnic", "s1h")
    with pytest.raises(ExperimentError, match="tor9-c1"):
        bed.capture(bed.world.run_dir / "captures", ["tor9-c1"])
    with pytest.raises(NodeError, match="evil"):
        bed.world.cgroup("../evil", None)


def test_a_child_that_leaves_with_words_has_failed_and_its_log_has_them(bed: Testbed) -> None:
    log = bed.world.run_dir / "leaver.log"
    child = bed.nursery.start(Order("leaver", "sys:exit", b"enough of it", bed.net["c1"].pid, str(log)))
    assert bed.nursery.status(child, 10.0) == 1 and "enough of it" in log.read_text()


def test_a_command_in_a_node_that_fails_or_does_not_end_is_named(bed: Testbed) -> None:
    assert run_in(bed.net["c1"], ["cat"], "as it was") == "as it was"
    with pytest.raises(NodeError, match=r"c1: ls /nowhere: .*No such file"):
        run_in(bed.net["c1"], ["ls", "/nowhere"])
    with pytest.raises(NodeError, match=r"world: sleep 60 has not ended after 0\.1 s"):
        run_in(None, ["sleep", "60"], timeout_s=0.1)
