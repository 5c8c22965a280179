"""How long a rack takes to start, beside plain Mininet with as many nodes and links on the same kind of switch.

    e3        Testbed: world, nodes, links, a programmed ToR, LACP up on every server port, every agent answering
    mininet   the same names and wiring from the same topology, of Mininet's own hosts, links and OVSBridge, in a
              world too; it runs nothing on its nodes, and its bridge learns instead of being programmed

Each start has a process of its own, because a process has one world; the two kinds take turns. Clocks start when
all is imported and nothing is made.
"""

from __future__ import annotations

import functools
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.node import OVSBridge

from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from nodes.world import World
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, inventory_of
from topologies.mininet_topo import E3Topo

ROUNDS = 2
TIMEOUT_S = 600.0
MAX_RATIO = 1.5
MAX_START_S = 120.0
MAX_SMARTNIC_MIB = 30.0
COLUMNS = ("what", "nodes", "links", "start s", "ratio", "stop s", "MiB per SmartNIC", "wanted")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Start(msgspec.Struct, frozen=True):
    """One start and stop. Memory is the proportional set size of what runs for each SmartNIC, the largest of them."""

    start_s: float
    stop_s: float
    smartnic_mib: float
    steps_s: dict[str, float] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of start: medians over the rounds; `ratio` is that of the rounds' ratios to Mininet.

    `smartnic_mib`: of the agent and the node's shell; for Mininet of its shell alone. 0 in a rack without SmartNICs.
    `steps_s` says where the last start of the kind spent its time, where that is known.
    """

    what: str
    nodes: int
    links: int
    start_s: float
    ratio: float
    stop_s: float
    smartnic_mib: float
    wanted: str
    steps_s: dict[str, float]

    def values(self) -> tuple[object, ...]:
        return (self.what, self.nodes, self.links, f"{self.start_s:.1f}", f"{self.ratio:.2f}", f"{self.stop_s:.1f}",
                f"{self.smartnic_mib:.1f}", self.wanted)


def measure(cluster: str, say: Callable[[str], None] = lambda _: None, rounds: int = ROUNDS) -> list[Row]:
    """Start and stop `cluster` both ways `rounds` times and return a row for each.

    Raises TopologyError for a bad name and ExperimentError when a start fails.
    """
    inventory = inventory_of(cluster_named(cluster))
    starts: dict[str, list[Start]] = {kind: [] for kind in KINDS}
    for number in range(1, rounds + 1):
        for kind, found in starts.items():
            found.append(_in_own_process(kind, cluster))
            say(f"round {number} of {rounds}: {kind} started in {found[-1].start_s:.1f} s")
    return rows_of(inventory, starts)


def rows_of(inventory: Inventory, starts: dict[str, list[Start]]) -> list[Row]:
    """Return a row per kind; the kind "mininet" is what the others are held against."""
    links = len(inventory.ports) + len(inventory.pcie)
    wanted = {"e3": f"ratio <= {MAX_RATIO}, start < {MAX_START_S:.0f} s, < {MAX_SMARTNIC_MIB:.0f} MiB"}
    return [Row(kind, len(inventory.nodes), links, statistics.median(s.start_s for s in found),
                statistics.median(s.start_s / base.start_s for s, base in zip(found, starts["mininet"], strict=True)),
                statistics.median(s.stop_s for s in found), max(s.smartnic_mib for s in found), wanted.get(kind, ""),
                found[-1].steps_s)
            for kind, found in starts.items()]


def start_e3(cluster: str) -> Start:
    """Start and stop `cluster` as a testbed, in this process."""
    began = time.monotonic()
    with Testbed.start(TestbedOptions(cluster, label="bench-e3")) as bed:
        start_s = time.monotonic() - began
        memory = _largest_mib((bed.agent_pid(n.name), bed.net[n.name].pid)
                              for n in bed.inventory.of_role("smartnic"))
        ending = time.monotonic()
    return Start(start_s, time.monotonic() - ending, memory, bed.started_s)


def start_mininet(cluster: str) -> Start:
    """Start and stop the nodes and links of `cluster` with Mininet's own classes, in this process."""
    inventory = inventory_of(cluster_named(cluster))
    setLogLevel("error")
    Mininet.inited = True  # its own init would change limits of the whole machine
    began = time.monotonic()
    with World.start("bench-mininet"):
        net = Mininet(topo=E3Topo(cluster=inventory), switch=functools.partial(OVSBridge, datapath="user"),
                      controller=None)
        net.start()
        start_s = time.monotonic() - began
        memory = _largest_mib((net[n.name].pid,) for n in inventory.of_role("smartnic"))
        ending = time.monotonic()
        net.stop()
    return Start(start_s, time.monotonic() - ending, memory)


KINDS: dict[str, Callable[[str], Start]] = {"e3": start_e3, "mininet": start_mininet}


def pss_mib(pid: int) -> float:
    """Return the proportional set size of process `pid`: its own memory and its share of what it shares."""
    found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    if found is None:
        raise ExperimentError(f"/proc/{pid}/smaps_rollup has no line Pss: is the process gone?")
    return int(found[1]) / 1024


def _largest_mib(nodes: Iterable[tuple[int, ...]]) -> float:
    return max((sum(map(pss_mib, pids)) for pids in nodes), default=0.0)


def _in_own_process(kind: str, cluster: str) -> Start:
    argv = [sys.executable, "-m", __name__, kind, cluster]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            said, complaint = child.communicate(timeout=TIMEOUT_S)
        except BaseException as stopped:
            child.terminate()  # it stops its world; leaving the block waits for it
            if isinstance(stopped, subprocess.TimeoutExpired):
                raise ExperimentError(f"starting {cluster} as {kind} has not ended after {TIMEOUT_S:g} s") from stopped
            raise
    if child.returncode != 0:
        raise ExperimentError(f"starting {cluster} as {kind} ended with {child.returncode}: "
                              f"{' '.join(complaint.strip().splitlines()[-1:])}")
    return msgspec.json.decode(said.splitlines()[-1], type=Start)


def main() -> None:
    """Start and stop one kind once, as told by the arguments KIND CLUSTER, and print its Start as JSON."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the world is stopped
    kind, cluster = sys.argv[1:]
    print(msgspec.json.encode(KINDS[kind](cluster)).decode())


if __name__ == "__main__":
    main()
