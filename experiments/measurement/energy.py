"""Power and energy of a cluster: from the counters of its nodes to watts, joules and requests per Joule.

Active power is what is drawn above idle, as in Table 1; wall power is idle and active power together, capped at the
server's peak, as in section 5. The two are kept apart everywhere. Clients, controllers and switches are not counted
(section 5 excludes the switch). All times are emulated. Pure: an agent's report goes in as it came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from experiments.errors import ExperimentError
from experiments.measurement.node_power import BUSY, LULL, CoreTime, PowerModel, core_time
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.measured import Column
from microservices.profiles import Service
from topologies.inventory import Inventory, NodeEntry, ServerEntry

Reports = Mapping[str, Mapping[str, int]]  # node name -> its counters, cumulative since it started

MAX_WINDOWS_KEPT = 10_000  # of a meter's time line; its joules count on


@dataclass(frozen=True, slots=True)
class NodePower:
    """A host or SmartNIC over one window. Cores are means: busy ones, idle ones that were awake, sleeping ones.

    cnMIPS cores do not sleep: there, all that are not busy count as awake.
    """

    name: str
    role: str
    busy_cores: float
    awake_cores: float
    sleeping_cores: float
    active_watts: float
    active_joules: float


@dataclass(frozen=True, slots=True)
class ServerPower:
    """A chassis over one window. `wall_watts` is `idle_watts` + `active_watts`, or its peak if that is less.

    `capped_watts` is what the cap took away, 0 if nothing. Joules are those that its nodes have reported; they are more
    than watts x the window where one caught up with what it had not reported before.
    """

    host: str
    model: str
    idle_watts: float
    active_watts: float
    wall_watts: float
    capped_watts: float
    active_joules: float
    wall_joules: float


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Requests per Joule, as in Table 1 (active) and as in section 5 (wall); None where nothing was drawn."""

    active_rpj: float | None
    wall_rpj: float | None


@dataclass(frozen=True, slots=True)
class WindowPower:
    """A cluster between two readings. `silent` names nodes that did not report and so count as drawing nothing above
    idle, as a SmartNIC does whose power was cut.
    """

    start_s: float
    end_s: float
    nodes: tuple[NodePower, ...]
    servers: tuple[ServerPower, ...]
    silent: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s

    @property
    def idle_watts(self) -> float:
        return sum(server.idle_watts for server in self.servers)

    @property
    def active_watts(self) -> float:
        return sum(server.active_watts for server in self.servers)

    @property
    def wall_watts(self) -> float:
        return sum(server.wall_watts for server in self.servers)

    @property
    def active_joules(self) -> float:
        return sum(server.active_joules for server in self.servers)

    @property
    def wall_joules(self) -> float:
        return sum(server.wall_joules for server in self.servers)

    def efficiency(self, requests: float) -> Efficiency:
        """Return requests per Joule for requests answered in this window."""
        return efficiency(requests, self.active_joules, self.wall_joules)

    def node(self, name: str) -> NodePower:
        for one in self.nodes:
            if one.name == name:
                return one
        raise ExperimentError(f"no power of {name!r}; there are {', '.join(n.name for n in self.nodes)}")

    def content(self) -> dict[str, Any]:
        """Return it for JSON, totals included."""
        totals = ("seconds", "idle_watts", "active_watts", "wall_watts", "active_joules", "wall_joules")
        return {**{name: getattr(self, name) for name in totals}, "start_s": self.start_s, "end_s": self.end_s,
                "nodes": self.nodes, "servers": self.servers, "silent": self.silent}


def efficiency(requests: float, active_joules: float, wall_joules: float) -> Efficiency:
    """Return requests per Joule of both kinds; raises ExperimentError for a negative number of requests."""
    if requests < 0:
        raise ExperimentError(f"{requests} requests; the least is 0")
    return Efficiency(requests / active_joules if active_joules else None,
                      requests / wall_joules if wall_joules else None)


