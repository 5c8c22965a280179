"""Schedules of failures on real runtimes in virtual time: nothing acknowledged is lost, and broken builds are found."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from experiments import failover
from experiments.errors import ExperimentError
from experiments.failures.random_strikes import KINDS
from experiments.failures.schedule import Outcome, played
from experiments.failures.schedules import complaints_of, judge
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from nodes.replica_ledger import Ledger
from nodes.replication import Replicator
from nodes.replication_messages import Append, Part
from nodes.replication_steps import Outgoing

SEEDS = range(len(KINDS))  # each kind has its turn at a primary once
MOST_SEEDS = 30  # in which a broken build must be found


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [played(seed) for seed in SEEDS]


def test_whatever_fails_what_clients_saw_is_linearizable_and_nothing_acknowledged_is_lost(
        outcomes: list[Outcome]) -> None:
    assert complaints_of(outcomes) == []


def test_every_kind_of_failure_strikes_and_each_that_can_strikes_a_primary(outcomes: list[Outcome]) -> None:
    assert [row for row in judge(outcomes, len(SEEDS)) if not row[-1]] == []


def test_a_kind_that_never_struck_a_primary_and_a_complaint_make_the_run_fail(outcomes: list[Outcome]) -> None:
    for outcome in (spoilt := [msgspec.structs.replace(outcome) for outcome in outcomes]):
        outcome.primaries = {**outcome.primaries, "hang": 0}
    spoilt[5].complaints = ["sharing: 1 wrong"]
    failed = {what: measured for what, measured, _, ok in judge(spoilt, len(SEEDS)) if not ok}
    assert set(failed) == {"hang, of which at a primary", "schedules with a complaint"}
    assert failed["schedules with a complaint"] == "1: seeds 5"
    assert complaints_of(spoilt) == ["seed 5: sharing: 1 wrong"]


# Of the first 2,000 played, those in which a message was handled twice: an acknowledgement came after later ones, and
# after its receiver's place had been told again (tests/test_channel_move.py has it alone).
OVERTAKEN = (291, 1403, 1990)
WOKEN = 165  # a silent backup wakes when who is to take its place, on its server, has just got all


@pytest.mark.parametrize("seed", (*OVERTAKEN, WOKEN))
def test_schedules_that_were_wrong_once_are_right(seed: int) -> None:
    assert played(seed).complaints == []


def test_a_seed_gives_the_same_events_in_the_same_order(outcomes: list[Outcome]) -> None:
    assert played(3) == outcomes[3]


class AnswersFirst(Replicator):
    """Acknowledges before it replicates."""

    def append(self, application: int, instance: int, entry: bytes, outputs: object, now: float, out: Outgoing) -> None:
        self._local.release((application, instance), outputs)
        super().append(application, instance, entry, None, now, out)


class AsTheyCome(Replicator):
    """As a backup, takes what comes as the next thing in order."""

    def _follow(self, source: bytes, message: Append, out: Outgoing) -> None:
        here = self._of_our_primary(source, message)
        if here is not None and here.part >= Part.CATCHING_UP and message.position >= here.next:
            here.next = message.position + 1
            self._take_in(here, message, out)
            self._acknowledge(source, here, message, out)


def found(word: str) -> str:
    """Play seeds till one has a complaint with `word`; return it."""
    for seed in range(MOST_SEEDS):
        for said in played(seed).complaints:
            if word in said:
                return f"seed {seed}: {said}"
    return ""


def test_a_build_that_acknowledges_before_it_replicates_is_found_by_the_judge_of_linearizability(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.node_control.Replicator", AnswersFirst)
    assert "shared keys: not linearizable" in found("not linearizable")


@pytest.mark.parametrize("break_it", [
    lambda patch: patch.setattr("nodes.node_control.Replicator", AsTheyCome),
    lambda patch: patch.setattr(Ledger, "receivers", lambda self: [])],
    ids=["a backup that applies out of order", "a backup that does not know what was consumed"])
def test_a_build_whose_backup_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch,
                                                break_it: Callable[[Any], None]) -> None:
    break_it(monkeypatch)
    assert found("wrong")


def test_a_seed_alone_is_told_whole_and_one_on_packets_is_refused(tmp_path: Path,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.failures.schedules.Run", partial(Run, parent=tmp_path))
    said: list[str] = []
    content = failover.run(RunOptions(simulate=True, seed=3), said.append)
    assert content["holds"] and any("fail server" in line for line in said)
    assert any("the primary is silent" in line for line in said)
    (timeline,) = tmp_path.glob("failover-schedule/*/timeline.txt")
    assert timeline.read_text().splitlines() == said
    with pytest.raises(ExperimentError, match=r"seed 3: .*--simulate"):
        failover.run(RunOptions(seed=3), said.append)


def test_replicas_in_one_fault_domain_are_seen_by_whoever_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.replicas.next_copy",
                        lambda name, copies, places, usable, fits: next((n for n in usable if n not in copies), None))
    said = played(0).complaints
    assert any("by view" in one and "in domains" in one for one in said)
    assert any(one.startswith("at ") and "in domains" in one for one in said)
