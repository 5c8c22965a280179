"""Theory against closed forms, published tables, and a small event simulation that shares nothing with it."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest

from experiments.errors import ExperimentError
from experiments.measurement.queueing_theory import ClosedLoop, MDc

UTILISATIONS = (0.3, 0.6, 0.8)


def m_m_c_wait_s(arrival_rps: float, service_s: float, servers: int) -> float:
    """The mean wait where service is exponential, by Erlang's C: a sum of factorials, as he defined it."""
    load = arrival_rps * service_s
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last) * service_s / (servers - load)


def simulated_waits(arrival_rps: float, service_s: float, servers: int, arrivals: int, seed: int) -> np.ndarray:
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / arrival_rps, arrivals)).tolist()
    free = [0.0] * servers
    waits = []
    for now in times:
        begin = max(now, heapq.heappop(free))
        waits.append(begin - now)
        heapq.heappush(free, begin + service_s)
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
def test_m_d_1_waits_as_pollaczek_and_khinchine_say(utilisation: float) -> None:
    exact = utilisation * 2e-3 / (2 * (1 - utilisation))
    assert MDc(utilisation / 2e-3, 2e-3, 1).mean_wait_s() == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("servers", [1, 2, 12])
@pytest.mark.parametrize("utilisation", UTILISATIONS)
def test_the_mean_wait_is_what_a_simulation_finds(servers: int, utilisation: float) -> None:
    rate = utilisation * servers / 1e-3
    waits = np.concatenate([simulated_waits(rate, 1e-3, servers, 100_000, seed) for seed in range(6)])
    assert MDc(rate, 1e-3, servers).mean_wait_s() == pytest.approx(waits.mean(), rel=0.05, abs=1e-6)


@pytest.mark.parametrize("servers", [2, 5, 12])
@pytest.mark.parametrize("utilisation", [0.7, 0.8, 0.9, 0.95])
def test_m_d_c_is_near_the_published_approximation_of_cosmetatos(servers: int, utilisation: float) -> None:
    """G. P. Cosmetatos 1975: the mean wait of M/D/c as a multiple of that of M/M/c, good in heavy traffic."""
    factor = 0.5 * (1 + (1 - utilisation) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) /
                    (16 * utilisation * servers))
    rate = utilisation * servers
    ratio = MDc(rate, 1.0, servers).mean_wait_s() / m_m_c_wait_s(rate, 1.0, servers)
    assert ratio == pytest.approx(factor, rel=0.02)


def test_constant_service_waits_about_half_as_long_in_heavy_traffic() -> None:
    for servers in (1, 4, 12):
        rate = 0.98 * servers
        half = m_m_c_wait_s(rate, 1.0, servers) / 2
        assert MDc(rate, 1.0, servers).mean_wait_s() == pytest.approx(half, rel=0.03)


@pytest.mark.parametrize(("clients", "servers", "trip_s"), [
    (1, 1, 0.0), (1, 12, 5.0), (3, 2, 0.5), (3, 2, 0.6), (3, 2, 0.7), (5, 2, 1.3), (7, 3, 0.9), (40, 12, 2.5),
    (41, 12, 2.5), (42, 12, 2.5), (43, 12, 2.5), (200, 12, 2.5), (13, 4, 2.7)])
def test_a_closed_loop_settles_at_the_operational_bounds(clients: int, servers: int, trip_s: float) -> None:
    loop = ClosedLoop(clients, 1.0, servers, trip_s)
    throughput, latency = simulated_loop(clients, 1.0, servers, trip_s)
    assert loop.throughput_rps() == pytest.approx(throughput, rel=0.01)
    assert loop.latency_s() == pytest.approx(latency, rel=0.01)
    wait_s = loop.latency_s() - trip_s - 1.0
    assert wait_s >= -1e-12 and (wait_s > 1e-9) == (clients > servers * (trip_s + 1.0))


@pytest.mark.parametrize("numbers", [(1.0, 1.0, 1), (2.1, 1.0, 2), (0.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.0, 0)])
def test_a_queue_that_is_not_stable_or_no_queue_is_refused(numbers: tuple[float, float, int]) -> None:
    with pytest.raises(ExperimentError):
        MDc(*numbers)


def test_very_near_to_one_the_wait_is_long_and_a_loop_of_nobody_is_refused() -> None:
    assert MDc(0.9999 * 12, 1.0, 12).mean_wait_s() == pytest.approx(m_m_c_wait_s(0.9999 * 12, 1.0, 12) / 2, rel=0.01)
    with pytest.raises(ExperimentError, match="0 clients"):
        ClosedLoop(0, 1.0, 1, 1.0)
