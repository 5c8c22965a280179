"""Links, SmartNICs and routes in virtual time: rates, bursts, queues, ECMP, head-of-line blocking."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address

import pytest

from experiments.emulation.pacing import Pacing
from experiments.measurement.simulated_bed import calibration_of
from microservices.applications import application_named
from nodes.agenda import Agenda
from nodes.deployment import Deployment, deploy
from nodes.errors import NodeError
from nodes.forwarding import Port
from nodes.shaping import MTU_FRAME_BYTES, QUEUE_BYTES, WIRE_OVERHEAD_BYTES, bucket_of
from nodes.simulated_links import HEADERS_BYTES, Flying, Hop, Link, NicQueue, Passage
from nodes.simulated_rack import RackNetwork
from nodes.transport import Address, Send, Sends
from topologies.addressing import DATA_PORT
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

SLOW = 400.0  # a time scale at which a link's burst is one frame of the largest size


def rack(cluster: str) -> Inventory:
    return inventory_of(cluster_named(cluster))


def network_of(inventory: Inventory, interference: float = 0.0, time_scale: float = SLOW) -> RackNetwork:
    application = application_named("kvs", shards=1, backups=0)
    first = inventory.of_role("host")[0].name
    deployment: Deployment = deploy(application, {i.number: first for i in application.instances}, inventory)
    calibration = calibration_of(Pacing("calibrated", time_scale), inventory, (deployment,))
    return RackNetwork(inventory, calibration, lambda _: lambda: interference)


def address(inventory: Inventory, node: str, port: int = DATA_PORT) -> Address:
    return Address(IPv4Address(inventory.node(node).ip).packed, port)


def names(hops: tuple[Hop, ...], network: RackNetwork) -> list[str]:
    nics = {nic: name for name, nic in network.nics.items()}
    return [hop.name if isinstance(hop, Link) else f"({nics[hop.nic]})" for hop in hops]


class Listener:
    """An end that notes what it hears, and when."""

    def __init__(self, where: Address, network: RackNetwork) -> None:
        self.address = where
        self.heard: list[tuple[float, bytes]] = []
        self._network = network
        network.plug(self)

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        self.heard.append((now, payload))

    def work(self, now: float, out: Sends) -> None:
        pass

    def due(self) -> None:
        return None

    def say(self, to: Address, *payloads: bytes) -> None:
        self._network.after(self, [Send(*to, payload) for payload in payloads])


def test_a_burst_leaves_at_once_and_the_rest_at_the_links_rate() -> None:
    link = Link("x", 10.0, SLOW)
    size = 1000 + WIRE_OVERHEAD_BYTES
    times = [link.leaves(0.0, 1000) for _ in range(100)]
    at_once = MTU_FRAME_BYTES // size
    assert times[:at_once] == [0.0] * at_once
    assert times[-1] == pytest.approx((100 * size - MTU_FRAME_BYTES) * 8 / 10e9)
    assert (link.frames, link.bytes) == (100, 100 * size)


def test_a_link_that_rested_has_its_burst_again_and_no_more() -> None:
    link = Link("x", 10.0, SLOW)
    for _ in range(50):
        link.leaves(0.0, 1000)
    again = [link.leaves(1.0, 1000) for _ in range(20)]
    assert again.count(1.0) == MTU_FRAME_BYTES // (1000 + WIRE_OVERHEAD_BYTES)


def test_pcie_adds_nothing_to_a_frame_and_ethernet_what_its_wire_does() -> None:
    for ethernet, overhead in ((True, WIRE_OVERHEAD_BYTES), (False, 0)):
        link = Link("x", 8.0, SLOW, ethernet)
        times = [link.leaves(0.0, 500) for _ in range(1000)]
        assert times[-1] - times[-2] == pytest.approx((500 + overhead) * 1e-9)


def test_a_full_queue_drops_and_one_that_drains_takes_frames_again() -> None:
    link = Link("x", 10.0, SLOW)
    size = 1000 + WIRE_OVERHEAD_BYTES
    passed = [link.leaves(0.0, 1000) for _ in range(5000)]
    held = sum(t is not None for t in passed)
    assert held == pytest.approx((QUEUE_BYTES + MTU_FRAME_BYTES) / size, abs=2)
    assert link.dropped == 5000 - held
    assert link.leaves(1e-4, 1000) is not None


def test_a_shaped_link_has_the_bucket_that_the_kernel_is_told() -> None:
    rate, burst, queue = bucket_of(10.0, 1.0)
    assert (rate, burst, queue) == (10e9, 625_000, QUEUE_BYTES)
    link = Link("x", 10.0, 1.0)
    assert [link.leaves(0.0, 9000) for _ in range(100)].count(0.0) == 625_000 // (9000 + WIRE_OVERHEAD_BYTES)


def test_datagrams_cross_the_ports_that_packets_cross() -> None:
    inventory = rack("type1x2")
    network = network_of(inventory)
    c1, nic1, host1, nic2, host2 = (address(inventory, n) for n in ("c1", "s1n1", "s1h", "s2n1", "s2h"))

    def way(source: Address, to: Address) -> list[str]:
        return names(network.routes.between(source, to), network)

    assert way(c1, nic1) == ["c1-net", "tor1-s1n1", "(s1n1)"]
    assert way(nic1, c1) == ["s1n1-net", "tor1-c1"]
    assert way(c1, host1) == ["c1-net", "tor1-s1n1", "(s1n1)", "s1n1-pcie"]
    assert way(nic1, host1) == ["s1n1-pcie"]
    assert way(host1, nic1) == ["s1h-pcie1", "(s1n1)"]
    assert way(host1, host2) == ["s1h-pcie1", "(s1n1)", "s1n1-net", "tor1-s2n1", "(s2n1)", "s2n1-pcie"]
    assert way(nic1, nic2) == ["s1n1-net", "tor1-s2n1", "(s2n1)"]
    assert way(host1, host1) == []
    with pytest.raises(NodeError, match=r"10\.9\.9\.9"):
        way(c1, Address(IPv4Address("10.9.9.9").packed, 1))


def test_siblings_reach_each_other_over_the_tor_and_plain_nics_have_no_smartnic() -> None:
    inventory = rack("type2x1+beefyx1")
    network = network_of(inventory)
    way = network.routes.between(address(inventory, "s1n1"), address(inventory, "s1n2"))
    assert names(way, network) == ["s1n1-net", "tor1-s1n2", "(s1n2)"]
    out = network.routes.between(address(inventory, "s2h"), address(inventory, "s1n1"))
    assert names(out, network)[0].startswith("s2h-nic") and len(out) == 3


def test_flows_to_and_from_a_host_spread_over_its_smartnics_evenly_and_stay() -> None:
    inventory = rack("type2x2")
    network = network_of(inventory)
    host, other = address(inventory, "s1h"), address(inventory, "s2h")
    ways = {p: network.routes.between(address(inventory, "c1", p), host) for p in range(40_000, 44_000)}
    assert all(network.routes.between(address(inventory, "c1", p), host) == ways[p] for p in range(40_000, 40_100))
    share = Counter(names(way, network)[2] for way in ways.values())
    assert len(share) == 4 and max(share.values()) < 1.12 * min(share.values())
    both = Counter()
    for port in range(40_000, 44_000):
        way = names(network.routes.between(Address(host.ip, port), other), network)
        both[way[0], way[-1]] += 1
    assert len(both) == 16  # the host chooses, and the switch chooses again, independently


def test_between_racks_flows_spread_over_ways_of_the_same_length() -> None:
    inventory = rack("type1x2/4")
    network = network_of(inventory)
    hosts = [n.name for n in inventory.of_role("host")]
    to = address(inventory, hosts[-1])
    ways = [names(network.routes.between(address(inventory, hosts[0], p), to), network) for p in range(2000)]
    assert len({len(way) for way in ways}) == 1
    first, second = Counter(way[3] for way in ways), Counter(way[4] for way in ways)
    assert len(first) > 1 and len(second) > 1 and max(first.values()) < 1.2 * min(first.values())


def test_what_is_sent_together_arrives_in_order_at_the_rate_of_the_slowest_port() -> None:
    inventory = rack("liquidio10gx1")
    network = network_of(inventory)
    client, host = (Listener(address(inventory, n), network) for n in ("c1", "s1h"))
    client.say(host.address, *(b"%4d" % i + bytes(996) for i in range(1000)))
    network.agenda.run()
    assert [int(payload[:4]) for _, payload in host.heard] == list(range(1000))
    port = next(p for p in inventory.ports if p.peer == "s1n1")
    size = 1000 + HEADERS_BYTES + WIRE_OVERHEAD_BYTES
    took = host.heard[-1][0] - host.heard[100][0]
    assert took == pytest.approx(899 * size * 8 / (port.gbps * 1e9), rel=1e-3)
    assert network.counters().sent == 1000 and network.counters().lost == 0


@pytest.mark.parametrize(("interference", "times"), [(0.0, 1), (4.0, 5), (48.0, 49)])
def test_each_busy_core_of_a_memory_intensive_microservice_stretches_a_frame(interference: float, times: int) -> None:
    agenda = Agenda()
    through: list[float] = []
    nic = NicQueue(agenda, 1e-7, lambda: interference, 4096, lambda _: through.append(agenda.now))
    passage = Passage(nic, Port.NETWORK, Port.HOST)
    for _ in range(100):
        nic.take_in(Flying(iter(()), Address(b"", 0), Address(b"", 0), b""), passage)
    agenda.run()
    assert through[-1] == pytest.approx(100 * times * 1e-7)
    assert nic.counters()["to_host"] == 100 and nic.counters()["queue_deepest"] == 100


def test_a_full_traffic_manager_drops_and_counts() -> None:
    agenda = Agenda()
    nic = NicQueue(agenda, 1e-7, lambda: 0.0, 10, lambda _: None)
    for _ in range(25):
        nic.take_in(Flying(iter(()), Address(b"", 0), Address(b"", 0), b""), Passage(nic, Port.NETWORK, Port.HOST))
    agenda.run()
    assert (nic.counters()["queue_dropped"], nic.counters()["to_host"]) == (15, 10)


def test_the_agenda_keeps_the_order_of_what_is_due_at_one_time_and_stops_when_told() -> None:
    agenda = Agenda()
    done: list[int] = []
    for i in range(5):
        agenda.at(1.0, done.append, i)
    agenda.at(2.0, agenda.stop)
    agenda.at(3.0, done.append, 9)
    assert agenda.run() and (agenda.now, done) == (2.0, [0, 1, 2, 3, 4])
    assert not agenda.run(10.0) and (agenda.now, done[-1]) == (10.0, 9)
    with pytest.raises(NodeError, match="it is 10 s already"):
        agenda.run(9.0)
