"""Where the orchestrator moves an application's microservices when load rises, without playing every second of it.

    light load, measured in virtual time --heartbeats--> Orchestrator      till averages have formed
    full load, measured                  --heartbeats--> Orchestrator --a move--> measured anew ... till it is quiet

A decision takes seconds of 50 ms heartbeats, in which an application serves millions of requests, one like the other.
Queues settle within milliseconds. So a few thousand requests are played for each placement; what nodes would tell of
them every 50 ms goes, as the bytes that they would send, into the orchestrator that a testbed runs. What is left out:
the noise from one heartbeat to the next, and what a migration costs while it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

import msgspec
import numpy as np
import numpy.typing as npt

from controller.load_table import NOWHERE, NodeTable, PlacedInstance
from controller.orchestrator import Move, Orchestrator
from controller.overload import GROSS, OverloadOptions
from experiments.clients.load import ClientConfig
from experiments.measurement.measuring import Plan
from experiments.measurement.peak import settled, shared_out
from experiments.measurement.simulated_bed import SimulatedBed
from microservices.application import Application, Instance
from microservices.service import service_class
from nodes.control_messages import HEARTBEAT_S
from nodes.deployment import Deployment, deploy
from nodes.load_report import InstanceLoad, LoadReporter, NodeLoad
from nodes.node_control import reports_of
from topologies.inventory import Inventory, NodeEntry

MIGRATION_S = 0.1  # section 5.6: "the time taken to migrate the service (on the order of 10s-100s of ms)"
WARM_TURNS = 2  # more than the detectors need, of every instance of the fullest node, under the light load
MOST_S = 240.0  # of full load: by then the orchestrator is taken to have settled, or never to
TIMEOUT_S = 1e4


class Moved(msgspec.Struct, frozen=True):
    """A decision. `at_s` counts from the rise of the load; `destination` is "" where nothing moved, as `why` says.

    `gross`: whether the alarm was far over its threshold; None where nobody told.
    """

    at_s: float
    cause: str
    gross: bool | None
    instance: str
    service: str
    source: str
    destination: str
    why: str


class Orchestrated(msgspec.Struct, frozen=True):
    """What the orchestrator made of a placement: all its decisions, and where the instances are at the end."""

    decisions: tuple[Moved, ...]
    nodes: dict[int, str]

    @property
    def moves(self) -> tuple[Moved, ...]:
        return tuple(d for d in self.decisions if d.destination)


@dataclass(frozen=True, slots=True)
class Stationary:
    """What one second of a load is on every node, by its name, and on every instance, by its number.

    `instances`: requests finished, their execution time and core time in seconds; `carried`: bytes sent and received.
    """

    queue_least: Mapping[str, int]
    carried: Mapping[str, tuple[float, float]]
    instances: Mapping[int, tuple[float, float, float]]


def stationary(bed: SimulatedBed, deployment: Deployment, outstanding: int, requests: int) -> Stationary:
    """Measure `deployment` with so many requests outstanding, in virtual time."""
    configs = {node.name: ClientConfig(node.ip, number, deployment, deployment.name, timeout_s=TIMEOUT_S, seed=number)
               for number, node in enumerate(bed.inventory.of_role("client"), start=1)}
    bed.repace(bed.pacing, (deployment,))
    run = bed.begin(shared_out(configs, outstanding))
    plan = settled(Plan(requests, requests // 4), outstanding)
    run.play(plan.warm_requests)
    before, began_s = run.loads(), run.now
    run.play(plan.requests)
    after, seconds = run.loads(), run.now - began_s
    run.stop()

    def rate(node: str, of: Callable[[NodeLoad], float]) -> float:
        return (of(after[node]) - of(before[node])) / seconds

    instances = {}
    for node, load in after.items():
        for key, now in load.instances.items():
            then = before[node].instances[key]
            instances[key[1]] = ((now.finished - then.finished) / seconds,
                                 (now.executed_ns - then.executed_ns) / 1e9 / seconds,
                                 (now.busy_ns - then.busy_ns) / 1e9 / seconds)
    return Stationary({node: load.queue_least_frames for node, load in after.items()},
                      {node: (rate(node, lambda load: load.transmitted_bytes),
                              rate(node, lambda load: load.received_bytes)) for node in after}, instances)


class _Instances:
    """What each instance has done since it came to its node, second by second of a stationary load."""

    def __init__(self, application: int) -> None:
        self._application = application
        self._done: dict[int, tuple[float, float, float]] = {}

    def left(self, number: int) -> None:
        self._done.pop(number, None)

    def after(self, numbers: Iterator[int], load: Stationary, seconds: float) -> dict[tuple[int, int], InstanceLoad]:
        found = {}
        for number in numbers:
            done = self._done.get(number, (0.0, 0.0, 0.0))
            finished, executed_s, busy_s = (d + r * seconds for d, r in zip(done, load.instances[number], strict=True))
            self._done[number] = finished, executed_s, busy_s
            found[self._application, number] = InstanceLoad(int(finished), round(executed_s * 1e9),
                                                            round(busy_s * 1e9))
        return found


class _Fleet:
    """The nodes as the orchestrator sees them: heartbeats."""

    def __init__(self, inventory: Inventory, application: Application, nodes: dict[int, str],
                 options: OverloadOptions) -> None:
        self.where = dict(nodes)
        self.slot = 0
        self._entries = [n for n in inventory.nodes if n.role in ("host", "smartnic")]
        self.names = [n.name for n in self._entries]
        self.instances: dict[int, Instance] = {i.number: i for i in application.instances}
        self._reporters = {n.name: LoadReporter(n.cores, reports_of(n, inventory, (n.ip,)).port_gbps, 1, 0.0)
                           for n in self._entries}
        self._done = _Instances(application.number)
        self._carried = dict.fromkeys(self.names, (0.0, 0.0))
        self._sources = np.array([int(IPv4Address(n.ip)) for n in self._entries], dtype=np.uint32)
        self.orchestrator = Orchestrator(_node_table(self._entries, inventory, self._sources),
                                         [self._placed(application, n, options) for n in nodes], options)

    def beat(self, load: Stationary) -> list[Move]:
        """Let 50 ms of `load` pass, and return what the orchestrator wants then."""
        self.slot += 1
        now_s = self.slot * HEARTBEAT_S
        said = b""
        for name in self.names:
            instances = self._done.after((n for n, node in self.where.items() if node == name), load, HEARTBEAT_S)
            sent, came = (c + r * HEARTBEAT_S for c, r in zip(self._carried[name], load.carried[name], strict=True))
            self._carried[name] = sent, came
            said += self._reporters[name].heartbeat(
                NodeLoad(load.queue_least[name], round(sent), round(came), instances), now_s).encode()
        return self.orchestrator.take(self._sources, said, now_s)

    def arrive(self, move: Move) -> None:
        self.orchestrator.arrived(move.application, move.number, move.to)
        self.where[move.number] = self.names[move.to]
        self._done.left(move.number)

    def fullest(self) -> int:
        """Return how many instances take turns on the node with the most of them."""
        return max(sum(1 for node in self.where.values() if node == name) for name in self.names)

    def _placed(self, application: Application, number: int, options: OverloadOptions) -> PlacedInstance:
        service = self.instances[number].service
        kind = service_class(service)
        return PlacedInstance(application.number, number, self.names.index(self.where[number]), kind.memory_mb,
                              not kind.host_only and (not options.movable or service in options.movable))


def _node_table(entries: list[NodeEntry], inventory: Inventory, ips: npt.NDArray[np.uint32]) -> NodeTable:
    index = {n.name: i for i, n in enumerate(entries)}
    return NodeTable(ips, np.array([index[inventory.host_of(n).name] for n in entries], dtype=np.int32),
                     np.array([n.rack for n in entries], dtype=np.int32),
                     np.array([n.memory_gb * 1024 for n in entries]))


def orchestrated(bed: SimulatedBed, application: Application, nodes: dict[int, str], light: int, full: int,
                 options: OverloadOptions | None = None, requests: int = 3000) -> Orchestrated:
    """Return what the orchestrator does when `application`'s load rises from `light` to `full` outstanding requests.

    `nodes` says where its primaries are at first, by number. A load is measured over `requests`, or a few times what is
    outstanding if that is more.
    """
    options = options or OverloadOptions()
    fleet = _Fleet(bed.inventory, application, nodes, options)

    def measured(outstanding: int) -> Stationary:
        return stationary(bed, deploy(application, fleet.where, bed.inventory), outstanding, requests)

    decisions: list[Moved] = []
    turns = (options.warm_up_reports + WARM_TURNS) * fleet.fullest()
    at_light, risen = measured(light), turns
    load, coming = at_light, list[tuple[int, Move]]()
    quiet = options.slots(options.hold_down_s) + turns
    last = risen
    while fleet.slot < risen + min(options.slots(MOST_S), last - risen + quiet):
        if fleet.slot == risen:
            load = measured(full)
        for move in fleet.beat(load):
            decisions.append(_told(move, fleet, (fleet.slot - risen) * HEARTBEAT_S))
            if move.to != NOWHERE:
                last = fleet.slot
                coming.append((fleet.slot + options.slots(MIGRATION_S), move))
        there = [move for slot, move in coming if slot <= fleet.slot]
        if there:
            coming = [(slot, move) for slot, move in coming if slot > fleet.slot]
            for move in there:
                fleet.arrive(move)
            load = measured(full if fleet.slot >= risen else light)
    return Orchestrated(tuple(decisions), fleet.where)


def _told(move: Move, fleet: _Fleet, at_s: float) -> Moved:
    instance = fleet.instances.get(move.number)
    return Moved(at_s, move.cause, move.badness == GROSS, instance.name if instance else "",
                 instance.service if instance else "", fleet.names[move.node],
                 "" if move.to == NOWHERE else fleet.names[move.to], move.why)
