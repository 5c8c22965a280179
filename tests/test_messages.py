"""The wire format: round trips, short buffers, lies about lengths, and random bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes import messages
from nodes.errors import WireError

data_messages = st.builds(
    messages.DataMessage, kind=st.sampled_from(messages.DATA_KINDS), application=st.integers(0, 0xFFFF),
    instance=st.integers(0, 0xFFFF), request_id=st.integers(0, 2**64 - 1), client_ip=st.binary(min_size=4, max_size=4),
    client_port=st.integers(0, 0xFFFF), hops=st.integers(0, 255), payload=st.binary(max_size=600))
stats_messages = st.builds(
    messages.StatsMessage, kind=st.sampled_from((messages.KIND_STATS_QUERY, messages.KIND_STATS_REPORT)),
    query_id=st.integers(0, 2**64 - 1), payload=st.binary(max_size=600))
any_message = st.one_of(data_messages, stats_messages)


@given(any_message)
def test_what_is_encoded_is_decoded(message: messages.DataMessage | messages.StatsMessage) -> None:
    assert messages.decode(message.encode()) == message
    assert messages.decode(memoryview(message.encode())) == message


@given(any_message, st.data())
def test_a_short_buffer_is_refused(message: messages.DataMessage, data: st.DataObject) -> None:
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
                                   0x0D0E, 7, b"hi")
    fields = ("e3a70101", "0102", "0304", "05060708090a0b0c", "0a01fe01", "0d0e", "07", "00", "0002", "6869")
    assert message.encode().hex() == "".join(fields)


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
