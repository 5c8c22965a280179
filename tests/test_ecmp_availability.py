"""What the availability experiment makes of packets: who was touched by a death, who moved, what was lost."""

from __future__ import annotations

from experiments.ecmp_availability import PACKETS_PER_S, Legs, Packet, Phase, judge, judge_goodput

SECOND = 1_000_000_000
FLOWS = 400
DEAD = "tor1-s1n1"
PHASES = [Phase("all alive", 0, 3 * SECOND),
          Phase("s1n1 dies", 4 * SECOND, 7 * SECOND, frozenset({DEAD}), "s1n1", DEAD, True, 3 * SECOND, 0.1, 0.1),
          Phase("s1n1 returns", 9 * SECOND, 12 * SECOND, frozenset(), "s1n1", DEAD, False, 7 * SECOND, 1.0, 1.0)]


def legs_of(flow: int, dead: bool = False) -> Legs:
    """A quarter of the requests leaves by each port; replies all by the third."""
    out = 1 + flow % 4
    return ("tor1-s2n1", "tor1-s1n2" if dead and out == 1 else f"tor1-s1n{out}", "tor1-s1n3", "tor1-s2n2")


LEGS = [{flow: legs_of(flow, dead) for flow in range(FLOWS)} for dead in (False, True, False)]


def packets(lost: set[int] = frozenset(), until_s: float = 3.2) -> list[Packet]:  # type: ignore[assignment]
    """Every flow in turn; those of `lost` get no answer from the death till `until_s`."""
    found = []
    for number in range(int(12 * PACKETS_PER_S)):
        flow, sent = number % FLOWS, int(number / PACKETS_PER_S * SECOND)
        found.append((flow, sent, int(not (flow in lost and 3 * SECOND <= sent < until_s * SECOND))))
    return found


TOUCHED = {flow for flow in range(FLOWS) if flow % 4 == 0}


def failing(rows: list[tuple[str, str, str, bool]]) -> list[str]:
    return [what for what, *_, ok in rows if not ok]


def test_a_death_that_costs_its_own_flows_a_moment_holds_and_the_moment_is_measured() -> None:
    rows = judge(PHASES, LEGS, packets(TOUCHED))
    assert not failing(rows)
    said = {what: got for what, got, *_ in rows}
    assert said["s1n1 dies: rebalanced, the last packet of its 100 flows lost after"].startswith("0.1")
    assert said["s1n1 dies: flows of the living that keep all four legs"] == "300 of 300"


def test_a_flow_of_the_living_that_moves_or_loses_is_found() -> None:
    moved = [LEGS[0], {flow: (*legs[:2], "tor1-s1n4", legs[3]) if flow % 4 == 1 else legs
                       for flow, legs in LEGS[1].items()}, LEGS[2]]
    assert failing(judge(PHASES, moved, packets())) == ["s1n1 dies: flows of the living that keep all four legs"]
    untouched = {flow for flow in range(FLOWS) if flow % 4 == 1}
    assert failing(judge(PHASES, LEGS, packets(untouched))) == [
        "s1n1 dies: packets of the living lost, from the death on"]


def test_a_flow_that_stays_on_the_dead_or_does_not_come_back_is_found() -> None:
    stays = [LEGS[0], LEGS[0], LEGS[2]]
    assert "s1n1 dies: flows on a dead SmartNIC once it was seen" in failing(judge(PHASES, stays, packets()))
    away = [LEGS[0], LEGS[1], LEGS[1]]
    assert failing(judge(PHASES, away, packets())) == [
        "s1n1 returns: flows that the ToR sends by their first port again"]
    assert "s1n1 dies: rebalanced, the last packet of its 100 flows lost after" in failing(
        judge(PHASES, LEGS, packets(TOUCHED, 6.9)))


def test_a_tenth_of_a_second_without_any_answer_is_no_goodput() -> None:
    assert not failing(judge_goodput(packets(TOUCHED)))
    assert failing(judge_goodput(packets(set(range(FLOWS))))) == ["least goodput in 0.1 s"]
    assert failing(judge_goodput([(flow, sent, 2 * answers) for flow, sent, answers in packets()])) == [
        "packets answered twice"]
