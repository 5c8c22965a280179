"""Latency summaries: exact where they can be, mergeable everywhere, and readable by HdrHistogram's own tools."""

from __future__ import annotations

import base64
import contextlib
import time
import zlib

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.clients import latency_histogram as histograms
from experiments.clients.latencies import Latencies, merged, summary_of
from experiments.errors import ExperimentError

DURATIONS = st.lists(st.integers(0, histograms.HIGHEST_NS), min_size=1, max_size=60)


def exponential(count: int, seed: int = 1) -> list[float]:
    return list(np.random.default_rng(seed).exponential(2e-3, count))


def test_mean_percentiles_and_maximum_of_one_client_are_exact() -> None:
    values = exponential(10_000)
    found = summary_of(values)
    assert (found.count, found.max_s) == (10_000, max(values))
    assert found.mean_s == pytest.approx(sum(values) / 10_000)
    assert [found.p50_s, found.p90_s, found.p99_s, found.p999_s] == pytest.approx(
        list(np.percentile(values, [50, 90, 99, 99.9])))


def test_nothing_measured_is_all_zero_and_merges_as_nothing() -> None:
    nothing = summary_of([])
    assert nothing == Latencies(0, 0.0, 0.0, 0.0, 0.0, 0.0)
    some = summary_of([0.002, 0.003])
    assert merged([nothing, some, nothing]) == some and merged([]) == nothing


def test_merged_clients_are_as_one_client_to_three_digits() -> None:
    parts = [exponential(20_000, seed) for seed in range(3)]
    together, whole = merged(map(summary_of, parts)), summary_of(list(np.concatenate(parts)))
    assert (together.count, together.max_s) == (whole.count, whole.max_s)
    assert together.mean_s == pytest.approx(whole.mean_s)
    for name in ("p50_s", "p90_s", "p99_s", "p999_s"):
        assert getattr(together, name) == pytest.approx(getattr(whole, name), rel=2e-3)
    assert together.histogram == whole.histogram
    assert merged([together, summary_of([])]) == together


def test_a_hundred_thousand_values_take_well_under_a_second() -> None:
    values = exponential(100_000)
    began = time.process_time()
    merged([summary_of(values), summary_of(values)])
    assert time.process_time() - began < 0.5


def test_a_summary_goes_through_msgpack_and_old_ones_without_histogram_still_come_back() -> None:
    found = summary_of([0.001, 0.002])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Latencies) == found
    old = msgspec.convert({"count": 2, "mean_s": 1.0, "p50_s": 1.0, "p90_s": 1.0, "p99_s": 1.0, "max_s": 1.0},
                          Latencies)
    assert merged([old]) == old
    with pytest.raises(ExperimentError, match="1 of 2 summaries have no histogram"):
        merged([old, found])


@pytest.mark.parametrize("bad", [-1e-6, 90_000.0, float("nan"), float("inf")])
def test_a_latency_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ExperimentError, match=r"latenc"):
        summary_of([0.001, bad])


@given(DURATIONS)
def test_every_value_lies_in_a_bucket_no_wider_than_a_thousandth_of_it(values: list[int]) -> None:
    for value in values:
        (bucket,) = np.flatnonzero(histograms.counts_of(np.array([value])))
        high = histograms.highest_in(int(bucket))
        low = histograms.highest_in(int(bucket) - 1) + 1 if bucket else 0
        assert low <= value <= high and high - low <= value / 1000


@given(DURATIONS)
def test_an_encoded_histogram_comes_back(values: list[int]) -> None:
    counts = histograms.counts_of(np.array(values))
    assert (histograms.decoded(histograms.encoded(counts)) == counts).all() and counts.sum() == len(values)


@settings(deadline=None)
@given(DURATIONS)
def test_hdrhistogram_itself_reads_ours_and_we_read_its(values: list[int]) -> None:
    theirs = pytest.importorskip("hdrh.histogram").HdrHistogram(1, histograms.HIGHEST_NS, 3)
    for value in values:
        assert theirs.record_value(value)
    counts = histograms.counts_of(np.array(values))
    assert theirs.counts_len == histograms.BUCKETS
    assert (histograms.decoded(theirs.encode().decode()) == counts).all()
    read = type(theirs).decode(histograms.encoded(counts).encode())
    assert read.get_total_count() == len(values)
    percentiles = [25, 50, 90, 99, 100]
    assert read.get_percentile_to_value_dict(percentiles) == dict(zip(
        percentiles, histograms.quantiles_ns(counts, [p / 100 for p in percentiles]), strict=True))


def _forged(digits: int = 3, cookie: int = histograms.INNER_COOKIE, body: bytes = b"\x02") -> str:
    packed = zlib.compress(histograms.INNER.pack(cookie, len(body), 0, digits, 1, histograms.HIGHEST_NS, 1.0) + body)
    return base64.b64encode(histograms.OUTER.pack(histograms.OUTER_COOKIE, len(packed)) + packed).decode()


@pytest.mark.parametrize("text", ["", "HIST", "not base64 at all!", _forged(digits=2), _forged(cookie=1),
                                  _forged(body=b"\x82"), _forged(body=b"\xff" * 8 + b"\x0f\x02"),
                                  base64.b64encode(b"\x1c\x84\x93\x14\x00\x00\x00\x02ab").decode()])
def test_what_is_no_histogram_of_ours_is_refused(text: str) -> None:
    with pytest.raises(ExperimentError):
        histograms.decoded(text)
    assert histograms.decoded(_forged()).sum() == 1


@given(st.binary(max_size=40))
def test_hostile_counts_raise_or_decode_and_nothing_else(body: bytes) -> None:
    with contextlib.suppress(ExperimentError):
        assert (histograms.decoded(_forged(body=body)) >= 0).all()
