"""HdrHistogram's bucket layout and its V2 encoding, over arrays: three significant digits from 1 ns to a day.

The layout (Gil Tene's HdrHistogram): values below 2048 have a bucket each, and each doubling above has 1024 buckets, so
that a bucket is at most 1/1024 of its values wide. The encoding is the one that HdrHistogram's tools for Java, C, Go
and Python read: base64 of a cookie and a zlib stream of a header and the counts as ZigZag LEB128, negative ones being
runs of empty buckets. The Python package is not used itself, because it has no build for every machine that the
testbed runs on; the tests hold this against it, both ways.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.errors import ExperimentError

SIGNIFICANT_DIGITS = 3
HIGHEST_NS = 86_400 * 10**9
SUB_BUCKETS = 2048  # the power of two above 2 * 10 ** SIGNIFICANT_DIGITS
HALF = SUB_BUCKETS // 2
HALF_BITS = 10
BUCKETS = HALF * (HIGHEST_NS.bit_length() - HALF_BITS + 1)
WORD = 0x10  # in both cookies: counts are LEB128
OUTER_COOKIE, INNER_COOKIE = 0x1C849304 | WORD, 0x1C849303 | WORD
OUTER = struct.Struct(">II")  # cookie, bytes that follow
INNER = struct.Struct(">IIIIQQd")  # cookie, bytes of counts, index offset, digits, lowest, highest, conversion ratio

Counts = NDArray[np.int64]


def counts_of(values_ns: NDArray[Any]) -> Counts:
    """Return how many of `values_ns` fall into each bucket; raises ExperimentError for one that fits none."""
    values = np.asarray(values_ns, dtype=np.int64)
    if values.size and not 0 <= values.min() <= values.max() <= HIGHEST_NS:
        worst = values.min() if values.min() < 0 else values.max()
        raise ExperimentError(f"a latency of {worst} ns; a histogram holds 0 to {HIGHEST_NS} ns")
    # Exact: the largest value is far below 2 ** 53.
    bits = np.frexp((values | (SUB_BUCKETS - 1)).astype(np.float64))[1].astype(np.int64) - HALF_BITS - 1
    return np.bincount((bits << HALF_BITS) + (values >> bits), minlength=BUCKETS)


def highest_in(bucket: int) -> int:
    """Return the largest value, in ns, that falls into `bucket`."""
    bits = max(0, (bucket >> HALF_BITS) - 1)
    return ((bucket - (bits << HALF_BITS) + 1) << bits) - 1


def quantiles_ns(counts: Counts, shares: Iterable[float]) -> list[int]:
    """Return for each of `shares`, 0 to 1, the value that this share of the recorded ones is not above.

    By nearest rank, rounded up to the end of its bucket, as HdrHistogram does. 0 if nothing is recorded.
    """
    below = np.cumsum(counts)
    total = int(below[-1])
    ranks = [max(1, int(share * total + 0.5)) for share in shares]
    return [highest_in(int(np.searchsorted(below, rank))) if total else 0 for rank in ranks]


def encoded(counts: Counts) -> str:
    """Return `counts` in the V2 encoding."""
    body = bytearray()
    done = 0
    for bucket in np.flatnonzero(counts).tolist():
        if bucket > done:
            body += _leb128(2 * (bucket - done) - 1)
        body += _leb128(2 * int(counts[bucket]))
        done = bucket + 1
    header = INNER.pack(INNER_COOKIE, len(body), 0, SIGNIFICANT_DIGITS, 1, HIGHEST_NS, 1.0)
    packed = zlib.compress(header + bytes(body))
    return base64.b64encode(OUTER.pack(OUTER_COOKIE, len(packed)) + packed).decode()


def decoded(text: str) -> Counts:
    """Return the counts in `text`; raises ExperimentError if it is none of our layout in the V2 encoding."""
    try:
        raw = base64.b64decode(text, validate=True)
        outer, length = OUTER.unpack_from(raw)
        inside = zlib.decompress(raw[OUTER.size:])
        cookie, size, _, digits, lowest, highest, _ = INNER.unpack_from(inside)
    except (ValueError, struct.error, zlib.error) as error:
        raise ExperimentError(f"no histogram in {text[:24]!r}... of {len(text)} characters: {error}") from error
    if (outer, cookie, length, size) != (OUTER_COOKIE, INNER_COOKIE, len(raw) - OUTER.size, len(inside) - INNER.size):
        raise ExperimentError(f"no histogram in {text[:24]!r}...: cookies {outer:#x} and {cookie:#x} over {length} and "
                              f"{size} bytes are not those of the V2 encoding")
    if (digits, lowest, highest) != (SIGNIFICANT_DIGITS, 1, HIGHEST_NS):
        raise ExperimentError(f"a histogram of {digits} digits from {lowest} to {highest} ns; wanted are "
                              f"{SIGNIFICANT_DIGITS} from 1 to {HIGHEST_NS}")
    counts = np.zeros(BUCKETS, dtype=np.int64)
    bucket = 0
    for number in _numbers(inside[INNER.size:]):
        count = number >> 1 ^ -(number & 1)
        if count > 0 and bucket < BUCKETS:
            counts[bucket] = count
        elif count > 0:
            raise ExperimentError(f"a histogram with more than {BUCKETS} buckets")
        bucket += 1 if count >= 0 else -count
    return counts


def added(histograms: Sequence[str]) -> Counts:
    """Return the sum of encoded `histograms`."""
    return sum((decoded(text) for text in histograms), np.zeros(BUCKETS, dtype=np.int64))


def _leb128(number: int) -> bytes:
    """Return `number` in groups of seven bits, the lowest first; no count of ours is long enough for a ninth byte."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def _numbers(data: bytes) -> Iterable[int]:
    number = shift = 0
    for byte in data:
        if shift == 56:  # the ninth byte is whole
            number, more = number | byte << 56, False
        else:
            number, more = number | (byte & 0x7F) << shift, byte > 0x7F
        shift += 7
        if not more:
            yield number
            number = shift = 0
    if shift:
        raise ExperimentError("a histogram that ends within a count")
