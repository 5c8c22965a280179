"""ECMP to a host over its SmartNICs, with a link pulled and an agent hung (paper section 3.2).

    c1 ===1,000 UDP flows=== [tor1] --- s1n1 ---+
                                |------ s1n2 ---+--- s1h       2 x Type2: four SmartNICs per server; the
                                |------ s1n3 ---+              ToR spreads flows to s1h over their ports
                                |------ s1n4 ---+

Which port a flow takes is read from captures at the four ports, phase by phase.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from controller.select_hash import FlowKey, predict
from experiments.captures.frame_fields import UDP, ipv4_of, ports_of
from experiments.captures.pcap_reading import frames
from experiments.clients.flow_probe import ProbeConfig, ProbeResult
from experiments.emulation.running import RunningProcess
from experiments.emulation.switches import lacp_members
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from nodes.ip_stack import UDP_ECHO_PORT
from nodes.team import read_status

FLOWS = 1000
FIRST_PORT = 20_000
PACKETS_PER_S = 2000.0
PHASE_S = 3.0  # six packets of every flow
SETTLE_S = 0.3
SEEN_TIMEOUT_S = 15.0
LIMIT_S = 120.0
SHARE_TOLERANCE = 0.05
LEAST_KEPT = 0.99
# A busy machine may keep the switch from its packets for longer than their buffer lasts, whatever the routing.
MOST_LOST = 0.01

Ways = dict[int, str]  # source port -> switch interface


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time, Unix ns, in which nothing was changed; `dead` is the interface that was out of use."""

    name: str
    start_ns: int
    end_ns: int
    dead: str = ""
    switch_saw_s: float = 0.0  # from the change until the switch counted it
    host_saw_s: float = 0.0


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; no option changes it, it is short. Returns {"holds", "rows", ...}."""
    del options
    result_run = Run("ecmp")
    with Testbed.start(TestbedOptions("type2x2", label="ecmp")) as bed:
        host = bed.inventory.node("s1h")
        ports = [p.interface for p in bed.inventory.ports_of_server(host)]
        client = bed.inventory.node("c1")
        directory = result_run.directory / "captures"
        capture = bed.capture(directory, ports, only=f"udp and dst host {host.ip} and dst port {UDP_ECHO_PORT}")
        probe = bed.start_process("c1", "experiments.clients.flow_probe:run", msgspec.msgpack.encode(ProbeConfig(
            client.ip, host.ip, UDP_ECHO_PORT, FLOWS, FIRST_PORT, PACKETS_PER_S, LIMIT_S)))
        phases = _phases(bed, say)
        result = _finish(probe)
        files = capture.stop()
        group = next(g for g in bed.programs["tor1"].groups if any(b.eth_dst == host.mac for b in g.buckets))
        predicted = {}
        for port in range(FIRST_PORT, FIRST_PORT + FLOWS):
            bucket = predict(group, FlowKey(client.ip, host.ip, UDP, port, UDP_ECHO_PORT))
            predicted[port] = bed.programs["tor1"].interface(next(
                b.port for b in group.buckets if b.bucket_id == bucket))
    ways = ways_by_phase(list(files.values()), phases)
    rows = judge(phases, ways, predicted, result, ports)
    content = {"holds": all(ok for *_, ok in rows), "rows": [(what, got, want) for what, got, want, _ in rows],
               "sent": len(result.packets), "lost": sum(not answers for *_, answers in result.packets),
               "phases": msgspec.to_builtins(phases)}
    result_run.finish(content)
    return content


def _phases(bed: Testbed, say: Callable[[str], None]) -> list[Phase]:
    time.sleep(2 * SETTLE_S)
    phases = [_quiet("all alive")]
    for what, name, kind in (("link down", "s1n2", "link"), ("agent hung", "s1n3", "hang")):
        interface = bed.inventory.ports_of_node(name)[0].interface
        for verb, change, up in ((what, bed.fail, False), (f"after {what}", bed.heal, True)):
            changed = time.monotonic()
            change(kind, name)
            saw_s, host_saw_s = wait_seen(bed, interface, name, up, changed)
            say(f"{name} {verb}: the switch saw it after {saw_s:.2f} s, the host after {host_saw_s:.2f} s")
            time.sleep(SETTLE_S)
            phases.append(_quiet(verb, "" if up else interface, saw_s, host_saw_s))
    return phases


def _quiet(name: str, dead: str = "", saw_s: float = 0.0, host_saw_s: float = 0.0) -> Phase:
    start = time.time_ns()
    time.sleep(PHASE_S)
    return Phase(name, start, time.time_ns(), dead, saw_s, host_saw_s)


def wait_seen(bed: Testbed, interface: str, smartnic: str, up: bool, since: float) -> tuple[float, float]:
    """Wait till switch and host both use (`up`) or avoid the port; return the seconds that each took."""
    member = bed.inventory.pcie_of_smartnic(smartnic).host_interface
    switch_s = host_s = None
    while time.monotonic() - since < SEEN_TIMEOUT_S:
        if switch_s is None and (lacp_members(bed.world).get(interface) and bed.has_carrier(interface)) is up:
            switch_s = time.monotonic() - since
        if host_s is None and (member in read_status(bed.team_status_path("s1h")).egress) is up:
            host_s = time.monotonic() - since
        if switch_s is not None and host_s is not None:
            return switch_s, host_s
        time.sleep(0.005)
    raise ExperimentError(f"{interface} is not {'up' if up else 'down'} after {SEEN_TIMEOUT_S:g} s: "
                          f"switch {switch_s}, host {host_s}")


def _finish(probe: RunningProcess) -> ProbeResult:
    probe.stop()
    return msgspec.msgpack.decode(probe.result(30.0), type=ProbeResult)


def ways_by_phase(files: list[Path], phases: list[Phase]) -> dict[str, dict[int, Counter[str]]]:
    """Read from the captures how many packets of each flow (by source port) left by each interface, per phase."""
    found: dict[str, dict[int, Counter[str]]] = {phase.name: defaultdict(Counter) for phase in phases}
    for time_ns, source, _, frame in frames(files):
        fields = ipv4_of(frame)
        if fields is None:
            continue
        for phase in phases:
            if phase.start_ns <= time_ns < phase.end_ns:
                found[phase.name][ports_of(fields[1])[0]][files[source].stem] += 1
    return found


def judge(phases: list[Phase], ways: dict[str, dict[int, Counter[str]]], predicted: Ways, probe: ProbeResult,
          ports: Collection[str]) -> list[tuple[str, str, str, bool]]:
    """Return (what, measured, wanted, whether it is so) for every claim of section 3.2 that can be checked."""
    rows: list[tuple[str, str, str, bool]] = []

    def row(what: str, got: str, want: str, ok: bool) -> None:
        rows.append((what, got, want, ok))

    split = sum(len(by_port) > 1 for flows in ways.values() for by_port in flows.values())
    row("flows seen on more than one port within a phase", str(split), "0", split == 0)
    first = {flow: by_port.most_common(1)[0][0] for flow, by_port in ways[phases[0].name].items()}
    row("flows seen", str(len(first)), str(FLOWS), len(first) == FLOWS)
    shares = {port: list(first.values()).count(port) / max(1, len(first)) for port in ports}
    even = 1 / len(shares)
    row("share of flows per port", ", ".join(f"{p} {s:.1%}" for p, s in shares.items()),
        f"{even:.0%} +- {SHARE_TOLERANCE:.0%}", all(abs(s - even) <= SHARE_TOLERANCE for s in shares.values()))
    right = sum(predicted[flow] == way for flow, way in first.items())
    row("flows on the port that the hash predicts", str(right), str(FLOWS), right == FLOWS)
    for phase in phases[1:]:
        now = {flow: by_port.most_common(1)[0][0] for flow, by_port in ways[phase.name].items()}
        took = f"switch {phase.switch_saw_s:.2f} s, host {phase.host_saw_s:.2f} s"
        row(f"{phase.name}: seen by", took, f"< {SEEN_TIMEOUT_S:g} s", True)
        if phase.dead:
            others = {flow for flow, way in first.items() if way != phase.dead}
            kept = sum(now.get(flow) == first[flow] for flow in others)
            moved = sum(now.get(flow, phase.dead) != phase.dead for flow in first.keys() - others)
            row(f"{phase.name}: flows of other ports that keep theirs", f"{kept} of {len(others)}",
                f">= {LEAST_KEPT:.0%}", kept >= LEAST_KEPT * len(others))
            row(f"{phase.name}: flows of {phase.dead} that moved", f"{moved} of {FLOWS - len(others)}", "all",
                moved == FLOWS - len(others))
        else:
            back = sum(now.get(flow) == way for flow, way in first.items())
            row(f"{phase.name}: flows on their first port again", str(back), str(FLOWS), back == FLOWS)
        within = [(flow, answers) for flow, sent_ns, answers in probe.packets
                  if phase.start_ns <= sent_ns < phase.end_ns]
        silent = {flow for flow, _ in within} - {flow for flow, answers in within if answers}
        row(f"{phase.name}: flows without any answer once it was seen", str(len(silent)), "0", not silent)
        lost = sum(not answers for _, answers in within)
        row(f"{phase.name}: packets lost once it was seen", f"{lost} of {len(within)}",
            f"<= {MOST_LOST:.0%}", lost <= MOST_LOST * len(within))
    twice = sum(answers > 1 for *_, answers in probe.packets)
    row("packets answered twice", str(twice), "0", twice == 0)
    return rows
