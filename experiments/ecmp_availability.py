"""Traffic between two hosts while one SmartNIC of the receiving one after another dies and returns (section 3.2).

    s2h --- s2n1..4 === [tor1] === s1n1..4 --- s1h       2 x Type2; requests from left to right, replies back
                                      ^ loses its power, and gets it back

A flow has four legs: the request's port into and out of the ToR, and the reply's. Read from captures, phase by phase:
flows with no leg over the dead SmartNIC keep all four and lose nothing; the others move, and how long that takes is
measured. `--quick` lets two die, one by one; in full all four do, and then three of them together. After a return in
full it is waited till the host has given the SmartNIC its share of busy flows back (host_network.RESILIENT), so that
what moves at the next death moves because of it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from experiments.captures.frame_fields import ipv4_of, ports_of
from experiments.captures.pcap_reading import frames
from experiments.clients.flow_probe import ProbeConfig, ProbeResult
from experiments.ecmp import wait_seen
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.figures import draw, stored
from experiments.views.scenario_timeline import Moment, Timeline, binned
from nodes.ip_stack import UDP_ECHO_PORT
from topologies.inventory import Inventory

CLUSTER, SENDER, RECEIVER = "type2x2", "s2h", "s1h"
FLOWS, FIRST_PORT, PACKETS_PER_S = 400, 20_000, 1000.0
PHASE_S, SETTLE_S = 3.0, 0.3
GIVEN_BACK_S = 32.0
BIN_S = 0.1  # a hundred packets
LIMIT_S = 300.0
LEAST_KEPT = 0.99
MOST_LOST = 0.01  # of the untouched: a busy machine may keep the switch from packets, whatever the routing

Legs = tuple[str, str, str, str]  # request in, request out, reply in, reply out: interfaces of the ToR
Packet = tuple[int, int, int]  # flow, when it was sent (Unix ns), how often it was answered
Rows = list[tuple[str, str, str, bool]]


class Phase(msgspec.Struct, frozen=True):
    """A stretch in which nothing is changed. Before it, `node` of `interface` died or came back at `changed_ns`.

    `dead`: the interfaces out of use. The switch and the host had seen the change after `switch_s` and `host_s`.
    """

    name: str
    start_ns: int
    end_ns: int
    dead: frozenset[str] = frozenset()
    node: str = ""
    interface: str = ""
    died: bool = False
    changed_ns: int = 0
    switch_s: float = 0.0
    host_s: float = 0.0


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment. Returns {"holds", "rows", ...}; raises ExperimentError if a change is never seen."""
    result_run = Run("ecmp-availability")
    with Testbed.start(TestbedOptions(CLUSTER, label="availability")) as bed:
        inventory = bed.inventory
        source, target = inventory.node(SENDER), inventory.node(RECEIVER)
        ports = [p.interface for host in (source, target) for p in inventory.ports_of_server(host)]
        capture = bed.capture(result_run.directory / "captures", ports, only=f"udp and port {UDP_ECHO_PORT}")
        probe = bed.start_process(SENDER, "experiments.clients.flow_probe:run", msgspec.msgpack.encode(ProbeConfig(
            source.ip, target.ip, UDP_ECHO_PORT, FLOWS, FIRST_PORT, PACKETS_PER_S, LIMIT_S)))
        phases = _phases(bed, options.quick, say)
        probe.stop()
        packets = msgspec.msgpack.decode(probe.result(30.0), type=ProbeResult).packets
        files = capture.stop()
    legs = legs_by_phase(list(files.values()), phases, inventory)
    rows = [*judge_goodput(packets), *judge(phases, legs, packets)]
    timeline = _timeline(packets, phases)
    result_run.write_data([msgspec.to_builtins(b) for b in timeline.bins])
    figures = {"goodput": stored("timeline", timeline)}
    draw(result_run.directory, figures)
    content = {"holds": all(ok for *_, ok in rows), "rows": [row[:3] for row in rows], "quick": options.quick,
               "figures": figures, "sent": len(packets), "lost": sum(not answers for *_, answers in packets),
               "phases": [msgspec.to_builtins(phase) for phase in phases]}
    result_run.finish(content)
    return content


