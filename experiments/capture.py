"""Captures at any interface of a testbed: one tcpdump and one pcap file per interface."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.errors import ExperimentError
from nodes.world import World

SNAPLEN_BYTES = 9216  # whole jumbo frames: the proof looks at every byte
BUFFER_KIB = 32768
START_TIMEOUT_S = 15.0
QUIET_S = 0.3


@dataclass(frozen=True)
class Capture:
    """Running captures; `stop` ends them and returns the files by interface."""

    directory: Path
    _running: dict[str, subprocess.Popen[bytes]]

    def stop(self, quiet_s: float = QUIET_S) -> dict[str, Path]:
        """Wait `quiet_s` for the last packets, end every tcpdump and check that none dropped a packet.

        Raises ExperimentError if the kernel dropped packets on their way into a capture: such a capture
        proves nothing.
        """
        time.sleep(quiet_s)
        for process in self._running.values():
            process.terminate()
        for interface, process in self._running.items():
            process.wait(30)
            said = (self.directory / f"{interface}.log").read_text()
            dropped = [line for line in said.splitlines() if "dropped by kernel" in line]
            if not dropped or not dropped[0].startswith("0 "):
                raise ExperimentError(f"capture of {interface} is incomplete: {dropped or said.splitlines()[-1:]}")
        return {interface: self.directory / f"{interface}.pcap" for interface in self._running}


def start_capture(world: World, places: Mapping[str, int | None], directory: Path, only: str = "") -> Capture:
    """Capture at each interface in `places` (interface -> pid of the node it is in, None for a switch's).

    `only` is a capture filter in pcap's own language. Returns when every capture has begun.
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
    return Capture(directory, running)
