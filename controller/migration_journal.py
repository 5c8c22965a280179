"""What the controller decides about migrations and replicas, written down first: enough to go on after a crash."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import msgspec

from controller.errors import MigrationError
from controller.migration_steps import Migration, State
from nodes.deployment import Deployment
from topologies.unreadable import UNREADABLE


class Started(msgspec.Struct, frozen=True, tag=True):
    """A migration was decided. The controller's run is `term`; `epoch` is the first that the migration uses."""

    term: int
    migration: int
    application: int
    instance: int
    source: str
    destination: str
    neighbours: tuple[str, ...]
    epoch: int
    why: str = ""


class Turned(msgspec.Struct, frozen=True, tag=True):
    """A migration entered `state` in `epoch`: from here on that is what happens, whatever was under way before.

    `size` and `digest` are those of the frozen instance where it is to be started; `owner` is who is to have it.
    """

    migration: int
    state: str
    epoch: int
    owner: str
    size: int = 0
    digest: bytes = b""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A migration is over: the instance lives at `owner`, in `epoch`."""

    migration: int
    owner: str
    epoch: int


class Booted(msgspec.Struct, frozen=True, tag=True):
    """A node was heard of in a run that was new to the controller: what it ran before is gone."""

    node: str
    boot: int


class Term(msgspec.Struct, frozen=True, tag=True):
    """A controller began its run."""

    term: int


class Viewed(msgspec.Struct, frozen=True, tag=True):
    """A view was decided: from here on it is the one that holds. A name is empty where there is nobody.

    `boots` are the runs of those who have a part, as far as they were known; `why` is the event, for the operator.
    """

    application: int
    instance: int
    epoch: int
    state: str
    primary: str
    backup: str
    joiner: str
    boots: dict[str, int]
    neighbours: tuple[str, ...]
    why: str = ""


class Added(msgspec.Struct, frozen=True, tag=True):
    """An application was deployed while the controller ran; `packed` is its Deployment in msgpack."""

    packed: bytes

    @staticmethod
    def of(deployment: Deployment) -> Added:
        return Added(msgspec.msgpack.encode(deployment))

    @property
    def deployment(self) -> Deployment:
        return msgspec.msgpack.decode(self.packed, type=Deployment)


CLEARING = "clearing"  # the state of a withdrawal from which on nothing of the application is to be anywhere


class WithdrawalTurned(msgspec.Struct, frozen=True, tag=True):
    """The withdrawal of an application entered `state` (controller/withdrawal.py), by the decision `epoch`.

    From CLEARING on, what was decided on its instances before counts no more. `owed` have not said yet that they have
    nothing of it, in the last state.
    """

    application: int
    name: str
    state: str
    epoch: int
    owed: tuple[str, ...] = ()


Entry = Started | Turned | Ended | Booted | Term | Viewed | Added | WithdrawalTurned


class Journal(Protocol):
    """An append-only log. `append` returns when the entry would survive a crash."""

    def append(self, entry: Entry) -> None: ...

    def entries(self) -> Sequence[Entry]: ...


class MemoryJournal:
    """A journal that lives as long as the object: for tests, and where no crash is to be survived."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries = list(entries)

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)

    def entries(self) -> Sequence[Entry]:
        return tuple(self._entries)


def encode_entry(entry: Entry) -> bytes:
    """Return an entry as one line of JSON."""
    return msgspec.json.encode(entry) + b"\n"


def decode_entries(data: bytes) -> list[Entry]:
    """Read lines of `encode_entry`; a last line that a crash cut short is left out.

    Raises MigrationError for any other line that is no entry.
    """
    lines = data.split(b"\n")
    found: list[Entry] = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            found.append(msgspec.json.decode(line, type=Entry))
        except UNREADABLE as error:
            raise MigrationError(f"line {number} of the journal: {error}") from error
    return found


