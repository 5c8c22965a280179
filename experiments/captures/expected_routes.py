"""Where packets may come in and leave each switch, worked out from the inventory alone.

The switches' programs are what is on trial, so nothing here reads them: nodes stand on the ports that the
inventory gives, and everything else is up (other racks, other pods) or down (this pod's racks) the fat tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from experiments.captures.frame_fields import UDP, mac_bytes, ports_of
from topologies.addressing import CONTROL_PORTS
from topologies.inventory import Inventory, NodeEntry, PortEntry, SwitchEntry

SPOOFED = "spoofed source"
CONTROL_FROM_CLIENT = "control port from a client"
NO_SUCH_ADDRESS = "no such address"
TO_THE_SWITCH = "for the switch itself"
TTL_SPENT = "TTL spent"
UPLINKS = "uplinks"


@dataclass(frozen=True, slots=True)
class Place:
    """An address as one switch sees it: whose it is, and the interfaces that it stands behind.

    `group` names the choice among `interfaces`: "" where each address has its one port, else the host, or
    the way up that all addresses of other racks or pods share.
    """

    node: NodeEntry
    interfaces: frozenset[str]
    group: str


class SwitchMap:
    """One switch's view of the machine room; remembers the addresses that it was asked about."""

    def __init__(self, inventory: Inventory, switch: SwitchEntry) -> None:
        self.switch = switch
        self.mac = mac_bytes(switch.mac)
        self.gateway = IPv4Address(switch.gateway).packed if switch.gateway else b""
        self.ports = {p.interface: p for p in inventory.ports_of_switch(switch.name)}
        self._inventory = inventory
        self._switches = {s.name: s for s in inventory.switches}
        self._nodes = {IPv4Address(n.ip).packed: n for n in inventory.nodes}
        self._pods = {s.index: s.pod for s in inventory.switches if s.tier == "tor"}
        self._clients = {p.interface for p in self.ports.values()
                         if p.peer not in self._switches and inventory.node(p.peer).role == "client"}
        self._places: dict[bytes, Place | None] = {}

    def place(self, address: bytes) -> Place | None:
        """Return where packed IPv4 `address` stands; None if nobody has it."""
        if address not in self._places:
            if len(self._places) > 100_000:  # a scan of addresses, not a machine room
                self._places.clear()
            node = self._nodes.get(address)
            self._places[address] = None if node is None else self._place_of(node)
        return self._places[address]

    def refusal(self, interface: str, flow: bytes, ttl: int) -> str:
        """Return why a packet that comes in at `interface` must not be forwarded; "" if it must be."""
        source = self.place(flow[:4])
        if source is None or interface not in source.interfaces:
            return SPOOFED
        if flow[8] == UDP and len(flow) > 9 and interface in self._clients and ports_of(flow)[1] in CONTROL_PORTS:
            return CONTROL_FROM_CLIENT
        if flow[4:8] == self.gateway:
            return TO_THE_SWITCH
        if self.place(flow[4:8]) is None:
            return NO_SUCH_ADDRESS
        return TTL_SPENT if ttl <= 1 else ""

    def peer_is_switch(self, interface: str) -> bool:
        return self.ports[interface].peer in self._switches

    def _place_of(self, node: NodeEntry) -> Place:
        ports, group = self._ports_to(node)
        return Place(node, frozenset(p.interface for p in ports), group)

    def _ports_to(self, node: NodeEntry) -> tuple[list[PortEntry], str]:
        switch, ports = self.switch, list(self.ports.values())
        if switch.tier == "tor" and node.rack == switch.index:
            if node.role == "host":
                return self._inventory.ports_of_server(node), node.name
            return [p for p in ports if p.peer == node.name], ""
        to_switches = [(p, self._switches[p.peer]) for p in ports if p.peer in self._switches]
        pod = self._pods[node.rack]
        if switch.tier == "core":
            return [p for p, s in to_switches if s.pod == pod], ""
        if switch.tier == "agg" and switch.pod == pod:
            return [p for p, s in to_switches if s.tier == "tor" and s.index == node.rack], ""
        above = "agg" if switch.tier == "tor" else "core"
        return [p for p, s in to_switches if s.tier == above], UPLINKS
