"""The compute nodes of a cluster in one order, by class, with what each can give.

The order is that of find_first_fit: rack by rack, server by server, a server's SmartNICs before its host, since E3
places for energy (ours: the paper's T has no order). Nodes that can give the same form a class. Within a class they
keep that order, so a server, a rack or a pod is a range of positions in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from controller.errors import PlacementError
from topologies.addressing import rack_name_prefix
from topologies.cluster import Cluster, Processor, Server
from topologies.distance import Level, Spot, level_between
from topologies.fat_tree import pod_of_rack

# Ours: the paper says that servers have a Seagate HDD and that durable storage is reached over the network.
HOST_DISK_MB = 1_000_000.0
SMARTNIC_DISK_MB = 0.0
# Ours: requests that may be outstanding at a node, for each of its cores, before it counts as full.
OUTSTANDING_PER_CORE = 64
# Ours: how busy placement plans cores to be at most, since a queue before full ones has no end.
PLANNED_UTILISATION = 0.8


class Resource(IntEnum):
    """What a node has so and so much of; the first two cannot be had by waiting, the others are rates."""

    MEMORY = 0
    DISK = 1
    CPU = 2
    NETWORK = 3
    OUTSTANDING = 4

    @property
    def phrase(self) -> str:
        return ("memory", "disk", "CPU", "network", "outstanding requests")[self]


UNITS = ("MB", "MB", "cores", "Gb/s", "requests")
HARD = (Resource.MEMORY, Resource.DISK)


@dataclass(frozen=True, slots=True)
class NodeClass:
    """What one kind of compute node can give. `speed` is per core, relative to Table 1's processor of its family."""

    role: str  # "host" or "smartnic"
    model: str
    family: str  # "xeon" or "cnmips"
    speed: float
    clock_ghz: float
    cores: int
    memory_mb: float
    disk_mb: float
    network_gbps: float
    busy_watts: float | None = None

    @property
    def capacity(self) -> tuple[float, float, float, float, float]:
        """Return what there is of each Resource to plan with."""
        return (self.memory_mb, self.disk_mb, self.cores * PLANNED_UTILISATION, self.network_gbps,
                float(self.cores * OUTSTANDING_PER_CORE))


@dataclass(frozen=True, slots=True)
class ComputeNode:
    """A host or SmartNIC: `index` in the order of all nodes, `position` in that of its class."""

    index: int
    name: str
    spot: Spot
    class_index: int
    position: int


@dataclass(frozen=True, slots=True)
class Range:
    """Positions `start` up to and without `end` in the class with index `class_index`."""

    class_index: int
    start: int
    end: int


