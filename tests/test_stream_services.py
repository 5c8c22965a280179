"""EMA, spike, count, API gateway, top ranker and SQL on records, each against another way to the same result."""

import heapq
import math
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from microservices.api_gateway import DEFAULT_SECRET, ApiGateway, client_key, sign
from microservices.count import BITS, Count, distinct_items
from microservices.ema import Ema
from microservices.errors import ServiceError, StateError
from microservices.records import Record, RecordService, decode_record, encode_record, record_key
from microservices.service import Request
from microservices.sharding import shard_of, slot_owners
from microservices.spike import Spike
from microservices.sql import READINGS_KEPT, Sql
from microservices.state import State, reshard
from microservices.top_ranker import TopRanker, sort_first

Series = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


def answer(service: RecordService, state: State, key: str = "k", *values: float, now_s: float = 0.0, **fields):
    request = Request(encode_record(Record(key, values=values, **fields)), now_s)
    (output,) = service.handle(request, state)
    return decode_record(output.payload).results[service.name]


@given(Series, st.floats(0.01, 1.0))
def test_ema_is_the_first_order_filter_of_scipy(values, alpha) -> None:
    service = Ema(alpha)
    state = service.new_state()
    ours = [answer(service, state, "k", v) for v in values]
    # Started so that the first output is the first value.
    theirs, _ = lfilter([alpha], [1.0, alpha - 1.0], values, zi=[(1.0 - alpha) * values[0]])
    assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-6)


def smoothed_z_scores(values, lag, threshold, influence):
    """The method as numpy would write it, whole series at once."""
    filtered, verdicts = np.array(values, dtype=float), [0] * len(values)
    for i in range(lag, len(values)):
        before = filtered[i - lag:i]
        if abs(values[i] - before.mean()) > threshold * before.std():
            verdicts[i] = 1 if values[i] > before.mean() else -1
            filtered[i] = influence * values[i] + (1 - influence) * filtered[i - 1]
    return verdicts


@pytest.mark.parametrize("seed", range(20))
def test_spikes_are_those_of_the_method_written_with_numpy(seed) -> None:
    draw = Random(seed)
    values = [draw.gauss(20, 1) + (draw.choice((-15, 15)) if draw.random() < 0.05 else 0) for _ in range(300)]
    service = Spike(lag=draw.randint(2, 40), threshold=draw.uniform(2, 5), influence=draw.random())
    state = service.new_state()
    ours = [answer(service, state, "k", v) for v in values]
    assert ours == smoothed_z_scores(values, service.lag, service.threshold, service.influence)
    assert {1, -1} <= set(ours) or service.lag < 8


def test_count_counts_exactly_and_linear_counting_estimates_the_distinct_items() -> None:
    service, draw = Count(), Random(1)
    state = service.new_state()
    times: dict[str, int] = {}
    for _ in range(40_000):
        item = f"item{int(draw.paretovariate(0.4)) % 30_000}"
        times[item] = times.get(item, 0) + 1
        assert service.answer(Record(item), state, 0.0) == times[item]
    # Whang et al.: with t = n / BITS, the standard error of one slot's estimate is sqrt(BITS * (e^t - t - 1)).
    load = len(times) / 256 / BITS
    error = (256 * BITS * (np.exp(load) - load - 1)) ** 0.5
    assert len(times) > 3000
    assert abs(distinct_items(state) - len(times)) < 4 * error
    shards = reshard([state], slot_owners(5))
    assert sum(distinct_items(s) for s in shards) == pytest.approx(distinct_items(state))


@pytest.mark.parametrize("service", [Ema(), Spike(lag=4), Count(), TopRanker(), ApiGateway()], ids=lambda s: s.name)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(-9, 9)), max_size=30), st.integers(1, 5))
@settings(max_examples=15)
def test_resharding_in_mid_stream_changes_no_answer(service, stream, shards) -> None:
    whole = service.new_state()
    for key, value in stream:
        service.answer(signed(key, value), whole, 0.0)
    parts = reshard([whole], slot_owners(shards))
    assert sum(p.size_bytes - service.new_state().size_bytes for p in parts) == \
        whole.size_bytes - service.new_state().size_bytes
    if service.name == "top_ranker":  # ranks what its shard holds
        return
    for key, value in stream:
        part = parts[shard_of(key.encode(), shards)]
        assert service.answer(signed(key, value), part, 1.0) == service.answer(signed(key, value), whole, 1.0)


def signed(key: str, value: float = 1.0, time_s: float = 0.0, text: str = "") -> Record:
    record = Record(key, time_s, (value,), text)
    record.token = sign(record, client_key(DEFAULT_SECRET, key))
    return record


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    gateway = ApiGateway(rate_per_s=10, burst=5)
    state = gateway.new_state()
    passed = 0
    for i in range(1001):  # 100 requests a second for 10 s
        try:
            gateway.answer(signed("c"), state, i / 100)
            passed += 1
        except ServiceError as error:
            assert "over its rate of 10" in str(error)
    assert passed in range(5 + 100 - 1, 5 + 100 + 2)
    assert gateway.answer(signed("other"), state, 10.0) == 4.0


def test_a_clock_that_steps_back_neither_fills_nor_empties_a_bucket() -> None:
    gateway = ApiGateway(rate_per_s=1, burst=2)
    state = gateway.new_state()
    assert gateway.answer(signed("c"), state, 100.0) == 1.0
    assert gateway.answer(signed("c"), state, 50.0) == 0.0
    with pytest.raises(ServiceError):
        gateway.answer(signed("c"), state, 100.5)


