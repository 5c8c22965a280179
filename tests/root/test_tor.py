"""One rack's ToR on a real Open vSwitch, kept by the real app, with either OpenFlow library."""

import importlib.util
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from tor_lookup import Pipeline, packet_of
from tor_room import Room, groups_seen, ip, output_of, room

from controller import tor_counters
from controller.select_hash import TCP as TCP_NUMBER
from controller.select_hash import FlowKey, disagreements, predict
from topologies import addressing as at

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

GATEWAY = at.gateway_ip(1)
TOR_MAC = at.switch_mac("tor", 1)
HOST, NIC1, CLIENT = at.host_ip(1, 1), at.smartnic_ip(1, 1, 1), at.client_ip(1, 1)
SERVER_MAC, CLIENT_MAC = at.server_mac(1, 1), at.client_mac(1, 1)
NIC_PORTS = (1, 2, 3, 4)  # s1n1 to s1n4
CLIENT_PORT = 9


@pytest.fixture(scope="module", params=["ryu", "os_ken"])
def rack(request: pytest.FixtureRequest) -> Iterator[Room]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with room("type2x2", request.param) as made:
        yield made


def udp(source: str, destination: str, sport: int = 1000, dport: int = at.DATA_PORT, ttl: int = 64) -> bytes:
    return bytes(Ether(src=CLIENT_MAC, dst=TOR_MAC) / IP(src=source, dst=destination, ttl=ttl)
                 / UDP(sport=sport, dport=dport) / b"payload of a request")


def flows(count: int, protocol: int = 17, destination: str = HOST) -> list[FlowKey]:
    return [FlowKey(CLIENT, destination, protocol, 20000 + 7 * i, at.DATA_PORT) for i in range(count)]


def test_the_switch_holds_the_whole_program_and_nothing_else(rack: Room) -> None:
    status = rack.settled().of("tor1")
    assert status is not None and status.errors == ()
    assert not [name for name in rack.counters() if name.startswith("stranger")]
    seen = groups_seen(rack.world.ofctl("dump-groups", "tor1"))
    program = rack.programs["tor1"]
    assert seen == {
        g.group_id: ("select", "hash", program.dpid,
                     ("ip_src", "ip_dst", "tcp_src", "tcp_dst", "udp_src", "udp_dst"),
                     tuple(b.bucket_id for b in g.buckets))
        for g in program.groups}


@pytest.mark.parametrize("sender", [NIC1, HOST])
def test_arp_for_the_gateway_is_answered_to_whoever_belongs_there(rack: Room, sender: str) -> None:
    rack.send("s1n1-net", bytes(Ether(src=SERVER_MAC, dst="ff:ff:ff:ff:ff:ff")
                                / ARP(op=1, hwsrc=SERVER_MAC, psrc=sender, pdst=GATEWAY)))
    frames = rack.received(1)
    assert list(frames) == ["s1n1-net"] and len(frames["s1n1-net"]) == 1
    answer = Ether(frames["s1n1-net"][0])
    assert (answer.src, answer.dst) == (TOR_MAC, SERVER_MAC)
    arp = answer[ARP]
    assert (arp.op, arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst) == (2, TOR_MAC, GATEWAY, SERVER_MAC, sender)


@pytest.mark.parametrize(("sender", "target"), [(at.host_ip(1, 2), GATEWAY), (NIC1, CLIENT)])
def test_arp_in_another_name_or_for_another_address_is_dropped_and_counted(
        rack: Room, sender: str, target: str) -> None:
    before = rack.packets().get("ARP dropped on tor1-s1n1", 0)
    rack.send("s1n1-net", bytes(Ether(src=SERVER_MAC, dst="ff:ff:ff:ff:ff:ff")
                                / ARP(op=1, hwsrc=SERVER_MAC, psrc=sender, pdst=target)))
    assert rack.packets_once("ARP dropped on tor1-s1n1", before) == before + 1
    assert rack.received(1, wait_s=0.1) == {}


def test_the_gateway_answers_an_echo_request(rack: Room) -> None:
    rack.send("c1-net", bytes(Ether(src=CLIENT_MAC, dst=TOR_MAC) / IP(src=CLIENT, dst=GATEWAY, ttl=1)
                              / ICMP(id=7, seq=3) / b"echo"))
    frames = rack.received(1)
    assert list(frames) == ["c1-net"]
    reply = Ether(frames["c1-net"][0])
    assert (reply.src, reply.dst, reply[IP].src, reply[IP].dst) == (TOR_MAC, CLIENT_MAC, GATEWAY, CLIENT)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq, bytes(reply[ICMP].payload)) == (0, 7, 3, b"echo")
    assert checksums_hold(reply)


