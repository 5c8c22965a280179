"""Figure 3: the unloaded round trip between microservices, by the mechanism that carries their messages (section 2.4).

    c1 --- [tor1] --- s1n1 === s1h      === PCIe; within a node, a queue in memory
              +------ s2n1 === s2h

Inputs are the round trip between hosts by kernel bypass (an assumption: the text has ratios only), section 2.4's two
ratios, and the factor of the Linux stack (an assumption). So the run shows that packets over the real switch, through
agents and PCIe links, stamped by their senders, give microservices what was put in, and what the path adds to it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from experiments.clients.echo_service import chain, lone
from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.fidelity import FidelityLimits, Verdict, combined
from experiments.measurement.measuring import Measurement, Plan, measure
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.measurement.time_scale import wake_lateness
from experiments.round_trips import MECHANISMS, Mechanism, RoundTrip, figure_data, judged, modelled_rtt_s
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import AUTO, MOST_TIME_SCALE, RunOptions
from experiments.views.figures import draw, stored
from microservices.assumptions import DEFAULTS
from nodes.communication import Communication
from nodes.deployment import Deployment, deploy

CLUSTER = "liquidio10gx2"
REPETITIONS = 3  # the paper's
PLAN, QUICK_PLAN = Plan(60, 5), Plan(30, 3)
PAYLOAD = bytes(64)
LEAST_SCALE = 1000.0
PATH_REAL_S = 0.0005  # ours: about what this path takes a frame in real time
RETRIES = 3
# A stage that costs nothing is done before its handler has really run, so overruns say nothing here. What counts is
# that a message is there before its way has passed: for the shortest one, a tenth of its chain's latency.
LIMITS = FidelityLimits(overrun_share=1.0, late_p50_share=0.04, late_p99_share=0.1, turn_p99_share=0.1)


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` measures each mechanism once. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("fig3", options)
    names = [f"{name}/rep{rep}" for rep in range(1, 1 + (1 if options.quick else REPETITIONS)) for name in MECHANISMS]
    plan = QUICK_PLAN if options.quick else PLAN
    with Testbed.start(TestbedOptions(CLUSTER, label="fig3")) as bed:
        found = measured(result_run, names, lambda name: round_trip(
            bed, MECHANISMS[name.partition("/")[0]], plan, options, say), RoundTrip, say)
    trips = list(found.values())
    rows, holds = judged(trips)
    figures = {"figure": stored("fig3", figure_data(trips))}
    result_run.write_data([_record(name, trip) for name, trip in found.items()])
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": msgspec.to_builtins(figures),
               "round_trips": msgspec.to_builtins(trips), "assumptions": msgspec.to_builtins(DEFAULTS)}
    result_run.finish(content)
    return content


def round_trip(bed: Testbed, mechanism: Mechanism, plan: Plan, options: RunOptions,
               say: Callable[[str], None]) -> RoundTrip:
    """Measure the round trip between the two nodes of `mechanism`; refused, it is tried again more slowly."""
    here, there = mechanism.here, mechanism.there
    deployments = (deploy(lone(), {0: here}, bed.inventory),
                   deploy(chain(), {0: here, 1: there, 2: here}, bed.inventory))
    wanted = options.time_scale
    scale = ample_scale(wake_lateness()[1]) if wanted is None or wanted == AUTO else float(wanted)

    def measured_at(time_scale: float) -> tuple[RoundTrip, Verdict, bool]:
        bed.repace(Pacing("calibrated", time_scale, mechanism.stack), deployments)
        single, through = (_unloaded(bed, deployment, plan) for deployment in deployments)
        verdict = combined({"lone": single.verdict, "chain": through.verdict})
        bad = {what: single.bad().get(what, 0) + through.bad().get(what, 0)
               for what in {**single.bad(), **through.bad()}}
        trip = RoundTrip(mechanism.name, time_scale, through.replies, single.latencies.mean_s, through.latencies.mean_s,
                         modelled_rtt_s(mechanism, bed.inventory, bed.pacing.assumptions), verdict.reasons, bad)
        return trip, verdict, verdict.holds

    return slowed_till_it_holds(measured_at, scale, options.retry or RETRIES,
                                lambda said: say(f"{mechanism.name}: {said}"))


def ample_scale(late_p99_s: float) -> float:
    """Return a time scale at which even a late process sends a message well within its way: 1000, or more.

    `late_p99_s` is how late this machine wakes a process, in real seconds.
    """
    way = Communication(DEFAULTS)
    shortest_s = min(way.pcie_s, 2 * way.smartnic_end_s + way.tor_s)
    return min(MOST_TIME_SCALE, max(LEAST_SCALE, float(round((late_p99_s + PATH_REAL_S) / shortest_s, -2))))


def _unloaded(bed: Testbed, deployment: Deployment, plan: Plan) -> Measurement:
    """Measure an application with one request outstanding, every reply held against what must come."""
    config = ClientConfig(bed.inventory.node("c1").ip, 1, deployment, deployment.name, flows=1, window=1,
                          payloads=(PAYLOAD,), exact=True, timeout_s=1e4)
    return measure(bed, {"c1": config}, plan, LIMITS)


def _record(name: str, trip: RoundTrip) -> dict[str, Any]:
    return {"mechanism": trip.mechanism, "run": name.rpartition("rep")[2], "rtt_us": trip.rtt_s * 1e6,
            "lone_us": trip.lone_s * 1e6, "chain_us": trip.chain_s * 1e6, "put_in_us": trip.modelled_s * 1e6,
            "requests": trip.requests, "time_scale": trip.time_scale, "holds": not trip.refused}
