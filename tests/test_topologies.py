"""The machine room on paper: catalogue, names, addresses, fat tree."""

from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest

from topologies.addressing import is_computing
from topologies.catalog import (
    OCTEON_LIQUIDIO2,
    PAPER_CLUSTERS,
    SYSTEMS,
    XEON_8160,
    XEON_E5_2680V3,
    cluster_named,
    server_named,
)
from topologies.cluster import Cluster, Fabric
from topologies.errors import TopologyError
from topologies.inventory import Inventory, inventory_of, switch_links

# Table 4: cost, beefy cores, wimpy cores, idle W, peak W, Gb/s.
TABLE_4 = {
    "beefy": (4500, 12, 0, 83, 201, 20), "wimpy": (2209, 0, 32, 79, 95, 20), "type1": (4650, 12, 12, 98, 222, 20),
    "type2": (6750, 16, 48, 145, 252, 40), "superbeefy": (12550, 24, 0, 77, 256, 80)}


@pytest.mark.parametrize("model", TABLE_4)
def test_the_catalogue_adds_up_to_table_4(model: str) -> None:
    server = SYSTEMS[model]
    cores = Counter({"beefy": 0, "wimpy": 0})
    cores["wimpy" if model == "wimpy" else "beefy"] += server.host.cores
    cores["wimpy"] += sum(nic.processor.cores for nic in server.smartnics)
    gbps = sum(nic.port_gbps for nic in (*server.smartnics, *server.plain_nics))
    assert (server.cost_usd, cores["beefy"], cores["wimpy"], server.idle_watts, server.peak_watts, gbps) \
        == TABLE_4[model]


@pytest.mark.parametrize("name", PAPER_CLUSTERS)
def test_every_cluster_of_section_5_can_be_named(name: str) -> None:
    assert inventory_of(cluster_named(name)).of_role("host")


@pytest.mark.parametrize("name", ["type1x3", "type2:8x2/4", "beefyx2+wimpyx2", "type2:0x1", "type2x40", "type1x1/5"])
def test_names_addresses_and_ports_are_unique(name: str) -> None:
    found = inventory_of(cluster_named(name, clients=3))
    names = [n.name for n in found.nodes] + [s.name for s in found.switches]
    interfaces = [p.interface for p in found.ports] + [p.host_interface for p in found.pcie] \
        + [p.smartnic_interface for p in found.pcie]
    for values in (names, interfaces, [n.ip for n in found.nodes], [s.dpid for s in found.switches],
                   [(p.switch, p.port) for p in found.ports]):
        assert len(values) == len(set(values))
    assert all(IPv4Address(n.ip).is_private for n in found.nodes)
    assert max(map(len, interfaces)) <= 15


def test_a_server_has_one_mac_and_shares_it_with_nobody() -> None:
    found = inventory_of(cluster_named("type2x3", clients=2))
    owners = {(n.mac, (n.role, n.name) if n.role in ("client", "controller") else n.server) for n in found.nodes}
    assert len(owners) == len({mac for mac, _ in owners}) == 3 + 2 + 1
    assert len({n.mac for n in found.nodes if n.server == 2}) == 1


def test_the_largest_rack_of_section_5_6_has_its_links() -> None:
    found = inventory_of(cluster_named("type2x40"))
    assert (len(found.of_role("host")), len(found.of_role("smartnic"))) == (40, 160)
    assert len(found.ports) + len(found.pcie) >= 320


@pytest.mark.parametrize("nics", range(9))
def test_a_server_takes_0_to_8_smartnics_and_stays_on_the_network(nics: int) -> None:
    found = inventory_of(cluster_named(f"type2:{nics}x1"))
    host = found.of_role("host")[0]
    assert len(found.smartnics_of(host)) == nics
    assert len(found.ports_of_server(host)) == max(nics, 1)


@pytest.mark.parametrize(("name", "words"), [
    ("type2:9x1", ["9 SmartNICs", "0 to 8"]), ("nonesuch", ["nonesuch", "MODEL"]), ("bogusx3", ["bogus", "type1"]),
    ("type1x0", ["0 servers", "1 and"]), ("type1x99999", ["servers", "240"]), ("type1x2/0", ["racks"]),
    ("type1x2/many", ["many"]), ("type1x2/9999", ["racks", "250"]), ("", ["MODEL"]), ("type1x3+", ["MODEL"]),
    ("type1x200+type1x200", ["400 servers"])])
def test_a_bad_cluster_name_is_refused_with_value_and_limit(name: str, words: list[str]) -> None:
    with pytest.raises(TopologyError) as refused:
        cluster_named(name)
    assert all(word in str(refused.value) for word in words)


def test_bad_nouns_are_refused() -> None:
    with pytest.raises(TopologyError, match="9 SmartNICs"):
        server_named("type1", 9)
    with pytest.raises(TopologyError, match="17"):
        Fabric(aggregations_per_pod=17)
    with pytest.raises(TopologyError, match="0 racks"):
        Cluster("none", ())
    with pytest.raises(TopologyError, match="clients"):
        cluster_named("type1x1", clients=-1)


