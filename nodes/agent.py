"""Drives a node's runtime with real sockets and the real clock: the process that a node runs."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from nodes.authority import Authority
from nodes.bonding import bonding_commands
from nodes.deployment import Deployment
from nodes.emulated_clock import EmulatedClock
from nodes.execution import Execution
from nodes.forwarding import Port
from nodes.host_network import run, setup_commands, team_config
from nodes.host_runtime import Datagrams, HostRuntime
from nodes.interfaces import disable_ipv6, set_up
from nodes.ip_stack import UDP_ECHO_PORT
from nodes.lateness import Lateness
from nodes.link_watch import LinkWatch
from nodes.node_control import NodeControl, Reports
from nodes.pace import Pace
from nodes.port_bytes import carried_by
from nodes.readiness import Readiness, rest_at
from nodes.service_runtime import Counters, ServiceRuntime
from nodes.smartnic_runtime import Frames, SmartNicRuntime
from nodes.socket_drops import PacketDrops, udp_drops
from nodes.socket_room import give_room
from nodes.team import run_team
from nodes.transport import Transport
from topologies.addressing import CONTROL_PORT, DATA_PORT
from topologies.inventory import Inventory

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_IGNORE_OUTGOING = 23
IP_FREEBIND = 15
FRAME_BYTES = 1 << 16
BATCH = 64  # frames read from one wire before the other gets its turn
TICK_S = 0.25
# Who waits for a core gets it this much before its time, so that its handler is through when it should finish, however
# late this process wakes for that.
AHEAD_REAL_S, MOST_AHEAD_S = 2e-3, 5e-6
# So many requests that are known before their time may be computed then (ours): more than come while a process sleeps.
FORESIGHT = 256


class SmartNicConfig(msgspec.Struct, frozen=True):
    """What a SmartNIC's agent is told at its start."""

    name: str
    ip: str
    mac: str
    gateway: str
    host_ip: str
    network_interface: str
    host_interface: str
    cores: int = 1
    deployments: tuple[Deployment, ...] = ()
    frame_loss: float = 0.0  # share of IPv4 frames to drop, to try the channels
    clock: EmulatedClock = EmulatedClock()
    pace: Pace | None = None  # None: as fast as this machine goes
    reports: Reports | None = None  # None: no controller listens
    empty: bool = False  # it has run before: what is to run on it now, the controller says


class HostConfig(msgspec.Struct, frozen=True):
    """What a host's agent is told at its start."""

    name: str
    ip: str
    cores: int = 1
    deployments: tuple[Deployment, ...] = ()
    clock: EmulatedClock = EmulatedClock()
    pace: Pace | None = None
    reports: Reports | None = None
    empty: bool = False


class TeamOrder(msgspec.Struct, frozen=True):
    """What a host's teaming process is told at its start; `mode` is what bonding.teaming_mode found."""

    inventory_path: str
    host: str
    status_path: str
    mode: str


class _Stop(Exception):
    pass


def _raise_stop(*_: object) -> None:
    raise _Stop


def _services(told: SmartNicConfig | HostConfig) -> ServiceRuntime:
    pace, clock = told.pace, told.clock.reader()
    if pace is None:
        execution = Execution(told.name, told.deployments, told.cores, stopwatch=clock, empty=told.empty)
    else:
        execution = Execution(told.name, told.deployments, told.cores, pace.cost_s, clock, hol=pace.hol_of,
                              sleep_after_s=pace.sleep_after_s, in_node_s=pace.in_node_s, empty=told.empty,
                              ahead_s=min(MOST_AHEAD_S, AHEAD_REAL_S / told.clock.time_scale), foresight=FORESIGHT,
                              copy_share=pace.copy_share)
    services = ServiceRuntime(execution, Transport(_boot_now()), pace)
    services.boot_now = _boot_now
    return services


def _boot_now() -> int:
    """Return a number that grows from one run of an agent to the next: tenths of a second since the machine's start."""
    return int(time.monotonic() * 10)


def _control(told: SmartNicConfig | HostConfig, services: ServiceRuntime, queue_least: Callable[[], int],
             now: float) -> NodeControl | None:
    """Return the node's side of the control plane. Its boot number stays as it is for as long as this process lives."""
    reports = told.reports
    if reports is None:
        return None
    authority = Authority(*(IPv4Address(ip).packed for ip in reports.controller_ips))
    return NodeControl(services, IPv4Address(told.ip).packed, authority, _boot_now(), reports.port_gbps,
                       queue_least, lambda: carried_by(reports.interfaces), now)


class _Driver:
    """What an agent knows of its own work: the emulated clock, and how long each turn of its loop took."""

    def __init__(self, clock: EmulatedClock, paced: bool, drops: Callable[[], int]) -> None:
        self.now = clock.reader()
        self.time_scale = clock.time_scale
        self.paced = paced
        self.rest_s = rest_at(clock.time_scale) if paced else 0.0
        self.turns = Lateness()
        self._drops = drops

    def patience(self, due: float | None) -> float:
        """Return how long to wait for packets, in real seconds: till what is due, and never longer than a tick."""
        return TICK_S if due is None else min(TICK_S, (due - self.now()) * self.time_scale)

    def counters(self) -> Counters:
        return {"now_ns": round(self.now() * 1e9), "dropped_socket": self._drops(), **self.turns.counters("turn")}


