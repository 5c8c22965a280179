"""Source, destination, controller and links die at every step of a migration: one live instance, nothing acknowledged
lost that a survivor holds."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import pytest
from migration_room import DESTINATION, SOURCE, STATES, WRITER, Room

from controller.migration import MigrationControl
from controller.migration_steps import Event, Happening, Migration, Outgoing, State
from nodes.control_messages import Command, Refusal, Standing
from nodes.migration_agent import MigrationAgent

SEEDS = 500
LINKS = ((SOURCE, DESTINATION), ("ctl", SOURCE), ("ctl", DESTINATION))
VICTIMS = ("source", "destination", "controller", "link")
STEPS = ("begin", "stopping", "moving", "switching", "finishing", "resuming", "salvaging", "restarting")
LIMIT_S = 60.0


class Chaos:
    """One seed: a fault a little after a step is entered, a second one now and then, and what comes of it.

    The last three steps are on the way back only, so there a first fault sends the migration that way.
    """

    def __init__(self, seed: int, room: Room) -> None:
        self.room = room
        self.draw = random.Random(seed * 7919)
        self.victim = VICTIMS[seed % len(VICTIMS)]
        self.step = STEPS[seed // len(VICTIMS) % len(STEPS)]
        self.struck: list[tuple[str, str]] = []
        self.until = 1.0  # the last fault is over
        room.watch = self.happened
        if self.step in ("resuming", "salvaging", "restarting"):
            self.first = self.draw.choice(("stopping", "moving", "switching", "finishing"))
            self.first_victim = "destination" if self.step == "resuming" else "source"
        else:
            self.first = ""

    def happened(self, happening: Happening) -> None:
        if happening.what == self.first:
            self.first = ""
            self.room.at(self.draw.uniform(0, 0.01), lambda: self.strike(self.first_victim, happening.what))
        elif happening.what == self.step and not any(what == self.step for what, _ in self.struck):
            self.room.at(self.draw.choice((0.0, 0.002, 0.02)) * self.draw.random(),
                         lambda: self.strike(self.victim, self.step))
            if self.draw.random() < 0.3:
                self.room.at(self.draw.uniform(0, 0.6), lambda: self.strike(self.draw.choice(VICTIMS), "later"))

    def strike(self, victim: str, step: str) -> None:
        """Let something die for a while; nodes now and then for ever, which somebody then sees to and declares."""
        room = self.room
        self.struck.append((step, victim))
        for_s = self.draw.choice((0.02, 0.3, 2.0))
        self.until = max(self.until, room.now + 3.0)
        if victim == "controller":
            room.kill_controller()
            room.at(for_s, lambda: room.controller or room.start_controller())
        elif victim == "link":
            link = frozenset(self.draw.choice(LINKS))
            room.cut.add(link)
            for_s = self.draw.choice((0.3, 2.0, 8.0))
            self.until = max(self.until, room.now + for_s)
            room.at(for_s, lambda: room.cut.discard(link))
        else:
            name = SOURCE if victim == "source" else DESTINATION
            other = DESTINATION if victim == "source" else SOURCE
            if name in room.gone:
                return
            room.kill(name)
            if self.draw.random() < 0.3 and other not in room.gone:
                room.at(1.0, lambda: self.declare(name))
            else:
                room.at(for_s, lambda: room.boot(name) if name in room.gone else None)

    def declare(self, name: str) -> None:
        if self.room.controller is None:
            self.room.at(0.1, lambda: self.declare(name))
        elif name in self.room.gone:
            out: Outgoing = []
            self.room.controller.declared_dead(name, self.room.now, out)
            self.room.after(out)  # type: ignore[arg-type]
            self.room.at(0.5, lambda: self.declare(name))  # a controller that restarts must be told again


def run(seed: int, **parts: object) -> tuple[Chaos, list[str]]:
    room = Room(seed, loss=(0.0, 0.1, 0.25)[seed % 3], **parts)  # type: ignore[arg-type]
    chaos = Chaos(seed, room)
    room.run(0.05)
    room.begin()
    room.run(LIMIT_S, lambda: room.settled and room.now > max(chaos.until, room.happenings[-1].now_s + 0.7))
    room.run(room.now + 0.5)
    verdict = room.checker.verdict()
    if not room.settled:
        verdict = [*verdict, f"not over after {LIMIT_S} s: {[m.state for m in room.controller.open.values()]}"
                   if room.controller else "no controller"]
    return chaos, verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed came to."""

    seed: int
    verdict: list[str]
    struck: list[tuple[str, str]]
    happenings: list[Happening]
    acknowledged: int
    excused: int


def outcome_of(seed: int) -> Outcome:
    chaos, verdict = run(seed)
    checker = chaos.room.checker
    return Outcome(seed, verdict, chaos.struck, chaos.room.happenings, len(checker.acknowledged), len(checker.excused))


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(outcome_of, range(SEEDS), chunksize=10))


def test_five_hundred_seeds_end_with_one_live_instance_and_nothing_acknowledged_lost(outcomes: list[Outcome]) -> None:
    wrong = [outcome for outcome in outcomes if outcome.verdict]
    assert not wrong, f"{len(wrong)} seeds, {wrong[0]}"


def test_everything_died_at_every_step(outcomes: list[Outcome]) -> None:
    struck = Counter(strike for outcome in outcomes for strike in outcome.struck)
    assert not [(step, victim) for step in STEPS for victim in VICTIMS if not struck[step, victim]], struck
    entered = Counter(happening.what for outcome in outcomes for happening in outcome.happenings)
    assert not [state for state in STATES if state != "pushing" and not entered[state]], entered


