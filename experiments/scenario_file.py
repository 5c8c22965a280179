"""A scenario: a rack under load, and at which second what fails, is healed or moves. From YAML, checked before it runs.

    title: a SmartNIC loses its power and comes back
    cluster: type1x3
    application: nfv-fin
    seconds: 20
    load: {rate_rps: 500}
    steps:
      - {at_s: 5, fail: smartnic s2n1}
      - {at_s: 9, migrate: nids-2 s3n1}
      - {at_s: 12, heal: smartnic s2n1}

What follows `fail`, `heal` and `migrate` are the words of the interactive command line, `heal: all` among them. Seconds
are emulated ones; without a `time_scale` they are real.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

from experiments.emulation.choice import chosen
from experiments.emulation.failures import KINDS, Failure, failure_of, part_of, share_of
from experiments.emulation.first_placement import WHERE
from experiments.emulation.testbed_options import CONTROLLERS, ORCHESTRATOR
from experiments.errors import ExperimentError
from microservices.application import Application
from microservices.application_file import NOT_YAML
from topologies.inventory import Inventory

MOST_SECONDS, MOST_STEPS, MOST_CLIENTS = 3600.0, 1000, 16
LEAST_BIN_S, MOST_BINS = 0.01, 5000
ALL = "all"
CHECKER = "store-checker"  # a load whose every reply is determined: see store_checker.py
SPEEDS = ("unpaced", "calibrated")


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done `at_s` seconds after the load has begun: one of `fail`, `heal` and `migrate`."""

    at_s: float
    fail: str = ""
    heal: str = ""
    migrate: str = ""


