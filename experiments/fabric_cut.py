"""Links of a fat tree are cut under traffic between pods and healed again: what is lost, till when, and who moves.

    core1 core2   core3 core4         r1c1 > r3s1h > r1c1 and r4c1 > r2s1h > r4c1: 128 UDP flows each way and back
      x |           |  |              1. agg1-tor1 is cut: tor3 goes on sending rack 1 by agg3 and core1, core2, till
    agg1 agg2     agg3 agg4              it is told
     x |   |       |    |             2. agg3-core1 is cut as well: agg1 must leave core1 out for racks 3 and 4
    tor1 tor2     tor3 tor4           3. both are healed

Each packet is accounted for by its sender. The way of a flow is read from captures at all ports of switches, phase by
phase, and the routing proof judges them by the programs that were in force.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import numpy as np

from experiments.captures.frame_fields import UDP, ipv4_of, mac_bytes, ports_of
from experiments.captures.pcap_reading import frames
from experiments.captures.pcap_routing import run as prove
from experiments.captures.routing_proof import DELIVERY, LOST_AT_CUT
from experiments.clients.flow_probe import ProbeConfig, ProbeResult
from experiments.emulation.testbed import Testbed
from experiments.errors import ExperimentError
from experiments.views.scenario_timeline import Moment, Timeline, binned
from nodes.ip_stack import UDP_ECHO_PORT
from topologies.inventory import Inventory, switch_links

PAIRS = (("r1c1", "r3s1h"), ("r4c1", "r2s1h"))
CUTS = (("agg1", "tor1"), ("agg3", "core1"))
FLOWS, FIRST_PORT, PACKETS_PER_S = 128, 20_000, 800.0
PHASE_S, SETTLE_S, IN_FORCE_WITHIN_S, LIMIT_S = 1.2, 0.15, 5.0, 60.0
BIN_S = 0.1
MOST_BLIND_S = 1.0  # from a cut to the last packet that is lost: a busy machine may keep the app from its switches
MOST_LOST = 0.01  # of packets that no cut explains: a busy machine may drop some, whatever the routing
UNDER_WAY_S = 0.05  # what was sent so long before a cut may be lost by it, or its answer

Way = frozenset[str]  # the interfaces between switches by which a flow's packets left
Ways = dict[bytes, Way]  # by flow, as in frame_fields
Packet = tuple[tuple[bytes, int], int, int]  # its client's address and port, when it was sent (Unix ns), answers
Rows = list[tuple[str, str, str, bool]]


class Phase(msgspec.Struct, frozen=True):
    """A stretch of time, Unix ns, in which nothing is changed. `dead` are the interfaces that are out of use in it.

    It was cut or healed at `changed_ns`; from then on it took the app `in_force_s` till all switches did what follows.
    """

    name: str
    changed_ns: int
    start_ns: int
    end_ns: int
    dead: tuple[str, ...] = ()
    in_force_s: float = 0.0
    switches: int = 0


class Blind(msgspec.Struct, frozen=True):
    """What was lost of the packets sent from one change to the next.

    `lost` counts those whose flow, there or back, had led over what was cut; the last of them was sent `last_s` after
    the cut. `others` are lost without that excuse, of `sent` in all.
    """

    name: str
    lost: int
    last_s: float
    others: int
    sent: int


def cut_and_heal(bed: Testbed, directory: Path, say: Callable[[str], None]) -> tuple[Rows, Timeline]:
    """Cut CUTS one after the other and heal them, under traffic; return the rows of the verdict, and the timeline.

    Raises ExperimentError if a reroute is not in force within IN_FORCE_WITHIN_S.
    """
    capture = bed.capture(directory, only=f"udp port {UDP_ECHO_PORT}")
    probes = [bed.start_process(client, "experiments.clients.flow_probe:run", msgspec.msgpack.encode(ProbeConfig(
        bed.inventory.node(client).ip, bed.inventory.node(host).ip, UDP_ECHO_PORT, FLOWS, FIRST_PORT, PACKETS_PER_S,
        LIMIT_S))) for client, host in PAIRS]
    time.sleep(0.5)
    phases = [_phase("whole", time.time_ns())]
    for number, ends in enumerate(CUTS, start=1):
        dead = tuple(sorted({p.interface for ends in CUTS[:number] for p in bed.inventory.ports
                             if {p.switch, p.peer} == set(ends)}))
        phases.append(_changed(bed, f"{ends[0]}-{ends[1]} cut", partial(bed.fail, "link", *ends), dead))
    phases.append(_changed(bed, "healed", lambda: [bed.heal("link", *ends) for ends in CUTS], ()))
    for probe in probes:
        probe.stop()
    packets: list[Packet] = []
    for probe, (client, _) in zip(probes, PAIRS, strict=True):
        address = IPv4Address(bed.inventory.node(client).ip).packed
        packets += [((address, port), at_ns, answers) for port, at_ns, answers in msgspec.msgpack.decode(
            probe.result(30.0), type=ProbeResult).packets]
    files = capture.stop()
    between = [files[port.interface] for ends in switch_links(bed.inventory) for port in ends]
    ways = ways_by_phase(bed.inventory, between, phases)
    blind = blind_times(packets, phases, ways)
    for one in blind[1:]:
        say(f"{one.name}: {one.lost} of {one.sent} packets lost by it, the last sent {one.last_s * 1e3:.0f} ms after")
    proof = prove([directory])
    rows = judge(phases, ways, blind, packets)
    rows.append(("cut links: routing proof", f"{'holds' if proof.holds else 'FAILS'}: {proof.packets} packets, "
                 f"{proof.check(DELIVERY).counts.get(LOST_AT_CUT, 0)} {LOST_AT_CUT}", "holds", proof.holds))
    rows += [(f"cut links: {check.name}", str(evidence), "", False) for check in proof.checks if check.verdict is False
             for evidence in check.evidence[:1]]
    return rows, _timeline(packets, phases)


def _changed(bed: Testbed, name: str, change: Callable[[], object], dead: tuple[str, ...]) -> Phase:
    changed_ns = time.time_ns()
    change()
    deadline = time.monotonic() + IN_FORCE_WITHIN_S
    while (status := bed.tor_status()) is None or status.dead_links != dead or status.rerouting:
        if time.monotonic() > deadline:
            raise ExperimentError(f"{name}: not gone round within {IN_FORCE_WITHIN_S:g} s; the app says {status}")
        time.sleep(0.005)
    repair = status.repairs[-1]
    return _phase(name, changed_ns, dead, repair.in_force_s - changed_ns / 1e9, repair.switches)


def _phase(name: str, changed_ns: int, dead: tuple[str, ...] = (), in_force_s: float = 0.0, switches: int = 0) -> Phase:
    time.sleep(SETTLE_S)
    start_ns = time.time_ns()
    time.sleep(PHASE_S)
    return Phase(name, changed_ns, start_ns, time.time_ns(), dead, in_force_s, switches)


def ways_by_phase(inventory: Inventory, files: list[Path], phases: Sequence[Phase]) -> dict[str, Ways]:
    """Read from the captures by which interfaces the packets of each flow left switches, per phase."""
    found: dict[str, dict[bytes, set[str]]] = {phase.name: defaultdict(set) for phase in phases}
    own = {p.interface: mac_bytes(inventory.switch(p.switch).mac) for p in inventory.ports}
    for time_ns, source, _, frame in frames(files):
        fields = ipv4_of(frame)
        if fields is None or fields[1][8] != UDP or frame[6:12] != own[files[source].stem]:
            continue
        for phase in phases:
            if phase.start_ns <= time_ns < phase.end_ns:
                found[phase.name][fields[1]].add(files[source].stem)
    return {name: {flow: frozenset(way) for flow, way in ways.items()} for name, ways in found.items()}


def blind_times(packets: Sequence[Packet], phases: Sequence[Phase], ways: dict[str, Ways]) -> list[Blind]:
    """Return for each phase what was lost of what was sent between its change and the next one."""
    early_ns = round(UNDER_WAY_S * 1e9)
    begins = [phase.changed_ns - early_ns for phase in phases]
    found = []
    for phase, before, begin, end in zip(phases, [None, *phases], begins, [*begins[1:], phases[-1].end_ns],
                                         strict=False):
        cut = set(phase.dead) - set(before.dead if before else ())
        concerned = {_client_of(flow) for flow, way in (ways[before.name] if before else {}).items() if way & cut}
        sent = [packet for packet in packets if begin <= packet[1] < end]
        lost = [(at_ns, flow in concerned) for flow, at_ns, answers in sent if not answers]
        last_ns = max((at_ns for at_ns, excused in lost if excused), default=phase.changed_ns)
        excused = sum(excused for _, excused in lost)
        found.append(Blind(phase.name, excused, max(0.0, (last_ns - phase.changed_ns) / 1e9), len(lost) - excused,
                           len(sent)))
    return found


def _client_of(flow: bytes) -> tuple[bytes, int]:
    source, destination = ports_of(flow)
    return (flow[:4], source) if destination == UDP_ECHO_PORT else (flow[4:8], destination)


def judge(phases: Sequence[Phase], ways: dict[str, Ways], blind: Sequence[Blind],
          packets: Sequence[Packet]) -> Rows:
    """Return (what, measured, wanted, whether it is so)."""
    rows: Rows = []
    first = ways[phases[0].name]
    flows = 2 * FLOWS * len(PAIRS)
    rows.append(("cut links: flows between pods, there and back", str(len(first)), str(flows), len(first) == flows))
    forked = sum(len(way) != 4 for by_flow in ways.values() for way in by_flow.values())  # up, up, down, down
    rows.append(("cut links: flows with more than one way within a phase", str(forked), "0", forked == 0))
    for before, phase, lost in zip(phases, phases[1:], blind[1:], strict=False):
        was, now = ways[before.name], ways[phase.name]
        dead = sum(bool(way & set(phase.dead)) for way in now.values())
        rows.append((f"{phase.name}: flows over a dead link", str(dead), "0", dead == 0))
        gone = sum(flow not in now for flow in first)
        rows.append((f"{phase.name}: flows that do not go on", str(gone), "0", gone == 0))
        told = f"{phase.in_force_s * 1e3:.0f} ms, {phase.switches} switches told"
        if phase.dead:
            others = {flow for flow, way in was.items() if not way & set(phase.dead)}
            kept = sum(now.get(flow) == was[flow] for flow in others)
            rows.append((f"{phase.name}: flows of other links that keep their way", f"{kept} of {len(others)}", "all",
                         kept == len(others) > 0))
            rows.append((f"{phase.name}: last packet lost after; in force after",
                         f"{lost.last_s * 1e3:.0f} ms ({lost.lost} of {lost.sent} packets); {told}",
                         f"< {MOST_BLIND_S:g} s", lost.last_s < MOST_BLIND_S))
        else:
            back = sum(now.get(flow) == way for flow, way in first.items())
            rows.append((f"{phase.name}: flows on their first way again; in force after",
                         f"{back} of {len(first)}; {told}", "all", back == len(first)))
        rows.append((f"{phase.name}: packets lost that it does not explain", f"{lost.others} of {lost.sent}",
                     f"<= {MOST_LOST:.0%}", lost.others <= MOST_LOST * lost.sent))
    twice = sum(answers > 1 for *_, answers in packets)
    rows.append(("cut links: packets answered twice", str(twice), "0", twice == 0))
    return rows


def _timeline(packets: Sequence[Packet], phases: Sequence[Phase]) -> Timeline:
    begin_ns = min(at_ns for _, at_ns, _ in packets)
    end_s = (phases[-1].end_ns - begin_ns) / 1e9
    sent_s = np.array([(at_ns - begin_ns) / 1e9 for _, at_ns, answers in packets if answers])
    sent_s = sent_s[sent_s < end_s]
    moments = []
    for phase in phases[1:]:
        at_s = (phase.changed_ns - begin_ns) / 1e9
        for ends in ([phase.name.removesuffix(" cut")] if phase.dead else ["-".join(ends) for ends in CUTS]):
            moments.append(Moment(at_s, at_s, at_s, "fail" if phase.dead else "heal", f"link {ends}", f"link {ends}"))
    return Timeline("type1x1/4: UDP echo between pods, packets answered", end_s, BIN_S,
                    binned(sent_s, None, end_s, BIN_S), tuple(moments))
