"""The actor of link aggregation after IEEE 802.3ad (now 802.1AX), for one server's team of links.

A team is every link of one server, spoken for by one system: the server's MAC. The actor is always active.
Receive machine of a member (802.1AX-2014, 6.4.12; `RECEIVE` below is this table):

    state     event    next       on entry
    disabled  carrier  expired    forget the partner, wait 3 s for a LACPDU
    expired   pdu      current    record the partner, wait three periods
    expired   timeout  defaulted  forget the partner
    defaulted pdu      current
    current   pdu      current
    current   timeout  expired    the partner is out of sync
    any other lost     disabled   forget the partner

Mux (6.4.15, with independent collecting and distributing) is a ladder; a member stands on the highest rung
whose condition, and those of all rungs below, hold:

    detached, attached (the partner is the team's), collecting (it is in sync), distributing (it collects)

The partner of a team is one system and key, so links to two switches, or to ports with different
aggregation keys, do not join. A partner may call its link individual, as Open vSwitch does of a port that is
in no bond: a team spreads packets by route, not as one layer-2 link, so such links team as well as others.
Left out, as nothing here needs them: standby members, the wait-while and churn timers, markers, passive actors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from nodes.lacpdu import (
    ACTIVE,
    AGGREGATABLE,
    COLLECTS,
    DISTRIBUTES,
    IN_SYNC,
    IS_DEFAULTED,
    IS_EXPIRED,
    NOBODY,
    SHORT_TIMEOUT,
    Lacpdu,
    LacpPort,
)

FAST_PERIOD_S = 1.0
SLOW_PERIOD_S = 30.0
TIMEOUT_PERIODS = 3
SENT_PER_FAST_PERIOD = 3  # 6.4.16: no more frames than this in one fast period

DISABLED, EXPIRED, DEFAULTED, CURRENT = "disabled", "expired", "defaulted", "current"
RECEIVE = {
    (DISABLED, "carrier"): EXPIRED,
    (EXPIRED, "pdu"): CURRENT,
    (EXPIRED, "timeout"): DEFAULTED,
    (DEFAULTED, "pdu"): CURRENT,
    (CURRENT, "pdu"): CURRENT,
    (CURRENT, "timeout"): EXPIRED,
    (EXPIRED, "lost"): DISABLED,
    (DEFAULTED, "lost"): DISABLED,
    (CURRENT, "lost"): DISABLED,
}
DETACHED, ATTACHED, COLLECTING, DISTRIBUTING = "detached", "attached", "collecting", "distributing"
ACTOR_BITS = {
    DETACHED: 0,
    ATTACHED: IN_SYNC,
    COLLECTING: IN_SYNC | COLLECTS,
    DISTRIBUTING: IN_SYNC | COLLECTS | DISTRIBUTES,
}


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """A member began (`up`) or ceased to carry the team's traffic; `reason` is a phrase for people."""

    member: str
    up: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Actions:
    """What the driver is to do: send each (member, frame), and take note of each event."""

    frames: tuple[tuple[str, bytes], ...] = ()
    events: tuple[MemberEvent, ...] = ()


@dataclass(slots=True)
class _Member:
    name: str
    port: int
    since: float  # of the present receive and mux state, together
    receive: str = DISABLED
    mux: str = DETACHED
    partner: LacpPort = NOBODY
    reason: str = "no carrier"
    timeout_at: float | None = None
    must_send: bool = False
    told: LacpPort | None = None  # our own state, as last sent
    sent_at: deque[float] = field(default_factory=lambda: deque(maxlen=SENT_PER_FAST_PERIOD))


@dataclass(frozen=True, slots=True)
class MemberView:
    """How a member stands. `since` is when its state last changed, on the driver's clock."""

    name: str
    receive: str
    mux: str
    partner: LacpPort
    since: float
    reason: str


