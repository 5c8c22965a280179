"""What the demo prints: tables and lines, made from its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from experiments.demo import DemoResult

Table = Callable[[str, Iterable[str], Iterable[Iterable[object]]], None]
REQUEST_COLUMNS = ("client", "sent", "answered", "lost", "duplicated", "wrong", "requests/s", "p50 ms", "p99 ms")
POWER_COLUMNS = ("server", "idle W", "active W", "wall W")
MOST_COMPLAINTS = 5


def show_demo(result: DemoResult, speed: str, table: Table, say: Callable[[str], None]) -> None:
    """Print `result` for people by `table` and `say`."""
    table("Requests", REQUEST_COLUMNS,
          [(name, r.sent, r.answered, r.lost, r.duplicated, r.wrong, f"{r.answered / r.seconds:,.0f}",
            f"{r.latencies.p50_s * 1e3:.3g}", f"{r.latencies.p99_s * 1e3:.3g}") for name, r in result.clients.items()])
    if result.power is not None:
        power = result.power
        wall = power.efficiency(result.total("answered")).wall_rpj
        table(f"{power.wall_watts:.0f} W, {wall or 0:,.0f} requests per Joule", POWER_COLUMNS,
              [(s.host, f"{s.idle_watts:g}", f"{s.active_watts:.1f}", f"{s.wall_watts:.1f}") for s in power.servers])
    table(f"Routing proof from {result.proof.packets} captured packets", ("check", "verdict", "counts", "claim"),
          result.proof.rows())
    table("Paths that requests took", ("path", "requests"), result.proof.node_paths.items())
    for place, dropped in {**result.switch_drops, **result.node_drops}.items():
        if dropped:
            say(f"dropped at {place}: {dropped}")
    for complaint in [c for r in result.clients.values() for c in r.complaints][:MOST_COMPLAINTS]:
        say(complaint)
    say(f"{result.application}; checked: {result.checked}")
    if result.power is not None:
        say(f"fidelity at time scale {result.time_scale:g}: " + (
            "the machine kept up" if result.verdict.holds else
            f"REFUSED, rates and latencies are not to be trusted: {'; '.join(result.verdict.reasons)}"))
    say(f"host links: {result.teaming}; speed: {speed}; result in {result.directory}")
    say("all is well" if result.holds else "NOT as it should be: see above")
