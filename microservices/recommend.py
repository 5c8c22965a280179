"""Recommend: user-based collaborative filtering over the ratings that users have given (paper Table 2).

A user's taste is the vector of their ratings, 0 where they have given none. For an item that the user has not rated,
the prediction is the mean of the ratings of the `neighbours` most similar users who have, weighted by cosine
similarity.
"""

from __future__ import annotations

import struct

import numpy as np

from microservices.errors import ServiceError
from microservices.records import Record, RecordService
from microservices.reliable import Hashtable
from microservices.service import Accelerator
from microservices.state import State

MAX_ITEMS = 4096
MAX_RATING = 5.0


class Recommend(RecordService):
    """Stores the rating that a record brings, then adds the best `top` items for its user.

    The record's key is the user. Its values, if there are any from index `first_value` on, hold an item number there
    and then a rating, above 0 and at most 5. The result is a list of (item, predicted rating), highest first and equal
    ones by number, without the items that the user has rated.
    """

    name = "recommend"
    memory_mb = 256
    stateful = True
    accelerators = frozenset({Accelerator.DFA})

    def __init__(self, items: int = 64, top: int = 3, neighbours: int = 20, first_value: int = 0) -> None:
        if not 1 <= items <= MAX_ITEMS or top < 1 or neighbours < 1:
            raise ServiceError(f"{items} items, top {top}, {neighbours} neighbours; the limits are 1 to {MAX_ITEMS} "
                               "items and at least 1 of the others")
        if first_value < 0:
            raise ServiceError(f"first value {first_value}; the least is 0")
        self.items, self.top, self.neighbours, self._first_value = items, top, neighbours, first_value

    def new_state(self) -> State:
        """Each user's ratings, a little-endian float for each item, 0 for none."""
        return State(hashtables={"ratings": Hashtable(str, bytes)})

    def answer(self, record: Record, state: State, now_s: float) -> list[tuple[int, float]]:
        table = state.hashtables["ratings"]
        tastes: _Tastes | None = table.derived
        rated = record.values[self._first_value:self._first_value + 2]
        if rated:
            if len(rated) < 2:
                raise ServiceError(f"record of {record.key!r} has {len(record.values)} values; the last is no rating")
            item, rating = rated
            if not (item.is_integer() and 0 <= item < self.items and 0.0 < rating <= MAX_RATING):
                raise ServiceError(f"rating {rating:g} for item {item:g}; items are 0 to {self.items - 1}, ratings "
                                   f"above 0 and at most {MAX_RATING:g}")
            mine = bytearray(table.get(record.key, bytes(4 * self.items)))
            struct.pack_into("<f", mine, 4 * int(item), rating)
            table[record.key] = bytes(mine)  # which forgets what was derived
            if tastes is not None and record.key in tastes.rows:
                tastes.ratings[tastes.rows[record.key], int(item)] = np.float32(rating)
            else:
                tastes = None
        if tastes is None:
            tastes = _Tastes(table, self.items)
        table.derived = tastes
        row = tastes.rows.get(record.key)
        return [] if row is None else self._best(row, tastes.ratings)

    def _best(self, row: int, tastes: np.ndarray) -> list[tuple[int, float]]:
        mine = tastes[row]
        squares = np.einsum("ij,ij->i", tastes, tastes)
        norms = np.sqrt(squares * squares[row])
        similarity = np.divide(tastes @ mine, norms, out=np.zeros(len(tastes)), where=norms > 0.0)
        similarity[row] = 0.0
        # The nearest come first, equally near ones in the order of their names (the sort is stable).
        nearest = (-similarity).argsort(kind="stable")[:np.count_nonzero(similarity > 0.0)]
        weights, ratings = similarity[nearest], tastes[nearest]
        useful = ratings > 0.0
        useful &= useful.cumsum(axis=0, dtype=np.int32) <= self.neighbours
        weight = weights @ useful
        predicted = np.divide(weights @ (ratings * useful), weight, out=np.zeros(self.items), where=weight > 0.0)
        predicted[mine > 0.0] = 0.0
        # A mean of ratings of 5 may come out a rounding above 5.
        predicted = np.minimum(predicted, MAX_RATING)
        best = (-predicted).argsort(kind="stable")[:self.top]
        return [(int(item), float(predicted[item])) for item in best if predicted[item] > 0.0]


class _Tastes:
    """The ratings of all users as one matrix, a row for each user in the order of their names."""

    def __init__(self, table: Hashtable[str, bytes], items: int) -> None:
        entries = table.items()
        self.rows = {user: row for row, (user, _) in enumerate(entries)}
        self.ratings = np.frombuffer(b"".join([ratings for _, ratings in entries]), "<f4").reshape(
            len(entries), items).astype(np.float64)