def test_an_inventory_survives_its_file() -> None:
    found = inventory_of(cluster_named("type1x1/4"))
    assert Inventory.from_json(found.to_json()) == found
    with pytest.raises(TopologyError):
        Inventory.from_json(b'{"cluster": 3}')


def test_an_inventory_from_before_speed_and_power_still_loads_and_says_what_it_lacks() -> None:
    found = inventory_of(cluster_named("type1x1"))
    old = msgspec.json.decode(found.to_json())
    del old["servers"]
    for node in old["nodes"]:
        del node["family"], node["speed"], node["busy_watts"]
    read = Inventory.from_json(msgspec.json.encode(old))
    assert [n.name for n in read.nodes] == [n.name for n in found.nodes]
    with pytest.raises(TopologyError, match="s1h"):
        read.server_of(read.node("s1n1"))


def test_speed_is_that_of_a_core_over_the_one_that_table_1_measured_of_its_family() -> None:
    assert XEON_E5_2680V3.speed == OCTEON_LIQUIDIO2.speed == 1
    expected = {"beefyx1": ("xeon", 1), "type2:0x1": ("xeon", 2.1 / 2.5), "superbeefyx1": ("xeon", 2.1 / 2.5),
                "wimpyx1": ("cnmips", 1)}
    for name, wanted in expected.items():
        host = inventory_of(cluster_named(name)).of_role("host")[0]
        assert (host.family, host.speed) == (wanted[0], pytest.approx(wanted[1]))
    assert {(n.family, n.speed) for n in inventory_of(cluster_named("type2x1")).of_role("smartnic")} == {("cnmips", 1)}
    assert replace(XEON_8160, work_per_clock=1.25).speed == pytest.approx(1.05)


def test_hosts_and_smartnics_of_a_chassis_share_its_power_figures() -> None:
    found = inventory_of(cluster_named("type1x1+beefyx1/2"))
    assert [(s.model, s.idle_watts, s.peak_watts, s.cost_usd) for s in found.servers] \
        == [("type1", 98, 222, 4650), ("beefy", 83, 201, 4500)] * 2
    assert found.server_of(found.node("r2s1n1")) == found.server_of(found.node("r2s1h"))
    assert found.server_of(found.node("r2s1n1")).host == "r2s1h"
    with pytest.raises(TopologyError, match="no server"):
        found.server_of(found.of_role("client")[0])


def test_the_two_servers_that_table_1_was_measured_on_have_one_10_gbe_port_each() -> None:
    host, card = (inventory_of(cluster_named(f"{name}x1")) for name in ("beefy10g", "liquidio10g"))
    assert [p.gbps for p in host.ports_of_server(host.node("s1h"))] == [10]
    assert [p.gbps for p in card.ports_of_server(card.node("s1h"))] == [10]
    assert [len(found.of_role("smartnic")) for found in (host, card)] == [0, 1]


@pytest.mark.parametrize(("change", "words"), [
    ({"family": "arm"}, "'arm'"), ({"work_per_clock": 0}, "above 0"), ({"busy_watts": -1}, "-1 W"),
    ({"cores": 0}, "0 cores"), ({"clock_ghz": 0}, "0 GHz")])
def test_an_impossible_processor_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(TopologyError, match=words):
        replace(XEON_8160, **change)


def test_looking_up_what_is_not_there_names_what_is() -> None:
    found = inventory_of(cluster_named("type1x1"))
    with pytest.raises(TopologyError, match="s1n1"):
        found.node("s9n9")
    with pytest.raises(TopologyError, match="tor1"):
        found.switch("s1n1")


def test_every_rack_reaches_every_other_over_as_many_paths_as_the_tree_promises() -> None:
    found = inventory_of(cluster_named("type1x1/4"))  # 2 pods of 2 racks, 2 aggregations a pod, 2 cores each
    tier = {s.name: s.tier for s in found.switches}
    up: dict[str, set[str]] = {name: set() for name in tier}
    for a, b in switch_links(found):
        lower, upper = (a, b) if ("tor", "agg", "core").index(tier[a.switch]) < \
            ("tor", "agg", "core").index(tier[b.switch]) else (b, a)
        up[lower.switch].add(upper.switch)
    paths_in_pod = len(up["tor1"] & up["tor2"])
    cores = [core for agg in up["tor1"] for core in up[agg]]
    assert paths_in_pod == 2 and len(cores) == len(set(cores)) == 4
    down_to_tor3 = {core for agg in up["tor3"] for core in up[agg]}
    assert set(cores) == down_to_tor3


def test_one_pod_needs_no_cores() -> None:
    assert {s.tier for s in inventory_of(cluster_named("type1x1/2")).switches} == {"tor", "agg"}


def test_an_address_says_whether_a_microservice_can_stand_there() -> None:
    inventory = inventory_of(cluster_named("type1x3"))
    for node in inventory.nodes:
        assert is_computing(IPv4Address(node.ip).packed) == (node.role in ("host", "smartnic")), node
    assert not any(is_computing(IPv4Address(other).packed) for other in ("10.1.255.254", "127.0.0.1", "192.168.1.1"))
    assert not is_computing(b"") and not is_computing(bytes(16))
