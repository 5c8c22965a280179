"""A rack under a load that rises, and what its resource controller makes of it, second by second.

    c1 alone, a light load  -->  the other clients join  -->  ... till the controller has been quiet for a while

On packets or in virtual time, and the same in both: agents report every 50 ms, the controller answers with commands,
instances move with their state and channels, clients follow. A window of the load that is left at the end is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from controller.control_requests import ToldTimeline
from controller.controller_events import ControllerEvent
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from experiments.clients.load import ClientConfig
from experiments.emulation.testbed import Testbed
from experiments.measurement.measuring import Measurement, Plan, measure_running, start_clients
from experiments.measurement.peak import in_closed_loop
from experiments.measurement.replayed_orchestrator import WARM_TURNS, Moved, Orchestrated
from experiments.measurement.simulated_bed import SimulatedBed
from microservices.application import Instance
from nodes.control_messages import HEARTBEAT_S
from nodes.deployment import Deployment
from topologies.inventory import Inventory

TIMEOUT_S = 1e4
MOST_S = 30.0  # emulated, of full load: then it is measured whether the controller is quiet or not
LOOK_S, LOOK_REAL_S = 0.1, 0.25  # emulated in virtual time, real on packets
CURVE_S = 0.1  # a point of the curve
VERDICT = "verdict"


class Risen(msgspec.Struct, frozen=True):
    """What came of a rise at `rise_s`: the controller's decisions, and a window of the load at the end.

    `curve` holds (seconds since the rise, requests/s, mean latency in seconds) of every 0.1 s, `migrations` how each
    went; `quiet` is false where the controller was still at it after MOST_S.
    """

    outcome: Orchestrated
    measured: Measurement
    rise_s: float
    curve: tuple[tuple[float, float, float], ...]
    migrations: tuple[ToldTimeline, ...]
    quiet: bool


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long to wait, in emulated seconds: `light_s` till every instance is known, `quiet_s` for another decision."""

    light_s: float
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Rise:
    """What is to happen: `deployment` is asked with `light`, then with `full` requests outstanding."""

    deployment: Deployment
    light: int
    full: int
    options: OverloadOptions

    def pauses(self) -> Pauses:
        """Return how long it takes at least.

        Instances take turns in heartbeats, so both go by the node with the most of them. Marginal alarms rest for a
        minute after a decision and are not waited for: by then averages have followed.
        """
        on: dict[str, int] = {}
        for place in self.deployment.places:
            on[place.node] = on.get(place.node, 0) + 1
        turn_s = HEARTBEAT_S * max(on.values()) * 20 / 19  # one in twenty tells the boot number
        return Pauses((self.options.warm_up_reports + WARM_TURNS) * turn_s,
                      self.options.gross_hold_down_s + (self.options.reports + WARM_TURNS) * turn_s)

    def clients(self, inventory: Inventory) -> tuple[dict[str, ClientConfig], dict[str, ClientConfig]]:
        """Return the client that is there from the start, and those that join, at least one."""
        deployment = self.deployment
        configs = {node.name: ClientConfig(node.ip, number, deployment, deployment.name, timeout_s=TIMEOUT_S,
                                           seed=number)
                   for number, node in enumerate(inventory.of_role("client"), start=1)}
        (first, config), *others = configs.items()
        share, more = divmod(self.full - self.light, len(others))
        return ({first: in_closed_loop(config, self.light)},
                {name: in_closed_loop(other, share + (i < more)) for i, (name, other) in enumerate(others)})


def risen_virtually(bed: SimulatedBed, rise: Rise, plan: Plan) -> Risen:
    """Play a rise in virtual time. The bed must have two clients or more, and a controller's node."""
    bed.repace(bed.pacing, (rise.deployment,))
    controller = ResourceController(bed.inventory, (rise.deployment,), options=rise.options)
    first, others = rise.clients(bed.inventory)
    wait = rise.pauses()
    run = bed.begin(first, controller)
    run.play_till(wait.light_s)
    rise_s = run.now
    run.join(others)
    quiet = False
    while not quiet and run.now < rise_s + MOST_S:
        run.play_till(run.now + LOOK_S)
        quiet = run.now - _last_step_s(controller.events, rise_s) >= wait.quiet_s and not controller.control.open
    found = run.measured(plan)
    return _risen(rise, found, rise_s, list(controller.events), [ToldTimeline.of(line) for line in
                                                                controller.timelines.values()],
                  {number: node for (_, number), node in controller.where.node_of.items()}, quiet)


