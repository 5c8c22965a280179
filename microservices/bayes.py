"""Naive Bayes: the most probable class of a text by the words that it holds, maximum a posteriori (paper Table 2).

Multinomial, with Laplace smoothing: of the class c that maximises ln P(c) + sum over the words w of the text of
ln((count of w in c + 1) / (words in c + vocabulary)). Words outside the vocabulary say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import log
from random import Random

from microservices.bm25 import words_of
from microservices.errors import ServiceError
from microservices.records import Record, RecordService
from microservices.service import Accelerator
from microservices.state import State

# Ours: words that the synthetic mails of either class prefer; both share a common vocabulary.
SPAM_WORDS = ("winner", "prize", "free", "urgent", "offer", "credit", "click", "cash", "bonus", "guarantee")
HAM_WORDS = ("meeting", "report", "review", "agenda", "minutes", "lunch", "thanks", "draft", "schedule", "invoice")
COMMON_WORDS = tuple(f"common{n}" for n in range(200))


def synthetic_mail(draw: Random, spam: bool, words: int = 20) -> str:
    """Return a mail of which three in ten words are its class's own, one in twenty the other's, the rest common."""
    own, other = (SPAM_WORDS, HAM_WORDS) if spam else (HAM_WORDS, SPAM_WORDS)
    kinds = draw.choices((own, other, COMMON_WORDS), weights=(30, 5, 65), k=words)
    return " ".join(draw.choice(kind) for kind in kinds)


def synthetic_training(seed: int = 1, mails: int = 400) -> tuple[list[str], list[str]]:
    draw = Random(f"mails {seed}")
    labels = ["spam" if i % 2 else "ham" for i in range(mails)]
    return [synthetic_mail(draw, label == "spam") for label in labels], labels


class Bayes(RecordService):
    """Adds the class of the record's text; of equally probable ones the first by name.

    The model is read-only and learnt when the microservice is made, from `texts` and their `labels` or synthetic mails.
    """

    name = "bayes"
    memory_mb = 128
    accelerators = frozenset({Accelerator.FPU})

    def __init__(self, texts: Sequence[str] | None = None, labels: Sequence[str] | None = None) -> None:
        if texts is None or labels is None:
            texts, labels = synthetic_training()
        if not texts or len(texts) != len(labels):
            raise ServiceError(f"{len(texts)} texts and {len(labels)} labels; there must be as many, and one at least")
        self.classes = sorted(set(labels))
        counts: dict[str, Counter[str]] = {c: Counter() for c in self.classes}
        for text, label in zip(texts, labels, strict=True):
            counts[label].update(words_of(text))
        vocabulary = set().union(*counts.values())
        self._priors = [log(labels.count(c) / len(labels)) for c in self.classes]
        totals = [counts[c].total() + len(vocabulary) for c in self.classes]
        self._likelihoods = {word: tuple(log((counts[c][word] + 1) / total)
                                         for c, total in zip(self.classes, totals, strict=True))
                             for word in vocabulary}

    def log_posteriors(self, text: str) -> list[float]:
        """Return ln P(c) + ln P(text | c) for each class, in the order of `classes`."""
        known = [found for word in words_of(text) if (found := self._likelihoods.get(word)) is not None]
        return [prior + sum(column) for prior, column in zip(self._priors, zip(*known, strict=True), strict=True)] \
            if known else list(self._priors)

    def key_of(self, payload: bytes) -> bytes:
        """Any instance will do, so requests are spread evenly rather than by their key."""
        return payload

    def answer(self, record: Record, state: State, now_s: float) -> str:
        posteriors = self.log_posteriors(record.text)
        return self.classes[posteriors.index(max(posteriors))]
