"""Captures at any interface of a testbed: one tcpdump and one pcap file per interface."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import ExperimentError
from nodes.world import World

SNAPLEN_BYTES = 9216  # whole jumbo frames: the proof looks at every byte
BUFFER_KIB = 32768
START_TIMEOUT_S = 15.0
QUIET_S = 0.3
DRAIN_TIMEOUT_S = 30.0
_PROGRESS = re.compile(r"(\d+) packets captured, (\d+) packets received by filter")


@dataclass(frozen=True)
class Capture:
    """Running captures; `stop` ends them and returns the files by interface."""

    directory: Path
    _running: dict[str, subprocess.Popen[bytes]]
    _at_end: Callable[[], object] = lambda: None

    def stop(self) -> dict[str, Path]:
        """End every capture once it has written all that it saw; return the files by interface.

        Raises ExperimentError if the kernel dropped packets on their way into a capture, or a capture cannot
        keep up: it would prove nothing.
        """
        deadline = time.monotonic() + DRAIN_TIMEOUT_S
        time.sleep(QUIET_S)
        for interface, process in self._running.items():
            while not self._drained(interface, process):
                if time.monotonic() > deadline:
                    raise ExperimentError(f"capture of {interface} does not keep up: {self._said(interface)[-1:]}")
        for process in self._running.values():
            process.terminate()
        for interface, process in self._running.items():
            process.wait(DRAIN_TIMEOUT_S)
            dropped = [line for line in self._said(interface) if line.endswith("packets dropped by kernel")]
            if not dropped or not dropped[-1].startswith("0 "):
                raise ExperimentError(f"capture of {interface} is incomplete: {self._said(interface)[-1:]}")
        self._at_end()
        return {interface: self.directory / f"{interface}.pcap" for interface in self._running}

    def _drained(self, interface: str, process: subprocess.Popen[bytes]) -> bool:
        """Ask tcpdump (SIGUSR1) how far it is: packets wait in its ring for up to a second, and die with it there."""
        asked = len(_PROGRESS.findall("\n".join(self._said(interface))))
        process.send_signal(signal.SIGUSR1)
        for _ in range(100):
            time.sleep(0.01)
            answers = _PROGRESS.findall("\n".join(self._said(interface)))
            if len(answers) > asked:
                written, received = answers[-1]
                return int(written) >= int(received)
        return False

    def _said(self, interface: str) -> list[str]:
        return (self.directory / f"{interface}.log").read_text().strip().splitlines()


def start_capture(world: World, places: Mapping[str, int | None], directory: Path, only: str = "",
                  at_end: Callable[[], object] = lambda: None) -> Capture:
    """Capture at each interface in `places` (interface -> pid of the node it is in, None for a switch's).

    `only` is a capture filter in pcap's own language; `at_end` is called when all have ended. Returns when every
    capture has begun.
    Raises ExperimentError if one does not begin.
    """
    directory.mkdir(parents=True, exist_ok=True)
    running = {}
    for interface, pid in places.items():
        where = [] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net"]
        with open(directory / f"{interface}.log", "wb") as log:
            running[interface] = world.spawn(
                [*where, "tcpdump", "-i", interface, "-n", "-p", "-B", str(BUFFER_KIB),
                 "-s", str(SNAPLEN_BYTES), "--time-stamp-precision=nano", "-Z", "root",
                 "-w", str(directory / f"{interface}.pcap"), *([only] if only else [])],
                f"tcpdump-{interface}", stdout=log, stderr=log)
    deadline = time.monotonic() + START_TIMEOUT_S
    for interface, process in running.items():
        while b"listening on" not in (directory / f"{interface}.log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (directory / f"{interface}.log").read_text().strip().splitlines()[-1:]
                raise ExperimentError(f"cannot capture at {interface}: {said}")
            time.sleep(0.01)
    return Capture(directory, running, at_end)
