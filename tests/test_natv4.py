"""NATv4's lookup against a linear scan, its packets against scapy's checksums."""

from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP

from microservices.errors import ServiceError
from microservices.natv4 import Dir24, Natv4, benchmark_mappings
from microservices.nfv_workload import NfvWorkload, inner_packet
from microservices.service import Output, Request
from microservices.state import State

Networks = st.builds(lambda address, length: IPv4Network((address, length), strict=False),
                     # Few distinct first bits, so that prefixes nest.
                     st.integers(0, 2**32 - 1).map(lambda a: a & 0x030101FF | 0x0A000000), st.integers(4, 32))


@given(st.dictionaries(Networks, st.integers(1, 32767), max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_a_lookup_finds_what_a_linear_scan_for_the_longest_prefix_finds(prefixes, data) -> None:
    table = Dir24(list(prefixes.items()))
    edges = [int(e) for n in prefixes for e in (n.network_address, n.broadcast_address)]
    probes = edges + [min(e + 1, 2**32 - 1) for e in edges] + [max(e - 1, 0) for e in edges]
    for address in [*probes, data.draw(st.integers(0, 2**32 - 1))]:
        fitting = [n for n in prefixes if IPv4Address(address) in n]
        expected = prefixes[max(fitting, key=lambda n: n.prefixlen)] if fitting else 0
        assert table.lookup(address) == expected


def test_the_default_table_is_matched_over_random_addresses_too() -> None:
    nat, draw = Natv4(), Random(2)
    assert len(nat.mappings) == 1000 and len({m.outside.prefixlen for m in nat.mappings}) == 17
    for address in [0xC6130000 | draw.getrandbits(16) for _ in range(300)]:
        best = max((m for m in nat.mappings if IPv4Address(address) in m.outside), key=lambda m: m.outside.prefixlen)
        expected = int(best.inside.network_address) + address - int(best.outside.network_address)
        assert translated(nat, bytes(IP(dst=str(IPv4Address(address))))).dst == str(IPv4Address(expected))


def translated(nat: Natv4, packet: bytes) -> IP:
    (output,) = nat.handle(Request(packet), State())
    return IP(output.payload)


def test_translated_packets_differ_in_the_destination_only_and_their_checksums_are_scapys() -> None:
    nat = Natv4()
    for packet in islice(NfvWorkload(malicious_share=0.3).requests(), 300):
        out = translated(nat, packet)
        raw = bytes(out)
        assert out.dst.startswith("172.") and len(raw) == len(packet)
        again = IP(raw)
        del again.chksum, again[1].chksum
        assert bytes(again) == raw
        out.dst = IP(packet).dst
        del out.chksum, out[1].chksum
        assert bytes(out) == packet


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.binary(max_size=9), st.sampled_from([TCP, UDP, ICMP]))
@settings(max_examples=200)
def test_every_checksum_comes_out_right_for_any_pair_of_addresses(old, new, data, transport) -> None:
    outside, inside = str(IPv4Address(old)), str(IPv4Address(new))
    out = _only(outside, inside, bytes(IP(src="192.0.2.7", dst=outside) / transport() / data))
    expected = bytes(IP(src="192.0.2.7", dst=inside) / transport() / data)
    assert out == expected


def _only(outside: str, inside: str, packet: bytes) -> bytes:
    nat = Natv4(table=[(f"{outside}/32", f"{inside}/32")])
    (output,) = nat.handle(Request(packet), State())
    return output.payload


def test_a_udp_checksum_that_comes_out_as_0_is_sent_as_all_ones() -> None:
    source, outside, inside = bytes((192, 0, 2, 7)), bytes((198, 51, 100, 9)), bytes((10, 1, 1, 1))
    data = next(d for d in (i.to_bytes(2, "big") for i in range(65536))
                if inner_packet(source, inside, 17, 1, 2, d)[26:28] == b"\xff\xff")
    out = _only("198.51.100.9", "10.1.1.1", inner_packet(source, outside, 17, 1, 2, data))
    assert out == inner_packet(source, inside, 17, 1, 2, data)


def test_udp_without_a_checksum_keeps_none_and_fragments_keep_their_data() -> None:
    bare = bytes(IP(dst="198.51.100.9") / UDP(chksum=0) / b"xy")
    assert IP(_only("198.51.100.9", "10.1.1.1", bare))[UDP].chksum == 0
    fragment = bytes(IP(dst="198.51.100.9", frag=9, proto=6) / bytes(range(40)))
    assert IP(_only("198.51.100.9", "10.1.1.1", fragment)).load == bytes(range(40))


def test_an_address_outside_every_prefix_stays() -> None:
    packet = bytes(IP(dst="203.0.113.5") / UDP() / b"x")
    assert Natv4().handle(Request(packet), State()) == (Output(packet),)


@pytest.mark.parametrize("make", [
    lambda: Natv4(table=[("10.0.0.0/8", "10.0.0.0/9")]), lambda: Natv4(table=[("10.0.0.1/8", "11.0.0.0/8")]),
    lambda: Natv4(mappings=0), lambda: benchmark_mappings(count=32768), lambda: Dir24([(IPv4Network("10.0.0.0/8"), 0)]),
])
def test_a_table_that_cannot_be_is_refused(make) -> None:
    with pytest.raises(ServiceError):
        make()
