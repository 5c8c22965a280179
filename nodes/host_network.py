"""What makes a namespace the host of an E3 server: the commands for its addresses, routes and switch ports.

    tor1-s1n1 --- s1n1-net [SmartNIC s1n1] s1n1-pcie --- s1h-pcie1 [host s1h: its address on lo]
    tor1-s1h1 ------------------------------------------ s1h-nic1

The host's address stands on `lo`, so that it is reachable over every member and belongs to none. Everything
goes to the gateway over the members that carry traffic; only the server's own SmartNICs are reached directly
over PCIe. Host and SmartNICs share one MAC (paper section 2.4), hence the static neighbours.

This module only says what to run; `run` runs one command in the namespace of whoever calls it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from nodes.errors import NodeError
from topologies.addressing import ALL_NODES_PREFIX
from topologies.inventory import Inventory

_BATCH = ("ip", "-batch", "-")

# Next hops are numbered so in the host's own namespace: the group, then one for each member.
GROUP_ID = 1
PROBE_ID = 100

# Ours. A flow keeps its member while that lives; a healed member gets idle flows back after 1 s, and after
# 30 s its full share even of busy ones. 256 buckets split evenly enough over up to 16 members.
RESILIENT = "type resilient buckets 256 idle_timer 1 unbalanced_timer 30"


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, and what it reads from standard input."""

    argv: tuple[str, ...]
    stdin: str = ""


@dataclass(frozen=True, slots=True)
class TeamMember:
    """One of the host's links: over PCIe to the SmartNIC with that IP, or a plain NIC (no IP)."""

    interface: str
    smartnic_ip: str = ""


@dataclass(frozen=True, slots=True)
class TeamConfig:
    """A host's links and everything its teaming process must know.

    Emulated time is (CLOCK_MONOTONIC - `clock_start_s`) / `time_scale`; `status_path` is rewritten at each
    change. `parent_pid`, if not 0, is the process with which the teaming process ends.
    """

    host: str
    host_ip: str
    mac: str
    gateway: str
    members: tuple[TeamMember, ...]
    status_path: Path
    clock_start_s: float = 0.0
    time_scale: float = 1.0
    parent_pid: int = 0

    def __post_init__(self) -> None:
        if not self.members:
            raise NodeError(f"{self.host}: a team needs at least one member")
        names = [m.interface for m in self.members]
        if len(set(names)) != len(names):
            raise NodeError(f"{self.host}: members {', '.join(names)}; each can be named once")
        for ip in (self.host_ip, self.gateway, *(m.smartnic_ip for m in self.members if m.smartnic_ip)):
            try:
                IPv4Address(ip)
            except AddressValueError as error:
                raise NodeError(f"{self.host}: {error}") from error
        if len(self.mac_bytes) != 6:
            raise NodeError(f"{self.host}: {self.mac!r} is not a MAC address")
        if self.time_scale <= 0:
            raise NodeError(f"{self.host}: time scale {self.time_scale}; it must be above 0")

    @property
    def mac_bytes(self) -> bytes:
        try:
            return bytes.fromhex(self.mac.replace(":", ""))
        except ValueError as error:
            raise NodeError(f"{self.host}: {self.mac!r} is not a MAC address") from error


def team_config(inventory: Inventory, host: str, status_path: Path, *, clock_start_s: float = 0.0,
                time_scale: float = 1.0, parent_pid: int = 0) -> TeamConfig:
    """Return the team of `host`: its PCIe links, then its plain NICs.

    Raises TopologyError for an unknown node, NodeError for one that is no host.
    """
    node = inventory.node(host)
    if node.role != "host":
        raise NodeError(f"{host} is a {node.role}; only a host has a team")
    members = [TeamMember(link.host_interface, inventory.node(link.smartnic).ip)
               for link in inventory.pcie_of_host(host)]
    members += [TeamMember(port.peer_interface) for port in inventory.ports_of_node(host)]
    return TeamConfig(host, node.ip, node.mac, node.gateway, tuple(members), status_path,
                      clock_start_s, time_scale, parent_pid)


def setup_commands(config: TeamConfig) -> list[Command]:
    """Return what to run once in the host's namespace before any teaming; repeating it does no harm."""
    return [_settings(config), _no_ipv6(), *_offloads(config), _addresses(config), own_smartnics(config)]


def own_smartnics(config: TeamConfig, only: Sequence[str] | None = None) -> Command:
    """Return the routes and neighbours of the server's own SmartNICs, or of those behind the `only` interfaces.

    The kernel forgets them when an interface is set down, so they are repeated when one comes back.
    """
    lines = []
    for member in config.members:
        if member.smartnic_ip and (only is None or member.interface in only):
            lines += [f"neigh replace {member.smartnic_ip} lladdr {config.mac} dev {member.interface} nud permanent",
                      f"route replace {member.smartnic_ip}/32 dev {member.interface} src {config.host_ip}"]
    return _ip(lines)


