"""What the agent's forwarding takes: a time per frame, stretched by interference; queues that stand; frames lost."""

from __future__ import annotations

import itertools
import random
import socket
import struct
from pathlib import Path

import pytest

from nodes import frames
from nodes.execution import Execution
from nodes.forwarding import Port
from nodes.frames import packed_ip, packed_mac
from nodes.service_runtime import ServiceRuntime
from nodes.smartnic_runtime import SmartNicRuntime
from nodes.socket_drops import PACKET_STATISTICS, SOL_PACKET, PacketDrops, udp_drops
from nodes.traffic_manager import FrameClock
from nodes.transport import Transport

NIC, HOST, CLIENT, GATEWAY = "10.1.1.11", "10.1.1.1", "10.1.254.1", "10.1.255.254"
MAC, GATEWAY_MAC = "02:e3:01:01:00:01", "02:e3:ff:01:00:01"
FORWARD_S = 0.1


def smartnic(forward_s: float = FORWARD_S, queue_frames: int = 4096) -> SmartNicRuntime:
    services = ServiceRuntime(Execution("s1n1", hol=lambda _: 4.0), Transport(1))
    return SmartNicRuntime(NIC, MAC, GATEWAY, HOST, services, queue_frames, forward_s=forward_s)


def to_host(number: int) -> bytes:
    ethernet = packed_mac(MAC) + packed_mac(GATEWAY_MAC) + frames.ETHERTYPE_IPV4
    return frames.udp_frame(ethernet, packed_ip(CLIENT), packed_ip(HOST), 4000, 9, 1, b"%06d" % number)


def lacpdu(number: int) -> bytes:
    return bytes.fromhex("0180c2000002") + packed_mac(MAC) + frames.ETHERTYPE_SLOW + bytes([1, 1, number]) + bytes(107)


def looked(nic: SmartNicRuntime, now: float, arrivals: int = 0) -> int:
    """Let `arrivals` frames come, look at `now`, and return how many were forwarded."""
    out: list[tuple[int, bytes]] = []
    for number in range(arrivals):
        nic.receive(Port.NETWORK, to_host(number))
    nic.run(128, now, out)
    return len(out)


def test_a_frame_takes_its_time() -> None:
    nic = smartnic()
    looked(nic, 1.0)
    assert looked(nic, 1.0, arrivals=1) == 0  # come and looked at in the same moment
    assert nic.awake and nic.due() == pytest.approx(1.0 + FORWARD_S)
    assert looked(nic, 1.099) == 0
    assert looked(nic, nic.due()) == 1
    assert not nic.awake and nic.due() is None


def test_a_queue_stands_while_more_comes_than_can_be_forwarded() -> None:
    nic = smartnic()
    looked(nic, 0.0)
    assert looked(nic, 0.0, arrivals=100) == 0
    through = [looked(nic, 0.35), looked(nic, 0.35), looked(nic, 1.0), looked(nic, 20.0)]
    assert through == [3, 0, 7, 90]
    assert nic.counters()["queue_deepest"] == 100


def test_a_rest_between_two_looks_takes_no_forwarding_time_away() -> None:
    """Looked at every 0.25 s, 2.5 frames fit between two looks: what is left over counts at the next."""
    nic = smartnic()
    looked(nic, 0.0)
    looked(nic, 0.0, arrivals=40)
    assert sum(looked(nic, 0.25 * look) for look in range(1, 11)) == 25


def test_frames_found_at_one_look_cost_no_more_than_if_each_had_been_seen_when_it_came() -> None:
    nic = smartnic()
    looked(nic, 1.0)
    assert looked(nic, 1.5, arrivals=5) == 5  # the agent was free since the last look: five fit
    assert looked(nic, 2.0, arrivals=8) == 5
    assert looked(nic, 2.3) == 3


def test_time_without_frames_is_not_saved_up() -> None:
    nic = smartnic()
    looked(nic, 1.0)
    looked(nic, 50.0)
    assert looked(nic, 50.2, arrivals=100) == 2


def test_a_budget_that_is_used_up_leaves_the_rest_for_the_next_look_at_no_cost() -> None:
    nic = smartnic(forward_s=0.001)
    looked(nic, 0.0)
    assert looked(nic, 1.0, arrivals=300) == 128
    assert looked(nic, 1.0) == 128
    assert looked(nic, 1.0) == 44


