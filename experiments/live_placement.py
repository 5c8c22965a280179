"""Placement from live state: two applications, one after the other, on a rack that runs; then a server dies.

    c1 --- [tor1] --- s1n1 === s1h      RTA-PTC is placed on an empty rack, IOT-DH onto what that leaves. Then the
             |------- s2n1 === s2h      power of the server that holds most of the first is cut: what was there is
             |------- s3n1 === s3h      placed anew, and nothing else moves

(Section 3.3: placement works from currently available resources and runtime statistics.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from controller.placement.ceiling import ceiling_rps
from controller.placement.diagnosis import violations
from experiments.clients.client import ClientConfig, ClientResult
from experiments.emulation.live_rack import LiveRack
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from microservices.applications import application_named
from nodes.deployment import Deployment

CLUSTER = "type1x3"
FIRST, SECOND = "rta-ptc", "iot-dh"
SHARE = 0.25  # of what the empty rack could serve at most: room for both, and for the first without one server
TIME_SCALE = 50.0
REQUESTS, QUICK_REQUESTS = 1000, 200
TIMEOUT_S = 120.0

Rows = list[tuple[str, str, str, bool]]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment. Returns {"holds", "rows", ...}."""
    result_run = Run("live-placement")
    requests = QUICK_REQUESTS if options.quick else REQUESTS
    rows: Rows = []
    pacing = Pacing("calibrated", TIME_SCALE)
    with Testbed.start(TestbedOptions(CLUSTER, label="live-placement", pacing=pacing)) as bed:
        rack = LiveRack(bed)
        for number, name in enumerate((FIRST, SECOND), start=1):
            application = application_named(name)
            placed = rack.deploy(application, SHARE * ceiling_rps(application, rack.state))
            say(f"{name}: {_by_node(rack.deployments[name])}")
            broken = violations(placed.demand, placed.where, rack.state)
            rows.append((f"{name} is placed on the running rack", f"{len(broken)} constraints violated", "0",
                         not broken))
            _judge(rows, f"{name} answers", _client(bed, rack.deployments[name], number, requests), requests)
        first, second = (rack.deployments[name] for name in (FIRST, SECOND))
        same = _by_node(first) == _by_node(second)
        rows.append(("the two stand differently", "no" if same else "yes", "yes", not same))
        agents = dict(bed.agents)
        fullest = Counter(place.node for place in first.places).most_common(1)[0][0]
        host = bed.inventory.host_of(bed.inventory.node(fullest)).name
        gone = set(rack.fail_server(host))
        before = {name: _where(d) for name, d in rack.deployments.items()}
        changed = rack.replace_lost()
        after = {name: _where(d) for name, d in rack.deployments.items()}
        lost = sum(node in gone for where in before.values() for node in where.values())
        moved = {name: [n for n, node in before[name].items() if node != after[name][n]] for name in before}
        stayed = all(before[name][n] in gone for name, numbers in moved.items() for n in numbers)
        say(f"the server of {host} died with {lost} instances of {', '.join(changed)}; they are now on "
            f"{_by_node(rack.deployments[FIRST])}")
        rows += [("instances on the dead server", str(lost), "> 0", lost > 0),
                 ("of them placed anew on the living", str(sum(map(len, moved.values()))), str(lost),
                  sum(map(len, moved.values())) == lost
                  and not any(node in gone for where in after.values() for node in where.values())),
                 ("instances moved that need not", str(0 if stayed else "some"), "0", stayed),
                 ("agents restarted", str(sum(bed.agents[n] != a for n, a in agents.items())), "0",
                  bed.agents == agents)]
        for number, name in enumerate((FIRST, SECOND), start=3):
            _judge(rows, f"{name} answers without that server",
                   _client(bed, rack.deployments[name], number, requests), requests)
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "before": _named(before),
               "after": _named(after)}
    result_run.finish(content)
    return content


def _where(deployment: Deployment) -> dict[int, str]:
    return {place.number: place.node for place in deployment.places}


def _named(found: dict[str, dict[int, str]]) -> dict[str, dict[str, str]]:
    return {name: {str(number): node for number, node in where.items()} for name, where in found.items()}


def _by_node(deployment: Deployment) -> dict[str, int]:
    return dict(sorted(Counter(place.node for place in deployment.places).items()))


def _client(bed: Testbed, deployment: Deployment, number: int, requests: int) -> ClientResult:
    config = ClientConfig(bed.inventory.node("c1").ip, number, deployment, deployment.name, requests, 8, 2,
                          seed=number, timeout_s=1e3)
    return bed.start_client("c1", config).result(TIMEOUT_S)


def _judge(rows: Rows, what: str, result: ClientResult, requests: int) -> None:
    bad = {name: count for name in ("errors", "wrong", "lost", "late", "duplicated", "foreign")
           if (count := getattr(result, name))}
    rows.append((what, f"{result.answered} right" + "".join(f", {count} {name}" for name, count in bad.items()),
                 f"{requests} right", result.answered == requests and not bad))
