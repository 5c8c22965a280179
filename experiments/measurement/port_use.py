"""How busy the switches' ports were over a window: what Open vSwitch counted, against each port's emulated rate."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from experiments.emulation.testbed import Testbed
from nodes.shaping import WIRE_OVERHEAD_BYTES

_PORT = re.compile(r'^\s*port\s+"?(?P<port>[^":]+)"?: rx pkts=(?P<in_frames>\d+), bytes=(?P<in_bytes>\d+).*\n'
                   r"\s*tx pkts=(?P<out_frames>\d+), bytes=(?P<out_bytes>\d+)", re.MULTILINE)


class Counts(NamedTuple):
    """Frames and bytes, without what Ethernet adds on the wire; `in` comes into the switch."""

    in_frames: int
    in_bytes: int
    out_frames: int
    out_bytes: int


class PortSnapshot(msgspec.Struct, frozen=True):
    """Counts by interface at emulated time `now_s`."""

    now_s: float
    ports: dict[str, Counts]


class PortUse(msgspec.Struct, frozen=True):
    """Shares of a port's rate, on the wire: `to_node` leaves the switch, `from_node` comes in."""

    to_node: float
    from_node: float


def port_snapshot(bed: Testbed) -> PortSnapshot:
    """Read the counters of every port of every switch."""
    now = bed.clock.reader()
    found: dict[str, Counts] = {}
    began_s = now()
    for switch in bed.inventory.switches:
        found.update(parse_ports(bed.world.ofctl("dump-ports", switch.name),
                                 {port.port: port.interface for port in bed.inventory.ports_of_switch(switch.name)}))
    return PortSnapshot((began_s + now()) / 2, found)


def parse_ports(text: str, names: dict[int, str]) -> dict[str, Counts]:
    """Read `ovs-ofctl dump-ports`, in which a port is named or numbered."""
    found = {}
    for match in _PORT.finditer(text):
        name = match["port"].strip()
        interface = names.get(int(name), "") if name.isdigit() else name
        if interface in names.values():
            found[interface] = Counts(*(int(match[field]) for field in Counts._fields))
    return found


def utilisation(before: PortSnapshot, after: PortSnapshot, gbps: dict[str, float]) -> dict[str, PortUse]:
    """Return how much of its rate (`gbps` by interface) each port used between two snapshots."""
    window_s = after.now_s - before.now_s
    found = {}
    for interface, end in after.ports.items():
        start = before.ports.get(interface, Counts(0, 0, 0, 0))
        in_frames, in_bytes, out_frames, out_bytes = (e - s for e, s in zip(end, start, strict=True))
        room_bytes = gbps[interface] * 1e9 / 8 * window_s
        found[interface] = PortUse((out_bytes + WIRE_OVERHEAD_BYTES * out_frames) / room_bytes,
                                   (in_bytes + WIRE_OVERHEAD_BYTES * in_frames) / room_bytes)
    return found
