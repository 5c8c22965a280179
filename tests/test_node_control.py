"""Nodes report to the controller at every slot boundary of the emulated clock, in virtual time and as agents do."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

import pytest

from experiments.emulation.pacing import Pacing
from experiments.measurement.simulated_bed import calibration_of
from microservices.applications import application_named
from microservices.workloads import workload_named
from nodes import messages
from nodes.authority import Authority
from nodes.control_messages import HEARTBEAT_BYTES, HEARTBEAT_S, SLOTS, Heartbeat
from nodes.deployment import Deployment, deploy
from nodes.errors import NodeError
from nodes.execution import Execution
from nodes.host_runtime import HostRuntime
from nodes.node_control import NodeControl, reports_of
from nodes.port_bytes import Carried, carried_by
from nodes.service_runtime import ServiceRuntime
from nodes.simulated import Simulation
from nodes.smartnic_runtime import SmartNicRuntime
from nodes.traffic_manager import TrafficManager
from nodes.transport import Address, Sends, Transport
from topologies.addressing import CONTROL_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3"))
CONTROLLER = IPv4Address(RACK.node("ctl1").ip).packed


class Ear:
    """Stands where the controller stands, and keeps what it hears: when, from where, what."""

    def __init__(self, simulation: Simulation) -> None:
        self.address = Address(CONTROLLER, CONTROL_PORT)
        self.heard: list[tuple[float, Address, Heartbeat]] = []
        simulation.network.plug(self)

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        message = messages.decode(payload)
        assert isinstance(message, Heartbeat) and len(payload) == HEARTBEAT_BYTES
        self.heard.append((now, source, message))

    def work(self, now: float, out: Sends) -> None:
        pass

    def due(self) -> None:
        return None

    def of(self, node: str) -> list[Heartbeat]:
        address = Address(IPv4Address(RACK.node(node).ip).packed, CONTROL_PORT)
        return [heartbeat for _, source, heartbeat in self.heard if source == address]


def knn_on(node: str) -> Deployment:
    return deploy(application_named("knn", 1, backups=0), {0: node}, RACK)


def rack(deployment: Deployment, requests: int, window: int = 1) -> tuple[Simulation, Ear]:
    """A calibrated rack with a controller's ear, after one client's requests."""
    simulation = Simulation(RACK, [deployment], controller="ctl1",
                            calibration=calibration_of(Pacing("calibrated", 1.0), RACK, (deployment,)))
    ear = Ear(simulation)
    simulation.client(deployment, workload_named("knn", seed=1), requests, window)
    return simulation, ear


def test_every_node_reports_once_in_every_slot() -> None:
    simulation, ear = rack(knn_on("s1n1"), 0)
    simulation.run(2.01)
    for node in ("s1h", "s1n1", "s2h", "s2n1", "s3h", "s3n1"):
        assert [heartbeat.slot for heartbeat in ear.of(node)] == list(range(1, 41))
    assert all(abs(now - h.slot * HEARTBEAT_S) < 1e-3 for now, _, h in ear.heard)


def test_a_heartbeat_tells_of_the_instance_and_of_the_port() -> None:
    simulation, ear = rack(knn_on("s1n1"), 1 << 20, window=8)
    simulation.run(1.0)
    told = [heartbeat for heartbeat in ear.of("s1n1")[3:] if heartbeat.boot is None]
    handled = simulation.runtime("s1n1").execution.statistics()[0].handled
    cores = simulation.runtime("s1n1").execution.cores
    mean_ns = sum(cores.busy_s.values()) / handled * 1e9
    assert {(h.application, h.instance) for h in told} == {(knn_on("s1n1").number, 0)}
    for heartbeat in told[1:]:
        assert heartbeat.execution_ns == pytest.approx(mean_ns, rel=0.05)  # no core is waited for
        assert heartbeat.cpu / 255 == pytest.approx(min(8, cores.count) / cores.count, abs=0.04)
        assert heartbeat.transmitted > 0 and heartbeat.received > 0 and heartbeat.queue == 0
    assert all(h.cpu == 0 and h.boot is not None for h in ear.of("s2n1"))
    host = ear.of("s1h")[-1]
    assert host.transmitted == host.received == 0


def test_a_node_that_starts_again_tells_a_later_boot_number() -> None:
    simulation, ear = rack(knn_on("s1n1"), 0)
    simulation.run(0.2)
    simulation.reboot("s1n1", down_s=0.1)
    simulation.run(0.6)
    boots = [heartbeat.boot for heartbeat in ear.of("s1n1") if heartbeat.boot is not None]
    assert boots == sorted(boots) and len(set(boots)) == 2
    assert ear.of("s1n1")[-1].slot == 11 or ear.of("s1n1")[-1].slot == 12


def test_without_a_controller_nothing_is_reported_and_time_ends() -> None:
    simulation = Simulation(RACK, [knn_on("s1n1")])
    ear = Ear(simulation)
    simulation.run()
    assert ear.heard == [] and simulation.network.now == 0.0


def control(services: ServiceRuntime | None = None, now: float = 0.0) -> NodeControl:
    services = services or ServiceRuntime(Execution("s1n1"), Transport(1))
    own_ip = IPv4Address(RACK.node("s1n1").ip).packed
    return NodeControl(services, own_ip, Authority(CONTROLLER), 7, 10.0, lambda: 3, lambda: Carried(0, 0), now)


def test_a_driver_that_is_late_for_several_slots_reports_once() -> None:
    made, out = control(), []
    for now in (0.049, 0.05, 0.06, 0.26, 0.27, 0.301):
        made.work(now, out)
    assert [messages.decode(data).slot for _, data in out] == [1, 5, 6]
    assert {ip for ip, _ in out} == {CONTROLLER} and made.at == pytest.approx(0.35)


def test_slots_come_round_and_none_is_left_out() -> None:
    start = (SLOTS - 2) * HEARTBEAT_S
    made, out = control(now=start), []
    for _ in range(5):
        made.work(made.at, out)
    slots = [messages.decode(data).slot for _, data in out]
    assert slots == [SLOTS - 1, 0, 1, 2, 3]
    assert all((b - a) % SLOTS == 1 for a, b in pairwise(slots))


def test_a_host_sends_its_heartbeat_from_its_control_port_and_wakes_for_it() -> None:
    runtime, out = HostRuntime(ServiceRuntime(Execution("s1h"), Transport(1))), []
    assert runtime.due() is None
    runtime.control = control(runtime.services)
    assert runtime.due() == pytest.approx(HEARTBEAT_S)
    runtime.work(HEARTBEAT_S, out)
    ((destination, port, data),) = out
    assert destination == (RACK.node("ctl1").ip, CONTROL_PORT) and port == CONTROL_PORT
    assert isinstance(messages.decode(data), Heartbeat) and runtime.counters()["heartbeats"] == 1


def test_a_smartnic_sends_its_heartbeat_over_its_own_stack() -> None:
    nic = RACK.node("s1n1")
    runtime = SmartNicRuntime(nic.ip, nic.mac, nic.gateway, RACK.node("s1h").ip,
                              ServiceRuntime(Execution("s1n1"), Transport(1)))
    assert not runtime.awake
    runtime.control = control(runtime.services)
    assert runtime.awake and runtime.due() == pytest.approx(HEARTBEAT_S)
    runtime.run(64, HEARTBEAT_S, [])
    assert len(runtime.stack._waiting) == 1 and runtime.counters()["heartbeats"] == 1  # for the gateway's MAC
    assert runtime.due() == pytest.approx(2 * HEARTBEAT_S)


def test_the_least_length_of_the_queue_is_what_stands() -> None:
    queue: TrafficManager[bytes] = TrafficManager()
    for left in (5, 3, 4):
        while len(queue) < 9:
            queue.offer(0, b"frame")
        while len(queue) > left:
            queue.take()
        queue.note_least()
    assert queue.take_least() == 0  # it was empty at the start
    queue.take(), queue.note_least(), queue.offer(0, b"frame"), queue.offer(0, b"frame")
    assert queue.take_least() == 3
    assert queue.take_least() == 5


def test_what_interfaces_carried_is_read_from_the_kernel_with_what_is_on_the_wire(tmp_path: Path) -> None:
    table = tmp_path / "dev"
    table.write_text("Inter-|   Receive                    |  Transmit\n face |bytes packets\n"
                     "    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"
                     "s1n1-net:1000 10 0 0 0 0 0 0 500 5 0 0 0 0 0 0\n  s1n1-h: 1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n")
    assert carried_by(["s1n1-net"], table) == Carried(500 + 5 * 24, 1000 + 10 * 24)
    assert carried_by(["s1n1-net", "s1n1-h"], table) == Carried(620 + 50, 1240 + 25)
    with pytest.raises(NodeError, match="'s9'; there are lo, s1n1-net"):
        carried_by(["s9"], table)
    before = carried_by(["lo"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(bytes(1000), ("127.0.0.1", 9))
    after = carried_by(["lo"])
    assert after.received - before.received >= 1000 <= after.transmitted - before.transmitted


def test_a_smartnic_reports_of_its_port_and_a_host_of_all_that_leads_to_it() -> None:
    nic, host = (reports_of(RACK.node(name), RACK, ("10.1.253.1",)) for name in ("s1n1", "s1h"))
    assert nic.interfaces == ("s1n1-net",) and nic.port_gbps == RACK.ports_of_node("s1n1")[0].gbps
    assert set(host.interfaces) == {*(link.host_interface for link in RACK.pcie_of_host("s1h")),
                                    *(port.peer_interface for port in RACK.ports_of_node("s1h"))}
    assert host.port_gbps == sum(port.gbps for port in RACK.ports_of_server(RACK.node("s1h")))
