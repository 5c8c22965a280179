"""Every kind of failure on a real rack, and its mending: what still answers, and what the switch sees.

    c1, ctl1 --- tor1 === s1n1, s1n2 === s1h     === network links, then PCIe links
                      === s2n1, s2n2 === s2h
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from waiting import until

from experiments.clients.client import ClientConfig, ClientResult
from experiments.emulation.switches import lacp_members
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from microservices.applications import application_named
from nodes.deployment import deploy
from nodes.emulated_node import run_in
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1:2x2"
ALL = {"s1h", "s1n1", "s1n2", "s2h", "s2n1", "s2n2"}


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    inventory = inventory_of(cluster_named(CLUSTER))
    deployment = deploy(application_named("kvs", 1, 0), {0: "s2n1"}, inventory)
    with Testbed.start(TestbedOptions(CLUSTER, label="faults", deployments=(deployment,), orchestrator="watch")) as bed:
        yield bed


@pytest.fixture(autouse=True)
def mended(bed: Testbed) -> Iterator[None]:
    """Leave everything as it was, and find nothing left of what was broken."""
    yield
    for failure in reversed(list(bed.broken)):
        bed.heal(failure.kind, *failure.names)
    bed.wait_until_ready()
    assert until(lambda: not bed.not_running_on("s2n1"))
    assert answering(bed) == ALL
    assert "clsact" not in run_in(None, ["tc", "qdisc", "show"])


def answering(bed: Testbed, timeout_s: float = 1.5) -> set[str]:
    """Return the nodes whose agents answer the controller's node."""
    return set(bed.control.counters([bed.inventory.node(name) for name in bed.agents], timeout_s))


def alive(bed: Testbed, node: str) -> bool:
    """Whether the switch would send the host's flows to a SmartNIC's port."""
    port = bed.inventory.ports_of_node(node)[0].interface
    return lacp_members(bed.world)[port] and bed.has_carrier(port)


def sent(bed: Testbed, requests: int = 100, timeout_s: float = 2.0) -> ClientResult:
    deployment = bed.deployments[0]
    return bed.start_client("c1", ClientConfig(
        bed.inventory.node("c1").ip, bed.next_client_number(), deployment, "kvs", requests, timeout_s=timeout_s,
        drain_real_s=2.0)).result(30.0)


def test_a_pulled_cable_cuts_one_smartnic_off_and_its_host_is_reached_over_the_other(bed: Testbed) -> None:
    bed.fail("link", "s1n1")
    assert until(lambda: not alive(bed, "s1n1"))
    assert until(lambda: answering(bed) == ALL - {"s1n1"})


def test_without_its_pcie_link_a_smartnic_answers_and_carries_nothing_for_its_host(bed: Testbed) -> None:
    bed.fail("pcie", "s1n1")
    assert until(lambda: not alive(bed, "s1n1"))
    assert until(lambda: answering(bed) == ALL)
    bed.heal("pcie", "s1n1")
    assert until(lambda: alive(bed, "s1n1"))


def test_a_smartnic_that_gets_its_power_back_while_its_pcie_link_is_broken_has_that_link_down(bed: Testbed) -> None:
    bed.fail("pcie", "s1n1")
    bed.fail("smartnic", "s1n1")
    assert until(lambda: answering(bed) == ALL - {"s1n1"})
    bed.heal("smartnic", "s1n1")
    assert until(lambda: answering(bed) == ALL)
    assert until(lambda: not alive(bed, "s1n1"))  # the switch believes its last LACPDU for up to 3 s
    bed.heal("pcie", "s1n1")
    assert until(lambda: alive(bed, "s1n1"))


def test_a_crashed_agent_is_seen_by_lacp_alone_and_comes_back_with_nothing(bed: Testbed) -> None:
    assert sent(bed).answered == 100
    bed.fail("crash", "s2n1")
    port = bed.inventory.ports_of_node("s2n1")[0].interface
    assert bed.has_carrier(port)
    assert until(lambda: not alive(bed, "s2n1")) and bed.has_carrier(port)
    assert sent(bed, 5).answered == 0
    assert bed.heal("crash", "s2n1") == ("s2n1",)
    assert until(lambda: "s2n1" in answering(bed) and not bed.not_running_on("s2n1"))
    assert sent(bed).answered == 100


