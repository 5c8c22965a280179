import random
import socket
import struct
from pathlib import Path

import msgspec
import pytest

from nodes.bonding import bonding_commands, teaming_mode
from nodes.errors import NodeError
from nodes.host_network import (
    Command,
    TeamConfig,
    TeamMember,
    egress_commands,
    own_smartnics,
    run,
    setup_commands,
    switch_lacp_settings,
    team_config,
)
from nodes.link_watch import links_in
from nodes.team import MemberStatus, PartnerStatus, TeamStatus, read_status
from topologies.catalog import cluster_named
from topologies.errors import TopologyError
from topologies.inventory import inventory_of

STATUS = Path("status.json")


def config_of(cluster: str, host: str = "s1h") -> TeamConfig:
    return team_config(inventory_of(cluster_named(cluster)), host, STATUS)


# -- the host's network

def test_a_team_is_the_hosts_pcie_links_and_then_its_plain_nics() -> None:
    config = config_of("type1x1+beefy:2x1", "s2h")
    assert config.members == (TeamMember("s2h-pcie1", "10.1.2.11"), TeamMember("s2h-pcie2", "10.1.2.12"),
                              TeamMember("s2h-nic1"))
    assert (config.host_ip, config.gateway, config.mac) == ("10.1.2.1", "10.1.255.254", "02:e3:01:02:00:01")
    assert config.mac_bytes == bytes.fromhex("02e301020001")


def test_only_a_servers_host_has_a_team() -> None:
    with pytest.raises(TopologyError, match="no node 's9h'"):
        config_of("type1x1", "s9h")
    with pytest.raises(NodeError, match="s1n1 is a smartnic"):
        config_of("type1x1", "s1n1")


@pytest.mark.parametrize(("changed", "said"), [
    ({"members": ()}, "at least one member"),
    ({"members": (TeamMember("x"), TeamMember("x"))}, "members x, x"),
    ({"members": (TeamMember("x", "10.1.1.999"),)}, "10.1.1.999"),
    ({"host_ip": "host"}, "host"),
    ({"mac": "02:e3:01"}, "'02:e3:01' is not a MAC"),
    ({"mac": "zz:e3:01:01:00:01"}, "is not a MAC"),
    ({"time_scale": 0.0}, "time scale 0.0"),
])
def test_a_wrong_configuration_is_refused_with_its_value(changed: dict[str, object], said: str) -> None:
    right = {"host": "s1h", "host_ip": "10.1.1.1", "mac": "02:e3:01:01:00:01", "gateway": "10.1.255.254",
             "members": (TeamMember("s1h-nic1"),), "status_path": STATUS}
    with pytest.raises(NodeError, match=said):
        TeamConfig(**{**right, **changed})  # type: ignore[arg-type]


def test_setting_up_covers_every_member_and_puts_the_address_on_lo() -> None:
    commands = setup_commands(config_of("type2x1"))
    members = [f"s1h-pcie{n}" for n in range(1, 5)]
    batch = "".join(c.stdin for c in commands)
    assert "addr replace 10.1.1.1/32 dev lo" in batch
    assert [c.argv for c in commands if c.argv[0] == "ethtool"] == [("ethtool", "-K", m, "tx", "off") for m in members]
    for number, member in enumerate(members, start=1):
        assert f"link set {member} address 02:e3:01:01:00:01 up\n" in batch
        assert f"route replace 10.1.1.1{number}/32 dev {member} src 10.1.1.1\n" in batch
        assert f"net.ipv4.conf.{member}.rp_filter=0" in commands[0].argv


def test_only_the_smartnics_behind_the_named_links_are_repeated() -> None:
    config = config_of("beefy:2x1")
    assert "10.1.1.12" in own_smartnics(config, ["s1h-pcie2"]).stdin
    assert "10.1.1.11" not in own_smartnics(config, ["s1h-pcie2"]).stdin
    assert own_smartnics(config, ["s1h-nic1"]).stdin == ""


def test_a_member_keeps_its_next_hop_number_whoever_else_is_up() -> None:
    config = config_of("type2x1")

    def number(up: list[str]) -> str:
        (command,) = egress_commands(config, up, resilient=True)
        return next(line.split()[3] for line in command.stdin.splitlines() if "dev s1h-pcie3 " in line)

    assert number(["s1h-pcie3"]) == number(["s1h-pcie1", "s1h-pcie3"]) == number(["s1h-pcie2", "s1h-pcie3"])


@pytest.mark.parametrize("resilient", [True, False])
def test_no_member_up_makes_the_network_unreachable(resilient: bool) -> None:
    (command,) = egress_commands(config_of("type1x1"), [], resilient=resilient)
    assert command.stdin == "route replace unreachable 10.0.0.0/8\n"


