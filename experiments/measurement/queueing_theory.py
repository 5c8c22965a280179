"""What theory says of the queues that are emulated: M/D/c, open, and D/D/c with a fixed number of clients.

Waits are in the unit of `service_s`, from arrival to the start of service; a sojourn adds the service. All first come,
first served. The mean of M/D/c is that of the discrete bulk service queue by its roots, as in A. J. E. M. Janssen and
J. S. H. van Leeuwaarden, "Analytic computation schemes for the discrete-time bulk service queue", Queueing Systems 50
(2005).
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass

from experiments.errors import ExperimentError


@dataclass(frozen=True, slots=True)
class MDc:
    """`servers` servers of constant service time `service_s`, and Poisson arrivals at `arrival_rps`."""

    arrival_rps: float
    service_s: float
    servers: int

    def __post_init__(self) -> None:
        if not (self.arrival_rps > 0 and self.service_s > 0 and self.servers >= 1):
            raise ExperimentError(f"{self.arrival_rps:g} arrivals/s, {self.service_s:g} s and {self.servers} servers: "
                                  "all must be above 0")
        if self.utilisation >= 1:
            raise ExperimentError(f"utilisation {self.utilisation:.4g}: a queue is stable below 1")

    @property
    def load(self) -> float:
        """Work that arrives per unit of time, in servers (Erlang)."""
        return self.arrival_rps * self.service_s

    @property
    def utilisation(self) -> float:
        return self.load / self.servers

    def mean_wait_s(self) -> float:
        """Return the mean wait, exactly: the mean number in the system, by Little's law, without those in service.

        Seen every `service_s`, the number goes from L to max(L - c, 0) + Poisson(a), a being the load. Its mean is
        (a / (c - a) + a - c + 1) / 2 + sum of 1 / (1 - z), over the c - 1 roots z inside the unit circle of z^c =
        exp(a (z - 1)).
        """
        a, c = self.load, self.servers
        roots = sum(1 / (1 - z) for z in _roots(a, c))
        in_system = (a / (c - a) + a - c + 1) / 2 + roots.real
        return max(0.0, (in_system - a) / self.arrival_rps)


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """D/D/c: `clients` requests that, answered, come again after `trip_s`; each takes `service_s` on one server.

    `trip_s` is all the constant time outside the servers. Of the state that the loop settles in.
    """

    clients: int
    service_s: float
    servers: int
    trip_s: float

    def __post_init__(self) -> None:
        if not (self.clients >= 1 and self.servers >= 1 and self.service_s > 0 and self.trip_s >= 0):
            raise ExperimentError(f"{self.clients} clients, {self.servers} servers, {self.service_s:g} s of service, "
                                  f"{self.trip_s:g} s of trip: the least are 1, 1, above 0, and 0")

    def throughput_rps(self) -> float:
        return min(self.clients / (self.trip_s + self.service_s), self.servers / self.service_s)

    def latency_s(self) -> float:
        """Return the time from request to reply, as a client sees it."""
        return self.clients / self.throughput_rps()


def _roots(load: float, servers: int) -> list[complex]:
    """Return the roots of z^c = exp(a (z - 1)) inside the unit circle, without 1 itself: one per c-th root of unity."""
    found = []
    for k in range(1, servers):
        unit = cmath.exp(2j * math.pi * k / servers)
        z = unit * math.exp(-load / servers)
        for _ in range(200):  # Newton on z = unit * exp(a (z - 1) / c)
            image = unit * cmath.exp(load * (z - 1) / servers)
            step = (z - image) / (1 - load / servers * image)
            z -= step
            if abs(step) < 1e-15:
                break
        found.append(z)
    return found
