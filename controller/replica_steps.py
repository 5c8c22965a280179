"""The states of a replicated instance as the controller sees it, what leads from one to the next, and its journal."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from controller.errors import ControllerError
from controller.migration_journal import Term, Viewed
from nodes.control_messages import Command, Verb
from nodes.replication_messages import NOBODY, Part, View

RETRY_S, MOST_RETRY_S = 0.1, 1.0
FRESH_S = 0.3  # ours: what a node said longer ago is no ground to give up another
SHUN_S = 10.0  # ours: how long nobody is tried again whom the primary did not hear
Key = tuple[int, int]


class ReplicaError(ControllerError, ValueError):
    """A replicated instance that cannot be, or a journal that tells none."""


class State(enum.Enum):
    """Who has a part in an instance."""

    NOWHERE = "nowhere"  # nobody has it: not yet, or not any more
    FOUNDING = "founding"  # a primary is to begin with an empty state
    ALONE = "alone"  # a primary
    REPAIRING = "repairing"  # a primary, and a joiner
    PAIRED = "paired"  # a primary and a backup
    REPLACING = "replacing"  # a primary and a backup, and a joiner that is to take the backup's place


class Event(enum.Enum):
    """What is true of those who have a part, and asks for another view."""

    CANDIDATE = "there is a place for one more"
    SERVES = "the primary serves"
    COMPLETE = "the joiner has all that was ever answered"
    PRIMARY_LOST = "the primary is silent, hears nobody, or is to leave, and the backup is there"
    BACKUP_LOST = "the backup is silent, or has nothing, and nobody can take its place; the primary is there"
    JOINER_LOST = "the joiner is silent, or has nothing any more"
    ALL_GONE = "nobody has it any more, for certain"


_S, _E = State, Event
TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.NOWHERE, _E.CANDIDATE): _S.FOUNDING,
    (_S.FOUNDING, _E.SERVES): _S.ALONE,
    (_S.ALONE, _E.CANDIDATE): _S.REPAIRING,
    (_S.REPAIRING, _E.COMPLETE): _S.PAIRED,
    (_S.REPAIRING, _E.JOINER_LOST): _S.ALONE,
    (_S.PAIRED, _E.PRIMARY_LOST): _S.ALONE,
    (_S.PAIRED, _E.BACKUP_LOST): _S.ALONE,
    (_S.PAIRED, _E.CANDIDATE): _S.REPLACING,
    (_S.REPLACING, _E.COMPLETE): _S.PAIRED,
    (_S.REPLACING, _E.JOINER_LOST): _S.PAIRED,
    (_S.REPLACING, _E.PRIMARY_LOST): _S.ALONE,
    **{(s, _E.ALL_GONE): _S.NOWHERE for s in State if s is not _S.NOWHERE},
}


ReplicaEntry = Viewed | Term


class ReplicaJournal(Protocol):
    """An append-only log. `append` returns when the entry would survive a crash."""

    def append(self, entry: ReplicaEntry) -> None: ...

    def entries(self) -> Iterable[ReplicaEntry]: ...


class ToNode(NamedTuple):
    """A message for the control port of the node called `node`."""

    node: str
    message: View | Command


class Happening(NamedTuple):
    """One line of the operator's view: what was decided about an instance, when, and why."""

    now_s: float
    application: int
    instance: int
    epoch: int
    what: str
    detail: str


Outgoing = list[ToNode]


@dataclass(slots=True)
class Group:
    """A replicated instance. `said` is what nodes said they are in the present epoch; `former` had a part once, and
    have not said yet that they have none any more; `untold` are neighbours that do not know the primary."""

    application: int
    instance: int
    neighbours: tuple[str, ...]
    at: str | None = None  # where the primary is wanted at first
    state: State = State.NOWHERE
    epoch: int = 0
    primary: str = ""
    backup: str = ""
    joiner: str = ""
    boots: dict[str, int] = field(default_factory=dict)
    said: dict[str, Part] = field(default_factory=dict)
    said_at: dict[str, float] = field(default_factory=dict)
    asked_at: float = -RETRY_S  # when somebody was last asked what it is, out of turn
    unheard: set[str] = field(default_factory=set)  # members that the primary does not hear
    shunned: dict[str, float] = field(default_factory=dict)  # until when
    former: set[str] = field(default_factory=set)
    untold: set[str] = field(default_factory=set)
    next_at: float = 0.0
    retry_s: float = RETRY_S

    @property
    def key(self) -> Key:
        return self.application, self.instance

    @property
    def name(self) -> bytes:
        """What the instance is hashed by."""
        return b"%d/%d" % self.key

    @property
    def members(self) -> list[str]:
        return [name for name in (self.primary, self.backup, self.joiner) if name]

    @property
    def settled(self) -> bool:
        """Whether everybody has said to be what the view makes of them."""
        wanted = {self.primary: Part.SERVING, self.backup: Part.FOLLOWING, self.joiner: Part.FOLLOWING}
        return all(self.said.get(name) is wanted[name] for name in self.members) and not self.former \
            and not self.untold

    def copies(self) -> list[str]:
        """Return where all that was answered is."""
        return [name for name in (self.primary, self.backup) if name]

    @property
    def beside(self) -> tuple[str, ...]:
        """Return who holds a copy, or is to, beside the primary."""
        return tuple(name for name in (self.backup, self.joiner) if name)

    def entry(self, why: str) -> Viewed:
        return Viewed(*self.key, self.epoch, self.state.value, self.primary, self.backup, self.joiner,
                      dict(sorted(self.boots.items())), self.neighbours, why)

    def take(self, entry: Viewed) -> None:
        """Become what the journal tells."""
        self.former |= set(self.members)
        self.state, self.epoch, self.boots = State(entry.state), entry.epoch, dict(entry.boots)
        self.primary, self.backup, self.joiner = entry.primary, entry.backup, entry.joiner
        self.neighbours, self.untold = entry.neighbours, set(entry.neighbours)
        self.former -= set(self.members)


def messages_of(g: Group, term: int, ips: Mapping[str, bytes]) -> list[ToNode]:
    """Return all that is still to be said in the present view of `g`."""
    if not g.primary and not g.former:
        return []
    primary, backup, joiner = (ips[name] if name else NOBODY for name in (g.primary, g.backup, g.joiner))
    found = []
    for name in [*reversed(g.members), *sorted(g.former)]:  # the primary last: who follows should know whom
        fresh = g.state is State.FOUNDING
        begins = name == g.joiner or (fresh and name == g.primary)
        boot = g.boots.get(name, 0) if begins else 0
        if g.said.get(name) not in ((Part.SERVING,) if name == g.primary else (Part.FOLLOWING,)):
            found.append(ToNode(name, View(term, boot, *g.key, g.epoch, int(fresh), primary, backup, joiner)))
    if g.primary:
        found += [ToNode(name, Command(term, 0, 0, Verb.CONNECT, *g.key, g.epoch, primary))
                  for name in sorted(g.untold)]
    return found