def test_a_routed_packet_has_one_hop_less_and_new_macs_and_leaves_by_its_own_port_only(rack: Room) -> None:
    sent = udp(CLIENT, NIC1)
    rack.send("c1-net", sent)
    frames = rack.received(1)
    assert {k: len(v) for k, v in frames.items()} == {"s1n1-net": 1}
    packet = Ether(frames["s1n1-net"][0])
    assert (packet.src, packet.dst, packet[IP].ttl) == (TOR_MAC, SERVER_MAC, 63)
    assert bytes(packet[UDP]) == bytes(Ether(sent)[UDP])
    assert checksums_hold(packet)


def checksums_hold(packet: Ether) -> bool:
    again = packet.copy()
    for layer in (IP, UDP, TCP, ICMP):
        if layer in again:
            del again[layer].chksum
    return bytes(again.__class__(bytes(again))) == bytes(packet)


@pytest.mark.parametrize(("interface", "source", "destination", "dport", "ttl", "rule"), [
    ("s1n1-net", at.smartnic_ip(1, 1, 2), CLIENT, at.DATA_PORT, 64, "spoofed source on tor1-s1n1"),
    ("c1-net", HOST, NIC1, at.DATA_PORT, 64, "spoofed source on tor1-c1"),
    ("c1-net", CLIENT, NIC1, at.CONTROL_PORT, 64, f"control port {at.CONTROL_PORT} from c1"),
    ("c1-net", CLIENT, HOST, at.TEAM_PORT, 64, f"control port {at.TEAM_PORT} from c1"),
    ("c1-net", CLIENT, NIC1, at.DATA_PORT, 1, "TTL 1, dropped"),
    ("c1-net", CLIENT, "10.1.77.1", at.DATA_PORT, 64, "nobody in rack 1, dropped"),
    ("c1-net", CLIENT, "10.9.1.1", at.DATA_PORT, 64, "no route, dropped"),
    ("c1-net", CLIENT, GATEWAY, at.DATA_PORT, 64, "sent to the gateway itself, dropped"),
    ("s1n1-net", NIC1, HOST, at.DATA_PORT, 64, "back to s1h by tor1-s1n1, dropped"),
])
def test_what_is_dropped_is_counted_under_its_reason(rack: Room, interface: str, source: str, destination: str,
                                                     dport: int, ttl: int, rule: str) -> None:
    before = rack.packets().get(rule, 0)
    rack.send(interface, *[udp(source, destination, sport=s, dport=dport, ttl=ttl) for s in (1, 2, 3)])
    assert rack.packets_once(rule, before + 2) == before + 3
    assert rack.received(1, wait_s=0.1) == {}
    assert rule in tor_counters.drops(rack.counters())


@pytest.mark.parametrize(("interface", "source"), [("ctl1-net", at.controller_ip(1, 1)),
                                                   ("s2n1-net", at.smartnic_ip(1, 2, 1)),
                                                   ("s2n1-net", at.host_ip(1, 2))])
def test_control_ports_are_open_to_compute_and_controller_nodes(rack: Room, interface: str, source: str) -> None:
    rack.send(interface, udp(source, NIC1, dport=at.CONTROL_PORT))
    assert list(rack.received(1)) == ["s1n1-net"]


@pytest.mark.parametrize("protocol", [17, TCP_NUMBER], ids=["udp", "tcp"])
def test_flows_to_a_host_spread_over_its_ports_as_predicted(rack: Room, protocol: int) -> None:
    group = rack.programs["tor1"].group(1)
    taken: Counter[int | None] = Counter()
    for flow in flows(100, protocol):
        trace = rack.trace(flow, CLIENT_PORT)
        assert disagreements(group, flow, trace) == []
        assert output_of(trace) == predict(group, flow)
        taken[output_of(trace)] += 1
    # 100 flows over 4 ports: 25 each, standard deviation 4.3; 12 and 38 are three of them away.
    assert set(taken) == set(NIC_PORTS) and all(12 <= n <= 38 for n in taken.values())


