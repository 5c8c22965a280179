"""The verdict on a set of captures: what was checked, what was counted, and the packets that speak against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

MAX_EVIDENCE = 5
VERDICTS = {True: "holds", False: "FAILS", None: "not judged"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One packet that breaks a rule. `packet` is its number in `file`, 0 where the whole file is meant.

    `time_s` counts from the first packet of all captures.
    """

    file: str
    packet: int
    time_s: float
    what: str

    def __str__(self) -> str:
        where = f"{self.file} packet {self.packet} at {self.time_s:.6f} s: " if self.packet else f"{self.file}: "
        return where + self.what


@dataclass(frozen=True, slots=True)
class Check:
    """One claim about the routing. `verdict` is None where there was nothing to judge it by; `note` says why."""

    name: str
    claim: str
    verdict: bool | None
    counts: dict[str, int]
    note: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Spread:
    """How the flows of one group of equal ports spread. `p_value` is that of chi-square against equal shares."""

    switch: str
    group: str
    flows: dict[str, int]
    packets: dict[str, int]
    p_value: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class RoutingProof:
    """What captures prove about how packets were routed.

    `packets` counts captured frames of every kind, `kinds` the same by kind, `ports` by interface and direction
    as the switch sees it. `dropped` counts packets that a rule of the switches forbids, by rule. Paths count requests.
    Without an inventory there are no checks, and nothing is proved.
    """

    cluster: str
    captures: tuple[str, ...]
    packets: int
    span_s: float
    kinds: dict[str, int]
    ports: dict[str, dict[str, int]]
    flows: int
    dropped: dict[str, int] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    spreads: tuple[Spread, ...] = ()
    node_paths: dict[str, int] = field(default_factory=dict)
    port_paths: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the captures prove the routing: no check fails, and those that carry the proof were judged."""
        verdicts = {c.name: c.verdict for c in self.checks}
        return bool(verdicts) and False not in verdicts.values() and all(verdicts.get(n) for n in ESSENTIAL)

    @property
    def unjudged(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.checks if c.verdict is None)

    def check(self, name: str) -> Check:
        """Return the check called `name`; raises KeyError, naming those there are."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check {name!r}; there are {', '.join(c.name for c in self.checks)}")

    def content(self) -> dict[str, Any]:
        """Return everything as plain JSON values, `holds` and `unjudged` included."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {"holds": self.holds, "unjudged": list(self.unjudged), **plain}

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return a table: check, verdict, counts, and claim with its note; evidence in rows of its own below."""
        table = []
        for check in self.checks:
            counts = ", ".join(f"{count} {name}" for name, count in check.counts.items())
            table.append((check.name, VERDICTS[check.verdict], counts,
                          check.claim + (f" ({check.note})" if check.note else "")))
            table += [("", "", "", str(evidence)) for evidence in check.evidence]
        return table


SMARTNIC_PORTS = "smartnic ports"
HOST_FLOWS = "host flows"
PREDICTION = "hash prediction"
COUNTERS = "bucket counters"
SPREAD = "spread"
SHARED_MAC = "shared mac"
TTL = "ttl"
DELIVERY = "delivery"
REQUESTS = "requests"
PASSING = "passing"
LOST_AT_CUT = "lost at a link cut a moment ago"  # a count of DELIVERY
ESSENTIAL = (TTL, DELIVERY)
