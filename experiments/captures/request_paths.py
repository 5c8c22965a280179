"""Follows every request of the E3 wire format over the switches, from its client through its nodes and back.

A path is written as its stations in order: `c1 > s1n1 > s2n1 > c1`. In a port path a host stands with the NIC by
which the packet reached it and, where it is another, the one by which it left (`s1n2+s1h+s1n1`), and the switches
stand in between where there are several. `~` is a step that no switch sees, over PCIe inside one server; `|` starts
another branch of a request that forked. A message that its channel sent again is one step: its first whole way counts.
A branch that goes on long after the reply is followed from where the request had been, and counted beside its path.
Memory: the requests of two settling intervals, those unanswered, the last 2 x REMEMBERED messages, and where the last
2 x REMEMBERED requests have been.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from nodes.messages import KIND_ERROR, KIND_REQUEST
from topologies.inventory import NodeEntry

MAX_SHAPES = 1000
REMEMBERED = 1 << 17  # messages of closed requests, twice: a channel may send again what arrived long ago; so requests
OTHER_SHAPES = "other paths"


class Step(NamedTuple):
    """A message's way through one switch: from what hangs on the port it came in by to what hangs on the other.

    `message` is the same for every copy that its channel sent from `source` to `destination`.
    """

    time_ns: int
    identity: int
    came_from: str
    switch: str
    went_to: str
    source: NodeEntry
    destination: NodeEntry
    kind: int
    message: int


class Lost(NamedTuple):
    """A request whose path breaks off or joins nothing; `time_ns` is where it was last seen."""

    request_id: int
    time_ns: int
    what: str


@dataclass(slots=True)
class _Request:
    client_ip: str
    steps: list[Step] = field(default_factory=list)
    answered: bool = False


class RequestPaths:
    """The requests now on their way, and the paths of those that are done. `switches` is how many there are."""

    def __init__(self, switches: frozenset[str]) -> None:
        self.node_paths: Counter[str] = Counter()
        self.port_paths: Counter[str] = Counter()
        self.requests = 0
        self.followed = 0
        self.errors = 0
        self.repeated = 0
        self.later = 0
        self._closed: set[int] = set()  # messages of requests that are done
        self._closed_before: set[int] = set()
        self._reached: dict[int, frozenset[str]] = {}  # the servers and clients where requests that are done have been
        self._reached_before: dict[int, frozenset[str]] = {}
        self._same: dict[frozenset[str], frozenset[str]] = {}  # one set for all requests that were in the same places
        self._switches = switches
        self._open: dict[int, _Request] = {}
        self._answered: list[int] = []
        self._settling: list[int] = []

    def note(self, request_id: int, client_ip: str, step: Step) -> None:
        """Add one step of `request_id`, which `client_ip` asked for; steps may come slightly out of order."""
        request = self._open.get(request_id)
        if request is None:
            if step.message in self._closed or step.message in self._closed_before:
                self.repeated += step.came_from not in self._switches
                return
            if step.source.ip != client_ip and self._goes_on(request_id, step):
                return
            request = self._open[request_id] = _Request(client_ip)
        request.steps.append(step)
        if step.kind != KIND_REQUEST and step.destination.ip == client_ip and not request.answered:
            request.answered = True
            self._answered.append(request_id)

    def _goes_on(self, request_id: int, step: Step) -> bool:
        """Whether `step` is one more of a request that is done, from a node that it had reached."""
        reached = self._reached.get(request_id) or self._reached_before.get(request_id)
        if reached is None or _server(step.source) not in reached:
            return False
        self.later += step.came_from not in self._switches
        self._closed.add(step.message)
        self._remember(request_id, reached | {_server(step.destination)})
        return True

    def _remember(self, request_id: int, reached: frozenset[str]) -> None:
        if len(self._reached) >= REMEMBERED:
            self._reached_before, self._reached, self._same = self._reached, {}, {}
        self._reached[request_id] = self._same.setdefault(reached, reached)

    def settle(self) -> list[Lost]:
        """Close the requests that were answered before the last call; returns those that cannot be followed."""
        lost = self._close(self._settling)
        self._settling, self._answered = self._answered, []
        return lost

    def finish(self) -> list[Lost]:
        """Close every request, answered or not."""
        return self._close(list(self._open))

    def _close(self, request_ids: list[int]) -> list[Lost]:
        lost = []
        for request_id in request_ids:
            request = self._open.pop(request_id)
            steps = sorted(request.steps, key=lambda s: s.time_ns)
            self.requests += 1
            self.errors += any(s.kind == KIND_ERROR for s in steps)
            if len(self._closed) >= REMEMBERED:
                self._closed_before, self._closed = self._closed, set()
            self._closed.update(s.message for s in steps)
            self._remember(request_id, frozenset(_server(n) for s in steps for n in (s.source, s.destination)))
            nodes, ports, problem = self._path(steps, request.client_ip)
            if not problem and not request.answered:
                problem = "no reply was seen"
            if problem:
                lost.append(Lost(request_id, steps[-1].time_ns, f"request 0x{request_id:x}: {ports}: {problem}"))
                continue
            self.followed += 1
            for paths, path in ((self.node_paths, nodes), (self.port_paths, ports)):
                paths[path if path in paths or len(paths) < MAX_SHAPES else OTHER_SHAPES] += 1
        return lost

    def _path(self, steps: list[Step], client_ip: str) -> tuple[str, str, str]:
        """Return the path by nodes, by ports, and what is wrong with it ("" if nothing)."""
        hops, problem = self._hops(steps)
        first = hops[0][0]
        if first.source.role != "client" or first.source.ip != client_ip:
            problem = problem or f"it starts at {first.source.name}, and {client_ip} is to get the reply"
        nodes = first.source.name
        ports = _station(first.source, first.came_from)
        at, at_nic, reached = first.source, first.came_from, {first.source.name}
        for hop in hops:
            source, nic = hop[0].source, hop[0].came_from
            if source.name == at.name:
                ports += f"+{nic}" if nic != at_nic else ""
            else:
                inside = at.server and (source.rack, source.server) == (at.rack, at.server)
                if not inside and source.name not in reached:
                    problem = problem or f"it goes on from {source.name}, which it had not reached"
                joint = " ~ " if inside else " | "
                nodes += joint + source.name
                ports += joint + _station(source, nic)
            at, at_nic = hop[-1].destination, hop[-1].went_to
            reached |= {source.name, at.name}
            nodes += f" > {at.name}"
            crossed = [s.switch for s in hop] if len(self._switches) > 1 else []
            ports += "".join(f" > {name}" for name in [*crossed, _station(at, at_nic)])
        return nodes, ports, problem

    def _hops(self, steps: list[Step]) -> tuple[list[list[Step]], str]:
        """Return the steps of each message together, node to node, and the first gap between switches."""
        hops: list[list[Step]] = []
        gaps: dict[int, str] = {}  # by id of the hop
        between: dict[int, list[Step]] = {}  # messages now between two switches, by identity
        for step in steps:
            if step.came_from not in self._switches:
                hop = [step]
                hops.append(hop)
            elif step.identity in between and (between[step.identity][-1].switch,
                                               between[step.identity][-1].went_to) == (step.came_from, step.switch):
                hop = between.pop(step.identity)
                hop.append(step)
            else:
                hop = [step]
                hops.append(hop)
                gaps[id(hop)] = f"{step.switch} got it from {step.came_from}, which was not seen to send it there"
            if step.went_to in self._switches:
                between[step.identity] = hop
        for hop in between.values():
            gaps.setdefault(id(hop), f"{hop[-1].switch} sent it to {hop[-1].went_to}, which was not seen to pass it on")
        kept: dict[int, list[Step]] = {}  # of each message the first copy that came through, else the first
        for hop in hops:
            other = kept.setdefault(hop[0].message, hop)
            if other is not hop:
                self.repeated += 1
                if id(other) in gaps and id(hop) not in gaps:
                    kept[hop[0].message] = hop
        return list(kept.values()), next((gaps[id(hop)] for hop in kept.values() if id(hop) in gaps), "")


def _server(node: NodeEntry) -> str:
    """Return what a request has reached with `node`: all of its server, as no switch sees PCIe."""
    return f"{node.rack}/{node.server}" if node.server else node.name


def _station(node: NodeEntry, neighbour: str) -> str:
    return node.name if neighbour == node.name else f"{neighbour}+{node.name}"
