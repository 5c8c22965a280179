"""Table 3's eight applications on one rack of real packets, every reply held against the oracle.

    c1, c2 --- [tor1] --- 3 x Type1        all eight are deployed at once; they take their turns one by one,
                                           then two by two, then many requests at a time on lossy SmartNICs

(Paper sections 3, 4; Tables 2 and 3.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.clients.client import ClientConfig, ClientResult
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from microservices.applications import APPLICATIONS, application_named
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

CLUSTER = "type1x3"
REQUESTS = 2000
QUICK_REQUESTS = 150
LOSSY_REQUESTS = 2000
LOSSY_QUICK_REQUESTS = 300
FRAME_LOSS = 0.02

TIMEOUT_S = 600.0
BAD = ("errors", "wrong", "lost", "late", "duplicated", "foreign")

Rows = list[tuple[str, str, str, bool]]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` sends fewer requests. Returns {"holds", "rows", ...}."""
    result_run = Run("rack-applications")
    inventory = inventory_of(cluster_named(CLUSTER, clients=2))
    deployments = {name: _deployed(name, inventory) for name in APPLICATIONS}
    rows: Rows = []
    clients: dict[str, Any] = {}
    bed_options = TestbedOptions(CLUSTER, clients=2, label="applications", deployments=tuple(deployments.values()))
    with Testbed.start(bed_options) as bed:
        for number, name in enumerate(APPLICATIONS, start=1):
            requests = QUICK_REQUESTS if options.quick else REQUESTS
            result = _client(bed, "c1", number, deployments[name], requests, exact=True).result(TIMEOUT_S)
            clients[name] = result.content()
            _judge(rows, f"{name} alone, exact replies", result, requests, say)
    with Testbed.start(bed_options) as bed:
        names = list(APPLICATIONS)
        for number, pair in enumerate(zip(names[::2], names[1::2], strict=True), start=20):
            requests = QUICK_REQUESTS if options.quick else REQUESTS
            running = {name: _client(bed, f"c{i}", 10 * number + i, deployments[name], requests, exact=True)
                       for i, name in enumerate(pair, start=1)}
            for name, client in running.items():
                _judge(rows, f"{name} beside {pair[name == pair[0]]}, exact replies", client.result(TIMEOUT_S),
                       requests, say)
    with Testbed.start(TestbedOptions(CLUSTER, clients=2, label="lossy", deployments=tuple(deployments.values()),
                                      frame_loss=FRAME_LOSS)) as bed:
        for number, name in enumerate(APPLICATIONS, start=500):
            requests = LOSSY_QUICK_REQUESTS if options.quick else LOSSY_REQUESTS
            result = _client(bed, "c1", number, deployments[name], requests, flows=16, window=4).result(TIMEOUT_S)
            _judge(rows, f"{name}, {FRAME_LOSS:.0%} of frames dropped", result, requests, say)
        counters = bed.counters()
    dropped = sum(c.get("dropped_on_purpose", 0) for c in counters.values())
    resent = sum(c["channel_resent"] for c in counters.values())
    rows.append(("frames that SmartNICs dropped on purpose", str(dropped), "> 0", dropped > 0))
    rows.append(("messages that nodes sent again", str(resent), "> 0", resent > 0))
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "clients": clients}
    result_run.finish(content)
    return content


def _deployed(name: str, inventory: Inventory) -> Deployment:
    application = application_named(name)
    return deploy(application, place_in_turn(application, inventory), inventory)


def _client(bed: Testbed, node: str, number: int, deployment: Deployment, requests: int, flows: int = 1,
            window: int = 1, exact: bool = False) -> Any:
    return bed.start_client(node, ClientConfig(bed.inventory.node(node).ip, number, deployment, deployment.name,
                                               requests, flows, window, seed=number, timeout_s=60.0, exact=exact))


def _judge(rows: Rows, what: str, result: ClientResult, requests: int, say: Callable[[str], None]) -> None:
    bad = {name: count for name in BAD if (count := getattr(result, name))}
    say(f"{what}: {result.answered} answered in {result.seconds:.1f} s, {result.resent} datagrams resent by the client"
        + (f"; {bad}: {result.complaints}" if bad else ""))
    got = f"{result.answered} right" + "".join(f", {count} {name}" for name, count in bad.items())
    rows.append((what, got, f"{requests} right", result.answered == requests and not bad))
