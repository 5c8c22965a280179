"""A host's teaming process against Open vSwitch, link by link; wires stand in for the SmartNICs' agents.

    tor1 (OVS, LACP active) ==tor1-s1n1, tor1-s1n2, tor1-s1h1== s1h-pcie1, s1h-pcie2, s1h-nic1 [host s1h]
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodes import netns
from nodes.host_network import (
    TeamConfig,
    egress_commands,
    run,
    setup_commands,
    switch_lacp_settings,
    team_config,
)
from nodes.lacp import DISTRIBUTING
from nodes.lacpdu import AGGREGATABLE, SLOW_PROTOCOLS_ETHERTYPE, SLOW_PROTOCOLS_MAC, out_of_sync
from nodes.team import TeamStatus, read_status, run_team
from nodes.world import World
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

DESTINATION = ("10.1.254.1", 4242)
FLOWS = range(20_000, 20_300)
WIRES = {"tor1-s1n1": "s1h-pcie1", "tor1-s1n2": "s1h-pcie2", "tor1-s1h1": "s1h-nic1"}


def ip(*args: str) -> str:
    return subprocess.run(("ip", *args), check=True, capture_output=True, text=True).stdout


def seconds_until(true: Callable[[], bool], limit_s: float) -> float:
    """Return how long it took until `true()`; fail after `limit_s`."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < limit_s, f"not within {limit_s} s"
        time.sleep(0.01)
    return time.monotonic() - start


