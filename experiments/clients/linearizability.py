"""Judges whether a history of concurrent operations on a key-value store is linearizable, knowing nothing of the store.

A history is linearizable (Herlihy and Wing, TOPLAS 1990) if every operation can be thought to have happened at one
moment between its call and its return, such that a store with one client would have given the same results. That is
searched for as in Wing and Gong ("Testing and verifying concurrent objects", 1993), with the configurations that were
tried kept in memory (Lowe, "Testing for linearizability", 2016), and each key on its own, which the definition allows
(it is local); Porcupine and Knossos do the same.

Operations that never returned may have happened at any time since their call, or not at all. Times need one clock for
all clients, and an operation must be called before, and returned after, anything could have come of it.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from experiments.errors import ExperimentError

NEVER = math.inf  # when an operation returned of which nothing was heard
MOST_STEPS = 5_000_000  # ours: some ten seconds; the search is exponential in what never returned


class Unknown(enum.Enum):
    """The result of an operation of which nothing was heard."""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN


class Operation(NamedTuple):
    """One operation as its client saw it: called and returned at times of one clock, in seconds."""

    called_s: float
    returned_s: float
    what: Hashable
    result: Hashable = UNKNOWN


class Refused(enum.Enum):
    """What a model says of a result that an operation cannot have had in a state."""

    REFUSED = "refused"


REFUSED = Refused.REFUSED
Step = Callable[[Hashable, Hashable, Hashable], Hashable]  # (state, what, result) -> next state, or REFUSED


class Ruling(enum.Enum):
    """How a history was judged. UNDECIDED: the search took more steps than it was given."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"


class Verdict(NamedTuple):
    """The ruling, and where it is not LINEARIZABLE: the key, and the operation that no order explains.

    `explained` of the key's completed operations can be put in an order that ends before `stuck` returned; `steps` is
    how many configurations were looked at in all.
    """

    ruling: Ruling
    steps: int
    key: bytes = b""
    explained: int = 0
    stuck: Operation | None = None

    def __bool__(self) -> bool:
        return self.ruling is Ruling.LINEARIZABLE

    def __str__(self) -> str:
        if self:
            return f"linearizable, {self.steps} steps"
        return (f"{self.ruling.value}: key {self.key!r}, after {self.explained} operations nothing explains "
                f"{self.stuck}")


def check(operations: Sequence[Operation], initial: Hashable, step: Step, most_steps: int = MOST_STEPS) -> Verdict:
    """Judge the history of one object that is in state `initial` at first and obeys `step`.

    Raises ExperimentError for an operation that returned before it was called, or of which a result, but no return, or
    a return, but no result is known.
    """
    for operation in operations:
        if operation.returned_s < operation.called_s:
            raise ExperimentError(f"{operation} returned before it was called")
        if (operation.result is UNKNOWN) is not (operation.returned_s == NEVER):
            raise ExperimentError(f"{operation}: a result and a return belong together")
    return _Search(operations, initial, step).run(most_steps)


class _Search:
    """The calls and returns of a history as a doubly linked list in order of time, from which what is explained is
    taken out, and put back where it led nowhere.

    Entry 0 is the head, 2i + 1 the call and 2i + 2 the return of operation i. Operations are numbered by their return,
    so those that are explained are nearly all of the first numbers: `base` counts these, `window` has a bit for each
    explained one from there on. Those that never returned have bits of their own.
    """

    def __init__(self, operations: Sequence[Operation], initial: Hashable, step: Step) -> None:
        self.operations = sorted(operations, key=lambda o: (o.returned_s, o.called_s))
        self.completed = sum(o.returned_s != NEVER for o in operations)
        self.initial, self.step = initial, step
        # Of equal times the call comes first: what cannot be told apart counts as concurrent.
        events = sorted([(o.called_s, 0, 2 * i + 1) for i, o in enumerate(self.operations)]
                        + [(o.returned_s, 1, 2 * i + 2) for i, o in enumerate(self.operations[:self.completed])])
        order = [0, *(entry for _, _, entry in events)]
        self.after = [-1] * (2 * len(operations) + 1)
        self.before = [-1] * (2 * len(operations) + 1)
        for here, following in itertools.pairwise(order):
            self.after[here], self.before[following] = following, here

    def run(self, most_steps: int) -> Verdict:
        step, after, operations, completed = self.step, self.after, self.operations, self.completed
        state, base, window, unreturned, explained = self.initial, 0, 0, 0, 0
        undo: list[tuple[int, Hashable, int, int, int]] = []
        seen: set[tuple[int, int, int, Hashable]] = set()
        farthest, stuck, steps = 0, -1, 0
        here = after[0]
        while explained < completed:
            number = (here - 1) >> 1
            if here & 1:
                operation = operations[number]
                following = step(state, operation.what, operation.result)
                steps += 1
                if following is not REFUSED:
                    configuration = (*_with(number, base, window, unreturned, completed), following)
                    if configuration not in seen:
                        seen.add(configuration)
                        undo.append((here, state, base, window, unreturned))
                        base, window, unreturned, state = configuration
                        explained += number < completed
                        self._take_out(here, number)
                        here = after[0]
                        continue
                here = after[here]
                continue
            if explained >= farthest:
                farthest, stuck = explained, number
            if not undo or steps > most_steps:
                ruling = Ruling.UNDECIDED if undo else Ruling.VIOLATION
                return Verdict(ruling, steps, explained=farthest, stuck=operations[stuck])
            here, state, base, window, unreturned = undo.pop()
            number = (here - 1) >> 1
            explained -= number < completed
            self._put_back(here, number)
            here = after[here]
        return Verdict(Ruling.LINEARIZABLE, steps, explained=explained)

    def _take_out(self, call: int, number: int) -> None:
        after, before = self.after, self.before
        for entry in (call, call + 1) if number < self.completed else (call,):
            behind, ahead = before[entry], after[entry]
            after[behind] = ahead
            if ahead >= 0:
                before[ahead] = behind

    def _put_back(self, call: int, number: int) -> None:
        after, before = self.after, self.before
        for entry in (call + 1, call) if number < self.completed else (call,):
            behind, ahead = before[entry], after[entry]
            after[behind] = entry
            if ahead >= 0:
                before[ahead] = entry


