import importlib
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.errors import WireError
from nodes.lacp import (
    ATTACHED,
    COLLECTING,
    CURRENT,
    DEFAULTED,
    DETACHED,
    DISABLED,
    DISTRIBUTING,
    EXPIRED,
    Actions,
    LacpTeam,
)
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
    SLOW_PROTOCOLS_MAC,
    Lacpdu,
    LacpPort,
    decode,
    out_of_sync,
)

SERVER = bytes.fromhex("02e301010001")
SWITCH = bytes.fromhex("02e3ff010001")
OTHER_SWITCH = bytes.fromhex("02e3ff010002")

u16 = st.integers(0, 0xFFFF)
ports = st.builds(LacpPort, system=st.binary(min_size=6, max_size=6), key=u16, port=u16, state=st.integers(0, 255),
                  system_priority=u16, port_priority=u16)
pdus = st.builds(Lacpdu, actor=ports, partner=ports, collector_max_delay_10us=u16)


class Wire:
    """Two teams joined port by port, on one clock; `cut` ports lose every frame without losing carrier."""

    def __init__(self, ours: LacpTeam, theirs: LacpTeam) -> None:
        self.ends = (ours, theirs)
        self.cut: set[str] = set()
        self.now = 0.0
        self.events: list[tuple[float, str, bool]] = []
        self.reasons: list[str] = []
        self.frames = 0

    def carry(self, end: int, actions: Actions) -> None:
        if end == 0:
            self.events += [(self.now, event.member, event.up) for event in actions.events]
            self.reasons += [event.reason for event in actions.events]
        for member, frame in actions.frames:
            self.frames += 1
            if member not in self.cut:
                self.carry(1 - end, self.ends[1 - end].received(member, decode(frame), self.now))

    def carrier(self, member: str, up: bool) -> None:
        for end in (0, 1):
            self.carry(end, self.ends[end].carrier(member, up, self.now))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while True:
            due = min((at for at in (end.deadline() for end in self.ends) if at is not None), default=until)
            self.now = min(max(due, self.now), until)
            for end in (0, 1):
                self.carry(end, self.ends[end].tick(self.now))
            if due >= until:
                return


@pytest.fixture
def wire() -> Wire:
    """A server of three links in front of a switch, negotiated, its events forgotten."""
    names = ("a", "b", "c")
    joined = Wire(LacpTeam(SERVER, names, 0.0), LacpTeam(SWITCH, names, 0.0, key=7))
    for name in names:
        joined.carrier(name, True)
    joined.run(2.0)
    joined.events.clear()
    joined.reasons.clear()
    return joined


def heard(team: LacpTeam, member: str, now: float, *, system: bytes = SWITCH, key: int = 7, port: int = 40,
          state: int = ACTIVE | SHORT_TIMEOUT | AGGREGATABLE | IN_SYNC | COLLECTS | DISTRIBUTES) -> Actions:
    """Have `member` hear a partner that knows everything about us."""
    number = [m.name for m in team.members()].index(member) + 1
    us = LacpPort(team.system, team.key, number, ACTIVE | SHORT_TIMEOUT | AGGREGATABLE | IN_SYNC)
    return team.received(member, Lacpdu(LacpPort(system, key, port, state), us), now)


def view(team: LacpTeam, member: str) -> tuple[str, str]:
    return next((m.receive, m.mux) for m in team.members() if m.name == member)


# -- codec

@given(pdus, st.binary(min_size=6, max_size=6))
def test_a_lacpdu_survives_the_wire(pdu: Lacpdu, source: bytes) -> None:
    frame = pdu.encode(source)
    assert len(frame) == 124
    assert frame[:12] == SLOW_PROTOCOLS_MAC + source
    assert decode(frame) == pdu
    assert decode(frame).encode(source) == frame


@given(pdus)
def test_the_frame_is_byte_for_byte_what_an_independent_implementation_sends(pdu: Lacpdu) -> None:
    slow = pytest.importorskip("ryu.lib.packet.slow")
    bits = ("activity", "timeout", "aggregation", "synchronization", "collecting", "distributing", "defaulted",
            "expired")
    arguments = {"collector_max_delay": pdu.collector_max_delay_10us}
    for role, end in (("actor", pdu.actor), ("partner", pdu.partner)):
        arguments |= {f"{role}_system_priority": end.system_priority, f"{role}_system": end.system.hex(":"),
                      f"{role}_key": end.key, f"{role}_port_priority": end.port_priority, f"{role}_port": end.port}
        arguments |= {f"{role}_state_{bit}": end.state >> n & 1 for n, bit in enumerate(bits)}
    theirs = slow.lacp(**arguments)
    frame = pdu.encode(SERVER)
    assert bytes(theirs.serialize(bytearray(), None)) == frame[14:]
    read, _, _ = slow.slow.parser(frame[14:])
    assert read.actor_system == pdu.actor.system.hex(":")
    assert (read.partner_port, read.partner_key) == (pdu.partner.port, pdu.partner.key)


