"""The withdrawal of an application from a running rack, step by step, as the controller drives it.

    SETTLING --settled, too late--> CLOSING --drained, too late--> CLEARING --cleared--> GONE

SETTLING: nothing of it begins any more, no migration, no joiner, no instance on a node that comes back; what is under
way ends or is rolled back, for SETTLE_S at most. CLOSING: nodes take no more requests of clients and end those they
have, for DRAIN_S at most. CLEARING is the commit: from the line in the journal on, nobody is to have anything of it,
and everything earlier that was decided about its instances counts no more. Each node forgets all, whatever an instance
is there, and says how much it dropped. GONE: all who are there have said so. Who is away then is told when it is back,
however long that takes, and so is whoever begins another run.

How one knows that all is drained: nodes are asked in rounds. Two rounds in a row in which nobody has anything under
way, and nobody has begun a request in between, show that there was nothing anywhere when the first of them ended: a
message on its way counts at its sender (Mattern, "Algorithms for distributed termination detection", 1987: the four
counters).

The decision's epoch is later than any on the application's instances. Nodes remember it, and refuse what is earlier;
who deploys the application again takes later ones. Every turn is written down before anybody is told.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from controller.membership import Life
from controller.migration_journal import CLEARING, Journal, WithdrawalTurned
from controller.migration_steps import MOST_RETRY_S, RETRY_S, Outgoing, ToNode
from nodes.control_messages import NO_INSTANCE, Answer, Command, Refusal, UnderWay, Verb, unpack_addresses
from nodes.errors import WireError

SETTLE_S = 10.0  # ours: longer than a migration that comes no further before its commit is given (STALL_S)
DRAIN_S = 5.0  # ours: what is under way then is dropped, and counted
ROUND_S = 0.05  # ours: between two rounds of questions about what is under way


class State(enum.Enum):
    SETTLING = "settling"
    CLOSING = "closing"
    CLEARING = CLEARING
    GONE = "withdrawn"


class Event(enum.Enum):
    SETTLED = "nothing of it is on its way"
    DRAINED = "no request is under way"
    CLEARED = "nobody who is there has anything of it"
    TOO_LATE = "it has taken too long"


_S, _E = State, Event
TRANSITIONS: dict[tuple[State, Event], State] = {
    (_S.SETTLING, _E.SETTLED): _S.CLOSING,
    (_S.SETTLING, _E.TOO_LATE): _S.CLOSING,
    (_S.CLOSING, _E.DRAINED): _S.CLEARING,
    (_S.CLOSING, _E.TOO_LATE): _S.CLEARING,
    (_S.CLEARING, _E.CLEARED): _S.GONE,
}
LIMIT_S = {State.SETTLING: SETTLE_S, State.CLOSING: DRAIN_S}


@dataclass(slots=True)
class Withdrawal:
    """One application's. `owed` are the nodes that have not said that they have nothing of it, once it is CLEARING."""

    application: int
    name: str
    state: State
    epoch: int = 0
    owed: set[str] = field(default_factory=set)
    since: float = math.inf  # when it entered its state; inf: taken up from the journal, and not looked at since
    round: int = 1
    heard: dict[str, UnderWay] = field(default_factory=dict)  # in this round
    before: dict[str, UnderWay] = field(default_factory=dict)  # in the last one
    dropped: dict[str, int] = field(default_factory=dict)  # requests and messages, by node
    clients: set[tuple[bytes, int]] = field(default_factory=set)
    next_at: float = 0.0
    retry_s: float = RETRY_S

    @property
    def is_over(self) -> bool:
        return self.state is State.GONE


