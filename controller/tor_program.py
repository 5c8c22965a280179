"""What each switch has to do, as frozen nouns computed from the inventory.

A TorProgram says who may send what from which port (Ingress), what is forbidden (Acl), where each address is
(IpRoute), and over which ports equal paths spread (EcmpGroup). `tor_rules` turns it into tables of rules;
nothing here knows OpenFlow. Aggregation and core switches have a program too: one with fewer parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import msgspec

from controller.errors import ProgramError
from topologies import addressing as at
from topologies.inventory import Inventory, NodeEntry, PortEntry, SwitchEntry
from topologies.unreadable import UNREADABLE

UPLINK_GROUP = 1000  # above every server's number, which is the group of that server's host
MAX_BUCKET_ID = 0xFFFFFF00


@dataclass(frozen=True, slots=True)
class Bucket:
    """One of a group's paths. `bucket_id` is the OpenFlow port number, so that it stays when others come and go.

    `eth_dst` is the MAC that frames leave with. The bucket is dead while `watch_port` is down, or while a
    liveness protocol on that port (802.3ad, BFD) is.
    """

    bucket_id: int
    port: int
    watch_port: int
    eth_dst: str
    weight: int = 1


@dataclass(frozen=True, slots=True)
class EcmpGroup:
    """Ports of which each flow takes one, by rendezvous hashing of its addresses and layer-4 ports.

    `hash_parameter` differs from switch to switch: were it the same, all flows that one switch sends to
    the next would make the same choice there, and paths would lie idle. A switch does not know `name`.
    """

    group_id: int
    name: str = field(compare=False)
    hash_parameter: int
    buckets: tuple[Bucket, ...]

    def __post_init__(self) -> None:
        ids = [b.bucket_id for b in self.buckets]
        if not ids or len(set(ids)) != len(ids):
            raise ProgramError(f"{self.name}: bucket ids {ids}; a group needs at least one, and each only once")
        for bucket in self.buckets:
            if not 0 <= bucket.bucket_id <= MAX_BUCKET_ID:
                raise ProgramError(f"{self.name}: bucket id {bucket.bucket_id}; it can be 0 to {MAX_BUCKET_ID}")
            if not 1 <= bucket.weight <= 0xFFFF:
                raise ProgramError(f"{self.name}: bucket {bucket.bucket_id} has weight {bucket.weight}; "
                                   "below 1 it is never used, and 65535 is the most")
        if not 0 <= self.hash_parameter < 1 << 64:
            raise ProgramError(f"{self.name}: hash parameter {self.hash_parameter}; it has 64 bits")


@dataclass(frozen=True, slots=True)
class IpRoute:
    """Where packets for `prefix` go: to `port` with `eth_dst`, to `group`, or, with neither, nowhere (counted).

    What came in by a port where it could leave is dropped, and so is what came in by one of `not_from`.
    """

    name: str
    prefix: str
    port: int | None = None
    group: int | None = None
    eth_dst: str = ""
    not_from: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_prefix(self.name, self.prefix)
        if self.port is not None and self.group is not None:
            raise ProgramError(f"route {self.name}: goes to port {self.port} and to group {self.group}; one is needed")


@dataclass(frozen=True, slots=True)
class Source:
    """Addresses that stand behind a port, and whose they are."""

    name: str
    prefix: str


@dataclass(frozen=True, slots=True)
class Ingress:
    """A port and the source addresses that may come in by it; `refused` are exceptions among them.

    Where `answers_arp`, the switch answers ARP requests for its gateway address from any of `sources`.
    """

    port: int
    interface: str
    sources: tuple[Source, ...]
    refused: tuple[Source, ...] = ()
    answers_arp: bool = False

    def __post_init__(self) -> None:
        for source in self.sources + self.refused:
            _check_prefix(f"ingress {self.interface}", source.prefix)


@dataclass(frozen=True, slots=True)
class Acl:
    """A destination port of `protocol`, "udp" or "tcp", that nothing behind `port` may send to."""

    name: str
    port: int
    destination: int
    protocol: str = "udp"


@dataclass(frozen=True, slots=True)
class TorProgram:
    """All that one switch has to do."""

    switch: str
    dpid: int
    mac: str
    gateway: str
    ingress: tuple[Ingress, ...]
    acls: tuple[Acl, ...]
    groups: tuple[EcmpGroup, ...]
    routes: tuple[IpRoute, ...]

    def __post_init__(self) -> None:
        ids = [g.group_id for g in self.groups]
        if len(set(ids)) != len(ids):
            raise ProgramError(f"{self.switch}: group ids {ids}; each can be there only once")
        for route in self.routes:
            if route.group is not None and route.group not in ids:
                raise ProgramError(f"{self.switch}: route {route.name} goes to group {route.group}; there are {ids}")

    def group(self, group_id: int) -> EcmpGroup:
        for group in self.groups:
            if group.group_id == group_id:
                return group
        raise ProgramError(f"{self.switch} has no group {group_id}; there are {[g.group_id for g in self.groups]}")

    def interface(self, port: int) -> str:
        """Return the name of the interface behind OpenFlow port `port`."""
        for ingress in self.ingress:
            if ingress.port == port:
                return ingress.interface
        raise ProgramError(f"{self.switch} has no port {port}; there are {[i.port for i in self.ingress]}")


def programs_of(inventory: Inventory) -> dict[str, TorProgram]:
    """Return the program of every switch in `inventory`, by switch name."""
    build = {"tor": _tor, "agg": _aggregation, "core": _core}
    return {s.name: build[s.tier](inventory, s) for s in inventory.switches}


def to_json(programs: Mapping[str, TorProgram]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(dict(programs)), indent=1)


def from_json(data: bytes) -> dict[str, TorProgram]:
    """Read what `to_json` wrote; raises ProgramError, saying where it is something else."""
    try:
        programs = msgspec.json.decode(data, type=dict[str, TorProgram])
    except UNREADABLE as error:
        raise ProgramError(f"not a set of switch programs: {error}") from error
    for name, program in programs.items():
        if program.switch != name:
            raise ProgramError(f"not a set of switch programs: the program of {program.switch} stands under {name}")
    return programs


def _tor(inventory: Inventory, tor: SwitchEntry) -> TorProgram:
    ports = inventory.ports_of_switch(tor.name)
    nodes = [n for n in inventory.nodes if n.rack == tor.index]
    uplinks = [p for p in ports if p.peer in _switch_names(inventory)]
    ports_of = {n.name: [p for p in ports if p.peer == n.name] for n in nodes}
    server_ports = {n.name: sorted(inventory.ports_of_server(n), key=lambda p: p.port)
                    for n in nodes if n.role == "host"}
    by_name = {n.name: n for n in nodes}
    rack = Source(f"rack {tor.index}", at.rack_prefix(tor.index))

    several = len(inventory.of_role("controller")) > 1
    ingress, acls = [], []
    for port in ports:
        if port in uplinks:
            ingress.append(Ingress(port.port, port.interface, (Source("other racks", at.ALL_NODES_PREFIX),), (rack,)))
            continue
        node = by_name[port.peer]
        behind = [node]
        if node.role == "smartnic" and port in server_ports[inventory.host_of(node).name]:
            behind.append(inventory.host_of(node))
        ingress.append(Ingress(port.port, port.interface, tuple(Source(n.name, f"{n.ip}/32") for n in behind),
                               answers_arp=True))
        if node.role == "client":
            acls += [Acl(f"control port {udp} from {node.name}", port.port, udp) for udp in at.CONTROL_PORTS]
        if several and node.role != "controller":
            acls.append(Acl(f"Raft's port from {node.name} on {port.interface}", port.port, at.RAFT_PORT, "tcp"))

    groups, routes = [], []
    for node in nodes:
        if node.role == "host":
            groups.append(EcmpGroup(node.server, f"ports of {node.name}", tor.dpid,
                                    tuple(Bucket(p.port, p.port, p.port, node.mac) for p in server_ports[node.name])))
            routes.append(IpRoute(node.name, f"{node.ip}/32", group=node.server))
        else:
            routes.append(IpRoute(node.name, f"{node.ip}/32", port=_only_port(node, ports_of[node.name]),
                                  eth_dst=node.mac))
    routes.append(IpRoute(f"nobody in rack {tor.index}", rack.prefix))
    if uplinks:
        groups.append(_ecmp(inventory, tor, "uplinks", uplinks))
        routes.append(IpRoute("other racks", at.ALL_NODES_PREFIX, group=UPLINK_GROUP))
    return TorProgram(tor.name, tor.dpid, tor.mac, tor.gateway, tuple(ingress), tuple(acls), tuple(groups),
                      tuple(routes))


def _aggregation(inventory: Inventory, agg: SwitchEntry) -> TorProgram:
    by_name = {s.name: s for s in inventory.switches}
    ports = inventory.ports_of_switch(agg.name)
    cores = [p for p in ports if by_name[p.peer].tier == "core"]
    racks = {p: by_name[p.peer] for p in ports if p not in cores}
    own = tuple(_rack_source(s) for s in racks.values())
    ingress = [Ingress(p.port, p.interface, (_rack_source(s),)) for p, s in racks.items()]
    ingress += [Ingress(p.port, p.interface, (Source("other pods", at.ALL_NODES_PREFIX),), own) for p in cores]
    routes = [IpRoute(f"rack {s.index}", at.rack_prefix(s.index), port=p.port, eth_dst=s.mac)
              for p, s in racks.items()]
    groups = []
    if cores:
        groups.append(_ecmp(inventory, agg, "cores", cores))
        routes.append(IpRoute("other pods", at.ALL_NODES_PREFIX, group=UPLINK_GROUP))
    return TorProgram(agg.name, agg.dpid, agg.mac, "", tuple(ingress), (), tuple(groups), tuple(routes))


def _core(inventory: Inventory, core: SwitchEntry) -> TorProgram:
    by_name = {s.name: s for s in inventory.switches}
    ingress, routes = [], []
    for port in inventory.ports_of_switch(core.name):
        agg = by_name[port.peer]
        racks = [s for s in inventory.switches if s.tier == "tor" and s.pod == agg.pod]
        ingress.append(Ingress(port.port, port.interface, tuple(_rack_source(s) for s in racks)))
        routes += [IpRoute(f"rack {s.index}", at.rack_prefix(s.index), port=port.port, eth_dst=agg.mac)
                   for s in racks]
    return TorProgram(core.name, core.dpid, core.mac, "", tuple(ingress), (), (), tuple(routes))


def _ecmp(inventory: Inventory, switch: SwitchEntry, name: str, ports: Iterable[PortEntry]) -> EcmpGroup:
    buckets = tuple(Bucket(p.port, p.port, p.port, inventory.switch(p.peer).mac) for p in ports)
    return EcmpGroup(UPLINK_GROUP, f"{name} of {switch.name}", switch.dpid, buckets)


def _rack_source(tor: SwitchEntry) -> Source:
    return Source(f"rack {tor.index}", at.rack_prefix(tor.index))


def _switch_names(inventory: Inventory) -> set[str]:
    return {s.name for s in inventory.switches}


def _only_port(node: NodeEntry, ports: list[PortEntry]) -> int:
    if len(ports) != 1:
        raise ProgramError(f"{node.name}, a {node.role}, has {len(ports)} switch ports; it needs exactly 1")
    return ports[0].port


def _check_prefix(name: str, prefix: str) -> None:
    try:
        IPv4Network(prefix)
    except ValueError as error:
        raise ProgramError(f"{name}: {error}") from error