def test_the_ethernet_header_is_what_ryu_reads() -> None:
    pytest.importorskip("ryu.lib.packet.slow")
    packet = importlib.import_module("ryu.lib.packet.packet")
    names = [p.protocol_name for p in packet.Packet(Lacpdu(NOBODY, NOBODY).encode(SERVER)).protocols]
    assert names == ["ethernet", "lacp"]


def test_every_truncation_is_refused() -> None:
    frame = Lacpdu(NOBODY, NOBODY).encode(SERVER)
    for size in range(len(frame)):
        with pytest.raises(WireError, match=f"got {size} bytes, 124 needed"):
            decode(frame[:size])


@pytest.mark.parametrize(("at", "value", "said"), [
    (0, 0, "goes to 01:80:c2:00:00:02"), (13, 0x08, "type 0x8809"), (14, 2, "subtype 2"), (15, 0, "version 0"),
    (16, 9, "actor information has type 9"), (17, 19, "actor information has type 1 and length 19"),
    (36, 1, "partner information"), (56, 2, "collector information"),
])
def test_a_frame_that_is_no_lacpdu_says_why(at: int, value: int, said: str) -> None:
    frame = bytearray(Lacpdu(NOBODY, NOBODY).encode(SERVER))
    frame[at] = value
    with pytest.raises(WireError, match=said):
        decode(bytes(frame))


def test_a_newer_version_is_read_as_the_first() -> None:
    pdu = Lacpdu(LacpPort(SWITCH, 7, 3, ACTIVE), NOBODY)
    frame = bytearray(pdu.encode(SERVER))
    frame[15] = 2
    assert decode(bytes(frame) + b"more of it") == pdu


def test_a_value_that_does_not_fit_is_refused() -> None:
    with pytest.raises(WireError, match="a MAC has 6"):
        Lacpdu(replace(NOBODY, system=b"12345"), NOBODY).encode(SERVER)
    with pytest.raises(WireError, match="65536"):
        Lacpdu(replace(NOBODY, key=65536), NOBODY).encode(SERVER)


def test_damaged_frames_never_raise_anything_but_wire_errors_nor_upset_a_team() -> None:
    rng = random.Random(3)
    team = LacpTeam(SERVER, ("a",), 0.0)
    team.carrier("a", True, 0.0)
    good = Lacpdu(LacpPort(SWITCH, 7, 3, 0x3F), LacpPort(SERVER, 1, 1, 0x3F)).encode(SWITCH)
    read = 0
    for n in range(20_000):
        frame = bytearray(good if n % 2 else rng.randbytes(124))
        for _ in range(rng.randrange(4)):
            frame[rng.randrange(len(frame))] = rng.randrange(256)
        try:
            pdu = decode(bytes(frame[:rng.choice((124, 124, 124, rng.randrange(125)))]))
        except WireError:
            continue
        read += 1
        team.received("a", pdu, n / 1000)
        team.tick(n / 1000)
    assert read > 1000
    assert len(team.members()) == 1


@given(pdus)
def test_a_partner_put_out_of_sync_differs_in_nothing_else(pdu: Lacpdu) -> None:
    changed = decode(out_of_sync(pdu.encode(SWITCH)))
    cleared = pdu.actor.state & ~(IN_SYNC | COLLECTS | DISTRIBUTES)
    assert changed == replace(pdu, actor=replace(pdu.actor, state=cleared))
    assert out_of_sync(pdu.encode(SWITCH))[6:12] == SWITCH


# -- state machine

def test_two_teams_negotiate_every_member_without_waiting_for_a_timer() -> None:
    wire = Wire(LacpTeam(SERVER, ("a", "b"), 0.0), LacpTeam(SWITCH, ("a", "b"), 0.0))
    for name in ("a", "b"):
        wire.carrier(name, True)
    wire.run(1.5)
    assert [end.distributing() for end in wire.ends] == [("a", "b")] * 2
    assert [(member, up) for _, member, up in wire.events] == [("a", True), ("b", True)]
    assert max(at for at, _, _ in wire.events) <= 1.0


