"""The peak of a deployment: the knee of its closed loop, found on packets or in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from experiments.clients.load import ClientConfig
from experiments.emulation.testbed import Testbed
from experiments.measurement.fidelity import USUAL_LIMITS, FidelityLimits
from experiments.measurement.knee import Knee, Probe, closed_loop, confirmed, found_by
from experiments.measurement.measuring import USUAL_PLAN, Measurement, Plan
from experiments.measurement.simulated_bed import SimulatedBed, measured_on

MOST_FLOWS = 32  # UDP ports of one client; beyond it, a port has several requests outstanding
POOL = 2048
# Requests that go to a slow part pile up there till most of those outstanding wait for it: only then is the throughput
# that of the slowest part. So long, in numbers of requests outstanding, is waited first, and measured then. A part that
# gets a share p of the requests, and alone would hold all others back to r of what they can, has N of them waiting
# after N / (p (1 - r)): with three SmartNICs, of which one gets 0.39 of the keys in place of a third, after 17 N. What
# takes hundreds at once has many cores, and much the same comes to each: there no more than MOST_WARM is waited for the
# sake of this, but always as long as is measured.
WARM_WINDOWS, WINDOWS, MOST_WARM = 16, 4, 8192
RESOLUTION, QUICK_RESOLUTION = 0.03, 0.1  # of the number outstanding at the knee
CHECK_EVERY = 16


def in_closed_loop(config: ClientConfig, outstanding: int) -> ClientConfig:
    """Return `config` with `outstanding` requests under way, from a pool made before the start."""
    return msgspec.structs.replace(config, outstanding=outstanding, flows=min(outstanding, MOST_FLOWS), rate_rps=0.0,
                                   pool=POOL, check_every=CHECK_EVERY)


def shared_out(configs: Mapping[str, ClientConfig], outstanding: int) -> dict[str, ClientConfig]:
    """Return the clients with their shares of `outstanding` requests; one that would have none stays away."""
    share, more = divmod(outstanding, len(configs))
    return {name: in_closed_loop(config, share + (i < more))
            for i, (name, config) in enumerate(configs.items()) if share + (i < more)}


def settled(plan: Plan, outstanding: float) -> Plan:
    """Return `plan`, made longer where so many requests outstanding take longer to settle."""
    window = int(WINDOWS * outstanding)
    return Plan(max(plan.requests, window),
                max(plan.warm_requests, window, min(int(WARM_WINDOWS * outstanding), MOST_WARM)), plan.most_real_s)


@dataclass(slots=True)
class Peak:
    """The knee, and the measurement at it; None where no knee is to be trusted."""

    knee: Knee
    measured: dict[float, Measurement] = field(default_factory=dict)

    @property
    def measurement(self) -> Measurement | None:
        return self.measured[self.knee.probe.load] if self.knee.probe is not None else None


def find_peak(bed: Testbed | SimulatedBed, configs: Mapping[str, ClientConfig], first: int, most: int,
              plan: Plan = USUAL_PLAN, limits: FidelityLimits = USUAL_LIMITS,
              say: Callable[[str], None] = lambda _: None, resolution: float = RESOLUTION,
              expected: Knee | None = None) -> Peak:
    """Search the closed loop's knee from `first` outstanding requests on; `say` hears of every probe.

    The knee's number of outstanding requests is found to `resolution` of it, its throughput to what that changes. A
    knee that is `expected`, from virtual time, is confirmed, or else searched around where it should be. On packets, as
    in virtual time, each probe begins with nothing under way and nothing in memory: what the probe before had not
    finished, twice as much as at the knee or more, would be served first.
    """
    measured: dict[float, Measurement] = {}

    def probe(load: float) -> Probe:
        if measured and isinstance(bed, Testbed):
            bed.repace(bed.pacing)
        found = measured_on(bed, shared_out(configs, int(load)), settled(plan, load), limits)
        measured[load] = found
        said = Probe(load, found.throughput_rps, found.latencies, found.verdict)
        refused = "" if found.verdict.holds else f"; refused: {found.verdict.reasons[0]}"
        say(f"{load:g} outstanding: {found.throughput_rps:,.0f} requests/s, mean {found.latencies.mean_s * 1e3:.4g} ms"
            + refused)
        return said

    search = (closed_loop(first, most, resolution=resolution) if expected is None else
              confirmed(expected, most, resolution=resolution))
    return Peak(found_by(search, probe), measured)
