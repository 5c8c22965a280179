"""How fast the simulated driver plays: requests and events per real second, of the load of the emulator's benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from experiments.benchmarks.emulator import APPLICATION, CLUSTER, OUTSTANDING, Row, deployment_of
from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import TestbedOptions
from experiments.measurement.measuring import Plan
from experiments.measurement.peak import in_closed_loop
from experiments.measurement.simulated_bed import SimulatedBed

REQUESTS = 10_000
TIMEOUT_S = 1e4


class SimulatedSpeed(msgspec.Struct, frozen=True):
    """Per real second, but for `emulated_rps`: what the simulated rack carries per second of its own time."""

    requests_per_s: float
    events_per_s: float
    datagrams_per_s: float
    emulated_rps: float

    @property
    def time_scale(self) -> float:
        """How many real seconds a virtual one took: what a testbed's time scale is to be compared with."""
        return self.emulated_rps / self.requests_per_s

    def rows(self) -> list[Row]:
        """Return what the emulator's benchmark shows."""
        return [Row("simulated driver: requests per real second", f"{self.requests_per_s:,.0f}"),
                Row("  events per real second", f"{self.events_per_s:,.0f}"),
                Row("  requests per virtual second", f"{self.emulated_rps:,.0f}"),
                Row("  real seconds per virtual second", f"{self.time_scale:.0f}")]


def measure_simulated(say: Callable[[str], None] = lambda _: None, requests: int = REQUESTS) -> SimulatedSpeed:
    """Play `requests` and time it, without the making of microservices and requests, as on packets."""
    bed = SimulatedBed(TestbedOptions(CLUSTER, pacing=Pacing("calibrated")))
    deployment = deployment_of(bed.inventory)
    bed.repace(bed.pacing, (deployment,))
    config = ClientConfig(bed.inventory.node("c1").ip, 1, deployment, APPLICATION, timeout_s=TIMEOUT_S)
    run = bed.begin({"c1": in_closed_loop(config, OUTSTANDING)})
    say(f"{requests} requests of {APPLICATION} on {CLUSTER} in virtual time")
    began, events, datagrams = time.perf_counter(), run.events, run.datagrams
    found = run.measured(Plan(requests, 0))
    took_s = time.perf_counter() - began
    return SimulatedSpeed(found.replies / took_s, (run.events - events) / took_s,
                          (run.datagrams - datagrams) / took_s, found.throughput_rps)
