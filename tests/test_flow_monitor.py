"""The flow monitor keeps the count-min sketch's promises."""

import struct
from collections import Counter
from itertools import islice

import pytest

from microservices.errors import ServiceError
from microservices.flow_monitor import DELTA, DEPTH, EPSILON, QUERY, WIDTH, FlowMonitor, cells_of, estimate
from microservices.nfv_workload import NfvWorkload
from microservices.packet import FLOW_KEY_BYTES, flow_key
from microservices.service import REPLY, Output, Request
from microservices.sharding import slot_of, slot_owners
from microservices.state import reshard

MONITOR = FlowMonitor()


def counted(packets: int, flows: int, seed: int = 1):
    state, truth = MONITOR.new_state(), Counter()
    for packet in islice(NfvWorkload(seed, 64, flows, malicious_share=0).requests(), packets):
        assert MONITOR.handle(Request(packet), state) == (Output(packet),)
        truth[flow_key(packet)] += 1
    return state, truth


def test_no_flow_is_underestimated_and_few_beyond_the_bound() -> None:
    state, truth = counted(60_000, 20_000)
    in_slot = Counter()
    for key, count in truth.items():
        in_slot[slot_of(key)] += count
    beyond = 0
    for key, count in truth.items():
        guess, seen = estimate(state, key)
        assert guess >= count
        assert seen == in_slot[slot_of(key)]
        beyond += guess > count + EPSILON * seen
    assert len(truth) > 10_000
    assert beyond <= DELTA * len(truth)


def test_flows_that_collide_in_one_row_do_not_collide_in_another_more_often_than_by_chance() -> None:
    """What the bound's exponent stands on; CRCs as hashes would fail here."""
    same = [0] * DEPTH
    met = 0
    by_first: dict[int, tuple[int, ...]] = {}
    for i in range(60_000):
        cells = cells_of(i.to_bytes(FLOW_KEY_BYTES, "big"))
        other = by_first.setdefault(cells[0], cells)
        if other is not cells:
            met += 1
            for row in range(1, DEPTH):
                same[row] += cells[row] == other[row]
    expected = met / WIDTH
    assert all(abs(same[row] - expected) < 5 * expected**0.5 for row in range(1, DEPTH))


def test_collisions_do_occur_so_the_bound_is_not_met_by_exact_counting() -> None:
    state, truth = counted(60_000, 20_000)
    assert any(estimate(state, key)[0] > count for key, count in truth.items())


def test_resharding_keeps_every_estimate() -> None:
    state, truth = counted(3000, 500)
    owners = slot_owners(7)
    parts = reshard(reshard([state], slot_owners(3)), owners)
    for key in truth:
        assert estimate(parts[owners[slot_of(key)]], key) == estimate(state, key)


def test_a_query_is_answered_to_the_client_and_routed_like_the_flow() -> None:
    state, truth = counted(500, 10)
    key, count = truth.most_common(1)[0]
    (output,) = MONITOR.handle(Request(QUERY + key), state)
    assert output.to == REPLY
    guess, seen = struct.unpack(">QQ", output.payload)
    assert count <= guess <= seen <= 500
    assert MONITOR.key_of(QUERY + key) == key


@pytest.mark.parametrize("payload", [b"", b"Q", b"Q" + bytes(12), b"\x45" + bytes(18), bytes(20)])
def test_what_is_no_packet_is_an_error_and_not_counted(payload) -> None:
    state = MONITOR.new_state()
    MONITOR.key_of(payload)
    with pytest.raises(ServiceError):
        MONITOR.handle(Request(payload), state)
    assert sum(state.arrays["sketch"]) == sum(state.arrays["packets"]) == 0
