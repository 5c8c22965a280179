"""Every node, switch, port, link and address of a cluster, computed once from its nouns.

Everyone downstream reads the inventory: Mininet builds it, the ToR program routes by it, the pcap proof
checks captures against it, and a world keeps it as `inventory.json` beside its captures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from topologies import addressing as at
from topologies.catalog import BEEFY
from topologies.cluster import Cluster, Processor, Rack, Server
from topologies.errors import TopologyError
from topologies.fat_tree import fabric_links, pod_of_aggregation, pod_of_rack

CONTROLLER_GBPS = 10.0


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A compute, client or controller node. `server` and `nic` count from 1; 0 where there is none."""

    name: str
    role: str  # "host", "smartnic", "client" or "controller"
    rack: int
    server: int
    nic: int
    ip: str
    mac: str
    gateway: str
    model: str
    cores: int
    clock_ghz: float
    memory_gb: float
    family: str = "xeon"  # these three as in `Processor`
    speed: float = 1.0
    busy_watts: float | None = None


@dataclass(frozen=True, slots=True)
class ServerEntry:
    """A chassis, with its SmartNICs: what it draws at the wall and what it costs. `host` names its host's node.

    With `dedicated` that is reached over its plain NICs only.
    """

    host: str
    model: str
    idle_watts: float
    peak_watts: float
    cost_usd: float
    dedicated: bool = False


@dataclass(frozen=True, slots=True)
class SwitchEntry:
    """A switch. `gateway` is the address it answers ARP for; only a ToR has one."""

    name: str
    tier: str  # "tor", "agg" or "core"
    index: int
    pod: int  # 0 for a core, which belongs to no pod
    dpid: int
    mac: str
    gateway: str


@dataclass(frozen=True, slots=True)
class PortEntry:
    """A switch port and what hangs on it. `port` is its OpenFlow number, `peer` a node or switch name."""

    switch: str
    port: int
    interface: str
    peer: str
    peer_interface: str
    gbps: float


@dataclass(frozen=True, slots=True)
class PcieEntry:
    """The PCIe link between a SmartNIC and its host: one interface in each one's namespace."""

    smartnic: str
    smartnic_interface: str
    host: str
    host_interface: str
    gbps: float