def probe_resilient_groups() -> list[Command]:
    """Return commands that succeed, and leave nothing, where the kernel has resilient next-hop groups."""
    return [_ip([f"nexthop replace id {PROBE_ID} blackhole",
                 f"nexthop replace id {PROBE_ID + 1} group {PROBE_ID} type resilient buckets 2",
                 f"nexthop del id {PROBE_ID + 1}", f"nexthop del id {PROBE_ID}"])]


def egress_commands(config: TeamConfig, up: Sequence[str], *, resilient: bool) -> list[Command]:
    """Return what spreads the host's egress over the members `up`; none up makes the network unreachable.

    With resilient groups the flows of the members that stay keep theirs. A carrier lost since then fails the
    command as a whole: try again with what is up by then.
    """
    if not up:
        lines = [f"route replace unreachable {ALL_NODES_PREFIX}"]
    elif resilient:
        ids = {m.interface: GROUP_ID + n for n, m in enumerate(config.members, start=1)}
        lines = [f"nexthop replace id {ids[name]} via {config.gateway} dev {name} onlink" for name in up]
        lines += [f"nexthop replace id {GROUP_ID} group {'/'.join(str(ids[name]) for name in up)} {RESILIENT}",
                  f"route replace {ALL_NODES_PREFIX} nhid {GROUP_ID} src {config.host_ip}"]
    else:
        hops = " ".join(f"nexthop via {config.gateway} dev {name} weight 1 onlink" for name in up)
        lines = [f"route replace {ALL_NODES_PREFIX} src {config.host_ip} {hops}"]
    return [_ip(lines)]


def switch_lacp_settings(inventory: Inventory, host: str, *, bonded: bool = False) -> tuple[str, ...]:
    """Return the ovs-vsctl arguments that make Open vSwitch speak LACP on every port of `host`'s server.

    By default each port stays one by itself. Open vSwitch then calls its link individual and takes the port's
    number for its aggregation key, unless told otherwise: the server's ports share one key, so that they are
    one partner to the teaming process. The kernel's bonding driver never aggregates individual links, and would
    use one of them: for it, `bonded` joins a server's ports, if more than one, in one Open vSwitch bond. Their
    OpenFlow numbers stay, and groups go on to name the single ports.
    """
    node = inventory.node(host)
    ports = inventory.ports_of_server(node)
    arguments: list[str] = []
    if bonded and len(ports) > 1:
        switch, names = ports[0].switch, [port.interface for port in ports]
        for port in ports:
            arguments += ["--", "--if-exists", "del-port", switch, port.interface]
        arguments += ["--", "add-bond", switch, f"{host}-team", *names, "bond_mode=balance-tcp",
                      "lacp=active", "other_config:lacp-time=fast"]
        for port in ports:
            arguments += ["--", "set", "interface", port.interface, f"ofport_request={port.port}"]
        return tuple(arguments)
    for port in ports:
        arguments += ["--", "set", "port", port.interface, "lacp=active", "other_config:lacp-time=fast",
                      "--", "set", "interface", port.interface, f"other_config:lacp-aggregation-key={node.server}"]
    return tuple(arguments)


def run(command: Command) -> None:
    """Run `command` in this process's network namespace; raises NodeError with what it said."""
    if command.argv == _BATCH and not command.stdin:
        return
    try:
        done = subprocess.run(command.argv, input=command.stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NodeError(f"{command.argv[0]}: {error.strerror}; is it installed?") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise NodeError(f"{' '.join(command.argv)} ended with {done.returncode}: {said}\n{command.stdin}".rstrip())


def _settings(config: TeamConfig) -> Command:
    """Kernel settings: answer ARP for the address on lo over every member, and take packets that came that way."""
    values = {"net.ipv4.ip_forward": 0, "net.ipv4.fib_multipath_hash_policy": 1}
    for name in ("all", "default", *(m.interface for m in config.members)):
        values |= {f"net.ipv4.conf.{name}.{key}": value for key, value in (
            ("rp_filter", 0), ("arp_ignore", 0), ("arp_announce", 0), ("arp_filter", 0),
            ("ignore_routes_with_linkdown", 1), ("accept_redirects", 0), ("send_redirects", 0))}
    return Command(("sysctl", "-q", "-w", *(f"{key}={value}" for key, value in values.items())))


def _no_ipv6() -> Command:
    """Neighbours with one MAC would take each other's IPv6 addresses for duplicates; -e: a kernel may have no IPv6."""
    return Command(("sysctl", "-e", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1",
                    "net.ipv6.conf.default.disable_ipv6=1"))


def _offloads(config: TeamConfig) -> list[Command]:
    # A user-space switch and agent forward what they read: a checksum left to the hardware is never filled in.
    return [Command(("ethtool", "-K", m.interface, "tx", "off")) for m in config.members]


def _addresses(config: TeamConfig) -> Command:
    lines = ["link set lo up", f"addr replace {config.host_ip}/32 dev lo"]
    lines += [f"link set {m.interface} address {config.mac} up" for m in config.members]
    return _ip(lines)


def _ip(lines: Sequence[str]) -> Command:
    return Command(_BATCH, "".join(f"{line}\n" for line in lines))