def run_smartnic(config: bytes) -> None:
    """Be the agent of a SmartNIC until SIGTERM. `config` is a msgpack SmartNicConfig."""
    told = msgspec.msgpack.decode(config, type=SmartNicConfig)
    loses = None
    if told.frame_loss:
        draw = random.Random(f"{told.name} loses frames")
        loses = lambda: draw.random() < told.frame_loss  # noqa: E731
    runtime = SmartNicRuntime(told.ip, told.mac, told.gateway, told.host_ip, _services(told), loses=loses,
                              forward_s=told.pace.forward_s if told.pace is not None else 0.0)
    disable_ipv6()
    for interface in (told.network_interface, told.host_interface):
        set_up(interface)
    wires = (_raw_socket(told.network_interface), _raw_socket(told.host_interface))
    driver = _Driver(told.clock, told.pace is not None, PacketDrops(wires))
    runtime.driver_counters = driver.counters
    runtime.control = _control(told, runtime.services, runtime.traffic.take_least, driver.now())
    signal.signal(signal.SIGTERM, _raise_stop)
    try:
        _smartnic_loop(runtime, wires, told.network_interface, driver)
    except _Stop:
        return


def _smartnic_loop(runtime: SmartNicRuntime, wires: tuple[socket.socket, socket.socket], network: str,
                   driver: _Driver) -> None:
    readiness, links = Readiness(driver.rest_s, fine=driver.paced), LinkWatch()
    ports = {}
    for port, wire in zip((Port.NETWORK, Port.HOST), wires, strict=True):
        readiness.register(wire)
        ports[wire.fileno()] = (int(port), wire.recv)
    readiness.register(links)
    send = tuple(wire.send for wire in wires)
    receive, run, wait, clock = runtime.receive, runtime.run, readiness.wait, driver.now
    note_turn = driver.turns.record
    out: Frames = []
    paced, tick_at = driver.paced, 0.0
    while True:
        ready = wait(driver.patience(runtime.due()) if runtime.awake else TICK_S)
        now = clock()
        for descriptor in ready:
            if descriptor not in ports:
                if (network, False) in links.read():
                    runtime.lost_network(out)
                continue
            ingress, recv = ports[descriptor]
            try:
                for _ in range(BATCH):
                    receive(ingress, recv(FRAME_BYTES))
            except BlockingIOError:
                pass
            except OSError:
                time.sleep(0.01)  # the interface is down: the error has been fetched, its frames are gone
        run(2 * BATCH, now, out)
        if now >= tick_at:  # ARP, like LACP, is between us and a switch that knows no emulated time
            tick_at = now + TICK_S / driver.time_scale
            runtime.tick(time.monotonic(), out)
        for to, frame in out:
            try:
                send[to](frame)
            except OSError:
                runtime.unsent += 1
        out.clear()
        if paced:
            note_turn(clock() - now)


def _raw_socket(interface: str) -> socket.socket:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    wire.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    give_room(wire)
    wire.bind((interface, ETH_P_ALL))
    wire.setblocking(False)
    return wire


def run_host_team(config: bytes) -> None:
    """Set up a host's addresses and links, then bond them for good or be its teaming process until SIGTERM.

    `config` is a msgpack TeamOrder.
    """
    told = msgspec.msgpack.decode(config, type=TeamOrder)
    inventory = Inventory.from_json(Path(told.inventory_path).read_bytes())
    team = team_config(inventory, told.host, Path(told.status_path), parent_pid=os.getppid())
    bonded = told.mode == "bonding"
    for command in bonding_commands(team) if bonded else setup_commands(team):
        run(command)
    if not bonded:
        run_team(team)


def run_host(config: bytes) -> None:
    """Be the agent of a host until SIGTERM. `config` is a msgpack HostConfig."""
    told = msgspec.msgpack.decode(config, type=HostConfig)
    runtime = HostRuntime(_services(told))
    driver = _Driver(told.clock, told.pace is not None, udp_drops)
    runtime.driver_counters = driver.counters
    execution = runtime.services.execution
    runtime.control = _control(told, runtime.services, lambda: execution.waiting, driver.now())
    signal.signal(signal.SIGTERM, _raise_stop)
    try:
        _host_loop(runtime, told.ip, driver)
    except _Stop:
        return


def _host_loop(runtime: HostRuntime, ip: str, driver: _Driver) -> None:
    readiness = Readiness(driver.rest_s, fine=driver.paced)
    sockets = {}
    by_port = {}
    for port in (DATA_PORT, CONTROL_PORT, UDP_ECHO_PORT):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        give_room(udp)
        udp.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)  # the teaming process may set the address up after us
        udp.bind((ip, port))
        udp.setblocking(False)
        readiness.register(udp)
        sockets[udp.fileno()] = (port, udp.recvfrom)
        by_port[port] = udp.sendto
    clock, note_turn = driver.now, driver.turns.record
    out: Datagrams = []
    paced = driver.paced
    while True:
        ready = readiness.wait(driver.patience(runtime.due()))
        now = clock()
        for descriptor in ready:
            port, recvfrom = sockets[descriptor]
            try:
                for _ in range(BATCH):
                    payload, source = recvfrom(FRAME_BYTES)
                    runtime.receive(source, port, payload, now, out)
            except BlockingIOError:
                pass
        runtime.work(now, out)
        for destination, our_port, data in out:
            try:
                by_port[our_port](data, destination)
            except OSError:
                runtime.unsent += 1
        out.clear()
        if paced:
            note_turn(clock() - now)
