"""What an interface loses on purpose, as a classic BPF program for `tc`: a share of frames, or what crosses a split.

    egress of an interface --> [lost by chance?] --> [IPv4 from one side to the other?] --> the wire

A frame that is lost is gone without a word to its sender (TC_ACT_STOLEN), as on a cable. Classic BPF, because `tc`
takes it as text, and every kernel that has cls_bpf has its random numbers (Linux, Documentation/networking/filter.rst).
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

from nodes.errors import NodeError

LOAD_WORD, LOAD_HALF, JUMP_IF_EQUAL, JUMP_IF_LEAST, RETURN = 0x20, 0x28, 0x15, 0x35, 0x06
RANDOM = 0xFFFFF000 + 56  # where classic BPF reads a random word from: SKF_AD_OFF + SKF_AD_RANDOM
PASS, LOSE = 0xFFFFFFFF, 4  # TC_ACT_UNSPEC, TC_ACT_STOLEN
ETHERTYPE_AT, IPV4, SOURCE_AT, DESTINATION_AT = 12, 0x0800, 26, 30
MOST_ON_A_SIDE = 100  # a jump goes over 255 instructions at most
PRIORITY = 1


class Instruction(NamedTuple):
    """One instruction: what to do, how far to jump if it is so and if not, and the operand."""

    code: int
    if_so: int
    if_not: int
    operand: int


Program = tuple[Instruction, ...]


def filter_program(loss: float = 0.0, side: Sequence[str] = ()) -> Program:
    """Return what loses the share `loss` of all frames, and IPv4 between the addresses of `side` and any others.

    () if nothing is to be lost. Raises NodeError for a share outside 0 to 1, or a side of more than MOST_ON_A_SIDE.
    """
    if not 0.0 <= loss <= 1.0:
        raise NodeError(f"a loss of {loss:g}; the limits are 0 and 1")
    if len(side) > MOST_ON_A_SIDE:
        raise NodeError(f"{len(side)} addresses on one side of a partition; the limit is {MOST_ON_A_SIDE}")
    program: list[Instruction] = []
    if loss >= 1.0:
        return (Instruction(RETURN, 0, 0, LOSE),)
    if loss > 0.0:
        least = max(1, round(loss * 2**32))
        program += [Instruction(LOAD_WORD, 0, 0, RANDOM), Instruction(JUMP_IF_LEAST, 1, 0, least),
                    Instruction(RETURN, 0, 0, LOSE)]
    if side:
        program += _split([int(IPv4Address(ip)) for ip in side])
    return (*program, Instruction(RETURN, 0, 0, PASS)) if program else ()


def _split(side: Sequence[int]) -> Program:
    """Return what loses IPv4 across the split, and runs on to what follows it with all else.

    Two tests of the destination, one for each side that the source can be on.
    """
    n = len(side)
    # From within: it runs on if the destination is within, too. From without: if the destination is without.
    within = [Instruction(LOAD_WORD, 0, 0, DESTINATION_AT),
              *(Instruction(JUMP_IF_EQUAL, n - i, 0, ip) for i, ip in enumerate(side)), Instruction(RETURN, 0, 0, LOSE)]
    without = [Instruction(LOAD_WORD, 0, 0, DESTINATION_AT),
               *(Instruction(JUMP_IF_EQUAL, n - i, 0, ip) for i, ip in enumerate(side)),
               Instruction(RETURN, 0, 0, PASS), Instruction(RETURN, 0, 0, LOSE)]
    sources = [Instruction(JUMP_IF_EQUAL, n - 1 - i + len(without), 0, ip) for i, ip in enumerate(side)]
    body = [Instruction(LOAD_WORD, 0, 0, SOURCE_AT), *sources, *without, *within]
    return (Instruction(LOAD_HALF, 0, 0, ETHERTYPE_AT), Instruction(JUMP_IF_EQUAL, 1, 0, IPV4),
            Instruction(RETURN, 0, 0, PASS), *body)


def filter_lines(interface: str, program: Program) -> list[str]:
    """Return the lines for `tc -batch` that make `program` the filter of what leaves `interface`; () takes it away."""
    if not program:
        return [f"qdisc del dev {interface} clsact"]
    text = ",".join((str(len(program)), *(" ".join(map(str, one)) for one in program)))
    return [f"qdisc replace dev {interface} clsact",
            f"filter replace dev {interface} egress protocol all prio {PRIORITY} handle 1 bpf da bytecode \"{text}\""]
