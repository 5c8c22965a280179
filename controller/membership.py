"""Who of the compute nodes is there: a failure detector on heartbeats, and how nodes join, leave and return.

    outside --join--> dead --heard--> joining --steady--> alive <==silent / heard==> suspect
       ^                ^               |  ^                |                           |
       |                '---timed out---'  '---restarted----+---------------------------|
       |                '---------------------------------------timed out---------------'
       '---left, timed out--- leaving <---leave--- (joining, alive, suspect)

Heartbeats come every 50 ms of emulated time. A node that is silent for `suspect_s` is given nothing new; one that is
silent for `dead_s` is declared dead. Nothing here makes a second instance of anything: whoever acts on a declaration
relies on epochs, or keeps the node from the network first (docs/failover.md). So a wrong one costs a failover, and no
data.

The detector can be wrong about itself, too. A controller that has not looked for `stall_s` finds everybody silent, and
so does one that is cut off; neither says anything about the nodes. After the first, and until somebody is heard again
after the second, nobody's silence counts.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.errors import ControllerError
from controller.heartbeats import Ints
from nodes.control_messages import HEARTBEAT_S, slot_of_time


class MembershipError(ControllerError, ValueError):
    """Members or timeouts that cannot be."""


class Life(enum.IntEnum):
    """What a node is held for."""

    OUTSIDE = 0  # no member: it was never let in, or has left
    DEAD = 1  # silent for the timeout, or never heard of
    JOINING = 2  # heard, and not yet for long enough
    ALIVE = 3
    SUSPECT = 4  # silent, but not for long enough
    LEAVING = 5  # alive, and to be emptied


class Sign(enum.Enum):
    """What is noticed about a node, or said of it."""

    HEARD = "heard"
    STEADY = "heard without a break for long enough"
    SILENT = "silent"
    TIMED_OUT = "silent for the timeout"
    RESTARTED = "restarted"
    JOIN = "let in"
    LEAVE = "asked to leave"
    LEFT = "emptied"


_L, _S = Life, Sign
TRANSITIONS: dict[tuple[Life, Sign], Life] = {
    (_L.OUTSIDE, _S.JOIN): _L.DEAD,
    (_L.DEAD, _S.HEARD): _L.JOINING,
    (_L.JOINING, _S.STEADY): _L.ALIVE,
    (_L.JOINING, _S.TIMED_OUT): _L.DEAD,
    (_L.ALIVE, _S.SILENT): _L.SUSPECT,
    (_L.SUSPECT, _S.HEARD): _L.ALIVE,
    (_L.SUSPECT, _S.TIMED_OUT): _L.DEAD,
    **{(s, _S.RESTARTED): _L.JOINING for s in (_L.JOINING, _L.ALIVE, _L.SUSPECT)},
    **{(s, _S.LEAVE): _L.LEAVING for s in (_L.JOINING, _L.ALIVE, _L.SUSPECT)},
    (_L.DEAD, _S.LEAVE): _L.OUTSIDE,
    (_L.LEAVING, _S.JOIN): _L.ALIVE,
    (_L.LEAVING, _S.LEFT): _L.OUTSIDE,
    (_L.LEAVING, _S.TIMED_OUT): _L.OUTSIDE,
    (_L.LEAVING, _S.RESTARTED): _L.OUTSIDE,
}
PRESENT = (_L.ALIVE, _L.SUSPECT, _L.LEAVING)  # has what it is thought to have
_IS_PRESENT = np.isin(np.arange(len(Life)), PRESENT)
_CAN_TIME_OUT = np.isin(np.arange(len(Life)), (_L.JOINING, _L.SUSPECT, _L.LEAVING))


@dataclass(frozen=True, slots=True)
class FailureOptions:
    """Times in emulated seconds; all ours, the paper gives none.

    With a share p of heartbeats lost, each on its own, a living node is declared dead if all that is heard of it in
    `dead_s` is lost. Per node and second that is 20 (1 - p) p^n for n of them in a row: at 0.5 s, where n is 9, and 2 %
    once in 3 million years, at 10 % in 1.8 years, at 25 % in 4.9 hours. `steady_s` keeps a node that comes and goes
    from being given replicas each time it comes.
    """

    suspect_s: float = 0.2
    dead_s: float = 0.5
    steady_s: float = 1.0
    stall_s: float = 0.2

    def __post_init__(self) -> None:
        if not 2 * HEARTBEAT_S <= self.suspect_s < self.dead_s or self.steady_s < 0 or self.stall_s < HEARTBEAT_S:
            raise MembershipError(f"suspect_s {self.suspect_s}, dead_s {self.dead_s}, steady_s {self.steady_s}, "
                                  f"stall_s {self.stall_s}; the limits are {2 * HEARTBEAT_S}, suspect_s, 0 and "
                                  f"{HEARTBEAT_S}")


class Change(NamedTuple):
    """A node is held for something else now. `epoch` is that of the membership after it."""

    now_s: float
    node: str
    before: Life
    after: Life
    why: Sign
    epoch: int


class Membership:
    """The lives of `names`, all members at first and not yet heard of.

    `last_slot` is the array that a `Gate` keeps, in the same order: the slot of each node's last heartbeat. It is read
    at each `tick`, so a heartbeat costs nothing here. `epoch` grows when a node becomes present or ceases to be.
    """

    def __init__(self, names: Sequence[str], last_slot: Ints, options: FailureOptions | None = None) -> None:
        if len(names) != len(last_slot) or len(set(names)) != len(names):
            raise MembershipError(f"{len(names)} names, {len(set(names))} different, for {len(last_slot)} nodes")
        self.options = options or FailureOptions()
        self.names = tuple(names)
        self.epoch = 0
        self.cut_off = False  # nobody is heard: it is not they who are silent
        self._index = {name: i for i, name in enumerate(names)}
        self._last_slot = last_slot
        self._life = np.full(len(names), Life.DEAD, dtype=np.uint8)
        self._since = np.zeros(len(names), dtype=np.int32)  # since when it is heard without a break
        self._looked = -1  # slot of the last `tick`
        self._excused = -1  # silence counts from this slot on
        self._changes: list[Change] = []  # between two ticks

    def life(self, node: str) -> Life:
        return Life(int(self._life[self._of(node)]))

    def nodes_that_are(self, *lives: Life) -> list[str]:
        return [self.names[i] for i in np.flatnonzero(np.isin(self._life, lives)).tolist()]

    def join(self, node: str, now_s: float) -> None:
        """Let a node in that is outside, or keep one that was to leave; another is in already."""
        self._turn(self._of(node), Sign.JOIN, now_s)

    def leave(self, node: str, now_s: float) -> None:
        """Ask that a node be emptied; who empties it says `left`."""
        self._turn(self._of(node), Sign.LEAVE, now_s)

    def left(self, node: str, now_s: float) -> None:
        self._turn(self._of(node), Sign.LEFT, now_s)

    def restarted(self, node: str, now_s: float) -> None:
        """Note that a node is in a new run of itself, with nothing of what it had (its heartbeats tell)."""
        i = self._of(node)
        self._since[i] = slot_of_time(now_s)
        self._turn(i, Sign.RESTARTED, now_s)

    def tick(self, now_s: float) -> list[Change]:
        """Look at everybody's silence, at least every `stall_s`; return what has changed since the last time."""
        slot, options = slot_of_time(now_s), self.options
        if self._looked >= 0 and slot - self._looked > _slots(options.stall_s):
            self._excused = slot  # we did not look; what they sent meanwhile may still be on its way to us
        self._looked = slot
        life, last = self._life, self._last_slot
        # Never heard of is silent for ever: being excused must not make it heard.
        silence = np.where(last < 0, np.int32(1 << 30), slot - np.maximum(last, self._excused))
        present = _IS_PRESENT[life]
        unheard = slot - last >= _slots(options.suspect_s)
        if present.any() and unheard[present].all():
            self.cut_off = True
        elif self.cut_off:
            self.cut_off, self._excused = False, slot
            silence = np.where(last < 0, silence, slot - np.maximum(last, self._excused))
        silent, timed_out = silence >= _slots(options.suspect_s), silence >= _slots(options.dead_s)
        joining = life == Life.JOINING
        self._since[joining & silent] = slot
        found = [(Sign.HEARD, ~unheard & (last >= 0) & ((life == Life.DEAD) | (life == Life.SUSPECT))),
                 (Sign.STEADY, joining & ~silent & (slot - self._since >= _slots(options.steady_s)))]
        if not self.cut_off:
            found += [(Sign.TIMED_OUT, timed_out & _CAN_TIME_OUT[life]),
                      (Sign.SILENT, silent & (life == Life.ALIVE))]
        for sign, mask in found:
            self._turn_all(sign, mask, now_s, slot)
        changes, self._changes = self._changes, []
        return changes

    def _turn_all(self, sign: Sign, mask: npt.NDArray[np.bool_], now_s: float, slot: int) -> None:
        for i in np.flatnonzero(mask).tolist():
            if sign is Sign.HEARD:
                self._since[i] = slot
            self._turn(i, sign, now_s)

    def _turn(self, i: int, sign: Sign, now_s: float) -> None:
        before = Life(int(self._life[i]))
        after = TRANSITIONS.get((before, sign))
        if after is None or after is before:
            return
        self._life[i] = after
        if (before in PRESENT) is not (after in PRESENT):
            self.epoch += 1
        self._changes.append(Change(now_s, self.names[i], before, after, sign, self.epoch))

    def _of(self, node: str) -> int:
        """Return a node's index; raises MembershipError for one that is not known."""
        if node not in self._index:
            raise MembershipError(f"no node {node!r}")
        return self._index[node]


def _slots(seconds: float) -> int:
    return round(seconds / HEARTBEAT_S)
