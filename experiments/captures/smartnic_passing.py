"""Watches whether a SmartNIC passes its host's packets between the ToR and PCIe as they are.

    tor1-s1n1 --- s1n1-net [s1n1] s1n1-pcie --- s1h-pcie1     outside: s1n1-net or tor1-s1n1; inside: s1n1-pcie
                                                              or s1h-pcie1

A SmartNIC is no L3 hop: what it passes keeps its TTL. What the SmartNIC and its own host say to each other
never leaves the server and is not passed.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from experiments.captures.packet_matching import Matcher, Sighting
from experiments.captures.routing_proof import PASSING
from topologies.inventory import Inventory, NodeEntry

# (check, case, sighting, what is wrong with it)
Report = Callable[[str, str, Sighting, str], None]


class SmartNicTally:
    """What was seen on both sides of one SmartNIC, which the inventory calls `smartnic`."""

    def __init__(self, inventory: Inventory, smartnic: NodeEntry) -> None:
        self.name = smartnic.name
        self.passed = 0
        self._own = IPv4Address(smartnic.ip).packed
        self._host = IPv4Address(inventory.host_of(smartnic).ip).packed
        self._matcher = Matcher()

    def take(self, inside: bool, identity: int, sighting: Sighting, report: Report) -> None:
        """Note a packet at the PCIe side (`inside`) or the ToR side, if it is one to pass."""
        source, destination = sighting.flow[:4], sighting.flow[4:8]
        upward = source == self._host
        if self._own in (source, destination) or not (upward or destination == self._host):
            return
        other: Sighting | None
        if upward == inside:
            other = self._matcher.arrived(identity, sighting)
        else:
            other = self._matcher.left(identity, sighting)
        if other is not None:
            self.passed += 1
            if other.ttl != sighting.ttl:
                report(PASSING, "with another TTL", sighting,
                       f"{self.name} passed it with TTL {sighting.ttl}, on its other side it has {other.ttl}")

    def next_window(self, report: Report) -> None:
        given_up = self._matcher.next_window()
        for case, sightings in (("lost", given_up.never_left), ("duplicated", given_up.duplicated),
                                ("from nowhere", given_up.never_came)):
            for sighting in sightings:
                report(PASSING, case, sighting, f"on one side of {self.name} only")


def sides_of(inventory: Inventory, captured: dict[str, int]) -> dict[int, tuple[SmartNicTally, bool]]:
    """Return whose side each capture shows, and whether it is the inside, by capture index.

    `captured` maps interfaces to capture indices. A SmartNIC that was captured on one side only is left out.
    """
    sides: dict[int, tuple[SmartNicTally, bool]] = {}
    for link in inventory.pcie:
        inside = _first(captured, link.smartnic_interface, link.host_interface)
        port = next(p for p in inventory.ports if p.peer == link.smartnic)
        outside = _first(captured, port.peer_interface, port.interface)
        if inside is not None and outside is not None:
            tally = SmartNicTally(inventory, inventory.node(link.smartnic))
            sides[inside], sides[outside] = (tally, True), (tally, False)
    return sides


def _first(captured: dict[str, int], *interfaces: str) -> int | None:
    return next((captured[i] for i in interfaces if i in captured), None)
