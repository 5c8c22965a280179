"""Requests for analytics and IoT microservices: records about many keys, filled up to the size that is studied.

Keys follow a Zipf law. What a record holds beside its key depends on who makes it; the distributions are stated at
each. The check of replies works out anew what no state enters into (KNN, Bayes, BM25) and holds the rest against what
it can be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate
from math import log
from random import Random
from typing import Any

import numpy as np

from microservices.api_gateway import DEFAULT_SECRET, client_key, sign
from microservices.assumptions import DEFAULTS
from microservices.bayes import synthetic_mail, synthetic_training
from microservices.bm25 import synthetic_documents
from microservices.errors import ServiceError
from microservices.knn import synthetic_clusters
from microservices.records import Record, decode_record, encode_record
from microservices.workload import Workload

DEFAULT_SIZE_BYTES = 512
SPIKE_SHARE = 0.02
RATED_ITEMS = 64
TOP_RATING = 5.0 * (1 + 1e-12)  # a weighted mean of ratings up to 5 may round to just above


def vector(draw: Random, record: Record) -> None:
    """Eight numbers, each evenly between 0 and 10: anywhere among KNN's clusters."""
    record.values = tuple(draw.uniform(0.0, 10.0) for _ in range(8))


def measurement(draw: Random, record: Record) -> None:
    """One number, Gaussian about 50 with deviation 5; one in fifty is 40 further out."""
    value = draw.gauss(50.0, 5.0)
    record.values = (value + draw.choice((-40.0, 40.0)) if draw.random() < SPIKE_SHARE else value,)


def mail(draw: Random, record: Record) -> None:
    """A synthetic mail, spam or not alike often, and its length as the value."""
    record.text = synthetic_mail(draw, draw.random() < 0.5)
    record.values = (float(len(record.text)),)


def report(draw: Random, record: Record) -> None:
    """A measurement, and four words from the vocabulary of BM25's documents with the same Zipf law."""
    measurement(draw, record)
    record.text = " ".join(f"w{n}" for n in draw.choices(range(1, 2001), cum_weights=_VOCABULARY, k=4))


def rating(draw: Random, record: Record) -> None:
    """An item, the first of them the most popular (Zipf), and a rating in halves from 0.5 to 5."""
    item = draw.choices(range(RATED_ITEMS), cum_weights=_VOCABULARY[:RATED_ITEMS])[0]
    record.values = (float(item), draw.randint(1, 10) / 2)


def thermostat(draw: Random, record: Record) -> None:
    """A temperature as a measurement, then a rated set point."""
    rating(draw, record)
    rated = record.values
    measurement(draw, record)
    record.values += rated


def signed(fill: Callable[[Random, Record], None]) -> Callable[[Random, Record], None]:
    """Return what fills a record in the same way, with words to sign."""
    def filled(draw: Random, record: Record) -> None:
        fill(draw, record)
        record.text = record.text or f"reading {draw.randrange(10**6)}"
    return filled


_VOCABULARY = list(accumulate(1.0 / n for n in range(1, 2001)))

# For each application, and each microservice alone: what its records hold, and the results that a reply has; those in
# the second set are there or are not, as triggers decide.
KINDS: dict[str, tuple[Callable[[Random, Record], None], frozenset[str], frozenset[str]]] = {
    name: (fill, frozenset(results.split()), frozenset(maybe.split())) for name, fill, results, maybe in (
        ("rta-ptc", vector, "knn count top_ranker", ""),
        ("rta-sf", mail, "kvs count spike bayes", ""),
        ("rta-shm", report, "count ema sql bm25", ""),
        ("iot-dh", signed(vector), "api_gateway kvs knn", ""),
        ("iot-ts", signed(thermostat), "api_gateway sql", "recommend"),
        ("api_gateway", signed(measurement), "api_gateway", ""),
        ("bayes", mail, "bayes", ""), ("bm25", report, "bm25", ""), ("count", measurement, "count", ""),
        ("ema", measurement, "ema", ""), ("knn", vector, "knn", ""), ("kvs", report, "kvs", ""),
        ("recommend", rating, "recommend", ""), ("spike", measurement, "spike", ""), ("sql", measurement, "sql", ""),
        ("top_ranker", measurement, "top_ranker", ""))}


