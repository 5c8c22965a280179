"""The knee finder on queues whose knee is known, with noise, and with machines that do not keep up."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from experiments.clients.latencies import summary_of
from experiments.errors import ExperimentError
from experiments.measurement.fidelity import Observed, Verdict, judge
from experiments.measurement.knee import NOISE, Knee, Probe, closed_loop, confirmed, found_by

REFUSED = Verdict(False, ("CPU of the machine: 99 %, the limit is 95 %",), ())
Curve = Callable[[float], tuple[float, float]]  # load -> throughput in requests/s, mean latency in s


def deterministic(servers: int, service_s: float, trip_s: float) -> Curve:
    """A closed loop with constant times: its knee is at servers * (trip + service) / service."""
    def at(load: float) -> tuple[float, float]:
        throughput = min(load / (trip_s + service_s), servers / service_s)
        return throughput, load / throughput
    return at


def machine_repair(servers: int, service_s: float, trip_s: float) -> Curve:
    """A closed loop with exponential service and trips: exact mean value analysis of M/M/c//N by its Markov chain."""
    def at(load: float) -> tuple[float, float]:
        n = int(load)
        logs = [0.0]
        for k in range(n):
            logs.append(logs[-1] + math.log((n - k) / trip_s * service_s / min(k + 1, servers)))
        weights = [math.exp(log - max(logs)) for log in logs]
        busy = sum(w * min(k, servers) for k, w in enumerate(weights)) / sum(weights)
        return busy / service_s, load * service_s / busy - trip_s
    return at


def measured(curve: Curve, noise: float = 0.0, seed: int = 0,
             verdict_at: Callable[[float], Verdict | None] = lambda _: None) -> Callable[[float], Probe]:
    random = np.random.default_rng(seed)

    def measure(load: float) -> Probe:
        throughput, mean_s = curve(load)
        blur = [1 + noise * float(one) for one in random.uniform(-1, 1, 2)]
        return Probe(load, throughput * blur[0], summary_of([mean_s * blur[1]]), verdict_at(load))
    return measure


@pytest.mark.parametrize(("servers", "service_s", "trip_s"), [
    (1, 1e-3, 0.0), (1, 1e-3, 9e-3), (12, 5e-6, 40e-6), (12, 13.2e-6, 20e-6), (12, 75e-3, 20e-6), (4, 1e-6, 1e-3)])
def test_the_knee_of_a_deterministic_closed_loop_is_where_the_servers_are_just_busy(
        servers: int, service_s: float, trip_s: float) -> None:
    exact = servers * (trip_s + service_s) / service_s
    knee = found_by(closed_loop(), measured(deterministic(servers, service_s, trip_s)))
    assert knee.probe is not None and knee.reference == pytest.approx(servers / service_s)
    assert math.floor(0.97 * exact) <= knee.probe.load <= max(exact, 0.97 * exact * 1.04 + 1)
    assert len(knee.tried) <= 2 * math.log2(exact) + 6


@pytest.mark.parametrize("seed", range(20))
def test_two_percent_of_noise_move_the_closed_knee_little(seed: int) -> None:
    curve = machine_repair(12, 10e-6, 100e-6)
    knee = found_by(closed_loop(), measured(curve, 0.02, seed))
    assert knee.probe is not None and knee.probe.faithful
    true, _ = curve(knee.probe.load)
    assert true / (12 / 10e-6) >= 0.93 and knee.probe.load <= 400 and len(knee.tried) <= 20


def test_the_closed_knee_is_the_fewest_requests_that_are_enough() -> None:
    curve = machine_repair(4, 1e-3, 5e-3)
    knee = found_by(closed_loop(resolution=0.0), measured(curve))
    assert knee.probe is not None
    load = int(knee.probe.load)
    enough = 0.97 * knee.reference
    assert curve(load)[0] >= enough > curve(load - 1)[0]


def test_a_closed_loop_that_starts_beyond_its_knee_looks_below() -> None:
    knee = found_by(closed_loop(first=64), measured(deterministic(2, 1e-3, 3e-3)))
    assert knee.probe is not None and knee.probe.load == 8
    lone = found_by(closed_loop(), measured(deterministic(1, 1e-3, 0.0)))
    assert lone.probe is not None and lone.probe.load == 1


def test_throughput_that_collapses_under_load_has_its_knee_before() -> None:
    def collapsing(load: float) -> tuple[float, float]:
        throughput = min(load, 20.0) * 1000 * (0.5 if load > 40 else 1.0)
        return throughput, load / throughput
    knee = found_by(closed_loop(), measured(collapsing))
    assert knee.probe is not None and 19 <= knee.probe.load <= 20