@dataclass(frozen=True)
class Inventory:
    """The whole machine room, in order of racks, servers and NICs."""

    cluster: str
    nodes: tuple[NodeEntry, ...]
    switches: tuple[SwitchEntry, ...]
    ports: tuple[PortEntry, ...]
    pcie: tuple[PcieEntry, ...]
    servers: tuple[ServerEntry, ...] = ()
    _by_name: dict[str, NodeEntry | SwitchEntry] = field(default_factory=dict, init=False, repr=False, compare=False)

    def node(self, name: str) -> NodeEntry:
        """Return the node called `name`; raises TopologyError with the names there are."""
        entry = self._names().get(name)
        if not isinstance(entry, NodeEntry):
            raise TopologyError(f"no node {name!r} in {self.cluster}; nodes: "
                                f"{_shortened([n.name for n in self.nodes])}")
        return entry

    def switch(self, name: str) -> SwitchEntry:
        entry = self._names().get(name)
        if not isinstance(entry, SwitchEntry):
            raise TopologyError(f"no switch {name!r} in {self.cluster}; switches: "
                                f"{_shortened([s.name for s in self.switches])}")
        return entry

    def _names(self) -> dict[str, NodeEntry | SwitchEntry]:
        if not self._by_name:
            self._by_name.update({n.name: n for n in self.nodes})
            self._by_name.update({s.name: s for s in self.switches})
        return self._by_name

    def of_role(self, role: str) -> list[NodeEntry]:
        return [n for n in self.nodes if n.role == role]

    def smartnics_of(self, host: NodeEntry) -> list[NodeEntry]:
        return [n for n in self.nodes
                if n.role == "smartnic" and (n.rack, n.server) == (host.rack, host.server)]

    def host_of(self, node: NodeEntry) -> NodeEntry:
        """Return the host of the server that `node`, a host or SmartNIC, belongs to."""
        for n in self.nodes:
            if n.role == "host" and (n.rack, n.server) == (node.rack, node.server):
                return n
        raise TopologyError(f"{node.name} belongs to no server")

    def server_of(self, node: NodeEntry) -> ServerEntry:
        """Return the chassis that `node`, a host or SmartNIC, stands in."""
        host = self.host_of(node).name
        for server in self.servers:
            if server.host == host:
                return server
        raise TopologyError(f"the inventory of {self.cluster} says nothing of the server of {host}; it is an old one")

    def ports_of_switch(self, switch: str) -> list[PortEntry]:
        return [p for p in self.ports if p.switch == switch]

    def ports_of_node(self, node: str) -> list[PortEntry]:
        return [p for p in self.ports if p.peer == node]

    def ports_of_server(self, host: NodeEntry) -> list[PortEntry]:
        """Return the ToR ports over which `host` can be reached: its SmartNICs' and its plain NICs', or these alone."""
        members = {host.name}
        if not self.has_dedicated_nic(host.name):
            members |= {n.name for n in self.smartnics_of(host)}
        return [p for p in self.ports if p.peer in members]

    def has_dedicated_nic(self, host: str) -> bool:
        """Say whether `host` is reached over its plain NICs only; its SmartNICs it still talks to over PCIe."""
        return any(server.host == host and server.dedicated for server in self.servers)

    def pcie_of_host(self, host: str) -> list[PcieEntry]:
        return [link for link in self.pcie if link.host == host]

    def pcie_of_smartnic(self, smartnic: str) -> PcieEntry:
        for link in self.pcie:
            if link.smartnic == smartnic:
                return link
        raise TopologyError(f"{smartnic!r} is not a SmartNIC of {self.cluster}")

    # Stock Mininet reads this module with the system's Python, which has no msgspec; so it is imported where needed.

    def to_json(self) -> bytes:
        import msgspec

        shown = {name: getattr(self, name) for name in ("cluster", "nodes", "switches", "ports", "pcie", "servers")}
        return msgspec.json.format(msgspec.json.encode(shown), indent=1)

    @classmethod
    def from_json(cls, data: bytes) -> Inventory:
        """Read what `to_json` wrote; raises TopologyError if it is something else."""
        import msgspec

        from topologies.unreadable import UNREADABLE

        try:
            raw = msgspec.json.decode(data, type=_Stored)
        except UNREADABLE as error:
            raise TopologyError(f"not an inventory: {error}") from error
        return cls(raw.cluster, raw.nodes, raw.switches, raw.ports, raw.pcie, raw.servers)


@dataclass(frozen=True, slots=True)
class _Stored:
    cluster: str
    nodes: tuple[NodeEntry, ...]
    switches: tuple[SwitchEntry, ...]
    ports: tuple[PortEntry, ...]
    pcie: tuple[PcieEntry, ...]
    servers: tuple[ServerEntry, ...] = ()


def inventory_of(cluster: Cluster) -> Inventory:
    """Name and number everything in `cluster`; the same cluster always gives the same inventory."""
    build = _Builder(cluster)
    for r, rack in enumerate(cluster.racks, start=1):
        build.add_rack(r, rack)
    build.add_fabric()
    return Inventory(cluster.name, tuple(build.nodes), tuple(build.switches), tuple(build.ports), tuple(build.pcie),
                     tuple(build.servers))


