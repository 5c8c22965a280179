"""Measures a testbed under load over a window in the middle: what clients got, what nodes did, whether it kept up.

    clients start > enough requests are through that queues are what they will be > snapshot of all counters >
    as many as wanted > snapshot > clients stop

Between the snapshots lies the window: its throughput and latencies are those of the replies that fell into it. Frames
that no emulated queue dropped count from before the clients start: what one of them holds up, it holds up for long.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from experiments.clients.latencies import Latencies, summary_of
from experiments.clients.load import ClientConfig, ClientResult
from experiments.emulation.running import RunningClient
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits, Observed, Verdict, judge
from experiments.measurement.machine_load import LoadMeter, MachineLoad
from experiments.measurement.port_use import PortUse, port_snapshot, utilisation
from nodes import programs
from nodes.deployment import Deployment
from nodes.lateness import summary
from nodes.node_report import LEFT_OUT
from nodes.switch_sockets import not_sent

LOOK_REAL_S = 0.05
SNAPSHOT_WITHIN_S = 10.0  # an agent whose machine is busy answers late; when a counter was read, it says itself
END_TIMEOUT_S = 60.0
Snapshot = dict[str, dict[str, int]]  # counters by node
_DROPS = re.compile(r",d(\d+)\)")


class Begun(NamedTuple):
    """What had been counted before a load began."""

    counters: Snapshot
    switch_drops: int


class Plan(msgspec.Struct, frozen=True):
    """How long to measure: `warm_requests` first, then a window of `requests`; never longer than `most_real_s`."""

    requests: int = 3000
    warm_requests: int = 600
    most_real_s: float = 60.0


USUAL_PLAN = Plan()


class Measurement(msgspec.Struct, frozen=True):
    """A window of a run, in emulated units. `before` and `after` are all counters of all nodes at its ends."""

    time_scale: float
    window_s: float
    replies: int
    throughput_rps: float
    latencies: Latencies
    verdict: Verdict
    before: Snapshot
    after: Snapshot
    clients: dict[str, ClientResult]
    machine: MachineLoad
    ports: dict[str, PortUse]

    def delta(self, node: str, counter: str) -> int:
        return self.after[node].get(counter, 0) - self.before[node].get(counter, 0)

    def node_window_s(self, node: str) -> float:
        """Return the time between the two reports of `node`."""
        return self.delta(node, "now_ns") / 1e9

    def busy_cores(self, node: str) -> float:
        """Return how many cores of `node` were executing on average."""
        busy_ns = sum(self.delta(node, name) for name in self.after[node] if name.startswith("busy_ns "))
        return busy_ns / self.delta(node, "now_ns")

    def bad(self) -> dict[str, int]:
        """Return how many requests ended otherwise than by one right reply, by how."""
        names = ("errors", "wrong", "lost", "late", "duplicated", "foreign")
        found = {name: sum(getattr(r, name) for r in self.clients.values()) for name in names}
        return {name: count for name, count in found.items() if count}

    def content(self) -> dict[str, Any]:
        """Return what belongs in a manifest."""
        content: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(self, clients={}, before={}, after={}))
        content["clients"] = {name: result.content() for name, result in self.clients.items()}
        content["nodes"] = {node: {name: self.delta(node, name) for name in counters if " below_ns " not in name}
                            for node, counters in self.after.items()}
        return content


def measure(bed: Testbed, configs: Mapping[str, ClientConfig], plan: Plan = USUAL_PLAN,
            limits: FidelityLimits = USUAL_LIMITS, meanwhile: Callable[[], None] = lambda: None) -> Measurement:
    """Put `bed` under the load of `configs`, a client config by client node, and measure; `meanwhile` runs once.

    Requests of earlier clients are none of the `plan.warm_requests`. Raises ExperimentError if clients fail, or if no
    request comes through.
    """
    deployments = [c.deployment for c in configs.values()]
    begun = _begun(bed)
    return measure_running(bed, start_clients(bed, configs), deployments, plan, limits, meanwhile, begun)


def start_clients(bed: Testbed, configs: Mapping[str, ClientConfig]) -> dict[str, RunningClient]:
    """Start clients that ask without end, each by a number that no other has.

    They come one after the other to the same agents: without one, a client would hear what the last one left.
    """
    return {name: bed.start_client(name, msgspec.structs.replace(
        config, requests=0, drain_real_s=1.0, client_number=bed.next_client_number(), drawn_as=config.draw))
        for name, config in configs.items()}


def measure_running(bed: Testbed, running: Mapping[str, RunningClient], deployments: list[Deployment], plan: Plan,
                    limits: FidelityLimits = USUAL_LIMITS, meanwhile: Callable[[], None] = lambda: None,
                    begun: Begun | None = None) -> Measurement:
    """Measure a window of the load of clients that are at work, and stop them; as `measure` does.

    The window begins when `plan.warm_requests` more have entered than when it was `begun`; None: than have by now.
    """
    entries = _entry_counters(deployments)
    try:
        begun = _begun(bed) if begun is None else begun
        _wait(bed, entries, _handled(begun.counters, entries), plan.warm_requests, plan.most_real_s)
        meter = LoadMeter({**bed.process_pids(), **{name: client.pid for name, client in running.items()}},
                          own_seconds=bed.cpu_seconds)
        ports = port_snapshot(bed)
        before = snapshot(bed)
        meanwhile()
        _wait(bed, entries, _handled(before, entries), plan.requests, plan.most_real_s)
        after = snapshot(bed)
        gbps = {port.interface: port.gbps for port in bed.inventory.ports}
        use = utilisation(ports, port_snapshot(bed), gbps)
        machine = meter.read()
        dropped = switch_drops(bed) - begun.switch_drops
    finally:
        for client in running.values():
            client.stop()
    results = {name: client.result(END_TIMEOUT_S) for name, client in running.items()}
    return _measurement(bed, results, begun, before, after, machine, use, dropped, limits)


def _begun(bed: Testbed) -> Begun:
    return Begun(bed.counters(), switch_drops(bed))


def _measurement(bed: Testbed, results: dict[str, ClientResult], begun: Begun, before: Snapshot, after: Snapshot,
                 machine: MachineLoad, ports: dict[str, PortUse], dropped: int, limits: FidelityLimits) -> Measurement:
    began, ended = (max(counters["now_ns"] for counters in taken.values()) / 1e9 for taken in (before, after))
    found = []
    for result in results.values():
        answered_s, latencies_s = result.replies()
        found.append(latencies_s[(answered_s >= began) & (answered_s < ended)])
    latencies_s = np.concatenate(found)
    latencies = summary_of(latencies_s)
    verdict = judge(observed(before, after, results, latencies, machine, dropped, begun.counters), limits)
    return Measurement(bed.pacing.time_scale, ended - began, len(latencies_s), len(latencies_s) / (ended - began),
                       latencies, verdict, before, after, results, machine, ports)


def observed(before: Snapshot, after: Snapshot, results: Mapping[str, ClientResult], latencies: Latencies,
             machine: MachineLoad, dropped: int, begun: Snapshot | None = None) -> Observed:
    """Return what a verdict needs to know of the time between two snapshots; `dropped` are the switches' frames.

    Nodes' drops count from `begun` on, if that is given.
    """
    begun = before if begun is None else begun
    sources = {node: _judged(after[node], before[node], begun.get(node, {})) for node in after
               if any(_grew(name, after[node], before[node]) for name in _AT_WORK)}
    for name, result in results.items():
        sources[name] = {"late_p50_ns": result.behind.p50_ns, "late_p99_ns": result.behind.p99_ns,
                         "turn_p99_ns": result.turns.p99_ns, "dropped_socket": result.dropped_socket}
    return Observed(sources, latencies.mean_s, latencies.count, {"the switches' sockets": dropped} if dropped else {},
                    machine.machine_cpu, machine.process_cpu, machine.busiest_process, machine.own_cpu)


def _judged(after: dict[str, int], before: dict[str, int], begun: dict[str, int]) -> dict[str, int]:
    """Return what the verdict looks at, of one node's window, and of its drops since it was begun."""
    late, turn = summary("late", after, before), summary("turn", after, before)
    names = ("overruns", "overrun_ns", "throttled_ns")
    return {**{name: after.get(name, 0) - before.get(name, 0) for name in names},
            "dropped_socket": sum(after.get(name, 0) - begun.get(name, 0)
                                  for name in ("dropped_socket", "dropped_unsent")),
            "finishes": late.count, "late_p50_ns": late.p50_ns, "late_p99_ns": late.p99_ns,
            "late_max_ns": late.max_ns, "turn_p50_ns": turn.p50_ns, "turn_p99_ns": turn.p99_ns,
            "turn_max_ns": turn.max_ns}


