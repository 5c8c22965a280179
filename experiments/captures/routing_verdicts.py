"""Turns what the judge saw into the checks of a RoutingProof.

The spread is judged by chi-square against equal shares of flows, at a chance of ALPHA for a false alarm over all
groups together (Bonferroni); below MIN_EXPECTED flows per port the test says nothing, and so does the check.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from ipaddress import IPv4Address

from scipy.stats import chisquare

from controller.tor_program import TorProgram
from experiments.captures import routing_proof as rp
from experiments.captures.expected_routes import UPLINKS
from experiments.captures.frame_fields import flow_text, mac_bytes, mac_text
from experiments.captures.hash_prediction import BucketCounters, Predictor, counted_by_interface
from experiments.captures.reroutes import NOT_YET_REROUTED
from experiments.captures.routing_judge import RoutingJudge, SwitchTally, capture_name
from experiments.captures.routing_proof import Check, Evidence, Spread
from topologies.inventory import Inventory

ALPHA = 0.001
MIN_EXPECTED = 5


def checks_of(judge: RoutingJudge, inventory: Inventory, predict: Predictor | None,
              programs: Mapping[str, TorProgram] | None, counters: BucketCounters | None,
              spreads: tuple[Spread, ...]) -> tuple[Check, ...]:
    """Return every check, in the order in which a reader wants them."""
    return (_smartnic_ports(judge), _host_flows(judge), _prediction(judge, predict),
            _counters(judge, programs, counters), _spread(spreads), _shared_mac(judge, inventory), _ttl(judge),
            _delivery(judge, inventory), _passing(judge), _requests(judge, inventory))


def spreads_of(judge: RoutingJudge) -> tuple[Spread, ...]:
    """Return how the flows of each group of two or more ports spread over them."""
    spreads = []
    for switch in judge.switches:
        for group, flows in sorted(_undisturbed(judge, switch).items()):
            place = switch.map.place(switch.group_address[group])
            assert place is not None  # the group was made from this place
            if len(place.interfaces) > 1:
                spreads.append(_one_spread(judge, switch, group, flows, sorted(place.interfaces)))
    return tuple(spreads)


def _undisturbed(judge: RoutingJudge, switch: SwitchTally) -> dict[str, dict[bytes, int]]:
    """Return the first port of each flow of a group; of the ways up only while no link between switches was dead."""
    found = switch.first_ports()
    if UPLINKS in found:
        found[UPLINKS] = {flow: port for epoch, groups in sorted(switch.flows.items(), reverse=True)
                          if judge.reroutes.whole(epoch) for flow, port in groups.get(UPLINKS, {}).items()}
    return found


def _one_spread(judge: RoutingJudge, switch: SwitchTally, group: str, flows: dict[bytes, int],
                interfaces: list[str]) -> Spread:
    by_port = Counter(judge.interfaces[index] for flow, index in flows.items() if len(flow) > 9)
    shares = {i: by_port[i] for i in interfaces}
    packets = {i: switch.group_packets[group][i] for i in interfaces}
    missing = [i for i in interfaces if i not in switch.captured]
    p_value, note = None, ""
    if missing:
        note = f"no capture of {', '.join(missing)}"
    elif sum(shares.values()) < MIN_EXPECTED * len(interfaces):
        note = (f"too few flows to judge: {sum(shares.values())} over {len(interfaces)} ports; "
                f"{MIN_EXPECTED * len(interfaces)} needed")
    else:
        p_value = float(chisquare(list(shares.values())).pvalue)
    return Spread(switch.name, group, shares, packets, p_value, note)


def _check(judge: RoutingJudge, name: str, claim: str, judged: int, counts: dict[str, int], note: str) -> Check:
    """Return a check that fails on any finding and is judged if there was anything to judge."""
    found = judge.findings.counts.get(name, Counter())
    verdict = False if found else True if judged else None
    return Check(name, claim, verdict, counts | dict(found), "" if judged else note,
                 tuple(judge.findings.evidence.get(name, ())))


def _smartnic_ports(judge: RoutingJudge) -> Check:
    packets = sum(s.smartnic_packets for s in judge.switches)
    return _check(judge, rp.SMARTNIC_PORTS, "packets for a SmartNIC's IP leave only by that SmartNIC's port", packets,
                  {"packets": packets}, "no packet for a SmartNIC was seen")


def _host_flows(judge: RoutingJudge) -> Check:
    flows = sum(len(f) for s in judge.switches for f in s.first_ports().values())
    return _check(judge, rp.HOST_FLOWS, "each flow that has a choice of ports leaves by exactly one", flows,
                  {"flows": flows}, "no flow to a host or over uplinks was seen")


def _prediction(judge: RoutingJudge, predict: Predictor | None) -> Check:
    as_predicted = 0
    for switch in judge.switches:
        for epoch, groups in switch.flows.items():
            predict_then = predict if judge.reroutes.whole(epoch) else judge.reroutes.predictor(epoch)
            if predict_then is None:
                continue
            for flow, index in (pair for flows in groups.values() for pair in flows.items()):
                interface, expected = judge.interfaces[index], predict_then(switch.name, flow)
                if interface == expected:
                    as_predicted += 1
                else:
                    judge.findings.add(rp.PREDICTION, "otherwise", Evidence(
                        capture_name(interface), 0, 0.0, f"{flow_text(flow)}: left by {interface}; the hash gives "
                                                         f"{expected or 'no live port'}"))
    return _check(judge, rp.PREDICTION, "that port is the one that the select-group hash gives",
                  as_predicted, {"flows as predicted": as_predicted},
                  "no flow to predict" if predict else "the switches' programs are not given")


def _counters(judge: RoutingJudge, programs: Mapping[str, TorProgram] | None,
              counters: BucketCounters | None) -> Check:
    compared: Counter[str] = Counter()
    rerouted = not all(map(judge.reroutes.whole, judge.reroutes.during(judge.first_ns, judge.last_ns)))
    if programs is not None and counters is not None:
        for switch in judge.switches:
            for group, address in switch.group_address.items():
                if group == UPLINKS and rerouted:
                    continue  # their packets are in several groups, of which some are gone with what they had counted
                program = programs.get(switch.name)
                counted = counted_by_interface(program, address, counters) if program else None
                for interface, packets in (counted or {}).items():
                    captured = switch.group_packets[group][interface]
                    compared["buckets"] += 1
                    compared["packets"] += packets
                    if packets != captured and interface in switch.captured:
                        judge.findings.add(rp.COUNTERS, "that differ", Evidence(
                            capture_name(interface), 0, 0.0, f"group {group} of {switch.name}: its bucket counted "
                                                         f"{packets} packets, {captured} were captured"))
    return _check(judge, rp.COUNTERS, "each bucket of a select group counted as many packets as left by its port",
                  compared["buckets"], dict(compared),
                  "the groups' counters are not given" if counters is None else "no counter of a group that was used")


def _spread(spreads: tuple[Spread, ...]) -> Check:
    judged = [s for s in spreads if s.p_value is not None]
    limit = ALPHA / max(1, len(judged))
    uneven = [s for s in judged if s.p_value is not None and s.p_value < limit]
    evidence = tuple(Evidence(s.switch, 0, 0.0, f"group {s.group}: flows {s.flows}, p = {s.p_value:.3g}, below "
                                                f"{limit:.3g}") for s in uneven[:rp.MAX_EVIDENCE])
    lowest = min((s.p_value for s in judged if s.p_value is not None), default=None)
    note = "; ".join(f"{s.group} of {s.switch}: {s.note}" for s in spreads[:3] if s.note) or (
        "no group of several ports was used" if not judged else "")
    if lowest is not None:
        note = f"lowest p-value {lowest:.3g}, chi-square; limit {limit:.3g}" + (f"; {note}" if note else "")
    return Check(rp.SPREAD, "flows spread evenly over the ports of their group", not uneven if judged else None,
                 {"groups judged": len(judged), "flows": sum(sum(s.flows.values()) for s in judged),
                  "uneven": len(uneven)}, note, evidence)


def _shared_mac(judge: RoutingJudge, inventory: Inventory) -> Check:
    nodes = {IPv4Address(n.ip).packed: n for n in inventory.nodes if n.role in ("host", "smartnic")}
    seen: dict[str, set[str]] = defaultdict(set)  # host -> nodes of its server
    packets = 0
    for port in judge.ports.values():
        if port.switch.map.peer_is_switch(port.interface):
            continue  # there it is the other switch's MAC
        for (address, mac), count in port.macs.items():
            node = nodes.get(address)
            if node is None:
                continue
            packets += count
            seen[inventory.host_of(node).name].add(node.name)
            if mac != mac_bytes(node.mac):
                judge.findings.add(rp.SHARED_MAC, "addresses with another MAC", Evidence(
                    capture_name(port.interface), 0, 0.0, f"{count} packets of {node.name} with MAC {mac_text(mac)}; "
                                                          f"its server's is {node.mac}"))
    counts = {"packets": packets, "servers": len(seen),
              "servers with several nodes seen": sum(len(names) > 1 for names in seen.values())}
    return _check(judge, rp.SHARED_MAC, "a server's host and SmartNICs share its one MAC on the wire", packets, counts,
                  "no packet of a server was seen")


def _ttl(judge: RoutingJudge) -> Check:
    transits = sum(s.transits for s in judge.switches)
    return _check(judge, rp.TTL, "every switch decrements the TTL by exactly 1", transits,
                  {"packets in and out": transits}, "no packet was seen both coming in and leaving")


def _delivery(judge: RoutingJudge, inventory: Inventory) -> Check:
    transits = sum(s.transits for s in judge.switches)
    counts = {"packets in and out": transits, "lost": 0, "duplicated": 0, "misrouted": 0,
              "dropped by rule": sum(judge.dropped.values()) - judge.dropped[NOT_YET_REROUTED],
              "answered by a switch": judge.from_switches}
    if judge.dropped[NOT_YET_REROUTED]:
        counts[rp.LOST_AT_CUT] = judge.dropped[NOT_YET_REROUTED]
    check = _check(judge, rp.DELIVERY, "nothing is lost, duplicated or misrouted", transits, counts,
                   "no packet was seen both coming in and leaving")
    unjudged = sum(s.unjudged for s in judge.switches)
    if not unjudged:
        return check
    note = f"{unjudged} sightings not judged: no capture of {_missing(judge, inventory)}"
    return Check(check.name, check.claim, check.verdict, check.counts, note, check.evidence)


def _passing(judge: RoutingJudge) -> Check:
    passed = sum(s.passed for s in judge.smartnics)
    return _check(judge, rp.PASSING, "SmartNICs pass each packet of their host once, with its TTL as it was", passed,
                  {"packets": passed, "SmartNICs watched": len(judge.smartnics)},
                  "no packet passed a SmartNIC" if judge.smartnics else "no SmartNIC was captured on its PCIe side")


def _requests(judge: RoutingJudge, inventory: Inventory) -> Check:
    paths = judge.paths
    counts = {"requests": paths.requests, "followed": paths.followed}
    if judge.cut_off:
        counts["cut off with a link"] = judge.cut_off
    if paths.errors:
        counts["answered by an error"] = paths.errors
    if paths.repeated:
        counts["messages sent again"] = paths.repeated
    if paths.later:
        counts["messages long after the reply"] = paths.later
    missing = _missing(judge, inventory)
    claim = "every request can be followed from its client through its nodes and back"
    if missing and paths.followed < paths.requests:
        return Check(rp.REQUESTS, claim, None, counts, f"no capture of {missing}",
                     tuple(judge.findings.evidence.get(rp.REQUESTS, ())))
    return _check(judge, rp.REQUESTS, claim, paths.requests, counts, "no request was seen")


def _missing(judge: RoutingJudge, inventory: Inventory, shown: int = 5) -> str:
    """Return the switch interfaces without a capture, shortened; "" if there is none."""
    captured = set(judge.interfaces)
    names = [p.interface for p in inventory.ports if p.interface not in captured]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