class LacpTeam:
    """The LACP actor of all links of one server. Every method takes `now` in seconds and returns Actions.

    `system` is the server's MAC, six bytes; members are ports 1, 2, ... in the order given, all without carrier.
    """

    def __init__(self, system: bytes, members: Sequence[str], now: float, *, key: int = 1, fast: bool = True) -> None:
        self.system = system
        self.key = key
        self.fast = fast
        self._members = {name: _Member(name, port, now) for port, name in enumerate(members, start=1)}
        self._aggregate: tuple[int, bytes, int] | None = None

    def carrier(self, member: str, up: bool, now: float) -> Actions:
        """Note that `member` has or has lost its carrier; telling the same twice changes nothing."""
        self._step(self._members[member], "carrier" if up else "lost", now)
        return self._settle(now)

    def received(self, member: str, pdu: Lacpdu, now: float) -> Actions:
        """Take in a LACPDU that `member` received."""
        this = self._members[member]
        if (this.receive, "pdu") in RECEIVE:
            self._record(this, pdu)
            self._step(this, "pdu", now)
        return self._settle(now)

    def tick(self, now: float) -> Actions:
        """Do what is due by `now`; due again at `deadline`."""
        for this in self._members.values():
            if this.timeout_at is not None and now >= this.timeout_at:
                self._step(this, "timeout", now)
        return self._settle(now)

    def leave(self, now: float) -> Actions:
        """Tell the partner, before the end, that no member is in sync any more: it need not wait 3 s."""
        frames: list[tuple[str, bytes]] = []
        events: list[MemberEvent] = []
        for this in self._members.values():
            if this.receive == DISABLED:
                continue
            if this.mux == DISTRIBUTING:
                events.append(MemberEvent(this.name, False, "the team stops"))
            this.mux, this.since, this.reason = DETACHED, now, "the team stops"
            frames.append((this.name, Lacpdu(self._actor(this), this.partner).encode(self.system)))
        return Actions(tuple(frames), tuple(events))

    def deadline(self) -> float | None:
        """Return when `tick` is due next; None while no member has carrier."""
        due = [self._send_at(this) for this in self._members.values() if this.receive != DISABLED]
        due += [this.timeout_at for this in self._members.values() if this.timeout_at is not None]
        return min(due, default=None)

    def distributing(self) -> tuple[str, ...]:
        """Return the members that carry traffic, in port order."""
        return tuple(this.name for this in self._members.values() if this.mux == DISTRIBUTING)

    def members(self) -> tuple[MemberView, ...]:
        return tuple(MemberView(m.name, m.receive, m.mux, m.partner, m.since, m.reason)
                     for m in self._members.values())

    def _step(self, this: _Member, event: str, now: float) -> None:
        """Take one step of the receive machine."""
        entered = RECEIVE.get((this.receive, event))
        if entered is None:
            return
        waited = TIMEOUT_PERIODS * (FAST_PERIOD_S if self.fast or this.receive == EXPIRED else SLOW_PERIOD_S)
        if entered != this.receive:
            this.since = now
            this.reason = {
                DISABLED: "no carrier",
                EXPIRED: f"no LACPDU for {waited:g} s" if event == "timeout" else "carrier is back",
                DEFAULTED: f"no LACPDU for {waited:g} s more: no partner",
                CURRENT: "a LACPDU came",
            }[entered]
        this.receive = entered
        if entered == CURRENT:
            period_s = FAST_PERIOD_S if self.fast else SLOW_PERIOD_S
            this.timeout_at = now + TIMEOUT_PERIODS * period_s
        elif entered == EXPIRED:
            this.timeout_at = now + TIMEOUT_PERIODS * FAST_PERIOD_S
            # Until it is heard again the partner is out of sync, and asked for as often as allowed.
            this.partner = replace(this.partner, state=this.partner.state & ~IN_SYNC | SHORT_TIMEOUT)
            this.must_send = True
        else:
            this.timeout_at = None
            this.partner = NOBODY
            this.told = None

    def _record(self, this: _Member, pdu: Lacpdu) -> None:
        """Take the partner's own account of itself, in sync only if it means us (recordPDU, 6.4.9)."""
        us, heard = self._actor(this), pdu.partner
        same_end = replace(heard, state=0) == replace(us, state=0)
        means_us = same_end and bool(heard.state & AGGREGATABLE)
        state = pdu.actor.state if means_us else pdu.actor.state & ~IN_SYNC
        this.partner = replace(pdu.actor, state=state)
        told = ACTIVE | SHORT_TIMEOUT | AGGREGATABLE | IN_SYNC
        if not same_end or (heard.state ^ us.state) & told:
            this.must_send = True

    def _settle(self, now: float) -> Actions:
        """Choose the aggregate, move every member to its rung, and collect what is to be sent."""
        joinable = [this.partner.aggregate for this in self._members.values()
                    if this.receive == CURRENT and this.partner.system != self.system]
        if self._aggregate not in joinable:
            self._aggregate = joinable[0] if joinable else None
        events: list[MemberEvent] = []
        for this in self._members.values():
            mux, reason = self._rung(this)
            if mux != this.mux:
                if DISTRIBUTING in (mux, this.mux):
                    events.append(MemberEvent(this.name, mux == DISTRIBUTING, reason))
                this.mux, this.since = mux, now
            this.reason = reason
        frames = []
        for this in self._members.values():
            if this.receive != DISABLED and now >= self._send_at(this):
                this.told = self._actor(this)
                this.must_send = False
                this.sent_at.append(now)
                frames.append((this.name, Lacpdu(this.told, this.partner).encode(self.system)))
        return Actions(tuple(frames), tuple(events))

    def _rung(self, this: _Member) -> tuple[str, str]:
        if this.receive != CURRENT:
            return DETACHED, this.reason
        if this.partner.system == self.system:
            return DETACHED, "the link leads back to this server"
        if this.partner.aggregate != self._aggregate:
            return DETACHED, f"partner {_shown(this.partner.aggregate)} is not the team's, {_shown(self._aggregate)}"
        if not this.partner.state & IN_SYNC:
            return ATTACHED, "the partner is not in sync"
        if not this.partner.state & COLLECTS:
            return COLLECTING, "the partner does not collect"
        return DISTRIBUTING, "the partner is in sync and collects"

    def _actor(self, this: _Member) -> LacpPort:
        state = ACTIVE | AGGREGATABLE | ACTOR_BITS[this.mux]
        state |= SHORT_TIMEOUT if self.fast else 0
        state |= IS_DEFAULTED if this.receive == DEFAULTED else 0
        state |= IS_EXPIRED if this.receive == EXPIRED else 0
        return LacpPort(self.system, self.key, this.port, state)

    def _send_at(self, this: _Member) -> float:
        """Return when this member's next LACPDU is due: at once after a change, else periodically."""
        if not this.sent_at:
            return float("-inf")
        if this.must_send or this.told != self._actor(this):
            full = len(this.sent_at) == SENT_PER_FAST_PERIOD
            return this.sent_at[0] + FAST_PERIOD_S if full else float("-inf")
        return this.sent_at[-1] + (FAST_PERIOD_S if this.partner.state & SHORT_TIMEOUT else SLOW_PERIOD_S)


def _shown(aggregate: tuple[int, bytes, int] | None) -> str:
    if aggregate is None:
        return "none"
    _, system, key = aggregate
    return f"{system.hex(':')} key {key}"
