"""Section 5.5's cost efficiency: requests per dollar of purchase and electricity, over a time of ownership.

    throughput x T / (CAPEX + power x T x electricity)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from experiments.errors import ExperimentError

USD_PER_KWH = 0.0733  # section 5.5: "the average U.S. electricity price"
SECONDS_PER_HOUR = 3600
HOURS_PER_YEAR = 365 * 24
WATTS_PER_KILOWATT = 1000


@dataclass(frozen=True, slots=True)
class Ownership:
    """What a cluster costs to buy and what it draws at the wall: `cost_usd`, `power_watts`."""

    cost_usd: float
    power_watts: float

    def __post_init__(self) -> None:
        for name in ("cost_usd", "power_watts"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise ExperimentError(f"{name} is {value}; the least is 0")

    def electricity_usd(self, hours: float, usd_per_kwh: float = USD_PER_KWH) -> float:
        """Return what the electricity for so many hours costs."""
        return self.power_watts / WATTS_PER_KILOWATT * hours * usd_per_kwh

    def requests_per_usd(self, throughput_rps: float, years: float, usd_per_kwh: float = USD_PER_KWH) -> float:
        """Return the requests served per dollar spent, after so many years at this throughput and power.

        Raises ExperimentError for a negative argument, or where nothing is spent at all.
        """
        for name, value in (("throughput_rps", throughput_rps), ("years", years), ("usd_per_kwh", usd_per_kwh)):
            if not (isfinite(value) and value >= 0):
                raise ExperimentError(f"{name} is {value}; the least is 0")
        hours = years * HOURS_PER_YEAR
        spent_usd = self.cost_usd + self.electricity_usd(hours, usd_per_kwh)
        if spent_usd == 0:
            raise ExperimentError("nothing is spent: cost efficiency needs a price or power above 0")
        return throughput_rps * hours * SECONDS_PER_HOUR / spent_usd

    def over_time(self, throughput_rps: float, years: Sequence[float],
                  usd_per_kwh: float = USD_PER_KWH) -> list[tuple[float, float]]:
        """Return (years, requests per dollar) for each time of ownership, as Figure 10 draws it."""
        return [(each, self.requests_per_usd(throughput_rps, each, usd_per_kwh)) for each in years]
