"""What an interface loses on purpose, run by the kernel's own BPF on frames between two sockets."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest

from nodes.errors import NodeError
from nodes.frame_filter import LOSE, MOST_ON_A_SIDE, PASS, RETURN, Program, filter_lines, filter_program

SO_ATTACH_FILTER = 26
SIDE = ("10.1.1.1", "10.1.1.11", "10.1.1.12")
OTHERS = ("10.1.2.1", "10.1.254.1")


def frame(source: str, destination: str, ethertype: int = 0x0800) -> bytes:
    return (bytes(12) + struct.pack(">H", ethertype) + bytes(12) + IPv4Address(source).packed
            + IPv4Address(destination).packed + bytes(26))


def passed(program: Program, frames: Sequence[bytes]) -> int:
    """Return how many of `frames` the kernel lets through: what `tc` would take for lost is here cut to 4 bytes."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    code = b"".join(struct.pack("HBBI", *one) for one in program)
    buffer = ctypes.create_string_buffer(code)
    ends[1].setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER,
                       struct.pack("HP", len(program), ctypes.addressof(buffer)))
    count = 0
    for one in frames:
        ends[0].send(one)
        count += len(ends[1].recv(2048)) == len(one)
    for end in ends:
        end.close()
    return count


def test_what_crosses_the_split_is_lost_and_all_else_passes() -> None:
    program = filter_program(side=SIDE)
    for source in (*SIDE, *OTHERS):
        for destination in (*SIDE, *OTHERS):
            same = (source in SIDE) == (destination in SIDE)
            assert passed(program, [frame(source, destination)]) == same, (source, destination)
    assert passed(program, [frame(SIDE[0], OTHERS[0], ethertype) for ethertype in (0x0806, 0x8809)]) == 2


def test_the_largest_side_is_told_apart_at_both_its_ends() -> None:
    side = [str(IPv4Address("10.1.1.1") + i) for i in range(MOST_ON_A_SIDE)]
    program = filter_program(side=side)
    for ip in (side[0], side[-1]):
        assert passed(program, [frame(ip, "10.9.9.9"), frame("10.9.9.9", ip)]) == 0
        assert passed(program, [frame(ip, side[1]), frame(side[1], ip)]) == 2


@pytest.mark.parametrize("loss", [0.02, 0.3, 0.9])
def test_the_share_that_is_lost_is_the_one_that_was_asked_for(loss: float) -> None:
    frames = [frame("10.1.1.1", "10.1.2.1")] * 20_000
    assert passed(filter_program(loss), frames) / len(frames) == pytest.approx(1 - loss, abs=0.02)


def test_a_lossy_split_loses_all_that_crosses_and_a_share_of_the_rest() -> None:
    program = filter_program(0.5, SIDE)
    assert passed(program, [frame(SIDE[0], OTHERS[0])] * 500) == 0
    assert 150 < passed(program, [frame(SIDE[0], SIDE[1])] * 500) < 350


def test_nothing_to_lose_is_no_program_and_takes_the_filter_away() -> None:
    assert filter_program() == ()
    assert filter_lines("s1n1-net", ()) == ["qdisc del dev s1n1-net clsact"]
    assert filter_program(1.0) == ((RETURN, 0, 0, LOSE),)


def test_a_program_is_text_for_tc() -> None:
    _, line = filter_lines("tor1-s1n1", filter_program(0.5))
    assert line.endswith(f'bytecode "4,32 0 0 4294963256,53 1 0 2147483648,6 0 0 {LOSE},6 0 0 {PASS}"')


@pytest.mark.parametrize(("loss", "side", "words"), [(1.5, (), "1.5; the limits are 0 and 1"), (-0.1, (), "-0.1"),
                                                     (float("nan"), (), "nan"),
                                                     (0.0, ["10.0.0.1"] * 101, "101 addresses .* the limit is 100")])
def test_what_no_filter_can_do_is_refused(loss: float, side: Sequence[str], words: str) -> None:
    with pytest.raises(NodeError, match=words):
        filter_program(loss, side)
