"""A NIC that is the host's alone: its traffic takes no SmartNIC's port, on packets and in the models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.placement.compute_nodes import ComputeNodes
from controller.tor_program import programs_of
from nodes.agenda import Agenda
from nodes.host_network import switch_lacp_settings, team_config
from nodes.node_control import reports_of
from nodes.simulated_links import Link, NicQueue
from nodes.simulated_routes import Routes
from nodes.transport import Address
from topologies.catalog import BEEFY, TYPE1, TYPE2, TYPE2_DEDICATED, TYPE2_DEDICATED_BOTH, cluster_named
from topologies.errors import TopologyError
from topologies.inventory import Inventory, inventory_of

DEDICATED, SHARED = (inventory_of(cluster_named(name)) for name in ("type2dx2", "type2x2"))


def interfaces(inventory: Inventory) -> list[str]:
    return [port.interface for port in inventory.ports_of_server(inventory.node("s1h"))]


def test_both_configurations_have_as_many_ports_and_the_host_a_quarter_of_the_bandwidth() -> None:
    for inventory in (SHARED, DEDICATED):
        own = [p for p in inventory.ports if p.peer.startswith("s1")]
        assert len(own) == 4 and {p.gbps for p in own} == {10.0}
    hosts = [sum(p.gbps for p in i.ports_of_server(i.node("s1h"))) for i in (SHARED, DEDICATED)]
    assert hosts == [40.0, 10.0]
    assert sum(nic.port_gbps for nic in TYPE2_DEDICATED_BOTH.plain_nics) == 20.0


def test_power_and_price_change_as_between_type1_and_beefy() -> None:
    for figure in ("idle_watts", "peak_watts", "cost_usd"):
        swap = getattr(TYPE1, figure) - getattr(BEEFY, figure)
        assert getattr(TYPE2_DEDICATED, figure) == getattr(TYPE2, figure) - swap


def test_the_tor_reaches_the_host_by_that_port_alone_and_takes_its_packets_from_no_other() -> None:
    program = programs_of(DEDICATED)["tor1"]
    port = {p.interface: p.port for p in DEDICATED.ports}
    group = next(g for g in program.groups if g.group_id == DEDICATED.node("s1h").server)
    assert [bucket.port for bucket in group.buckets] == [port[name] for name in interfaces(DEDICATED)]
    allowed = {i.interface: {source.name for source in i.sources} for i in program.ingress}
    for entry in DEDICATED.ports:
        if entry.peer.startswith("s1"):
            assert allowed[entry.interface] == {entry.peer}
    shared = {i.interface: {s.name for s in i.sources} for i in programs_of(SHARED)["tor1"].ingress}
    assert all("s1h" in shared[name] for name in interfaces(SHARED))


def test_lacp_is_spoken_on_its_port_and_heard_of_in_its_reports() -> None:
    named = {a for a in switch_lacp_settings(DEDICATED, "s1h") if a.startswith("tor1")}
    assert named == set(interfaces(DEDICATED))
    told = reports_of(DEDICATED.node("s1h"), DEDICATED, ("10.0.0.1",))
    assert told.interfaces == ("s1h-nic1",) and told.port_gbps == 10.0
    assert len(team_config(DEDICATED, "s1h", "/nowhere").members) == 4  # type: ignore[arg-type]


def routes(inventory: Inventory) -> Routes:
    queues = {n.name: NicQueue(Agenda(), 1e-7, lambda: 0.0, 16, lambda _: None) for n in inventory.of_role("smartnic")}
    return Routes(inventory, 1.0, queues.__getitem__)


def test_simulated_frames_to_and_from_the_host_pass_no_smartnic_and_pcie_stays_for_its_own() -> None:
    ways = routes(DEDICATED)

    def hops(source: str, to: str) -> list[str]:
        ends = [Address(bytes(map(int, DEDICATED.node(n).ip.split("."))), 7000 + k) for k, n in enumerate((source, to))]
        return [hop.name if isinstance(hop, Link) else "passage" for hop in ways.between(*ends)]

    assert hops("c1", "s1h")[-1:] == interfaces(DEDICATED) and "passage" not in hops("c1", "s1h")
    assert hops("s1h", "c1")[0] == "s1h-nic1" and "passage" not in hops("s1h", "c1")
    assert hops("s1h", "s1n2")[0] == DEDICATED.pcie_of_smartnic("s1n2").host_interface


def test_placement_knows_what_the_host_can_carry() -> None:
    rates = [next(c.network_gbps for c in ComputeNodes(cluster_named(name)).classes if c.role == "host")
             for name in ("type2x2", "type2dx2", "type1x3", "beefyx3")]
    assert rates == [40.0, 10.0, 20.0, 20.0]


def test_a_dedicated_nic_must_be_there() -> None:
    with pytest.raises(TopologyError, match="no plain NIC"):
        replace(TYPE2, dedicated=True)