def _with(number: int, base: int, window: int, unreturned: int, completed: int) -> tuple[int, int, int]:
    """Return which operations are explained once `number` is, too."""
    if number >= completed:
        return base, window, unreturned | 1 << number - completed
    window |= 1 << number - base
    while window & 1:
        window >>= 1
        base += 1
    return base, window, unreturned


# -- the key-value store -----------------------------------------------------------------------------------------------

class Stored(NamedTuple):
    """What a key holds, and what `get` says; None where it holds nothing."""

    flags: int
    value: bytes


class Command(NamedTuple):
    """An operation on one key: the verbs are memcached's, `value` is what is stored, or an amount."""

    verb: str
    flags: int = 0
    value: bytes = b""


def store_step(state: Hashable, what: Hashable, result: Hashable) -> Hashable:
    """Follow one key of a store by one command; raises ExperimentError for a verb that it does not know.

    Results: of `get` what is stored or None; of `incr` and `decr` the number as bytes; else memcached's word.
    """
    assert isinstance(what, Command) and (state is None or isinstance(state, Stored))
    said, following = _store(state, what)
    return following if result is UNKNOWN or result == said else REFUSED


def _store(state: Stored | None, what: Command) -> tuple[Hashable, Stored | None]:
    verb = what.verb
    if verb == "get":
        return state, state
    if verb in ("set", "add", "replace"):
        if (verb == "add" and state is not None) or (verb == "replace" and state is None):
            return "NOT_STORED", state
        return "STORED", Stored(what.flags, what.value)
    if verb == "delete":
        return ("NOT_FOUND" if state is None else "DELETED"), None
    if verb in ("incr", "decr"):
        if state is None:
            return "NOT_FOUND", None
        if not state.value.isdigit():
            return "ERROR", state
        amount = int(what.value)
        number = (int(state.value) + amount) % 2**64 if verb == "incr" else max(0, int(state.value) - amount)
        return b"%d" % number, Stored(state.flags, b"%d" % number)
    raise ExperimentError(f"verb {verb!r}; judged are get, set, add, replace, delete, incr, decr")


def read_exchange(request: bytes, reply: bytes | None) -> tuple[bytes, Command, Hashable]:
    """Return the key, the command and the result of a request to the store and its reply (None: none came).

    Raises ExperimentError for what is not memcached's text protocol. An error reply is the result "ERROR".
    """
    line, _, rest = request.partition(b"\r\n")
    words = line.split(b" ")
    verb = words[0].decode("ascii", "replace")
    try:
        if verb in ("set", "add", "replace"):
            command = Command(verb, int(words[2]), rest[:int(words[4])])
        else:
            command = Command(verb, 0, words[2] if len(words) > 2 else b"")
        return words[1], command, UNKNOWN if reply is None else _result(verb, reply)
    except (IndexError, ValueError) as error:
        raise ExperimentError(f"request {request[:80]!r}, reply {(reply or b'')[:80]!r}: {error}") from error


def _result(verb: str, reply: bytes) -> Hashable:
    line, _, rest = reply.partition(b"\r\n")
    words = line.split(b" ")
    if verb == "get" and words[0] == b"VALUE":
        return Stored(int(words[2]), rest[:int(words[3])])
    if verb == "get" and line == b"END":
        return None
    if verb in ("incr", "decr") and line.isdigit():
        return line
    if line in (b"STORED", b"NOT_STORED", b"DELETED", b"NOT_FOUND"):
        return line.decode()
    if line.split(b" ")[0] in (b"ERROR", b"CLIENT_ERROR", b"SERVER_ERROR"):
        return "ERROR"
    raise ValueError("no reply of the store's")


def check_store(history: Iterable[tuple[bytes, Operation]], most_steps: int = MOST_STEPS) -> Verdict:
    """Judge a history of (key, operation) on a store that is empty at first, key by key; the first bad key ends it."""
    of_key: dict[bytes, list[Operation]] = defaultdict(list)
    for key, operation in history:
        if operation.returned_s != NEVER or operation.what != Command("get"):  # a lost `get` says and does nothing
            of_key[key].append(operation)
    steps = 0
    for key in sorted(of_key):
        verdict = check(of_key[key], None, store_step, most_steps)
        steps += verdict.steps
        if not verdict:
            return verdict._replace(key=key, steps=steps)
    return Verdict(Ruling.LINEARIZABLE, steps)