def test_the_switch_gives_all_ports_of_a_server_one_key_and_two_servers_two() -> None:
    inventory = inventory_of(cluster_named("beefy:2x2"))
    keys = [{word for word in switch_lacp_settings(inventory, host) if "aggregation-key" in word}
            for host in ("s1h", "s2h")]
    assert [len(found) for found in keys] == [1, 1]
    assert keys[0] != keys[1]
    first = switch_lacp_settings(inventory, "s1h")
    assert [first[i + 2] for i, word in enumerate(first) if first[i:i + 2] == ("set", "port")] == [
        "tor1-s1n1", "tor1-s1n2", "tor1-s1h1"]


def test_a_server_with_one_port_needs_no_bond_on_the_switch() -> None:
    inventory = inventory_of(cluster_named("type1x1"))
    assert "add-bond" not in switch_lacp_settings(inventory, "s1h", bonded=True)


def test_a_failed_command_says_what_it_was_and_what_it_said() -> None:
    with pytest.raises(NodeError, match=r"sh -c echo no >&2; exit 3 ended with 3: no"):
        run(Command(("sh", "-c", "echo no >&2; exit 3")))
    with pytest.raises(NodeError, match="is it installed"):
        run(Command(("e3-no-such-program",)))


# -- bonding

def test_a_bond_takes_every_member_after_the_set_up_and_restores_the_smartnics_last() -> None:
    config = config_of("beefy:2x1")
    commands = bonding_commands(config)
    assert commands[:-2] == setup_commands(config)
    assert commands[-1] == own_smartnics(config)
    lines = commands[-2].stdin.splitlines()
    assert lines[0].startswith("link add bond0 address 02:e3:01:01:00:01 type bond mode 802.3ad lacp_rate fast "
                               "xmit_hash_policy layer3+4 miimon 100")
    for member in config.members:
        down, enslaved = f"link set {member.interface} down", f"link set {member.interface} master bond0"
        assert lines.index(down) + 1 == lines.index(enslaved) < lines.index("link set bond0 up")
    assert lines[-1] == "route replace 10.0.0.0/8 via 10.1.255.254 dev bond0 src 10.1.1.1 onlink"


@pytest.mark.parametrize(("status", "mode"), [(0, "bonding"), (2, "multipath")])
def test_the_mode_is_what_a_namespace_of_its_own_allows(status: int, mode: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("modprobe", "unshare"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} \"$@\" >> {tmp_path}/asked\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert teaming_mode() == mode
    assert (tmp_path / "asked").read_text().splitlines() == [
        "modprobe -q bonding max_bonds=0", "unshare --net ip link add bond0 type bond mode 802.3ad"]


def test_without_the_tools_there_is_no_bonding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert teaming_mode() == "multipath"


# -- link reports

def report(name: str, flags: int, kind: int = 16) -> bytes:
    """A link report as the kernel lays it out: an attribute before the name, each padded to four bytes."""
    named = name.encode() + b"\0"
    attributes = struct.pack("=HHI", 8, 13, 1000) + struct.pack("=HH", 4 + len(named), 3) + named
    attributes += bytes(-len(attributes) % 4)
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 1, 7, flags, 0) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def test_a_link_is_up_only_with_both_its_own_and_its_peers_consent() -> None:
    data = (report("s1h-pcie1", 0x11043) + report("s1h-nic1", 0x1003) + report("lo", 0x10008)
            + report("s1h-pcie2", 0x11043, kind=17))
    assert links_in(data) == [("s1h-pcie1", True), ("s1h-nic1", False), ("lo", False), ("s1h-pcie2", False)]


def test_reports_stay_in_order_so_that_a_flap_is_seen() -> None:
    assert links_in(report("a", 0x1003) + report("a", 0x11043)) == [("a", False), ("a", True)]


def test_damaged_netlink_data_never_raises() -> None:
    rng = random.Random(5)
    whole = report("s1h-pcie1", 0x11043) + report("s1h-nic1", 0x1003)
    for _ in range(5000):
        data = bytearray(whole[:rng.randrange(len(whole) + 1)])
        for _ in range(rng.randrange(6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        assert len(links_in(bytes(data))) <= 8


# -- the status file

def test_a_status_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    status = TeamStatus("s1h", 42, True, "plain", ("s1h-nic1",), "", (
        MemberStatus("s1h-nic1", "current", "distributing", 1.5, "up", PartnerStatus("02:e3:ff:01:00:01", 1, 3, 63),
                     4, 5, 0),))
    path = tmp_path / "team.json"
    path.write_bytes(msgspec.json.encode(status))
    assert read_status(path) == status


def test_a_missing_or_foreign_status_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="yet"):
        read_status(tmp_path / "team.json")
    (tmp_path / "team.json").write_text('{"host": 1}')
    with pytest.raises(NodeError, match="is not a team's status"):
        read_status(tmp_path / "team.json")
