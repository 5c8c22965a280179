"""Theory against closed forms, published tables, and a small event simulation that shares nothing with it."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise

import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.measurement.queueing_theory import ClosedLoop, MDc, MMc

UTILISATIONS = (0.3, 0.6, 0.8)


def simulated_waits(arrival_rps: float, service_s: float, servers: int, arrivals: int, exponential: bool,
                    seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    times = np.cumsum(random.exponential(1 / arrival_rps, arrivals)).tolist()
    services = (random.exponential(service_s, arrivals) if exponential else np.full(arrivals, service_s)).tolist()
    free = [0.0] * servers
    waits = []
    for now, service in zip(times, services, strict=True):
        begin = max(now, heapq.heappop(free))
        waits.append(begin - now)
        heapq.heappush(free, begin + service)
    return np.array(waits[arrivals // 20:])


def simulated_loop(clients: int, service_s: float, servers: int, trip_s: float,
                   rounds: int = 400) -> tuple[float, float]:
    """Return throughput and mean latency of the last half of a closed loop whose clients all begin at once."""
    arrivals = [(0.0, i) for i in range(clients)]
    free = [0.0] * servers
    ends: list[tuple[float, float]] = []
    for _ in range(rounds * clients):
        came, who = heapq.heappop(arrivals)
        done = max(came, heapq.heappop(free)) + service_s
        heapq.heappush(free, done)
        heapq.heappush(arrivals, (done + trip_s, who))
        ends.append((done, done - came + trip_s))
    half = ends[len(ends) // 2:]
    return (len(half) - 1) / (half[-1][0] - half[0][0]), sum(latency for _, latency in half) / len(half)


@pytest.mark.parametrize("utilisation", [0.05, 0.3, 0.6, 0.8, 0.95])
def test_m_d_1_is_pollaczek_and_khinchine_and_m_m_1_twice_that(utilisation: float) -> None:
    exact = utilisation * 2e-3 / (2 * (1 - utilisation))
    assert MDc(utilisation / 2e-3, 2e-3, 1).mean_wait_s() == pytest.approx(exact, rel=1e-9)
    assert MMc(utilisation / 2e-3, 2e-3, 1).mean_wait_s() == pytest.approx(2 * exact, rel=1e-9)


# Exact values from their definitions: Erlang C as a sum of factorials.
@pytest.mark.parametrize(("servers", "load"), [(2, 1.0), (5, 4.0), (12, 9.6), (48, 40.0)])
def test_m_m_c_waits_with_erlangs_c(servers: int, load: float) -> None:
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    erlang_c = last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)
    queue = MMc(load, 1.0, servers)
    assert queue.wait_probability() == pytest.approx(erlang_c, rel=1e-12)
    assert queue.mean_wait_s() == pytest.approx(erlang_c / (servers - load), rel=1e-12)
    assert queue.wait_quantile_s(1 - erlang_c * math.exp(-1)) == pytest.approx(1 / (servers - load), rel=1e-9)


@pytest.mark.parametrize("servers", [1, 2, 5, 12, 48])
@pytest.mark.parametrize("utilisation", UTILISATIONS)
def test_the_two_ways_to_the_mean_of_m_d_c_agree(servers: int, utilisation: float) -> None:
    """The roots of the generating function, and the integral of the waiting time's distribution."""
    queue = MDc(utilisation * servers, 1.0, servers)
    grid = np.linspace(0.0, 40.0 / servers + 2.0, 4001)
    beyond = np.array([1 - queue.wait_below(float(x)) for x in grid])
    assert queue.mean_wait_s() == pytest.approx(np.trapezoid(beyond, grid), rel=2e-3, abs=1e-7)


@pytest.mark.parametrize("servers", [1, 2, 12])
@pytest.mark.parametrize("utilisation", UTILISATIONS)
def test_m_d_c_and_m_m_c_are_what_a_simulation_finds(servers: int, utilisation: float) -> None:
    rate = utilisation * servers / 1e-3
    for queue, exponential in ((MDc(rate, 1e-3, servers), False), (MMc(rate, 1e-3, servers), True)):
        waits = np.concatenate([simulated_waits(rate, 1e-3, servers, 100_000, exponential, seed) for seed in range(6)])
        assert queue.mean_wait_s() == pytest.approx(waits.mean(), rel=0.05, abs=1e-6)
        for share in (0.5, 0.9, 0.99):
            assert queue.wait_quantile_s(share) == pytest.approx(np.quantile(waits, share), rel=0.06, abs=1e-5)


