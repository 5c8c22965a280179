"""Watches the frames of all captures go by, once, and keeps what the verdict needs.

Every frame is placed on its switch and direction: the switch sent it if its Ethernet source is the switch's own
MAC. Memory: what `packet_matching` and `request_paths` keep, and about 200 bytes for each flow that had a choice
of ports; nothing else grows with the captures.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from ipaddress import IPv4Address

from experiments.captures.expected_routes import SwitchMap
from experiments.captures.first_fragment import first_fragment
from experiments.captures.frame_fields import UDP, flow_text, ipv4_of, kind_of, ports_of, protocol_name
from experiments.captures.packet_matching import Matcher, Sighting
from experiments.captures.request_paths import Lost, RequestPaths, Step
from experiments.captures.reroutes import Reroutes
from experiments.captures.routing_proof import (
    DELIVERY,
    HOST_FLOWS,
    MAX_EVIDENCE,
    PREDICTION,
    REQUESTS,
    SMARTNIC_PORTS,
    TTL,
    Evidence,
)
from experiments.captures.smartnic_passing import sides_of
from nodes.errors import WireError
from nodes.messages import LAYOUTS, MAGIC, PROBE_KINDS, DataMessage, decode
from topologies.addressing import DATA_PORT
from topologies.inventory import Inventory

WINDOW_NS = 5_000_000_000
SETTLE_NS = 250_000_000
_MAGIC = MAGIC.to_bytes(2, "big")


def capture_name(interface: str) -> str:
    return f"{interface}.pcap"


class Findings:
    """What speaks against each check: every case counted, the first few kept as evidence."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.evidence: dict[str, list[Evidence]] = defaultdict(list)

    def add(self, check: str, case: str, evidence: Evidence) -> None:
        self.counts[check][case] += 1
        kept = self.evidence[check]
        if len(kept) < MAX_EVIDENCE:
            kept.append(evidence)


class SwitchTally:
    """What was seen on one switch. `complete` says that every one of its ports was captured."""

    def __init__(self, map_: SwitchMap, captured: frozenset[str]) -> None:
        self.map = map_
        self.name = map_.switch.name
        self.captured = captured & map_.ports.keys()
        self.complete = self.captured == map_.ports.keys()
        self.matcher = Matcher()
        self.transits = 0
        self.unjudged = 0
        self.smartnic_packets = 0
        # epoch -> group -> flow -> index of the port it left by
        self.flows: dict[int, dict[str, dict[bytes, int]]] = defaultdict(lambda: defaultdict(dict))
        self.moved: set[tuple[int, bytes]] = set()
        self.group_packets: dict[str, Counter[str]] = defaultdict(Counter)  # group -> interface -> packets
        self.group_address: dict[str, bytes] = {}  # group -> one of the addresses behind it

    def first_ports(self) -> dict[str, dict[bytes, int]]:
        """Return for each group the port that each flow left by first."""
        found: dict[str, dict[bytes, int]] = {}
        for _, groups in sorted(self.flows.items()):
            for group, flows in groups.items():
                found[group] = flows | found.get(group, {})
        return found

    def judges(self, flow: bytes) -> bool:
        """Whether each port where a packet of `flow` may come in or leave was captured."""
        if self.complete:
            return True
        source, destination = self.map.place(flow[:4]), self.map.place(flow[4:8])
        return (source is not None and destination is not None and source.interfaces <= self.captured
                and destination.interfaces <= self.captured)


class PortTally:
    """What was seen in one capture of a switch port."""

    def __init__(self, switch: SwitchTally, interface: str) -> None:
        self.switch = switch
        self.interface = interface
        self.came_in = 0
        self.left = 0
        self.macs: Counter[tuple[bytes, bytes]] = Counter()  # (IP behind the port, its MAC)