def test_real_packets_take_the_predicted_ports_and_the_groups_counters_agree(rack: Room) -> None:
    program = rack.programs["tor1"]
    group = program.group(1)

    def bucket_packets() -> dict[int, int]:
        text = rack.world.ofctl("dump-group-stats", "tor1")
        return {b.bucket_id: b.packets for b in tor_counters.group_counters(text, program)[group.name]}

    before = bucket_packets()
    sent = flows(60)
    rack.send("c1-net", *[udp(CLIENT, HOST, sport=f.src_port or 0) for f in sent])
    frames = rack.received(len(sent))
    got = {Ether(f)[UDP].sport: int(name[3]) for name, some in frames.items() for f in some}
    assert got == {f.src_port: predict(group, f) for f in sent}
    expected = Counter(got.values())
    deadline = time.monotonic() + 3
    while True:
        counted = {b: n - before[b] for b, n in bucket_packets().items()}
        if sum(counted.values()) >= len(sent) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert counted == {b: expected[b] for b in NIC_PORTS}


def test_the_lookup_says_what_the_switch_does(rack: Room) -> None:
    pipeline = Pipeline(rack.programs["tor1"])
    sources = {1: (NIC1, HOST, CLIENT), CLIENT_PORT: (CLIENT, NIC1), 5: (at.host_ip(1, 2), HOST)}
    targets = (HOST, NIC1, at.smartnic_ip(1, 2, 3), CLIENT, "10.1.77.1", "10.9.1.1", GATEWAY)
    for in_port, origins in sources.items():
        for source in origins:
            for target in targets:
                for dport, ttl in ((at.DATA_PORT, 64), (at.CONTROL_PORT, 64), (at.DATA_PORT, 1)):
                    flow = FlowKey(source, target, 17, 5000, dport)
                    said = pipeline.look_up(packet_of(flow, in_port, ttl))
                    assert said.port == output_of(rack.trace(flow, in_port, ttl=ttl)), (flow, in_port, ttl, said)


def moved(rack: Room, sample: list[FlowKey], live: set[int]) -> dict[int | None, int | None]:
    """Return the port of each flow, asserting that it is the one predicted with these buckets alive."""
    group = rack.programs["tor1"].group(1)
    now = {f.src_port: output_of(rack.trace(f, CLIENT_PORT)) for f in sample}
    assert now == {f.src_port: predict(group, f, live) for f in sample}
    return now


def wait_for(rack: Room, flow: FlowKey, live: set[int]) -> None:
    """Wait until the switch knows which buckets are alive, as a flow that it concerns shows."""
    wanted = predict(rack.programs["tor1"].group(1), flow, live)
    deadline = time.monotonic() + 8
    while output_of(rack.trace(flow, CLIENT_PORT)) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)


def test_a_dead_link_moves_only_its_own_flows_and_they_come_back(rack: Room) -> None:
    sample = flows(60)
    before = moved(rack, sample, {1, 2, 3, 4})
    concerned = next(f for f in sample if before[f.src_port] == 2)
    try:
        ip("link set s1n2-net down")
        wait_for(rack, concerned, {1, 3, 4})
        during = moved(rack, sample, {1, 3, 4})
        assert {s for s in before if during[s] != before[s]} == {s for s in before if before[s] == 2}
    finally:
        ip("link set s1n2-net up")
    wait_for(rack, concerned, {1, 2, 3, 4})
    assert moved(rack, sample, {1, 2, 3, 4}) == before


def test_a_port_whose_lacp_partner_is_silent_carries_no_flow(rack: Room) -> None:
    sample = flows(40)
    before = moved(rack, sample, {1, 2, 3, 4})
    concerned = next(f for f in sample if before[f.src_port] == 3)
    try:
        rack.world.vsctl("set", "port", "tor1-s1n3", "lacp=active", "other_config:lacp-time=fast")
        wait_for(rack, concerned, {1, 2, 4})
        moved(rack, sample, {1, 2, 4})
    finally:
        rack.world.vsctl("set", "port", "tor1-s1n3", "lacp=off")
        # Open vSwitch looks at a port again only when something about links changes.
        ip("link set s1n3-net down", "link set s1n3-net up")
    wait_for(rack, concerned, {1, 2, 3, 4})
    assert moved(rack, sample, {1, 2, 3, 4}) == before


