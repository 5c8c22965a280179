"""How each role of node is set up and what runs on it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from nodes.agent import HostConfig, SmartNicConfig, TeamOrder
from nodes.deployment import Deployment
from nodes.emulated_clock import EmulatedClock
from nodes.emulated_node import EmulatedNode, run_in
from nodes.node_control import reports_of
from nodes.nursery import Order
from nodes.pace import Pace
from nodes.socket_room import SOCKET_BUFFER_BYTES
from topologies.addressing import ALL_NODES_PREFIX
from topologies.inventory import Inventory, NodeEntry


def set_up_single(node: EmulatedNode, entry: NodeEntry, inventory: Inventory) -> None:
    """Give a client or controller node its address and its one route: everything over the gateway.

    What is sent before the gateway's MAC is known waits: Linux would keep some 160 frames of a load that begins.
    """
    interface = inventory.ports_of_node(entry.name)[0].peer_interface
    run_in(node, ["sysctl", "-e", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1",
                  "net.ipv6.conf.default.disable_ipv6=1",
                  f"net.ipv4.neigh.{interface}.unres_qlen_bytes={SOCKET_BUFFER_BYTES}"])
    run_in(node, ["ethtool", "-K", interface, "tx", "off"])
    run_in(node, ["ip", "-batch", "-"], "\n".join((
        "link set lo up", f"link set {interface} up", f"addr add {entry.ip}/32 dev {interface}",
        f"route add {ALL_NODES_PREFIX} via {entry.gateway} dev {interface} src {entry.ip} onlink")) + "\n")


def team_order(entry: NodeEntry, pid: int, run_dir: Path, mode: str) -> Order:
    """Return the order for a host's teaming process, which also sets up the host's addresses and routes."""
    name = f"team-{entry.name}"
    config = TeamOrder(str(run_dir / "inventory.json"), entry.name, str(run_dir / f"{name}.json"), mode)
    return Order(name, "nodes.agent:run_host_team", msgspec.msgpack.encode(config), pid, str(run_dir / f"{name}.log"))


def pid_file(node: str) -> str:
    """Return the name of the file, in the run directory, with the pid of the agent of `node`."""
    return f"agent-{node}.pid"


def agent_order(entry: NodeEntry, pid: int, run_dir: Path, inventory: Inventory, deployments: tuple[Deployment, ...],
                frame_loss: float, cores: int, clock: EmulatedClock, pace: Pace | None,
                controller_ips: tuple[str, ...] = (), empty: bool = False) -> Order:
    """Return the order for the agent of a host or SmartNIC; a SmartNIC drops the share `frame_loss` of IPv4 frames.

    It reports to the controllers at `controller_ips`, if there are any, and obeys who decides. `empty`: it has run
    before, and begins without instances.
    """
    reports = reports_of(entry, inventory, controller_ips) if controller_ips else None
    config: HostConfig | SmartNicConfig
    if entry.role == "host":
        config, function = HostConfig(entry.name, entry.ip, cores, deployments, clock, pace, reports,
                                      empty), "run_host"
    else:
        pcie = inventory.pcie_of_smartnic(entry.name)
        network = inventory.ports_of_node(entry.name)[0].peer_interface
        config = SmartNicConfig(entry.name, entry.ip, entry.mac, entry.gateway, inventory.node(pcie.host).ip,
                                network, pcie.smartnic_interface, cores, deployments, frame_loss, clock, pace,
                                reports, empty)
        function = "run_smartnic"
    return Order(entry.name, f"nodes.agent:{function}", msgspec.msgpack.encode(config), pid,
                 str(run_dir / f"agent-{entry.name}.log"), pid_file=str(run_dir / pid_file(entry.name)))
