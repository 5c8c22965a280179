"""The proof over captures that tcpdump took of a real Open vSwitch."""

import importlib.util
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from tor_room import Room, room

from controller.tor_counters import group_counters
from experiments.captures import routing_proof as rp
from experiments.captures.hash_prediction import BucketCounters
from experiments.captures.pcap_routing import run
from nodes.messages import KIND_REPLY, KIND_REQUEST, DataMessage
from topologies.addressing import DATA_PORT

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
              pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")]
LIBRARY = "ryu" if importlib.util.find_spec("ryu") else "os_ken"


@contextmanager
def captured(rack: Room, folder: Path) -> Iterator[None]:
    """Capture every switch port while the block runs, and leave the inventory and the programs beside it."""
    interfaces = [p.interface for p in rack.inventory.ports]
    dumps = [rack.world.spawn(["tcpdump", "-Z", "root", "-i", name, "-s", "0", "--time-stamp-precision=nano",
                               "-w", str(folder / f"{name}.pcap")], f"tcpdump-{name}") for name in interfaces]
    try:
        deadline = time.monotonic() + 10
        logs = [rack.world.run_dir / f"tcpdump-{name}.log" for name in interfaces]
        while not all("listening on" in log.read_text() for log in logs):
            assert time.monotonic() < deadline, [log.read_text() for log in logs]
            time.sleep(0.05)
        yield
        time.sleep(1.3)  # tcpdump reads a buffer that is not full once a second, and leaves it when it is told to end
    finally:
        for dump in dumps:
            dump.send_signal(signal.SIGINT)
        for dump in dumps:
            dump.wait(10)
    (folder / "inventory.json").write_bytes(rack.inventory.to_json())
    shutil.copy(rack.programs_file, folder)


def send(rack: Room, source: str, destination: str, layer_4: UDP | TCP, payload: bytes = b"", by: str = "",
         source_ip: str = "") -> None:
    nodes = rack.inventory
    node, target = nodes.node(source), nodes.node(destination)
    interface = by or nodes.ports_of_node(source)[0].peer_interface
    gateway = nodes.switch(f"tor{node.rack}").mac
    rack.send(interface, bytes(Ether(src=node.mac, dst=gateway) / IP(src=source_ip or node.ip, dst=target.ip)
                               / layer_4 / payload))
    rack.received(1, settle_s=0)


def request(rack: Room, request_id: int, client: str, *nodes: str) -> None:
    ip = bytes(map(int, rack.inventory.node(client).ip.split(".")))
    for hop, (source, destination) in enumerate(zip((client, *nodes), (*nodes, client), strict=True)):
        kind = KIND_REPLY if destination == client else KIND_REQUEST
        ports = UDP(sport=4000 if source == client else DATA_PORT, dport=4000 if destination == client else DATA_PORT)
        host = rack.inventory.node(source)
        by = rack.inventory.ports_of_server(host)[0].peer_interface if host.role == "host" else ""
        send(rack, source, destination, ports, DataMessage(kind, 1, hop, request_id, ip, 4000, hop, b"x").encode(), by)


def counters(rack: Room) -> dict[str, Counter[str]]:
    """Return the packets that the buckets of the switch have counted, by group and interface."""
    groups = group_counters(rack.world.ofctl("dump-group-stats", "tor1"), rack.programs["tor1"])
    return {name: Counter({b.interface: b.packets for b in buckets}) for name, buckets in groups.items()}


def counted_since(rack: Room, before: dict[str, Counter[str]], packets: int) -> BucketCounters:
    """Return what buckets counted since `before`, once that is `packets` (the switch gathers counters now and then)."""
    deadline = time.monotonic() + 5
    while True:
        counted = {name: buckets - before[name] for name, buckets in counters(rack).items()}
        if sum(buckets.total() for buckets in counted.values()) >= packets or time.monotonic() > deadline:
            return {"tor1": counted}
        time.sleep(0.1)


def test_a_real_switch_is_proved_and_its_buckets_counted_what_left(tmp_path: Path) -> None:
    with room("type2x2", LIBRARY) as rack:
        before = counters(rack)
        with captured(rack, tmp_path):
            for i in range(100):
                send(rack, "c1", "s1h", UDP(sport=20_000 + i, dport=9))
                send(rack, "c1", "s2h", TCP(sport=20_000 + i, dport=80))
            for i in range(20):
                request(rack, i, "c1", "s1n1", "s2n3")
                request(rack, 1000 + i, "c1", "s2h", "s1n2")
            send(rack, "c1", "s1n1", UDP(dport=DATA_PORT), source_ip="10.1.2.11")
        counted = counted_since(rack, before, 220)
    proof = run([tmp_path], counters=counted)
    assert proof.holds, proof.rows()
    assert proof.unjudged == (rp.PASSING,)
    assert proof.check(rp.COUNTERS).counts["packets"] == 220
    assert proof.check(rp.PREDICTION).counts["flows as predicted"] == 201
    assert proof.dropped == {"spoofed source": 1}
    assert proof.node_paths == {"c1 > s1n1 > s2n3 > c1": 20, "c1 > s2h > s1n2 > c1": 20}


def test_real_racks_behind_aggregation_are_proved_hop_by_hop(tmp_path: Path) -> None:
    with room("type1x1/2", LIBRARY) as rack, captured(rack, tmp_path):
        for i in range(30):
            request(rack, i, "r1c1", "r2s1n1", "r1s1h")
            send(rack, "r2c1", "r1s1h", UDP(sport=20_000 + i, dport=9))
    proof = run([tmp_path])
    assert proof.holds, proof.rows()
    assert proof.check(rp.REQUESTS).counts == {"requests": 30, "followed": 30}
    assert {s.switch for s in proof.spreads} == {"tor1", "tor2"}
