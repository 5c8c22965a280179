"""One run in virtual time: clients are what they are told to be, and a window in the middle is measured."""

from __future__ import annotations

import math
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice

import numpy as np

from experiments.clients.arrivals import intended_times
from experiments.clients.latencies import summary_of
from experiments.clients.load import ClientConfig, ClientResult
from experiments.clients.payload_workload import PayloadWorkload
from experiments.clients.reply_judge import ReplyJudge
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import Figure, Verdict
from experiments.measurement.machine_load import MachineLoad
from experiments.measurement.measuring import Measurement, Plan, Snapshot
from experiments.measurement.port_use import PortUse
from microservices.routing import Router
from microservices.workloads import workload_named
from nodes.deployment import Deployment
from nodes.load_report import NodeLoad
from nodes.messages import DataMessage
from nodes.node_control import reports_of
from nodes.simulated import Simulation
from nodes.simulated_rack import RackNetwork

MAX_COMPLAINTS = 5
SLICE_S = 1.0  # virtual: how long nothing may come through before the real clock is looked at
EDGE_S = 2e-9  # a window ends so long after a reply: what comes at one time is in it or not, but never in part
LOOK_EVERY = 256  # replies between two looks at the real clock
# Virtual time waits for whatever is to be done in it: the verdict has one figure, and it always holds.
FAITHFUL = Verdict(True, (), (Figure("lateness of virtual time", "", 0.0, 0.0, "s"),))


class _Client:
    """One client: what it was told, its load, and what it makes of replies."""

    def __init__(self, name: str, told: ClientConfig, router: Router, simulation: Simulation,
                 heard: Callable[[], None]) -> None:
        workload = (PayloadWorkload(told.payloads) if told.payloads else
                    workload_named(told.workload, told.seed, told.payload_bytes, **told.options))
        self._told = told
        self._judge = ReplyJudge(told, workload)
        self._counts = dict.fromkeys(("answered", "errors", "wrong", "lost", "late"), 0)
        self._complaints: list[str] = []
        self._heard = heard
        made: Iterator[tuple[bytes, int]] = ((p, router.entry(p)) for p in workload.requests())
        if told.pool:
            made = cycle(list(islice(made, told.pool)))
        intended = (intended_times(simulation.network.now, told.rate_rps, told.arrivals, told.seed, told.draw)
                    if told.rate_rps else None)
        self.load = simulation.load(name, told.client_number, told.deployment, made, self._reply,
                                    told.window, told.flows, intended, told.outstanding)

    def _reply(self, payload: bytes, reply: DataMessage, sent_s: float) -> None:
        load = self.load
        if load.latencies_s[-1] > self._told.timeout_s:
            load.answered_s.pop()
            load.latencies_s.pop()
            self._counts["late"] += 1
            self._counts["lost"] += 1
            return
        what, complaint = self._judge.verdict(payload, reply, sent_s)
        self._counts[what] += 1
        if complaint and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.append(f"request {reply.request_id:#x}: {complaint}")
        self._heard()

    def result(self, now: float) -> ClientResult:
        """Return what came of it by `now`."""
        load = self.load
        overdue = sum(1 for sent_s, _ in load.waiting.values() if now - sent_s > self._told.timeout_s)
        counts = self._counts
        answered_s = np.frombuffer(load.answered_s)
        gaps = np.diff(answered_s, prepend=0.0)
        return ClientResult(
            load.sent, counts["answered"], counts["errors"], counts["wrong"], counts["lost"] + overdue, counts["late"],
            load.doubled, foreign=0, seconds=now,
            longest_gap_s=float(gaps.max()) if len(gaps) else 0.0, latencies=summary_of(load.latencies_s),
            complaints=self._complaints,
            resent=sum(flow.transport.counters()["channel_resent"] for flow in load.flows),
            checked=self._judge.checked, unfinished=len(load.waiting) - overdue,
            answered_s=load.answered_s.tobytes(), latencies_s=load.latencies_s.tobytes())