def test_writes_that_nobody_held_any_more_are_few_so_that_the_check_means_something(outcomes: list[Outcome]) -> None:
    assert sum(outcome.excused for outcome in outcomes) < sum(outcome.acknowledged for outcome in outcomes) / 10


def test_without_faults_a_migration_takes_the_straight_way_and_no_write_waits_long() -> None:
    room = Room(1, loss=0.0)
    room.run(0.05)
    room.begin()
    room.run(5.0, lambda: room.settled)
    assert [h.what for h in room.happenings if h.what in STATES] == ["stopping", "moving", "switching", "finishing"]
    assert room.happenings[-1].now_s - room.happenings[0].now_s < 0.1
    room.run(room.now + 0.2)
    assert not room.checker.verdict() and not room.checker.excused
    assert room.checker.runners() == [DESTINATION] and room.nodes[SOURCE].agent.standing(1, 7) is Standing.RELEASED


def test_there_and_back_again_many_times() -> None:
    room = Room(2, loss=0.1)
    for turn in range(20):
        ends = (SOURCE, DESTINATION) if turn % 2 == 0 else (DESTINATION, SOURCE)
        out: Outgoing = []
        assert room.controller is not None
        room.controller.begin(1, 7, *ends, (WRITER, *ends), room.now, out)
        room.after(out)  # type: ignore[arg-type]
        room.run(room.now + 30, lambda: room.settled)
        assert room.checker.runners() == [ends[1]]
    room.run(room.now + 1)
    assert not room.checker.verdict() and not room.checker.excused


# -- the checker can fail: each of these breaks one rule of the protocol -----------------------------------------------

class Impatient(MigrationControl):
    """Takes silence for death: goes back to the source after the commit."""

    def tick(self, now: float, out: Outgoing) -> None:
        for m in list(self.open.values()):
            if m.state is State.SWITCHING and now - m.progress_at > 0.3:
                self._turn(m, Event.DESTINATION_LOST, now, out)
        super().tick(now, out)


class Careless(MigrationControl):
    """Makes a fresh instance without asking whether the destination has the old one."""

    def _enter(self, m: Migration, state: State, now: float, out: Outgoing) -> None:
        super()._enter(m, State.RESTARTING if state is State.SALVAGING else state, now, out)


class Amnesiac(MigrationControl):
    """Restarts without its journal's decisions: begins every open migration anew."""

    def __init__(self, *parts: object, **more: object) -> None:
        super().__init__(*parts, **more)  # type: ignore[arg-type]
        for m in self.open.values():
            m.state, m.lost = State.RESUMING, set()
            m.owner, m.epoch = m.source, m.epoch + 1


class Unfenced(MigrationAgent):
    """Obeys commands of any epoch and for any run."""

    def _obey(self, source: bytes, command: Command, now: float) -> object:  # type: ignore[override]
        here = self._here.get((command.application, command.instance))
        if here is not None:
            here.epoch = 0
        self._connected.pop((command.application, command.instance), None)
        return super()._obey(source, command, now)


class SelfWilled(MigrationAgent):
    """Goes on with a frozen instance when nobody asks for it for a while."""

    def tick(self, now: float, out: list[object]) -> None:  # type: ignore[override]
        super().tick(now, out)  # type: ignore[arg-type]
        here = self._here.get((1, 7))
        if here is not None and here.standing is Standing.FROZEN:
            self.frozen_at = getattr(self, "frozen_at", now)
            if now - self.frozen_at > 0.2:
                assert self._resume((1, 7), here, here.told) is Refusal.NONE  # type: ignore[arg-type]


@pytest.mark.parametrize(("parts", "seeds"), [
    ({"control": Impatient}, range(50)), ({"control": Amnesiac}, range(100)), ({"agent": SelfWilled}, range(100)),
    ({"agent": Unfenced}, range(320, 380))], ids=["Impatient", "Amnesiac", "SelfWilled", "Unfenced"])
def test_the_checker_finds_what_is_wrong_with_a_broken_variant(parts: dict[str, object], seeds: range) -> None:
    assert any(run(seed, **parts)[1] for seed in seeds), f"no seed of {seeds} shows it"


@pytest.mark.parametrize("control", [MigrationControl, Careless])
def test_what_only_the_destination_has_is_found_there_when_the_source_has_died(control: type[MigrationControl]) -> None:
    room = Room(1, loss=0.0, control=control)

    def out_of_reach(happening: Happening) -> None:
        if happening.what == "moving":  # the destination fetches it all, and cannot say so
            room.at(0.05, lambda: room.kill(SOURCE))
            room.at(0.06, lambda: room.boot(SOURCE))
            room.at(0.5, room.cut.clear)
    room.watch = out_of_reach
    room.nodes[DESTINATION].local.acceptable = cut_off(room)  # type: ignore[method-assign]
    room.run(0.1)
    room.begin()
    room.run(10, lambda: room.settled)
    room.run(room.now + 0.5)
    assert bool(room.checker.verdict()) is (control is Careless)


def cut_off(room: Room) -> Callable[[tuple[int, int], bytes], str | None]:
    """Judge a package as ever, and from then on be out of the controller's reach."""
    def acceptable(key: tuple[int, int], package: bytes) -> str | None:
        room.cut.add(frozenset(("ctl", DESTINATION)))
        return None
    return acceptable
