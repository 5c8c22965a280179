"""A simulated network whose nodes lose power or hang, whose links fail, and which falls into parts.

    client, controller, SmartNIC   its own link > ToR      a host   one of its server's SmartNICs that works > ToR
    a host and its own SmartNIC    PCIe                    (or a plain NIC of its own)

Parts fail and are mended by name. One that has failed twice has to be mended twice, so failures may overlap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from enum import Enum
from ipaddress import IPv4Address
from zlib import crc32

from nodes.communication import by_pcie
from nodes.simulated_ends import End
from nodes.simulated_network import NetworkFaults, SimulatedNetwork
from nodes.transport import Address
from topologies.inventory import Inventory

SOCKET_DATAGRAMS = 256  # that a node which hangs is given when it goes on; later ones are lost


class Ill(Enum):
    """What may be wrong with the node of a name."""

    OFF = "it has no power"  # and hands nothing on; what stood in it is for the caller to take away
    HANGS = "it does nothing, and keeps all it has"
    NO_LINK = "its link to the ToR is down"
    NO_PCIE = "its PCIe link to the host is down"


class FailingNetwork(SimulatedNetwork):
    """Carries datagrams between the nodes of `inventory` as far as there is a way, with `faults` on each."""

    def __init__(self, inventory: Inventory, faults: NetworkFaults | None = None, seed: int = 1) -> None:
        super().__init__(faults or NetworkFaults(), seed)
        self._inventory = inventory
        self._nodes = {IPv4Address(entry.ip).packed: entry for entry in inventory.nodes}
        self._ip_of = {entry.name: ip for ip, entry in self._nodes.items()}
        self._ill: dict[Ill, Counter[str]] = {ill: Counter() for ill in Ill}
        self._sides: list[frozenset[str]] = []
        self._troubles: list[tuple[str, NetworkFaults]] = []
        self._between: dict[tuple[bytes, bytes], NetworkFaults | None] = {}
        self._backlog: dict[bytes, list[tuple[Address, Address, bytes]]] = {}  # of nodes that hang

    def fail(self, ill: Ill, name: str) -> None:
        """Let something be wrong with the node called `name`."""
        self._ill[ill][name] += 1
        self._between.clear()
        if ill is Ill.HANGS:
            self._backlog.setdefault(self._ip_of[name], [])

    def mend(self, ill: Ill, name: str) -> None:
        """Take back one `fail`; a node that hangs no more gets what has come meanwhile, as far as it was kept."""
        self._ill[ill][name] -= 1
        self._between.clear()
        if ill is Ill.HANGS and not self._ill[ill][name]:
            ip = self._ip_of[name]
            for source, to, data in self._backlog.pop(ip):
                super()._arrive(source, to, data)
            for end in [end for address, end in self._ends.items() if address.ip == ip]:
                self.work(end)

    def part(self, side: frozenset[str]) -> None:
        """Let the nodes of `side` reach each other only."""
        self._sides.append(side)
        self._between.clear()

    def join(self, side: frozenset[str]) -> None:
        """Take back one `part`."""
        self._sides.remove(side)
        self._between.clear()

    def disturb(self, name: str, faults: NetworkFaults) -> None:
        """Let `faults` happen, besides those of everywhere, to all that crosses the link of the node called `name`."""
        self._troubles.append((name, faults))
        self._between.clear()

    def calm(self, name: str, faults: NetworkFaults) -> None:
        """Take back one `disturb`."""
        self._troubles.remove((name, faults))
        self._between.clear()

    def unplug(self, end: End) -> None:
        super().unplug(end)
        if end.address.ip in self._backlog:
            self._backlog[end.address.ip].clear()  # its sockets are closed

    def _faults_between(self, source: Address, to: Address) -> NetworkFaults | None:
        pair = source.ip, to.ip
        if pair not in self._between:
            self._between[pair] = self._found(*pair)
        return self._between[pair]

    def _found(self, source: bytes, to: bytes) -> NetworkFaults | None:
        one, other = self._nodes[source], self._nodes[to]
        if one.name == other.name:
            return self.faults
        if any((one.name in side) is not (other.name in side) for side in self._sides):
            return None
        if by_pcie(one, other):
            nic = one.name if one.role == "smartnic" else other.name
            return None if self._ill[Ill.NO_PCIE][nic] else self.faults
        links = [self._link_of(entry.name, entry.role, source + to) for entry in (one, other)]
        if None in links:
            return None
        return _together(self.faults, [faults for name, faults in self._troubles if name in links])

    def _link_of(self, name: str, role: str, flow: bytes) -> str | None:
        """Return whose link the node called `name` is reached by; None where it has none that works."""
        if role != "host":
            return None if self._ill[Ill.NO_LINK][name] else name
        ways = [nic.name for nic in self._inventory.smartnics_of(self._inventory.node(name))
                if not any(self._ill[ill][nic.name] for ill in Ill)]
        if self._inventory.ports_of_node(name) and not self._ill[Ill.NO_LINK][name]:
            ways.append(name)
        return ways[crc32(flow) % len(ways)] if ways else None

    def _arrive(self, source: Address, to: Address, data: bytes) -> None:
        waiting = self._backlog.get(to.ip)
        if waiting is None:
            super()._arrive(source, to, data)
        elif len(waiting) < SOCKET_DATAGRAMS:
            waiting.append((source, to, data))
        else:
            self._lost += 1

    def _ring(self, end: End, due: float) -> None:
        if end.address.ip in self._backlog:
            if self._alarms.get(end.address) == due:
                del self._alarms[end.address]  # it works when it goes on
            return
        super()._ring(end, due)


def _together(usual: NetworkFaults, more: list[NetworkFaults]) -> NetworkFaults:
    """Return what happens on a way with all these faults."""
    for faults in more:
        usual = replace(
            usual, loss=1 - (1 - usual.loss) * (1 - faults.loss),
            duplication=1 - (1 - usual.duplication) * (1 - faults.duplication),
            reordering=1 - (1 - usual.reordering) * (1 - faults.reordering),
            delay_s=usual.delay_s + faults.delay_s, jitter_s=usual.jitter_s + faults.jitter_s,
            reordering_s=max(usual.reordering_s, faults.reordering_s))
    return usual