def test_a_settled_member_sends_once_a_second(wire: Wire) -> None:
    before = wire.frames
    wire.run(10.0)
    assert wire.frames - before == 10 * 3 * 2
    assert wire.events == []


def test_a_partner_that_asks_for_slow_gets_a_frame_every_thirty_seconds() -> None:
    team = LacpTeam(SERVER, ("a",), 0.0)
    team.carrier("a", True, 0.0)
    for tenth in range(3000):
        heard(team, "a", tenth / 10, state=ACTIVE | AGGREGATABLE | IN_SYNC | COLLECTS | DISTRIBUTES)
        sent = team.tick(tenth / 10).frames
        if tenth > 10 and sent:
            assert tenth % 300 in (0, 1)
    assert team.deadline() is not None
    assert view(team, "a") == (CURRENT, DISTRIBUTING)


def test_a_silent_partner_is_out_after_three_periods_and_forgotten_after_three_more(wire: Wire) -> None:
    silent_from = wire.now
    wire.cut.add("b")
    wire.run(3.1)
    assert view(wire.ends[0], "b") == (EXPIRED, DETACHED)
    assert [(m, up) for _, m, up in wire.events] == [("b", False)]
    assert 1.9 < wire.events[0][0] - silent_from <= 3.0
    assert wire.reasons == ["no LACPDU for 3 s"]
    assert wire.ends[0].distributing() == ("a", "c")
    wire.run(3.0)
    assert view(wire.ends[0], "b") == (DEFAULTED, DETACHED)


@pytest.mark.parametrize("outage_s", [4.0, 60.0])
def test_a_partner_that_speaks_again_is_back_within_a_second(wire: Wire, outage_s: float) -> None:
    wire.cut.add("b")
    wire.run(outage_s)
    wire.cut.clear()
    healed = wire.now
    wire.run(1.5)
    assert wire.ends[0].distributing() == ("a", "b", "c")
    assert wire.events[-1][1:] == ("b", True)
    assert wire.events[-1][0] - healed <= 1.0


def test_lost_carrier_takes_a_member_out_at_once(wire: Wire) -> None:
    wire.carrier("c", False)
    assert wire.events == [(wire.now, "c", False)]
    assert wire.reasons == ["no carrier"]
    assert wire.ends[0].distributing() == ("a", "b")
    wire.run(10.0)
    assert view(wire.ends[0], "c") == (DISABLED, DETACHED)
    wire.carrier("c", True)
    wire.run(0.1)
    assert wire.ends[0].distributing() == ("a", "b", "c")


def test_one_lost_frame_changes_nothing(wire: Wire) -> None:
    wire.cut.add("a")
    wire.run(1.5)
    wire.cut.clear()
    wire.run(5.0)
    assert wire.events == []


def test_a_partner_out_of_sync_or_not_collecting_carries_no_traffic() -> None:
    team = LacpTeam(SERVER, ("a",), 0.0)
    team.carrier("a", True, 0.0)
    base = ACTIVE | SHORT_TIMEOUT | AGGREGATABLE
    heard(team, "a", 0.1, state=base)
    assert view(team, "a") == (CURRENT, ATTACHED)
    heard(team, "a", 0.2, state=base | IN_SYNC)
    assert view(team, "a") == (CURRENT, COLLECTING)
    up = heard(team, "a", 0.3, state=base | IN_SYNC | COLLECTS)
    assert [(e.member, e.up) for e in up.events] == [("a", True)]
    down = heard(team, "a", 0.4, state=base | COLLECTS)
    assert [(e.up, e.reason) for e in down.events] == [(False, "the partner is not in sync")]


def test_a_partner_that_takes_us_for_somebody_else_is_not_in_sync() -> None:
    team = LacpTeam(SERVER, ("a",), 0.0)
    team.carrier("a", True, 0.0)
    full = ACTIVE | SHORT_TIMEOUT | AGGREGATABLE | IN_SYNC | COLLECTS | DISTRIBUTES
    stranger = LacpPort(OTHER_SWITCH, 1, 1, full)
    actions = team.received("a", Lacpdu(LacpPort(SWITCH, 7, 40, full), stranger), 0.1)
    assert view(team, "a") == (CURRENT, ATTACHED)
    assert len(actions.frames) == 1  # it is told who we are, at once
    assert decode(actions.frames[0][1]).partner.system == SWITCH


