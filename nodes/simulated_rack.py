"""A network of shaped links and SmartNICs in virtual time, in which every datagram crosses the ports that it would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

from nodes.port_bytes import Carried
from nodes.simulated_ends import End
from nodes.simulated_links import Calibration, Flying, Hop, Link, NicQueue
from nodes.simulated_network import NetworkCounters, NetworkFaults, SimulatedNetwork
from nodes.simulated_routes import Routes
from nodes.transport import Address, Sends
from topologies.addressing import DATA_PORT
from topologies.inventory import Inventory

_NO_DELAY = NetworkFaults(delay_s=0.0)  # what a way takes beyond its queues is the receivers' to hold


class RackNetwork(SimulatedNetwork):
    """Carries datagrams over the links and SmartNICs of `inventory`.

    `interference` returns, for the SmartNIC called so, what tells how much its microservices add to the agent's time on
    a frame.
    """

    def __init__(self, inventory: Inventory, calibration: Calibration,
                 interference: Callable[[str], Callable[[], float]]) -> None:
        super().__init__(_NO_DELAY, 0)
        self.nics: dict[str, NicQueue] = {}
        for entry in inventory.of_role("smartnic"):
            self.nics[entry.name] = NicQueue(self.agenda, calibration.paces[entry.name].forward_s,
                                             interference(entry.name), calibration.queue_frames, self._go)
        self._nic_at = {Address(IPv4Address(inventory.node(name).ip).packed, DATA_PORT): nic
                        for name, nic in self.nics.items()}
        self.routes = Routes(inventory, calibration.time_scale, self.nics.__getitem__)
        self._ways: dict[tuple[Address, Address], tuple[Hop, ...]] = {}
        self._other_end = {**{port.peer_interface: port.interface for port in inventory.ports},
                           **{link.host_interface: link.smartnic_interface for link in inventory.pcie}}

    def carried(self, interfaces: Sequence[str]) -> Carried:
        """Return what a node's `interfaces` carried together: what left by them, and what left at their other ends."""
        links = self.routes.links
        return Carried(sum(links[name].bytes for name in interfaces),
                       sum(links[self._other_end[name]].bytes for name in interfaces))

    def after(self, end: End, out: Sends) -> None:
        super().after(end, out)
        nic = self._nic_at.get(end.address)
        if nic is not None and len(nic.traffic):
            nic.look()  # a request has begun or ended, and with it its interference

    def _carry(self, source: Address, to: Address, data: bytes) -> None:
        self._sent += 1
        way = self._ways.get((source, to))
        if way is None:
            way = self._ways[source, to] = self.routes.between(source, to)
        self._go(Flying(iter(way), source, to, data))

    def _go(self, frame: Flying) -> None:
        """Take `frame` on till it has to wait, or is there."""
        now = self.agenda.now
        for hop in frame.way:
            if not isinstance(hop, Link):
                hop.nic.take_in(frame, hop)
                return
            leaves = hop.leaves(now, frame.size)
            if leaves is None:
                self._lost += 1
                return
            if leaves > now:
                self.agenda.at(leaves, self._go, frame)
                return
        # Not within the sender's turn: what is said in answer must come after all that this turn sends.
        self.agenda.at(now, self._deliver, frame)

    def _deliver(self, frame: Flying) -> None:
        end = self._ends.get(frame.to)
        if end is None:
            self._nowhere += 1
            return
        self.last_s = self.agenda.now
        self._hand_over(end, frame.source, frame.data)

    def counters(self) -> NetworkCounters:
        """Return what became of datagrams; those that a full SmartNIC or link dropped are `lost`."""
        dropped = sum(nic.traffic.counters().dropped for nic in self.nics.values())
        return NetworkCounters(self._sent, self._lost + dropped, 0, 0, self._nowhere)