class RecordWorkload(Workload):
    """Records for `application` about `keys` keys with Zipf exponent `zipf`, each `size_bytes` long.

    Results of the microservices in `perhaps` may be missing from a reply. Raises ServiceError on an unknown
    application, and from `requests` if a record needs more bytes.
    """

    def __init__(self, application: str, seed: int = 1, size_bytes: int = DEFAULT_SIZE_BYTES,
                 keys: int = int(DEFAULTS.keys), zipf: float = DEFAULTS.zipf, secret: bytes = DEFAULT_SECRET,
                 perhaps: Collection[str] = ()) -> None:
        if application not in KINDS:
            raise ServiceError(f"no records for {application!r}; known: {', '.join(KINDS)}")
        if keys < 1:
            raise ServiceError(f"{keys} keys; the least is 1")
        self.application, self.seed, self.size_bytes = application, seed, size_bytes
        self._fill, results, maybe = KINDS[application]
        self._results, self._perhaps = results.difference(perhaps), maybe.union(perhaps)
        self._keys = [f"{application}-{n}" for n in range(keys)]
        self._weights = list(accumulate(1.0 / n**zipf for n in range(1, keys + 1)))
        self._secret = secret
        self._checks: dict[str, Callable[[Record, Any], bool]] = {
            "count": lambda r, v: isinstance(v, int) and v >= 1,
            "ema": lambda r, v: isinstance(v, float) and -100.0 < v < 200.0,
            "spike": lambda r, v: v in (-1, 0, 1),
            "kvs": lambda r, v: v == "STORED",
            "sql": lambda r, v: isinstance(v, int) and v >= 1,
            "api_gateway": lambda r, v: isinstance(v, float) and v >= 0.0,
            "top_ranker": lambda r, v: 1 <= len(v) <= 10 and v == sorted(v, key=lambda e: (-e[1], e[0])),
            "recommend": lambda r, v: len(v) <= 3 and all(0 <= i < RATED_ITEMS and 0.0 < s <= TOP_RATING for i, s in v)}

        for name, by_hand in (("knn", NearestByHand), ("bayes", BayesByHand), ("bm25", Bm25ByHand)):
            if name in self._results | self._perhaps:
                self._checks[name] = by_hand()

    def requests(self) -> Iterator[bytes]:
        draw = Random(f"records {self.application} {self.seed}")
        time_s = 0.0
        while True:
            time_s += draw.expovariate(1000.0)
            record = Record(draw.choices(self._keys, cum_weights=self._weights)[0], time_s)
            self._fill(draw, record)
            yield self._finished(record)

    def _finished(self, record: Record) -> bytes:
        """Sign a record and fill it up to size."""
        record.token = bytes(16)
        short = self.size_bytes - len(encode_record(record))
        if short == 256:  # msgpack's headers grow at 256 bytes, so no padding takes exactly 256
            record.text += " "
            short = self.size_bytes - len(encode_record(record))
        if short < 0:
            raise ServiceError(f"records of {self.application} need {self.size_bytes - short} bytes; "
                               f"{self.size_bytes} were asked for")
        record.padding = bytes(short if short < 256 else short - 1)
        record.token = sign(record, client_key(self._secret, record.key))
        return encode_record(record)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        asked = decode_record(request)
        try:
            got = decode_record(reply)
        except ServiceError as error:
            return str(error)
        if not self._results <= got.results.keys() <= self._results | self._perhaps:
            return f"results {sorted(got.results)}; expected {sorted(self._results)}, perhaps {sorted(self._perhaps)}"
        for name, value in got.results.items():
            if not self._possible(name, asked, value):
                return f"{name} of {asked.key!r} cannot be {value!r}"
        got.results = {}
        return None if got == asked else f"the record came back changed: {got} for {asked}"

    def _possible(self, name: str, asked: Record, value: Any) -> bool:
        try:
            return self._checks[name](asked, value)
        except (TypeError, ValueError, LookupError):  # not even of the shape that the check looks into
            return False


class NearestByHand:
    """KNN's vote from the full list of distances."""

    def __init__(self) -> None:
        points, self._labels = synthetic_clusters()
        self._points = np.array(points)

    def __call__(self, record: Record, label: Any) -> bool:
        distances = np.linalg.norm(self._points - np.array(record.values), axis=1)
        votes = Counter(self._labels[i] for i in np.argsort(distances, kind="stable")[:5])
        return bool(label == min(votes, key=lambda name: (-votes[name], name)))


class BayesByHand:
    """Bayes's choice by counting words anew."""

    def __init__(self) -> None:
        texts, labels = synthetic_training()
        self._words = {c: Counter(" ".join(t for t, lb in zip(texts, labels, strict=True) if lb == c).split())
                       for c in sorted(set(labels))}
        self._priors = {c: labels.count(c) / len(labels) for c in self._words}
        self._vocabulary = set().union(*self._words.values())

    def __call__(self, record: Record, label: Any) -> bool:
        scores = {c: log(self._priors[c]) + sum(log((counts[w] + 1) / (counts.total() + len(self._vocabulary)))
                                                for w in record.text.split() if w in self._vocabulary)
                  for c, counts in self._words.items()}
        return label in scores and scores[label] >= max(scores.values()) - 1e-9


class Bm25ByHand:
    """BM25's formula, one word at a time over all documents."""

    def __init__(self) -> None:
        self._documents = [Counter(d.split()) for d in synthetic_documents()]
        lengths = np.array([d.total() for d in self._documents])
        self._damping = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
        self._of_word: dict[str, np.ndarray] = {}

    def __call__(self, record: Record, ranking: Any) -> bool:
        scores = np.zeros(len(self._documents))
        for word in record.text.split():
            scores += self._scores(word)
        best = np.sort(scores[scores > 0.0])[::-1][:10]
        return bool(len(ranking) == len(best) and np.allclose([scores[n] for n, _ in ranking], best)
                    and np.allclose([s for _, s in ranking], best))

    def _scores(self, word: str) -> np.ndarray:
        if word not in self._of_word:
            f = np.array([d[word] for d in self._documents])
            holding = np.count_nonzero(f)
            self._of_word[word] = log(1 + (len(f) - holding + 0.5) / (holding + 0.5)) * f / (f + self._damping)
        return self._of_word[word]
