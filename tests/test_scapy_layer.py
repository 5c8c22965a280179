"""The scapy layer and nodes.messages are the same wire format, byte for byte."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.messages import (
    DATA_KINDS,
    KIND_STATS_QUERY,
    KIND_STATS_REPORT,
    LAYOUTS,
    MAGIC,
    AckEntry,
    AckMessage,
    ChannelId,
    DataMessage,
    Message,
    StatsMessage,
    decode,
)
from topologies.addressing import CONTROL_PORTS, DATA_PORT

scapy_layer = pytest.importorskip("experiments.captures.scapy_layer", reason="scapy is not installed")
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.packet import Raw  # noqa: E402

E3, LAYERS = scapy_layer.E3, scapy_layer.LAYERS
STATS_KINDS = (KIND_STATS_QUERY, KIND_STATS_REPORT)


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


data_messages = st.builds(
    DataMessage, st.sampled_from(DATA_KINDS), unsigned(16), unsigned(16), unsigned(64),
    st.binary(min_size=4, max_size=4), unsigned(16), unsigned(8), st.binary(max_size=200),
    unsigned(32), unsigned(32), unsigned(32))
ack_messages = st.builds(AckMessage, unsigned(32), st.lists(st.builds(
    AckEntry, st.builds(ChannelId, unsigned(16), unsigned(32), unsigned(32)), unsigned(32), unsigned(32), unsigned(64),
    unsigned(32)), max_size=9).map(tuple))
stats_messages = st.builds(StatsMessage, st.sampled_from(STATS_KINDS), unsigned(64), st.binary(max_size=200))
any_message = data_messages | ack_messages | stats_messages


def payload_of(message: Message) -> bytes:
    if isinstance(message, AckMessage):
        return message.encode()[-30 * len(message.entries):] if message.entries else b""
    return message.payload


def as_scapy(message: Message):
    values = {f.name: getattr(message, f.name) for f in LAYOUTS[message.kind].fields
              if f.name not in ("length", "flags", "client_ip")}
    if isinstance(message, DataMessage):
        values["client_ip"] = str(IPv4Address(message.client_ip))
    return E3() / LAYERS[message.kind](**values) / Raw(payload_of(message))


@settings(deadline=None, max_examples=150)
@given(any_message)
def test_scapy_builds_the_bytes_that_encode_gives(message: Message) -> None:
    assert bytes(as_scapy(message)) == message.encode()


@settings(deadline=None, max_examples=150)
@given(any_message)
def test_scapy_reads_what_encode_wrote_and_decode_what_scapy_built(message: Message) -> None:
    packet = UDP(bytes(UDP(sport=1, dport=DATA_PORT) / Raw(message.encode())))
    body = packet[LAYERS[message.kind]]
    assert packet[E3].kind == message.kind
    for field in LAYOUTS[message.kind].fields:
        if field.name == "client_ip":
            assert IPv4Address(body.client_ip).packed == message.client_ip
        elif field.name == "length":
            assert body.length == len(payload_of(message))
        elif field.name != "flags":
            assert getattr(body, field.name) == getattr(message, field.name)
    assert bytes(body.payload) == payload_of(message)
    assert decode(bytes(packet[E3])) == message


@pytest.mark.parametrize("port", (DATA_PORT, *CONTROL_PORTS))
def test_both_directions_of_every_e3_port_are_dissected(port: int) -> None:
    message = StatsMessage(STATS_KINDS[0], 5).encode()
    for ports in ({"sport": port, "dport": 9}, {"sport": 9, "dport": port}):
        assert E3 in IP(bytes(IP() / UDP(**ports) / Raw(message)))


def test_other_data_on_an_e3_port_stays_raw() -> None:
    packet = IP(bytes(IP() / UDP(dport=DATA_PORT) / Raw(b"\x00\x01hello")))
    assert E3 not in packet and packet[Raw].load == b"\x00\x01hello"


def test_a_short_message_is_read_as_far_as_it_goes() -> None:
    packet = E3(struct.pack(">HBB", MAGIC, 1, DATA_KINDS[0]) + b"\0\1")
    assert packet.kind == DATA_KINDS[0]


def test_a_given_length_is_kept_so_that_wrong_ones_can_be_sent() -> None:
    data = bytes(E3() / LAYERS[DATA_KINDS[0]](length=999) / Raw(b"abc"))
    assert data[-5:] == (999).to_bytes(2, "big") + b"abc"
