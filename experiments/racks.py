"""Four racks behind a fat tree: requests cross racks and pods, and ECMP spreads them over equal paths.

    core1 core2 core3 core4          two pods of two racks; two aggregations per pod, two cores per aggregation
    agg1 agg2     agg3 agg4          a flow between pods has 2 x 2 equal paths (Al-Fares et al., SIGCOMM'08)
    tor1 tor2     tor3 tor4          one Type1 server and one client per rack (sections 3.2 and 5.6)

Then links between switches are cut under traffic, gone round, and healed: fabric_cut.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from experiments.captures.pcap_routing import run as prove
from experiments.clients.client import ClientConfig
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.fabric_cut import cut_and_heal
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.scenario_timeline import Timeline
from microservices.applications import nfv_fin
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x1/4"
REQUESTS = 1500
QUICK_REQUESTS = 600
FLOWS = 64  # per client: enough to judge how flows spread over four paths


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment with each rack's client at once. Returns {"holds", "rows", ...}."""
    result_run = Run("racks")
    requests = QUICK_REQUESTS if options.quick else REQUESTS
    inventory = inventory_of(cluster_named(CLUSTER))
    application = nfv_fin(shards=4)
    deployment = deploy(application, place_in_turn(application, inventory, "smartnic"), inventory)
    with Testbed.start(TestbedOptions(CLUSTER, label="racks", deployments=(deployment,))) as bed:
        say(f"{len(inventory.switches)} switches up in {bed.started_s['total']:.1f} s; {requests} requests per client")
        captures = result_run.directory / "captures"
        capture = bed.capture(captures)
        before = bed.bucket_packets()
        running = [bed.start_client(node.name, ClientConfig(node.ip, i, deployment, application.name, requests,
                                                            flows=FLOWS, window=1, seed=i))
                   for i, node in enumerate(inventory.of_role("client"), start=1)]
        results = [client.result(120.0) for client in running]
        capture.stop()
        bed.write_bucket_packets(captures, before)
        say("cutting links between switches under traffic between the pods")
        cut_rows, timeline = cut_and_heal(bed, result_run.directory / "cut", say)
    say("proving the routing from the captures")
    proof = prove([captures])
    answered = sum(r.answered for r in results)
    bad = sum(r.lost + r.duplicated + r.wrong + r.errors for r in results)
    spread = [f"{s.group} p = {s.p_value:.3f}" for s in proof.spreads if s.p_value is not None]
    rows = [("requests answered", answered, str(requests * len(results)), answered == requests * len(results)),
            ("lost, wrong, failed or answered twice", bad, "0", bad == 0),
            ("routing proof", "holds" if proof.holds else "FAILS", "holds", proof.holds),
            ("captured packets", proof.packets, "", True)]
    rows += [(f"check: {c.name}", ", ".join(f"{n} {what}" for what, n in c.counts.items()),
              c.claim, c.verdict is not False) for c in proof.checks]
    rows.append(("flows over uplink groups (chi-square)", "; ".join(spread) or "not judged", "p not tiny",
                 all(s.p_value is None or s.p_value > 1e-4 for s in proof.spreads)))
    rows += cut_rows
    result_run.write_data([msgspec.to_builtins(b) for b in timeline.bins])
    _draw(timeline, result_run.directory)
    content = {"holds": all(ok for *_, ok in rows), "rows": [(w, str(g), n) for w, g, n, _ in rows],
               "clients": [result.content() for result in results], "proof": proof.content()}
    if content["holds"]:
        shutil.rmtree(captures)
        shutil.rmtree(result_run.directory / "cut")
    result_run.finish(content)
    return content


def _draw(timeline: Timeline, directory: Path) -> None:
    from experiments.views.timeline_plot import save_timeline

    for suffix in (".png", ".pdf"):
        save_timeline(timeline, directory / f"goodput{suffix}")
