"""The ToR app is killed with -9 and restarted under load: forwarding goes on, and it finds nothing to change.

    ToR app  ---x  killed            restarted: reads what the switch holds, sends only the difference (none)
    [tor1]   === forwards by what it was told, all the time ===
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from experiments.clients.client import ClientConfig
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from microservices.applications import nfv_fin
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x3"
PHASE_S = 2.0
RESTART_TIMEOUT_S = 30.0


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; no option changes it, it is short. Returns {"holds", "rows", ...}."""
    del options
    result_run = Run("controller-restart")
    inventory = inventory_of(cluster_named(CLUSTER))
    application = nfv_fin(shards=3)
    deployment = deploy(application, place_in_turn(application, inventory), inventory)
    with Testbed.start(TestbedOptions(CLUSTER, label="restart", deployments=(deployment,))) as bed:
        client = bed.start_client("c1", ClientConfig(inventory.node("c1").ip, 1, deployment, application.name,
                                                     requests=0, flows=4, window=2))
        time.sleep(PHASE_S)
        bed.kill_tor_app()
        say("the ToR app is dead")
        routed = _routed(bed)
        time.sleep(PHASE_S)
        routed_meanwhile = _routed(bed) - routed
        started = time.monotonic()
        bed.start_tor_app()
        while bed.unprogrammed():
            if time.monotonic() - started > RESTART_TIMEOUT_S:
                raise ExperimentError(f"the ToR app has not reconciled after {RESTART_TIMEOUT_S:g} s")
            time.sleep(0.05)
        took_s = time.monotonic() - started
        status = bed.tor_status()
        switch = status.of("tor1") if status else None
        say(f"it is back and has reconciled after {took_s:.1f} s")
        time.sleep(PHASE_S)
        client.stop()
        result = client.result(30.0)
        kept = _routed(bed) > routed
    bad = result.lost + result.duplicated + result.wrong + result.errors
    sent = switch.sent if switch else -1
    rows = [("requests answered", result.answered, "> 0", result.answered > 0),
            ("lost, wrong, failed or answered twice", bad, "0", bad == 0),
            ("packets routed while it was dead", routed_meanwhile, "> 0", routed_meanwhile > 0),
            ("changes that the new app sent", sent, "0", sent == 0),
            ("the switch's counters went on", "yes" if kept else "no", "yes", kept),
            ("longest time without a reply", f"{result.longest_gap_s:.3f} s", "", True)]
    content = {"holds": all(ok for *_, ok in rows), "rows": [(w, str(g), n) for w, g, n, _ in rows],
               "client": result.content(), "reconciled_after_s": took_s}
    result_run.finish(content)
    return content


def _routed(bed: Testbed) -> int:
    """Return the packets that the routes of tor1 have matched since its start."""
    return sum(c.packets for c in bed.rule_counters("tor1").values() if not c.drops)
