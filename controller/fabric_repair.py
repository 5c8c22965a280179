"""What each switch of a fat tree must do while links between switches are dead: send nothing to where it ends.

A group sees its own ports only. When agg1 loses its link to tor1, racks of other pods would go on sending rack 1 a
share of their flows by agg1, where it ends:

    tor3 -> agg3 -> core1 -> agg1 -x- tor1        tor3's group for rack 1 leaves agg3 out; agg3, core1 and agg1 have no
                                                  way left to rack 1 and drop what still comes, by a rule with a name

A way leads up, then down, never up again: by its routes and by the rules that let nothing that came down go up, at
every moment, so switches that change one after the other make no loop. What remains of a group keeps its hash parameter
and its bucket ids, so flows of the ways that remain stay where they are (rendezvous hashing, see select_hash). A group
is never changed: another one stands beside it, under an id that says what is left out, and the route points there.
A switch's own dead port needs nothing: its groups watch that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import NamedTuple, TypeAlias

from controller.tor_program import Bucket, EcmpGroup, IpRoute, TorProgram

LeftOut: TypeAlias = frozenset[int]  # places of buckets in a group, from 0


class End(NamedTuple):
    """One end of a link between switches. A link is dead when one of its ends is."""

    switch: str
    port: int


@dataclass(frozen=True, slots=True)
class Repair:
    """What all switches must do, and in words what that changes.

    `dead` names the ends of links that are dead, by interface; `reroutes` says for each switch that differs how.
    """

    programs: dict[str, TorProgram]
    dead: tuple[str, ...] = ()
    reroutes: dict[str, tuple[str, ...]] | None = None


def links_of(programs: Mapping[str, TorProgram]) -> dict[End, End]:
    """Return the other end of each end of a link between switches, as routes and groups lead there by MAC."""
    name_of = {p.mac: p.switch for p in programs.values()}
    towards: dict[tuple[str, str], End] = {}
    for name, program in programs.items():
        hops = [(b.port, b.eth_dst) for g in program.groups for b in g.buckets]
        hops += [(r.port, r.eth_dst) for r in program.routes if r.port is not None]
        towards |= {(name, name_of[mac]): End(name, port) for port, mac in hops if mac in name_of}
    return {end: towards[peer, name] for (name, peer), end in towards.items() if (peer, name) in towards}


def ends_of(programs: Mapping[str, TorProgram], interfaces: Collection[str]) -> frozenset[End]:
    """Return the ends of links between switches that are called `interfaces`; others are left out."""
    return frozenset(end for end in links_of(programs) if programs[end.switch].interface(end.port) in interfaces)


def repair(programs: Mapping[str, TorProgram], dead: Collection[End]) -> Repair:
    """Return what the switches of `programs` must do while `dead` ends of links are.

    What is no end of a link between switches is not looked at. With nothing dead the programs are as they were.
    """
    fabric = _Fabric(programs, frozenset(dead))
    if not fabric.dead:
        return Repair(dict(programs))
    repaired, reroutes = {}, {}
    for name, program in programs.items():
        repaired[name], said = _repaired(program, fabric)
        if said:
            reroutes[name] = tuple(said)
    return Repair(repaired, tuple(sorted(programs[e.switch].interface(e.port) for e in fabric.dead_ends)), reroutes)


class _Fabric:
    """Which racks can still be reached from where."""

    def __init__(self, programs: Mapping[str, TorProgram], dead: frozenset[End]) -> None:
        self._links = links_of(programs)
        self.dead_ends = dead & self._links.keys()
        self.dead = self.dead_ends | {self._links[end] for end in self.dead_ends}
        self._programs = programs
        self._exact = {name: {r.prefix: r for r in p.routes} for name, p in programs.items()}
        self.racks: dict[str, str] = {}  # prefix -> name
        for name, program in programs.items():
            for route in program.routes:
                if route.port is not None and End(name, route.port) in self._links:
                    self.racks[route.prefix] = route.name
        self._known: dict[tuple[str, str], bool] = {}

    def peer(self, end: End) -> str | None:
        other = self._links.get(end)
        return None if other is None else other.switch

    def ways_up(self, name: str) -> tuple[IpRoute, EcmpGroup] | None:
        """Return the route and group by which `name` sends up what is not below it; None where it does not."""
        for route in self._programs[name].routes:
            if route.group is not None:
                group = self._programs[name].group(route.group)
                if all(End(name, b.port) in self._links for b in group.buckets):
                    return route, group
        return None

    def has_own_route(self, name: str, rack: str) -> bool:
        return rack in self._exact[name]

    def leads(self, name: str, rack: str) -> bool:
        """Say whether anything that `name` gets for `rack`, going the way it would, can still arrive."""
        key = name, rack
        if key not in self._known:
            self._known[key] = False  # for programs that lead in a circle
            self._known[key] = self._find(name, rack)
        return self._known[key]

    def _find(self, name: str, rack: str) -> bool:
        route = self._exact[name].get(rack)
        if route is not None and route.port is not None:
            return self.passes(End(name, route.port), rack)
        if route is not None:
            return route.group is None  # the rack's own ToR
        up = self.ways_up(name)
        return up is not None and any(self.passes(End(name, b.port), rack) for b in up[1].buckets)

    def passes(self, end: End, rack: str) -> bool:
        peer = self.peer(end)
        return end not in self.dead and (peer is None or self.leads(peer, rack))

    def left_out(self, name: str, bucket: Bucket, rack: str = "") -> bool:
        """Say whether `bucket` must not be in a group, be it that its port is up: its peer sees no link, or no way on.

        A port that is down itself is no reason: the group watches it, and takes it back when it is up again.
        """
        end = End(name, bucket.port)
        if end in self.dead and end not in self.dead_ends:
            return True
        peer = self.peer(end)
        return bool(rack) and peer is not None and not self.leads(peer, rack)


def _repaired(program: TorProgram, fabric: _Fabric) -> tuple[TorProgram, list[str]]:
    said: list[str] = []
    routes: list[IpRoute] = []
    for route in program.routes:
        end = None if route.port is None else End(program.switch, route.port)
        if end is not None and fabric.peer(end) is not None and not fabric.passes(end, route.prefix):
            said.append(f"no way left to {route.name}")
            route = IpRoute(said[-1], route.prefix)
        routes.append(route)
    up = fabric.ways_up(program.switch)
    if up is None:
        return (replace(program, routes=tuple(routes)), said) if said else (program, said)
    route, group = up
    usual = _left_out(program, group, fabric)
    groups = {group.group_id: group}
    if usual != frozenset():
        routes[routes.index(route)] = _way_up(program, route, group, usual, groups, said)
    for rack, name in fabric.racks.items():
        if fabric.has_own_route(program.switch, rack) or not _covers(route.prefix, rack):
            continue
        left_out = _left_out(program, group, fabric, rack)
        if left_out != usual:
            routes.append(_way_up(program, IpRoute(name, rack), group, left_out, groups, said))
    if not said:
        return program, said
    added = [g for g in groups.values() if g.group_id != group.group_id]
    return replace(program, routes=tuple(routes), groups=(*program.groups, *added)), said


def _left_out(program: TorProgram, group: EcmpGroup, fabric: _Fabric, rack: str = "") -> LeftOut | None:
    """Return which of the group's buckets are left out for `rack`; None where that leaves no living one."""
    out = frozenset(i for i, b in enumerate(group.buckets) if fabric.left_out(program.switch, b, rack))
    living = [b for i, b in enumerate(group.buckets) if i not in out and End(program.switch, b.port) not in fabric.dead]
    return out if living else None


def _way_up(program: TorProgram, route: IpRoute, group: EcmpGroup, left_out: LeftOut | None,
            groups: dict[int, EcmpGroup], said: list[str]) -> IpRoute:
    """Return a route for the prefix of `route` to `group` without what is left out, that being put into `groups`."""
    if left_out is None:
        said.append(f"no way left to {route.name}")
        return IpRoute(said[-1], route.prefix)
    group_id = group.group_id + sum(1 << place for place in left_out)
    interfaces = [program.interface(group.buckets[place].port) for place in sorted(left_out)]
    said.append(f"{route.name} not by {' or '.join(interfaces)}")
    groups[group_id] = EcmpGroup(group_id, f"{group.name} but {', '.join(interfaces)}", group.hash_parameter,
                                 tuple(b for place, b in enumerate(group.buckets) if place not in left_out))
    return IpRoute(route.name, route.prefix, group=group_id, not_from=tuple(b.port for b in group.buckets))


def _covers(wide: str, narrow: str) -> bool:
    return IPv4Network(narrow).subnet_of(IPv4Network(wide))
