"""The failover experiment's judges find what is wrong with constructed histories, and nothing in right ones."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import inf

import pytest

from experiments.clients.latencies import summary_of
from experiments.clients.load import ClientResult, Exchange
from experiments.emulation.failures import KINDS as ALL_KINDS
from experiments.failover import figures_of, judge
from experiments.failures import judging
from experiments.failures.aims import KINDS, LOSS, aimed, cut_off
from experiments.failures.live_strike import Outcome
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3", clients=2))


def told(times: Sequence[float] = (1.0,), history: Sequence[Exchange] = (), **more) -> ClientResult:
    """What a client says that got replies at `times`, all of them right unless `more` says otherwise."""
    numbers = dict.fromkeys(("errors", "wrong", "lost", "late", "duplicated", "foreign"), 0)
    given = {"sent": len(times), "answered": len(times), **numbers, "seconds": 1.0, "longest_gap_s": 0.0,
             "latencies": summary_of([0.1]), "complaints": [], "answered_s": array("d", times).tobytes(),
             "latencies_s": array("d", [0.1] * len(times)).tobytes(), "history": tuple(history), **more}
    return ClientResult(**given)


SET = b"set x1-1 0 0 1\r\na\r\n"


def test_clients_that_got_every_reply_once_give_no_complaint() -> None:
    assert judging.of_writers([told(), told()], [told(), told()]) == []
    assert judging.of_client(told()) == []


@pytest.mark.parametrize("kind", [*judging.BAD, "unfinished"])
def test_whatever_is_wrong_with_one_reply_is_a_complaint(kind: str) -> None:
    bad = told(**{kind: 1, "complaints": ["request 0x1: this"]})
    assert judging.of_client(bad) == [f"1 {kind}, request 0x1: this"]
    assert judging.of_writers([bad, told()], [told(), told()]) == [f"writing: 1 {kind}, request 0x1: this"]
    assert judging.of_writers([told(), told()], [bad, told()]) == [f"reading back: 1 {kind}, request 0x1: this"]


def test_a_writer_whose_keys_nobody_read_back_is_a_complaint() -> None:
    assert judging.of_writers([told(), told()], [told()]) == ["1 of 2 writers have read back what they wrote"]


def test_a_client_without_any_reply_is_a_complaint() -> None:
    assert judging.of_client(told(())) == ["no reply at all"]


def test_what_went_down_without_a_replica_excuses_lost_requests_and_no_wrong_reply() -> None:
    bad = told(lost=3, late=1, unfinished=2, duplicated=1, wrong=1)
    assert judging.of_client(bad, judging.EXCUSED) == ["1 wrong"]


def test_an_acknowledged_write_that_is_not_read_afterwards_is_found() -> None:
    wrote = Exchange(SET, 1.0, b"STORED\r\n", 1.1)
    lost = Exchange(b"get x1-1\r\n", 2.0, b"END\r\n", 2.1)
    there = Exchange(b"get x1-1\r\n", 2.0, b"VALUE x1-1 0 1\r\na\r\nEND\r\n", 2.1)
    assert judging.of_shared([told(history=[wrote]), told(history=[there])]) == []
    (said,) = judging.of_shared([told(history=[wrote]), told(history=[lost])])
    assert said.startswith("shared keys: ")


def test_a_write_without_a_reply_may_have_been_done_or_not() -> None:
    unheard = Exchange(SET, 1.0, None, inf)
    for reply in (b"END\r\n", b"VALUE x1-1 0 1\r\na\r\nEND\r\n"):
        read = Exchange(b"get x1-1\r\n", 2.0, reply, 2.1)
        assert judging.of_shared([told(history=[unheard]), told(history=[read])]) == []


def test_an_outage_is_the_longest_time_without_a_reply_from_the_failure_to_the_end() -> None:
    assert judging.outage_s(told((0.1, 0.9, 1.2, 1.9, 2.0)), 1.0, 2.1) == pytest.approx(0.7)
    assert judging.outage_s(told((0.1, 0.9)), 1.0, 2.5) == pytest.approx(1.5)
    assert judging.outage_s(told((1.1, 1.2)), 1.0, 2.5) == pytest.approx(1.3)


def test_service_that_does_not_resume_is_a_complaint_before_and_after_the_part_is_mended() -> None:
    assert judging.without_service(told((1.6, 2.8, 3.5)), 1.0, 3.0) == []
    assert judging.without_service(told((1.6, 3.5)), 1.0, 3.0) == ["no service while it was broken"]
    assert judging.without_service(told((1.6, 3.5)), 1.0, 3.0, last_s=2.0) == []
    assert judging.without_service(told((2.8,)), 1.0, 3.0) == ["no service after it was mended"]


def test_a_client_that_is_cut_off_needs_service_only_afterwards() -> None:
    assert judging.without_service(told((0.5, 3.5)), 1.0, 3.0, cut_off=True) == []
    assert judging.without_service(told((0.5,)), 1.0, 3.0, cut_off=True) == ["no service after it was mended"]


def outcome(kind: str) -> Outcome:
    return Outcome("kvs", kind, "primary", "kvs/kvs-1", "s1n1", 0.5, 1.0, 100, complaints=[])


def test_one_complaint_makes_its_row_fail_and_no_other() -> None:
    outcomes = [outcome(kind) for kind in KINDS for _ in range(2)]
    assert all(ok for *_, ok in judge(outcomes, range(1, 3)))
    outcomes[0].complaints.append("lost")
    rows = judge(outcomes, range(1, 3))
    assert [ok for *_, ok in rows] == [False, *[True] * (len(KINDS) - 1)]
    assert rows[0][1].startswith("1 with complaints")


def test_a_row_of_which_a_run_is_missing_fails() -> None:
    outcomes = [outcome(kind) for kind in KINDS for _ in range(2)]
    assert not judge(outcomes[1:], range(1, 3))[0][3]


def test_every_kind_of_failure_strikes_and_at_the_replica_or_its_server() -> None:
    assert set(KINDS) == set(ALL_KINDS)
    for node in ("s2n1", "s2h"):
        for kind in KINDS:
            failure = aimed(RACK, kind, node)
            assert failure.kind == kind and set(failure.names) <= {"s2n1", "s2h", "c1"}
        assert aimed(RACK, "crash", node).names == (node,)
        assert aimed(RACK, "loss", node).share == LOSS


def test_a_partition_cuts_one_client_off_with_the_replicas_server() -> None:
    failure = aimed(RACK, "partition", "s2n1")
    assert set(failure.names) == {"s2h", "s2n1", "c1"}
    assert cut_off(failure) == {"c1"} and not cut_off(aimed(RACK, "link", "s2n1"))


def test_each_application_has_a_figure_of_how_long_it_was_without_a_reply() -> None:
    times = {"kvs": (0.5, 0.7, 0.9), "iot-ts": (0.1,)}
    figures = figures_of([Outcome(name, "hang", "primary", "x", "s1n1", outage_s=s)
                          for name, of in times.items() for s in of])
    assert set(figures) == {"outage-kvs", "outage-iot-ts"}
    bars = {(bar["group"], bar["label"]): bar["value"] for bar in figures["outage-kvs"].data["bars"]}
    assert bars == {("hang", "median"): pytest.approx(700), ("hang", "most"): pytest.approx(900)}
