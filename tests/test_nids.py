"""The NIDS finds what a plain search finds, and its rule language refuses what it cannot honour."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microservices.errors import ServiceError
from microservices.nfv_workload import NfvWorkload, inner_packet
from microservices.nids import Nids, decode_alert, encode_alert
from microservices.nids_rules import BUILT_IN_RULES, Content, parse_rules
from microservices.service import REPLY, Output, Request
from microservices.state import State

STATE = State()


def alerts(nids: Nids, data: bytes, protocol: int = 6, source_port: int = 1234,
           port: int = 80) -> list[tuple[int, str]]:
    packet = inner_packet(bytes(4), bytes(4), protocol, source_port, port, data)
    (output,) = nids.handle(Request(packet), STATE)
    if output == Output(packet):
        return []
    assert output.to == REPLY
    return decode_alert(output.payload)


def test_every_built_in_rule_is_found_alone_and_in_a_workload() -> None:
    nids, workload, seen = Nids(), NfvWorkload(malicious_share=0.5), set()
    for packet in islice(workload.requests(), 1500):
        (output,) = nids.handle(Request(packet), STATE)
        expected = workload.expected_alerts(packet)
        assert (decode_alert(output.payload) if output.to == REPLY else []) == expected
        seen |= {sid for sid, _ in expected}
    assert seen == {rule.sid for rule in parse_rules(BUILT_IN_RULES)}


# Contents over two letters overlap, contain each other and share prefixes all the time.
@given(st.lists(st.tuples(st.text("abA", min_size=3, max_size=5), st.booleans()), min_size=1, max_size=8),
       st.text("abAB", max_size=30))
def test_overlapping_contents_are_found_as_a_plain_search_finds_them(contents, data) -> None:
    text = "\n".join(f'alert tcp any any -> any any (content:"{c}";{" nocase;" if n else ""} sid:{i + 1};)'
                     for i, (c, n) in enumerate(contents))
    expected = [(i + 1, "alert") for i, (c, n) in enumerate(contents)
                if (c.lower() in data.lower() if n else c in data)]
    assert alerts(Nids(text), data.encode()) == expected


def test_a_header_does_not_match_and_all_contents_must() -> None:
    nids = Nids('alert tcp any any -> any any (content:"|C6 12 C6|"; sid:1;)\n'
                'drop ip any any -> any any (content:"first"; content:"second"; sid:2;)')
    packet = inner_packet(bytes((198, 18, 198, 18)), bytes((198, 18, 198, 18)), 6, 1, 2, b"clean")
    assert nids.handle(Request(packet), STATE) == (Output(packet),)
    assert alerts(nids, b"first only") == alerts(nids, b"the second only") == []
    assert alerts(nids, b"secondfirst") == [(2, "drop")]


@pytest.mark.parametrize(("header", "protocol", "source_port", "port", "matches"), [
    ("tcp any any -> any 80", 6, 9, 80, True), ("tcp any any -> any 80", 6, 9, 81, False),
    ("tcp any any -> any 80", 17, 9, 80, False), ("ip any any -> any any", 1, 9, 9, True),
    ("udp any [53,1000:2000] -> any any", 17, 1500, 9, True), ("udp any [53,1000:2000] -> any any", 17, 54, 9, False),
    ("udp any :99 -> any 60000:", 17, 99, 65535, True), ("udp any :99 -> any 60000:", 17, 100, 65535, False),
])
def test_protocol_and_ports_narrow_a_rule(header, protocol, source_port, port, matches) -> None:
    nids = Nids(f'alert {header} (content:"evil"; sid:5;)')
    assert alerts(nids, b"evil", protocol, source_port, port) == ([(5, "alert")] if matches else [])


def test_contents_may_hold_hex_quotes_and_escapes() -> None:
    (rule,) = parse_rules(r'alert tcp any any -> any any (msg:"a \"quote\"; yes"; content:"a|00 fF|\"\;\\\|b"; sid:7;)')
    assert rule.contents == (Content(b'a\x00\xff";\\|b'),)
    assert rule.message == 'a "quote"; yes'


@pytest.mark.parametrize(("rule", "complaint"), [
    ("reject tcp any any -> any 80 (content:\"abc\"; sid:1;)", "action 'reject'"),
    ("alert sctp any any -> any 80 (content:\"abc\"; sid:1;)", "protocol 'sctp'"),
    ("alert tcp 10.0.0.1 any -> any 80 (content:\"abc\"; sid:1;)", "addresses"),
    ("alert tcp any any <> any 80 (content:\"abc\"; sid:1;)", "is not ACTION"),
    ("alert tcp any any -> any 70000 (content:\"abc\"; sid:1;)", "port '70000'"),
    ("alert tcp any any -> any 9:1 (content:\"abc\"; sid:1;)", "low end"),
    ("alert tcp any any -> any !80 (content:\"abc\"; sid:1;)", "port '!80'"),
    ("alert tcp any any -> any 80 (content:\"ab\"; sid:1;)", "the least is 3"),
    ("alert tcp any any -> any 80 (content:!\"abc\"; sid:1;)", "each is NAME"),
    ("alert tcp any any -> any 80 (content:\"ab|4|c\"; sid:1;)", "hex"),
    ("alert tcp any any -> any 80 (content:\"abc|44\"; sid:1;)", "odd"),
    ("alert tcp any any -> any 80 (content:\"abc\"; depth:5; sid:1;)", "option 'depth:5;'"),
    ("alert tcp any any -> any 80 (nocase; content:\"abc\"; sid:1;)", "option 'nocase;'"),
    ("alert tcp any any -> any 80 (content:\"abc\"; sid:0;)", "option 'sid:0;'"),
    ("alert tcp any any -> any 80 (content:\"abc\"; sid:4294967296;)", "option 'sid:4294967296;'"),
    ("alert tcp any any -> any 80 (content:\"abc\"; sid:000000000014294967296;)", "option 'sid:0000000000142"),
    ("alert tcp any any -> any 80 (content:\"abc\";)", "at least one content and a sid"),
    ("alert tcp any any -> any 80 (content:\"abc\"; sid:1;)\n" * 2, "more than one rule"),
])
def test_a_rule_that_cannot_be_honoured_is_refused_by_name(rule, complaint) -> None:
    with pytest.raises(ServiceError, match=complaint):
        Nids("# a comment\n\n" + rule)


def test_an_alert_record_round_trips_and_a_damaged_one_is_refused() -> None:
    rules = parse_rules(BUILT_IN_RULES)
    record = encode_alert(reversed(rules))
    assert decode_alert(record) == sorted((r.sid, r.action) for r in rules)
    for damaged in (record[:-1], record + b"x", b"", b"E3AL\x02\x00", record[:-1] + b"\x07"):
        with pytest.raises(ServiceError):
            decode_alert(damaged)
