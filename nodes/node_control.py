"""A compute node's side of the control plane: a heartbeat at every slot boundary of the emulated clock.

Pure: what is to be sent is appended to lists, and `at` says when there is something to do next. Only the controller's
address is reported to, from one control port to the other.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nodes.control_messages import HEARTBEAT_S, slot_of_time
from nodes.execution import Execution
from nodes.load_report import LoadReporter, NodeLoad
from nodes.port_bytes import Carried
from topologies.inventory import Inventory, NodeEntry

Controls = list[tuple[bytes, bytes]]  # IP address, and what its control port is to get


class Reports(msgspec.Struct, frozen=True):
    """To which controller a node reports, and of which ports: their interfaces here, and their rates together."""

    controller_ip: str
    interfaces: tuple[str, ...]
    port_gbps: float


def reports_of(entry: NodeEntry, inventory: Inventory, controller_ip: str) -> Reports:
    """Return what a host or SmartNIC reports to the controller at `controller_ip`.

    A SmartNIC tells of its port to the ToR; a host of all that it sends and receives, against the rates of all ports
    by which it can be reached.
    """
    if entry.role == "smartnic":
        port = inventory.ports_of_node(entry.name)[0]
        return Reports(controller_ip, (port.peer_interface,), port.gbps)
    interfaces = (*(link.host_interface for link in inventory.pcie_of_host(entry.name)),
                  *(port.peer_interface for port in inventory.ports_of_node(entry.name)))
    return Reports(controller_ip, interfaces, sum(port.gbps for port in inventory.ports_of_server(entry)))


class NodeControl:
    """Reports of a node that runs `execution` to the controller at `controller_ip` (4 bytes), in its run `boot`.

    `queue_least` returns the least length of the node's queue since it was last called, and `carried` what its ports,
    of `port_gbps` in all, have carried so far.
    """

    def __init__(self, execution: Execution, controller_ip: bytes, boot: int, port_gbps: float,
                 queue_least: Callable[[], int], carried: Callable[[], Carried], now: float) -> None:
        self._execution = execution
        self._controller_ip = controller_ip
        self._queue_least = queue_least
        self._carried = carried
        self._reporter = LoadReporter(execution.cores.count, port_gbps, boot, now)
        self._heartbeats = 0
        self.at = _next_boundary(now)

    def work(self, now: float, out: Controls) -> None:
        """Do what is due at `now`."""
        if now < self.at:
            return
        load = NodeLoad(self._queue_least(), *self._carried(), self._execution.loads())
        out.append((self._controller_ip, self._reporter.heartbeat(load, now).encode()))
        self._heartbeats += 1
        self.at = _next_boundary(now)

    def counters(self) -> dict[str, int]:
        return {"heartbeats": self._heartbeats}


def _next_boundary(now: float) -> float:
    """Return when the slot after that of `now` begins. A node that was late for several reports once."""
    return (slot_of_time(now) + 1) * HEARTBEAT_S
