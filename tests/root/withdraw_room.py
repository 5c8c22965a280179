"""What the tests of a withdrawal on packets share: two applications, their clients, and what is right."""


from experiments.clients.client import ClientConfig, ClientResult
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.running import RunningClient
from experiments.emulation.testbed import Testbed
from microservices.application import Application
from microservices.applications import nfv_fin, rta_shm
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x3"
INVENTORY = inventory_of(cluster_named(CLUSTER, clients=2))
TIMEOUT_S = 30.0


def placed(application: Application) -> Deployment:
    return deploy(application, place_in_turn(application, INVENTORY), INVENTORY)


GOING, STAYING = placed(nfv_fin(shards=3)), placed(rta_shm(shards=2))


def client(bed: Testbed, deployment: Deployment, node: str, requests: int = 0) -> RunningClient:
    number = bed.next_client_number()
    return bed.start_client(node, ClientConfig(bed.inventory.node(node).ip, number, deployment, deployment.name,
                                               requests, flows=4, window=2, seed=number, timeout_s=TIMEOUT_S))


def ended(running: RunningClient) -> ClientResult:
    running.stop()
    return running.result(TIMEOUT_S + 30.0)


def assert_all_right(result: ClientResult, least: int = 1) -> None:
    assert result.answered == result.sent >= least, result
    assert_nothing_wrong(result)


def assert_nothing_wrong(result: ClientResult) -> None:
    assert not (result.errors or result.wrong or result.lost or result.duplicated or result.foreign or result.late
                or result.unfinished), result


def counted(bed: Testbed, name: str) -> set[str]:
    """Return what agents still count for instances of an application."""
    return {f"{node}: {what}" for node, counters in bed.counters().items() for what in counters if f" {name}/" in what}


def instances(bed: Testbed) -> set[str]:
    """Return the applications that the controller believes to run somewhere."""
    return {name.partition("/")[0] for node in bed.asked().state().nodes for name in node.instances}
