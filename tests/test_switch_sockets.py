"""A process's packet sockets are found, and what the switch says of frames that did not fit is counted."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nodes.switch_sockets import not_sent, packet_sockets, widen

SAID = """\
2026-11-25T18:26:27Z|00076|netdev_linux|WARN|error sending Ethernet packet on tor1-c1: Resource temporarily unavailable
2026-11-25T18:26:27Z|00077|netdev_linux|WARN|error sending Ethernet packet on tor1-s1h1: No buffer space available
2026-11-25T18:26:28Z|00078|netdev_linux|WARN|error sending Ethernet packet on tor1-s1h1: Network is down
2026-11-25T18:26:29Z|00079|rconn|WARN|tor1<->tcp:127.0.0.1:6653: connection failed (Connection refused)
"""


def test_frames_that_did_not_fit_count_and_those_for_a_port_that_is_down_do_not(tmp_path: Path) -> None:
    log = tmp_path / "ovs-vswitchd.log"
    assert not_sent(log) == 0
    log.write_text(SAID)
    assert not_sent(log) == 2


def test_only_descriptors_that_are_packet_sockets_are_found(tmp_path: Path) -> None:
    process = tmp_path / "7"
    (process / "net").mkdir(parents=True)
    (process / "net" / "packet").write_text(
        "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
        "0000000000000000 3      3    0003   2     1 0      0      4711\n"
        "0000000000000000 3      3    0000   0     1 0      0      4712\n")
    (process / "fd").mkdir()
    for number, target in enumerate(("/dev/null", "socket:[4712]", "socket:[1]", "pipe:[4711]", "socket:[4711]")):
        os.symlink(target, process / "fd" / str(number))
    assert packet_sockets(7, tmp_path) == [1, 4]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: use sudo")
def test_a_packet_socket_gets_room_from_outside_and_no_other_socket_does() -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one, socket.socket() as other:
        before = other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        assert one.fileno() in packet_sockets(os.getpid())
        assert widen(os.getpid()) >= 1
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            assert one.getsockopt(socket.SOL_SOCKET, option) >= 256 << 20
        assert other.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == before


def test_a_process_that_is_gone_is_a_warning_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    assert widen(2**22 + 1) == 0
    assert "the switch's sockets keep the room that they have" in caplog.text
