"""The LACPDU of IEEE 802.3ad (now 802.1AX): dataclass <-> Ethernet frame."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from nodes.errors import WireError

SLOW_PROTOCOLS_MAC = bytes.fromhex("0180c2000002")
SLOW_PROTOCOLS_ETHERTYPE = 0x8809
LACP_SUBTYPE = 1
LACP_VERSION = 1

# Bits of a port's state.
ACTIVE, SHORT_TIMEOUT, AGGREGATABLE, IN_SYNC, COLLECTS, DISTRIBUTES, IS_DEFAULTED, IS_EXPIRED = (
    1 << bit for bit in range(8))

# Ethernet: destination, source, type. LACPDU: subtype, version; actor; partner; collector; terminator.
_ETHERNET = struct.Struct(">6s6sH")
_PORT = "BBH6sHHHB3x"
_LACPDU = struct.Struct(f">BB{_PORT}{_PORT}BBH12xBB50x")
LACPDU_BYTES = _LACPDU.size
_TLVS = ((2, "actor", 1, 20), (10, "partner", 2, 20), (18, "collector", 3, 16))


@dataclass(frozen=True, slots=True)
class LacpPort:
    """What a LACPDU says of one end: `system` is a MAC of six bytes, `state` the bits above."""

    system: bytes
    key: int
    port: int
    state: int
    system_priority: int = 0xFFFF
    port_priority: int = 0xFFFF

    @property
    def aggregate(self) -> tuple[int, bytes, int]:
        """What all members of one aggregate have in common."""
        return self.system_priority, self.system, self.key


NOBODY = LacpPort(bytes(6), key=0, port=0, state=SHORT_TIMEOUT, system_priority=0, port_priority=0)


@dataclass(frozen=True, slots=True)
class Lacpdu:
    """One LACPDU: who sends it and whom the sender believes to hear."""

    actor: LacpPort
    partner: LacpPort
    collector_max_delay_10us: int = 0

    def encode(self, source: bytes) -> bytes:
        """Return the Ethernet frame of 124 bytes from MAC `source`; raises WireError if a value does not fit."""
        ends = []
        for kind, end in ((1, self.actor), (2, self.partner)):
            if len(end.system) != 6:
                raise WireError(f"system {end.system!r} has {len(end.system)} bytes; a MAC has 6")
            ends += [kind, 20, end.system_priority, end.system, end.key, end.port_priority, end.port, end.state]
        try:
            pdu = _LACPDU.pack(LACP_SUBTYPE, LACP_VERSION, *ends, 3, 16, self.collector_max_delay_10us, 0, 0)
        except struct.error as error:
            raise WireError(f"{self}: {error}") from error
        return _ETHERNET.pack(SLOW_PROTOCOLS_MAC, source, SLOW_PROTOCOLS_ETHERTYPE) + pdu


def decode(frame: bytes | memoryview) -> Lacpdu:
    """Read an Ethernet frame; raises WireError. A newer version is read as version 1, as 6.4.2.3 asks."""
    needed = _ETHERNET.size + LACPDU_BYTES
    if len(frame) < needed:
        raise WireError(f"LACPDU: got {len(frame)} bytes, {needed} needed at least")
    destination, _, ethertype = _ETHERNET.unpack_from(frame)
    if destination != SLOW_PROTOCOLS_MAC or ethertype != SLOW_PROTOCOLS_ETHERTYPE:
        raise WireError(f"frame of type 0x{ethertype:04X} to {destination.hex(':')}; a slow-protocol frame has type "
                        f"0x{SLOW_PROTOCOLS_ETHERTYPE:04X} and goes to {SLOW_PROTOCOLS_MAC.hex(':')}")
    values = _LACPDU.unpack_from(frame, _ETHERNET.size)
    if values[0] != LACP_SUBTYPE or values[1] < LACP_VERSION:
        raise WireError(f"subtype {values[0]} version {values[1]}; a LACPDU has subtype {LACP_SUBTYPE} and "
                        f"version {LACP_VERSION} or newer")
    for index, name, kind, length in _TLVS:
        if values[index:index + 2] != (kind, length):
            raise WireError(f"{name} information has type {values[index]} and length {values[index + 1]}; "
                            f"expected {kind} and {length}")
    ends = [LacpPort(system, key, port, state, system_priority, port_priority)
            for system_priority, system, key, port_priority, port, state in (values[4:10], values[12:18])]
    return Lacpdu(ends[0], ends[1], values[20])


def out_of_sync(frame: bytes) -> bytes:
    """Return the LACPDU in `frame` with its sender out of sync; raises WireError if it is none.

    A SmartNIC that loses its port to the switch sends its host the switch's last LACPDU so, once: the PCIe link
    keeps its carrier, and the host would not notice for three seconds.
    """
    pdu = decode(frame)
    state = pdu.actor.state & ~(IN_SYNC | COLLECTS | DISTRIBUTES)
    return replace(pdu, actor=replace(pdu.actor, state=state)).encode(bytes(frame[6:12]))
