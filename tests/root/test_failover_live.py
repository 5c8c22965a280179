"""Replicated instances on a running rack: a server dies under load, and all that was acknowledged is there.

    c1, c2 --- tor1 === s1n1, s2n1 === s1h, s2h        ctl1 --- tor1        kvs-1 on s1n1, its backup on s2
"""

import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from experiments.clients.client import ClientConfig
from experiments.clients.shared_store import SHARED, judged
from experiments.clients.store_checker import CHECKER, READ_BACK, StoreReadBack
from experiments.emulation.running import RunningClient
from experiments.emulation.testbed import CLIENT, Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.failover import CLUSTER as EXPERIMENTS_CLUSTER
from experiments.failures.live_load import StoreLoad, ThermostatLoad, store_on, thermostats_on
from experiments.failures.live_strike import struck
from microservices.applications import application_named
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x2"
INVENTORY = inventory_of(cluster_named(CLUSTER, clients=2))
DEPLOYMENT = deploy(application_named("kvs", 1, 1), {0: "s1n1"}, INVENTORY, replicate=True)
OTHER = {"s1": ("s2h", "s2n1"), "s2": ("s1h", "s1n1")}


@pytest.fixture
def bed() -> Iterator[Testbed]:
    with Testbed.start(TestbedOptions(CLUSTER, clients=2, label="failover", deployments=(DEPLOYMENT,),
                                      orchestrator="watch")) as started:
        yield started


def config(bed: Testbed, client: str, workload: str, writer: int, **more) -> ClientConfig:
    given = {"requests": 0, "flows": 1, "window": 4, "payload_bytes": 64, "timeout_s": 60.0, **more}
    options = given.pop("options", {"writer": writer})
    return ClientConfig(bed.inventory.node(client).ip, bed.next_client_number(), DEPLOYMENT, workload, seed=writer,
                        options=options, **given)


def test_what_is_replicated_has_a_primary_where_it_was_placed_and_a_backup_on_the_other_server(bed: Testbed) -> None:
    (kvs,) = bed.replicas()
    assert kvs.state == "paired" and kvs.primary == "s1n1" and kvs.backup in OTHER["s1"]
    assert bed.replicas_together() == []


def test_when_the_primarys_server_dies_every_acknowledged_write_survives_and_service_resumes(bed: Testbed) -> None:
    (before,) = bed.replicas()
    writers = [(w, bed.start_client(client, config(bed, client, CHECKER, w))) for w, client in ((1, "c1"), (2, "c2"))]
    sharing = [bed.start_client(client, config(bed, client, SHARED, w, window=1, flows=2, history=True))
               for w, client in ((3, "c1"), (4, "c2"))]
    time.sleep(1.5)
    killed_s = bed.clock.reader()()
    bed.fail("server", "s1h")
    time.sleep(4.0)
    for _, client in writers:
        client.stop()
    for client in sharing:
        client.stop()
    wrote, shared = [(w, c.result(60.0)) for w, c in writers], [c.result(60.0) for c in sharing]
    (after,) = bed.replicas()
    assert after.primary == before.backup and bed.replicas_together() == []
    for w, result in wrote:
        answered, _ = result.replies()
        resumed = float(answered[answered > killed_s + 0.05].min()) - killed_s
        print(f"writer {w}: {result.answered} answered, the first {1e3 * resumed:.0f} ms after the server died")
        assert not (result.wrong or result.errors or result.lost or result.duplicated or result.foreign), result
        assert result.answered == result.sent and resumed < 5.0
        keys = len(StoreReadBack(w, 64, w, result.sent).right)
        read = bed.start_client("c1", config(bed, "c1", READ_BACK, w, requests=keys,
                                             options={"writer": w, "sent": result.sent})).result(60.0)
        assert read.answered == keys and not read.wrong, read
    late = msgspec.structs.replace(config(bed, "c2", CHECKER, 5, requests=50), clock=bed.clock,
                                   controllers=bed.controller_ips)  # it was told of the dead server, and asks
    found = RunningClient(bed.start_process("c2", CLIENT, msgspec.msgpack.encode(late))).result(60.0)
    print(f"a client that knew the dead server only: its first reply after {1e3 * found.longest_gap_s:.0f} ms")
    assert found.answered == 50 and not (found.wrong or found.errors or found.duplicated), found
    assert 0.4 < found.longest_gap_s < 2.0
    verdict = judged(shared)
    assert verdict, str(verdict)
    assert all(result.answered > 100 for result in shared)


def test_a_failure_of_either_application_loses_nothing_acknowledged_and_what_ran_alone_is_cut_off() -> None:
    inventory = inventory_of(cluster_named(EXPERIMENTS_CLUSTER, clients=2))
    store, thermostats = store_on(inventory), thermostats_on(inventory)
    with Testbed.start(TestbedOptions(EXPERIMENTS_CLUSTER, clients=2, label="failover", orchestrator="watch",
                                      deployments=(store, thermostats), fencing=True)) as both:
        for outcome in (struck(both, store, "hang", 1, StoreLoad(both, store)),
                        struck(both, thermostats, "server", 1, ThermostatLoad(both, thermostats))):
            print(outcome.row())
            assert outcome.complaints == [] and outcome.answered > 100
            assert 0.3 < outcome.outage_s < 2.0
        (name,) = (p.node for p in both.present(thermostats).places if p.number not in thermostats.replicated)
        pid = both.agent_pid(name)
        both.fail("hang", name)
        wait_for(lambda: name not in {p.node for p in both.present(thermostats).places
                                      if p.number not in thermostats.replicated})
        assert any((event.what, event.node) == ("fence", name) for event in both.asked().events())
        both.heal("hang", name)
        wait_for(lambda: life_of(both, name) == "alive" and not both.unpaired())
        assert both.agent_pid(name) != pid, "what was cut off has begun anew"


def life_of(bed: Testbed, name: str) -> str:
    return next(node.life for node in bed.asked().state().nodes if node.name == name)


def wait_for(true: Callable[[], bool], timeout_s: float = 10.0) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_without_an_orchestrator_nothing_can_be_replicated() -> None:
    with pytest.raises(ExperimentError, match="orchestrator off"):
        TestbedOptions(CLUSTER, deployments=(DEPLOYMENT,))