class SimulatedRun:
    """Clients at work on `simulation`, which must be calibrated, from the present time on, without end.

    `router` gives the microservices of a deployment. Raises NodeError or ExperimentError for clients that cannot be.
    """

    def __init__(self, simulation: Simulation, time_scale: float, configs: Mapping[str, ClientConfig],
                 router: Callable[[Deployment], Router]) -> None:
        assert isinstance(simulation.network, RackNetwork)
        self._simulation = simulation
        self._network = simulation.network
        self._time_scale = time_scale
        self._replies, self._wanted = 0, sys.maxsize
        self._deadline = math.inf
        self._router = router
        self._clients: dict[str, _Client] = {}
        self.join(configs)

    def join(self, configs: Mapping[str, ClientConfig]) -> None:
        """Let more clients begin at the present time, on nodes that have none yet."""
        for name, config in configs.items():
            if name in self._clients:
                raise ExperimentError(f"a second client on {name}")
            self._clients[name] = _Client(name, config, self._router(config.deployment), self._simulation,
                                          self._one_reply)

    def measured(self, plan: Plan) -> Measurement:
        """Measure a window of the replies that `plan` wants; raises ExperimentError if none comes."""
        self._wait(plan.warm_requests, plan.most_real_s)
        before, bytes_before = self._snapshot(), self._bytes()
        self._wait(plan.requests, plan.most_real_s)
        after, bytes_after = self._snapshot(), self._bytes()
        self.stop()
        return self._measurement(before, after, {name: bytes_after[name] - b for name, b in bytes_before.items()})

    def play(self, requests: int, most_real_s: float = 60.0) -> None:
        """Let time pass till so many more replies came, or the real time is up; raises ExperimentError for none."""
        self._wait(requests, most_real_s)

    def play_till(self, time_s: float) -> None:
        """Let time pass till it is `time_s`."""
        self._network.agenda.run(time_s)

    @property
    def replies(self) -> int:
        """How many replies have come so far."""
        return self._replies

    def latencies_s(self, client: str, since_s: float) -> list[float]:
        """Return the latencies of the replies that a client has had since then, in seconds."""
        load = self._clients[client].load
        return load.latencies_s[bisect_left(load.answered_s, since_s):].tolist()

    def queue_frames(self, smartnic: str) -> int:
        """Return how many frames wait in a SmartNIC's traffic manager."""
        return len(self._network.nics[smartnic].traffic)

    def stop(self) -> None:
        """Let clients ask no more."""
        for client in self._clients.values():
            client.load.stop()

    def loads(self) -> dict[str, NodeLoad]:
        """Return what every host and SmartNIC has counted so far, by name, as it would tell it in heartbeats."""
        found = {}
        for entry in self._simulation.inventory.nodes:
            if entry.role in ("host", "smartnic"):
                execution = self._simulation.runtime(entry.name).execution
                nic = self._network.nics.get(entry.name)
                carried = self._network.carried(reports_of(entry, self._simulation.inventory, (entry.ip,)).interfaces)
                found[entry.name] = NodeLoad(nic.traffic.take_least() if nic else execution.waiting, *carried,
                                             execution.loads())
        return found

    @property
    def now(self) -> float:
        """Return the virtual time."""
        return self._network.now

    @property
    def events(self) -> int:
        """What virtual time has been advanced by: arrivals at nodes and at the end of a link, and alarms."""
        return self._network.agenda.done

    @property
    def datagrams(self) -> int:
        return self._network.counters().sent

    def _measurement(self, before: Snapshot, after: Snapshot, moved_bytes: Mapping[str, int]) -> Measurement:
        began, ended = (max(counters["now_ns"] for counters in snapshot.values()) / 1e9 for snapshot in (before, after))
        results = {name: client.result(self._network.now) for name, client in self._clients.items()}
        found = []
        for result in results.values():
            answered_s, latencies_s = result.replies()
            found.append(latencies_s[(answered_s >= began) & (answered_s < ended)])
        latencies = np.concatenate(found)
        window_s = ended - began
        ports = {port.interface: PortUse(*(moved_bytes[name] * 8 / (port.gbps * 1e9 * window_s)
                                           for name in (port.interface, port.peer_interface)))
                 for port in self._simulation.inventory.ports}
        return Measurement(self._time_scale, window_s, len(latencies), len(latencies) / window_s,
                           summary_of(latencies.tolist()), FAITHFUL, before, after, results, MachineLoad(0.0), ports)

    def _one_reply(self) -> None:
        self._replies += 1
        if self._replies >= self._wanted or (not self._replies % LOOK_EVERY and time.monotonic() > self._deadline):
            self._network.agenda.stop()

    def _wait(self, requests: int, most_real_s: float) -> None:
        """Let time pass till so many more replies have come, or the real time is up."""
        before = self._replies
        self._wanted = before + requests
        self._deadline = time.monotonic() + most_real_s
        agenda, left = self._network.agenda, True
        while self._replies < self._wanted and left and time.monotonic() < self._deadline:
            left = agenda.run(agenda.now + SLICE_S)
        if requests and self._replies == before:
            raise ExperimentError(f"no request came through by {agenda.now:g} s of virtual time")
        self._wanted, self._deadline = sys.maxsize, math.inf
        agenda.run(agenda.now + EDGE_S)

    def _snapshot(self) -> Snapshot:
        return {name: {**counters, "dropped_socket": 0, "throttled_ns": 0}
                for name, counters in self._simulation.counters().items()}

    def _bytes(self) -> dict[str, int]:
        return {name: link.bytes for name, link in self._network.routes.links.items()}