_AT_WORK = ("to_network", "to_host", "handled ")  # counters of a node that has a part in the load


def _grew(prefix: str, after: dict[str, int], before: dict[str, int]) -> bool:
    return any(value > before.get(name, 0) for name, value in after.items() if name.startswith(prefix))


def _entry_counters(deployments: list[Deployment]) -> set[str]:
    """Return the counters that grow by one with each request that enters an application."""
    names = set()
    for deployment in deployments:
        application = deployment.application()
        first = application.sources[0]
        names |= {f"handled {application.name}/{i.name}" for i in application.instances if i.stage == first}
    return names


def _handled(taken: Snapshot, entries: set[str]) -> int:
    return sum(counters.get(name, 0) for counters in taken.values() for name in entries)


def snapshot(bed: Testbed) -> Snapshot:
    """Ask every node for its counters; raises ExperimentError if one does not answer."""
    found = bed.counters(timeout_s=SNAPSHOT_WITHIN_S)
    if len(found) < len(bed.agents):
        raise ExperimentError(f"no report from {', '.join(sorted(set(bed.agents) - set(found)))}")
    for node, counters in found.items():
        if LEFT_OUT in counters:
            raise ExperimentError(f"the report of {node} left out {counters[LEFT_OUT]} counters, for it is one message")
        counters["throttled_ns"] = bed.throttled_ns(node)
    return found


def _wait(bed: Testbed, entries: set[str], done: int, requests: int, most_real_s: float) -> None:
    """Wait till `requests` more than `done` have entered; raises ExperimentError if none comes."""
    deadline = time.monotonic() + most_real_s
    entered = done
    while entered < done + requests:
        if time.monotonic() > deadline:
            if entered > done:
                return
            raise ExperimentError(f"no request was handled within {most_real_s:g} s")
        time.sleep(LOOK_REAL_S)
        entered = _handled(bed.counters(), entries)


def switch_drops(bed: Testbed) -> int:
    """Return the frames that the switches lost because their sockets' buffers were full, as far as they say so.

    Raises WorldError if what their sockets lost cannot be asked for.
    """
    said = programs.run([programs.find_binary("ss"), "-0", "-n", "-m"])
    return sum(int(number) for number in _DROPS.findall(said)) + not_sent(bed.world.switch_log)
