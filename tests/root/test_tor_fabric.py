"""Four racks in two pods: packets go up and down the fat tree over every equal path.

    r1c1 - tor1 - agg1,2 - core1..4 - agg3,4 - tor4 - r4s1n1 - r4s1h
"""

import importlib.util
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from tor_lookup import packet_of, walk
from tor_room import Room, output_of, room

from controller.select_hash import FlowKey
from topologies import addressing as at
from topologies.inventory import switch_links

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

CLIENT, HOST = at.client_ip(1, 1), at.host_ip(4, 1)
FLOWS = [FlowKey(CLIENT, HOST, 17, 30000 + i, at.DATA_PORT) for i in range(64)]


@pytest.fixture(scope="module")
def racks() -> Iterator[Room]:
    library = next(name for name in ("ryu", "os_ken") if importlib.util.find_spec(name))
    with room("type1x1/4", library) as made:
        yield made


def path(racks: Room, flow: FlowKey) -> list[str]:
    """Return the switches that the programs send `flow` through, asking each real switch for the same answer."""
    across = {}
    for one, other in switch_links(racks.inventory):
        across[one.switch, one.port], across[other.switch, other.port] = other, one
    switch, in_port, ttl = "tor1", racks.port_of("tor1-c1"), 64
    passed = []
    for verdict in walk(racks.inventory, racks.programs, switch, packet_of(flow, in_port)):
        passed.append(switch)
        assert verdict.port == output_of(racks.trace(flow, in_port, switch, ttl))
        if verdict.port is not None and (switch, verdict.port) in across:
            entered = across[switch, verdict.port]
            switch, in_port, ttl = entered.switch, entered.port, ttl - 1
    return passed


def test_every_switch_on_the_way_does_what_its_program_says(racks: Room) -> None:
    for flow in FLOWS[:8]:
        tor, up, core, down, last = path(racks, flow)
        assert (tor, last) == ("tor1", "tor4")
        assert (up, down) in {("agg1", "agg3"), ("agg2", "agg4")}
        assert core in {"agg1": ("core1", "core2"), "agg2": ("core3", "core4")}[up]


def test_two_tiers_of_hashing_do_not_leave_paths_idle(racks: Room) -> None:
    program, port = racks.programs, racks.port_of("tor1-c1")
    before = {core: racks.packets(core).get("route to rack 4", 0) for core in ("core1", "core2", "core3", "core4")}
    racks.send("r1c1-net", *[bytes(Ether(src=at.client_mac(1, 1), dst=at.switch_mac("tor", 1))
                                   / IP(src=f.src_ip, dst=f.dst_ip, ttl=64) / UDP(sport=f.src_port, dport=f.dst_port)
                                   / b"request") for f in FLOWS])
    frames = racks.received(len(FLOWS), wait_s=4)
    assert {name: len(some) for name, some in frames.items()} == {"r4s1n1-net": len(FLOWS)}
    packet = Ether(frames["r4s1n1-net"][0])
    assert (packet[IP].ttl, packet.src, packet.dst) == (59, at.switch_mac("tor", 4), at.server_mac(4, 1))
    expected: Counter[str] = Counter()
    for flow in FLOWS:
        _, _, verdict, *_ = walk(racks.inventory, program, "tor1", packet_of(flow, port))
        agg_mac = verdict.fields["eth_src"]
        expected[next(s.name for s in racks.inventory.switches if s.mac == agg_mac)] += 1
    counted = {core: racks.packets_once("route to rack 4", before[core] + expected[core] - 1, core) - before[core]
               for core in before}
    assert counted == {core: expected[core] for core in before}
    # 64 flows over 4 cores: 16 each, standard deviation 3.5; polarised hashing would leave two at 0.
    assert min(counted.values()) >= 5


@pytest.mark.parametrize(("interface", "source", "rule"), [
    ("r1c1-net", at.host_ip(2, 1), "spoofed source on tor1-c1")])
def test_another_racks_address_cannot_be_borrowed(racks: Room, interface: str, source: str, rule: str) -> None:
    before = racks.packets().get(rule, 0)
    racks.send(interface, bytes(Ether(src=at.client_mac(1, 1), dst=at.switch_mac("tor", 1)) / IP(src=source, dst=HOST)
                                / UDP(sport=1, dport=at.DATA_PORT)))
    assert racks.packets_once(rule, before) == before + 1


def test_racks_of_one_pod_meet_at_an_aggregation(racks: Room) -> None:
    flow = FlowKey(CLIENT, at.smartnic_ip(2, 1, 1), 17, 7, at.DATA_PORT)
    assert [len(path(racks, flow)), path(racks, flow)[-1]] == [3, "tor2"]


def test_a_node_pings_the_gateway_of_a_rack_in_another_pod(racks: Room) -> None:
    from scapy.layers.inet import ICMP
    racks.send("r1c1-net", bytes(Ether(src=at.client_mac(1, 1), dst=at.switch_mac("tor", 1))
                                 / IP(src=CLIENT, dst=at.gateway_ip(4)) / ICMP(id=1, seq=1)))
    frames = racks.received(1)
    assert list(frames) == ["r1c1-net"]
    reply = Ether(frames["r1c1-net"][0])
    assert (reply[IP].src, reply[IP].dst, reply[ICMP].type) == (at.gateway_ip(4), CLIENT, 0)
