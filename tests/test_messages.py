"""The wire format: round trips, short buffers, lies about lengths, and random bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import messages
from nodes.errors import WireError

data_messages = st.builds(
    messages.DataMessage, kind=st.sampled_from(messages.DATA_KINDS), application=st.integers(0, 0xFFFF),
    instance=st.integers(0, 0xFFFF), request_id=st.integers(0, 2**64 - 1), client_ip=st.binary(min_size=4, max_size=4),
    client_port=st.integers(0, 0xFFFF), hops=st.integers(0, 255), payload=st.binary(max_size=600),
    sender=st.integers(0, 2**32 - 1), session=st.integers(0, 2**32 - 1), sequence=st.integers(0, 2**32 - 1))
word = st.integers(0, 2**32 - 1)
ack_entries = st.builds(
    messages.AckEntry, st.builds(messages.ChannelId, st.integers(0, 0xFFFF), word, word), session=word, expected=word,
    bitmap=st.integers(0, 2**64 - 1), edge=word)
ack_messages = st.builds(messages.AckMessage, boot=word, entries=st.lists(ack_entries, max_size=20).map(tuple))
stats_messages = st.builds(
    messages.StatsMessage, kind=st.sampled_from((messages.KIND_STATS_QUERY, messages.KIND_STATS_REPORT)),
    query_id=st.integers(0, 2**64 - 1), payload=st.binary(max_size=600))
any_message = st.one_of(data_messages, ack_messages, stats_messages)


@given(any_message)
def test_what_is_encoded_is_decoded(message: messages.Message) -> None:
    assert messages.decode(message.encode()) == message
    assert messages.decode(memoryview(message.encode())) == message


@given(any_message, st.data())
def test_a_short_buffer_is_refused(message: messages.Message, data: st.DataObject) -> None:
    whole = message.encode()
    with pytest.raises(WireError):
        messages.decode(whole[:data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(WireError):
        messages.decode(whole + b"\0")


@given(st.binary(max_size=100))
def test_random_bytes_are_refused_or_are_a_message(data: bytes) -> None:
    try:
        message = messages.decode(data)
    except WireError:
        return
    assert message.encode() == data


def test_the_layout_on_the_wire() -> None:
    message = messages.DataMessage(messages.KIND_REQUEST, 0x0102, 0x0304, 0x05060708090A0B0C, b"\x0a\x01\xfe\x01",
                                   0x0D0E, 7, b"hi", 0x80001001, 0x11121314, 0x15161718, 0x191A1B1C)
    fields = ("e3a70101", "0102", "0304", "05060708090a0b0c", "0a01fe01", "0d0e", "07", "00", "80001001", "11121314",
              "15161718", "191a1b1c", "0002", "6869")
    assert message.encode().hex() == "".join(fields)


def test_a_message_is_stamped_when_it_leaves_and_its_age_is_read_from_the_stamp() -> None:
    message = messages.DataMessage(messages.KIND_REQUEST, 1, 2, 3, bytes(4), 5, 6, b"hi", sent=7)
    for left_s in (0.0, 1.5, 4.294967295, 4.3, 1e4):
        again = messages.decode(message.encode(messages.stamp_of(left_s)))
        assert isinstance(again, messages.DataMessage)
        assert messages.age_s(again.sent, left_s + 0.25) == pytest.approx(0.25, abs=2e-9)
        assert messages.age_s(again.sent, left_s - 0.25) == 0.0  # clocks of one machine agree: it is just older


def test_the_layout_of_acknowledgements_on_the_wire() -> None:
    entry = messages.AckEntry(messages.ChannelId(0x0102, 3, 0x80001001), 4, 5, 0x060708090A0B0C0D, 69)
    fields = ("e3a70108", "0e0f1011", "001e", "0102", "00000003", "80001001", "00000004", "00000005",
              "060708090a0b0c0d", "00000045")
    assert messages.AckMessage(0x0E0F1011, (entry,)).encode().hex() == "".join(fields)


def test_as_many_acknowledgements_as_fit_and_no_more() -> None:
    entry = messages.AckEntry(messages.ChannelId(1, 2, 3), 4, 5, 6, 7)
    full = messages.AckMessage(1, (entry,) * messages.MAX_ACK_ENTRIES)
    assert messages.decode(full.encode()) == full
    with pytest.raises(WireError, match=str(messages.MAX_ACK_ENTRIES)):
        messages.AckMessage(1, (entry,) * (messages.MAX_ACK_ENTRIES + 1)).encode()


def test_a_part_of_an_acknowledgement_is_refused() -> None:
    data = messages.AckMessage(1, (messages.AckEntry(messages.ChannelId(1, 2, 3), 4, 5, 6, 7),)).encode()
    cut = data[:8] + (29).to_bytes(2, "big") + data[10:-1]
    with pytest.raises(WireError, match="29 payload bytes"):
        messages.decode(cut)


def test_the_channel_of_a_request_ends_at_an_instance_and_that_of_a_reply_at_the_client() -> None:
    client = messages.CLIENT_BIT | 5
    request = messages.DataMessage(messages.KIND_REQUEST, 1, 7, client << 32 | 1, b"\0" * 4, 1, 0, b"", client)
    assert request.channel == messages.ChannelId(1, client, 7)
    for kind in messages.TO_CLIENT_KINDS:
        reply = messages.DataMessage(kind, 1, 7, client << 32 | 1, b"\0" * 4, 1, 0, b"", 7)
        assert reply.channel == messages.ChannelId(1, 7, client)


@pytest.mark.parametrize("change", [{"application": 65536}, {"hops": 256}, {"request_id": -1},
                                    {"payload": bytes(messages.MAX_PAYLOAD + 1)}])
def test_a_value_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    good = {"kind": 1, "application": 1, "instance": 1, "request_id": 1, "client_ip": b"\0" * 4, "client_port": 1,
            "hops": 0, "payload": b""}
    with pytest.raises(WireError):
        messages.DataMessage(**{**good, **change}).encode()  # type: ignore[arg-type]


def test_an_undefined_flag_is_refused() -> None:
    data = bytearray(messages.DataMessage(1, 1, 1, 1, b"\0" * 4, 1, 0, b"").encode())
    data[23] = 1
    with pytest.raises(WireError, match="flags"):
        messages.decode(bytes(data))