class ScenarioLoad(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What each of `clients` sends: as in ClientConfig. `workload` "": the application's own."""

    clients: int = 1
    rate_rps: float = 0.0
    flows: int = 16
    window: int = 1
    payload_bytes: int = 512
    timeout_s: float = 5.0
    workload: str = ""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that the file says. `most_lost`: requests that may go unanswered, None for any number.

    `replicate`: every instance that can have a backup has one.
    """

    title: str
    seconds: float
    steps: tuple[Step, ...]
    cluster: str = "type1x3"
    application: str = "nfv-fin"
    shards: int = 3
    where: str = "mixed"
    replicate: bool = False
    orchestrator: str = "watch"
    controllers: int = 1
    speed: str = "unpaced"
    time_scale: float = 1.0
    bin_s: float = 0.25
    load: ScenarioLoad = ScenarioLoad()
    most_lost: int | None = None


class Move(NamedTuple):
    """An instance, as APPLICATION/INSTANCE, and the node that it is to go to."""

    instance: str
    node: str


class Planned(NamedTuple):
    """A step as it will be done: `verb` is "fail" or "heal" of a failure, or "migrate" of a move."""

    at_s: float
    verb: str
    what: Failure | Move

    @property
    def words(self) -> str:
        if isinstance(self.what, Move):
            return f"{self.verb} {' '.join(self.what)}"
        return f"{self.verb} {self.what.words if self.verb == 'fail' else self.what.heal_words}"


def read_scenario(path: Path) -> Scenario:
    """Read a scenario; raises ExperimentError that names the file and what is wrong in it."""
    try:
        data = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ExperimentError(f"{path}: {error.strerror}") from error
    except NOT_YAML as error:
        raise ExperimentError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        scenario = msgspec.convert(data, Scenario)
        check(scenario)
    except (msgspec.ValidationError, ExperimentError) as error:
        raise ExperimentError(f"{path}: {error}") from error
    return scenario


def check(scenario: Scenario) -> None:
    """Raise ExperimentError, with value and limit, for what cannot be on any rack."""
    s, load = scenario, scenario.load
    limits: tuple[tuple[str, float, float, float], ...] = (
        ("seconds", s.seconds, LEAST_BIN_S, MOST_SECONDS), ("bin_s", s.bin_s, LEAST_BIN_S, s.seconds),
        ("shards", s.shards, 1, 256), ("steps", len(s.steps), 0, MOST_STEPS), ("time_scale", s.time_scale, 1, 10_000),
        ("load.clients", load.clients, 1, MOST_CLIENTS), ("load.rate_rps", load.rate_rps, 0, math.inf),
        ("load.timeout_s", load.timeout_s, LEAST_BIN_S, math.inf))
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise ExperimentError(f"{name} is {value:g}; the limits are {least:g} and {most:g}")
    if s.seconds / s.bin_s > MOST_BINS:
        raise ExperimentError(f"bin_s is {s.bin_s:g}: {s.seconds:g} s have more than {MOST_BINS} of them")
    for name, word, words in (("where", s.where, WHERE), ("orchestrator", s.orchestrator, ORCHESTRATOR),
                              ("speed", s.speed, SPEEDS)):
        if word not in words:
            raise ExperimentError(f"{name} is {word!r}; there are {', '.join(words)}")
    if s.controllers not in CONTROLLERS:
        raise ExperimentError(f"controllers is {s.controllers}; there can be {' or '.join(map(str, CONTROLLERS))}")
    if s.speed == "unpaced" and s.time_scale != 1:
        raise ExperimentError(f"time_scale is {s.time_scale:g}: only at calibrated speed is time scaled")
    if s.replicate and s.orchestrator == "off":
        raise ExperimentError("replicate: backups are the resource controller's to place, and orchestrator is off")
    if load.workload == CHECKER and (load.flows != 1 or s.application != "kvs"):
        raise ExperimentError(f"{CHECKER} knows the replies of application kvs on one flow, not of {s.application} on "
                              f"{load.flows}: say `application: kvs` and `flows: 1`")


def plan_of(scenario: Scenario, inventory: Inventory, application: Application) -> list[Planned]:
    """Return the steps in order of time, with every name looked up on the rack and in the application.

    Raises ExperimentError, naming the step, for a name that is not there, a part that has failed already, one that has
    not and is to be healed, or an instance that cannot move.
    """
    broken: list[Failure] = []
    plan: list[Planned] = []
    for number, step in sorted(enumerate(scenario.steps, start=1), key=lambda pair: pair[1].at_s):
        try:
            plan += _planned(step, broken, scenario, inventory, application)
        except ExperimentError as error:
            raise ExperimentError(f"step {number}: {error}") from error
    return plan


def _planned(step: Step, broken: list[Failure], scenario: Scenario, inventory: Inventory,
             application: Application) -> list[Planned]:
    said = {"fail": step.fail, "heal": step.heal, "migrate": step.migrate}
    verbs = [verb for verb, words in said.items() if words.strip()]
    if len(verbs) != 1:
        asked = f"{' and '.join(verbs)} are" if verbs else "nothing is"
        raise ExperimentError(f"{asked} to be done: say one of {', '.join(said)}")
    if not 0 <= step.at_s <= scenario.seconds:
        raise ExperimentError(f"at_s is {step.at_s:g}; the limits are 0 and {scenario.seconds:g}, when the load ends")
    words = said[verbs[0]].split()
    if step.heal:
        return [Planned(step.at_s, "heal", failure) for failure in _healed(words, step.at_s, broken, inventory)]
    if step.migrate:
        return [Planned(step.at_s, "migrate", _move(words, scenario, inventory, application))]
    return [Planned(step.at_s, "fail", _failed(words, step.at_s, broken, scenario, inventory))]


def _healed(words: list[str], at_s: float, broken: list[Failure], inventory: Inventory) -> list[Failure]:
    if words == [ALL]:
        healed, broken[:] = broken[::-1], []
        return healed
    part = part_of(inventory, words[0], words[1:])
    found = next((f for f in broken if f.same_part(part)), None)
    if found is None:
        listed = "; ".join(f.heal_words for f in broken) or "nothing"
        raise ExperimentError(f"{part.heal_words} has not failed at {at_s:g} s; what has: {listed}")
    broken.remove(found)
    return [found]


def _failed(words: list[str], at_s: float, broken: list[Failure], scenario: Scenario, inventory: Inventory) -> Failure:
    takes_share = words[0] in KINDS and KINDS[words[0]].takes_share and len(words) > 2
    share = share_of(words.pop()) if takes_share else 0.0
    failure = failure_of(inventory, words[0], words[1:], share)
    if any(f.same_part(failure) for f in broken):
        raise ExperimentError(f"{failure.heal_words} has failed already at {at_s:g} s, and is not healed")
    if failure.kind == "controller" and scenario.orchestrator == "off":
        raise ExperimentError("there is no resource controller: orchestrator is off")
    broken.append(failure)
    return failure


def _move(words: list[str], scenario: Scenario, inventory: Inventory, application: Application) -> Move:
    if len(words) != 2:
        raise ExperimentError(f"migrate {' '.join(words)!r}: say an instance and the node that it is to go to")
    if scenario.orchestrator == "off":
        raise ExperimentError("there is nobody to move an instance: orchestrator is off")
    instances = {i.name: i for i in application.instances if not i.backup}
    instance = instances[chosen(words[0].removeprefix(f"{application.name}/"), list(instances), "instance")]
    node = chosen(words[1], [n.name for role in ("host", "smartnic") for n in inventory.of_role(role)],
                  "host or SmartNIC")
    if scenario.replicate and application.stage(instance.stage).backups:
        raise ExperimentError(f"{instance.name} has a backup, and what is replicated does not move")
    return Move(f"{application.name}/{instance.name}", node)