def _phases(bed: Testbed, quick: bool, say: Callable[[str], None]) -> list[Phase]:
    """Let SmartNICs die and return, and wait in between; return what was done when."""
    names = [nic.name for nic in bed.inventory.smartnics_of(bed.inventory.node(RECEIVER))]
    steps = [(verb, name) for name in (names[:2] if quick else names) for verb in ("fail", "heal")]
    if not quick:
        steps += [("fail", name) for name in names[:-1]] + [("heal", name) for name in names[:-1]]
    dead: set[str] = set()
    more_deaths = sum(verb == "fail" for verb, _ in steps)
    time.sleep(1.0)
    phases = [_quiet(Phase("all alive", 0, 0))]
    for verb, name in steps:
        interface = bed.inventory.ports_of_node(name)[0].interface
        changed_ns, since = time.time_ns(), time.monotonic()
        (bed.fail if verb == "fail" else bed.heal)("smartnic", name)
        switch_s, host_s = wait_seen(bed, interface, name, verb == "heal", since)
        (dead.add if verb == "fail" else dead.discard)(interface)
        what = f"{name} {'dies' if verb == 'fail' else 'returns'}"
        say(f"{what}: the switch saw it after {switch_s:.2f} s, the host after {host_s:.2f} s")
        more_deaths -= verb == "fail"
        time.sleep(GIVEN_BACK_S if verb == "heal" and more_deaths and not quick else SETTLE_S)
        phases.append(_quiet(Phase(what, 0, 0, frozenset(dead), name, interface, verb == "fail", changed_ns, switch_s,
                                   host_s)))
    return phases


def _quiet(phase: Phase) -> Phase:
    start_ns = time.time_ns()
    time.sleep(PHASE_S)
    return msgspec.structs.replace(phase, start_ns=start_ns, end_ns=time.time_ns())


def legs_by_phase(files: Sequence[Path], phases: Sequence[Phase], inventory: Inventory) -> list[dict[int, Legs]]:
    """Read from captures which way each flow (by source port) took in each phase; "" for a leg that was not seen.

    A flow on several ways within a phase has them joined by "+", and so is none that was kept.
    """
    target = {p.interface for p in inventory.ports_of_server(inventory.node(RECEIVER))}
    found: list[dict[int, list[set[str]]]] = [defaultdict(lambda: [set(), set(), set(), set()]) for _ in phases]
    spans = [(phase.start_ns, phase.end_ns) for phase in phases]
    at = 0
    for time_ns, source, _, frame in frames(list(files)):
        while at < len(spans) and time_ns >= spans[at][1]:
            at += 1
        if at == len(spans):
            break
        fields = ipv4_of(frame)
        if fields is None or time_ns < spans[at][0]:
            continue
        begins, ends = ports_of(fields[1])
        interface = files[source].stem
        request = ends == UDP_ECHO_PORT
        leg = int(interface in target) if request else 2 + int(interface not in target)
        found[at][begins if request else ends][leg].add(interface)
    return [{flow: _legs(ways) for flow, ways in flows.items()} for flows in found]


def _legs(ways: list[set[str]]) -> Legs:
    one, two, three, four = ("+".join(sorted(way)) for way in ways)
    return one, two, three, four


def judge_goodput(packets: Sequence[Packet]) -> Rows:
    """Return rows about all packets: answered in each BIN_S, by when they were sent, and none twice."""
    first = min(sent for _, sent, _ in packets)
    answered: dict[int, int] = defaultdict(int)
    for _, sent_ns, answers in packets:
        answered[int((sent_ns - first) / 1e9 / BIN_S)] += answers > 0
    bins = [answered[i] for i in range(max(answered))]  # the last one is not whole
    twice = sum(answers > 1 for *_, answers in packets)
    return [(f"least goodput in {BIN_S:g} s", f"{min(bins) / BIN_S:.0f} of {PACKETS_PER_S:.0f} packets/s", "> 0",
             min(bins) > 0),
            ("packets answered twice", str(twice), "0", twice == 0)]


