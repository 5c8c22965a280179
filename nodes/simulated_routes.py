"""The hops that a datagram takes through a simulated machine room, the same as on packets (sections 3.1 and 3.2).

    SmartNIC or client    its port > ToR > ...          a host's own SmartNIC    PCIe > that SmartNIC
    host                  PCIe > SmartNIC > its port > ToR > ...   spread over its SmartNICs and plain NICs
    ToR > SmartNIC        the SmartNIC's port > that SmartNIC
    ToR > host            spread over the server's ports: port > SmartNIC > PCIe, or the port of a plain NIC
                          (a dedicated NIC: over the plain NICs alone, to and from the host)
    ToR > ToR             the fewest switches; where there are several such ways, spread over them

Spread is what carries many flows: a hash of addresses and ports picks the way, so that a flow stays on one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import TypeVar

from nodes.communication import by_pcie
from nodes.errors import NodeError
from nodes.forwarding import Port
from nodes.simulated_links import Hop, Link, NicQueue, Passage
from nodes.transport import Address
from topologies.inventory import Inventory, NodeEntry, PortEntry

Choice = TypeVar("Choice")


class Routes:
    """All links of `inventory`, and the way over them from any address to any other."""

    def __init__(self, inventory: Inventory, time_scale: float, nic: Callable[[str], NicQueue]) -> None:
        self._inventory = inventory
        self._nics = {entry.name: nic(entry.name) for entry in inventory.of_role("smartnic")}
        self._by_ip = {IPv4Address(entry.ip).packed: entry for entry in inventory.nodes}
        self.links: dict[str, Link] = {}  # by the interface that frames leave from
        switches = {s.name for s in inventory.switches}
        self._fabric: dict[str, list[PortEntry]] = {name: [] for name in switches}
        self._ports: dict[str, PortEntry] = {}  # of nodes with one port
        for port in inventory.ports:
            self._add(port.interface, port.gbps, time_scale)
            if port.peer in switches:
                self._fabric[port.switch].append(port)
            else:
                self._add(port.peer_interface, port.gbps, time_scale)
                self._ports[port.peer] = port
        for link in inventory.pcie:
            for interface in (link.smartnic_interface, link.host_interface):
                self.links[interface] = Link(interface, link.gbps, time_scale, ethernet=False)

    def between(self, source: Address, to: Address) -> tuple[Hop, ...]:
        """Return the hops of a datagram from `source` to `to`; raises NodeError for an address that is no node's."""
        sender, receiver = (self._node(address) for address in (source, to))
        if sender.name == receiver.name:
            return ()
        key = source.ip + source.port.to_bytes(2, "big") + to.ip + to.port.to_bytes(2, "big")
        if by_pcie(sender, receiver):
            return self._over_pcie(sender, receiver)
        out, tor = self._out(sender, key)
        last_tor, down = self._down(receiver, key)
        return (*out, *self._across(tor, last_tor, key), *down)

    def _add(self, interface: str, gbps: float, time_scale: float) -> None:
        self.links[interface] = Link(interface, gbps, time_scale)

    def _node(self, address: Address) -> NodeEntry:
        entry = self._by_ip.get(address.ip)
        if entry is None:
            raise NodeError(f"{IPv4Address(address.ip)} is no node's address in {self._inventory.cluster}")
        return entry

    def _over_pcie(self, sender: NodeEntry, receiver: NodeEntry) -> tuple[Hop, ...]:
        """From a SmartNIC's core to its host no traffic manager is passed, the other way its own is."""
        if sender.role == "smartnic":
            return (self.links[self._inventory.pcie_of_smartnic(sender.name).smartnic_interface],)
        link = self._inventory.pcie_of_smartnic(receiver.name)
        return self.links[link.host_interface], Passage(self._nics[receiver.name], Port.HOST, Port.LOCAL)

    def _out(self, sender: NodeEntry, key: bytes) -> tuple[tuple[Hop, ...], str]:
        """Return the way to a ToR, and which."""
        if sender.role != "host":
            port = self._ports[sender.name]
            return (self.links[port.peer_interface],), port.switch
        ways: list[tuple[tuple[Hop, ...], str]] = []
        shared = not self._inventory.has_dedicated_nic(sender.name)
        for link in self._inventory.pcie_of_host(sender.name) if shared else ():
            port = self._ports[link.smartnic]
            through = Passage(self._nics[link.smartnic], Port.HOST, Port.NETWORK)
            ways.append(((self.links[link.host_interface], through, self.links[port.peer_interface]), port.switch))
        ways += [((self.links[port.peer_interface],), port.switch)
                 for port in self._inventory.ports_of_node(sender.name)]
        return _chosen(ways, b"egress", key)

    def _down(self, receiver: NodeEntry, key: bytes) -> tuple[str, tuple[Hop, ...]]:
        """Return the ToR that `receiver` is at, and the way from there."""
        if receiver.role == "smartnic":
            port = self._ports[receiver.name]
            through = Passage(self._nics[receiver.name], Port.NETWORK, Port.LOCAL)
            return port.switch, (self.links[port.interface], through)
        if receiver.role != "host":
            port = self._ports[receiver.name]
            return port.switch, (self.links[port.interface],)
        port = _chosen(self._inventory.ports_of_server(receiver), b"group", key)
        if port.peer == receiver.name:
            return port.switch, (self.links[port.interface],)
        link = self._inventory.pcie_of_smartnic(port.peer)
        return port.switch, (self.links[port.interface], Passage(self._nics[port.peer], Port.NETWORK, Port.HOST),
                             self.links[link.smartnic_interface])

    def _across(self, switch: str, last: str, key: bytes) -> tuple[Hop, ...]:
        """Return the links from one ToR to another."""
        hops: list[Hop] = []
        if switch == last:
            return ()
        away = self._distances(last)
        while switch != last:
            nearer = [port for port in self._fabric[switch] if away[port.peer] < away[switch]]
            port = _chosen(nearer, switch.encode()[:16], key)
            hops.append(self.links[port.interface])
            switch = port.peer
        return tuple(hops)

    def _distances(self, last: str) -> dict[str, int]:
        """Return how many links each switch is away from `last`."""
        away = {last: 0}
        found = [last]
        for switch in found:  # which grows
            for port in self._fabric[switch]:
                if port.peer not in away:
                    away[port.peer] = away[switch] + 1
                    found.append(port.peer)
        return away


def _chosen(ways: Sequence[Choice], where: bytes, key: bytes) -> Choice:
    """Return the one of `ways` that a flow takes at one place; places choose independently of each other."""
    if len(ways) == 1:
        return ways[0]
    return ways[int.from_bytes(blake2b(key, digest_size=8, person=where).digest(), "big") % len(ways)]