def test_throughput_that_never_saturates_has_no_knee() -> None:
    knee = found_by(closed_loop(most=100), measured(lambda load: (load * 1000, 1e-3)))
    assert knee.probe is None and "still grows at 100" in knee.said and knee.tried[-1].load == 100


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("servers", "trip_s"), [(12, 100e-6), (4, 20e-6), (36, 1e-3)])
def test_a_knee_that_is_where_it_was_expected_is_confirmed_in_three_looks_whatever_the_noise(
        seed: int, servers: int, trip_s: float) -> None:
    curve = machine_repair(servers, 10e-6, trip_s)
    expected = found_by(closed_loop(), measured(curve))
    assert expected.probe is not None
    knee = found_by(confirmed(expected), measured(curve, NOISE / 2, seed))
    load = expected.probe.load
    assert knee.probe is not None and [p.load for p in knee.tried] == [load // 2, load, 2 * load]
    assert knee.probe.load == load and "as expected" in knee.said
    assert knee.probe.throughput_rps == pytest.approx(expected.probe.throughput_rps, rel=NOISE)


@pytest.mark.parametrize("servers", [3, 6, 24, 48])
def test_a_knee_that_is_elsewhere_than_expected_is_searched_and_found_there(servers: int) -> None:
    expected = found_by(closed_loop(), measured(deterministic(12, 10e-6, 100e-6)))
    other = measured(deterministic(servers, 10e-6, 100e-6))
    knee, alone = found_by(confirmed(expected), other), found_by(closed_loop(), other)
    assert knee.probe is not None and alone.probe is not None and "as expected" not in knee.said
    assert knee.probe.load == pytest.approx(alone.probe.load, rel=0.05)
    assert knee.reference == pytest.approx(servers / 10e-6)


def test_a_knee_a_little_beyond_the_expected_one_is_searched_between_what_was_tried() -> None:
    expected = found_by(closed_loop(), measured(deterministic(12, 400e-6, 20e-6)))
    knee = found_by(confirmed(expected, resolution=0.1), measured(deterministic(12, 400e-6, 120e-6)))
    assert expected.probe is not None and [p.load for p in knee.tried[:3]] == [6, 13, 26]
    assert knee.probe is not None and 15 <= knee.probe.load <= 17 and len(knee.tried) <= 7
    slower = found_by(confirmed(expected), measured(deterministic(12, 450e-6, 120e-6)))  # 26 is not what was expected
    assert slower.probe is not None and 52 in [p.load for p in slower.tried] and 14 <= slower.probe.load <= 16


def test_a_knee_of_one_request_is_confirmed_too_and_none_is_looked_for_beyond_the_most() -> None:
    lone = measured(deterministic(1, 1e-3, 0.0))
    knee = found_by(confirmed(found_by(closed_loop(), lone)), lone)
    assert knee.probe is not None and [p.load for p in knee.tried] == [1, 2]
    expected = found_by(closed_loop(), measured(deterministic(8, 1e-3, 0.0)))
    assert [p.load for p in found_by(confirmed(expected, most=10), measured(deterministic(8, 1e-3, 0.0))).tried] == [
        4, 8, 10]


def test_what_is_refused_twice_confirms_nothing_and_no_knee_cannot_be_confirmed() -> None:
    curve = deterministic(8, 1e-3, 0.0)
    expected = found_by(closed_loop(), measured(curve))
    knee = found_by(confirmed(expected), measured(curve, verdict_at=lambda load: REFUSED if load > 8 else None))
    assert knee.probe is None and "at 16 the machine did not keep up, 2 times" in knee.said
    with pytest.raises(ExperimentError, match="no knee to be confirmed: no knee: at 16"):
        confirmed(knee)


CURVE = deterministic(12, 5e-6, 40e-6)


@pytest.mark.parametrize("refused", ["all", "above the knee", "below the knee"])
def test_no_probe_that_the_verdict_refused_is_ever_the_knee(refused: str) -> None:
    exact = found_by(closed_loop(), measured(CURVE)).probe
    assert exact is not None

    def verdict_at(load: float) -> Verdict | None:
        above = load > exact.load
        return REFUSED if refused == "all" or above == (refused == "above the knee") else None
    knee = found_by(closed_loop(), measured(CURVE, verdict_at=verdict_at))
    assert knee.probe is None and "did not keep up, 2 times: CPU of the machine" in knee.said
    assert not knee.tried[-1].faithful


def test_a_verdict_that_fails_once_costs_one_more_probe() -> None:
    plain = found_by(closed_loop(), measured(CURVE))
    for at in range(len(plain.tried)):
        calls = iter(range(100))
        knee = found_by(closed_loop(), measured(
            CURVE, verdict_at=lambda _, calls=calls, at=at: REFUSED if next(calls) == at else None))  # type: ignore
        assert knee.probe is not None and plain.probe is not None and knee.probe.load == plain.probe.load
        assert len(knee.tried) == len(plain.tried) + 1


def test_a_knee_goes_into_a_manifest_and_comes_back() -> None:
    verdict = judge(Observed({"c1": {"late_p99_ns": 1}}, 1e-3, 1))
    knee = found_by(closed_loop(), measured(deterministic(2, 1e-3, 3e-3), verdict_at=lambda _: verdict))
    assert knee.probe in knee.tried
    assert msgspec.json.decode(msgspec.json.encode(knee), type=Knee) == knee


def test_a_range_that_does_not_rise_is_refused() -> None:
    with pytest.raises(ExperimentError, match="from 0 to 10"):
        closed_loop(first=0, most=10)
    with pytest.raises(ExperimentError, match="from 5 to 4"):
        closed_loop(first=5, most=4)
