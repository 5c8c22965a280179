"""How much the kernel dropped because a receive buffer of this process was full."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from pathlib import Path

SOL_PACKET = 263
PACKET_STATISTICS = 6
_STATISTICS = struct.Struct("=II")  # packets, drops: since the last question


class PacketDrops:
    """Frames that AF_PACKET sockets have lost; the kernel forgets its count when it is asked, so it is kept here."""

    def __init__(self, wires: Iterable[socket.socket]) -> None:
        self._wires = tuple(wires)
        self._total = 0

    def __call__(self) -> int:
        for wire in self._wires:
            self._total += int(_STATISTICS.unpack(wire.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))[1])
        return self._total


def udp_drops(table: Path = Path("/proc/self/net/udp")) -> int:
    """Return the datagrams lost by the UDP sockets of this network namespace."""
    return sum(int(line.split()[-1]) for line in table.read_text().splitlines()[1:])