class ComputeNodes:
    """All compute nodes of a cluster. A value: nothing here changes."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.nodes: list[ComputeNode] = []
        self.classes: list[NodeClass] = []
        self.of_class: list[list[int]] = []  # node indexes by class
        self.servers: list[tuple[Server, tuple[int, ...]]] = []  # each with its nodes' indexes, its host last
        self.server_of: list[int] = []  # by node
        self._rack_of_server: list[tuple[int, int]] = []  # by server: the first of its rack, and how many there are
        self._by_name: dict[str, int] = {}
        self._class_of: dict[NodeClass, int] = {}
        self._rack_starts: list[list[int]] = []  # by class: position at which rack r + 1 starts
        for r, rack in enumerate(cluster.racks, start=1):
            for s, server in enumerate(rack.servers, start=1):
                self._add_server(r, s, server)
            count = len(rack.servers)
            self._rack_of_server += [(len(self.servers) - count, count)] * count
            for starts, members in zip(self._rack_starts, self.of_class, strict=True):
                starts.extend([len(members)] * (r + 1 - len(starts)))
        self.hosts = [node.index for node in self.nodes if node.spot.nic == 0]
        self._role_classes = {role: tuple(i for i, c in enumerate(self.classes) if c.role == role)
                              for role in ("host", "smartnic")}
        self.spots = [node.spot for node in self.nodes]
        self.class_of = [node.class_index for node in self.nodes]
        self._of_classes: dict[tuple[bool, ...], tuple[int, ...]] = {}
        self._level_ranges: dict[tuple[int, int], tuple[Range, ...]] = {}

    def __len__(self) -> int:
        return len(self.nodes)

    def node(self, name: str) -> ComputeNode:
        """Return the node called `name`; raises PlacementError."""
        index = self._by_name.get(name)
        if index is None:
            raise PlacementError(f"no compute node {name!r} in {self.cluster.name}; there are "
                                 f"{', '.join(n.name for n in self.nodes[:8])}{', ...' * (len(self.nodes) > 8)}")
        return self.nodes[index]

    def level(self, here: int, there: int) -> Level:
        return level_between(self.spots[here], self.spots[there])

    def of_classes(self, allowed: tuple[bool, ...]) -> tuple[int, ...]:
        """Return the nodes of the classes for which `allowed` is true, in order."""
        found = self._of_classes.get(allowed)
        if found is None:
            found = tuple(i for i, c in enumerate(self.class_of) if allowed[c])
            self._of_classes[allowed] = found
        return found

    def neighbour(self, server: int, steps: int) -> int:
        """Return the server that is `steps` further in the same rack, counted around."""
        first, count = self._rack_of_server[server]
        return first + (server - first + steps) % count

    def whole(self) -> tuple[Range, ...]:
        return tuple(Range(i, 0, len(members)) for i, members in enumerate(self.of_class))

    def beyond_server(self, here: int, level: Level) -> tuple[Range, ...]:
        """Return ranges that hold all nodes of `level`, RACK_SMARTNIC or further, around `here`.

        They also hold nodes of the same kind that are nearer, which HCM has found not to fit by then.
        """
        spot = self.spots[here]
        role = "smartnic" if level % 2 else "host"
        racks = len(self.cluster.racks)
        if level <= Level.RACK_HOST:
            first, end = spot.rack - 1, spot.rack
        elif level <= Level.POD_HOST:
            per_pod = self.cluster.fabric.racks_per_pod
            first = (spot.pod - 1) * per_pod
            end = min(racks, first + per_pod)
        else:
            first, end = 0, racks
        key = (level, first)
        found = self._level_ranges.get(key)
        if found is None:
            starts = self._rack_starts
            found = tuple(Range(c, starts[c][first], starts[c][end]) for c in self._role_classes[role]
                          if starts[c][first] < starts[c][end])
            self._level_ranges[key] = found
        return found

    def without_rack(self, ranges: Iterable[Range], rack: int) -> list[Range]:
        """Return `ranges` without what is in rack `rack`."""
        left = []
        for r in ranges:
            starts = self._rack_starts[r.class_index]
            for start, end in ((r.start, min(r.end, starts[rack - 1])), (max(r.start, starts[rack]), r.end)):
                if start < end:
                    left.append(Range(r.class_index, start, end))
        return left

    def _add_server(self, r: int, s: int, server: Server) -> None:
        prefix, pod = rack_name_prefix(r, len(self.cluster.racks)), pod_of_rack(self.cluster, r)
        first = len(self.nodes)
        for name, nic, kind in _members(prefix, s, server):
            class_index = self._class_of.setdefault(kind, len(self.classes))
            if class_index == len(self.classes):
                self.classes.append(kind)
                self.of_class.append([])
                self._rack_starts.append([0] * r)
            members = self.of_class[class_index]
            node = ComputeNode(len(self.nodes), name, Spot(pod, r, s, nic), class_index, len(members))
            members.append(node.index)
            self._by_name[name] = node.index
            self.nodes.append(node)
            self.server_of.append(len(self.servers))
        self.servers.append((server, tuple(range(first, len(self.nodes)))))


def _members(prefix: str, s: int, server: Server) -> Iterator[tuple[str, int, NodeClass]]:
    for k, nic in enumerate(server.smartnics, start=1):
        yield f"{prefix}s{s}n{k}", k, _class_of("smartnic", nic.model, nic.processor, SMARTNIC_DISK_MB, nic.port_gbps)
    # A host is reached over all of its server's ports (section 3.2), unless it has NICs of its own (section 5.3).
    gbps = sum(n.port_gbps for n in server.plain_nics)
    if not server.dedicated:
        gbps += sum(n.port_gbps for n in server.smartnics)
    yield f"{prefix}s{s}h", 0, _class_of("host", server.model, server.host, HOST_DISK_MB, gbps)


def _class_of(role: str, model: str, processor: Processor, disk_mb: float, gbps: float) -> NodeClass:
    return NodeClass(role, model, processor.family, processor.speed, processor.clock_ghz, processor.cores,
                     processor.memory_gb * 1024.0, disk_mb, gbps, processor.busy_watts)
