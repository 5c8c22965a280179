"""Inner packets, held against scapy's idea of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert

from microservices.errors import ServiceError
from microservices.nfv_workload import inner_packet
from microservices.packet import Layers, flow_key, layers

SOURCE, DESTINATION = bytes((198, 18, 1, 2)), bytes((198, 19, 3, 4))


@pytest.mark.parametrize("transport", [TCP(sport=1234, dport=80, options=[("MSS", 1460)]), UDP(sport=5, dport=53),
                                       ICMP()])
@pytest.mark.parametrize("options", [[], [IPOption_Router_Alert()]])
def test_layers_stand_where_scapy_put_them(transport, options) -> None:
    raw = bytes(IP(src="198.18.1.2", dst="198.19.3.4", options=options) / transport / b"payload")
    found = layers(raw)
    # Of the protocols without ports, all after the IP header is data.
    assert raw[found.data_offset:] == (b"payload" if transport.name != "ICMP" else bytes(IP(raw)[ICMP]))
    ports = getattr(transport, "sport", 0), getattr(transport, "dport", 0)
    assert (found.source_port, found.destination_port) == ports


@pytest.mark.parametrize("protocol", [1, 6, 17])
@pytest.mark.parametrize("data", [b"", b"odd", b"even"])
def test_packets_of_the_workload_are_what_scapy_would_make(protocol, data) -> None:
    raw = inner_packet(SOURCE, DESTINATION, protocol, 1234, 80, data)
    parsed = IP(raw)
    checksums = parsed.chksum, parsed[1].chksum
    del parsed.chksum, parsed[1].chksum
    again = IP(bytes(parsed))
    assert (again.chksum, again[1].chksum) == checksums
    assert layers(raw).protocol == protocol


def test_all_fragments_of_a_datagram_have_one_key() -> None:
    first = bytes(IP(src="198.18.1.2", dst="198.19.3.4", flags="MF") / UDP(sport=1, dport=2) / bytes(24))
    later = bytes(IP(src="198.18.1.2", dst="198.19.3.4", frag=4, proto=17) / bytes(9))
    assert flow_key(first) == flow_key(later) == SOURCE + DESTINATION + b"\0\0\0\0\x11"
    assert layers(first) == Layers(17, 0, 0, 20)


@given(st.binary(max_size=80))
def test_any_bytes_have_a_key_and_either_layers_or_a_service_error(data) -> None:
    assert isinstance(flow_key(data), bytes)
    try:
        found = layers(data)
    except ServiceError:
        return
    assert found.data_offset <= len(data)


@pytest.mark.parametrize(("position", "value", "complaint"), [
    (0, 0x65, "expected IPv4"), (0, 0x44, "expected IPv4"), (0, 0x4F, "expected IPv4"), (3, 1, "length field"),
    (8, 1, "checksum"), (32, 0x40, "TCP header of 16"), (32, 0xF0, "ends at 80"),
])
def test_a_malformed_header_is_named(position, value, complaint) -> None:
    raw = bytearray(inner_packet(SOURCE, DESTINATION, 6, 1, 2, b""))
    raw[position] = value
    with pytest.raises(ServiceError, match=complaint):
        layers(bytes(raw))
