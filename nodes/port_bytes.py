"""How many bytes a node's ports have carried, as the kernel counts them and as they would be on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from nodes.errors import NodeError
from nodes.shaping import WIRE_OVERHEAD_BYTES


class Carried(NamedTuple):
    """Bytes that left and bytes that came in since the interfaces were made, with what Ethernet adds to each frame."""

    transmitted: int
    received: int


def carried_by(interfaces: Iterable[str], table: Path = Path("/proc/self/net/dev")) -> Carried:
    """Return what `interfaces` of this network namespace carried together; raises NodeError for one that is not there.

    Nothing is counted per packet for this: the kernel does so anyhow.
    """
    rows = {name.strip(): numbers.split() for name, _, numbers in
            (line.partition(":") for line in table.read_text().splitlines()[2:])}
    transmitted = received = 0
    for interface in interfaces:
        row = rows.get(interface)
        if row is None:
            raise NodeError(f"no interface {interface!r}; there are {', '.join(rows)}")
        received += int(row[0]) + WIRE_OVERHEAD_BYTES * int(row[1])
        transmitted += int(row[8]) + WIRE_OVERHEAD_BYTES * int(row[9])
    return Carried(transmitted, received)
