"""Switches on plain veths in a world of their own, kept by a real app: what the ToR tests stand in."""

import contextlib
import errno
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from controller import tor_counters, tor_status
from controller.openflow_library import FORCE_VARIABLE
from controller.select_hash import TCP, FlowKey
from controller.tor_program import TorProgram, programs_of, to_json
from nodes.world import World
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

ROOT = Path(__file__).resolve().parents[2]
PACKET_OUTGOING = 4
ETH_P_ALL = 3


class Room:
    """All switches of a cluster; at every node's end of a link stands a raw socket in place of the node."""

    def __init__(self, world: World, cluster: str, library: str) -> None:
        self.world = world
        self.library = library
        self.inventory: Inventory = inventory_of(cluster_named(cluster))
        self.programs: dict[str, TorProgram] = programs_of(self.inventory)
        self.programs_file = world.run_dir / "programs.json"
        self.status_file = world.run_dir / "tor.json"
        self.app: subprocess.Popen[bytes]
        self._starts = 0
        self._sockets: dict[str, socket.socket] = {}

    def build(self) -> None:
        made: set[str] = set()
        lines = []
        for port in self.inventory.ports:
            if port.interface not in made:
                made |= {port.interface, port.peer_interface}
                lines.append(f"link add {port.interface} type veth peer name {port.peer_interface}")
        lines += [f"link set {name} up" for name in sorted(made)]
        ip(*lines)
        self.write_programs()
        self.start_app()
        switches = {s.name for s in self.inventory.switches}
        for switch in self.inventory.switches:
            command = ["add-br", switch.name, "--", "set", "bridge", switch.name,
                       f"datapath_type={self.world.datapath}", "protocols=OpenFlow15", "fail_mode=secure",
                       "other_config:disable-in-band=true", f"other_config:datapath-id={switch.dpid:016x}"]
            for port in self.inventory.ports_of_switch(switch.name):
                command += ["--", "add-port", switch.name, port.interface,
                            "--", "set", "interface", port.interface, f"ofport_request={port.port}"]
                if port.peer not in switches:
                    self._sockets[port.peer_interface] = raw_socket(port.peer_interface)
            command += ["--", "set-controller", switch.name, "tcp:127.0.0.1:6653",
                        "--", "set", "controller", switch.name, "max_backoff=1000"]
            self.world.vsctl(*command)

    def close(self) -> None:
        for opened in self._sockets.values():
            opened.close()

    # -- the app -----------------------------------------------------------------------------------------------

    def write_programs(self) -> None:
        self.programs_file.write_bytes(to_json(self.programs))

    def start_app(self) -> None:
        self._starts += 1
        argv = [sys.executable, "-m", "controller.tor_app", "--listen", "127.0.0.1:6653",
                "--programs", str(self.programs_file), "--status", str(self.status_file)]
        self.app = self.world.spawn(argv, f"tor-app-{self._starts}", cwd=ROOT,
                                    env={**os.environ, FORCE_VARIABLE: self.library})

    def kill_app(self) -> None:
        self.app.send_signal(signal.SIGKILL)
        self.app.wait()
        self.status_file.unlink()

    def hang_up(self) -> tor_status.TorStatus:
        """Send SIGHUP and return the status once the app has read its programs again and all switches have them."""
        loads = self.status().loads + 1
        self.app.send_signal(signal.SIGHUP)
        return self.settled(loads)

    def status(self) -> tor_status.TorStatus:
        return tor_status.from_json(self.status_file.read_bytes())

    def settled(self, loads: int = 1, within_s: float = 20) -> tor_status.TorStatus:
        deadline = time.monotonic() + within_s
        while not self.is_settled(loads):
            if time.monotonic() > deadline:
                log = self.world.run_dir / f"tor-app-{self._starts}.log"
                raise AssertionError(f"not settled within {within_s} s: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self.status()

    def is_settled(self, loads: int = 1) -> bool:
        try:
            return not tor_status.unsettled(self.status(), self.programs, loads)
        except FileNotFoundError:
            return False

    # -- the switches --------------------------------------------------------------------------------------------

    def counters(self, switch: str = "tor1") -> dict[str, tor_counters.RuleCounter]:
        return tor_counters.rule_counters(self.world.ofctl("dump-flows", switch), self.programs[switch])

    def packets(self, switch: str = "tor1") -> dict[str, int]:
        """Return how many packets each rule of `switch` has seen, by name, leaving out those that saw none."""
        return {c.name: c.packets for c in self.counters(switch).values() if c.packets}

    def packets_once(self, rule: str, more_than: int, switch: str = "tor1", within_s: float = 3) -> int:
        """Wait for `rule` to count more than `more_than` packets (the switch gathers counters now and then)."""
        deadline = time.monotonic() + within_s
        while (seen := self.packets(switch).get(rule, 0)) <= more_than and time.monotonic() < deadline:
            time.sleep(0.05)
        return seen

    def trace(self, flow: FlowKey, in_port: int, switch: str = "tor1", ttl: int = 64) -> str:
        layer_4 = "tcp" if flow.protocol == TCP else "udp"
        return self.world.appctl("ofproto/trace", switch, f"in_port={in_port},{layer_4},nw_src={flow.src_ip},"
                                 f"nw_dst={flow.dst_ip},{layer_4}_src={flow.src_port},{layer_4}_dst={flow.dst_port},"
                                 f"nw_ttl={ttl}")

    def port_of(self, interface: str) -> int:
        return next(p.port for p in self.inventory.ports if p.interface == interface)

    # -- the nodes' ends -------------------------------------------------------------------------------------------

    def send(self, interface: str, *frames: bytes) -> None:
        for frame in frames:
            self._sockets[interface].send(frame)

    def received(self, enough: int, wait_s: float = 2.0, settle_s: float = 0.05) -> dict[str, list[bytes]]:
        """Return what came out of the switches, by interface: waits for `enough` frames, then a little for more."""
        frames: dict[str, list[bytes]] = {}
        deadline = time.monotonic() + wait_s
        names = {s.fileno(): n for n, s in self._sockets.items()}
        while True:
            got = sum(map(len, frames.values()))
            patience = settle_s if got >= enough else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(self._sockets.values(), [], [], patience)
            if not ready:
                return frames
            for one in ready:
                try:
                    frame, address = one.recvfrom(65535)
                except OSError as error:
                    if error.errno != errno.ENETDOWN:  # told once after its link has been down
                        raise
                    continue
                if address[2] != PACKET_OUTGOING and not is_noise(frame):
                    frames.setdefault(names[one.fileno()], []).append(frame)


def is_noise(frame: bytes) -> bool:
    return frame[12:14] in (b"\x86\xdd", b"\x88\x09")  # IPv6 solicitations; LACP, which the switch itself sends


def raw_socket(interface: str) -> socket.socket:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    one.bind((interface, ETH_P_ALL))
    return one


def ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def groups_seen(dump_groups: str) -> dict[int, tuple[str, str, int, tuple[str, ...], tuple[int, ...]]]:
    """Read `ovs-ofctl dump-groups`: of each group kind, selection method, its parameter and fields, and bucket ids."""
    groups = {}
    for seen in re.finditer(r"group_id=(\d+),type=(\w+)(.*)", dump_groups):
        head, *buckets = seen[3].split("bucket=bucket_id:")
        method = re.search(r"selection_method=(\w+),selection_method_param=(\d+),fields\(([^)]*)\)", head)
        assert method, f"a group without a selection method: {seen[0]}"
        groups[int(seen[1])] = (seen[2], method[1], int(method[2]), tuple(method[3].split(",")),
                                tuple(int(b.split(",", 1)[0]) for b in buckets))
    return groups


def output_of(trace: str) -> int | None:
    """Return the OpenFlow port that a trace ends at, None if the packet is dropped."""
    if "Datapath actions: drop" in trace:
        return None
    return int(re.findall(r"output:(\d+)", trace)[-1])


@contextlib.contextmanager
def room(cluster: str, library: str) -> Iterator[Room]:
    with World.start("test-tor") as world:
        made = Room(world, cluster, library)
        try:
            made.build()
            made.settled()
            yield made
        finally:
            made.close()
