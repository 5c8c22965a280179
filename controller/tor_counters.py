"""What a switch has counted, read from ovs-ofctl's text and given back under the program's own names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controller.errors import CounterError
from controller.tor_program import EcmpGroup, TorProgram
from controller.tor_rules import rules_of


@dataclass(frozen=True, slots=True)
class RuleCounter:
    """Packets and bytes that a rule has matched. `drops` tells whether that was their end."""

    name: str
    table: int
    packets: int
    bytes: int
    drops: bool


@dataclass(frozen=True, slots=True)
class BucketCounter:
    bucket_id: int
    interface: str
    packets: int
    bytes: int


_RULE = re.compile(r"cookie=0x(?P<cookie>[0-9a-f]+),.*?table=(?P<table>\d+),.*?n_packets=(?P<packets>\d+),"
                   r" n_bytes=(?P<bytes>\d+)")
_GROUP_STATS = re.compile(r"group_id=(?P<id>\d+),(?:duration=[^,]*,)?ref_count=\d+,packet_count=(?P<packets>\d+),"
                          r"byte_count=(?P<bytes>\d+)(?P<buckets>.*)")
_BUCKET_STATS = re.compile(r"bucket(?P<index>\d+):packet_count=(?P<packets>\d+),byte_count=(?P<bytes>\d+)")


def rule_counters(dump_flows: str, program: TorProgram) -> dict[str, RuleCounter]:
    """Read `ovs-ofctl -O OpenFlow15 dump-flows`, counters by rule name, every rule of `program` among them.

    A rule that the switch lacks counts 0. One that the program lacks is there as "stranger 0xCOOKIE in table T".
    Raises CounterError on text that is something else.
    """
    known = {(r.table, r.cookie): r for r in rules_of(program)}
    counters = {r.name: RuleCounter(r.name, r.table, 0, 0, r.drops) for r in known.values()}
    for line in dump_flows.splitlines():
        if not line.lstrip().startswith("cookie="):
            continue
        seen = _RULE.search(line)
        if seen is None:
            raise CounterError(f"not a line of dump-flows: {line.strip()!r}")
        table, cookie = int(seen["table"]), int(seen["cookie"], 16)
        rule = known.get((table, cookie))
        name = rule.name if rule else f"stranger 0x{cookie:x} in table {table}"
        drops = rule.drops if rule else line.rstrip().endswith("actions=drop")
        before = counters.get(name)
        packets, size = int(seen["packets"]), int(seen["bytes"])
        if rule is None and before is not None:  # hand-made rules share cookie 0
            packets, size, drops = packets + before.packets, size + before.bytes, drops and before.drops
        counters[name] = RuleCounter(name, table, packets, size, drops)
    return counters


def drops(counters: dict[str, RuleCounter]) -> dict[str, int]:
    """Return how many packets each rule has dropped, by its name; rules that dropped none are left out."""
    return {c.name: c.packets for c in counters.values() if c.drops and c.packets}


def group_counters(dump_group_stats: str, program: TorProgram) -> dict[str, tuple[BucketCounter, ...]]:
    """Read `ovs-ofctl -O OpenFlow15 dump-group-stats`, bucket counters by group name.

    Raises CounterError on text that is something else or a group whose buckets are not the program's.
    """
    groups = {g.group_id: g for g in program.groups}
    counters: dict[str, tuple[BucketCounter, ...]] = {}
    for line in dump_group_stats.splitlines():
        if not line.lstrip().startswith("group_id="):
            continue
        seen = _GROUP_STATS.search(line)
        if seen is None:
            raise CounterError(f"not a line of dump-group-stats: {line.strip()!r}")
        group = groups.get(int(seen["id"]))
        if group is not None:
            counters[group.name] = _bucket_counters(seen["buckets"], group, program)
    return counters


def _bucket_counters(text: str, group: EcmpGroup, program: TorProgram) -> tuple[BucketCounter, ...]:
    found = {int(m["index"]): m for m in _BUCKET_STATS.finditer(text)}
    if sorted(found) != list(range(len(group.buckets))):
        raise CounterError(f"{group.name}: the switch counts buckets {sorted(found)}; "
                           f"the program has {len(group.buckets)}")
    # The switch numbers counters by a bucket's place in the group, not by its id.
    return tuple(BucketCounter(b.bucket_id, program.interface(b.port), int(found[i]["packets"]),
                               int(found[i]["bytes"])) for i, b in enumerate(group.buckets))
