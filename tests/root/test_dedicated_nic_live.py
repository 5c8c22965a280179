"""A NIC that is the host's alone, on packets: what clients ask of the host passes it, and no SmartNIC's port."""

from __future__ import annotations

import pytest

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.cluster_peaks import placed_on
from experiments.measurement.fidelity import USUAL_LIMITS
from experiments.measurement.measuring import Plan, measure
from microservices.applications import application_named
from nodes.deployment import deploy
from topologies.catalog import cluster_named


@pytest.mark.parametrize("cluster", ["type2x1", "type2dx1"])
def test_requests_to_the_host_come_over_every_smartnic_or_over_its_own_nic_alone(cluster: str) -> None:
    application = application_named("nfv-fin", 3, 0)
    with Testbed.start(TestbedOptions(cluster, label="dedicated")) as bed:
        nodes = placed_on(application, cluster_named(cluster), 1, application.sources).nodes
        deployment = deploy(application, nodes, bed.inventory)
        bed.repace(Pacing("calibrated", 2000.0), (deployment,))
        config = ClientConfig(bed.inventory.node("c1").ip, 1, deployment, "nfv-fin", flows=32, outstanding=32,
                              timeout_s=1e4, pool=256)
        found = measure(bed, {"c1": config}, Plan(600, 100, 30.0), USUAL_LIMITS)
    assert not found.bad() and found.replies >= 600
    to_host = {p.interface: found.ports[p.interface] for p in bed.inventory.ports_of_server(bed.inventory.node("s1h"))}
    to_smartnics = [found.ports[p.interface] for p in bed.inventory.ports if p.peer.startswith("s1n")]
    if cluster == "type2dx1":
        assert list(to_host) == ["tor1-s1h1"]
        # All that the client asks comes in by the NIC: SmartNICs get what they hand each other, one of them nothing.
        gbps = {p.interface: p.gbps for p in bed.inventory.ports}
        asked = found.ports["tor1-c1"].from_node * gbps["tor1-c1"]
        assert to_host["tor1-s1h1"].to_node * gbps["tor1-s1h1"] == pytest.approx(asked, rel=0.05)
        assert min(use.to_node for use in to_smartnics) < to_host["tor1-s1h1"].to_node / 20
        assert sum(use.from_node for use in to_smartnics) > 5 * to_host["tor1-s1h1"].from_node
    else:
        assert len(to_host) == 4 and min(use.to_node for use in to_host.values()) > 0
