"""TorProgram -> the rules of a switch's three tables, and what must change to get from one set to another.

    table 0  admit    per ingress port: ARP answered, own source addresses let in, all others dropped
    table 1  forbid   control-plane UDP ports from clients dropped; Raft's from all but controllers
    table 2  route    TTL, the gateway's own echo, longest prefix -> port or group

Nothing leaves a table unseen: every drop is a rule of its own, so the switch counts it under a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Network
from typing import TypeAlias

from controller.errors import ProgramError
from controller.tor_program import EcmpGroup, IpRoute, TorProgram

ADMIT, FORBID, ROUTE = 0, 1, 2
IPV4, ARP, IPV6 = 0x0800, 0x0806, 0x86DD
ICMP, TCP, UDP = 1, 6, 17
_PROTOCOLS = {"tcp": TCP, "udp": UDP}
REPLY_TTL = 64

# Priorities, per table. A route's grows with the length of its prefix; the rule that keeps packets from
# going back where they came from stands just above its route.
_ARP_ANSWER, _REFUSED, _ADMITTED, _NOT_ADMITTED, _IPV6 = 500, 400, 300, 200, 100
_FORBIDDEN = 100
_ECHO, _TO_GATEWAY, _TTL, _FIRST_ROUTE = 500, 450, 400, 100
_REST = 0


@dataclass(frozen=True, slots=True)
class SetField:
    """Write `value` into header field `field` (named as in OpenFlow's OXM)."""

    field: str
    value: int | str


@dataclass(frozen=True, slots=True)
class CopyField:
    """Copy the whole of header field `source`, `bits` wide, over `destination`."""

    source: str
    destination: str
    bits: int


@dataclass(frozen=True, slots=True)
class DecTtl:
    pass


@dataclass(frozen=True, slots=True)
class SetTtl:
    ttl: int


@dataclass(frozen=True, slots=True)
class Output:
    port: int


@dataclass(frozen=True, slots=True)
class OutputBack:
    """Send out of the port that the frame came in by."""


@dataclass(frozen=True, slots=True)
class ToGroup:
    group_id: int


Action: TypeAlias = SetField | CopyField | DecTtl | SetTtl | Output | OutputBack | ToGroup
Match: TypeAlias = tuple[tuple[str, int | str], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of one table. Without actions and without `goto` it drops what it matches.

    `match` holds (OXM field, value); an IPv4 value is a prefix. `name` is for people and for counters and
    is no part of what the switch is told.
    """

    name: str = field(compare=False)
    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()
    goto: int | None = None

    @property
    def drops(self) -> bool:
        return not self.actions and self.goto is None

    @property
    def cookie(self) -> int:
        """A 64-bit digest of all that the switch is told: same cookie, same rule."""
        return _digest(self)


@lru_cache(maxsize=65536)
def _digest(rule: Rule) -> int:
    content = repr((rule.table, rule.priority, rule.match, rule.actions, rule.goto))
    # 0 is what hand-made rules have, and all ones is reserved by OpenFlow; the top bit 0 and the lowest 1 avoid both.
    return int.from_bytes(blake2b(content.encode(), digest_size=8).digest(), "big") & ~(1 << 63) | 1


def rules_of(program: TorProgram) -> tuple[Rule, ...]:
    """Return every rule of `program`'s switch, in table order; raises ProgramError if two would be one."""
    rules = (*_admit(program), *_forbid(program), *_route(program))
    for what in (lambda r: r.name, lambda r: r.cookie, lambda r: (r.table, r.priority, r.match)):
        seen: dict[object, Rule] = {}
        for rule in rules:
            if (other := seen.setdefault(what(rule), rule)) is not rule:
                raise ProgramError(f"{program.switch}: rules {other.name!r} and {rule.name!r} cannot be told apart")
    return rules


def _admit(program: TorProgram) -> Iterator[Rule]:
    for ingress in program.ingress:
        at_port = ("in_port", ingress.port)
        arp, ip = (at_port, ("eth_type", ARP)), (at_port, ("eth_type", IPV4))
        where = ingress.interface
        if ingress.answers_arp:
            for source in ingress.sources:
                yield Rule(f"ARP answered to {source.name} on {where}", ADMIT, _ARP_ANSWER,
                           (*arp, ("arp_op", 1), ("arp_spa", source.prefix), ("arp_tpa", f"{program.gateway}/32")),
                           _arp_answer(program))
        yield Rule(f"ARP dropped on {where}", ADMIT, _NOT_ADMITTED, arp)
        for source in ingress.refused:
            yield Rule(f"spoofed source of {source.name} on {where}", ADMIT, _REFUSED,
                       (*ip, ("ipv4_src", source.prefix)))
        for source in ingress.sources:
            yield Rule(f"admitted {source.name} on {where}", ADMIT, _ADMITTED,
                       (*ip, ("ipv4_src", source.prefix)), goto=FORBID)
        yield Rule(f"spoofed source on {where}", ADMIT, _NOT_ADMITTED, ip)
    # Linux sends router solicitations by itself; apart from them nothing should reach the last rule.
    yield Rule("IPv6 dropped", ADMIT, _IPV6, (("eth_type", IPV6),))
    yield Rule("neither IPv4 nor ARP, dropped", ADMIT, _REST, ())


def _arp_answer(program: TorProgram) -> tuple[Action, ...]:
    return (CopyField("eth_src", "eth_dst", 48), SetField("eth_src", program.mac), SetField("arp_op", 2),
            CopyField("arp_sha", "arp_tha", 48), CopyField("arp_spa", "arp_tpa", 32),
            SetField("arp_sha", program.mac), SetField("arp_spa", program.gateway), OutputBack())


def _forbid(program: TorProgram) -> Iterator[Rule]:
    for acl in program.acls:
        yield Rule(acl.name, FORBID, _FORBIDDEN,
                   (("in_port", acl.port), ("eth_type", IPV4), ("ip_proto", _PROTOCOLS[acl.protocol]),
                    (f"{acl.protocol}_dst", acl.destination)))
    yield Rule("not forbidden", FORBID, _REST, (), goto=ROUTE)


def _route(program: TorProgram) -> Iterator[Rule]:
    ip = ("eth_type", IPV4)
    if program.gateway:
        to_gateway = ("ipv4_dst", f"{program.gateway}/32")
        yield Rule("echo answered by the gateway", ROUTE, _ECHO,
                   (ip, to_gateway, ("ip_proto", ICMP), ("icmpv4_type", 8)), _echo_answer(program))
        yield Rule("sent to the gateway itself, dropped", ROUTE, _TO_GATEWAY, (ip, to_gateway))
    for ttl in (0, 1):
        yield Rule(f"TTL {ttl}, dropped", ROUTE, _TTL, (ip, ("nw_ttl", ttl)))
    for route in program.routes:
        destination = ("ipv4_dst", route.prefix)
        priority = _FIRST_ROUTE + 2 * IPv4Network(route.prefix).prefixlen
        for port in _ports_of(program, route):
            yield Rule(f"back to {route.name} by {program.interface(port)}, dropped", ROUTE, priority + 1,
                       (("in_port", port), ip, destination))
        actions = _forward(program, route)
        yield Rule(f"route to {route.name}" if actions else f"{route.name}, dropped", ROUTE, priority,
                   (ip, destination), actions)
    yield Rule("no route, dropped", ROUTE, _REST, ())


def _ports_of(program: TorProgram, route: IpRoute) -> list[int]:
    """Return the ports by which `route` can leave, and those in `not_from`: what came in there must not take it.

    Two NICs of one server never exchange its host's packets through the switch, and one that comes down from
    an aggregation or core never goes up again. The switch would drop an output to the ingress port unseen.
    """
    if route.group is not None:
        return list(dict.fromkeys([*(b.port for b in program.group(route.group).buckets), *route.not_from]))
    return [] if route.port is None else [route.port]


def _forward(program: TorProgram, route: IpRoute) -> tuple[Action, ...]:
    hop: tuple[Action, ...] = (DecTtl(), SetField("eth_src", program.mac))
    if route.group is not None:
        return (*hop, ToGroup(route.group))
    if route.port is not None:
        return (*hop, SetField("eth_dst", route.eth_dst), Output(route.port))
    return ()


def _echo_answer(program: TorProgram) -> tuple[Action, ...]:
    return (CopyField("eth_src", "eth_dst", 48), SetField("eth_src", program.mac),
            CopyField("ipv4_src", "ipv4_dst", 32), SetField("ipv4_src", program.gateway),
            SetField("icmpv4_type", 0), SetTtl(REPLY_TTL), OutputBack())


@dataclass(frozen=True, slots=True)
class Installed:
    """What a switch has: its rules as (table, cookie), its groups by id; None for a group of a foreign shape."""

    rules: frozenset[tuple[int, int]] = frozenset()
    groups: tuple[tuple[int, EcmpGroup | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What to send, in this order: what a rule needs comes before it, and nothing goes before its successor is there.

    A rule that replaces one of the same table, priority and match takes its place at once; deleting the old
    one's cookie afterwards finds nothing.
    """

    groups_added: tuple[EcmpGroup, ...] = ()
    groups_changed: tuple[EcmpGroup, ...] = ()
    rules_added: tuple[Rule, ...] = ()
    rules_deleted: tuple[tuple[int, int], ...] = ()
    groups_deleted: tuple[int, ...] = ()

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in self.__slots__}

    def __bool__(self) -> bool:
        return any(self.counts().values())


def installed_by(program: TorProgram) -> Installed:
    """Return what a switch has that was told all of `program` and nothing else."""
    return Installed(frozenset((r.table, r.cookie) for r in rules_of(program)),
                     tuple((g.group_id, g) for g in program.groups))


def difference(old: TorProgram | Installed, new: TorProgram) -> Changes:
    """Return what turns a switch that has `old` into one that has `new`; nothing for what is already right."""
    have = installed_by(old) if isinstance(old, TorProgram) else old
    groups = dict(have.groups)
    wanted = {(r.table, r.cookie): r for r in rules_of(new)}
    wanted_groups = {g.group_id for g in new.groups}
    return Changes(
        tuple(g for g in new.groups if g.group_id not in groups),
        tuple(g for g in new.groups if g.group_id in groups and groups[g.group_id] != g),
        # Later tables first: a packet that a new rule lets in must find its way on.
        tuple(_later_tables_first(rule for key, rule in wanted.items() if key not in have.rules)),
        tuple(sorted(have.rules - wanted.keys())),
        tuple(sorted(groups.keys() - wanted_groups)),
    )


def _later_tables_first(rules: Iterable[Rule]) -> list[Rule]:
    return sorted(rules, key=lambda r: -r.table)