@pytest.mark.parametrize("servers", [2, 5, 12])
@pytest.mark.parametrize("utilisation", [0.7, 0.8, 0.9, 0.95])
def test_m_d_c_is_near_the_published_approximation_of_cosmetatos(servers: int, utilisation: float) -> None:
    """G. P. Cosmetatos 1975: the mean wait of M/D/c as a multiple of that of M/M/c, good in heavy traffic."""
    factor = 0.5 * (1 + (1 - utilisation) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) /
                    (16 * utilisation * servers))
    rate = utilisation * servers
    ratio = MDc(rate, 1.0, servers).mean_wait_s() / MMc(rate, 1.0, servers).mean_wait_s()
    assert ratio == pytest.approx(factor, rel=0.02)


def test_m_d_1_has_erlangs_own_distribution() -> None:
    """Erlang's formula of 1909 for one server: alternating sums, exact while they are short."""
    rho = 0.7
    queue = MDc(rho, 1.0, 1)
    for wait in (0.0, 0.3, 1.0, 1.7, 3.2, 5.0):
        exact = (1 - rho) * sum((-rho * (wait - k)) ** k / math.factorial(k) * math.exp(rho * (wait - k))
                                for k in range(int(wait) + 1))
        assert queue.wait_below(wait) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("servers", [1, 3, 12])
def test_a_distribution_rises_from_the_share_that_does_not_wait_to_one(servers: int) -> None:
    queue = MDc(0.9 * servers, 1.0, servers)
    grid = [queue.wait_below(x / 20) for x in range(-1, 400)]
    assert grid[0] == 0 and all(a <= b + 1e-12 for a, b in pairwise(grid)) and grid[-1] > 0.98
    assert queue.wait_quantile_s(grid[1] / 2) == 0.0
    assert queue.wait_below(queue.wait_quantile_s(0.99)) == pytest.approx(0.99, abs=1e-6)


def test_constant_service_waits_about_half_as_long_in_heavy_traffic() -> None:
    for servers in (1, 4, 12):
        rate = 0.98 * servers
        half = MMc(rate, 1.0, servers).mean_wait_s() / 2
        assert MDc(rate, 1.0, servers).mean_wait_s() == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize(("clients", "servers", "trip_s"), [
    (1, 1, 0.0), (1, 12, 5.0), (3, 2, 0.5), (3, 2, 0.6), (3, 2, 0.7), (5, 2, 1.3), (7, 3, 0.9), (40, 12, 2.5),
    (41, 12, 2.5), (42, 12, 2.5), (43, 12, 2.5), (200, 12, 2.5), (13, 4, 2.7)])
def test_a_closed_loop_settles_at_the_operational_bounds(clients: int, servers: int, trip_s: float) -> None:
    loop = ClosedLoop(clients, 1.0, servers, trip_s)
    throughput, latency = simulated_loop(clients, 1.0, servers, trip_s)
    assert loop.throughput_rps() == pytest.approx(throughput, rel=0.01)
    assert loop.latency_s() == pytest.approx(latency, rel=0.01)
    assert loop.wait_s() >= -1e-12 and (loop.wait_s() > 1e-9) == (clients > loop.knee_clients)


@pytest.mark.parametrize("numbers", [(1.0, 1.0, 1), (2.1, 1.0, 2), (0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0)])
def test_a_queue_that_is_not_stable_or_no_queue_is_refused(numbers: tuple[float, float, int]) -> None:
    with pytest.raises(ExperimentError):
        MDc(*numbers)


def test_too_near_to_one_is_refused_with_the_limit() -> None:
    with pytest.raises(ExperimentError, match=r"0\.9999 of 12 servers: \d+ states matter, and 6000"):
        MDc(0.9999 * 12, 1.0, 12).wait_below(1.0)
    assert MDc(0.9999 * 12, 1.0, 12).mean_wait_s() > 100
    with pytest.raises(ExperimentError, match="quantile at 1"):
        MDc(0.5, 1.0, 1).wait_quantile_s(1.0)
    with pytest.raises(ExperimentError, match="0 clients"):
        ClosedLoop(0, 1.0, 1, 1.0)