def test_while_the_app_is_dead_traffic_goes_on_and_when_it_returns_nothing_is_sent(rack: Room) -> None:
    already = rack.packets().get("route to s1h", 0)
    rack.kill_app()
    rack.send("c1-net", *[udp(CLIENT, HOST, sport=f.src_port or 0) for f in flows(20)])
    assert sum(map(len, rack.received(20).values())) == 20
    rack.send("c1-net", bytes(Ether(src=CLIENT_MAC, dst="ff:ff:ff:ff:ff:ff")
                              / ARP(op=1, hwsrc=CLIENT_MAC, psrc=CLIENT, pdst=GATEWAY)))
    assert list(rack.received(1)) == ["c1-net"]
    before = rack.packets_once("route to s1h", already + 19)
    assert before == already + 20
    rack.start_app()
    sent = 0
    while not rack.is_settled():
        sent += 1
        rack.send("c1-net", udp(CLIENT, HOST, sport=sent))
        time.sleep(0.005)
    assert sum(map(len, rack.received(sent).values())) == sent > 20
    status = rack.status().of("tor1")
    assert status is not None and status.changes is not None
    assert set(status.changes.values()) == {0} and status.sent == 0
    # A rule that is sent again starts from 0.
    assert rack.packets_once("route to s1h", before + sent - 1) == before + sent


def test_after_a_hangup_only_the_difference_is_sent(rack: Room) -> None:
    full = rack.programs
    tor = full["tor1"]
    kept = rack.packets()
    smaller = replace(tor.group(2), buckets=tor.group(2).buckets[1:])
    changed = replace(tor, acls=tor.acls[1:], groups=(tor.group(1), smaller))
    try:
        rack.programs = {"tor1": changed}
        rack.write_programs()
        status = rack.hang_up().of("tor1")
        assert status is not None
        # The rule that kept s2n1 from sending to its own host goes with s2n1's bucket.
        assert status.changes == {"groups_added": 0, "groups_changed": 1, "rules_added": 0, "rules_deleted": 2,
                                  "groups_deleted": 0}
        assert {n: c for n, c in rack.packets().items() if n in kept}.items() >= {
            n: c for n, c in kept.items() if n != tor.acls[0].name}.items()
        assert len(groups_seen(rack.world.ofctl("dump-groups", "tor1"))[2][-1]) == 3
    finally:
        rack.programs = full
        rack.write_programs()
        rack.hang_up()


def test_a_broken_program_file_changes_nothing_and_is_told(rack: Room) -> None:
    before = rack.status()
    try:
        rack.programs_file.write_bytes(b'{"tor1": {"switch": 3}}')
        rack.app.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while not rack.status().program_error and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "not a set of switch programs" in rack.status().program_error
        assert rack.status().switches == before.switches
    finally:
        rack.write_programs()
        rack.hang_up()
    assert rack.status().program_error == ""


def test_a_switch_that_loses_its_program_keeps_what_it_has_and_is_named(rack: Room) -> None:
    full, kept = rack.programs, rack.world.ofctl("dump-groups", "tor1")
    try:
        rack.programs = {}
        rack.write_programs()
        loads = rack.status().loads
        rack.app.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while rack.status().loads == loads and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.2)
        assert rack.status().strangers == (full["tor1"].dpid,)
        assert rack.world.ofctl("dump-groups", "tor1") == kept
    finally:
        rack.programs = full
        rack.write_programs()
        status = rack.hang_up()
    again = status.of("tor1")
    assert status.strangers == () and again is not None and again.changes is not None
    assert set(again.changes.values()) == {0}


def test_rules_and_groups_that_others_put_there_are_taken_away(rack: Room) -> None:
    rack.world.ofctl("add-group", "tor1", "group_id=77,type=all,bucket=bucket_id:5,actions=resubmit(,1)")
    rack.world.ofctl("add-flow", "tor1", "table=2,priority=9000,ip,nw_dst=10.1.1.11,"
                     "actions=learn(table=9,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]),move:NXM_OF_IP_SRC[]->NXM_NX_REG0[]")
    rack.world.ofctl("mod-group", "tor1", "group_id=1,type=select,bucket=bucket_id:1,actions=output:1")
    assert [n for n in rack.counters() if n.startswith("stranger 0x0 ")]
    status = rack.hang_up().of("tor1")
    assert status is not None
    assert status.changes == {"groups_added": 0, "groups_changed": 1, "rules_added": 0, "rules_deleted": 1,
                              "groups_deleted": 1}
    assert not [n for n in rack.counters() if n.startswith("stranger")]
    moved(rack, flows(10), {1, 2, 3, 4})