class RoutingJudge:
    """Takes frames in order of time. `interfaces[i]` is what source i of the frames captured; those of them that
    are switch ports have a tally in `ports`, by i. `reroutes` says what was in force when; nothing changed without it.
    """

    def __init__(self, inventory: Inventory, interfaces: list[str], window_ns: int = WINDOW_NS,
                 reroutes: Reroutes | None = None) -> None:
        self.reroutes = Reroutes(inventory, None) if reroutes is None else reroutes
        self.between_epochs = 0  # packets of flows with a choice, when either of two programs may have been in force
        self.cut_off = 0  # requests last seen then, and never answered
        switch_of = {p.interface: p.switch for p in inventory.ports}
        captured = frozenset(interfaces)
        names = dict.fromkeys(switch_of[i] for i in interfaces if i in switch_of)
        tallies = {n: SwitchTally(SwitchMap(inventory, inventory.switch(n)), captured) for n in names}
        self.interfaces = interfaces
        self.ports = {index: PortTally(tallies[switch_of[i]], i)
                      for index, i in enumerate(interfaces) if i in switch_of}
        self.switches = list(tallies.values())
        self.sides = sides_of(inventory, {i: index for index, i in enumerate(interfaces)})
        self.smartnics = list({s.name: s for s, _ in self.sides.values()}.values())
        self.node_frames: Counter[str] = Counter()  # frames of captures that are no switch port's
        self.findings = Findings()
        self.kinds: Counter[str] = Counter()
        self.protocols: Counter[int] = Counter()
        self.dropped: Counter[str] = Counter()
        self.from_switches = 0
        self.paths = RequestPaths(frozenset(s.name for s in inventory.switches))
        self.first_ns = self.last_ns = 0
        self._window_ns = window_ns

    def take_all(self, frames: Iterable[tuple[int, int, int, bytes]]) -> None:
        """Judge all `frames`, the last windows included."""
        next_window = next_settling = None
        for time_ns, source, number, frame in frames:
            if next_window is None or next_settling is None:
                self.first_ns = time_ns
                next_window, next_settling = time_ns + self._window_ns, time_ns + SETTLE_NS
            if time_ns >= next_settling:
                self._note_lost(self.paths.settle())
                next_settling = time_ns + SETTLE_NS
                if time_ns >= next_window:
                    self._next_window()
                    next_window = time_ns + self._window_ns
            self.last_ns = max(self.last_ns, time_ns)
            self._take(time_ns, source, number, frame)
        self._next_window()
        self._next_window()
        self._note_lost(self.paths.finish())

    def _take(self, time_ns: int, source: int, number: int, frame: bytes) -> None:
        fields = ipv4_of(frame)
        if fields is not None and source in self.sides:
            smartnic, inside = self.sides[source]
            smartnic.take(inside, fields[0], Sighting(time_ns, source, number, fields[1], fields[2]), self.add)
        port = self.ports.get(source)
        if port is None:
            self.node_frames[self.interfaces[source]] += 1
            return
        switch = port.switch
        departing = frame[6:12] == switch.map.mac
        if departing:
            port.left += 1
        else:
            port.came_in += 1
        if fields is None:
            self.kinds[kind_of(frame)] += 1
            return
        identity, flow, ttl, start, end, fragment = fields
        self.protocols[flow[8]] += 1
        came: Sighting | None
        left: Sighting | None
        if departing:
            left = Sighting(time_ns, source, number, flow, ttl)
            self._note_departure(switch, port, left, frame)
            if flow[:4] == switch.map.gateway:
                self.from_switches += 1
                return
            if not switch.judges(flow):
                switch.unjudged += 1
                return
            came = switch.matcher.left(identity, left)
        else:
            refusal = switch.map.refusal(port.interface, flow, ttl)
            if not refusal:
                port.macs[flow[:4], frame[6:12]] += 1
            if not switch.judges(flow):
                switch.unjudged += 1
                return
            came = Sighting(time_ns, source, number, flow, ttl, refusal)
            left = switch.matcher.arrived(identity, came)
        if came is not None and left is not None:
            self._note_transit(switch, came, left)
            if flow[8] == UDP and len(flow) > 9:
                self._note_message(switch, identity, came, left, frame[start + 8:end], fragment)

    def _note_departure(self, switch: SwitchTally, port: PortTally, sighting: Sighting, frame: bytes) -> None:
        flow = sighting.flow
        place = switch.map.place(flow[4:8])
        if place is None or port.interface not in place.interfaces:
            where = "nobody" if place is None else f"{place.node.name}, behind {', '.join(sorted(place.interfaces))}"
            self.add(DELIVERY, "misrouted", sighting, f"left by {port.interface}; its destination is {where}")
            if place is not None and place.node.role == "smartnic" and not place.group:
                switch.smartnic_packets += 1
                self.add(SMARTNIC_PORTS, "at another port", sighting, f"for {place.node.name} left by {port.interface}")
            if place is None or not place.group:
                return
        elif place.node.role == "smartnic" and not place.group:
            switch.smartnic_packets += 1
        port.macs[flow[4:8], frame[:6]] += 1
        if place.group:
            group = place.group
            self._note_choice(switch, group, sighting)
            switch.group_packets[group][port.interface] += 1
            switch.group_address.setdefault(group, flow[4:8])

    def _note_choice(self, switch: SwitchTally, group: str, sighting: Sighting) -> None:
        flow, interface, epochs = sighting.flow, self.interfaces[sighting.port], self.reroutes.at(sighting.time_ns)
        if len(epochs) > 1:
            self.between_epochs += 1
            allowed = set(self.reroutes.predictions(epochs, switch.name, flow))
            if allowed and interface not in allowed:
                self.add(PREDICTION, "otherwise", sighting, f"left by {interface}; before or after the reroute the "
                                                            f"hash gives {', '.join(sorted(map(str, allowed)))}")
            return
        first = switch.flows[epochs[0]][group].setdefault(flow, sighting.port)
        if first != sighting.port and (epochs[0], flow) not in switch.moved:
            switch.moved.add((epochs[0], flow))
            self.add(HOST_FLOWS, "on several ports", sighting,
                     f"left by {interface}, earlier by {self.interfaces[first]}")

    def _note_transit(self, switch: SwitchTally, came: Sighting, left: Sighting) -> None:
        switch.transits += 1
        if came.refusal:
            self.add(DELIVERY, "forwarded against a rule", left,
                     f"came in by {self.interfaces[came.port]} and was forwarded in spite of: {came.refusal}")
        elif came.port == left.port:
            self.add(DELIVERY, "misrouted", left, f"left by {self.interfaces[left.port]}, where it came in")
        if came.ttl - left.ttl != 1:
            self.add(TTL, "not by 1", left, f"TTL {came.ttl} came in, TTL {left.ttl} left {switch.name}")

    def _note_message(self, switch: SwitchTally, identity: int, came: Sighting, left: Sighting, payload: bytes,
                      fragment: bool) -> None:
        flow = came.flow
        first_hop = not switch.map.peer_is_switch(self.interfaces[came.port])  # count each message once
        if payload[:2] != _MAGIC:
            self.kinds["other UDP on the data port"] += first_hop and ports_of(flow)[1] == DATA_PORT
            return
        try:
            message = first_fragment(payload) if fragment else decode(payload)
        except WireError:
            self.kinds["malformed E3 message"] += first_hop
            return
        self.kinds[f"E3 {LAYOUTS[message.kind].name}"] += first_hop
        if not isinstance(message, DataMessage) or message.kind in PROBE_KINDS:
            return  # channels among themselves: no step of a request
        source, destination = switch.map.place(flow[:4]), switch.map.place(flow[4:8])
        if source is None or destination is None:
            return  # spoofed and forwarded: `delivery` has it already
        ports = switch.map.ports
        same = hash((message.channel, message.session, message.sequence, message.request_id, flow[:8]))
        self.paths.note(message.request_id, str(IPv4Address(message.client_ip)), Step(
            came.time_ns, identity, ports[self.interfaces[came.port]].peer, switch.name,
            ports[self.interfaces[left.port]].peer, source.node, destination.node, message.kind, same))

    def _next_window(self) -> None:
        for switch in self.switches:
            given_up = switch.matcher.next_window()
            for sighting in given_up.never_left:
                interface = self.interfaces[sighting.port]
                excuse = sighting.refusal or self.reroutes.excuse(switch.name, interface, sighting.flow[4:8],
                                                                  sighting.time_ns)
                if excuse:
                    self.dropped[excuse] += 1
                else:
                    self.add(DELIVERY, "lost", sighting,
                             f"came in by {interface} and never left {switch.name}")
            for sighting in given_up.duplicated:
                self.add(DELIVERY, "duplicated", sighting,
                         f"left {switch.name} by {self.interfaces[sighting.port]} once more")
            for sighting in given_up.never_came:
                self.add(DELIVERY, "from nowhere", sighting,
                         f"left {switch.name} by {self.interfaces[sighting.port]} and never came in")
        for smartnic in self.smartnics:
            smartnic.next_window(self.add)

    def _note_lost(self, lost: list[Lost]) -> None:
        for request in lost:
            if len(self.reroutes.at(request.time_ns)) > 1:
                self.cut_off += 1
                continue
            self.findings.add(REQUESTS, "not followed",
                              Evidence("all captures", 0, self._since_start(request.time_ns), request.what))

    def add(self, check: str, case: str, sighting: Sighting, what: str) -> None:
        self.findings.add(check, case, Evidence(capture_name(self.interfaces[sighting.port]), sighting.number,
                                                self._since_start(sighting.time_ns),
                                                f"{flow_text(sighting.flow)}: {what}"))

    def kinds_of_frames(self) -> dict[str, int]:
        """Return captured frames by kind, IPv4 by protocol; E3 messages count once, at their first switch."""
        protocols = {protocol_name(bytes(8) + bytes([p])): count for p, count in sorted(self.protocols.items())}
        return protocols | {kind: count for kind, count in sorted(self.kinds.items()) if count}

    def _since_start(self, time_ns: int) -> float:
        return (time_ns - self.first_ns) / 1e9
