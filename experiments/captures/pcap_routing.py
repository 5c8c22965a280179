"""Proves from packet captures how packets were routed.

    c1 --- tor1-c1 [tor1] tor1-s1n1 --- s1n1 === s1h        one capture per switch port, named after it:
                          tor1-s2n1 --- s2n1 === s2h        tor1-c1.pcap, tor1-s1n1.pcap, ...

Beside the captures lie `inventory.json` (what stands where), `programs.json` (what the switches were told) and
perhaps `bucket_counters.json` (switch -> group name -> interface -> packets counted while the captures ran) and
`repairs.json` (when links between switches died or lived again, and since when the switches did what follows).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from controller.errors import ProgramError
from controller.tor_program import TorProgram, from_json
from controller.tor_status import RepairStatus
from experiments.captures.frame_fields import flow_text, ipv4_of, kind_of, protocol_name
from experiments.captures.hash_prediction import BucketCounters, Predictor, predictor_of
from experiments.captures.pcap_reading import frames
from experiments.captures.reroutes import Reroutes
from experiments.captures.routing_judge import WINDOW_NS, RoutingJudge
from experiments.captures.routing_proof import RoutingProof
from experiments.captures.routing_verdicts import checks_of, spreads_of
from experiments.errors import CaptureError
from topologies.errors import TopologyError
from topologies.inventory import Inventory
from topologies.unreadable import UNREADABLE

INVENTORY = "inventory.json"
PROGRAMS = "programs.json"
COUNTERS = "bucket_counters.json"
REPAIRS = "repairs.json"
MAX_FLOWS_COUNTED = 1_000_000


def run(paths: Sequence[Path], *, inventory: Inventory | None = None,
        programs: dict[str, TorProgram] | None = None, counters: BucketCounters | None = None,
        predict: Predictor | None = None, window_s: float = WINDOW_NS / 1e9,
        repairs: Sequence[RepairStatus] | None = None) -> RoutingProof:
    """Read the captures in `paths`, files or directories of them, and judge the routing.

    What is not given is read from beside the captures; without an inventory the result only summarises, and proves
    nothing. `predict` stands in for the prediction by `programs` with all ports alive. A packet that has not left
    a switch `window_s` (capture time) after it came in is lost: at least the longest time that a queue can hold it.
    Raises CaptureError.
    """
    files = capture_files(paths)
    folder = files[0].parent
    inventory = inventory or _read_inventory(folder)
    if inventory is None:
        return _summary(files)
    if programs is None:
        programs = _read_programs(folder)
    if counters is None:
        counters = _read_counters(folder)
    if repairs is None:
        repairs = _read_repairs(folder)
    if predict is None and programs is not None:
        predict = predictor_of(programs)

    judge = RoutingJudge(inventory, _interfaces(files, inventory), round(window_s * 1e9),
                         Reroutes(inventory, programs, repairs))
    judge.take_all(frames(files))
    spreads = spreads_of(judge)
    checks = checks_of(judge, inventory, predict, programs, counters, spreads)
    return RoutingProof(
        cluster=inventory.cluster, captures=tuple(f.name for f in files),
        packets=sum(p.came_in + p.left for p in judge.ports.values()) + sum(judge.node_frames.values()),
        span_s=(judge.last_ns - judge.first_ns) / 1e9,
        kinds=judge.kinds_of_frames(),
        ports=({p.interface: {"in": p.came_in, "out": p.left} for p in judge.ports.values()}
               | {i: {"seen": judge.node_frames[i]} for i in judge.interfaces if i not in _switch_ports(inventory)}),
        flows=sum(len(flows) for s in judge.switches for flows in s.first_ports().values()),
        notes=_reroute_notes(judge, repairs),
        dropped=dict(judge.dropped), checks=checks, spreads=spreads,
        node_paths=dict(judge.paths.node_paths.most_common()), port_paths=dict(judge.paths.port_paths.most_common()))


def flow_ports(paths: Sequence[Path], *, inventory: Inventory | None = None) -> dict[str, dict[str, str]]:
    """Return the interface by which each flow that had a choice first left: switch -> flow -> interface.

    Two captures, one before and one after a port dies, tell which flows moved. Raises CaptureError.
    """
    files = capture_files(paths)
    inventory = inventory or _read_inventory(files[0].parent)
    if inventory is None:
        raise CaptureError(f"{files[0].parent / INVENTORY}: not there; without it no port is known")
    judge = RoutingJudge(inventory, _interfaces(files, inventory))
    judge.take_all(frames(files))
    return {switch.name: {flow_text(flow): judge.interfaces[index]
                          for flows in switch.first_ports().values() for flow, index in flows.items()}
            for switch in judge.switches}


def capture_files(paths: Sequence[Path]) -> list[Path]:
    """Return the captures that `paths` name; a directory stands for its *.pcap, or for those in its captures/.

    Raises CaptureError.
    """
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.pcap")) or sorted(path.glob("captures/*.pcap")) if path.is_dir() else [path]
        if not found:
            raise CaptureError(f"{path}: no *.pcap in this directory, nor in its captures/")
        files += found
    if not files:
        raise CaptureError("no capture is given; a file or a directory of *.pcap is needed")
    twice = [str(f) for f, count in Counter(f.resolve() for f in files).items() if count > 1]
    if twice:
        raise CaptureError(f"{twice[0]}: given twice; its packets would count as duplicates")
    return files


def _interfaces(files: list[Path], inventory: Inventory) -> list[str]:
    """Return the interface of each file; raises CaptureError for a name that the inventory does not have."""
    known = _switch_ports(inventory) | {p.peer_interface for p in inventory.ports}
    known |= {name for link in inventory.pcie for name in (link.smartnic_interface, link.host_interface)}
    for file in files:
        if file.stem not in known:
            raise CaptureError(f"{file}: {inventory.cluster} has no interface {file.stem!r}; "
                               f"a capture is named after its interface, as {inventory.ports[0].interface}.pcap")
    return [f.stem for f in files]


def _switch_ports(inventory: Inventory) -> set[str]:
    return {p.interface for p in inventory.ports}


def _summary(files: list[Path]) -> RoutingProof:
    """Return what the captures hold; flows beyond MAX_FLOWS_COUNTED are not counted one by one."""
    kinds: Counter[str] = Counter()
    ports: Counter[str] = Counter()
    flows: set[bytes] = set()
    first = last = 0
    for time_ns, source, _, frame in frames(files):
        first, last = first or time_ns, max(last, time_ns)
        ports[files[source].stem] += 1
        fields = ipv4_of(frame)
        if fields is None:
            kinds[kind_of(frame)] += 1
            continue
        kinds[protocol_name(fields[1])] += 1
        if len(flows) < MAX_FLOWS_COUNTED:
            flows.add(fields[1])
    return RoutingProof(
        cluster="", captures=tuple(f.name for f in files), packets=sum(ports.values()), span_s=(last - first) / 1e9,
        kinds=dict(sorted(kinds.items())), ports={f.stem: {"seen": ports[f.stem]} for f in files}, flows=len(flows),
        notes=(f"nothing is proved: there is no {INVENTORY} beside {files[0]}",))


def _read_inventory(folder: Path) -> Inventory | None:
    data = _read(folder / INVENTORY)
    try:
        return None if data is None else Inventory.from_json(data)
    except TopologyError as error:
        raise CaptureError(f"{folder / INVENTORY}: {error}") from error


def _read_programs(folder: Path) -> dict[str, TorProgram] | None:
    data = _read(folder / PROGRAMS)
    try:
        return None if data is None else from_json(data)
    except ProgramError as error:
        raise CaptureError(f"{folder / PROGRAMS}: {error}") from error


def _reroute_notes(judge: RoutingJudge, repairs: Sequence[RepairStatus]) -> tuple[str, ...]:
    """Say what was dead, and how long the proof did not know which of two programs was in force."""
    notes = []
    for epoch in judge.reroutes.during(judge.first_ns, judge.last_ns):
        if epoch and judge.first_ns <= repairs[epoch - 1].noticed_s * 1e9 <= judge.last_ns:
            one = repairs[epoch - 1]
            lasted = f"{one.in_force_s - one.noticed_s:.3f} s" if one.in_force_s else "not by the end"
            notes.append(f"at {one.noticed_s - judge.first_ns / 1e9:.3f} s dead between switches: "
                         f"{', '.join(one.dead) or 'nothing any more'}; gone round after {lasted}")
    if judge.between_epochs:
        notes.append(f"{judge.between_epochs} departures fell between two programs: either of them was allowed")
    return tuple(notes)


def _read_repairs(folder: Path) -> list[RepairStatus]:
    data = _read(folder / REPAIRS)
    try:
        return [] if data is None else msgspec.json.decode(data, type=list[RepairStatus])
    except UNREADABLE as error:
        raise CaptureError(f"{folder / REPAIRS}: {error}") from error


def _read_counters(folder: Path) -> BucketCounters | None:
    data = _read(folder / COUNTERS)
    try:
        return None if data is None else msgspec.json.decode(data, type=dict[str, dict[str, dict[str, int]]])
    except UNREADABLE as error:
        raise CaptureError(f"{folder / COUNTERS}: {error}") from error


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
