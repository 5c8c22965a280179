"""At what speed a testbed plays: its speed model, the emulated clock, and the pace of each node and link."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from experiments.errors import ExperimentError
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.service import BUILT_IN
from nodes.communication import HostStack
from nodes.deployment import Deployment
from nodes.emulated_clock import LEAST_TIME_SCALE, MOST_TIME_SCALE, EmulatedClock
from nodes.pace import Pace, pace_of
from nodes.shaping import shaping_line
from topologies.inventory import Inventory, NodeEntry

SPEED_MODELS = ("calibrated", "quota", "unpaced")
# The quota model's. Ours: cnMIPS64, of SmartNICs and of Wimpy's host, does about half the work of a Xeon core per
# clock; section 5 gives cores and clocks.
CNMIPS_WORK_PER_CLOCK = 0.5


@dataclass(frozen=True, slots=True)
class Pacing:
    """How fast everything is.

    `speed`: "calibrated" paces requests by Table 1 and links by their rates, in emulated time that runs `time_scale`
    times slower; "quota" limits every namespace by cgroup to its share of cores x clock x work per clock, the largest
    host having the whole machine; "unpaced" lets nodes and links run as fast as this machine does. `cores` overrides
    how many cores of a node run microservices. Raises ExperimentError for what cannot be.
    """

    speed: str = "unpaced"
    time_scale: float = 1.0
    stack: HostStack = HostStack.LINUX
    assumptions: Assumptions = DEFAULTS
    cores: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.speed not in SPEED_MODELS:
            raise ExperimentError(f"no speed model {self.speed!r}; there are {', '.join(SPEED_MODELS)}")
        if self.speed != "calibrated" and self.time_scale != 1.0:
            raise ExperimentError(f"a time scale of {self.time_scale:g} with the speed model {self.speed}: only "
                                  "calibrated runs can be slowed down")
        if not LEAST_TIME_SCALE <= self.time_scale <= MOST_TIME_SCALE:
            raise ExperimentError(f"time scale {self.time_scale:g}; the limits are {LEAST_TIME_SCALE:g} and "
                                  f"{MOST_TIME_SCALE:g}")
        for node, cores in self.cores.items():
            if cores < 1:
                raise ExperimentError(f"{cores} cores for {node}; the least is 1")

    @property
    def calibrated(self) -> bool:
        return self.speed == "calibrated"

    def said(self) -> str:
        """Say for people at what speed this is."""
        if self.calibrated:
            return (f"calibrated speed: one emulated second lasts {self.time_scale:g} s, requests and links take what "
                    "they take on E3's hardware; ping, iperf and other programs of Linux run in real time")
        return {"quota": "quota: each node has its share of this machine's cores, links are as fast as they go",
                "unpaced": "unpaced: nodes and links are as fast as this machine"}[self.speed]

    def cores_of(self, entry: NodeEntry) -> int:
        return self.cores.get(entry.name, entry.cores)

    def pace(self, entry: NodeEntry, inventory: Inventory, clock: EmulatedClock,
             deployments: tuple[Deployment, ...]) -> Pace | None:
        """Return what paces `entry`; None where nothing does."""
        if not self.calibrated:
            return None
        # What is built in may be deployed later, too.
        services = {*BUILT_IN, *(stage.service for deployment in deployments for stage in deployment.stages)}
        return pace_of(entry, services, inventory, clock, self.assumptions, self.stack)

    def quota_cores(self, entry: NodeEntry, inventory: Inventory) -> float | None:
        """Return the core-equivalents of this machine that `entry` may use; None for no limit."""
        if self.speed != "quota" or entry.role in ("client", "controller"):
            return None
        most = max(_work_ghz(host) for host in inventory.of_role("host"))
        return _work_ghz(entry) / most * (os.cpu_count() or 1)

    def shaping(self, inventory: Inventory) -> Iterator[tuple[str | None, str]]:
        """Yield (node, line for `tc -batch`) for both ends of every link; None is a switch's end.

        The lines give a link its rate or, where nothing is paced, take it away again.
        """
        switches = {s.name for s in inventory.switches}
        for port in inventory.ports:
            yield None, self._shape(port.interface, port.gbps, True)
            if port.peer not in switches:
                yield port.peer, self._shape(port.peer_interface, port.gbps, True)
        for link in inventory.pcie:
            for node, interface in ((link.smartnic, link.smartnic_interface), (link.host, link.host_interface)):
                yield node, self._shape(interface, link.gbps, False)

    def _shape(self, interface: str, gbps: float, ethernet: bool) -> str:
        if not self.calibrated:
            return f"qdisc del dev {interface} root"
        return shaping_line(interface, gbps, self.time_scale, ethernet)


def _work_ghz(entry: NodeEntry) -> float:
    """Return cores x clock of a node, in what a Xeon does per clock."""
    return entry.cores * entry.clock_ghz * (CNMIPS_WORK_PER_CLOCK if entry.family == "cnmips" else 1.0)


UNPACED = Pacing()
