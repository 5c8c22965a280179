"""Carries datagrams between simulated ends in virtual time, with faults drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

from nodes.agenda import Agenda
from nodes.errors import NodeError
from nodes.simulated_ends import End
from nodes.transport import Address, Sends

APART_S = 1e-9  # between datagrams in order, so that each has a time of its own


@dataclass(frozen=True, slots=True)
class NetworkFaults:
    """What happens to each datagram, by probability: `loss`, `duplication` (a second copy), `reordering`.

    A datagram takes `delay_s` and up to `jitter_s` more, and stays behind those sent before it from the same node to
    the same node, unless it is reordered: then it is held back by up to `reordering_s` more and others pass it. An
    in-memory queue inside a node is no network and has no faults. Raises NodeError for what is no probability or time.
    """

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay_s: float = 100e-6
    jitter_s: float = 0.0
    reordering_s: float = 5e-3

    def __post_init__(self) -> None:
        for name in ("loss", "duplication", "reordering"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise NodeError(f"{name} of {getattr(self, name)}; the limits are 0 and 1")
        for name in ("delay_s", "jitter_s", "reordering_s"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise NodeError(f"{name} is {getattr(self, name)}; the least is 0")


@dataclass(frozen=True, slots=True)
class NetworkCounters:
    """Datagrams `sent`; of them `lost`, `doubled`, `held_back`, and those that found nobody (`nowhere`)."""

    sent: int
    lost: int
    doubled: int
    held_back: int
    nowhere: int


class SimulatedNetwork:
    """Carries datagrams from end to end with faults drawn from a seed; one alarm clock for every end."""

    def __init__(self, faults: NetworkFaults, seed: int) -> None:
        self.agenda = Agenda()
        self.faults = faults
        self.last_s = 0.0  # when the last datagram arrived
        self.fingerprint = 0  # of every datagram that arrived: when, from where, to where, what
        self._draw = random.Random(seed).random
        self._ends: dict[Address, End] = {}
        self._alarms: dict[Address, float] = {}
        self._last: dict[tuple[bytes, bytes], float] = {}  # when the last datagram in order arrives, by IP addresses
        self._sent = self._lost = self._doubled = self._held_back = self._nowhere = 0

    @property
    def now(self) -> float:
        return self.agenda.now

    def plug(self, end: End) -> None:
        """Let `end` take part, in place of whatever had its address before."""
        self._ends[end.address] = end
        self._alarms.pop(end.address, None)

    def unplug(self, end: End) -> None:
        if self._ends.get(end.address) is end:
            del self._ends[end.address]

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay_s` from now."""
        self.agenda.at(self.agenda.now + delay_s, action)

    def work(self, end: End) -> None:
        """Let `end` do what it can do now, send what comes of it, and set its alarm."""
        out: Sends = []
        end.work(self.agenda.now, out)
        self.after(end, out)

    def after(self, end: End, out: Sends) -> None:
        """Send `out` from `end`, and set its alarm."""
        address = end.address
        for ip, port, data in out:
            self._carry(address, Address(ip, port), data)
        due = end.due()
        if due is None:
            return
        alarm = self._alarms.get(address)
        if alarm is None or due < alarm:  # an alarm that is too early finds nothing to do and is set anew
            self._alarms[address] = due
            self.agenda.at(due, self._ring, end, due)

    def _ring(self, end: End, due: float) -> None:
        if self._ends.get(end.address) is end and self._alarms.get(end.address) == due:
            del self._alarms[end.address]
            self.work(end)

    def _faults_between(self, source: Address, to: Address) -> NetworkFaults | None:
        """Return what may happen to a datagram on its way; None where there is no way."""
        return self.faults

    def _carry(self, source: Address, to: Address, data: bytes) -> None:
        faults, draw = self._faults_between(source, to), self._draw
        self._sent += 1
        if faults is None or draw() < faults.loss:
            self._lost += 1
            return
        copies = 1
        if draw() < faults.duplication:
            self._doubled += 1
            copies = 2
        for _ in range(copies):
            arrival = self.now + faults.delay_s + draw() * faults.jitter_s
            if draw() < faults.reordering:
                self._held_back += 1
                arrival += draw() * faults.reordering_s
            else:
                pair = (source.ip, to.ip)
                self._last[pair] = arrival = max(arrival, self._last.get(pair, 0.0) + APART_S)
            self.agenda.at(arrival, self._arrive, source, to, data)

    def _arrive(self, source: Address, to: Address, data: bytes) -> None:
        end = self._ends.get(to)
        if end is None:
            self._nowhere += 1
            return
        self.last_s = self.now
        self.fingerprint = crc32(b"%r %b %d %b %d " % (self.now, *source, *to) + data, self.fingerprint)
        self._hand_over(end, source, data)

    def _hand_over(self, end: End, source: Address, data: bytes) -> None:
        out: Sends = []
        now = self.agenda.now
        end.receive(source, data, now, out)
        end.work(now, out)
        self.after(end, out)

    def counters(self) -> NetworkCounters:
        return NetworkCounters(self._sent, self._lost, self._doubled, self._held_back, self._nowhere)
