"""What a message costs on its way, by mechanism: the unloaded time from one compute node to another (section 3.1).

    host > ToR > host           kernel bypass, or the Linux stack at either end
    SmartNIC > ToR > SmartNIC   user-level stack at both ends
    SmartNIC <> its host        PCIe, by DMA
    in a node                   a queue in memory

Section 2.4 gives two ratios of round trips; with the round trip that they are of, an assumption, they fix all of it.
What queueing adds comes on top, from real packets in shaped links. A receiver lets a message count as arrived when
the mechanism's time has passed since it left, or when it is really there, whichever is later: so what the emulation's
own switch and agents take is not added to the time that it stands for.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address

from microservices.assumptions import Assumptions
from nodes.errors import NodeError
from topologies.inventory import Inventory, NodeEntry


class HostStack(str, Enum):
    """What a host uses to reach the network."""

    LINUX = "linux"
    BYPASS = "bypass"


class Communication:
    """One-way times in emulated seconds; a round trip is twice as long."""

    def __init__(self, assumptions: Assumptions, stack: HostStack = HostStack.LINUX) -> None:
        a = assumptions
        self.tor_s = a.tor_s
        bypass_way_s = a.host_host_rtt_s / 2
        self.bypass_end_s = (bypass_way_s - a.tor_s) / 2
        self.linux_end_s = (bypass_way_s * a.linux_rtt_factor - a.tor_s) / 2
        self.smartnic_end_s = (bypass_way_s * (1 - a.smartnic_smartnic_rtt_cut) - a.tor_s) / 2
        self.pcie_s = bypass_way_s * (1 - a.smartnic_host_rtt_cut)
        self.in_node_s = a.in_node_s
        self.host_end_s = self.linux_end_s if stack is HostStack.LINUX else self.bypass_end_s
        if min(self.bypass_end_s, self.smartnic_end_s) < 0:
            raise NodeError(f"a way through the ToR of {a.tor_s} s leaves the ends {2 * self.bypass_end_s:.3g} s of a "
                            f"host's way and {2 * self.smartnic_end_s:.3g} s of a SmartNIC's; the least is 0")

    def end_s(self, role: str) -> float:
        """Return what the network stack of a node of `role` takes; clients use kernel bypass."""
        return {"host": self.host_end_s, "smartnic": self.smartnic_end_s}.get(role, self.bypass_end_s)

    def one_way_s(self, source: NodeEntry, to: NodeEntry) -> float:
        """Return the unloaded time from `source` to `to`."""
        if source.name == to.name:
            return self.in_node_s
        if by_pcie(source, to):
            return self.pcie_s
        return self.end_s(source.role) + self.tor_s + self.end_s(to.role)


def by_pcie(source: NodeEntry, to: NodeEntry) -> bool:
    """Whether messages between the two go over PCIe: a SmartNIC and the host of its server."""
    return (source.server != 0 and (source.rack, source.server) == (to.rack, to.server)
            and {source.role, to.role} == {"host", "smartnic"})


def ways_to(node: NodeEntry, inventory: Inventory, communication: Communication) -> dict[bytes, float]:
    """Return the one-way time to `node` from every other node, by packed IP address."""
    return {IPv4Address(other.ip).packed: communication.one_way_s(other, node)
            for other in inventory.nodes if other.name != node.name}


def pcie_neighbours(node: NodeEntry, inventory: Inventory) -> frozenset[bytes]:
    """Return the packed IP addresses of the nodes that `node` shares PCIe with."""
    return frozenset(IPv4Address(other.ip).packed for other in inventory.nodes if by_pcie(other, node))
