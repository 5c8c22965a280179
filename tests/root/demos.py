"""Demos for tests: judged only where the machine lost no frames, and explained in full where they fail."""

from __future__ import annotations

from experiments.demo import DemoOptions, DemoResult, run_demo

ATTEMPTS = 3
DROPPED = "frames dropped outside the modelled queues"


def demo_without_drops(options: DemoOptions) -> DemoResult:
    """Return a demo in which this machine dropped no frames; a switch that is not run in time loses some.

    After ATTEMPTS with drops, the last one.
    """
    for _ in range(ATTEMPTS):
        result = run_demo(options)
        figure = result.verdict.figure(DROPPED)
        assert figure is not None
        if figure.holds:
            break
    return result


def why(result: DemoResult) -> str:
    """Return what speaks against a demo, in full: what clients counted, their complaints, the checks that fail."""
    clients = [f"{name}: {client.content()}" for name, client in result.clients.items()]
    checks = [" ".join(row) for row in result.proof.rows() if row[1] != "holds"]
    return "\n".join([f"time scale {result.time_scale:g}", *result.verdict.reasons, *clients, *checks,
                      str(result.switch_drops), str(result.node_drops)])
