"""Two testbeds at once: one is killed with -9 and cleaned away, and the other must not notice.

    world A   3 x Type1 under load   ... kill -9 ... e3 clean ... nothing of it is left
    world B   3 x Type1 under load   .................................... no request lost
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from experiments.emulation.clean import clean
from experiments.errors import ExperimentError
from experiments.runs.results import ROOT, Run
from experiments.runs.run_options import RunOptions
from nodes import cgroups, journal
from nodes.processes import all_pids
from nodes.programs import python_module

CLUSTER = "type1x3"
LOAD_S = 2.0
END_TIMEOUT_S = 60.0


class World:
    """A testbed in a process of its own (load_world.py)."""

    def __init__(self, cluster: str) -> None:
        self.process = subprocess.Popen([*python_module("experiments.load_world"), cluster], cwd=ROOT, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.id: str = self._hear()["world"]

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ExperimentError(f"a testbed ended with {self.process.wait(END_TIMEOUT_S)} instead of answering")
        answer: dict[str, Any] = msgspec.json.decode(line)
        return answer

    def finish(self) -> dict[str, Any]:
        """Stop the load and the testbed; return its client's result."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        result = self._hear()
        self.process.wait(END_TIMEOUT_S)
        return result

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(END_TIMEOUT_S)


@contextlib.contextmanager
def _ended(world: World) -> Iterator[World]:
    try:
        yield world
    finally:
        if world.process.poll() is None:
            world.process.terminate()
            world.process.wait(END_TIMEOUT_S)


def traces(world_id: str) -> list[str]:
    """Return what there is of the world `world_id` on this machine: files, control groups, processes."""
    found = []
    if (journal.RUN_ROOT / world_id).exists():
        found.append(f"files in {journal.RUN_ROOT / world_id}")
    hierarchy = cgroups.detect()
    if hierarchy is not None:
        found += [str(root / cgroups.PARENT / world_id) for root in hierarchy.roots
                  if (root / cgroups.PARENT / world_id).exists()]
    for pid in all_pids():
        with contextlib.suppress(OSError):
            if f"/{world_id}" in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") \
                    or f"E3_WORLD={world_id}".encode() in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(f"process {pid}")
    return found


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; no option changes it, it is short. Returns {"holds", "rows", ...}."""
    del options
    result_run = Run("two-worlds")
    with _ended(World(CLUSTER)) as doomed, _ended(World(CLUSTER)) as other:
        say(f"worlds {doomed.id} and {other.id} are both under load")
        time.sleep(LOAD_S)
        doomed.kill()
        before = traces(doomed.id)
        say(f"killed {doomed.id} with -9; there is still: {len(before)} traces; cleaning")
        report = clean()
        left = traces(doomed.id)
        time.sleep(LOAD_S)
        result = other.finish()
    lost = result["lost"] + result["duplicated"] + result["wrong"] + result["errors"]
    rows = [("requests that the other world answered", result["answered"], "> 0", result["answered"] > 0),
            ("of them lost, wrong, failed or answered twice", lost, "0", lost == 0),
            ("traces of the killed world before clean", len(before), "> 0", bool(before)),
            ("traces of the killed world after clean", ", ".join(left) or "none", "none", not left),
            ("worlds that clean removed", ", ".join(r.id for r in report.removed), doomed.id,
             doomed.id in {r.id for r in report.removed}),
            ("worlds that clean left alone", ", ".join(report.alive), other.id, other.id in report.alive),
            ("traces of the other world after its own stop", ", ".join(traces(other.id)) or "none", "none",
             not traces(other.id))]
    content = {"holds": all(ok for *_, ok in rows), "rows": [(w, str(g), n) for w, g, n, _ in rows],
               "other": result, "longest_gap_s": result["longest_gap_s"]}
    result_run.finish(content)
    return content
