"""What a SmartNIC does with an IPv4 packet: to the network, to the host, or to a core of its own.

Section 3.2: "the E3 communication subsystem on each SmartNIC differentiates by destination IP address". A
sibling SmartNIC is reached over the ToR like any other node (section 3.1).
"""

from __future__ import annotations

from enum import IntEnum


class Port(IntEnum):
    """Where a packet comes from or goes to. NETWORK and HOST are interfaces, LOCAL is this SmartNIC's cores."""

    NETWORK = 0
    HOST = 1
    LOCAL = 2
    DROP = 3


class Forwarding:
    """The forwarding table of one SmartNIC: ingress and destination IP -> Port."""

    __slots__ = ("_by_ingress",)

    def __init__(self, own_ip: bytes, host_ip: bytes) -> None:
        # (known destinations, everything else), indexed by ingress. From the network only two addresses may
        # arrive: anything else was misrouted. The host never sends to itself through a NIC.
        self._by_ingress = (
            ({own_ip: Port.LOCAL, host_ip: Port.HOST}, Port.DROP),
            ({own_ip: Port.LOCAL, host_ip: Port.DROP}, Port.NETWORK),
            ({own_ip: Port.LOCAL, host_ip: Port.HOST}, Port.NETWORK),
        )

    def egress(self, ingress: int, destination_ip: bytes) -> Port:
        """Return where a packet for `destination_ip` (4 bytes) goes that came in from `ingress`."""
        known, otherwise = self._by_ingress[ingress]
        return known.get(destination_ip, otherwise)
