"""Finds how slowly this machine must play a load to keep up with it: the time scale D of a run.

A pilot of a second or two puts the same requests on the same testbed with nothing paced: so many requests get through
in a real second, and no emulation can carry more. D is the smallest at which the offered load takes no more than
`USED_SHARE` of that, and at which the machine's own lateness is small beside the latencies that are to be measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import msgspec
import numpy as np

from experiments.clients.load import ClientConfig
from experiments.emulation.pacing import UNPACED
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits
from experiments.measurement.measuring import Plan, measure
from nodes.deployment import Deployment
from nodes.emulated_clock import MOST_TIME_SCALE

USED_SHARE = 0.5  # ours: beyond it, the queues of this machine show up beside those that are emulated
LEAST_AUTO = 1.0
SLEEPS, SLEEP_S = 200, 0.0005
PILOT = Plan(requests=3000, warm_requests=500, most_real_s=10.0)


class Capacity(msgspec.Struct, frozen=True):
    """What this machine can do, in real time: requests/s of one kind, and how late a client wakes at half of them."""

    requests_per_s: float
    late_p50_s: float
    late_p99_s: float


def time_scale_for(offered_rps: float, latency_s: float, capacity: Capacity,
                   limits: FidelityLimits = USUAL_LIMITS, shortest_s: float = math.inf) -> float:
    """Return the smallest time scale at which `offered_rps` with a mean latency of `latency_s` should hold.

    `shortest_s` is the least that a request costs on a core, where cores idle: to be in time, a process must wake
    within it. Where cores are busy, handlers run before their time, and it need not be given. The result is rounded up
    to two digits. Raises ExperimentError where there is none.
    """
    if offered_rps <= 0 or latency_s <= 0 or capacity.requests_per_s <= 0:
        raise ExperimentError(f"{offered_rps:g} requests/s at a latency of {latency_s:g} s on a machine that carries "
                              f"{capacity.requests_per_s:g}: each must be above 0")
    wanted = max(LEAST_AUTO, offered_rps / (USED_SHARE * capacity.requests_per_s),
                 capacity.late_p50_s / (limits.late_p50_share * latency_s),
                 capacity.late_p99_s / (limits.late_p99_share * latency_s),
                 capacity.late_p99_s / shortest_s)
    if wanted > MOST_TIME_SCALE:
        raise ExperimentError(f"{offered_rps:g} requests/s at a latency of {latency_s:g} s asks for a time scale of "
                              f"{wanted:.3g}; the limit is {MOST_TIME_SCALE:g}")
    unit = 10.0 ** (math.floor(math.log10(wanted)) - 1)
    return round(math.ceil(wanted / unit - 1e-9) * unit, 6)


def without_tail(limits: FidelityLimits) -> FidelityLimits:
    """Return limits to choose a time scale by where a refused run is measured again at a larger one.

    How late the latest are is hard to foresee and soon found out: a run at a time scale that is too small is short.
    """
    return msgspec.structs.replace(limits, late_p99_share=math.inf)


def wake_lateness(sleeps: int = SLEEPS, sleep_s: float = SLEEP_S) -> tuple[float, float]:
    """Return the median and the 99th percentile of how late a sleeping process wakes, in seconds."""
    late = []
    for _ in range(sleeps):
        start = time.perf_counter()
        time.sleep(sleep_s)
        late.append(time.perf_counter() - start - sleep_s)
    p50, p99 = np.percentile(late, (50, 99))
    return max(0.0, float(p50)), max(0.0, float(p99))


def capacity_of(bed: Testbed, configs: Mapping[str, ClientConfig],
                deployments: tuple[Deployment, ...] | None = None) -> Capacity:
    """Measure what this machine carries of the load `configs` with nothing paced; the testbed stays unpaced.

    Lateness is how much later than they were to requests left under USED_SHARE of that load: a run at the time scale
    that comes of it asks for no more.
    """
    if bed.pacing.speed != "unpaced" or (deployments is not None and deployments != bed.deployments):
        bed.repace(UNPACED, deployments)
    closed = {name: msgspec.structs.replace(config, rate_rps=0.0) for name, config in configs.items()}
    carried = measure(bed, closed, PILOT)
    rate_rps = USED_SHARE * carried.throughput_rps / len(configs)
    at_half = measure(bed, {name: msgspec.structs.replace(config, rate_rps=rate_rps, outstanding=0)
                            for name, config in configs.items()}, PILOT)
    behind = [client.behind for client in at_half.clients.values()]
    return Capacity(carried.throughput_rps, max(b.p50_ns for b in behind) / 1e9, max(b.p99_ns for b in behind) / 1e9)
