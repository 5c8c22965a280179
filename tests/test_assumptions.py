"""Our assumptions: all of them named, in range, and derived where they say that they are."""

from math import sqrt

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from microservices.assumptions import (
    ASSUMPTIONS,
    DEFAULTS,
    NETWORK_BOUND_HEADROOM,
    Assumptions,
    assumption,
    headroom_at_balance,
    relative_cost,
    varied,
    wire_bytes,
)
from microservices.errors import ServiceError


def test_every_field_is_described_once_with_its_default_within_its_range() -> None:
    assert [a.name for a in ASSUMPTIONS] == [f.name for f in msgspec.structs.fields(Assumptions)]
    for one in ASSUMPTIONS:
        assert one.low <= float(getattr(DEFAULTS, one.name)) == one.default <= one.high
        assert one.low < one.high and one.meaning and one.rests_on


def test_the_headroom_follows_from_the_sizes_at_which_network_and_cores_are_balanced() -> None:
    assert headroom_at_balance(sqrt(256 * 512), 0.9) == pytest.approx(NETWORK_BOUND_HEADROOM, abs=0.005)
    assert headroom_at_balance(512, 0.9) == 1
    assert 0.5 < headroom_at_balance(256, 0.9) < NETWORK_BOUND_HEADROOM


@given(st.floats(64, 1400), st.floats(0, 1), st.floats(1e-7, 1e-3))
def test_at_the_balanced_size_cores_that_were_busy_for_the_headroom_at_512_bytes_are_just_full(
        balanced: float, share: float, cost_at_512_s: float) -> None:
    line = 1.25e9
    cores = cost_at_512_s * line / wire_bytes(512) / headroom_at_balance(balanced, share)
    by_cores = cores / (cost_at_512_s * relative_cost(balanced, share))
    assert by_cores == pytest.approx(line / wire_bytes(balanced))


def test_one_assumption_is_varied_and_the_others_stay() -> None:
    changed = varied("hol_factor", 8)
    assert changed.hol_factor == 8 and msgspec.structs.replace(changed, hol_factor=DEFAULTS.hol_factor) == DEFAULTS
    assert varied("cap_at_peak", 0.0).cap_at_peak is False
    assert varied("tor_s", 1e-6, changed).hol_factor == 8


@pytest.mark.parametrize(("name", "value", "words"), [
    ("hol_factor", 17, ["hol_factor", "17", "16"]), ("hol_factor", float("nan"), ["nan"]),
    ("hols", 1, ["hols", "hol_factor"])])
def test_a_value_out_of_range_is_refused_with_the_range(name: str, value: float, words: list[str]) -> None:
    with pytest.raises(ServiceError) as refused:
        varied(name, value)
    assert all(word in str(refused.value) for word in words)


def test_assumptions_survive_their_json() -> None:
    changed = varied("linux_lull_share", 0.25)
    assert msgspec.json.decode(msgspec.json.encode(changed), type=Assumptions) == changed
    assert assumption("tor_s").default == DEFAULTS.tor_s
