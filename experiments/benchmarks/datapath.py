"""What a SmartNIC's agent costs: requests/s by way of it, side by side with two plain sockets, in one run.

    c1 --- [tor1] --- c2              plain: an echo program on another node of the switch
             |------- s1n1            smartnic: the echo of the agent's own stack
             |------- s1n1 === s1h    host: through the agent to the same echo program on its host

One client asks all three in turn, round by round, so that whatever else the machine does hits all alike; the
ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from experiments.benchmarks.echo_load import EchoConfig, LoadConfig, TargetLoad
from experiments.clients.latencies import summary_of
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from nodes.ip_stack import UDP_ECHO_PORT
from nodes.nursery import Child, Order

CLUSTER = "type1x1"
ECHO_PORT = 7007  # another than the agents' own echo
ROUNDS = 15
REQUESTS = 8_000
LONE_REQUESTS = 200
WINDOW = 32
PAYLOAD_BYTES = 512
TIMEOUT_S = 120.0
WANTED = {"plain": 1.0, "smartnic": 0.8, "host": 0.6}
COLUMNS = ("path", "requests/s", "ratio to plain", "wanted", "unloaded p50 us", "unloaded p99 us")


@dataclass(frozen=True, slots=True)
class Row:
    """One path. `ratio` is the median over the rounds of requests/s through it to requests/s of the plain path."""

    path: str
    requests_per_s: float
    ratio: float
    wanted: float
    round_trip_p50_us: float
    round_trip_p99_us: float
    ratios: tuple[float, ...]

    def values(self) -> tuple[object, ...]:
        return (self.path, f"{self.requests_per_s:.0f}", f"{self.ratio:.2f}", f"{self.wanted:.2f}",
                f"{self.round_trip_p50_us:.0f}", f"{self.round_trip_p99_us:.0f}")


def measure(say: Callable[[str], None] = lambda _: None, rounds: int = ROUNDS, requests: int = REQUESTS,
            lone_requests: int = LONE_REQUESTS) -> list[Row]:
    """Start a rack of one server and two clients, and return one row per path, the plain one first.

    Raises ExperimentError when a request is lost; the rack is stopped in any case.
    """
    say(f"starting {CLUSTER} with two clients")
    with Testbed.start(TestbedOptions(CLUSTER, clients=2, label="bench")) as bed:
        ip = {node.name: node.ip for node in bed.inventory.nodes}
        for node in ("c2", "s1h"):
            _start(bed, node, "echo", EchoConfig(ip[node], ECHO_PORT))
        targets = {"plain": (ip["c2"], ECHO_PORT), "smartnic": (ip["s1n1"], UDP_ECHO_PORT),
                   "host": (ip["s1h"], ECHO_PORT)}
        say(f"asking {' and '.join(targets)}: {rounds} rounds of {requests} requests each, {WINDOW} outstanding, "
            f"then {lone_requests} one at a time")
        loads = _load(bed, "c1", LoadConfig(ip["c1"], tuple(targets.values()), rounds, requests, lone_requests,
                                            WINDOW, PAYLOAD_BYTES, seed=1))
    return rows_of(dict(zip(targets, loads, strict=True)))


def rows_of(loads: dict[str, TargetLoad]) -> list[Row]:
    """Return one row per path from what its rounds gave; the path "plain" is what the others are held against."""
    plain = loads["plain"].requests_per_s
    rows = []
    for path, load in loads.items():
        ratios = tuple(ours / base for ours, base in zip(load.requests_per_s, plain, strict=True))
        trips = summary_of(load.round_trips_s)
        rows.append(Row(path, statistics.median(load.requests_per_s), statistics.median(ratios), WANTED[path],
                        trips.p50_s * 1e6, trips.p99_s * 1e6, ratios))
    return rows


def _start(bed: Testbed, node: str, function: str, config: EchoConfig | LoadConfig, result_file: str = "") -> Child:
    name = f"{function}-{node}"
    return bed.fork(Order(name, f"experiments.benchmarks.echo_load:{function}", msgspec.msgpack.encode(config),
                          bed.net[node].pid, str(bed.world.run_dir / f"{name}.log"), result_file=result_file), node)


def _load(bed: Testbed, node: str, config: LoadConfig) -> list[TargetLoad]:
    result = bed.world.run_dir / f"load-{node}.result"
    child = _start(bed, node, "load", config, str(result))
    status = bed.nursery.status(child, TIMEOUT_S)
    if status != 0:
        said = (bed.world.run_dir / f"load-{node}.log").read_text().strip().splitlines()[-1:]
        raise ExperimentError(f"the load on {node} {'is not done' if status is None else 'failed'} "
                              f"(limit {TIMEOUT_S:g} s): {' '.join(said)}")
    return msgspec.msgpack.decode(result.read_bytes(), type=list[TargetLoad])