@pytest.mark.parametrize("forge", [
    lambda r: setattr(r, "token", b""), lambda r: setattr(r, "token", r.token[:-1] + bytes((r.token[-1] ^ 1,))),
    lambda r: setattr(r, "key", "victim"), lambda r: setattr(r, "time_s", 9.0), lambda r: setattr(r, "text", "other"),
])
def test_a_forged_record_does_not_pass_and_takes_no_token(forge) -> None:
    gateway = ApiGateway()
    state, record = gateway.new_state(), signed("c")
    forge(record)
    with pytest.raises(ServiceError, match="not who the token says"):
        gateway.answer(record, state, 0.0)
    assert len(state.hashtables["bucket"]) == 0


@given(st.lists(st.tuples(st.integers(-3, 3).map(float), st.text("ab", max_size=2)), max_size=50), st.integers(1, 60))
def test_the_quicksort_puts_the_k_smallest_first_in_order(items, k) -> None:
    ours = list(items)
    sort_first(ours, k)
    assert ours[:k] == heapq.nsmallest(k, items)
    assert sorted(ours) == sorted(items)


def test_the_ranking_follows_scores_down_and_up_and_takes_an_upstream_count() -> None:
    ranker = TopRanker(k=2)
    state = ranker.new_state()
    for key, score in (("a", 1.0), ("b", 5.0), ("c", 3.0)):
        answer(ranker, state, key, score)
    assert answer(ranker, state, "b", 2.0) == [["c", 3.0], ["b", 2.0]]
    assert answer(ranker, state, "a", results={"count": 9}) == [["a", 9.0], ["c", 3.0]]


def test_a_count_that_is_no_number_is_an_error_and_not_ranked() -> None:
    ranker = TopRanker()
    state = ranker.new_state()
    for count in (float("nan"), float("inf")):
        with pytest.raises(ServiceError, match="must be finite"):
            answer(ranker, state, "a", 1.0, results={"count": count})
    assert len(state.hashtables["score"]) == 0


class Counted(tuple):
    """A score with its key that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other) -> bool:
        Counted.comparisons += 1
        return tuple.__lt__(self, other)


def comparisons_of(items: list[Counted], k: int) -> int:
    Counted.comparisons = 0
    sort_first(items, k)
    return Counted.comparisons


def test_the_quicksort_sorts_no_more_than_it_must() -> None:
    draw = Random(4)
    items = [Counted((draw.random(), "")) for _ in range(5000)]
    assert 5000 < comparisons_of(items, 10) < comparisons_of(draw.sample(items, 5000), 5000) / 3


@pytest.mark.parametrize("score", [lambda i: 1.0, float, lambda i: -float(i)], ids=["equal", "rising", "falling"])
def test_thousands_of_equal_or_ordered_scores_take_no_more_comparisons_than_n_log_n(score) -> None:
    items = [Counted((score(i), "x")) for i in range(4000)]
    assert comparisons_of(items, 4000) < 3 * 4000 * math.log2(4000)
    assert items == sorted(items)


def test_sql_keeps_the_latest_readings_of_each_device_and_sums_them_up() -> None:
    service = Sql()
    state = service.new_state()
    values = [float(i * 7 % 50) for i in range(READINGS_KEPT + 20)]
    for i, value in enumerate(values):
        assert answer(service, state, "t", value, time_s=float(i)) == i + 1
    answer(service, state, "'; DROP TABLE reading; --", 1.0)
    latest = values[-READINGS_KEPT:]
    assert answer(service, state, "t", op="query") == [
        READINGS_KEPT, pytest.approx(sum(latest) / READINGS_KEPT), min(latest), max(latest)]
    assert answer(service, state, "unknown", op="query") == [0, None, None, None]
    assert state.size_bytes > 0
    with pytest.raises(ServiceError, match="knows update and query"):
        answer(service, state, "t", op="drop")


@pytest.mark.parametrize("move", [lambda s: s.snapshot(), lambda s: s.split([0]), lambda s: s.restore(b""),
                                  lambda s: s.absorb(s)])
def test_sql_state_refuses_to_move_and_sql_is_pinned_to_hosts(move) -> None:
    assert Sql.host_only
    with pytest.raises(StateError, match="cannot be moved"):
        move(Sql().new_state())


@pytest.mark.parametrize("payload", [
    b"", b"\x00" * 40, encode_record(Record("")), encode_record(Record("k" * 251)),
    encode_record(Record("k", values=(float("nan"),))), encode_record(Record("k", time_s=float("inf"))),
    encode_record(Record("k")) + b"x", encode_record(Record("k")),
])
def test_what_is_no_record_with_a_value_is_an_error_and_leaves_no_state(payload) -> None:
    for service in (Ema(), Spike(), TopRanker(), Sql()):
        state = service.new_state()
        with pytest.raises(ServiceError):
            service.handle(Request(payload), state)
        assert all(len(t) == 0 for t in state.hashtables.values())


@given(st.binary(max_size=60))
def test_any_bytes_have_a_key(payload) -> None:
    assert isinstance(record_key(payload), bytes)


@pytest.mark.parametrize("make", [lambda: Ema(0.0), lambda: Ema(1.5), lambda: Spike(lag=1), lambda: Spike(threshold=0),
                                  lambda: ApiGateway(rate_per_s=0), lambda: TopRanker(0), lambda: TopRanker(101)])
def test_a_setting_out_of_its_limits_is_refused(make) -> None:
    with pytest.raises(ServiceError):
        make()