def power_between(before: Reports, after: Reports, inventory: Inventory, stack: Column,
                  assumptions: Assumptions = DEFAULTS, services: Mapping[str, Service] | None = None) -> WindowPower:
    """Return the power of `inventory` between two readings of its nodes' counters.

    Of each node it takes "now_ns", "busy_ns SERVICE" and "lull_ns SERVICE"; "handled ..." tells that an instance is
    deployed. A node's window is that between its own two reports, the cluster's their mean. `stack` is the hosts'
    network stack; `services` gives classes of microservices that Table 1 does not have, by the names in the
    counters. Raises ExperimentError if no node reported, or one's clock did not go on; ServiceError for a microservice
    without profile.
    """
    model = PowerModel(inventory, stack, assumptions, services or {})
    counted = [node for node in inventory.nodes if node.role in ("host", "smartnic")]
    times = {node.name: _time_of(node, before, after) for node in counted
             if "now_ns" in before.get(node.name, ()) and "now_ns" in after.get(node.name, ())}
    if not times:
        raise ExperimentError(f"no host or SmartNIC of {inventory.cluster} reported its counters twice")
    start_s = fmean(before[name]["now_ns"] for name in times) / 1e9
    end_s = fmean(after[name]["now_ns"] for name in times) / 1e9
    nodes = {node.name: _node_power(model, node, times[node.name]) for node in counted if node.name in times}
    servers = []
    for host in inventory.of_role("host"):
        members = [nodes[n.name] for n in (host, *inventory.smartnics_of(host)) if n.name in nodes]
        servers.append(_server_power(inventory.server_of(host), members, end_s - start_s, assumptions.cap_at_peak))
    return WindowPower(start_s, end_s, tuple(nodes.values()), tuple(servers),
                       tuple(node.name for node in counted if node.name not in times))


def _time_of(node: NodeEntry, before: Reports, after: Reports) -> CoreTime:
    time = core_time(before[node.name], after[node.name])
    if time.window_s <= 0:
        raise ExperimentError(f"{node.name}: from {before[node.name]['now_ns']} ns to {after[node.name]['now_ns']} ns "
                              "its clock did not go on; a window is longer than 0")
    return time


def _node_power(model: PowerModel, node: NodeEntry, time: CoreTime) -> NodePower:
    busy = sum(time.busy_s.values()) / time.window_s
    lulls = sum(time.lull_s.values()) / time.window_s
    rest = max(0.0, node.cores - busy)
    awake = rest if node.family == "cnmips" else min(rest, lulls)
    watts = model.watts(node, time)
    return NodePower(node.name, node.role, busy, awake, rest - awake, watts, watts * time.window_s)


def _server_power(server: ServerEntry, members: list[NodePower], seconds: float, cap_at_peak: bool) -> ServerPower:
    active, joules = sum(node.active_watts for node in members), sum(node.active_joules for node in members)
    wall = server.idle_watts + active
    capped = max(0.0, wall - server.peak_watts) if cap_at_peak else 0.0
    return ServerPower(server.host, server.model, server.idle_watts, active, wall - capped, capped, joules,
                       joules + (server.idle_watts - capped) * seconds)


@dataclass
class EnergyMeter:
    """Integrates power over readings of the nodes' counters: joules are the sum over the windows between them."""

    inventory: Inventory
    stack: Column
    assumptions: Assumptions = DEFAULTS
    services: Mapping[str, Service] | None = None
    seconds: float = 0.0
    active_joules: float = 0.0
    wall_joules: float = 0.0
    windows: deque[WindowPower] = field(default_factory=lambda: deque(maxlen=MAX_WINDOWS_KEPT))
    _known: dict[str, Mapping[str, int]] = field(default_factory=dict)  # the last report of each node
    _silent: tuple[str, ...] = ()

    def read(self, reports: Reports) -> WindowPower | None:
        """Take a reading; returns the power since the last one, None at the first.

        A node that does not report now is silent in this window. If its report was lost, its next one catches up; if it
        was down meanwhile, and so counts from 0 again, it begins with its next one.
        """
        previous = {name: counters for name, counters in self._known.items()
                    if name not in self._silent or not _counts_anew(counters, reports.get(name, {}))}
        self._known.update({name: dict(counters) for name, counters in reports.items()})
        if not previous:
            return None
        window = power_between(previous, reports, self.inventory, self.stack, self.assumptions, self.services)
        self.windows.append(window)
        self._silent = window.silent
        self.seconds += window.seconds
        self.active_joules += window.active_joules
        self.wall_joules += window.wall_joules
        return window

    def time_line(self) -> list[tuple[float, float, float]]:
        """Return (middle of the window in emulated seconds, active watts, wall watts) of each window kept."""
        return [((w.start_s + w.end_s) / 2, w.active_watts, w.wall_watts) for w in self.windows]


def _counts_anew(before: Mapping[str, int], after: Mapping[str, int]) -> bool:
    return any(after.get(name, 0) < value for name, value in before.items() if name.startswith((BUSY, LULL)))
