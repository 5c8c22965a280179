"""BM25: ranks documents for the words of a query, as search engines do (paper Table 2).

Lucene's variant (BM25Similarity since version 8): for each query word, with N documents of which n hold it, f its
occurrences in the document, and the document's length held against the average,

    score = ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / average length))

and the scores of the words of the query, each as often as it occurs there, add up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log
from random import Random

import numpy as np

from microservices.errors import ServiceError
from microservices.records import Record, RecordService
from microservices.state import State

DENSE_SHARE = 1 / 32  # words in more of the documents than this are kept as a row of all documents' scores
_NOTHING: tuple[np.ndarray | None, np.ndarray | float] = None, 0.0  # what a word adds that no document holds
_WORD = re.compile(r"[a-z0-9]+")


def words_of(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def synthetic_documents(seed: int = 1, documents: int = 500, vocabulary: int = 2000) -> tuple[str, ...]:
    """Return log-like documents of 8 to 60 words; word n of the vocabulary is as frequent as 1 / n (Zipf)."""
    draw = Random(f"documents {seed}")
    words = [f"w{n}" for n in range(1, vocabulary + 1)]
    weights = [1.0 / n for n in range(1, vocabulary + 1)]
    return tuple(" ".join(draw.choices(words, weights, k=draw.randint(8, 60))) for _ in range(documents))


class Bm25(RecordService):
    """Adds the best `top` documents for the record's text: a list of (document number, score), highest first.

    Equal scores rank by document number; documents without any word of the query are not listed. The index is
    read-only and made when the microservice is: of `documents`, or of synthetic ones.
    """

    name = "bm25"
    memory_mb = 128

    def __init__(self, documents: Sequence[str] | None = None, top: int = 10, k1: float = 1.2, b: float = 0.75) -> None:
        texts = synthetic_documents() if documents is None else documents
        counts = [Counter(words_of(text)) for text in texts]
        lengths = [sum(c.values()) for c in counts]
        if not sum(lengths):
            raise ServiceError(f"{len(texts)} documents without a word; at least one word is needed")
        if top < 1 or k1 < 0.0 or not 0.0 <= b <= 1.0:
            raise ServiceError(f"top {top}, k1 {k1}, b {b}; the least are 1 and 0, and b lies between 0 and 1")
        self.top = top
        average = sum(lengths) / len(texts)
        holding: dict[str, list[int]] = {}
        for number, count in enumerate(counts):
            for word in count:
                holding.setdefault(word, []).append(number)
        self._documents = len(texts)
        # What each word adds to each document does not depend on the query, so it is worked out here, once: to which
        # documents (None: to all), and how much.
        self._postings: dict[str, tuple[np.ndarray | None, np.ndarray | float]] = {}
        for word, numbers in holding.items():
            rarity = log(1.0 + (len(texts) - len(numbers) + 0.5) / (len(numbers) + 0.5))
            scores = np.array([rarity * counts[n][word] / (counts[n][word] + k1 * (1.0 - b + b * lengths[n] / average))
                               for n in numbers])
            if len(numbers) > DENSE_SHARE * len(texts):  # adding a whole row is the faster there
                row = np.zeros(len(texts))
                row[numbers] = scores
                self._postings[word] = None, row
            else:
                self._postings[word] = np.array(numbers), scores

    def key_of(self, payload: bytes) -> bytes:
        """Any instance will do, so requests are spread evenly rather than by their key."""
        return payload

    def answer(self, record: Record, state: State, now_s: float) -> list[tuple[int, float]]:
        scores = np.zeros(self._documents)
        for word in words_of(record.text):
            numbers, added = self._postings.get(word, _NOTHING)
            if numbers is None:
                scores += added
            else:
                scores[numbers] += added
        least, others = 0.0, self._documents - self.top
        if others > 0:
            ordered = scores.copy()
            ordered.partition(others)
            least = ordered[others]
        best = (scores >= least if least > 0.0 else scores > 0.0).nonzero()[0]
        best = best[(-scores[best]).argsort(kind="stable")][:self.top]
        return list(zip(best.tolist(), scores[best].tolist(), strict=True))
