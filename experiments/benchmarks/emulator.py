"""How much emulation this machine carries: NFV-FIN on 3 x Type1, and what bounds it, component by component.

    c1 --- [tor1] --- s1n1, s2n1, s3n1      each request stays on one SmartNIC: monitor, NIDS, IPsec, reply

First with nothing paced, for requests per real second and where its CPU time goes; then at the peak that the SmartNICs'
cores allow, at smaller and smaller time scales, till the fidelity verdict refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.measurement.measuring import Measurement, Plan, measure
from experiments.measurement.peak import shared_out
from experiments.measurement.time_scale import capacity_of
from microservices.applications import application_named
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of

CLUSTER, APPLICATION = "type1x3", "nfv-fin"
OUTSTANDING = 128  # enough to keep the cores of the SmartNIC with most flows busy
PLAN = Plan(requests=8000, warm_requests=1500)
TIME_SCALES = (800.0, 400.0, 320.0, 260.0, 210.0, 170.0, 140.0, 110.0, 90.0, 75.0)
ATTEMPTS = 2  # at each: one pause of the machine is not its limit
MOST_TIME_SCALE = 400.0
COLUMNS = ("what", "value", "share", "wanted")


@dataclass(frozen=True, slots=True)
class Row:
    """One figure; `share` is of the CPU time, where it is CPU time."""

    what: str
    value: str
    share: str = ""
    wanted: str = ""
    holds: bool = True

    def values(self) -> tuple[str, str, str, str]:
        return self.what, self.value, self.share, self.wanted


def measure_emulator(say: Callable[[str], None]) -> list[Row]:
    """Run the benchmark; raises the testbed's errors."""
    inventory = inventory_of(cluster_named(CLUSTER))
    deployment = deployment_of(inventory)
    configs = {"c1": ClientConfig(inventory.node("c1").ip, 1, deployment, APPLICATION, timeout_s=1e4)}
    with Testbed.start(TestbedOptions(CLUSTER, label="bench", deployments=(deployment,))) as bed:
        capacity = capacity_of(bed, shared_out(configs, OUTSTANDING))
        say(f"nothing paced: {capacity.requests_per_s:,.0f} requests per real second")
        best: Measurement | None = None
        for scale in TIME_SCALES:
            bed.repace(Pacing("calibrated", scale))
            found = _held(bed, configs, say)
            if found is None:
                break
            best = found
    rows = [Row("requests per real second, nothing paced", f"{capacity.requests_per_s:,.0f}"),
            Row("lateness of clients at half of that, p50 / p99",
                f"{capacity.late_p50_s * 1e3:.2f} / {capacity.late_p99_s * 1e3:.2f} ms")]
    if best is None:
        return [*rows, Row("smallest time scale that holds", f"none up to {TIME_SCALES[0]:g}", "",
                           f"<= {MOST_TIME_SCALE:g}", False)]
    rows += [Row("smallest time scale that holds", f"{best.time_scale:g}", "", f"<= {MOST_TIME_SCALE:g}",
                 best.time_scale <= MOST_TIME_SCALE),
             Row("  requests per emulated second there", f"{best.throughput_rps:,.0f}"),
             Row("  requests per real second there", f"{best.throughput_rps / best.time_scale:,.0f}"),
             Row("  mean latency, p99", f"{best.latencies.mean_s * 1e6:.1f} us, {best.latencies.p99_s * 1e6:.1f} us"),
             Row("  CPU of the machine", f"{best.machine.machine_cpu:.0%}")]
    return [*rows, *_profile(best)]


def deployment_of(inventory: Inventory) -> Deployment:
    """Place shard i of every stage on SmartNIC i: the stages are aligned, so no request crosses the ToR in between."""
    application = application_named(APPLICATION)
    nics = [node.name for node in inventory.of_role("smartnic")]
    return deploy(application, {i.number: nics[i.shard % len(nics)] for i in application.instances if not i.backup},
                  inventory)


def _held(bed: Testbed, configs: dict[str, ClientConfig], say: Callable[[str], None]) -> Measurement | None:
    for _ in range(ATTEMPTS):
        found = measure(bed, shared_out(configs, OUTSTANDING), PLAN)
        verdict = "holds" if found.verdict.holds else f"refused: {found.verdict.reasons[0]}"
        say(f"time scale {found.time_scale:g}: {found.throughput_rps:,.0f} requests per emulated second, "
            f"{found.throughput_rps / found.time_scale:,.0f} per real second; {verdict}")
        if found.verdict.holds:
            return found
    return None


def _profile(found: Measurement) -> list[Row]:
    """Return CPU time per request by component, from the processes' own accounts and the handlers' stopwatch."""
    per_s = found.throughput_rps / found.time_scale  # requests per real second
    shares = dict(found.machine.processes)
    switch = shares.pop("the switch", 0.0)
    clients = sum(shares.pop(name, 0.0) for name in found.clients)
    window_s = sum(found.node_window_s(node) for node in found.after) / len(found.after)
    handlers = sum(found.delta(node, "computing_ns") for node in found.after) / 1e9 / window_s
    agents = sum(shares.values()) - handlers
    total = switch + clients + agents + handlers
    return [Row(f"  CPU per request: {what}", f"{share / per_s * 1e6:.1f} us", f"{share / total:.0%}")
            for what, share in (("switch", switch), ("agents", agents), ("handlers", handlers), ("clients", clients),
                                ("all", total))]
