"""Heartbeats, commands, answers, fetches and chunks: round trips, short buffers, fuzzing, and what codes can say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import messages
from nodes.control_messages import (
    HEARTBEAT_BYTES,
    NO_INSTANCE,
    Answer,
    Chunk,
    Command,
    ControlMessage,
    Fetch,
    Heartbeat,
    Refusal,
    Standing,
    Verb,
    float_code,
    float_value,
    pack_addresses,
    share_code,
    unpack_addresses,
)
from nodes.errors import WireError
from nodes.messages import LAYOUTS
from nodes.wire import MAX_PAYLOAD


def unsigned(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**bits - 1)


digests = st.binary(min_size=16, max_size=16)
payloads = st.binary(max_size=300)
verbs, standings, refusals = (st.sampled_from([int(k) for k in kinds]) for kinds in (Verb, Standing, Refusal))
heartbeats = st.builds(Heartbeat, unsigned(16), unsigned(16), unsigned(16), unsigned(16), unsigned(8), unsigned(8),
                       unsigned(8), unsigned(8))
commands = st.builds(Command, unsigned(32), unsigned(32), unsigned(32), verbs, unsigned(16), unsigned(16), unsigned(32),
                     st.binary(min_size=4, max_size=4), unsigned(32), digests, payloads)
answers = st.builds(Answer, unsigned(32), unsigned(32), unsigned(32), verbs, standings, refusals, unsigned(16),
                    unsigned(16), unsigned(32), unsigned(32), digests, payloads)
fetches = st.builds(Fetch, digests, unsigned(32))
chunks = st.builds(Chunk, digests, unsigned(32), payloads)
any_message = st.one_of(heartbeats, commands, answers, fetches, chunks)


@given(any_message)
def test_what_is_encoded_is_decoded(message: ControlMessage) -> None:
    assert messages.decode(message.encode()) == message


@given(any_message, st.data())
def test_a_short_or_long_buffer_is_refused(message: ControlMessage, data: st.DataObject) -> None:
    whole = message.encode()
    for wrong in (whole[:data.draw(st.integers(0, len(whole) - 1))], whole + b"\0"):
        with pytest.raises(WireError):
            messages.decode(wrong)


@given(st.sampled_from([18, 19, 20, 21, 22]), st.binary(max_size=120))
def test_random_bytes_behind_a_true_header_are_refused_or_are_a_message(kind: int, rest: bytes) -> None:
    data = b"\xe3\xa7\x01" + bytes((kind,)) + rest
    try:
        message = messages.decode(data)
    except WireError:
        return
    assert message.encode() == data


@given(heartbeats)
def test_a_heartbeat_is_sixteen_bytes_in_all(message: Heartbeat) -> None:
    assert len(message.encode()) == HEARTBEAT_BYTES == 16


def test_the_layout_of_a_heartbeat_on_the_wire() -> None:
    fields = ("e3a70112", "0102", "0304", "0506", "0708", "09", "0a", "0b", "0c")
    assert Heartbeat(0x0102, 0x0304, 0x0506, 0x0708, 9, 10, 11, 12).encode().hex() == "".join(fields)


def test_the_layout_of_a_command_on_the_wire() -> None:
    command = Command(1, 2, 3, Verb.COLLECT, 4, 5, 6, bytes((10, 1, 1, 11)), 7, bytes(range(16)), b"why")
    fields = ("e3a70113", "00000001", "00000002", "00000003", "03", "0004", "0005", "00000006", "0a01010b", "00000007",
              "0001020304050607", "08090a0b0c0d0e0f", "0003", "776879")
    assert command.encode().hex() == "".join(fields)


@given(unsigned(8))
def test_every_queue_code_stands_for_one_number(code: int) -> None:
    assert float_code(float_value(code, 4), 4, 8) == code


@given(unsigned(16))
def test_every_execution_code_stands_for_one_number(code: int) -> None:
    assert float_code(float_value(code, 11), 11, 16) == code


@given(st.integers(0, 4_000_000_000_000))
def test_an_execution_time_is_exact_to_4_us_and_then_to_a_twentieth_of_a_percent(ns: int) -> None:
    said = float_value(float_code(ns, 11, 16), 11)
    assert said == ns if ns < 4096 else 0 <= ns - said < ns * 0.0005


@given(st.integers(0, 400_000))
def test_a_queue_is_exact_to_31_frames_and_then_to_6_percent(frames: int) -> None:
    said = float_value(float_code(frames, 4, 8), 4)
    assert said == frames if frames < 32 else 0 <= frames - said <= frames * 0.0625


def test_what_is_beyond_a_code_is_its_limit() -> None:
    assert float_code(10**9, 4, 8) == 255 and float_code(-5, 4, 8) == 0 and float_code(10**15, 11, 16) == 0xFFFF
    assert (share_code(-0.1), share_code(0.0), share_code(1.0), share_code(7.0)) == (0, 0, 255, 255)


def test_a_heartbeat_without_an_instance_tells_the_boot_number() -> None:
    assert Heartbeat(1, 0x5678, NO_INSTANCE, 0x1234, 0, 0, 0, 0).boot == 0x12345678
    assert Heartbeat(1, 0x5678, 3, 0x1234, 0, 0, 0, 0).boot is None


@pytest.mark.parametrize("message", [
    Command(0, 0, 0, 99, 0, 0, 0), Answer(0, 0, 0, 1, 99, 0, 0, 0, 0), Answer(0, 0, 0, 1, 0, 99, 0, 0, 0)])
def test_a_number_that_means_nothing_is_refused(message: ControlMessage) -> None:
    with pytest.raises(WireError, match="99"):
        messages.decode(message.encode())


@pytest.mark.parametrize("message", [
    Heartbeat(65536, 0, 0, 0, 0, 0, 0, 0), Heartbeat(0, 0, 0, 0, 256, 0, 0, 0), Command(-1, 0, 0, 1, 0, 0, 0),
    Command(0, 0, 0, 1, 0, 0, 0, digest=b"short"), Chunk(bytes(16), 0, bytes(8193)), Fetch(bytes(16), 2**32)])
def test_a_value_that_does_not_fit_is_refused(message: ControlMessage) -> None:
    with pytest.raises(WireError):
        message.encode()


@settings(deadline=None)
@given(any_message)
def test_scapy_builds_and_reads_the_same_bytes(message: ControlMessage) -> None:
    scapy_layer = pytest.importorskip("experiments.captures.scapy_layer", reason="scapy is not installed")
    from scapy.packet import Raw
    packet = scapy_layer.E3(message.encode())
    body = packet[scapy_layer.LAYERS[message.kind]]
    for field in LAYOUTS[message.kind].fields:
        if field.code == "ip":
            assert body.peer == ".".join(map(str, message.peer))  # type: ignore[union-attr]
        elif field.name not in ("length", "digest_high", "digest_low"):
            assert getattr(body, field.name) == getattr(message, field.name)
    values = {f.name: getattr(body, f.name) for f in LAYOUTS[message.kind].fields}
    built = scapy_layer.E3() / scapy_layer.LAYERS[message.kind](**values) / Raw(getattr(message, "payload", b""))
    assert bytes(built) == message.encode()


@given(st.lists(st.tuples(st.binary(min_size=4, max_size=4), unsigned(16)), max_size=50))
def test_addresses_are_read_as_they_were_packed(addresses: list[tuple[bytes, int]]) -> None:
    packed = pack_addresses(addresses)
    assert unpack_addresses(packed) == addresses
    if packed:
        with pytest.raises(WireError, match="addresses"):
            unpack_addresses(packed[:-1])


def test_more_addresses_than_a_message_carries_are_cut_at_a_whole_one() -> None:
    packed = pack_addresses([(b"\x0a\x01\xfe\x01", port) for port in range(10_000)])
    assert len(packed) <= MAX_PAYLOAD and unpack_addresses(packed)[-1][1] == len(packed) // 6 - 1
