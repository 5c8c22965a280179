"""A cluster as a Mininet topology.

The testbed builds it with node classes that run agents. Stock Mininet can build it too, as bare wiring
(hosts and switches with the names and interfaces of the real one, but no agents and no ToR program):

    sudo mn --custom topologies/mininet_topo.py --topo e3,type1x3
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# `mn --custom` executes this file's text with no package and no __file__ around it; its code still knows its name.
_HERE = sys._getframe().f_code.co_filename
if "topologies" not in sys.modules:
    sys.path.insert(0, str(Path(_HERE).resolve().parent.parent))

from mininet.topo import Topo  # noqa: E402

from topologies.addressing import bypassed_mac  # noqa: E402
from topologies.catalog import cluster_named  # noqa: E402
from topologies.inventory import Inventory, inventory_of, switch_links  # noqa: E402

TO_TOR, TO_HOST = 1, 2


class E3Topo(Topo):
    """Nodes and links of an inventory. `classes` maps a role ("host", "smartnic", "client", "controller") and
    "switch" to the Mininet class that plays it; a role that is missing gets Mininet's default.
    """

    def build(self, cluster: str | Inventory = "type1x3", classes: dict[str, Any] | None = None) -> None:
        inventory = cluster if isinstance(cluster, Inventory) else inventory_of(cluster_named(cluster))
        classes = classes or {}
        for switch in inventory.switches:
            self.addSwitch(switch.name, cls=classes.get("switch"), dpid=f"{switch.dpid:016x}", entry=switch)
        for node in inventory.nodes:
            self.addHost(node.name, cls=classes.get(node.role), ip=f"{node.ip}/8", entry=node)
        macs = {node.name: node.mac for node in inventory.nodes}
        bypassed = {(node.name, wire): bypassed_mac(node.rack, node.server, node.nic, wire)
                    for node in inventory.of_role("smartnic") for wire in (TO_TOR, TO_HOST)}
        between_switches = list(switch_links(inventory))
        fabric = {port.interface for pair in between_switches for port in pair}
        for port in inventory.ports:
            if port.interface not in fabric:
                self.addLink(port.switch, port.peer, port1=port.port, intfName1=port.interface,
                             intfName2=port.peer_interface, addr2=bypassed.get((port.peer, TO_TOR), macs[port.peer]))
        for lower, upper in between_switches:
            self.addLink(lower.switch, upper.switch, port1=lower.port, port2=upper.port,
                         intfName1=lower.interface, intfName2=upper.interface)
        for link in inventory.pcie:
            self.addLink(link.smartnic, link.host, intfName1=link.smartnic_interface,
                         intfName2=link.host_interface, addr1=bypassed[link.smartnic, TO_HOST], addr2=macs[link.host])


topos = {"e3": E3Topo}
