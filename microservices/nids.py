"""Network intrusion detection: Aho-Corasick over the contents of Snort-like rules (paper Table 2).

A clean packet goes on unchanged. One that matches is answered at once with an alert record, all integers big-endian:

    4 bytes "E3AL" | 1 byte version 1 | 1 byte count n | n x (4 bytes sid, 1 byte action: 0 alert, 1 drop)

with the sids ascending.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import ahocorasick

from microservices.errors import ServiceError
from microservices.nids_rules import ACTIONS, BUILT_IN_RULES, Rule, parse_rules
from microservices.packet import flow_key, layers
from microservices.service import REPLY, Accelerator, Microservice, Output, Request
from microservices.state import State

ALERT_MAGIC = b"E3AL"
ALERT_VERSION = 1
MAX_ALERTS = 255
_ALERT_HEADER = struct.Struct(">4sBB")
_ALERT = struct.Struct(">IB")


class Nids(Microservice):
    """Scans every packet's transport payload once, whatever the number of rules.

    `rules` is text in the language of `nids_rules`, the built-in set by default; raises ServiceError if it is wrong.
    """

    name = "nids"
    memory_mb = 32
    accelerators = frozenset({Accelerator.DFA})

    def __init__(self, rules: str = BUILT_IN_RULES) -> None:
        self.rules = parse_rules(rules)
        if not self.rules:
            raise ServiceError("no rules; at least one is needed")
        # One automaton over lower-cased contents serves both kinds: what it finds for a case-sensitive content
        # is looked at again in the bytes as they came.
        by_pattern: dict[bytes, list[tuple[int, int, bytes | None]]] = {}
        for rule_index, rule in enumerate(self.rules):
            for content_index, content in enumerate(rule.contents):
                entry = (rule_index, content_index, None if content.nocase else content.pattern)
                by_pattern.setdefault(content.pattern.lower(), []).append(entry)
        self._automaton = ahocorasick.Automaton()
        for pattern, entries in by_pattern.items():
            # The automaton takes text; Latin-1 maps each byte to one character and back.
            self._automaton.add_word(pattern.decode("latin-1"), entries)
        self._automaton.make_automaton()

    def key_of(self, payload: bytes) -> bytes:
        return flow_key(payload)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        packet = request.payload
        protocol, source_port, destination_port, data_offset = layers(packet)
        text = packet.lower().decode("latin-1")
        hits: dict[int, set[int]] = {}
        for end, entries in self._automaton.iter(text, data_offset):
            for rule_index, content_index, exact in entries:
                if exact is None or packet.endswith(exact, data_offset, end + 1):
                    hits.setdefault(rule_index, set()).add(content_index)
        if hits:
            matched = [rule for index, found in hits.items()
                       if len(found) == len((rule := self.rules[index]).contents)
                       and rule.fits(protocol, source_port, destination_port)]
            if matched:
                return (Output(encode_alert(matched), REPLY),)
        return (Output(packet),)


def encode_alert(rules: Iterable[Rule]) -> bytes:
    """Return the alert record of the rules that matched; of more than 255, the 255 lowest sids."""
    matched = sorted((rule.sid, ACTIONS.index(rule.action)) for rule in rules)[:MAX_ALERTS]
    return _ALERT_HEADER.pack(ALERT_MAGIC, ALERT_VERSION, len(matched)) + b"".join(_ALERT.pack(*m) for m in matched)


def decode_alert(record: bytes) -> list[tuple[int, str]]:
    """Return (sid, action) of each rule in an alert record; raises ServiceError if it is none."""
    if len(record) < _ALERT_HEADER.size:
        raise ServiceError(f"alert record: got {len(record)} bytes, {_ALERT_HEADER.size} needed at least")
    magic, version, count = _ALERT_HEADER.unpack_from(record)
    if magic != ALERT_MAGIC or version != ALERT_VERSION:
        raise ServiceError(f"alert record starts {record[:5].hex()}; expected {ALERT_MAGIC.hex()}{ALERT_VERSION:02x}")
    if len(record) != _ALERT_HEADER.size + count * _ALERT.size:
        raise ServiceError(f"alert record of {count} rules has {len(record)} bytes, "
                           f"{_ALERT_HEADER.size + count * _ALERT.size} needed")
    pairs = _ALERT.iter_unpack(record[_ALERT_HEADER.size:])
    try:
        return [(sid, ACTIONS[action]) for sid, action in pairs]
    except IndexError:
        raise ServiceError(f"alert record {record.hex()}: unknown action") from None
