"""The resource controller as a node of the simulated rack: the one that a testbed runs, in virtual time."""

from __future__ import annotations

from ipaddress import IPv4Address

from controller.resource_controller import ResourceController
from nodes.transport import Address, Sends
from topologies.addressing import CONTROL_PORT, DATA_PORT
from topologies.inventory import NodeEntry


class SimulatedController:
    """What stands at the control port of the controller's node `entry`. To be plugged into the nodes' network."""

    def __init__(self, entry: NodeEntry, controller: ResourceController) -> None:
        self.address = Address(IPv4Address(entry.ip).packed, CONTROL_PORT)
        self.controller = controller

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        if source.port == CONTROL_PORT:  # the ToR lets nothing else through to it
            self.controller.receive(source.ip, payload, now, out)

    def work(self, now: float, out: Sends) -> None:
        due = self.controller.due()
        if due is not None and due <= now:
            self.controller.tick(now, out)

    def due(self) -> float | None:
        return self.controller.due()


class SimulatedDesk:
    """What stands at the controller's data port: it answers clients that ask where an instance is."""

    def __init__(self, ip: bytes, controller: ResourceController) -> None:
        self.address = Address(ip, DATA_PORT)
        self._controller = controller

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        self._controller.asked(source, payload, out)

    def work(self, now: float, out: Sends) -> None:
        pass

    def due(self) -> float | None:
        return None
