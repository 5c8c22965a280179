"""Processes at work on nodes of a testbed, and the results they give."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

import msgspec

from experiments.clients.client import ClientResult
from experiments.errors import ExperimentError
from nodes.nursery import Child, Nursery


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """A process at work on a node, that will give a result."""

    nursery: Nursery
    child: Child
    result_path: Path

    def stop(self) -> None:
        """Tell it to end its work and give its result."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.child.pid, signal.SIGTERM)

    def result(self, timeout_s: float) -> bytes:
        """Wait for its end; raises ExperimentError if it takes longer than `timeout_s` or failed."""
        status = self.nursery.status(self.child, timeout_s)
        if status != 0:
            log_path = self.result_path.with_name(f"{self.child.name}.log")
            said = log_path.read_text(errors="replace").strip().splitlines()[-1:]
            raise ExperimentError(f"{self.child.name} {'is not done' if status is None else f'ended with {status}'} "
                                  f"after {timeout_s:g} s: {' '.join(said)}")
        return self.result_path.read_bytes()


@dataclass(frozen=True, slots=True)
class RunningClient:
    """A client at work on its node."""

    process: RunningProcess

    @property
    def pid(self) -> int:
        return self.process.child.pid

    def stop(self) -> None:
        """Tell it to stop sending and give its result."""
        self.process.stop()

    def result(self, timeout_s: float) -> ClientResult:
        """Wait for its end; raises ExperimentError if it takes longer than `timeout_s` or failed."""
        return msgspec.msgpack.decode(self.process.result(timeout_s), type=ClientResult)
