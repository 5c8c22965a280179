"""Top ranker: the k items of highest score, by a quicksort that sorts no more than it must.

The scores of a shard's items are kept; a request sets one and gets the ranking. The quicksort (Hoare, 1961) partitions
in place around the median of three and descends only into parts that reach into the first k places.
"""

from __future__ import annotations

from math import isfinite

from microservices.errors import ServiceError
from microservices.records import Record, RecordService, value_of
from microservices.reliable import Hashtable
from microservices.state import State

MAX_K = 100


class TopRanker(RecordService):
    """Adds the ranking, a list of (item, score), highest first and equal scores by name.

    The score of the record's key is what an upstream count has found, else the record's first value.
    """

    name = "top_ranker"
    memory_mb = 128
    stateful = True

    def __init__(self, k: int = 10) -> None:
        if not 1 <= k <= MAX_K:
            raise ServiceError(f"k = {k}; the limits are 1 and {MAX_K}")
        self.k = k

    def new_state(self) -> State:
        return State(hashtables={"score": Hashtable(str, float)})

    def answer(self, record: Record, state: State, now_s: float) -> list[tuple[str, float]]:
        scores = state.hashtables["score"]
        counted = record.results.get("count")
        score = float(counted) if isinstance(counted, int | float) else value_of(record)
        if not isfinite(score):  # not-a-number has no place in an order
            raise ServiceError(f"count of {record.key!r} is {score}; it must be finite")
        scores[record.key] = score
        ranked = [(-score, item) for item, score in scores.unsorted()]
        sort_first(ranked, self.k)
        return [(item, -score) for score, item in ranked[:self.k]]


def sort_first(items: list[tuple[float, str]], k: int) -> None:
    """Rearrange `items` so that its k smallest come first, in ascending order; the rest is in no certain order."""
    parts = [(0, len(items) - 1)]
    while parts:
        low, high = parts.pop()
        if low >= high or low >= k:
            continue
        pivot = sorted((items[low], items[(low + high) // 2], items[high]))[1]
        left, right = low, high
        while left <= right:
            while items[left] < pivot:
                left += 1
            while pivot < items[right]:
                right -= 1
            if left <= right:
                items[left], items[right] = items[right], items[left]
                left += 1
                right -= 1
        parts += [(low, right), (left, high)]