def judge(phases: Sequence[Phase], legs: Sequence[dict[int, Legs]], packets: Sequence[Packet]) -> Rows:
    """Return (what, measured, wanted, whether it is so) for each death and return."""
    rows: Rows = [("flows seen on all four legs", str(sum(all(way) for way in legs[0].values())), str(FLOWS),
                   len(legs[0]) == FLOWS and all(all(way) for way in legs[0].values()))]
    for i, phase in enumerate(phases[1:], start=1):
        before, now = legs[i - 1], legs[i]
        touched = {flow for flow, ways in before.items() if phase.died and phase.interface in ways}
        window = [p for p in packets if phase.changed_ns <= p[1] < phase.end_ns]
        what = phase.name
        rows.append((f"{what}: seen by", f"switch {phase.switch_s:.2f} s, host {phase.host_s:.2f} s", "", True))
        if phase.died:
            rows += _death(what, phase, before, now, touched, window)
        else:
            back = sum(now.get(flow, ("",) * 4)[1] == ways[1] for flow, ways in legs[0].items())
            if not phase.dead:
                rows.append((f"{what}: flows that the ToR sends by their first port again", str(back),
                             str(len(legs[0])), back == len(legs[0])))
            lost = _lost(window)
            rows.append((f"{what}: packets lost", f"{lost} of {len(window)}", f"<= {MOST_LOST:.0%}",
                         lost <= MOST_LOST * len(window)))
        on_dead = sum(any(leg in phase.dead for leg in ways) for ways in now.values())
        rows.append((f"{what}: flows on a dead SmartNIC once it was seen", str(on_dead), "0", on_dead == 0))
        silent = len(before.keys() - {flow for flow, sent_ns, answers in window
                                                  if sent_ns >= phase.start_ns and answers})
        rows.append((f"{what}: flows without any answer once it was seen", str(silent), "0", silent == 0))
    return rows


def _death(what: str, phase: Phase, before: dict[int, Legs], now: dict[int, Legs], touched: set[int],
           window: Iterable[Packet]) -> Rows:
    living = before.keys() - touched
    kept = sum(now.get(flow) == before[flow] for flow in living)
    mine = [p for p in window if p[0] in living]
    lost = _lost(mine)
    gone = [sent_ns for flow, sent_ns, answers in window if flow in touched and not answers]
    took_s = (max(gone) - phase.changed_ns) / 1e9 if gone else 0.0
    return [(f"{what}: flows of the living that keep all four legs", f"{kept} of {len(living)}",
             f">= {LEAST_KEPT:.0%}", kept >= LEAST_KEPT * len(living)),
            (f"{what}: packets of the living lost, from the death on", f"{lost} of {len(mine)}", f"<= {MOST_LOST:.0%}",
             lost <= MOST_LOST * len(mine)),
            (f"{what}: rebalanced, the last packet of its {len(touched)} flows lost after",
             f"{took_s:.3f} s, {len(gone)} in all", f"< {PHASE_S:g} s", took_s < PHASE_S)]


def _lost(packets: Iterable[Packet]) -> int:
    return sum(not answers for *_, answers in packets)


def _timeline(packets: Sequence[Packet], phases: Sequence[Phase]) -> Timeline:
    """Return goodput over time; there is no latency in it, only when answered packets were sent."""
    zero = packets[0][1]
    answered = np.array([(sent_ns - zero) / 1e9 for _, sent_ns, answers in packets if answers])
    end_s = (packets[-1][1] - zero) / 1e9
    moments = []
    for phase in phases[1:]:
        at_s, verb = (phase.changed_ns - zero) / 1e9, "fail" if phase.died else "heal"
        moments.append(Moment(at_s, at_s, at_s, verb, f"{verb} smartnic {phase.node}", phase.node))
    return Timeline(f"{CLUSTER}: UDP echo between {SENDER} and {RECEIVER}, packets answered", end_s, BIN_S,
                    binned(answered, None, end_s, BIN_S), tuple(moments))
