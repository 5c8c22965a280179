"""Who is alive, as a controller node hears it that does not decide: so that it knows when it has to."""

from __future__ import annotations

from ipaddress import IPv4Address

import numpy as np

from controller.heartbeats import Gate, HeartbeatInbox
from controller.membership import FailureOptions, Membership
from nodes.control_messages import HEARTBEAT_BYTES, HEARTBEAT_S, KIND_HEARTBEAT, slot_of_time
from topologies.inventory import Inventory


class Standby:
    """The gate and the membership of the hosts and SmartNICs of `inventory`.

    A resource controller that is given them goes on with both, and they are still right when it is gone. What else a
    heartbeat tells, of loads, is of use to who decides only: his detectors begin anew.
    """

    def __init__(self, inventory: Inventory, options: FailureOptions | None = None) -> None:
        computing = [node for node in inventory.nodes if node.role in ("host", "smartnic")]
        self.gate = Gate(np.array([int(IPv4Address(node.ip)) for node in computing], dtype=np.uint32))
        self.membership = Membership([node.name for node in computing], self.gate.last_slot, options)
        self._beats = HeartbeatInbox()
        self._looked = -1

    def receive(self, source_ip: bytes, payload: bytes, now: float) -> None:
        """Take a datagram that came to the control port; all but heartbeats is for who decides."""
        if len(payload) == HEARTBEAT_BYTES and payload[3] == KIND_HEARTBEAT:
            self._beats.add(source_ip, payload, now)

    def tick(self, now: float) -> None:
        """Judge what has been heard, and who is silent."""
        if self._beats.since is not None:
            for _ in self.gate.admit(*self._beats.take(), now):
                pass
        self.membership.tick(now)
        self._looked = slot_of_time(now)

    def due(self) -> float:
        """Return when the next `tick` is due: when the next slot begins."""
        return (self._looked + 1) * HEARTBEAT_S
