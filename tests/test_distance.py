"""HCM's levels between compute nodes, from their coordinates, held against the cluster's wiring."""

from __future__ import annotations

import pytest

from controller.placement.compute_nodes import ComputeNodes
from controller.placement.cost import steps_between
from topologies.catalog import cluster_named
from topologies.cluster import Cluster
from topologies.distance import Level, level_between, spot_of
from topologies.errors import TopologyError
from topologies.inventory import Inventory, inventory_of

NAMES = ("type1x3", "type2x2", "beefyx2+wimpyx2", "type2:2x2/4", "type1x2+beefyx1/5")


def by_wires(cluster: Cluster, inventory: Inventory, here: str, there: str) -> int:
    """Return the level that the links between two nodes make: none, PCIe, or how many tiers of switches."""
    if here == there:
        return 1
    if any({link.smartnic, link.host} == {here, there} for link in inventory.pcie):
        return 2
    a, b = inventory.node(here), inventory.node(there)
    pods = [next(s.pod for s in inventory.switches if s.name == f"tor{n.rack}") for n in (a, b)]
    tiers = 0 if a.rack == b.rack else 1 if pods[0] == pods[1] else 2
    return 3 + 2 * tiers + (b.role == "host")


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_what_the_wiring_says(name: str) -> None:
    cluster = cluster_named(name)
    inventory = inventory_of(cluster)
    compute = [n for n in inventory.nodes if n.role in ("host", "smartnic")]
    per_pod = cluster.fabric.racks_per_pod
    for a in compute:
        for b in compute:
            level = level_between(spot_of(a, per_pod), spot_of(b, per_pod))
            assert level == by_wires(cluster, inventory, a.name, b.name), (a.name, b.name)


def test_levels_of_one_rack_are_the_papers_four() -> None:
    inventory = inventory_of(cluster_named("type2x2"))

    def level(a: str, b: str) -> Level:
        return level_between(spot_of(inventory.node(a)), spot_of(inventory.node(b)))
    assert level("s1n1", "s1n1") == Level.SAME_NODE
    assert level("s1n1", "s1h") == level("s1h", "s1n4") == Level.SAME_SERVER
    assert level("s1n1", "s2n1") == level("s1h", "s2n1") == Level.RACK_SMARTNIC
    assert level("s1n1", "s1n2") == Level.RACK_SMARTNIC  # siblings talk over the ToR (section 3.1)
    assert level("s1n1", "s2h") == level("s1h", "s2h") == Level.RACK_HOST


def test_only_compute_nodes_have_a_spot() -> None:
    with pytest.raises(TopologyError, match="c1 is a client"):
        spot_of(inventory_of(cluster_named("type1x1")).node("c1"))


@pytest.mark.parametrize("name", NAMES)
def test_placements_nodes_are_the_inventorys_with_its_names_and_figures(name: str) -> None:
    cluster = cluster_named(name)
    inventory, nodes = inventory_of(cluster), ComputeNodes(cluster)
    assert {n.name for n in nodes.nodes} == {n.name for n in inventory.nodes if n.role in ("host", "smartnic")}
    steps = steps_between(nodes)
    for node in nodes.nodes:
        entry, kind = inventory.node(node.name), nodes.classes[node.class_index]
        assert node.spot == spot_of(entry, cluster.fabric.racks_per_pod)
        assert (kind.role, kind.cores, kind.speed, kind.family) == (entry.role, entry.cores, entry.speed, entry.family)
        ports = inventory.ports_of_server(entry) if entry.role == "host" else inventory.ports_of_node(entry.name)
        assert kind.network_gbps == sum(p.gbps for p in ports)
        assert nodes.of_class[node.class_index][node.position] == node.index
        for other in nodes.nodes:
            assert steps(node.index, other.index) == nodes.level(node.index, other.index) - 1


def test_a_servers_smartnics_stand_before_its_host() -> None:
    assert [n.name for n in ComputeNodes(cluster_named("type2x1")).nodes] == ["s1n1", "s1n2", "s1n3", "s1n4", "s1h"]
