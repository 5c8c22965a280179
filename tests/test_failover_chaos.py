"""Servers, nodes, links and the controller fail, up to three at once and never both replicas' servers for good: what
clients see stays linearizable, replicas stay apart, and service resumes. Broken variants are found out."""

from __future__ import annotations

import os
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest
from replica_room import CLIENTS, IPS, NODES, PLACES, Room
from replica_store import KEY

from controller.membership import Life
from controller.replica_steps import Event as Turn
from controller.replica_steps import Group
from controller.replicas import ReplicaControl
from experiments.clients.linearizability import Ruling, Verdict
from nodes.control_messages import Refusal
from nodes.replication import Replicator
from nodes.replication_messages import Part, View
from nodes.replication_steps import Event, Here, Outgoing

SCHEDULES = 1000  # thousands on the real runtimes: ./e3 run failover --simulate
FATAL = ("node", "server")
FAULTS = (*FATAL, "hang", "isolation", "link", "rack", "partition", "controller")
MOST_AT_ONCE = 3
MARGIN_S = 0.5  # a domain counts as failing for so long after its fault is over
FIRST_S, LAST_S, END_S = 1.3, 6.0, 12.0


class Chaos:
    """One schedule: faults at random times, of random kinds and lengths; most aim at who has a part in the instance."""

    def __init__(self, seed: int, room: Room, hard: bool = False) -> None:
        self.room = room
        self.hard = hard
        self.draw = random.Random(seed * 7919)
        self.under_way = 0
        self.most = 0
        self.failing: dict[str, float] = {}  # domain: until when
        self.struck: Counter[str] = Counter()
        for _ in range(self.draw.randint(3, 8)):
            room.at(self.draw.uniform(FIRST_S, LAST_S), self.strike)

    def strike(self) -> None:
        room, draw = self.room, self.draw
        kind = draw.choice(FAULTS)
        view = room.view
        wanted = [name for name in (view.primary, view.backup, view.joiner) if name] if view else []
        name = draw.choice(wanted) if wanted and draw.random() < 0.7 else draw.choice(NODES)
        for_s = draw.choice((0.3, 1.5, 4.0) if kind == "link" else (0.02, 0.3, 0.7, 1.5))
        domain = PLACES[name].domain
        if self.under_way >= MOST_AT_ONCE or (kind in FATAL and not self.survives(domain)) \
                or (kind == "controller" and room.controller is None):
            return
        domains = set() if kind == "controller" else {domain}
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.struck[kind] += 1
        if kind in FATAL:
            for one in [n for n in NODES if PLACES[n].domain == domain] if kind == "server" else [name]:
                if one in room.nodes:
                    room.kill(one)
                    room.at(for_s, partial(room.boot, one))
        elif kind == "hang":
            room.hang(name)
            room.at(for_s, partial(room.wake, name))
        elif kind == "controller":
            room.kill_controller()
            room.at(for_s, room.start_controller)
        else:
            ends = {name}
            others = [n for n in IPS if n != name]
            if kind == "link":
                others = [draw.choice(["ctl", *[n for n in wanted if n != name]])]
                domains = domains if others == ["ctl"] else set()
            elif kind in ("rack", "partition"):
                ends = {n for n in NODES if PLACES[n].rack == 2}
                if kind == "partition":  # cuts the clients apart, too
                    ends = {name} | {n for n in (*NODES, *CLIENTS) if draw.random() < 0.3}
                others = [n for n in IPS if n not in ends]
                domains = {PLACES[n].domain for n in ends if n in PLACES}
            cut = [frozenset((a, b)) for a in ends for b in others]
            room.cut.update(cut)
            room.at(for_s, lambda: room.cut.subtract(cut))
        for one in domains:
            self.failing[one] = max(self.failing.get(one, 0.0), room.now + for_s + MARGIN_S)
        room.at(for_s, self.over)

    def over(self) -> None:
        self.under_way -= 1

    def survives(self, domain: str) -> bool:
        """Say whether a replica outside `domain` has all that was answered, and its own domain does not fail now.

        With `hard`, it may hang or be cut off.
        """
        view, nodes = self.room.view, self.room.nodes
        if view is None:
            return True
        part = {view.primary: Part.SERVING, view.backup: Part.FOLLOWING}
        return any(name in nodes and PLACES[name].domain != domain
                   and nodes[name].replicator.part(*KEY) is part[name]
                   and nodes[name].replicator.epoch(*KEY) == view.epoch
                   and (self.hard or self.failing.get(PLACES[name].domain, 0.0) < self.room.now)
                   for name in part if name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one schedule came to."""

    seed: int
    verdict: Verdict
    complaints: list[str]
    struck: Counter[str]
    most: int
    turns: Counter[str]
    operations: int
    unanswered: int
    paired: bool
    answered_at_the_end: bool


def outcome_of(seed: int, hard: bool = False, **parts: object) -> Outcome:
    room = Room(seed, loss=(0.0, 0.05, 0.15)[seed % 3], **parts)  # type: ignore[arg-type]
    chaos = Chaos(seed, room, hard)
    room.run(END_S)
    last = [o for _, o in room.history if o.called_s > END_S - 1.0]
    turns = Counter(f"{h.what}, {h.detail.partition(':')[0]}" for h in room.happenings)
    return Outcome(seed, room.verdict(), room.complaints, chaos.struck, chaos.most, turns, len(room.history),
                   sum(o.returned_s == float("inf") for _, o in room.history), room.paired, len(last) >= 3)


@pytest.fixture(scope="module", params=range(4), ids=lambda quarter: f"quarter {quarter + 1}")
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    seeds = range(request.param * SCHEDULES // 4, (request.param + 1) * SCHEDULES // 4)
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(outcome_of, seeds, chunksize=10))


def test_schedules_of_failures_are_linearizable(outcomes: list[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if not outcome.verdict]
    assert not wrong, f"{len(wrong)} schedules, {wrong[0].seed}: {wrong[0].verdict}"


def test_replicas_never_share_a_fault_domain(outcomes: list[Outcome]) -> None:
    assert not [outcome for outcome in outcomes if outcome.complaints]


def test_nothing_begins_anew_because_all_replicas_were_lost(outcomes: list[Outcome]) -> None:
    assert not [o.seed for o in outcomes if o.turns[f"nowhere, {Turn.ALL_GONE.value}"]]


def test_service_resumes_with_two_replicas(outcomes: list[Outcome]) -> None:
    assert not [outcome.seed for outcome in outcomes if not outcome.paired or not outcome.answered_at_the_end]


def test_the_only_replica_left_may_hang_or_be_cut_off() -> None:
    assert not [seed for seed in range(60) if not outcome_of(seed, hard=True).verdict]


def test_every_kind_of_fault_and_every_turn_was_there(outcomes: list[Outcome]) -> None:
    struck = sum((o.struck for o in outcomes), Counter())
    turns = sum((o.turns for o in outcomes), Counter())
    operations = sum(o.operations for o in outcomes)
    print(dict(struck), dict(turns), f"{operations} operations, {sum(o.unanswered for o in outcomes)} unanswered")
    assert all(struck[kind] > len(outcomes) / 10 for kind in FAULTS)
    assert sum(o.most == MOST_AT_ONCE for o in outcomes) > len(outcomes) / 10
    for to, why in (("alone", Turn.PRIMARY_LOST), ("paired", Turn.COMPLETE),
                    ("alone", Turn.JOINER_LOST), ("replacing", Turn.CANDIDATE)):
        assert turns[f"{to}, {why.value}"] > len(outcomes) / 100, (to, why)
    assert operations > 100 * len(outcomes)


# -- what the judge is good for ----------------------------------------------------------------------------------------

class AnswersFirst(Replicator):
    """Acknowledges before it replicates."""

    def append(self, application: int, instance: int, entry: bytes, outputs: object, now: float, out: Outgoing) -> None:
        self._local.release((application, instance), outputs)
        super().append(application, instance, entry, None, now, out)


class ReadsAlone(Replicator):
    """Answers reads without asking whether it is still the primary."""

    def append(self, application: int, instance: int, entry: bytes, outputs: object, now: float, out: Outgoing) -> None:
        if outputs[2].startswith((b"VALUE", b"END")):  # type: ignore[index]
            self._local.release((application, instance), outputs)
            outputs = None
        super().append(application, instance, entry, outputs, now, out)


class SelfWilled(Replicator):
    """Answers alone, without being told that it is, when its backup has said nothing for a while."""

    def tick(self, now: float, out: Outgoing) -> None:
        super().tick(now, out)
        here = self._here.get(KEY)
        head = here.waiting[0][0] if here is not None and here.waiting else -1
        self.head, self.since = getattr(self, "head", -1), getattr(self, "since", now)
        if head != self.head:
            self.head, self.since = head, now
        elif here is not None and head >= 0 and now > self.since + 0.3:
            self._local.release(KEY, here.waiting.popleft()[1])


class Trusting(Replicator):
    """Backs up, and serves, from wherever it is."""

    def _refusal(self, here: Here, view: View, event: Event) -> Refusal:
        refusal = super()._refusal(here, view, event)
        if refusal is Refusal.OUT_OF_PLACE and event in (Event.BACK_UP, Event.SERVE):
            here.part, here.fetcher = Part.FOLLOWING if here.part is not Part.SERVING else here.part, None
            return Refusal.NONE
        return refusal


class Hasty(ReplicaControl):
    """Makes a joiner the backup as soon as it says anything."""

    def _event(self, g: Group) -> Turn | None:
        if g.joiner and g.said.get(g.joiner) in (Part.JOINING, Part.CATCHING_UP):
            return Turn.COMPLETE
        return super()._event(g)


class Impatient(ReplicaControl):
    """Takes the silence of who serves alone for its death."""

    def _gone(self, g: Group, name: str) -> bool:
        return super()._gone(g, name) or (not g.backup and self._life(name) is Life.DEAD)


@pytest.mark.parametrize("parts", [{"replicator": AnswersFirst}, {"replicator": ReadsAlone}, {"replicator": SelfWilled},
                                   {"control": Hasty, "replicator": Trusting}, {"control": Impatient}],
                         ids=["AnswersFirst", "ReadsAlone", "SelfWilled", "Hasty", "Impatient"])
def test_the_judge_finds_a_broken_variant(parts: dict[str, object]) -> None:
    seed = next((seed for seed in range(240) if outcome_of(seed, **parts).verdict.ruling is Ruling.VIOLATION), None)
    print(seed)
    assert seed is not None