def risen_on_packets(bed: Testbed, rise: Rise, plan: Plan) -> Risen:
    """Play a rise on packets. The testbed's orchestrator must be on, with the rise's options; it is repaced."""
    bed.repace(bed.pacing, (rise.deployment,))
    resource, now = bed.asked(), bed.clock.reader()
    first, others = rise.clients(bed.inventory)
    wait = rise.pauses()
    running = start_clients(bed, first)
    try:
        light_till_s = now() + wait.light_s
        while now() < light_till_s:
            time.sleep(LOOK_REAL_S)
        running |= start_clients(bed, others)
        rise_s = now()
        events: list[ControllerEvent] = []
        quiet = False
        while not quiet and now() < rise_s + MOST_S:
            time.sleep(LOOK_REAL_S)
            events += resource.events(events[-1].sequence if events else 0)
            quiet = now() - _last_step_s(events, rise_s) >= wait.quiet_s and not resource.state().under_way
    except BaseException:
        for client in running.values():
            client.stop()
        raise
    found = measure_running(bed, running, [rise.deployment], plan)
    events += resource.events(events[-1].sequence if events else 0)
    return _risen(rise, found, rise_s, events, list(resource.timelines()),
                  {number: node for _, number, node, _ in resource.places()}, quiet)


def _risen(rise: Rise, found: Measurement, rise_s: float, events: list[ControllerEvent], lines: list[ToldTimeline],
           nodes: dict[int, str], quiet: bool) -> Risen:
    deployment = rise.deployment
    names = {f"{deployment.name}/{i.name}": i for i in deployment.application().instances}
    end_s = max(counters["now_ns"] for counters in found.after.values()) / 1e9
    return Risen(Orchestrated(decisions(events, lines, names, rise_s), dict(sorted(nodes.items()))), found, rise_s,
                 curve_of(found, rise_s, end_s), tuple(lines), quiet)


def decisions(events: Iterable[ControllerEvent], lines: Iterable[ToldTimeline], names: Mapping[str, Instance],
              rise_s: float) -> tuple[Moved, ...]:
    """Return what a controller decided: moves, and alarms that moved nothing. `names` gives what instances are."""
    found = []
    for line in lines:
        cause, _, why = line.why.partition("; ")
        instance = names[line.instance]
        found.append(Moved(line.began_s - rise_s, cause, None, instance.name, instance.service, line.source,
                           line.destination if line.outcome != "stayed" else "", why))
    for event in events:
        if event.what == VERDICT and not event.instance:
            cause, _, why = event.detail.partition("; ")
            found.append(Moved(event.now_s - rise_s, cause, None, "", "", event.node, "", why))
    return tuple(sorted(found, key=lambda move: move.at_s))


def curve_of(found: Measurement, rise_s: float, end_s: float) -> tuple[tuple[float, float, float], ...]:
    """Return throughput and mean latency over time, from a second before the rise on."""
    replies = [client.replies() for client in found.clients.values()]
    answered_s, latencies_s = (np.concatenate(column) for column in zip(*replies, strict=True))
    edges = np.arange(max(-1.0, -rise_s), end_s - rise_s, CURVE_S)
    counts, _ = np.histogram(answered_s - rise_s, edges)
    sums, _ = np.histogram(answered_s - rise_s, edges, weights=latencies_s)
    return tuple((float(at), float(count / CURVE_S), float(total / count) if count else 0.0)
                 for at, count, total in zip(edges[:-1], counts, sums, strict=True))


def _last_step_s(events: Iterable[ControllerEvent], rise_s: float) -> float:
    """Return when a migration last began or went on; `rise_s` if none did."""
    return max((event.now_s for event in events if event.migration), default=rise_s)
