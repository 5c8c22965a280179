"""The messages of replication as bytes: there and back, cut short, and damaged."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.control_messages import CONTROL_LAYOUTS, Refusal
from nodes.errors import WireError
from nodes.messages import LAYOUTS, decode
from nodes.replication_messages import (
    LAST,
    NOBODY,
    PLEDGE,
    REPLICATION_LAYOUTS,
    Append,
    Appended,
    Offer,
    Part,
    Stands,
    View,
)
from nodes.wire import MAX_PAYLOAD

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
IP = st.binary(min_size=4, max_size=4)
PAYLOAD = st.binary(max_size=200)
MESSAGES = st.one_of(
    st.builds(View, U32, U32, U16, U16, U32, st.sampled_from((0, 1)), IP, IP, IP),
    st.builds(Stands, U32, U32, U16, U16, U32, st.sampled_from(Part), st.sampled_from(Refusal), U64, IP, PAYLOAD),
    st.builds(Offer, U16, U16, U32, U64, U32, st.binary(min_size=16, max_size=16)),
    st.builds(Append, U16, U16, U32, U64, st.sampled_from((0, LAST, PLEDGE)), PAYLOAD),
    st.builds(Appended, U16, U16, U32, U64, st.sampled_from(Part)))


@given(MESSAGES)
def test_every_message_comes_back_as_it_went(message: View | Stands | Offer | Append | Appended) -> None:
    assert decode(message.encode()) == message


@given(MESSAGES, st.data())
def test_what_is_cut_short_or_has_more_is_refused(message: View, data: st.DataObject) -> None:
    encoded = message.encode()
    with pytest.raises(WireError):
        decode(encoded[:data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(WireError):
        decode(encoded + b"x")


def test_any_bytes_are_a_message_or_refused() -> None:
    draw = random.Random(1)
    good = [View(1, 2, 3, 4, 5, 1, b"\x0a\0\0\1").encode(), Stands(1, 2, 3, 4, 5, 4, 0, 9, NOBODY, b"why").encode(),
            Offer(1, 2, 3, 4, 5, bytes(16)).encode(), Append(1, 2, 3, 4, 1, b"entry").encode(),
            Appended(1, 2, 3, 4, 2).encode()]
    read = 0
    for _ in range(20_000):
        damaged = bytearray(draw.choice(good))
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            decode(damaged)
            read += 1
        except WireError:
            pass
    assert 0 < read < 20_000


@pytest.mark.parametrize("wrong", [View(1, 0, 1, 1, 1, 2, NOBODY), Append(1, 1, 1, 1, 3, b""), Appended(1, 1, 1, 1, 5),
                                   Stands(1, 1, 1, 1, 1, 9, 0, 0), Stands(1, 1, 1, 1, 1, 0, 99, 0)])
def test_numbers_without_meaning_are_refused(wrong: View | Append) -> None:
    with pytest.raises(WireError):
        decode(wrong.encode())


@pytest.mark.parametrize("wrong", [Append(1, 1, 1, 1, LAST, bytes(MAX_PAYLOAD + 1)), Offer(1, 1, 1, 1, 1, b"short"),
                                   Append(1 << 16, 1, 1, 1, 0, b""), View(1, 0, 1, 1, -1, 0, NOBODY)])
def test_what_no_field_holds_is_not_sent(wrong: Append) -> None:
    with pytest.raises(WireError):
        wrong.encode()


def test_no_kind_of_message_is_used_twice_and_all_are_among_the_layouts() -> None:
    kinds = [layout.kind for layout in REPLICATION_LAYOUTS]
    assert len(set(kinds)) == len(kinds) and not {layout.kind for layout in CONTROL_LAYOUTS} & set(kinds)
    assert all(LAYOUTS[layout.kind] is layout for layout in REPLICATION_LAYOUTS)
