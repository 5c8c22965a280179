"""How far apart two compute nodes communicate: the levels of HCM's hierarchical topology (section 3.3).

        [core]                        level   the other node is ...                         reached over
       /      \\                         1     the same node                                 a queue in memory
    [agg]    [agg]                      2     the host of this SmartNIC, or a SmartNIC      PCIe
    /   \\     /   \\                           of this host
 [tor] [tor] [tor] [tor]                3, 4  in this rack: a SmartNIC, a host              the ToR
   |     |                              5, 6  in another rack of this pod: likewise         ToR, aggregation, ToR
 n n n   n n n                          7, 8  in another pod: likewise                      the core, too
   h       h

Levels 1 to 4 are the paper's; it calls for more across racks without naming them, and 5 to 8 repeat 3 and 4 one and two
tiers up. A level holds nodes "that require a similar communication mechanism". So two SmartNICs of one server are at
level 3 and not at 2: they talk over the ToR (section 3.1), as SmartNICs of two servers do. What counts beyond a server
is the kind of the other node, so a level has a direction: from a host to a SmartNIC of another server it is 3, back 4.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from topologies.errors import TopologyError
from topologies.inventory import NodeEntry


class Level(IntEnum):
    """A level of HCM's hierarchy, nearest first."""

    SAME_NODE = 1
    SAME_SERVER = 2
    RACK_SMARTNIC = 3
    RACK_HOST = 4
    POD_SMARTNIC = 5
    POD_HOST = 6
    FAR_SMARTNIC = 7
    FAR_HOST = 8


class Spot(NamedTuple):
    """Where a compute node stands; all count from 1, and `nic` is 0 for a host."""

    pod: int
    rack: int
    server: int
    nic: int


def spot_of(node: NodeEntry, racks_per_pod: int = 1) -> Spot:
    """Return where a host or SmartNIC of an inventory stands; raises TopologyError for any other node."""
    if node.role not in ("host", "smartnic"):
        raise TopologyError(f"{node.name} is a {node.role}, not a compute node")
    return Spot((node.rack - 1) // racks_per_pod + 1, node.rack, node.server, node.nic)


def level_between(here: Spot, there: Spot) -> Level:
    """Return the level of `there` in the hierarchy around `here`, from their coordinates alone."""
    on_host = there.nic == 0
    if here.rack == there.rack:
        if here.server == there.server:
            if here.nic == there.nic:
                return Level.SAME_NODE
            if on_host or here.nic == 0:
                return Level.SAME_SERVER
        return Level.RACK_HOST if on_host else Level.RACK_SMARTNIC
    if here.pod == there.pod:
        return Level.POD_HOST if on_host else Level.POD_SMARTNIC
    return Level.FAR_HOST if on_host else Level.FAR_SMARTNIC