class _Builder:
    """What `inventory_of` has named so far."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.nodes: list[NodeEntry] = []
        self.switches: list[SwitchEntry] = []
        self.ports: list[PortEntry] = []
        self.pcie: list[PcieEntry] = []
        self.servers: list[ServerEntry] = []
        self._last_port: dict[str, int] = {}

    def add_rack(self, r: int, rack: Rack) -> None:
        tor = f"tor{r}"
        gateway = at.gateway_ip(r)
        self.switches.append(SwitchEntry(tor, "tor", r, pod_of_rack(self.cluster, r), at.switch_dpid("tor", r),
                                         at.switch_mac("tor", r), gateway))
        prefix = at.rack_name_prefix(r, len(self.cluster.racks))
        for s, server in enumerate(rack.servers, start=1):
            self._add_server(tor, prefix, r, s, server)
        for i in range(1, rack.clients + 1):
            self._add_single(tor, prefix, f"c{i}", "client", r, at.client_ip(r, i), at.client_mac(r, i),
                             rack.client_gbps)
        for i in range(1, rack.controllers + 1):
            self._add_single(tor, prefix, f"ctl{i}", "controller", r, at.controller_ip(r, i),
                             at.controller_mac(r, i), CONTROLLER_GBPS)

    def add_fabric(self) -> None:
        named = {(s.tier, s.index): s.name for s in self.switches}
        for link in fabric_links(self.cluster):
            for tier, index in (link.lower, link.upper):
                if (tier, index) not in named:
                    pod = pod_of_aggregation(self.cluster, index) if tier == "agg" else 0
                    named[tier, index] = f"{tier}{index}"
                    self.switches.append(SwitchEntry(f"{tier}{index}", tier, index, pod, at.switch_dpid(tier, index),
                                                     at.switch_mac(tier, index), ""))
            lower, upper = named[link.lower], named[link.upper]
            self._plug(lower, upper, at.interface_name(upper, lower), link.gbps, upper)
            self._plug(upper, lower, at.interface_name(lower, upper), link.gbps, lower)

    def _plug(self, switch: str, peer: str, peer_interface: str, gbps: float, end: str) -> None:
        number = self._last_port[switch] = self._last_port.get(switch, 0) + 1
        self.ports.append(PortEntry(switch, number, at.interface_name(switch, end), peer, peer_interface, gbps))

    def _add_server(self, tor: str, prefix: str, r: int, s: int, server: Server) -> None:
        mac, gateway = at.server_mac(r, s), at.gateway_ip(r)
        host = f"{prefix}s{s}h"
        self.servers.append(ServerEntry(host, server.model, server.idle_watts, server.peak_watts, server.cost_usd,
                                        server.dedicated))
        self.nodes.append(NodeEntry(host, "host", r, s, 0, at.host_ip(r, s), mac, gateway, server.model,
                                    *_figures(server.host)))
        for k, nic in enumerate(server.smartnics, start=1):
            end = f"s{s}n{k}"
            name = f"{prefix}{end}"
            self.nodes.append(NodeEntry(name, "smartnic", r, s, k, at.smartnic_ip(r, s, k), mac, gateway, nic.model,
                                        *_figures(nic.processor)))
            self._plug(tor, name, at.interface_name(name, "net"), nic.port_gbps, end)
            self.pcie.append(PcieEntry(name, at.interface_name(name, "pcie"), host,
                                       at.interface_name(host, f"pcie{k}"), nic.pcie_gbps))
        for k, plain in enumerate(server.plain_nics, start=1):
            self._plug(tor, host, at.interface_name(host, f"nic{k}"), plain.port_gbps, f"s{s}h{k}")

    def _add_single(self, tor: str, prefix: str, end: str, role: str, r: int, ip: str, mac: str, gbps: float) -> None:
        """Add a client or controller node: a Beefy machine with one link (section 5)."""
        name = f"{prefix}{end}"
        self.nodes.append(NodeEntry(name, role, r, 0, 0, ip, mac, at.gateway_ip(r), BEEFY.model,
                                    *_figures(BEEFY.host)))
        self._plug(tor, name, at.interface_name(name, "net"), gbps, end)


def _figures(cpu: Processor) -> tuple[int, float, float, str, float, float | None]:
    """Return what a node's entry, at its end, takes from its processor."""
    return cpu.cores, cpu.clock_ghz, cpu.memory_gb, cpu.family, cpu.speed, cpu.busy_watts


def switch_links(inventory: Inventory) -> Iterator[tuple[PortEntry, PortEntry]]:
    """Yield each switch-to-switch link once, as its two ports."""
    by_interface = {p.interface: p for p in inventory.ports}
    for port in inventory.ports:
        other = by_interface.get(port.peer_interface)
        if other is not None and port.interface < other.interface:
            yield port, other


def _shortened(names: list[str], shown: int = 12) -> str:
    return ", ".join(names[:shown]) + (f", ... ({len(names)} in all)" if len(names) > shown else "")
