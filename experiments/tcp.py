"""TCP between two hosts, through the agents of their SmartNICs: iperf3, and what it measured.

    s1h === s1n1 --- [tor1] --- s2n1 === s2h        the agents pass TCP untouched (section 3.2)
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import msgspec

from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions

CLUSTER = "type1x2"
SECONDS = 5
QUICK_SECONDS = 2
SPARE_S = 30  # for connecting and for the end
LEAST_MBIT_PER_S = 10.0  # far below what any machine does, far above a connection that only retransmits


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run iperf3 from s1h to s2h with two streams. Returns {"holds", "rows", ...}."""
    result_run = Run("tcp")
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with Testbed.start(TestbedOptions(CLUSTER, label="tcp")) as bed:
        inside = {name: ["nsenter", f"--net=/proc/{bed.net[name].pid}/ns/net"] for name in ("s1h", "s2h")}
        server_ip = bed.inventory.node("s2h").ip
        before = bed.counters("s1n1", "s2n1")
        server = bed.world.spawn([*inside["s2h"], "iperf3", "-s", "-1", "-B", server_ip], "iperf3-server")
        time.sleep(0.5)
        try:
            done = subprocess.run([*inside["s1h"], "iperf3", "-c", server_ip, "-B", bed.inventory.node("s1h").ip,
                                   "-t", str(seconds), "-P", "2", "-J"], capture_output=True, text=True, check=False,
                                  timeout=seconds + SPARE_S)
        except subprocess.TimeoutExpired as error:
            raise ExperimentError(f"iperf3 was to last {seconds} s and has not ended {SPARE_S} s later") from error
        server.terminate()
        after = bed.counters("s1n1", "s2n1")
    if done.returncode:
        raise ExperimentError(f"iperf3 ended with {done.returncode}: {done.stdout[-300:]} {done.stderr[-300:]}")
    said = msgspec.json.decode(done.stdout)["end"]
    mbit = said["sum_received"]["bits_per_second"] / 1e6
    passed = {name: after[name]["to_host"] - before[name]["to_host"] for name in after}
    rows = [("goodput", f"{mbit:.0f} Mb/s", f">= {LEAST_MBIT_PER_S:g} Mb/s", mbit >= LEAST_MBIT_PER_S),
            ("segments retransmitted", said["sum_sent"]["retransmits"], "", True),
            ("frames that s2n1's agent passed to its host", passed["s2n1"], "> 0", passed["s2n1"] > 0),
            ("frames that s1n1's agent passed to its host", passed["s1n1"], "> 0", passed["s1n1"] > 0)]
    say(f"{mbit:.0f} Mb/s in real time")
    content = {"holds": all(ok for *_, ok in rows), "rows": [(w, str(g), n) for w, g, n, _ in rows], "iperf3": said}
    result_run.finish(content)
    return content