def with_added(deployments: Iterable[Deployment], entries: Iterable[Entry]) -> tuple[Deployment, ...]:
    """Return `deployments` and those that came later, by the journal, and are not among them; none that is withdrawn.

    What was withdrawn and deployed again is as it was deployed last.
    """
    entries = tuple(entries)
    gone = {e.application for e in entries if isinstance(e, WithdrawalTurned) and e.state == CLEARING}
    known = {deployment.number: deployment for deployment in deployments if deployment.number not in gone}
    added = {e.deployment.number: e.deployment for e in of_living(entries) if isinstance(e, Added)}
    return tuple((known | {number: one for number, one in added.items() if number not in known}).values())


def of_living(entries: Iterable[Entry]) -> list[Entry]:
    """Return a journal without what it tells of instances and deployments of applications before they were cleared."""
    entries = tuple(entries)
    cleared = {entry.application: i for i, entry in enumerate(entries)
               if isinstance(entry, WithdrawalTurned) and entry.state == CLEARING}
    if not cleared:
        return list(entries)
    application_of = {e.migration: e.application for e in entries if isinstance(e, Started)}
    found: list[Entry] = []
    for i, entry in enumerate(entries):
        of = -1
        if isinstance(entry, Started | Viewed):
            of = entry.application
        elif isinstance(entry, Turned | Ended):
            of = application_of.get(entry.migration, -1)
        elif isinstance(entry, Added):
            of = entry.deployment.number
        if i > cleared.get(of, -1):
            found.append(entry)
    return found


def history_of(entries: Iterable[Entry], migration: int) -> list[Entry]:
    """Return what a journal says of a migration, and which terms have begun since."""
    found: list[Entry] = []
    for entry in entries:
        if isinstance(entry, Started | Turned | Ended):
            if entry.migration == migration:
                found.append(entry)
        elif isinstance(entry, Term) and found:
            found.append(entry)
    return found


class Replay:
    """What a journal tells: migrations to go on with, by number, the instances' last epochs, and the nodes' runs.

    What has ended is there, too, in FINISHING: its owner is asked whether it still has the instance. Raises
    MigrationError for a journal that tells of a migration and nothing of its start.
    """

    def __init__(self, entries: Iterable[Entry], binary_of: Callable[[int, int], bytes]) -> None:
        entries = tuple(entries)
        self.term = 0
        self.last = max((entry.migration for entry in entries if isinstance(entry, Started)), default=0)
        self.open: dict[int, Migration] = {}
        self.epochs: dict[tuple[int, int], int] = {}
        self.boots: dict[str, int] = {}
        latest: dict[tuple[int, int], Migration] = {}  # of each instance; an earlier one does not matter any more
        for entry in of_living(entries):
            if isinstance(entry, Term):
                self.term = entry.term
                continue
            if isinstance(entry, Added | WithdrawalTurned):
                continue
            if isinstance(entry, Booted):
                self.boots[entry.node] = entry.boot
                continue
            if isinstance(entry, Viewed):
                self.epochs[entry.application, entry.instance] = entry.epoch
                continue
            if isinstance(entry, Started):
                key = entry.application, entry.instance
                m = latest[key] = Migration(entry.migration, *key, entry.source, entry.destination, entry.neighbours,
                                            entry.epoch, binary_of(*key), progress_at=math.inf)
            else:
                m = _of_number(latest.values(), entry.migration)
                m.owner, m.epoch = entry.owner, entry.epoch
                if isinstance(entry, Turned):
                    m.state, m.size, m.digest = State(entry.state), entry.size, entry.digest or m.digest
                    m.moved = m.moved or m.state in (State.SWITCHING, State.RESTARTING)
                    m.fresh = m.state is State.RESTARTING or (m.fresh and m.state is State.FINISHING)
                else:
                    m.state = State.FINISHING
            self.epochs[m.key] = m.epoch
        self.open = {m.number: m for m in latest.values()}


def _of_number(migrations: Iterable[Migration], number: int) -> Migration:
    for m in migrations:
        if m.number == number:
            return m
    raise MigrationError(f"the journal tells of migration {number}, and nothing of its start")
