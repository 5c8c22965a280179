"""What is made of packets sent while links of a fat tree are cut: whom a cut excuses, till when, and what fails."""

from __future__ import annotations

import pytest

from experiments.captures.frame_fields import UDP
from experiments.fabric_cut import FLOWS, PAIRS, Blind, Packet, Phase, Ways, blind_times, judge
from nodes.ip_stack import UDP_ECHO_PORT

SECOND = 1_000_000_000
DEAD = ("agg1-tor1", "tor1-agg1")
PHASES = [Phase("whole", 0, SECOND // 2, 2 * SECOND),
          Phase("cut", 2 * SECOND, 3 * SECOND, 5 * SECOND, DEAD, 0.07, 7),
          Phase("healed", 5 * SECOND, 7 * SECOND, 9 * SECOND, (), 1.05, 7)]


def flow_of(client: int, port: int, back: bool = False) -> bytes:
    ends = [bytes((10, client, 254, 1)), bytes((10, 9, 1, 1))]
    ports = [port.to_bytes(2, "big"), UDP_ECHO_PORT.to_bytes(2, "big")]
    if back:
        ends, ports = ends[::-1], ports[::-1]
    return b"".join(ends) + bytes([UDP]) + b"".join(ports)


def ways(cut: bool = False) -> Ways:
    """Every fourth flow leads over agg1-tor1 when it is there."""
    found: Ways = {}
    for client in range(len(PAIRS)):
        for port in range(FLOWS):
            for back in (False, True):
                by = "agg2" if cut or port % 4 else "agg1"
                found[flow_of(client, port, back)] = frozenset({f"tor1-{by}", f"{by}-core1", "core1-agg3", "agg3-tor3"})
    return found


WAYS = {"whole": ways(), "cut": ways(cut=True), "healed": ways()}


def packets(lost: dict[int, float], until_s: float = 9.0) -> list[Packet]:
    """Return a packet of each flow every 100 ms; answers to flow `port` are lost from 2 s on for so many seconds."""
    found: list[Packet] = []
    for tenth in range(int(until_s * 10)):
        for client in range(len(PAIRS)):
            for port in range(FLOWS):
                at_s = tenth / 10 + port / 10_000
                gone = 2.0 <= at_s < 2.0 + lost.get(port, 0.0)
                found.append(((bytes((10, client, 254, 1)), port), round(at_s * 1e9), int(not gone)))
    return found


def failing(sent: list[Packet], by_phase: dict[str, Ways] = WAYS) -> list[str]:
    return [what for what, *_, ok in judge(PHASES, by_phase, blind_times(sent, PHASES, by_phase), sent) if not ok]


def test_a_cut_that_costs_the_flows_over_it_a_moment_holds_and_the_moment_is_measured() -> None:
    sent = packets({0: 0.25, 4: 0.15})
    assert failing(sent) == []
    cut = blind_times(sent, PHASES, WAYS)[1]
    assert (cut.lost, cut.others) == (2 * (3 + 2), 0) and cut.last_s == pytest.approx(0.2, abs=0.01)


def test_packets_of_flows_elsewhere_are_not_the_cut_s_and_some_of_them_are_too_many() -> None:
    sent = packets(dict.fromkeys(range(1, 40), 1.0))
    assert blind_times(sent, PHASES, WAYS)[1].others > 0
    assert failing(sent) == ["cut: packets lost that it does not explain"]


def test_a_link_that_is_not_gone_round_fails() -> None:
    assert failing(packets({0: 2.0})) == ["cut: last packet lost after; in force after"]


def test_what_was_under_way_when_the_link_was_cut_is_lost_by_the_cut() -> None:
    sent = [*packets({}), ((bytes((10, 0, 254, 1)), 0), 2 * SECOND - SECOND // 50, 0)]
    assert blind_times(sent, PHASES, WAYS)[1] == Blind("cut", 1, 0.0, 0, blind_times(sent, PHASES, WAYS)[1].sent)


@pytest.mark.parametrize(("phase", "change", "what"), [
    ("cut", {"tor1-agg1"}, "cut: flows over a dead link"), ("cut", set(), "cut: flows that do not go on"),
    ("healed", {"tor1-agg2"}, "healed: flows on their first way again; in force after")])
def test_a_flow_on_a_way_that_it_should_not_take_fails(phase: str, change: set[str], what: str) -> None:
    wrong = dict(WAYS[phase])
    flow = flow_of(0, 0)
    if change:
        wrong[flow] = frozenset({*change, "b", "c", "d"})
    else:
        del wrong[flow]
    assert what in failing(packets({}), WAYS | {phase: wrong})


def test_a_flow_of_another_link_that_moves_and_one_that_forks_fail() -> None:
    moved = WAYS["cut"] | {flow_of(0, 1): frozenset("abcd")}
    assert failing(packets({}), WAYS | {"cut": moved}) == ["cut: flows of other links that keep their way"]
    forked = WAYS["whole"] | {flow_of(0, 0): frozenset("abcde")}
    assert "cut links: flows with more than one way within a phase" in failing(packets({}), WAYS | {"whole": forked})


def test_a_packet_answered_twice_fails() -> None:
    sent = packets({})
    assert failing([(flow, at_ns, 2 if i == 7 else answers) for i, (flow, at_ns, answers) in enumerate(sent)]) == [
        "cut links: packets answered twice"]
