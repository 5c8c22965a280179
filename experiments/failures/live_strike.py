"""One failure under load: struck, watched, mended, and waited for till everything has a backup again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from controller.controller_events import ControllerEvent
from controller.errors import MigrationError
from experiments.emulation.failures import Failure
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError
from experiments.failures import judging
from experiments.failures.aims import aimed, cut_off
from experiments.failures.live_load import Load
from nodes.deployment import Deployment

FIRST_LOAD_REAL_S, BROKEN_REAL_S, LAST_LOAD_REAL_S = 0.4, 2.0, 0.6
WHOLE_WITHIN_REAL_S = 30.0
LOOK_AGAIN_REAL_S = 0.05


class Outcome(msgspec.Struct):
    """What came of one failure at `node`, which had a part in `instance`. Times are emulated seconds.

    `outage_s` is the longest time without a reply to one client that the failure did not cut off, `whole_after_s` how
    long after it was mended all nodes were in use again and everything replicated had a backup. `said` are the
    controller's events meanwhile.
    """

    application: str
    failure: str
    role: str
    instance: str
    node: str
    outage_s: float = 0.0
    whole_after_s: float = 0.0
    answered: int = 0
    unanswered: int = 0
    complaints: list[str] = []
    said: list[str] = []

    def row(self) -> dict[str, Any]:
        return {"application": self.application, "failure": self.failure, "role": self.role, "instance": self.instance,
                "node": self.node, "outage_ms": 1e3 * self.outage_s, "whole_after_s": self.whole_after_s,
                "answered": self.answered, "unanswered": self.unanswered, "complaints": "; ".join(self.complaints)}


@dataclass(slots=True)
class _Watch:
    """What the controller says while parts fail: the places of replicas at every look, and all events."""

    bed: Testbed
    complaints: list[str] = field(default_factory=list)
    events: list[ControllerEvent] = field(default_factory=list)
    seen: int = 0

    def begin(self) -> None:
        self._hear()
        self.events.clear()

    def look(self) -> None:
        if self.bed.controller_gone():
            self.seen = 0  # who comes next counts from the beginning
            return
        for said in self.bed.replicas_together():
            if said not in self.complaints:
                self.complaints.append(said)
        self._hear()

    def anew(self) -> set[str]:
        """Return the instances that began anew, with nothing."""
        return {event.instance for event in self.events if event.what in ("nowhere", "restarting")}

    def _hear(self) -> None:
        for event in self.bed.asked().events(self.seen):
            self.seen = event.sequence
            self.events.append(event)


def struck(bed: Testbed, deployment: Deployment, kind: str, turn: int, load: Load) -> Outcome:
    """Break something under `load`, mend it, and judge; what goes wrong in this is a complaint."""
    numbers = sorted(deployment.replicated)
    number = numbers[(turn - 1) % len(numbers)]
    part = next(r for r in bed.replicas() if (r.application, r.number) == (deployment.number, number))
    role = "backup" if turn % 4 == 2 else "primary"
    node = part.backup if role == "backup" else part.primary
    failure = aimed(bed.inventory, kind, node)
    outcome = Outcome(deployment.name, kind, role, part.instance, node, complaints=[], said=[])
    watch = _Watch(bed)
    try:
        watch.begin()
        _play(bed, failure, load, watch, outcome)
        replicated = {r.instance for r in bed.replicas()}
        outcome.complaints += load.complaints(bool(watch.anew() - replicated))
        outcome.complaints += [f"{name} began anew" for name in sorted(watch.anew() & replicated)]
    except (ExperimentError, MigrationError) as error:
        outcome.complaints.append(str(error))
    outcome.complaints += watch.complaints
    outcome.said = [f"{e.now_s:.3f} {e.what} {e.node} {e.instance} {e.detail}" for e in watch.events]
    return outcome


def _play(bed: Testbed, failure: Failure, load: Load, watch: _Watch, outcome: Outcome) -> None:
    clock = bed.clock.reader()
    load.start()
    _watched(watch, FIRST_LOAD_REAL_S)
    broken_s = clock()
    bed.fail(failure.kind, *failure.names, share=failure.share)
    _watched(watch, BROKEN_REAL_S)
    mended_s = clock()
    bed.heal(failure.kind, *failure.names)
    _start_what_was_fenced(bed)
    deadline = time.monotonic() + WHOLE_WITHIN_REAL_S
    while missing := _missing(bed):
        if time.monotonic() > deadline:
            raise ExperimentError(f"{WHOLE_WITHIN_REAL_S:g} s after it was mended: {missing}")
        _watched(watch, LOOK_AGAIN_REAL_S)
    outcome.whole_after_s = clock() - mended_s
    _watched(watch, LAST_LOAD_REAL_S)
    until_s = clock()
    load.stop()
    last_s = BROKEN_REAL_S if failure.kind == "loss" else judging.LAST_S  # what is lost twice is missed for a second
    for node, _, result in load.results:
        cut = node in cut_off(failure)
        if not cut:
            outcome.outage_s = max(outcome.outage_s, judging.outage_s(result, broken_s, until_s))
        outcome.complaints += [f"{node}: {said}" for said in
                               judging.without_service(result, broken_s, mended_s, cut, last_s)]
        outcome.answered += result.answered
        outcome.unanswered += result.lost + result.unfinished


def _watched(watch: _Watch, real_s: float) -> None:
    until = time.monotonic() + real_s
    while (left_s := until - time.monotonic()) > 0:
        watch.look()
        time.sleep(min(LOOK_AGAIN_REAL_S, left_s))


def _missing(bed: Testbed) -> str:
    """Say what is not as it was before anything failed; "" if all is."""
    state = bed.asked().state()
    away = [f"{node.name} is {node.life}" for node in state.nodes if node.life != "alive"]
    unpaired = [f"{r.instance} is {r.state}" for r in state.replicas if r.state != "paired"]
    moving = [f"{m.instance} is {m.state}" for m in state.under_way]
    return ", ".join((*away, *unpaired, *moving, *(f"{name} is not programmed" for name in bed.unprogrammed())))


def _start_what_was_fenced(bed: Testbed) -> None:
    """Start every agent that was ended to keep its node from the network, with nothing in it."""
    for name, child in list(bed.agents.items()):
        if bed.nursery.status(child) is not None:
            bed.start_agent(name, again=True)
