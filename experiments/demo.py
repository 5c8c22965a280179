"""The main job: a rack up, an application on it, every reply checked, and the routing proved from captures.

    c1 --- [tor1] --- s1n1 === s1h        NFV-FIN, unless told otherwise: flow monitor on a SmartNIC, NIDS on the next
             |------- s2n1 === s2h        server's SmartNIC, IPsec on the host of the one after; so each request
             |------- s3n1 === s3h        crosses the ToR four times and one PCIe link (paper sections 3.1, 3.2 and 4)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from controller.tor_counters import drops
from experiments.captures.pcap_routing import run as prove
from experiments.captures.routing_proof import DELIVERY, RoutingProof
from experiments.clients.client import ClientConfig, ClientResult
from experiments.clients.latencies import merged
from experiments.emulation.chosen_application import application_of, requests_of
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.pacing import UNPACED, Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.measurement.auto_time_scale import auto_time_scale
from experiments.measurement.energy import WindowPower, power_between
from experiments.measurement.fidelity import Verdict, judge
from experiments.measurement.machine_load import LoadMeter
from experiments.measurement.measuring import observed, snapshot, switch_drops
from experiments.measurement.node_power import services_of
from experiments.runs.results import Run
from microservices.measured import Column
from microservices.sharding import SLOTS
from nodes.deployment import deploy
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

TIMEOUT_S = 1000.0  # emulated; on a machine that is much too slow, the wait for the client ends first
CAPTURE_FACTOR = 2.0  # ours: captures at every port take about as much of the machine as the emulation does
# The largest request still fits one message after IPsec has put it in a tunnel.
LIMITS = {"requests": (1, 10_000_000), "clients": (1, 64), "payload_bytes": (64, 8000), "flows": (1, 1000),
          "window": (1, 64)}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """`requests` in all, shared out over the client nodes, `clients` on each rack; `where` as in first_placement.

    `app` is the name of an application or a file of the user's; `payloads` a file with a request on each line, in place
    of the application's workload. `flows` and `window` are each client's, see ClientConfig; None: 16 and 2, and with
    `payloads` 1 and 1. `time_scale` None: as small as this machine can keep up with.
    """

    cluster: str = "type1x3"
    requests: int = 12_000
    clients: int = 1
    where: str = "mixed"
    seed: int = 1
    payload_bytes: int = 512
    flows: int | None = None
    window: int | None = None
    keep_captures: bool = False
    speed: str = "calibrated"
    time_scale: float | None = None
    datapath: str = "netdev"
    app: str = "nfv-fin"
    payloads: str = ""

    def __post_init__(self) -> None:
        for name, usual in (("flows", 16), ("window", 2)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, 1 if self.payloads else usual)
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise ExperimentError(f"{name} is {value}; the limits are {least} and {most}")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What happened, and whether it is what should."""

    application: str
    checked: str
    clients: dict[str, ClientResult]
    proof: RoutingProof
    switch_drops: dict[str, dict[str, int]]
    node_drops: dict[str, dict[str, int]]
    placement: dict[str, str]
    started_s: dict[str, float]
    teaming: str
    directory: str
    time_scale: float
    verdict: Verdict
    power: WindowPower | None

    def total(self, field: str) -> int:
        return sum(getattr(result, field) for result in self.clients.values())

    @property
    def holds(self) -> bool:
        """Whether every request was answered rightly, exactly once, and the routing is proved."""
        bad = sum(self.total(f) for f in ("errors", "wrong", "lost", "late", "duplicated", "foreign"))
        return self.proof.holds and not bad and self.total("answered") == self.total("sent") > 0

    def content(self) -> dict[str, Any]:
        return {"holds": self.holds, "application": self.application, "checked": self.checked,
                "requests": self.total("sent"), "answered": self.total("answered"),
                "lost": self.total("lost"), "duplicated": self.total("duplicated"), "wrong": self.total("wrong"),
                "misrouted": self.proof.check(DELIVERY).counts["misrouted"], "captured_packets": self.proof.packets,
                "clients": {name: result.content() for name, result in self.clients.items()},
                "placement": self.placement, "teaming": self.teaming, "switch_drops": self.switch_drops,
                "node_drops": self.node_drops, "started_s": self.started_s, "proof": self.proof.content(),
                "directory": self.directory, "time_scale": self.time_scale,
                "fidelity": msgspec.to_builtins(self.verdict),
                "power": self.power.content() if self.power is not None else None}


