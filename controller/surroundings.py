"""Who has to do with an instance at any time, by where all instances are and which of them are on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controller.membership import Life
from controller.migration import MigrationControl
from controller.whereabouts import Key, Whereabouts
from nodes.control_messages import Command, Verb


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
        near = where.near(key)
        for other in near:
            m = self.control.of_instance.get(other)
            if m is not None:
                more = (*more, m.source, m.destination)
        if any(other in where.replicated for other in near):
            more = (*more, *(name for name in self._names if self._life(name) not in (Life.DEAD, Life.OUTSIDE)))
        return where.neighbours(key, *more)

    def place(self, key: Key) -> tuple[int, str]:
        """Return (epoch, node) of where an instance is, or is to be by what is decided."""
        epoch = self.control.epochs.get(key, 1)
        m = self.control.of_instance.get(key)
        if m is None:
            return epoch, self._where.node_of[key]
        return (m.epoch, m.owner) if m.owner else (epoch - 1, self._where.node_of[key])

    def neighbours(self, key: Key) -> list[tuple[int, int, str]]:
        """Return (instance, epoch, node) of each neighbour: where it is, or is to be by what is decided."""
        return [(other[1], *self.place(other)) for other in self._where.near(key)]

    def answer(self, question: Command) -> Command | None:
        """Return what a client is told that asks where an instance is; None where that is not known.

        It is what controllers tell clients of a migration and of a view: a client believes that of the latest epoch.
        """
        key = question.application, question.instance
        if question.verb != Verb.WHERE or key not in self._where.node_of:
            return None
        epoch, node = self.place(key)
        return Command(self.control.term, 0, 0, Verb.CONNECT, *key, epoch, self.control.ip_of(node))
