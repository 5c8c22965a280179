"""Peaks as experiments find them, made up for tests of what is said of them."""

from __future__ import annotations

from experiments.measurement.cluster_peaks import ClusterPeak
from experiments.measurement.rack_peak import RackPeak


def peak_of(application: str = "nfv-fin", cluster: str = "type1x3", rps: float = 1000.0, watts: float = 100.0,
            mean_s: float = 1e-3, holds: bool = True, bad: dict[str, int] | None = None,
            forecast: tuple[float, float] = (0.0, 0.0), cost_usd: float = 1000.0) -> ClusterPeak:
    measured = RackPeak(application, cluster, 1.0, not forecast[0], holds, "", (), (), rps, mean_s, mean_s, 2 * mean_s,
                        watts, 0.0, {}, 32, bad or {}, *forecast)
    return ClusterPeak(application, cluster, 1, ({0: "s1h"},), "the cores of s1h", rps, cost_usd, 2 * watts, measured)
