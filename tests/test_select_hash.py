from collections import Counter
from dataclasses import replace

import pytest

from controller import select_hash
from controller.select_hash import TCP, UDP, FlowKey, disagreements, predict, scores
from controller.tor_program import Bucket, EcmpGroup

MAC = "02:e3:01:01:00:01"


def group(parameter: int = 7, ids: tuple[int, ...] = (1, 2, 3), weight: int = 1) -> EcmpGroup:
    return EcmpGroup(1, "ports of s1h", parameter, tuple(Bucket(i, i, i, MAC, weight) for i in ids))


def flows(count: int) -> list[FlowKey]:
    return [FlowKey("10.1.254.1", "10.1.1.1", UDP, 1000 + i, 58112) for i in range(count)]


# What Open vSwitch 3.1.0's ofproto/trace printed for this flow, with two hash parameters.
TRACED = FlowKey("10.0.0.1", "10.1.2.3", UDP, 77, 99)
SCORES = {7: {1: 51737, 2: 25021, 3: 33251}, 65537: {1: 18512, 2: 53905, 3: 11563}}
TRACE = """
 0. ip, priority 1
    dec_ttl
    group:1
     -> bucket 1: score 51737
     -> bucket 2: score 25021
     -> bucket 3: score 33251
     -> using bucket 1
    bucket 1
            output:1
"""


@pytest.mark.parametrize(("data", "seed", "digest"), [
    (b"test", 0, 0xBA6BD213), (b"test", 0x9747B28C, 0x704B81DC), (b"", 1, 0x514E28B7), (b"\0\0\0\0", 0, 0x2362F9DE),
    (b"\xff\xff\xff\xff", 0, 0x76293B50), (b"\x21\x43\x65\x87", 0x5082EDEE, 0x2362F9DE)])
def test_words_are_mixed_as_published_for_murmurhash3(data: bytes, seed: int, digest: int) -> None:
    assert select_hash._hash_bytes(data, seed) == digest


@pytest.mark.parametrize("parameter", SCORES)
def test_the_scores_are_those_that_open_vswitch_printed(parameter: int) -> None:
    assert scores(group(parameter), TRACED) == SCORES[parameter]


def test_a_trace_of_the_same_hash_agrees() -> None:
    assert disagreements(group(), TRACED, TRACE) == []


@pytest.mark.parametrize(("trace", "complaint"), [
    (TRACE.replace("score 25021", "score 25022"), "bucket 2: the switch scores 25022, predicted 25021"),
    (TRACE.replace("using bucket 1", "using bucket 3"), "the switch uses bucket 3, predicted 1"),
    (TRACE.replace("group:1", "group:9"), "the trace scores no bucket of group 1"),
    ("", "the trace scores no bucket of group 1")])
def test_a_switch_that_hashes_otherwise_is_noticed(trace: str, complaint: str) -> None:
    assert disagreements(group(), TRACED, trace) == [complaint]


def test_only_a_dead_buckets_flows_move() -> None:
    four = group(ids=(1, 2, 3, 4))
    for flow in flows(500):
        before, after = predict(four, flow), predict(four, flow, {1, 2, 4})
        assert after == before if before != 3 else after in {1, 2, 4}


def test_a_bucket_taken_out_of_the_group_moves_the_same_flows_as_a_dead_one() -> None:
    four, three = group(ids=(1, 2, 3, 4)), group(ids=(1, 2, 4))
    assert all(predict(three, f) == predict(four, f, {1, 2, 4}) for f in flows(500))


def test_flows_spread_evenly_over_equal_buckets() -> None:
    taken = Counter(predict(group(ids=(1, 2, 3, 4)), f) for f in flows(4000))
    # 1000 each, standard deviation 27.
    assert all(880 <= taken[i] <= 1120 for i in (1, 2, 3, 4))


def test_different_parameters_choose_independently() -> None:
    one, other = group(0x10001, (1, 2)), group(0x20001, (1, 2))
    pairs = Counter((predict(one, f), predict(other, f)) for f in flows(2000))
    # 500 each, standard deviation 19.
    assert len(pairs) == 4 and all(420 <= n <= 580 for n in pairs.values())


def test_with_no_live_bucket_the_packet_goes_nowhere() -> None:
    assert predict(group(), TRACED, ()) is None


def test_on_a_tie_the_later_bucket_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select_hash, "_hash_int", lambda x, basis: 0x12340005)
    assert predict(group(), TRACED) == 3
    assert predict(group(), TRACED, {1, 2}) == 2


def test_weight_multiplies_the_score() -> None:
    assert scores(group(weight=3), TRACED) == {i: 3 * s for i, s in SCORES[7].items()}


def test_a_later_fragment_is_hashed_by_its_addresses_only() -> None:
    fragment = replace(TRACED, src_port=None, dst_port=None)
    assert scores(group(), fragment) == scores(group(), replace(fragment, protocol=TCP))
    assert scores(group(), fragment) != scores(group(), TRACED)
