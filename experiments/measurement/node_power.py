"""What one node draws above idle, from the core time that it has counted (Tables 1 and 4; docs/speed-and-power.md).

Hosts with Xeon cores: cores that execute a microservice draw what its row of Table 1 says, idle ones that do not sleep
yet a share of it, sleeping ones nothing. cnMIPS cores (SmartNICs, Wimpy) have no sleep states: with a microservice
deployed they draw the least of Table 1's SmartNIC column, and up to a row's own figure by how busy they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from microservices import profiles
from microservices.assumptions import Assumptions
from microservices.measured import Column
from microservices.service import service_class
from nodes.deployment import Deployment
from topologies.catalog import OCTEON_LIQUIDIO2, TABLE_1_HOSTS, XEON_E5_2680V3
from topologies.inventory import Inventory, NodeEntry

BUSY, LULL, HANDLED = "busy_ns ", "lull_ns ", "handled "


@dataclass(frozen=True, slots=True)
class CoreTime:
    """What the cores of a node did in a window: seconds by microservice name, busy with it or in a lull before it."""

    window_s: float
    busy_s: Mapping[str, float]
    lull_s: Mapping[str, float]
    deployed: bool


@dataclass(frozen=True, slots=True)
class PowerModel:
    """How core time becomes watts. `stack` is the network stack of hosts, Column.LINUX or BYPASS.

    `services` gives the class of each microservice that is known here by its class's name only, as a user's own is.
    """

    inventory: Inventory
    stack: Column
    assumptions: Assumptions
    services: Mapping[str, profiles.Service]

    def watts(self, node: NodeEntry, time: CoreTime) -> float:
        """Return the active power of a host or SmartNIC, averaged over the window."""
        column = profiles.column_of(node.family, self.stack)
        if column is Column.SMARTNIC:
            return self.full_scale(node) * self._card_watts(node, time)
        share = profiles.lull_share(column, self.assumptions)
        names = {**time.busy_s, **time.lull_s}
        joules = sum(profiles.core_watts(self._service(name), column, self.assumptions)
                     * (time.busy_s.get(name, 0.0) + share * time.lull_s.get(name, 0.0)) for name in names)
        return self.full_scale(node) * joules / time.window_s

    def full_scale(self, node: NodeEntry) -> float:
        """Return by what Table 1's watts are multiplied: per core of a Xeon host, for the whole of a cnMIPS node.

        A node that states its `busy_watts` draws that when all cores run Table 1's hungriest microservice. A host
        without SmartNICs draws Table 4's peak minus idle then, as there is nothing else in the server that could.
        Anything else goes by cores and clock. The processors that Table 1 was measured on are taken as they are.
        """
        xeon = node.family == "xeon"
        full = profiles.full_host_watts(self.stack) if xeon else profiles.full_smartnic_watts()
        measured = XEON_E5_2680V3 if xeon else OCTEON_LIQUIDIO2
        size = node.cores * node.clock_ghz / (measured.cores * measured.clock_ghz)
        if node.busy_watts is not None:
            size = node.busy_watts / full
        elif node.role == "host" and node.model not in TABLE_1_HOSTS and not self.inventory.smartnics_of(node):
            server = self.inventory.server_of(node)
            size = (server.peak_watts - server.idle_watts) / full
        return size * measured.cores / node.cores if xeon else size

    def _card_watts(self, node: NodeEntry, time: CoreTime) -> float:
        """Return what a LiquidIO II would draw, were it as busy: a mean of the floor and the rows, weighed by time."""
        if not time.deployed:
            return 0.0
        floor = profiles.smartnic_floor_watts()
        shares = {name: busy / (node.cores * time.window_s)
                  / profiles.peak_utilisation(self._service(name), Column.SMARTNIC, self.assumptions)
                  for name, busy in time.busy_s.items()}
        above = sum(share * (profiles.smartnic_watts(self._service(name)) - floor) for name, share in shares.items())
        return floor + above / max(1.0, sum(shares.values()))  # busier than at a row's peak: no more than its watts

    def _service(self, name: str) -> profiles.Service:
        return self.services.get(name, name)


def services_of(deployments: Iterable[Deployment]) -> dict[str, profiles.Service]:
    """Return the class of each microservice that is deployed, by the name that is in the counters."""
    classes = [service_class(stage.service) for deployment in deployments for stage in deployment.stages]
    return {found.name: found for found in classes}


def core_time(before: Mapping[str, int], after: Mapping[str, int]) -> CoreTime:
    """Return what two reports of one node say of the time between them; the clock must have gone on."""
    return CoreTime((after["now_ns"] - before["now_ns"]) / 1e9, _seconds(BUSY, before, after),
                    _seconds(LULL, before, after), any(name.startswith((HANDLED, BUSY)) for name in after))


def _seconds(kind: str, before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    """Return the growth of each counter of a kind, in seconds, by microservice.

    A counter that has gone down is that of an agent that was started anew, and has grown from 0.
    """
    found = {}
    for name, value in after.items():
        if name.startswith(kind):
            old = before.get(name, 0)
            if value != old:
                found[name[len(kind):]] = (value - old if value > old else value) / 1e9
    return found