def test_a_hung_agent_goes_on_with_all_that_it_had(bed: Testbed) -> None:
    assert sent(bed).answered == 100
    before = bed.counters("s2n1")["s2n1"]["handled kvs/kvs-1"]
    assert before >= 100
    bed.fail("hang", "s2n1")
    assert until(lambda: answering(bed) == ALL - {"s2n1"})
    assert bed.heal("hang", "s2n1") == ()
    assert until(lambda: "s2n1" in answering(bed))
    assert bed.counters("s2n1")["s2n1"]["handled kvs/kvs-1"] >= before


def test_who_waits_for_an_agent_that_does_not_answer_is_told_what_it_is_at(bed: Testbed) -> None:
    bed.fail("hang", "s1h")
    with pytest.raises(ExperimentError, match=r"agents of s1h \(stopped; egress over s1h-pcie1, s1h-pcie2\)"):
        bed.wait_until_ready(timeout_s=3.0)


def test_a_crashed_host_takes_its_own_address_down_and_its_smartnics_go_on(bed: Testbed) -> None:
    bed.fail("host", "s2h")
    assert until(lambda: answering(bed) == ALL - {"s2h"})
    assert sent(bed).answered == 100
    assert "100% packet loss" in run_in(bed.net["c1"], ["sh", "-c", "ping -c1 -W1 10.1.2.1 || true"])
    assert bed.heal("host", "s2h") == ("s2h",)
    assert until(lambda: answering(bed) == ALL and alive(bed, "s2n1") and alive(bed, "s2n2"))


def test_a_server_dies_with_all_its_smartnics_and_what_failed_before_is_healed_by_itself(bed: Testbed) -> None:
    bed.fail("smartnic", "s1n2")
    assert set(bed.fail("server", "s1h")) == {"s1h", "s1n1"}
    assert until(lambda: answering(bed) == {"s2h", "s2n1", "s2n2"})
    assert set(bed.heal("server", "s1h")) == {"s1h", "s1n1"}
    assert until(lambda: answering(bed) == ALL - {"s1n2"})
    bed.heal("smartnic", "s1n2")
    assert until(lambda: answering(bed) == ALL)


def test_without_the_tor_app_and_the_resource_controller_requests_go_on(bed: Testbed) -> None:
    bed.fail("tor")
    bed.fail("controller")
    assert sent(bed).answered == 100
    with pytest.raises(ExperimentError, match="dead already: `heal controller`"):
        bed.fail("controller")
    bed.heal("controller")
    bed.heal("tor")
    assert bed.asked().state().nodes


def test_a_lossy_link_loses_its_share_and_no_request(bed: Testbed) -> None:
    bed.fail("loss", "s2n1", share=0.1)
    result = sent(bed, 300, timeout_s=30.0)
    assert result.answered == 300 and result.resent > 10
    with pytest.raises(ExperimentError, match=r"loses 0\.1 of all frames each way already: `heal loss s2n1`"):
        bed.fail("loss", "s2n1", share=0.1)
    bed.heal("loss", "s2n1")
    assert sent(bed, 300).answered == 300


def test_a_partition_lets_each_side_reach_itself_alone(bed: Testbed) -> None:
    bed.fail("partition", "s2h", "s2n1", "c1")
    assert answering(bed) == ALL - {"s2h", "s2n1"}
    assert sent(bed).answered == 100
    reached = run_in(bed.net["s2h"], ["sh", "-c", "for ip in 10.1.254.1 10.1.2.11 10.1.2.12 10.1.1.1; do "
                                      "ping -q -c1 -W1 $ip >/dev/null && echo $ip; done; true"])
    assert reached.split() == ["10.1.254.1", "10.1.2.11"]
    with pytest.raises(ExperimentError, match="nobody else already"):
        bed.fail("partition", "s1h")


def test_what_has_failed_cannot_fail_again_nor_what_has_not_be_healed(bed: Testbed) -> None:
    with pytest.raises(ExperimentError, match="link s1n1 has not failed; to be healed: nothing"):
        bed.heal("link", "s1n1")
    bed.fail("crash", "s1n1")
    with pytest.raises(ExperimentError, match="crashed already: `heal crash s1n1`"):
        bed.fail("crash", "s1n1")
    with pytest.raises(ExperimentError, match="ended already: `heal crash s1n1`"):
        bed.fail("smartnic", "s1n1")
    with pytest.raises(ExperimentError, match="cannot hang"):
        bed.fail("hang", "s1n1")
    assert [f.words for f in bed.broken] == ["crash s1n1"]
