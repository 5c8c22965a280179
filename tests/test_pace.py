"""What paces a node: ways by mechanism, costs from Table 1, link rates, and the refusals of a speed model."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest

from experiments.emulation.pacing import CNMIPS_WORK_PER_CLOCK, UNPACED, Pacing
from experiments.errors import ExperimentError
from microservices.application import Application, Stage
from microservices.applications import application_named
from microservices.assumptions import ASSUMPTIONS, DEFAULTS, Assumption, varied
from microservices.errors import ServiceError
from microservices.measured import Column
from microservices.profiles import TABLE_1, cost_s, is_network_bound, stack_s
from microservices.service import BUILT_IN
from nodes.communication import Communication, HostStack, by_pcie, pcie_neighbours, ways_to
from nodes.deployment import deploy
from nodes.emulated_clock import EmulatedClock
from nodes.errors import NodeError
from nodes.origin import Origin
from nodes.pace import Pace, columns_of, pace_of, speed_of
from nodes.shaping import LEAST_BITS_PER_S, MTU_FRAME_BYTES, QUEUE_BYTES, shaping_line
from topologies.catalog import PAPER_CLUSTERS, cluster_named
from topologies.inventory import Inventory, NodeEntry, inventory_of

RACK = inventory_of(cluster_named("type1x2"))
CLOCK = EmulatedClock(0.0, 100.0)


def packed(entry: NodeEntry) -> bytes:
    return IPv4Address(entry.ip).packed


def rack(name: str) -> Inventory:
    return inventory_of(cluster_named(name))


# -- ways (section 2.4, Figure 3) --------------------------------------------------------------------------------

def round_trip_s(communication: Communication, one: str, other: str) -> float:
    a, b = RACK.node(one), RACK.node(other)
    return communication.one_way_s(a, b) + communication.one_way_s(b, a)


def test_the_two_ratios_of_section_2_4_come_out_exactly() -> None:
    bypass = Communication(DEFAULTS, HostStack.BYPASS)
    host_host = round_trip_s(bypass, "s1h", "s2h")
    assert host_host == pytest.approx(DEFAULTS.host_host_rtt_s, rel=1e-12)
    assert 1 - round_trip_s(bypass, "s1n1", "s1h") / host_host == pytest.approx(0.833, rel=1e-12)
    assert 1 - round_trip_s(bypass, "s1n1", "s2n1") / host_host == pytest.approx(0.862, rel=1e-12)


def test_the_linux_stack_costs_at_either_end_and_changes_nothing_else() -> None:
    linux, bypass = Communication(DEFAULTS, HostStack.LINUX), Communication(DEFAULTS, HostStack.BYPASS)
    factor = round_trip_s(linux, "s1h", "s2h") / round_trip_s(bypass, "s1h", "s2h")
    assert factor == pytest.approx(DEFAULTS.linux_rtt_factor)
    for one, other in (("s1n1", "s1h"), ("s1n1", "s2n1"), ("s1n1", "c1")):
        assert round_trip_s(linux, one, other) == round_trip_s(bypass, one, other)


def test_a_client_uses_kernel_bypass_whatever_hosts_use() -> None:
    for stack in HostStack:
        communication = Communication(DEFAULTS, stack)
        wanted = communication.bypass_end_s + communication.tor_s + communication.end_s("host")
        assert communication.one_way_s(RACK.node("c1"), RACK.node("s1h")) == pytest.approx(wanted)


def test_pcie_joins_a_smartnic_and_its_own_host_both_ways_and_nobody_else() -> None:
    pairs = {(a.name, b.name) for a in RACK.nodes for b in RACK.nodes if by_pcie(a, b)}
    assert pairs == {("s1h", "s1n1"), ("s1n1", "s1h"), ("s2h", "s2n1"), ("s2n1", "s2h")}
    communication = Communication(DEFAULTS)
    to_host = communication.one_way_s(RACK.node("s1n1"), RACK.node("s1h"))
    assert to_host == communication.one_way_s(RACK.node("s1h"), RACK.node("s1n1")) == communication.pcie_s


def test_sibling_smartnics_talk_over_the_tor_and_not_over_pcie() -> None:
    inventory = rack("type2x1")
    communication = Communication(DEFAULTS)
    way_s = communication.one_way_s(inventory.node("s1n1"), inventory.node("s1n4"))
    assert way_s == pytest.approx(2 * communication.smartnic_end_s + communication.tor_s)
    assert pcie_neighbours(inventory.node("s1h"), inventory) == {packed(n) for n in inventory.of_role("smartnic")}
    assert pcie_neighbours(inventory.node("s1n1"), inventory) == {packed(inventory.node("s1h"))}
    assert pcie_neighbours(inventory.node("c1"), inventory) == frozenset()


def test_servers_of_the_same_number_in_two_racks_share_no_pcie() -> None:
    inventory = rack("type1x1/2")
    assert len({n.server for n in inventory.of_role("host")}) == 1
    assert not by_pcie(inventory.of_role("host")[0], inventory.of_role("smartnic")[1])


def test_ways_to_a_node_are_known_from_every_other_and_only_those() -> None:
    node = RACK.node("s1n1")
    communication = Communication(DEFAULTS)
    ways = ways_to(node, RACK, communication)
    assert set(ways) == {packed(other) for other in RACK.nodes} - {packed(node)}
    assert ways[packed(RACK.node("s1h"))] == communication.pcie_s
    assert communication.one_way_s(node, node) == DEFAULTS.in_node_s


def test_a_way_through_the_tor_that_leaves_the_ends_less_than_nothing_is_refused() -> None:
    most_s = DEFAULTS.host_host_rtt_s / 2 * (1 - DEFAULTS.smartnic_smartnic_rtt_cut)
    Communication(msgspec.structs.replace(DEFAULTS, tor_s=most_s * 0.999))
    with pytest.raises(NodeError, match=r"ToR of 1\.4e-06 s leaves the ends .* the least is 0"):
        Communication(msgspec.structs.replace(DEFAULTS, tor_s=1.4e-6))


@pytest.mark.parametrize("about", ASSUMPTIONS, ids=lambda about: about.name)
def test_both_ends_of_the_range_of_every_assumption_can_be_played(about: Assumption) -> None:
    for value in (about.low, about.high):
        assert Communication(varied(about.name, value)).smartnic_end_s >= 0


# -- costs (section 2.3, Table 1) --------------------------------------------------------------------------------

def pace(node: str, stack: HostStack = HostStack.LINUX, inventory: Inventory = RACK,
         services: tuple[str, ...] = ("kvs",)) -> Pace:
    return pace_of(inventory.node(node), services, inventory, CLOCK, DEFAULTS, stack)


@pytest.mark.parametrize("service", TABLE_1)
def test_table_1_s_requests_cost_what_table_1_says(service: str) -> None:
    for node, stack, column in (("s1h", HostStack.LINUX, Column.LINUX), ("s1h", HostStack.BYPASS, Column.BYPASS),
                                ("s1n1", HostStack.LINUX, Column.SMARTNIC)):
        row = TABLE_1[service][column]
        busy = DEFAULTS.network_bound_headroom if is_network_bound(service, column) else 1.0
        found = pace(node, stack, services=(service,)).cost_s(service, 512, Origin.NETWORK)
        assert found == pytest.approx(busy * row.cores / row.rps, rel=1e-9)


def test_what_comes_over_pcie_passes_no_kernel_and_costs_as_with_bypass() -> None:
    linux = pace("s1h", HostStack.LINUX, services=("sql",))
    assert linux.cost_s("sql", 512, Origin.NETWORK) == pytest.approx(cost_s("sql", Column.LINUX, 512))
    assert linux.cost_s("sql", 512, Origin.PCIE) == pytest.approx(cost_s("sql", Column.BYPASS, 512))
    bypass = pace("s1h", HostStack.BYPASS, services=("sql",))
    assert bypass.cost_s("sql", 512, Origin.NETWORK) == bypass.cost_s("sql", 512, Origin.PCIE)
    smartnic = pace("s1n1", services=("sql",))
    assert smartnic.cost_s("sql", 512, Origin.NETWORK) == smartnic.cost_s("sql", 512, Origin.PCIE)


def test_what_a_neighbour_hands_over_pays_for_no_packet_in_and_out() -> None:
    made = pace("s1n1", services=("kvs", "sql"))
    stack = stack_s(Column.SMARTNIC)
    assert 0 < stack == pytest.approx(DEFAULTS.stack_share * min(cost_s(s, Column.SMARTNIC, 512) for s in TABLE_1))
    for service in ("kvs", "sql"):
        assert made.cost_s(service, 512, Origin.NODE) == pytest.approx(made.cost_s(service, 512, Origin.PCIE) - stack)
        assert 0 < made.cost_s(service, 0, Origin.NODE) < made.cost_s(service, 0, Origin.PCIE)


def test_a_host_of_wimpy_costs_what_a_smartnic_does_at_the_same_clock() -> None:
    inventory = rack("beefyx1+wimpyx1")
    wimpy = inventory.node("s2h")
    assert columns_of(wimpy, HostStack.LINUX) == (Column.SMARTNIC, Column.SMARTNIC)
    on_wimpy = pace("s2h", inventory=inventory).cost_s("kvs", 512, Origin.NETWORK)
    assert on_wimpy == pytest.approx(cost_s("kvs", Column.SMARTNIC, 512))
    assert on_wimpy == pytest.approx(pace("s1n1").cost_s("kvs", 512, Origin.NETWORK))


def test_a_slower_clock_makes_requests_cost_more_and_ways_no_longer() -> None:
    inventory = rack("type2x1")
    fast, slow = pace("s1h"), pace("s1h", inventory=inventory)  # Xeons of 2.5 and 2.1 GHz
    for size in (0, 64, 512, 1400):
        ratio = slow.cost_s("kvs", size, Origin.NETWORK) / fast.cost_s("kvs", size, Origin.NETWORK)
        assert ratio == pytest.approx(2.5 / 2.1)
    assert slow.client_way_s == fast.client_way_s


def test_assumptions_speed_up_the_hosts_that_table_1_does_not_have() -> None:
    faster = msgspec.structs.replace(DEFAULTS, work_per_clock_8160=1.5, work_per_clock_2620=1.1,
                                     work_per_clock_6880=0.9, hyper_threading_gain=1.2)
    for cluster, node, gain in (("superbeefyx1", "s1h", 1.5 * 1.2), ("type2x1", "s1h", 1.1 * 1.2),
                                ("type2dx1", "s1h", 1.1 * 1.2), ("type2x1", "s1n1", 1.0), ("beefyx1", "s1h", 1.0),
                                ("type1x1", "s1n1", 1.0), ("wimpyx1", "s1h", 0.9)):
        entry = rack(cluster).node(node)
        assert speed_of(entry, faster) == pytest.approx(gain * speed_of(entry, DEFAULTS)), cluster


def test_a_request_costs_a_fixed_part_and_a_part_for_each_byte() -> None:
    made = pace("s1h", services=("ipsec",))
    empty, at_512 = made.cost_s("ipsec", 0, Origin.NETWORK), made.cost_s("ipsec", 512, Origin.NETWORK)
    assert empty / at_512 == pytest.approx(DEFAULTS.host_fixed_share)
    assert made.cost_s("ipsec", 1024, Origin.NETWORK) - at_512 == pytest.approx(at_512 - empty)


def test_memory_intensive_microservices_and_no_others_slow_the_traffic_manager() -> None:
    made = pace("s1n1", services=tuple(TABLE_1))
    assert {s for s in TABLE_1 if made.hol_of(s)} == {"api_gateway", "bayes", "spike", "sql", "top_ranker"}
    assert made.hol_of("sql") == DEFAULTS.hol_factor


def test_a_pace_survives_being_told_to_an_agent() -> None:
    made = pace("s1n1", services=("kvs", "sql"))
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=type(made))
    assert again == made and again.cost_s("sql", 100, Origin.PCIE) == made.cost_s("sql", 100, Origin.PCIE)
    assert made.pcie == (packed(RACK.node("s1h")),) and made.clock is CLOCK


def test_a_microservice_without_a_profile_has_no_pace_and_is_named(tmp_path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from microservices.service import Microservice, Output\n\n\nclass Mine(Microservice):\n"
                    "    name = 'mine'\n    memory_mb = 1\n\n    def handle(self, request, state):\n"
                    "        return (Output(request.payload),)\n")
    with pytest.raises(ServiceError, match="'mine' has no profile"):
        pace("s1h", services=(f"{path}:Mine",))


# -- links -----------------------------------------------------------------------------------------------------

def test_a_port_is_shaped_to_its_emulated_rate_with_what_ethernet_adds() -> None:
    line = shaping_line("tor1-s1n1", 10.0, 400.0)
    assert line == ("qdisc replace dev tor1-s1n1 root handle 1: stab overhead 24 linklayer ethernet "
                    f"tbf rate 25000000bit burst {MTU_FRAME_BYTES} limit {QUEUE_BYTES}")


def test_pcie_has_no_ethernet_overhead() -> None:
    assert "stab" not in shaping_line("s1h-pcie1", 32.0, 400.0, ethernet=False)


def test_a_burst_holds_the_largest_frame_and_what_the_kernel_s_timers_need() -> None:
    def burst(gbps: float, scale: float) -> int:
        return int(re.findall(r"burst (\d+)", shaping_line("x", gbps, scale))[0])

    assert burst(10.0, 1.0) == 625_000 and burst(10.0, 1000.0) == MTU_FRAME_BYTES


def test_a_rate_too_low_for_the_kernel_is_refused_with_rate_and_limit() -> None:
    with pytest.raises(NodeError, match=rf"x: 0\.001 Gb/s at time scale 1000 is 1000 b/s .* is {LEAST_BITS_PER_S}"):
        shaping_line("x", 0.001, 1000.0)


@pytest.mark.parametrize("cluster", [*PAPER_CLUSTERS, "type1x2/2"])
def test_every_link_of_a_cluster_is_shaped_once_at_each_end_with_one_rate(cluster: str) -> None:
    inventory = rack(cluster)
    lines = list(Pacing("calibrated", 50.0).shaping(inventory))
    devices = [line.split()[3] for _, line in lines]
    ends = {p.interface for p in inventory.ports} | {p.peer_interface for p in inventory.ports}
    ends |= {end for link in inventory.pcie for end in (link.smartnic_interface, link.host_interface)}
    assert len(devices) == len(set(devices)) and set(devices) == ends
    rates = {line.split()[3]: int(re.findall(r"rate (\d+)bit", line)[0]) for _, line in lines}
    for port in inventory.ports:
        assert rates[port.interface] == rates[port.peer_interface] == round(port.gbps * 1e9 / 50.0)
    switches_ends = {line.split()[3] for node, line in lines if node is None}
    assert switches_ends == {port.interface for port in inventory.ports}


def test_without_a_pace_the_same_interfaces_are_set_free() -> None:
    shaped = [(node, line.split()[3]) for node, line in Pacing("calibrated", 50.0).shaping(RACK)]
    freed = list(UNPACED.shaping(RACK))
    assert freed == [(node, f"qdisc del dev {device} root") for node, device in shaped]


# -- speed models ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("pacing", "words"), [
    (lambda: Pacing("fast"), "no speed model 'fast'; there are calibrated, quota, unpaced"),
    (lambda: Pacing("quota", 10.0), "time scale of 10 with the speed model quota"),
    (lambda: Pacing("unpaced", 2.0), "time scale of 2 with the speed model unpaced"),
    (lambda: Pacing("calibrated", 0.0), "time scale 0; the limits are"),
    (lambda: Pacing("calibrated", float("nan")), "time scale nan; the limits are"),
    (lambda: Pacing("calibrated", cores={"s1h": 0}), "0 cores for s1h; the least is 1")])
def test_what_cannot_be_is_refused(pacing, words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        pacing()


def test_only_calibrated_nodes_have_a_pace() -> None:
    application = application_named("kvs", shards=1, backups=0)
    deployment = deploy(application, {i.number: "s1n1" for i in application.instances}, RACK)
    for speed in ("quota", "unpaced"):
        assert Pacing(speed).pace(RACK.node("s1n1"), RACK, CLOCK, (deployment,)) is None
    made = Pacing("calibrated", 100.0).pace(RACK.node("s1n1"), RACK, CLOCK, (deployment,))
    assert made is not None and set(made.costs) == set(BUILT_IN)  # what is built in may be deployed later


def test_a_pace_knows_every_microservice_of_every_deployment_wherever_it_runs(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from microservices.measured import Profile\nfrom microservices.service import Microservice\n\n\n"
                   "class Own(Microservice):\n    name = 'own'\n    memory_mb = 1\n"
                   "    profile = Profile(like='kvs')\n\n"
                   "    def handle(self, request, state):\n        return ()\n")
    deployment = deploy(Application("one", 1, (Stage("only", f"{own}:Own"),), ()), {0: "s1n1"}, RACK)
    made = Pacing("calibrated").pace(RACK.node("s2h"), RACK, CLOCK, (deployment,))
    assert made is not None and set(made.costs) == {*BUILT_IN, "own"}


def test_cores_are_the_node_s_unless_told_otherwise() -> None:
    pacing = Pacing("calibrated", cores={"s1h": 2})
    assert (pacing.cores_of(RACK.node("s1h")), pacing.cores_of(RACK.node("s2h"))) == (2, 12)


def quotas(name: str) -> dict[str, float | None]:
    inventory = rack(name)
    return {n.name: Pacing("quota").quota_cores(n, inventory) for n in inventory.nodes}


def test_by_quota_the_largest_host_has_the_whole_machine_and_the_others_their_share(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    found = quotas("type1x1")
    assert found["s1h"] == 10
    assert found["s1n1"] == pytest.approx(10 * 12 * 1.2 * CNMIPS_WORK_PER_CLOCK / (12 * 2.5))
    assert found["c1"] is None and found["ctl1"] is None


def test_by_quota_the_weak_cores_of_wimpy_s_host_count_as_such() -> None:
    found = quotas("beefyx1+wimpyx1")
    assert found["s2h"] / found["s1h"] == pytest.approx(32 * 1.2 * CNMIPS_WORK_PER_CLOCK / (12 * 2.5))
    alone = quotas("wimpyx2")
    assert alone["s1h"] == alone["s2h"] == os.cpu_count()


def test_without_the_quota_model_nobody_is_limited() -> None:
    assert all(UNPACED.quota_cores(n, RACK) is None for n in RACK.nodes)
    assert all(Pacing("calibrated").quota_cores(n, RACK) is None for n in RACK.nodes)
