"""What placement asks of the microservices' profiles: time on a node, interference, and power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

from controller.placement.compute_nodes import NodeClass
from microservices import profiles
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.measured import Column
from topologies.catalog import OCTEON_LIQUIDIO2, XEON_E5_2680V3
from topologies.cluster import Server


@dataclass(frozen=True, slots=True)
class Costs:
    """Profiles under one set of assumptions. `stack` is that of hosts: E3's use Linux's (section 3.1)."""

    assumptions: Assumptions = DEFAULTS
    stack: Column = Column.LINUX

    def execution_s(self, service: str, kind: NodeClass, payload_bytes: float) -> float:
        """Return the seconds that a request takes one core of a node of `kind`."""
        return profiles.cost_s(service, self._column(kind), payload_bytes, self.assumptions) / kind.speed

    def interference_weight(self, service: str, kind: NodeClass) -> int:
        """Return 1, and on a SmartNIC as much more as a busy core of `service` stretches the agent's work there."""
        return 1 + round(profiles.hol_weight(service, self.assumptions)) if kind.role == "smartnic" else 1

    def node_watts(self, kind: NodeClass, server: Server, rates_rps: Mapping[str, float],
                   busy_cores: Mapping[str, float]) -> float:
        """Return what a node draws above idle while it handles `rates_rps` by microservice, keeping so many cores busy.

        Xeon cores that are not busy are awake until they have been idle for long enough (assumptions.py); gaps between
        requests are taken for exponential. cnMIPS cores never sleep: a node with a microservice draws Table 1's least,
        up to a row's own figure by how busy it is.
        """
        if not rates_rps:
            return 0.0
        column = self._column(kind)
        if column is Column.SMARTNIC:
            floor = profiles.smartnic_floor_watts()
            shares = {name: busy / kind.cores / profiles.peak_utilisation(name, column, self.assumptions)
                      for name, busy in busy_cores.items()}
            above = sum(share * (profiles.smartnic_watts(name) - floor) for name, share in shares.items())
            return self._scale(kind, server) * (floor + above / max(1.0, sum(shares.values())))
        watts = {name: profiles.core_watts(name, column, self.assumptions) for name in rates_rps}
        rate, busy = sum(rates_rps.values()), sum(busy_cores.values())
        total = sum(watts[name] * cores for name, cores in busy_cores.items())
        idle = max(0.0, kind.cores - busy)
        if rate > 0 and idle > 0:
            awake = idle * (1 - exp(-self.assumptions.core_sleep_after_s * rate / idle))
            usual = sum(watts[name] * r for name, r in rates_rps.items()) / rate
            total += awake * usual * profiles.lull_share(column, self.assumptions)
        return self._scale(kind, server) * total

    def _column(self, kind: NodeClass) -> Column:
        return profiles.column_of(kind.family, self.stack)

    def _scale(self, kind: NodeClass, server: Server) -> float:
        """Return by what Table 1's watts are multiplied: of one core of a Xeon, of the whole of a cnMIPS node."""
        xeon = kind.family == "xeon"
        full = profiles.full_host_watts(self.stack) if xeon else profiles.full_smartnic_watts()
        measured = XEON_E5_2680V3 if xeon else OCTEON_LIQUIDIO2
        size = kind.cores * kind.clock_ghz / (measured.cores * measured.clock_ghz)
        if kind.busy_watts is not None:
            size = kind.busy_watts / full
        elif kind.role == "host" and not server.smartnics and server.host.name != XEON_E5_2680V3.name:
            size = (server.peak_watts - server.idle_watts) / full  # there is nothing else in the server that could
        return size * measured.cores / kind.cores if xeon else size


DEFAULT_COSTS = Costs()
