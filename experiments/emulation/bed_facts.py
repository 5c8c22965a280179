"""What a running testbed writes down for who looks at it from another process, and how that one finds it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from experiments.emulation.pacing import Pacing
from experiments.errors import ExperimentError
from nodes import journal
from nodes.deployment import Deployment
from nodes.errors import WorldError

FACTS_NAME = "testbed.msgpack"


class BedFacts(msgspec.Struct, frozen=True):
    """A testbed's label, speed and deployments, and the pid of its controller node's shell."""

    label: str
    pacing: Pacing
    deployments: tuple[Deployment, ...]
    controller: str
    controller_pid: int

    def write(self, run_dir: Path) -> None:
        """Replace what stands in `run_dir`, so that a reader finds the old or the new."""
        new = run_dir / f"{FACTS_NAME}.new"
        new.write_bytes(msgspec.msgpack.encode(self))
        new.replace(run_dir / FACTS_NAME)


def facts_in(run_dir: Path) -> BedFacts:
    """Return what the testbed in `run_dir` says of itself; raises ExperimentError if it is not up."""
    try:
        return msgspec.msgpack.decode((run_dir / FACTS_NAME).read_bytes(), type=BedFacts)
    except FileNotFoundError:
        raise ExperimentError(f"world {run_dir.name} has no testbed that is up") from None


def chosen_world(name: str = "", root: Path = journal.RUN_ROOT) -> Path:
    """Return the run directory of the living world called `name`, or of the only one there is.

    Raises ExperimentError, saying which there are, if that is not one; also without root rights.
    """
    try:
        alive = [path for path in journal.run_dirs(root) if journal.is_alive(path)]
    except (WorldError, PermissionError) as error:
        raise ExperimentError(str(error)) from error
    found = [path for path in alive if path.name == name] if name else alive
    if len(found) == 1:
        return found[0]
    listed = ", ".join(path.name for path in alive)
    if not alive:
        raise ExperimentError("no testbed is running here (as root, `e3 cli` starts one)")
    raise ExperimentError(f"no running world {name!r}; there are {listed}" if name else
                          f"several testbeds are running: name one of {listed}")
