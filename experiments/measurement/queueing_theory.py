"""What theory says of the queues that are emulated: M/D/c and M/M/c, open, and D/D/c with a fixed number of clients.

Waits are in the unit of `service_s`, from arrival to the start of service; a sojourn adds the service. All first come,
first served. Sources: A. K. Erlang 1917 for M/M/c. C. D. Crommelin 1932 and, for the numerically stable form of the
distribution of M/D/c, G. J. Franx, "A simple solution for the M/D/c waiting time distribution", Operations Research
Letters 29 (2001); so also H. C. Tijms, A First Course in Stochastic Models (2003), section 9.6.2. The mean of M/D/c is
that of the discrete bulk service queue by its roots, as in A. J. E. M. Janssen and J. S. H. van Leeuwaarden, "Analytic
computation schemes for the discrete-time bulk service queue", Queueing Systems 50 (2005).
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import poisson

from experiments.errors import ExperimentError

MOST_STATES = 6000  # of M/D/c: a linear system of that size takes seconds
TAIL = 1e-13  # of the distribution of the number in the system, which is left out


@dataclass(frozen=True, slots=True)
class OpenQueue:
    """`servers` servers of constant or mean service time `service_s`, and Poisson arrivals at `arrival_rps`."""

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


class MMc(OpenQueue):
    """Exponential service."""

    __slots__ = ()

    def wait_probability(self) -> float:
        """Return the share of arrivals that must wait (Erlang's C formula, by the recursion of his B)."""
        blocked = 1.0
        for servers in range(1, self.servers + 1):
            blocked = self.load * blocked / (servers + self.load * blocked)
        return blocked / (1 - self.utilisation * (1 - blocked))

    def mean_wait_s(self) -> float:
        return self.wait_probability() * self.service_s / (self.servers - self.load)

    def wait_quantile_s(self, share: float) -> float:
        """Return the wait that `share` (0 to 1) of the arrivals do not exceed."""
        _checked_share(share)
        beyond = self.wait_probability() / (1 - share)
        return max(0.0, math.log(beyond)) * self.service_s / (self.servers - self.load)


class MDc(OpenQueue):
    """Constant service."""

    __slots__ = ()

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

    def wait_below(self, wait_s: float) -> float:
        """Return the share of arrivals that wait at most `wait_s` (Franx, theorem 1; all terms are positive)."""
        if wait_s < 0:
            return 0.0
        c = self.servers
        k = int(wait_s / self.service_s) + 1
        rest = self.arrival_rps * max(0.0, k * self.service_s - wait_s)
        queued = np.cumsum(_states(self.load, c))[c:]  # queued[m]: at most m wait
        at_most = np.ones(k * c)
        known = min(k * c, len(queued))
        at_most[:known] = queued[:known]
        return min(1.0, float(poisson.pmf(np.arange(k * c), rest) @ at_most[::-1]))

    def wait_quantile_s(self, share: float) -> float:
        """Return the wait that `share` (0 to 1) of the arrivals do not exceed."""
        _checked_share(share)
        if self.wait_below(0.0) >= share:
            return 0.0
        most = self.service_s
        while self.wait_below(most) < share:
            most *= 2
        return float(brentq(lambda wait_s: self.wait_below(wait_s) - share, 0.0, most, xtol=1e-9 * self.service_s))


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

    @property
    def knee_clients(self) -> float:
        """The number of clients at which the servers are just busy: N* of the operational bounds."""
        return self.servers * (self.trip_s + self.service_s) / self.service_s

    def throughput_rps(self) -> float:
        return min(self.clients / (self.trip_s + self.service_s), self.servers / self.service_s)

    def latency_s(self) -> float:
        """Return the time from request to reply, as a client sees it."""
        return self.clients / self.throughput_rps()

    def wait_s(self) -> float:
        return self.latency_s() - self.trip_s - self.service_s


def _checked_share(share: float) -> None:
    if not 0 <= share < 1:
        raise ExperimentError(f"a quantile at {share:g}; it must be from 0 to below 1")


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


@lru_cache(maxsize=64)
def _states(load: float, servers: int) -> NDArray[np.float64]:
    """Return the probabilities of 0, 1, ... in an M/D/c system, to a tail of TAIL.

    Crommelin's equations: p_j = sum over i of p_i P(Poisson(a) = j - max(i - c, 0)).
    """
    size = _size(load, servers)
    arrivals = poisson.pmf(np.arange(size + 1), load)
    step = np.zeros((size, size))
    for i in range(size):
        left = max(i - servers, 0)
        step[left:, i] = arrivals[:size - left]
    step[-1] += 1 - step.sum(axis=0)  # what would go beyond stays at the end
    equations = step - np.eye(size)
    equations[0] = 1.0  # in place of one that follows from the others
    right = np.zeros(size)
    right[0] = 1.0
    return np.clip(np.linalg.solve(equations, right), 0.0, None)


def _size(load: float, servers: int) -> int:
    """Return how many states matter: p_j falls like tau^-j, tau > 1 being the real root of exp(a (tau - 1)) = tau^c."""
    def gap(log_tau: float) -> float:
        return load * math.expm1(log_tau) - servers * log_tau

    low = high = math.log(servers / load)  # where the gap is least, and below 0
    while gap(high) < 0:
        high *= 2
    log_tau = float(brentq(gap, low, high))
    size = 2 * servers + int(load + 10 * math.sqrt(load)) + int(-math.log(TAIL) / log_tau) + 20
    if size > MOST_STATES:
        raise ExperimentError(f"utilisation {load / servers:.6g} of {servers} servers: {size} states matter, and "
                              f"{MOST_STATES} are the most that are solved")
    return size
