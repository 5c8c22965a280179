"""Who has to do with an instance at any time, by where all instances are and which of them are on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controller.membership import Life
from controller.migration import MigrationControl
from controller.whereabouts import Key, Whereabouts


class Around:
    """The `Surroundings` of the instances in `where` on the nodes `names`; `control`, once it is set, moves them."""

    control: MigrationControl

    def __init__(self, where: Whereabouts, names: Sequence[str], life: Callable[[str], Life]) -> None:
        self._where = where
        self._names = names
        self._life = life

    def to_tell(self, key: Key, *more: str) -> tuple[str, ...]:
        """Return `more` and the nodes that are to know where an instance is: where its neighbours are, or may come to.

        Those are all that live, if one of them is replicated.
        """
        where = self._where
        for m in self.control.open.values():
            if where.are_neighbours(key, m.key):
                more = (*more, m.source, m.destination)
        if any(where.are_neighbours(key, other) for other in where.replicated):
            more = (*more, *(name for name in self._names if self._life(name) not in (Life.DEAD, Life.OUTSIDE)))
        return where.neighbours(key, *more)

    def neighbours(self, key: Key) -> list[tuple[int, int, str]]:
        """Return (instance, epoch, node) of each neighbour: where it is, or is to be by what is decided."""
        found, under_way = [], {m.key: m for m in self.control.open.values()}
        for other in self._where.near(key):
            m, epoch = under_way.get(other), self.control.epochs.get(other, 1)
            if m is not None and m.owner:
                found.append((other[1], m.epoch, m.owner))
            else:
                found.append((other[1], epoch - (m is not None), self._where.node_of[other]))
        return found
