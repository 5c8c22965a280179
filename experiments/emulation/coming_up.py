"""What is said of a testbed that does not come up: what its silent agents are at, and what the logs complain of."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from nodes.errors import NodeError
from nodes.processes import doing
from nodes.team import read_status

LOGS = ("agent-*.log", "team-*.log", "tor-app.log", "nursery.log", "resource-controller*.log")


def team_status_path(run_dir: Path, host: str) -> Path:
    """Return where the teaming process of `host` says how it is."""
    return run_dir / f"team-{host}.json"


def said_of(agents: Mapping[str, int], run_dir: Path) -> str:
    """Return the nodes whose agents are those processes, each with what it is at, and a host with its egress."""
    said = []
    for name, pid in agents.items():
        at = doing(pid)
        with contextlib.suppress(NodeError):
            at += f"; egress over {', '.join(read_status(team_status_path(run_dir, name)).egress) or 'nothing'}"
        said.append(f"{name} ({at})")
    return ", ".join(said)


def complaints(run_dir: Path) -> str:
    """Return the last error in each log that has one; the logs themselves go with the world."""
    said = {path.stem: [line for line in path.read_text(errors="replace").splitlines() if "rror" in line]
            for name in LOGS for path in sorted(run_dir.glob(name))}
    return "".join(f"; {name} said: {lines[-1]}" for name, lines in said.items() if lines)