def test_interference_stretches_a_frame_s_time() -> None:
    nic = smartnic()
    looked(nic, 0.0)
    nic.services.execution.interference = 8.0  # two cores of a memory-intensive microservice, of 4 each
    looked(nic, 0.0, arrivals=10)
    assert nic.due() == pytest.approx(9 * FORWARD_S)
    assert looked(nic, 1.0) == 1
    nic.services.execution.interference = 0.0
    assert looked(nic, 1.9) == 9


def test_the_links_own_protocol_overtakes_a_standing_queue_and_keeps_its_order() -> None:
    nic = smartnic()
    looked(nic, 0.0)
    out: list[tuple[int, bytes]] = []
    for number in range(50):
        nic.receive(Port.NETWORK, to_host(number))
    for number in range(3):
        nic.receive(Port.NETWORK, lacpdu(number))
    nic.run(128, 0.0, out)
    assert out == [(Port.HOST, lacpdu(number)) for number in range(3)]
    assert nic.counters()["queue_depth"] == 50


def test_the_links_own_protocol_gets_through_a_full_queue() -> None:
    nic = smartnic(queue_frames=1)
    assert nic.receive(Port.HOST, to_host(1)) and not nic.receive(Port.HOST, to_host(2))
    assert nic.receive(Port.HOST, lacpdu(1))
    assert nic.counters()["queue_dropped"] == 1


def test_frames_that_wait_keep_the_order_in_which_they_came() -> None:
    nic = smartnic()
    looked(nic, 0.0)
    out: list[tuple[int, bytes]] = []
    for number in range(30):
        nic.receive(Port.NETWORK, to_host(number))
    for look in range(40):
        nic.run(128, 0.1 * look, out)
    assert [frame for _, frame in out] == [to_host(number) for number in range(30)]


def test_without_a_forwarding_time_all_goes_at_once() -> None:
    nic = smartnic(forward_s=0.0)
    assert looked(nic, 0.0, arrivals=100) == 100 and not nic.awake


@pytest.mark.parametrize("seed", range(5))
def test_at_random_looks_no_more_is_through_than_one_server_could_and_all_that_it_had_to(seed: int) -> None:
    """Against a server that works frame by frame and is told each arrival as it would be at the look before."""
    draw = random.Random(seed)
    clock = FrameClock(0.01, lambda: 0.0)
    now, looked_at, queued, through, free_at, wanted = 0.0, 0.0, 0, 0, 0.0, []
    for _ in range(400):
        now += draw.expovariate(1 / 0.02)
        arrivals = draw.choice((0, 0, 1, 3, 6))
        for _ in range(arrivals):  # each starts when the server is free and it has come
            free_at = max(free_at, looked_at) + 0.01
            wanted.append(free_at)
        queued += arrivals
        done = clock.through_by(now, queued, queued)
        queued -= done
        through += done
        assert through == sum(at <= now + 1e-8 for at in wanted)
        looked_at = now


# -- what the kernel lost ----------------------------------------------------------------------------------------

class Wire:
    """A socket that has lost so many frames since it was last asked, as AF_PACKET counts."""

    def __init__(self, *lost: int) -> None:
        self._lost = itertools.chain(lost, itertools.repeat(0))

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option, size) == (SOL_PACKET, PACKET_STATISTICS, 8)
        return struct.pack("=II", 1000, next(self._lost))


def test_frames_that_packet_sockets_lost_add_up_although_the_kernel_forgets_them() -> None:
    drops = PacketDrops((Wire(3, 0, 2), Wire(0, 4)))
    assert [drops() for _ in range(4)] == [3, 7, 9, 9]


def test_datagrams_that_udp_sockets_lost_are_the_last_column_of_the_kernel_s_table(tmp_path: Path) -> None:
    table = tmp_path / "udp"
    table.write_text(
        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer"
        " drops             \n"
        "  101: 0B01010A:E300 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5001 2 0000 17\n"
        "  102: 0B01010A:E301 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5002 2 0000 0\n"
        "  103: 0B01010A:0007 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5003 2 0000 5\n")
    assert udp_drops(table) == 22


def test_a_full_receive_buffer_is_noticed() -> None:
    before = udp_drops()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as slow, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as fast:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.bind(("127.0.0.1", 0))
        for _ in range(100):
            fast.sendto(bytes(500), slow.getsockname())
        assert udp_drops() - before >= 50