def _set_pace(bed: Testbed, configs: dict[str, ClientConfig], time_scale: float | None,
              say: Callable[[str], None]) -> None:
    """Slow the testbed down to calibrated speed: by `time_scale` or, where that is None, by as little as will do."""
    pacing = Pacing("calibrated")
    if time_scale is None:
        load = {name: msgspec.structs.replace(config, exact=False) for name, config in configs.items()}
        time_scale = CAPTURE_FACTOR * auto_time_scale(bed, load, pacing)
        say("looked for how slowly this machine must play this load")
    bed.repace(replace(pacing, time_scale=time_scale))
    say(f"one emulated second lasts {time_scale:g} s")


def run_demo(options: DemoOptions, say: Callable[[str], None] = lambda _: None) -> DemoResult:
    """Run the demo; `say` gets a line at each step. Raises the errors of what it uses."""
    inventory = inventory_of(cluster_named(options.cluster, clients=options.clients))
    shards = max(1, len(inventory.of_role("smartnic")) or len(inventory.of_role("host")))
    application = application_of(options.app, min(shards, SLOTS), backups=0)
    assert options.flows is not None and options.window is not None  # set by DemoOptions
    sequential = len(inventory.of_role("client")) == options.flows == options.window == 1  # on all racks together
    requests = requests_of(options.app, application, Path(options.payloads) if options.payloads else None, sequential)
    nodes = place_in_turn(application, inventory, options.where)
    deployment = deploy(application, nodes, inventory)
    pacing = UNPACED if options.speed == "calibrated" else Pacing(options.speed)
    bed_options = TestbedOptions(options.cluster, clients=options.clients, label="demo", datapath=options.datapath,
                                 pacing=pacing, deployments=(deployment,))
    run = Run("demo")
    say(f"building {options.cluster}: {len(inventory.of_role('host'))} hosts, {len(inventory.of_role('smartnic'))} "
        f"SmartNICs, {len(inventory.switches)} switch(es), {len(inventory.of_role('client'))} client(s)")
    with Testbed.start(bed_options) as bed:
        names = [n.name for n in inventory.of_role("client")]
        shares = [options.requests // len(names) + (i < options.requests % len(names)) for i in range(len(names))]
        configs = {name: ClientConfig(inventory.node(name).ip, i, deployment, requests.workload, share, options.flows,
                                      options.window, options.payload_bytes, options.seed + i, timeout_s=TIMEOUT_S,
                                      payloads=requests.payloads, exact=requests.direct)
                   for i, (name, share) in enumerate(zip(names, shares, strict=True), start=1)}
        say(f"up in {bed.started_s['total']:.1f} s")
        if options.speed == "calibrated":
            _set_pace(bed, configs, options.time_scale, say)
        say(f"sending {options.requests} requests "
            f"{'from ' + options.payloads if options.payloads else f'of {options.payload_bytes} bytes'} to "
            f"{application.name} and capturing at every switch port")
        captures = run.directory / "captures"
        capture = bed.capture(captures)
        before = bed.bucket_packets()
        began, dropped = snapshot(bed), switch_drops(bed)
        meter = LoadMeter(bed.process_pids(), own_seconds=bed.cpu_seconds)
        running = {name: bed.start_client(name, config) for name, config in configs.items()}
        results = {name: client.result(timeout_s=60 + options.requests / 100) for name, client in running.items()}
        ended, machine = snapshot(bed), meter.read()
        latencies = merged([result.latencies for result in results.values()])
        verdict = judge(observed(began, ended, results, latencies, machine, switch_drops(bed) - dropped))
        power = (power_between(began, ended, inventory, Column(bed.pacing.stack.value),
                               services=services_of((deployment,)))
                 if bed.pacing.calibrated else None)
        capture.stop()
        bed.write_bucket_packets(captures, before)
        dropped_by_switch = {name: drops(bed.rule_counters(name)) for name in bed.programs}
        node_drops = {node: {k: v for k, v in counters.items() if "dropped" in k and v}
                      for node, counters in bed.counters().items()}
        started_s, teaming, time_scale = bed.started_s, bed.teaming, bed.pacing.time_scale
    say("proving the routing from the captures")
    proof = prove([captures])
    by_number = {i.number: i.name for i in application.instances}
    result = DemoResult(application.name, requests.checked, results, proof, dropped_by_switch, node_drops,
                        {by_number[number]: node for number, node in nodes.items()}, started_s, teaming,
                        str(run.directory), time_scale, verdict, power)
    if not options.keep_captures and result.holds:
        shutil.rmtree(captures)
    run.finish({"options": asdict(options), **result.content()})
    return result
