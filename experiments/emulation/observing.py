"""What can be asked of a running testbed: counters of nodes, rules and buckets, captures, where interfaces are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from controller import tor_counters
from controller.fabric_repair import ends_of, repair
from controller.tor_counters import RuleCounter
from controller.tor_program import TorProgram
from controller.tor_status import TorStatus
from experiments.captures.capture import Capture, start_capture
from experiments.captures.pcap_routing import COUNTERS, REPAIRS
from experiments.emulation.control_plane import ControlPlane
from experiments.errors import ExperimentError
from nodes.cgroups import Cgroup
from nodes.control_messages import HEARTBEAT_BYTES
from nodes.nursery import Child
from nodes.world import World
from topologies.addressing import CONTROL_PORT
from topologies.inventory import Inventory

NO_HEARTBEATS = f"not (udp dst port {CONTROL_PORT} and udp[4:2] = {8 + HEARTBEAT_BYTES})"


class Observing:
    """Questions, as methods; the Testbed inherits them and has what they ask."""

    inventory: Inventory
    world: World
    net: Any
    control: ControlPlane
    programs: dict[str, TorProgram]
    agents: dict[str, Child]
    _groups: dict[str, Cgroup]

    def counters(self, *names: str, timeout_s: float = 2.0) -> dict[str, dict[str, int]]:
        """Ask the agents of `names` (default: all) for their counters; return those that answer in time."""
        wanted = [self.inventory.node(n) for n in names or self.agents]
        return self.control.counters(wanted, timeout_s)

    def throttled_ns(self, node: str) -> int:
        """Return how long the control group of `node` was kept from running, real time; 0 where it has none."""
        group = self._groups.get(node)
        return round(group.throttled()[2] * 1e9) if group is not None else 0

    @property
    def cpu_seconds(self) -> Callable[[], float] | None:
        """What tells how much CPU time all processes of this testbed have used; None where no control group does."""
        return self.world.subtree.root.usage_seconds if self.world.subtree is not None else None

    def process_pids(self) -> dict[str, int]:
        """Return the processes that carry the load: the switch and the agents."""
        return {"the switch": self.world.switch_pid, **{name: child.pid for name, child in self.agents.items()}}

    @abstractmethod
    def tor_status(self) -> TorStatus | None: ...

    def programs_in_force(self) -> dict[str, TorProgram]:
        """Return what the switches do now: their programs, repaired for the links that the app counts as dead."""
        status = self.tor_status()
        dead = ends_of(self.programs, () if status is None else status.dead_links)
        return repair(self.programs, dead).programs

    def rule_counters(self, switch: str) -> dict[str, RuleCounter]:
        """Return what every rule of `switch` has matched, by the rule's name."""
        self._settle_counters()
        return tor_counters.rule_counters(self.world.ofctl("dump-flows", switch),
                                          self.programs_in_force()[switch])

    def bucket_packets(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return packets by switch, group name and interface, as the switches' buckets counted them."""
        self._settle_counters()
        found = {}
        for switch, program in self.programs_in_force().items():
            groups = tor_counters.group_counters(self.world.ofctl("dump-group-stats", switch), program)
            found[switch] = {name: {b.interface: b.packets for b in buckets} for name, buckets in groups.items()}
        return found

    def _settle_counters(self) -> None:
        """Let the switches add up what their caches have counted: else they do up to a second late."""
        self.world.appctl("revalidator/wait")

    def write_bucket_packets(self, directory: Path, before: dict[str, dict[str, dict[str, int]]]) -> None:
        """Write beside captures what the buckets have counted since `before`."""
        since = {switch: {group: {name: packets - before[switch].get(group, {}).get(name, 0)
                                  for name, packets in buckets.items()}
                          for group, buckets in groups.items()} for switch, groups in self.bucket_packets().items()}
        (directory / COUNTERS).write_bytes(msgspec.json.encode(since))

    def capture(self, directory: Path, interfaces: Iterable[str] | None = None,
                only: str = NO_HEARTBEATS) -> Capture:
        """Start capturing at `interfaces` (default: every switch port), beside the maps that explain them.

        Heartbeats are left out unless `only`, a capture filter, says otherwise: they never pause, so that some would be
        on their way whenever captures begin and end, and the proof would miss them.
        Raises ExperimentError for an interface that is nowhere in the testbed.
        """
        places = self.places()
        wanted = list(interfaces) if interfaces is not None else [p.interface for p in self.inventory.ports]
        for name in wanted:
            if name not in places:
                raise ExperimentError(f"no interface {name!r}; there are {', '.join(sorted(places))}")
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("inventory.json", "programs.json"):
            (directory / name).write_bytes((self.world.run_dir / name).read_bytes())
        return start_capture(self.world, {name: places[name] for name in wanted}, directory, only,
                             at_end=lambda: self._write_repairs(directory))

    def _write_repairs(self, directory: Path) -> None:
        """Write beside captures when links between switches died or lived again, if one ever did."""
        status = self.tor_status()
        if status is not None and status.repairs:
            (directory / REPAIRS).write_bytes(msgspec.json.encode(status.repairs))

    def places(self) -> dict[str, int | None]:
        """Return every interface with the pid of the node that it is in; None for a switch's."""
        places: dict[str, int | None] = {p.interface: None for p in self.inventory.ports}
        switches = {s.name for s in self.inventory.switches}
        for port in self.inventory.ports:
            if port.peer not in switches:
                places[port.peer_interface] = self.net[port.peer].pid
        for link in self.inventory.pcie:
            places[link.smartnic_interface] = self.net[link.smartnic].pid
            places[link.host_interface] = self.net[link.host].pid
        return places
