"""Where would this packet go? The answer from a program alone, without a switch.

A packet is a mapping of header fields, named as in OpenFlow's OXM, to numbers and dotted addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeAlias

from controller.errors import ProgramError
from controller.select_hash import TCP, UDP, FlowKey, predict
from controller.tor_program import EcmpGroup, TorProgram
from controller.tor_rules import (
    ADMIT,
    IPV4,
    CopyField,
    DecTtl,
    Output,
    OutputBack,
    Rule,
    SetField,
    SetTtl,
    ToGroup,
    rules_of,
)
from topologies.inventory import Inventory, switch_links

Fields: TypeAlias = Mapping[str, int | str]
_Test: TypeAlias = Callable[[int | str], bool]

MAX_SWITCH_HOPS = 8  # up and down a fat tree takes five


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a switch does with a packet: the names of the rules that it passes, where it leaves, and how it looks then.

    `port` is None where it is dropped, by the last of `rules`; `bucket_id` is None where no group chose.
    """

    rules: tuple[str, ...]
    port: int | None
    bucket_id: int | None
    fields: Fields


class Pipeline:
    """A program's tables, ready to be asked."""

    def __init__(self, program: TorProgram) -> None:
        self.program = program
        self._tables: dict[int, list[tuple[Rule, list[tuple[str, _Test]]]]] = {}
        for rule in sorted(rules_of(program), key=lambda r: -r.priority):
            tests = [(name, _test(value)) for name, value in rule.match]
            self._tables.setdefault(rule.table, []).append((rule, tests))

    def look_up(self, packet: Fields, live_ports: Collection[int] | None = None) -> Verdict:
        """Return what the switch does with `packet`; `live_ports` are those that are up, without it all are."""
        fields = dict(packet)
        passed: list[str] = []
        table: int | None = ADMIT
        while table is not None:
            rule = self._first_match(table, fields)
            if rule is None:
                return Verdict(tuple(passed), None, None, fields)
            passed.append(rule.name)
            port, bucket = self._apply(rule, fields, live_ports)
            if port is not None:
                return Verdict(tuple(passed), port, bucket, fields)
            table = rule.goto
        return Verdict(tuple(passed), None, None, fields)

    def _first_match(self, table: int, fields: Fields) -> Rule | None:
        for rule, tests in self._tables.get(table, []):
            if all(name in fields and test(fields[name]) for name, test in tests):
                return rule
        return None

    def _apply(self, rule: Rule, fields: dict[str, int | str],
               live_ports: Collection[int] | None) -> tuple[int | None, int | None]:
        for action in rule.actions:
            if isinstance(action, SetField):
                fields[action.field] = action.value
            elif isinstance(action, CopyField):
                fields[action.destination] = fields[action.source]
            elif isinstance(action, DecTtl):
                fields["nw_ttl"] = int(fields["nw_ttl"]) - 1
            elif isinstance(action, SetTtl):
                fields["nw_ttl"] = action.ttl
            elif isinstance(action, Output):
                return action.port, None
            elif isinstance(action, OutputBack):
                return int(fields["in_port"]), None
            elif isinstance(action, ToGroup):
                return _through(self.program.group(action.group_id), fields, live_ports)
        return None, None


def _through(group: EcmpGroup, fields: dict[str, int | str],
             live_ports: Collection[int] | None) -> tuple[int | None, int | None]:
    live = None if live_ports is None else [b.bucket_id for b in group.buckets if b.watch_port in live_ports]
    chosen = predict(group, flow_of(fields), live)
    for bucket in group.buckets:
        if bucket.bucket_id == chosen:
            fields["eth_dst"] = bucket.eth_dst
            return bucket.port, bucket.bucket_id
    return None, None


def packet_of(flow: FlowKey, in_port: int, ttl: int = 64) -> dict[str, int | str]:
    """Return the header fields of a packet of `flow` that comes in by `in_port`."""
    fields: dict[str, int | str] = {"in_port": in_port, "eth_type": IPV4, "ipv4_src": flow.src_ip,
                                    "ipv4_dst": flow.dst_ip, "ip_proto": flow.protocol, "nw_ttl": ttl}
    layer_4 = {TCP: "tcp", UDP: "udp"}.get(flow.protocol)
    if layer_4 and flow.src_port is not None and flow.dst_port is not None:
        fields |= {f"{layer_4}_src": flow.src_port, f"{layer_4}_dst": flow.dst_port}
    return fields


def flow_of(fields: Fields) -> FlowKey:
    """Return what a select group hashes of a packet."""
    layer_4 = {TCP: "tcp", UDP: "udp"}.get(int(fields.get("ip_proto", 0)), "")
    ports = [fields.get(f"{layer_4}_{end}") for end in ("src", "dst")]
    source, destination = (None if p is None else int(p) for p in ports)
    return FlowKey(str(fields["ipv4_src"]), str(fields["ipv4_dst"]), int(fields.get("ip_proto", 0)),
                   source, destination)


def walk(inventory: Inventory, programs: Mapping[str, TorProgram], switch: str, packet: Fields) -> list[Verdict]:
    """Follow `packet`, which enters at `switch`, from switch to switch until it leaves the last one or is dropped.

    Raises ProgramError if it is still under way after MAX_SWITCH_HOPS switches.
    """
    across = {}
    for one, other in switch_links(inventory):
        across[one.switch, one.port] = other
        across[other.switch, other.port] = one
    verdicts: list[Verdict] = []
    for _ in range(MAX_SWITCH_HOPS):
        verdict = Pipeline(programs[switch]).look_up(packet)
        verdicts.append(verdict)
        entered = across.get((switch, verdict.port or 0))
        if entered is None:
            return verdicts
        switch, packet = entered.switch, {**verdict.fields, "in_port": entered.port}
    raise ProgramError(f"a packet from {packet.get('ipv4_src')} to {packet.get('ipv4_dst')} passes more than "
                       f"{MAX_SWITCH_HOPS} switches")


def _test(value: int | str) -> _Test:
    if isinstance(value, str) and "/" in value:
        network = IPv4Network(value)
        address, mask = int(network.network_address), int(network.netmask)
        return lambda seen: int(IPv4Address(seen)) & mask == address
    return lambda seen: seen == value