@pytest.mark.parametrize(("wrong", "said"), [
    ({"system": OTHER_SWITCH}, "02:e3:ff:01:00:02 key 7 is not the team's, 02:e3:ff:01:00:01 key 7"),
    ({"key": 8}, "key 8 is not the team's"),
    ({"system": SERVER}, "leads back to this server"),
])
def test_a_member_with_another_partner_does_not_join(wrong: dict[str, object], said: str) -> None:
    team = LacpTeam(SERVER, ("a", "b"), 0.0)
    for name in ("a", "b"):
        team.carrier(name, True, 0.0)
    heard(team, "b", 0.1)
    heard(team, "a", 0.2, **wrong)  # type: ignore[arg-type]
    assert team.distributing() == ("b",)
    assert view(team, "a") == (CURRENT, DETACHED)
    assert said in next(m.reason for m in team.members() if m.name == "a")


def test_links_that_their_partner_calls_individual_team_as_well() -> None:
    team = LacpTeam(SERVER, ("a", "b"), 0.0)
    for name in ("a", "b"):
        team.carrier(name, True, 0.0)
        heard(team, name, 0.1, state=ACTIVE | SHORT_TIMEOUT | IN_SYNC | COLLECTS | DISTRIBUTES)
    assert team.distributing() == ("a", "b")


def test_a_team_follows_its_members_to_another_switch_when_the_first_is_gone() -> None:
    team = LacpTeam(SERVER, ("a", "b"), 0.0)
    for name in ("a", "b"):
        team.carrier(name, True, 0.0)
    heard(team, "a", 0.1)
    heard(team, "b", 0.2, system=OTHER_SWITCH)
    assert team.distributing() == ("a",)
    events = team.carrier("a", False, 0.3).events
    assert [(e.member, e.up) for e in events] == [("a", False), ("b", True)]


def test_what_a_member_sends_tells_its_own_state() -> None:
    team = LacpTeam(SERVER, ("a",), 0.0)
    base = ACTIVE | SHORT_TIMEOUT | AGGREGATABLE
    first = decode(team.carrier("a", True, 0.0).frames[0][1])
    assert first == Lacpdu(LacpPort(SERVER, 1, 1, base | IS_EXPIRED), NOBODY)
    later = [decode(frame) for t in range(1, 8) for _, frame in team.tick(float(t)).frames]
    assert later[-1].actor.state == base | IS_DEFAULTED
    told = decode(heard(team, "a", 9.0).frames[0][1])
    assert told.actor.state == base | IN_SYNC | COLLECTS | DISTRIBUTES
    assert told.partner.system == SWITCH


def test_no_partner_can_make_a_member_send_more_than_three_frames_a_second() -> None:
    team = LacpTeam(SERVER, ("a",), 0.0)
    team.carrier("a", True, 0.0)
    sent: list[float] = []
    for n in range(5000):
        now = n / 1000
        state = ACTIVE | SHORT_TIMEOUT | AGGREGATABLE | (IN_SYNC | COLLECTS if n % 2 else 0)
        sent += [now] * len(heard(team, "a", now, state=state).frames)
    assert len(sent) > 10
    for at in sent:
        assert sum(at <= other < at + 1.0 for other in sent) <= 3


def test_leaving_tells_every_partner_that_we_are_out_of_sync(wire: Wire) -> None:
    actions = wire.ends[0].leave(wire.now)
    assert [e.up for e in actions.events] == [False] * 3
    assert wire.ends[0].distributing() == ()
    for member, frame in actions.frames:
        wire.ends[1].received(member, decode(frame), wire.now)
    assert wire.ends[1].distributing() == ()


def test_without_carrier_nothing_is_sent_or_waited_for() -> None:
    team = LacpTeam(SERVER, ("a", "b"), 0.0)
    assert team.deadline() is None
    assert team.tick(100.0) == Actions()
    assert heard(team, "a", 100.0) == Actions()
    assert team.carrier("a", False, 101.0) == Actions()


def test_carrier_told_twice_changes_nothing(wire: Wire) -> None:
    before = wire.ends[0].members()
    assert wire.ends[0].carrier("a", True, wire.now) == Actions()
    assert wire.ends[0].members() == before