def fork(child: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(99)
    return pid


class Rig:
    """The world, a namespace for the host, the wires between, and the teaming process while it runs."""

    def __init__(self, world: World, inventory: Inventory) -> None:
        self.world = world
        self.inventory = inventory
        self.host_pid = world.spawn(["unshare", "--net", "sleep", "infinity"], "s1h").pid
        outside = netns.current_inode()
        seconds_until(lambda: netns.inode_of(self.host_pid) not in (None, outside), 5)
        world.vsctl("add-br", "tor1", "--", "set", "bridge", "tor1", "datapath_type=netdev", "fail_mode=secure",
                    "protocols=OpenFlow15")
        for tor_end, host_end in WIRES.items():
            ip("link", "add", tor_end, "type", "veth", "peer", "name", host_end, "netns", str(self.host_pid))
            ip("link", "set", tor_end, "up")
            world.vsctl("add-port", "tor1", tor_end)
        world.vsctl(*switch_lacp_settings(inventory, "s1h"))
        self.config: TeamConfig = team_config(inventory, "s1h", world.run_dir / "s1h.team.json",
                                              clock_start_s=time.monotonic(), parent_pid=os.getpid())
        with self.inside():
            for command in setup_commands(self.config):
                run(command)
            for interface in WIRES.values():  # nobody answers ARP for the gateway here
                ip("neigh", "replace", self.config.gateway, "lladdr", "02:e3:ff:01:00:01", "dev", interface,
                   "nud", "permanent")
        self.team_pid = 0

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Stand in the host's namespace; a socket opened there stays there."""
        home = netns.open_current()
        host = os.open(f"/proc/{self.host_pid}/ns/net", os.O_RDONLY)
        try:
            netns.enter(host)
            yield
        finally:
            netns.enter(home)
            os.close(host)
            os.close(home)

    def start(self) -> None:
        self.config.status_path.unlink(missing_ok=True)
        with self.inside():
            self.team_pid = fork(lambda: run_team(self.config))
        self.world.adopt(self.team_pid, "s1h-team")

    def stop(self) -> int:
        """Ask the teaming process to end and return its exit status."""
        os.kill(self.team_pid, signal.SIGCONT)
        os.kill(self.team_pid, signal.SIGTERM)
        _, status = os.waitpid(self.team_pid, 0)
        self.team_pid = 0
        return os.waitstatus_to_exitcode(status)

    def status(self) -> TeamStatus:
        return read_status(self.config.status_path)

    def carrying(self) -> set[str]:
        """Return the members in the host's route."""
        return set(self.status().egress) if self.config.status_path.exists() else set()

    def enabled(self) -> set[str]:
        """Return the switch ports on which Open vSwitch would send to the host."""
        found, member = set(), ""
        for line in self.world.appctl("lacp/show").splitlines():
            words = line.split()
            if words[:1] in (["member:"], ["slave:"]):
                member = words[1].rstrip(":")
            elif words == ["may_enable:", "true"]:
                found.add(member)
        return found

    def all_up(self) -> bool:
        return self.enabled() == set(WIRES) and self.carrying() == set(WIRES.values())

    def send_flows(self) -> dict[int, str]:
        """Send one datagram of each flow from the host; return the ToR port on which each source port came in."""
        ports: defaultdict[int, list[str]] = defaultdict(list)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as ear:
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            ear.settimeout(0.3)
            for port in FLOWS:
                with self.inside():
                    talker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with talker:
                    talker.bind(("", port))
                    talker.sendto(b"e3", DESTINATION)
            with contextlib.suppress(TimeoutError):
                while True:
                    frame, (interface, *_) = ear.recvfrom(2048)
                    if frame[30:34] == socket.inet_aton(DESTINATION[0]) and frame[23] == 17:
                        assert frame[26:30] == socket.inet_aton(self.config.host_ip)
                        assert frame[6:12] == self.config.mac_bytes
                        ports[int.from_bytes(frame[34:36], "big")].append(interface)
        assert all(len(seen) == 1 for seen in ports.values())
        return {port: seen[0] for port, seen in ports.items()}


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """A beefy server with two SmartNICs and its plain NIC, LACP negotiated."""
    with World.start("test_team") as world:
        made = Rig(world, inventory_of(cluster_named("beefy:2x1")))
        made.start()
        try:
            print(f"negotiated {seconds_until(made.all_up, 5):.2f} s after the start")
            yield made
        finally:
            if made.team_pid:
                os.kill(made.team_pid, signal.SIGKILL)
                os.waitpid(made.team_pid, 0)


@pytest.fixture(autouse=True)
def _whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test begins with, and leaves, all members up."""
    rig: Rig = request.getfixturevalue("rig")
    if not rig.team_pid:
        rig.start()
    seconds_until(rig.all_up, 5)
    yield


def test_every_member_negotiates_with_one_partner(rig: Rig) -> None:
    status = rig.status()
    assert status.running and not status.trouble
    assert [m.mux for m in status.members] == [DISTRIBUTING] * 3
    assert len({(m.partner.system, m.partner.key) for m in status.members}) == 1
    assert all(0 <= m.since_s < 60 for m in status.members)


def test_egress_spreads_over_all_members_and_each_flow_keeps_one(rig: Rig) -> None:
    first, second = rig.send_flows(), rig.send_flows()
    assert len(first) == len(FLOWS)
    assert first == second
    shares = [list(first.values()).count(port) for port in WIRES]
    print("flows on each port:", shares, rig.status().next_hops)
    assert min(shares) > len(FLOWS) / 3 * 0.6


def test_lost_carrier_moves_only_that_members_flows_and_they_go_at_once(rig: Rig) -> None:
    before = rig.send_flows()
    ip("link", "set", "tor1-s1n1", "down")
    print(f"carrier lost: out of the route after {seconds_until(lambda: 's1h-pcie1' not in rig.carrying(), 2):.3f} s")
    during = rig.send_flows()
    assert len(during) == len(FLOWS)
    assert "tor1-s1n1" not in during.values()
    if rig.status().next_hops == "resilient":
        assert all(during[flow] == port for flow, port in before.items() if port != "tor1-s1n1")
    ip("link", "set", "tor1-s1n1", "up")
    print(f"carrier back: all up after {seconds_until(rig.all_up, 5):.3f} s")
    time.sleep(1.2)  # the flows have been idle for a second: the healed member gets its share back
    assert set(rig.send_flows().values()) == set(WIRES)


def test_a_member_set_down_by_the_host_itself_gets_its_smartnic_route_back(rig: Rig) -> None:
    with rig.inside():
        ip("link", "set", "s1h-pcie2", "down")
    seconds_until(lambda: "s1h-pcie2" not in rig.carrying(), 2)
    with rig.inside():
        ip("link", "set", "s1h-pcie2", "up")
    seconds_until(rig.all_up, 5)
    with rig.inside():
        routes, neighbours = ip("route", "show", "dev", "s1h-pcie2"), ip("neigh", "show", "dev", "s1h-pcie2")
    assert "10.1.1.12 scope link src 10.1.1.1" in routes
    assert f"10.1.1.12 lladdr {rig.config.mac} PERMANENT" in neighbours


def test_a_stopped_teaming_process_is_out_of_the_switch_within_four_seconds_and_comes_back(rig: Rig) -> None:
    os.kill(rig.team_pid, signal.SIGSTOP)
    detected = seconds_until(lambda: not rig.enabled(), 4)
    os.kill(rig.team_pid, signal.SIGCONT)
    print(f"stopped: seen after {detected:.2f} s; continued: all up after {seconds_until(rig.all_up, 4):.2f} s")
    assert detected > 1.5


def test_a_partner_that_falls_silent_loses_the_egress_within_four_seconds(rig: Rig) -> None:
    rig.world.vsctl("set", "port", "tor1-s1n2", "lacp=off")
    try:
        detected = seconds_until(lambda: rig.carrying() == {"s1h-pcie1", "s1h-nic1"}, 4)
        reason = next(m.reason for m in rig.status().members if m.interface == "s1h-pcie2")
    finally:
        rig.world.vsctl("set", "port", "tor1-s1n2", "lacp=active")
    print(f"silent: out of the route after {detected:.2f} s; back after {seconds_until(rig.all_up, 5):.2f} s")
    assert reason == "no LACPDU for 3 s"


def test_a_smartnic_can_tell_its_host_at_once_that_its_port_is_gone(rig: Rig) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as agent:
        with rig.inside(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as ear:
            ear.bind(("s1h-pcie1", SLOW_PROTOCOLS_ETHERTYPE))
            ear.settimeout(2)
            last = ear.recv(2048)
        agent.bind(("tor1-s1n1", 0))
        rig.world.vsctl("set", "port", "tor1-s1n1", "lacp=off")  # as silent as beyond a lost port
        try:
            agent.send(out_of_sync(last))
            took = seconds_until(lambda: rig.carrying() == {"s1h-pcie2", "s1h-nic1"}, 0.5)
        finally:
            rig.world.vsctl("set", "port", "tor1-s1n1", "lacp=active")
    print(f"told out of sync: out of the route after {took:.3f} s; back after {seconds_until(rig.all_up, 3):.3f} s")


def test_with_every_member_gone_the_network_is_unreachable_not_a_black_hole(rig: Rig) -> None:
    for port in WIRES:
        ip("link", "set", port, "down")
    seconds_until(lambda: not rig.carrying(), 2)
    with rig.inside():
        talker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with talker, pytest.raises(OSError, match=r"[Uu]nreachable|No route"):
        talker.sendto(b"e3", DESTINATION)
    for port in WIRES:
        ip("link", "set", port, "up")
    seconds_until(rig.all_up, 5)


def test_ports_with_keys_of_their_own_are_no_team(rig: Rig) -> None:
    rig.world.vsctl("set", "interface", "tor1-s1n2", "other_config:lacp-aggregation-key=999")
    try:
        seconds_until(lambda: "s1h-pcie2" not in rig.carrying(), 3)
        seconds_until(lambda: "tor1-s1n2" not in rig.enabled(), 3)
        reason = next(m.reason for m in rig.status().members if m.interface == "s1h-pcie2")
    finally:
        rig.world.vsctl(*switch_lacp_settings(rig.inventory, "s1h"))
    assert "key 999 is not the team's" in reason


def test_the_team_joins_a_bond_of_the_switch_as_well_and_the_ports_keep_their_numbers(rig: Rig) -> None:
    rig.world.vsctl(*switch_lacp_settings(rig.inventory, "s1h", bonded=True))
    try:
        seconds_until(lambda: "---- s1h-team ----" in rig.world.appctl("lacp/show"), 2)
        seconds_until(rig.all_up, 5)
        assert all(m.partner.state & AGGREGATABLE for m in rig.status().members)
        numbers = {name: int(rig.world.vsctl("get", "interface", name, "ofport")) for name in WIRES}
        assert numbers == {port.interface: port.port for port in rig.inventory.ports_of_switch("tor1")
                           if port.interface in WIRES}
    finally:
        rig.world.vsctl("del-port", "s1h-team", *(word for name in WIRES for word in ("--", "add-port", "tor1", name)))
        rig.world.vsctl(*switch_lacp_settings(rig.inventory, "s1h"))


def test_without_resilient_groups_the_route_names_every_member(rig: Rig) -> None:
    rig.stop()
    with rig.inside():
        for up in (["s1h-pcie1", "s1h-nic1"], ["s1h-nic1"]):
            for command in egress_commands(rig.config, up, resilient=False):
                run(command)
            route = ip("route", "show", "10.0.0.0/8")
            assert {name for name in WIRES.values() if f"dev {name} " in route} == set(up)
            assert route.count("via 10.1.255.254") == len(up)
            assert "src 10.1.1.1" in route


def test_hostile_slow_protocol_frames_are_counted_and_harm_nothing(rig: Rig) -> None:
    frame = SLOW_PROTOCOLS_MAC + bytes(6) + b"\x88\x09" + b"\x01" * 110
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as talker:
        talker.bind(("tor1-s1h1", 0))
        for size in range(14, 124):
            talker.send(frame[:size])
    seconds_until(lambda: rig.status().members[2].malformed >= 100, 3)
    assert rig.all_up()


def test_sigterm_leaves_the_team_at_once_and_withdraws_the_route(rig: Rig) -> None:
    assert rig.stop() == 0
    print(f"left: seen by the switch after {seconds_until(lambda: not rig.enabled(), 1):.3f} s")
    assert not rig.status().running
    with rig.inside():
        assert "unreachable 10.0.0.0/8" in ip("route")


def test_the_teaming_process_ends_with_its_parent(rig: Rig, tmp_path: Path) -> None:
    rig.stop()
    note = tmp_path / "pid"

    def parent() -> None:
        config = team_config(rig.inventory, "s1h", rig.config.status_path, parent_pid=os.getpid())
        with rig.inside():
            note.write_text(str(fork(lambda: run_team(config))))
        signal.pause()

    middle = fork(parent)
    seconds_until(rig.all_up, 5)
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    child = Path("/proc", note.read_text())
    seconds_until(lambda: not child.exists() or "\nState:\tZ" in (child / "status").read_text(), 2)


def test_host_and_smartnic_talk_over_pcie_though_they_share_a_mac(rig: Rig) -> None:
    """The SmartNIC's end of the wire is the ToR's here; frames are written and read there as its agent would."""
    host, nic = rig.config.host_ip, "10.1.1.11"
    with rig.inside():
        talker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        links = {link["ifname"]: link["address"] for link in json.loads(ip("-j", "link"))}
    assert {links[name] for name in WIRES.values()} == {rig.config.mac}
    with talker, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as agent:
        agent.bind(("tor1-s1n1", 0x0800))
        agent.settimeout(2)
        talker.settimeout(2)
        talker.bind(("", 5555))
        talker.sendto(b"ping", (nic, 6666))
        while True:
            frame = agent.recv(2048)
            if frame[30:34] == socket.inet_aton(nic):
                break
        assert frame[:6] == frame[6:12] == rig.config.mac_bytes
        assert frame[42:46] == b"ping"
        agent.send(frame[:26] + frame[30:34] + frame[26:30] + frame[36:38] + frame[34:36] + frame[38:40] + b"\0\0pong")
        assert talker.recvfrom(100) == (b"pong", (nic, 6666))
    assert host == "10.1.1.1"
