"""A rack under a load that rises, and what its resource controller makes of it, in virtual time and second by second.

    c1 alone, a light load  -->  the other clients join  -->  ... till the controller has been quiet for a while

Everything takes part that takes part on packets: agents report every 50 ms, the controller answers with commands,
instances move with their state and channels, clients follow. A window of the load that is left at the end is measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from controller.controller_events import ControllerEvent
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from controller.timeline import Timeline
from experiments.load import ClientConfig
from experiments.measuring import Measurement, Plan
from experiments.peak import in_closed_loop
from experiments.replayed_orchestrator import WARM_TURNS, Moved, Orchestrated
from experiments.simulated_bed import SimulatedBed
from microservices.application import Instance
from nodes.control_messages import HEARTBEAT_S
from nodes.deployment import Deployment

TIMEOUT_S = 1e4
MOST_S = 30.0  # emulated, of full load: then it is measured whether the controller is quiet or not
LOOK_S = 0.1
VERDICT = "verdict"


class Risen(msgspec.Struct, frozen=True):
    """What came of a rise. `curve` holds (seconds since the rise, requests/s) of every 0.1 s.

    `rise_s` is when the load rose. `steps_s` holds how long each step of each migration took, in seconds.
    """

    outcome: Orchestrated
    measured: Measurement
    curve: tuple[tuple[float, float], ...]
    rise_s: float
    steps_s: tuple[dict[str, float], ...]
    quiet: bool
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait, in emulated seconds: `light_s` till every instance is known, `quiet_s` for another decision."""

    light_s: float
    quiet_s: float


def pauses(deployment: Deployment, options: OverloadOptions) -> Pauses:
    """Return how long a rise takes at least.

    Instances take turns in heartbeats, so both go by the node with the most of them. Marginal alarms rest for a minute
    after a decision and are not waited for: by then averages have followed.
    """
    on: dict[str, int] = {}
    for place in deployment.places:
        on[place.node] = on.get(place.node, 0) + 1
    turn_s = HEARTBEAT_S * max(on.values()) * 20 / 19  # one in twenty tells the boot number
    return Pauses((options.warm_up_reports + WARM_TURNS) * turn_s,
                  options.gross_hold_down_s + (options.reports + WARM_TURNS) * turn_s)


def shares_of_rise(configs: Mapping[str, ClientConfig], light: int,
                   full: int) -> tuple[dict[str, ClientConfig], dict[str, ClientConfig]]:
    """Return the client that is there from the start, with `light` outstanding, and those that join, with the rest."""
    (first, config), *others = configs.items()
    share, more = divmod(full - light, len(others))
    return ({first: in_closed_loop(config, light)},
            {name: in_closed_loop(c, share + (i < more)) for i, (name, c) in enumerate(others) if share + (i < more)})


def risen(bed: SimulatedBed, deployment: Deployment, light: int, full: int, options: OverloadOptions, plan: Plan,
          automatic: bool = True) -> Risen:
    """Let the load of `deployment` rise from `light` to `full` outstanding requests; the bed must have two clients."""
    bed.repace(bed.pacing, (deployment,))
    controller = ResourceController(bed.inventory, (deployment,), automatic=automatic, options=options)
    configs = {node.name: ClientConfig(node.ip, number, deployment, deployment.name, timeout_s=TIMEOUT_S, seed=number)
               for number, node in enumerate(bed.inventory.of_role("client"), start=1)}
    first, others = shares_of_rise(configs, light, full)
    wait = pauses(deployment, options)
    run = bed.begin(first, controller)
    run.play_till(wait.light_s)
    rise_s = run.now
    run.join(others)
    curve: list[tuple[float, float]] = []
    quiet = False
    while not quiet and run.now < rise_s + MOST_S:
        before, began_s = run.replies, run.now
        run.play_till(began_s + LOOK_S)
        curve.append((run.now - rise_s, (run.replies - before) / (run.now - began_s)))
        quiet = run.now - last_decision_s(controller.events, rise_s) >= wait.quiet_s and not controller.control.open
    found = run.measured(msgspec.structs.replace(plan, warm_requests=0))
    names = {f"{deployment.name}/{i.name}": i for i in deployment.application().instances}
    outcome = Orchestrated(told(controller.events, controller.timelines.values(), names, rise_s),
                           {number: node for (_, number), node in sorted(controller.where.node_of.items())})
    return Risen(outcome, found, tuple(curve), rise_s,
                 tuple(dict(line.steps_s) for line in controller.timelines.values()), quiet, controller.counts())


def last_decision_s(events: Iterable[ControllerEvent], rise_s: float) -> float:
    """Return when an instance was last decided to move, or arrived; `rise_s` if none was."""
    return max((event.now_s for event in events if event.migration), default=rise_s)


def told(events: Iterable[ControllerEvent], lines: Iterable[Timeline], names: Mapping[str, Instance],
         rise_s: float) -> tuple[Moved, ...]:
    """Return the decisions of a controller: moves that came to pass or are under way, and alarms that moved nothing."""
    found = []
    for line in lines:
        cause, _, why = line.why.partition("; ")
        instance = names[line.instance]
        found.append(Moved(line.at["begin"] - rise_s, cause, False, instance.name, instance.service, line.source,
                           line.destination if line.outcome != "stayed" else "", why))
    for event in events:
        if event.what == VERDICT and not event.instance:
            cause, _, why = event.detail.partition("; ")
            found.append(Moved(event.now_s - rise_s, cause, False, "", "", event.node, "", why))
    return tuple(sorted(found, key=lambda move: move.at_s))
