"""The states of a migration, what leads from one to the next, and what is said to the nodes in each."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from nodes.control_messages import DIGEST_BYTES, FRESH, Command, Standing, Verb, pack_places
from nodes.fetching import digest_of

RETRY_S, MOST_RETRY_S = 0.1, 1.0
STALL_S = 5.0  # ours: before the commit, a migration that comes no further for so long is given up
SALVAGE_S = 1.0  # ours: how long chunks may still be under way from a source that is dead


class State(enum.Enum):
    PUSHING = "pushing"
    STOPPING = "stopping"
    MOVING = "moving"
    SWITCHING = "switching"
    RESUMING = "resuming"
    SALVAGING = "salvaging"
    RESTARTING = "restarting"
    FINISHING = "finishing"
    DONE = "done"


class Event(enum.Enum):
    PREPARED = "prepared"
    FROZEN = "frozen"
    STAGED = "staged"
    LIVE = "live"
    SETTLED = "settled"
    HOPELESS = "hopeless"
    SOURCE_LOST = "source lost"
    DESTINATION_LOST = "destination lost"


_S, _E = State, Event
UNCOMMITTED = (_S.PUSHING, _S.STOPPING, _S.MOVING)
TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.PUSHING, _E.PREPARED): _S.STOPPING,
    (_S.STOPPING, _E.FROZEN): _S.MOVING,
    **{(s, _E.STAGED): _S.SWITCHING for s in (*UNCOMMITTED, _S.SALVAGING, _S.RESTARTING)},
    **{(s, _E.HOPELESS): _S.RESUMING for s in UNCOMMITTED},
    **{(s, _E.DESTINATION_LOST): _S.RESUMING for s in (*UNCOMMITTED, _S.SWITCHING, _S.FINISHING, _S.DONE)},
    **{(s, _E.SOURCE_LOST): _S.SALVAGING for s in (*UNCOMMITTED, _S.RESUMING, _S.FINISHING, _S.DONE)},
    (_S.SALVAGING, _E.HOPELESS): _S.RESTARTING,
    (_S.SALVAGING, _E.DESTINATION_LOST): _S.RESTARTING,
    **{(s, _E.LIVE): _S.FINISHING for s in (_S.SWITCHING, _S.RESUMING, _S.RESTARTING)},
    (_S.FINISHING, _E.SETTLED): _S.DONE,
}
# Turns that take a new epoch: whoever was told something before must not obey it any more.
NEW_EPOCH = (_S.RESUMING, _S.RESTARTING)
LOST = {_E.SOURCE_LOST: "source", _E.DESTINATION_LOST: "destination"}
STILL_THERE = (Standing.LIVE, Standing.STOPPING, Standing.FROZEN)


class ToNode(NamedTuple):
    """A command for the control port of the node called `node`."""

    node: str
    command: Command


class Happening(NamedTuple):
    """One line of the operator's view: what happened to a migration, and when."""

    now_s: float
    migration: int
    what: str
    detail: str


Outgoing = list[ToNode]


@dataclass(slots=True)
class Migration:
    """A migration under way. `lost` holds which of its ends are known to have nothing of the instance."""

    number: int
    application: int
    instance: int
    source: str
    destination: str
    neighbours: tuple[str, ...]
    epoch: int
    binary: bytes
    state: State = State.PUSHING
    owner: str = ""  # who is to have it, from the commit on
    size: int = 0
    digest: bytes = bytes(16)
    lost: set[str] = field(default_factory=set)
    owner_boot: int = 0  # of the run that was told to start afresh
    fresh: bool = False
    clients: tuple[tuple[bytes, int], ...] = ()  # addresses that send to the instance, as the destination says
    moved: bool = False  # neighbours have, or may have, been told another place than the source
    unanswered: dict[tuple[str, Verb], Command] = field(default_factory=dict)
    next_at: float = 0.0
    retry_s: float = RETRY_S
    progress_at: float = 0.0
    progress: tuple[object, ...] = ()

    @property
    def key(self) -> tuple[int, int]:
        return self.application, self.instance

    @property
    def holder(self) -> str:
        """Return the node that has the instance, is to have it, or has to say whether it does."""
        return self.destination if self.state is State.SALVAGING else self.owner or self.source


class Surroundings(Protocol):
    """Who has to do with an instance at present, (application, instance), by what is known of where all are."""

    def to_tell(self, key: tuple[int, int]) -> Iterable[str]:
        """Return the nodes that are to know where the instance is."""

    def neighbours(self, key: tuple[int, int]) -> Iterable[tuple[int, int, str]]:
        """Return (instance, epoch, node) of those that it may send to, or that may send to it."""


class Nobody:
    """No surroundings but those that a migration began with."""

    def to_tell(self, key: tuple[int, int]) -> Iterable[str]:
        return ()

    def neighbours(self, key: tuple[int, int]) -> Iterable[tuple[int, int, str]]:
        return ()


def commands_of(m: Migration, term: int, ips: Mapping[str, bytes], controller_ip: bytes, dead: set[str],
                around: Surroundings) -> dict[tuple[str, Verb], Command]:
    """Return all that is to be said while `m` is in its present state, to nodes that are not `dead`.

    Neighbours are those of its beginning and those of now: one may have moved since, and what has ended may go on.
    """
    s, d = m.source, m.destination
    found: dict[tuple[str, Verb], Command] = {}

    def tell(node: str, verb: Verb, peer: bytes = bytes(4), size: int = 0, digest: bytes = bytes(DIGEST_BYTES),
             boot: int = 0, payload: bytes = b"") -> None:
        if node not in dead:
            found[node, verb] = Command(term, boot, m.number, verb, *m.key, m.epoch, peer, size, digest, payload)

    def prepare(node: str) -> None:
        tell(node, Verb.PREPARE, controller_ip, len(m.binary), digest_of(m.binary),
             payload=FRESH if m.state is State.RESTARTING else b"")

    def run(node: str) -> None:
        near = pack_places((number, epoch, ips[name]) for number, epoch, name in around.neighbours(m.key))
        if m.fresh:
            tell(node, Verb.START, boot=m.owner_boot, payload=near)
        elif node == s:
            tell(node, Verb.RESUME, payload=near)
        else:
            tell(node, Verb.START, size=m.size, digest=m.digest, payload=near)

    if m.state in (State.PUSHING, State.SALVAGING):
        prepare(d)
    elif m.state is State.STOPPING:
        tell(s, Verb.FREEZE, ips[d])
    elif m.state is State.MOVING:
        tell(s, Verb.FREEZE, ips[d])  # to see whether it still has what it froze
        tell(d, Verb.COLLECT, ips[s], m.size, m.digest)
    elif m.state in (State.SWITCHING, State.RESUMING):
        run(m.owner)
    elif m.state is State.RESTARTING:
        if m.owner_boot:
            run(m.owner)
        prepare(m.owner)
    elif m.state is State.FINISHING:
        run(m.owner)  # to see whether it still has what it started
        if s != d:
            tell(*((d, Verb.DISCARD) if m.owner == s else (s, Verb.RELEASE)))
    if m.moved and m.state in (State.SWITCHING, State.FINISHING):
        for node in sorted({*m.neighbours, *around.to_tell(m.key)}):
            tell(node, Verb.CONNECT, ips[m.owner])
    return found