class WithdrawalControl:
    """All withdrawals of one controller, the last of each application. What the journal tells goes on where it was.

    `names` are the nodes, `life` what each is held for. Of an application, `latest` gives the latest decision on any of
    its instances, `holders` the nodes that are to have something of it, `settles` whether a migration is under way.
    `turned` is called with each withdrawal that enters a state, and why; at CLEARING it has to forget the application.
    """

    def __init__(self, journal: Journal, names: Sequence[str], life: Callable[[str], Life], term: int,
                 latest: Callable[[int], int], holders: Callable[[int], Iterable[str]], settles: Callable[[int], bool],
                 turned: Callable[[Withdrawal, str, float], None]) -> None:
        self._journal = journal
        self._names = tuple(names)
        self._life = life
        self._term = term
        self._latest, self._holders, self._settles, self._turned = latest, holders, settles, turned
        self.silent = False  # another controller has taken over
        self.refused = 0  # answers from where none was expected
        self.of: dict[int, Withdrawal] = {}
        for entry in journal.entries():
            if isinstance(entry, WithdrawalTurned):
                owed = entry.owed if entry.state == State.GONE.value else names
                self.of[entry.application] = Withdrawal(entry.application, entry.name, State(entry.state), entry.epoch,
                                                        set(owed))

    def begin(self, application: int, name: str, now: float, out: Outgoing) -> Withdrawal:
        """Withdraw an application that is deployed; one that is being withdrawn already goes on."""
        w = self.of.get(application)
        if w is None or w.is_over:
            w = self.of[application] = Withdrawal(application, name, State.SETTLING)
            self._enter(w, State.SETTLING, "asked for", now)
            self._consider(w, now, out)
        return w

    def is_going(self, application: int) -> bool:
        """Whether an application is being withdrawn: then nothing of it may begin."""
        w = self.of.get(application)
        return w is not None and not w.is_over

    def is_cleared(self, application: int) -> bool:
        """Whether nobody is to have what an application was at its last withdrawal."""
        w = self.of.get(application)
        return w is not None and w.state in (State.CLEARING, State.GONE)

    def first_epoch(self, application: int) -> int:
        """Return the earliest decision that may deploy an application (again)."""
        return self.of[application].epoch + 1 if self.is_cleared(application) else 1

    def booted(self, node: str) -> None:
        """Note that a node is in another run: it may know what was deployed before, and not what was withdrawn."""
        for w in self.of.values():
            w.heard.pop(node, None)
            w.dropped.pop(node, None)
            w.owed.add(node)
            w.next_at = 0.0

    def answered(self, node: str | None, answer: Answer, now: float, out: Outgoing) -> None:
        """Take an answer to a CLOSE or WITHDRAW from `node`; None is from an address where none stands."""
        w = self.of.get(answer.application)
        if node is None or w is None or answer.refusal == Refusal.OLD_TERM or answer.term != self._term:
            self.refused += node is None
            return
        if answer.verb == Verb.CLOSE and w.state is State.CLOSING and answer.refusal == Refusal.NONE:
            with suppress(WireError):
                said = UnderWay.of(answer.payload)
                if said.round == w.round:
                    w.heard[node] = said
        elif answer.verb == Verb.WITHDRAW and answer.epoch == w.epoch and node in w.owed and self.is_cleared(
                answer.application) and answer.refusal == Refusal.NONE:
            w.owed.discard(node)
            w.dropped[node] = answer.size
            with suppress(WireError):
                w.clients |= set(unpack_addresses(answer.payload))
        self._consider(w, now, out)

    def tick(self, now: float, out: Outgoing) -> None:
        """Decide on what is known now, and repeat what is not answered."""
        for w in self.of.values():
            self._consider(w, now, out)

    def due(self) -> float | None:
        """Return when something is to be repeated; other decisions need a `tick` after each of the membership."""
        return min((w.next_at for w in self.of.values() if not w.is_over), default=None)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def _consider(self, w: Withdrawal, now: float, out: Outgoing) -> None:
        if self.silent:
            return
        w.since = min(w.since, now)
        while (event := self._event(w, now)) is not None:
            self._enter(w, TRANSITIONS[w.state, event], event.value, now)
        if now >= w.next_at:
            self._send(w, now, out)

    def _event(self, w: Withdrawal, now: float) -> Event | None:
        if w.state is State.SETTLING and self._settles(w.application):
            return Event.SETTLED
        if w.state is State.CLOSING and self._is_drained(w, now):
            return Event.DRAINED
        if w.state is State.CLEARING and not w.owed & self._there():
            return Event.CLEARED
        return Event.TOO_LATE if now >= w.since + LIMIT_S.get(w.state, math.inf) else None

    def _is_drained(self, w: Withdrawal, now: float) -> bool:
        """Whether nothing is under way; begins another round where this one is over and does not show it."""
        if not w.heard.keys() >= self._there() | set(self._holders(w.application)):
            return False
        quiet = not any(said.outstanding for said in (*w.heard.values(), *w.before.values()))
        begun = {node: said.begun for node, said in w.heard.items()}
        if quiet and begun == {node: said.begun for node, said in w.before.items()}:
            return True
        w.before, w.heard = w.heard, {}
        w.round, w.next_at, w.retry_s = w.round + 1, now + ROUND_S, RETRY_S
        return False

    def _there(self) -> set[str]:
        """Return the nodes that are not known to be away: all, while too little was heard to know that of any."""
        lives = {name: self._life(name) for name in self._names}
        if Life.ALIVE not in lives.values():
            return set(self._names)
        return {name for name, life in lives.items() if life not in (Life.DEAD, Life.OUTSIDE)}

    def _enter(self, w: Withdrawal, state: State, why: str, now: float) -> None:
        """Decide, write it down, and let go what is to be let go, in this order."""
        epoch, owed = w.epoch, w.owed
        if state is State.CLEARING:
            epoch, owed = self._latest(w.application) + 1, set(self._names)
        self._journal.append(WithdrawalTurned(w.application, w.name, state.value, epoch,
                                         tuple(sorted(owed)) if state is State.GONE else ()))
        w.state, w.since, w.epoch, w.owed = state, now, epoch, owed
        w.next_at, w.retry_s = now, RETRY_S
        self._turned(w, why, now)

    def _send(self, w: Withdrawal, now: float, out: Outgoing) -> None:
        there = self._there()
        if w.state is State.CLOSING:
            command = Command(self._term, 0, 0, Verb.CLOSE, w.application, NO_INSTANCE, self._latest(w.application),
                              size=w.round)
            out += [ToNode(node, command) for node in sorted(there - w.heard.keys())]
        elif w.state is not State.SETTLING:
            command = Command(self._term, 0, 0, Verb.WITHDRAW, w.application, NO_INSTANCE, w.epoch)
            out += [ToNode(node, command) for node in sorted(w.owed & there)]
        w.next_at = now + w.retry_s
        w.retry_s = min(MOST_RETRY_S, w.retry_s * 1.5)
