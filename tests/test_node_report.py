"""A node's counters as they travel."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.errors import WireError
from nodes.messages import MAX_PAYLOAD
from nodes.node_report import LEFT_OUT, MOST_BYTES, packed, unpacked

MANY = {f"handled iot-ts-{copy}/recommend-{number}": 10**9 + 7919 * number for copy in range(4) for number in range(60)}


@given(st.dictionaries(st.text(max_size=40), st.integers(-2**63, 2**63 - 1), max_size=50))
def test_a_report_comes_back_as_it_was(counters: dict[str, int]) -> None:
    assert unpacked(packed(counters)) == counters


def test_hundreds_of_instances_fit_one_message_that_would_not_as_they_are() -> None:
    assert len(msgspec.msgpack.encode(MANY)) > MAX_PAYLOAD >= len(packed(MANY))
    assert unpacked(packed(MANY)) == MANY


def test_what_does_not_fit_is_left_out_from_the_end_and_counted() -> None:
    found = unpacked(packed({**MANY, "a": 1}, most_bytes=600))
    left_out = found.pop(LEFT_OUT)
    assert found["a"] == 1 and 0 < len(found) == len(MANY) + 1 - left_out
    assert list(found) == sorted({**MANY, "a": 1})[:len(found)]
    assert len(packed(MANY, most_bytes=600)) <= 600


@pytest.mark.parametrize("payload", [b"", b"x", zlib.compress(b"\xc1"), zlib.compress(msgspec.msgpack.encode(["a"])),
                                     packed(MANY)[:-9], zlib.compress(bytes(MOST_BYTES + 1))])
def test_what_is_no_report_is_refused_also_one_that_would_fill_the_memory(payload: bytes) -> None:
    with pytest.raises(WireError):
        unpacked(payload)
