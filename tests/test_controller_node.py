"""Controller nodes that share a journal: one decides, the others listen; with real migration agents around them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest
from controller_room import DEPLOYMENT, INVENTORY, Room, ip_of

from controller.controller_node import ControllerNode, FollowsError
from controller.errors import JournalError
from controller.membership import Life
from controller.migration_journal import Entry
from controller.overload import OverloadOptions
from controller.resource_controller import ResourceController
from controller.standby import Standby
from nodes.control_messages import HEARTBEAT_S
from nodes.deployment import deploy
from nodes.transport import Send, Sends

MOVED, NUMBER = "nfv-fin/nids-1", next(i.number for i in DEPLOYMENT.application().instances if i.name == "nids-1")
ENDS = ("s2n1", "s3h")
KEY = DEPLOYMENT.number, NUMBER


class Pen:
    """A log of three, and the one that may write to it as far as a majority goes: `leader`, 0 for nobody."""

    def __init__(self) -> None:
        self.log: list[Entry] = []
        self.leader = 1
        self.run = 0
        self.unsure = 0.0  # share of entries that are written although their writer hears that they are not
        self.draw = random.Random("whether an entry is written")


class Share:
    """What one node sees of it. `thinks` that it leads, right or wrong."""

    def __init__(self, pen: Pen, number: int) -> None:
        self.pen, self.number = pen, number
        self.thinks = False
        self._run = 0
        self.breaks_after = -1  # entries, and then the leader is cut off

    @property
    def leads(self) -> bool:
        return self.thinks or self.pen.leader == self.number

    @property
    def writes(self) -> bool:
        return self._run != 0 and (self._run == self.pen.run or self.thinks)

    @property
    def leader(self) -> str:
        return f"node {self.pen.leader}"

    def take_over(self) -> int:
        if self.pen.leader != self.number:
            raise JournalError("no majority")
        self.pen.run += 1
        self._run = self.pen.run
        return self._run

    def append(self, entry: Entry) -> None:
        if self.breaks_after == 0:
            self.pen.leader = 0
        self.breaks_after -= 1
        if self.pen.leader != self.number or self._run != self.pen.run:
            if self.pen.draw.random() < self.pen.unsure and self._run == self.pen.run:
                self.pen.log.append(entry)
            self._run = 0
            raise JournalError("no majority")
        self.pen.log.append(entry)

    def entries(self) -> Sequence[Entry]:
        return tuple(self.pen.log)


class Three:
    """Takes the place of a Room's controller: whatever comes in goes to all three, as heartbeats do on a rack."""

    def __init__(self, pen: Pen) -> None:
        self.pen = pen
        self.shares = {n: Share(pen, n) for n in (1, 2, 3)}
        self.nodes = {n: self.fresh(n) for n in (1, 2, 3)}

    def fresh(self, number: int) -> ControllerNode:
        def make(standby: Standby) -> ResourceController:
            return ResourceController(INVENTORY, [DEPLOYMENT], self.shares[number], False, OverloadOptions(),
                                      standby=standby)
        return ControllerNode(INVENTORY, self.shares[number], make)

    def kill(self, number: int) -> None:
        """Kill a node; one with an empty memory is there at once, and leads no more."""
        self.shares[number] = Share(self.pen, number)
        self.nodes[number] = self.fresh(number)
        if self.pen.leader == number:
            self.pen.leader = number % 3 + 1

    @property
    def deciding(self) -> list[int]:
        return [n for n, node in self.nodes.items() if node.controller is not None]

    @property
    def controller(self) -> ResourceController:
        (one,) = self.deciding
        found = self.nodes[one].controller
        assert found is not None
        return found

    def receive(self, source: bytes, payload: bytes, now: float, out: Sends) -> None:
        for node in self.nodes.values():
            said: Sends = []
            node.receive(source, payload, now, said)
            out += said

    def tick(self, now: float, out: Sends) -> None:
        for node in self.nodes.values():
            said: Sends = []
            node.look(said)
            if node.due() <= now:
                node.tick(now, said)
            out += said

    def due(self) -> float:
        return 0.0

    def move(self, instance: str, to: str, now: float, out: Sends) -> int:
        for node in self.nodes.values():
            if node.controller is not None:
                return node.asked(lambda c: c.move(instance, to, now, out), out)
        raise FollowsError("")


class Rack(Room):
    def start_controller(self) -> None:
        self.three = Three(Pen())
        self.controller = self.three  # type: ignore[assignment]

    def live_for(self, seconds: float) -> None:
        """Let time pass with everybody's heartbeats."""
        for _ in range(round(seconds / HEARTBEAT_S)):
            for name in self.agents:
                self.beat(name)
            self.pass_time(HEARTBEAT_S)


@pytest.fixture
def rack() -> Rack:
    rack = Rack(automatic=False)
    rack.live_for(2.0)
    return rack


def lives(rack: Rack) -> set[Life]:
    membership = rack.three.controller.failover.membership
    return {membership.life(name) for name in rack.agents}


def test_who_leads_no_more_says_so_and_who_never_led_has_nothing_to_say(rack: Rack) -> None:
    rack.live_for(1.0)
    rack.three.pen.leader = 2
    rack.live_for(1.0)
    assert [rack.three.nodes[n].why_silent for n in (1, 3)] == ["it leads no more", ""]


def test_one_decides_and_the_others_say_who(rack: Rack) -> None:
    assert rack.three.deciding == [1]
    with pytest.raises(FollowsError) as found:
        rack.three.nodes[2].asked(lambda c: c.state(rack.now), [])
    assert found.value.leader == "node 1"
    assert rack.three.nodes[1].asked(lambda c: c.control.term, []) == 1


def test_who_takes_over_knows_at_once_who_is_alive_and_where_everything_is(rack: Rack) -> None:
    rack.by_hand(MOVED, ENDS[1])
    rack.live_for(1.0)
    boots = rack.three.controller.control.boots
    assert {node.alive for node in rack.three.nodes.values()} == {len(rack.agents)}
    rack.three.kill(1)
    assert rack.three.nodes[1].alive == 0
    rack.live_for(HEARTBEAT_S)
    assert rack.three.deciding == [2]
    assert lives(rack) == {Life.ALIVE}
    assert rack.three.controller.where.node_of[KEY] == ENDS[1]
    assert rack.three.controller.control.boots == boots and rack.three.controller.control.term == 2


def test_a_node_that_died_before_the_leader_did_is_dead_for_its_successor_too(rack: Rack) -> None:
    gone = rack.agents.pop("s1n1")
    rack.live_for(1.0)
    rack.three.kill(1)
    rack.live_for(HEARTBEAT_S)
    membership = rack.three.controller.failover.membership
    assert membership.life("s1n1") is Life.DEAD and membership.life("s2n1") is Life.ALIVE
    rack.agents["s1n1"] = gone


def test_what_was_deployed_later_is_known_to_who_takes_over(rack: Rack) -> None:
    stage = DEPLOYMENT.application().stages[:1]
    other = deploy(type(DEPLOYMENT.application())("another", 77, stage, ()), dict.fromkeys((0, 1, 2), "s1h"), INVENTORY)
    rack.three.nodes[1].asked(lambda c: c.deploy(other, rack.now), [])
    rack.three.kill(1)
    rack.live_for(HEARTBEAT_S)
    assert rack.three.controller.where.node_of[77, 0] == "s1h"


@pytest.mark.parametrize("entries", range(1, 7))
def test_a_leader_that_cannot_write_sends_nothing_and_its_successor_ends_what_it_began(rack: Rack,
                                                                                       entries: int) -> None:
    rack.three.pen.unsure = 0.5
    rack.three.shares[1].breaks_after = entries
    rack.by_hand(MOVED, ENDS[1])
    rack.live_for(1.0)
    if rack.three.pen.leader == 0:  # it was in the middle
        assert rack.three.deciding == [] and rack.three.nodes[1].why_silent == "no majority"
        rack.three.pen.leader = 3
    rack.live_for(3.0)
    (owner,) = rack.live_on(NUMBER)
    assert rack.three.controller.where.node_of[KEY] == owner and not rack.three.controller.control.open


def test_leaders_killed_at_any_time_of_a_migration_leave_one_instance_where_the_next_says() -> None:
    draw = random.Random("when a leader is killed")
    rack = Rack(automatic=False, loses=lambda send: draw.random() < 0.1)
    rack.live_for(2.0)
    moved = 0
    for _ in range(200):
        (source,) = rack.live_on(NUMBER)
        to = ENDS[0] if source != ENDS[0] else ENDS[1]
        rack.by_hand(MOVED, to)
        rack.pass_time(draw.uniform(0.0, 0.1))
        rack.three.kill(rack.three.deciding[0])
        rack.live_for(draw.uniform(1.0, 3.0))
        while rack.three.controller.control.open:
            rack.live_for(0.5)
        (owner,) = rack.live_on(NUMBER)
        assert rack.three.controller.where.node_of[KEY] == owner in (source, to)
        moved += owner == to
        assert rack.runs[owner].live[KEY] == moved  # with its state, every time
    assert moved > 100


def test_a_replaced_leader_that_does_not_know_it_moves_nothing_and_its_repetitions_are_refused(rack: Rack) -> None:
    (source,) = rack.live_on(NUMBER)
    rack.loses = lambda send: True  # so it goes on repeating
    rack.by_hand(MOVED, ENDS[1])
    old = rack.three.nodes[1]
    assert old.controller is not None
    stale: Sends = []
    old.controller.tick(rack.now + 1.0, stale)
    rack.loses = lambda send: False
    rack.three.shares[1].thinks = True
    rack.three.pen.leader = 2
    rack.three.nodes[2].look([])
    said: Sends = []
    with pytest.raises(JournalError):
        old.asked(lambda c: c.move("nfv-fin/nids-2", ENDS[1], rack.now, said), said)
    assert said == [] and old.controller is None
    rack.three.shares[1].thinks = False
    rack.live_for(2.0)
    assert rack.live_on(NUMBER) == [ENDS[1]]  # by who replaced it
    assert stale
    before = sum(agent.counters["refused: old term"] for agent in rack.agents.values())
    rack._carry([Send(send.ip, send.port, send.data) for send in stale])
    after = sum(agent.counters["refused: old term"] for agent in rack.agents.values())
    assert after == before + len(stale) and rack.live_on(NUMBER) == [ENDS[1]] and source != ENDS[1]


def test_heartbeats_of_strangers_make_nobody_alive() -> None:
    standby = Standby(INVENTORY)
    rack = Rack(automatic=False)
    for slot in range(60):
        rack.now = slot * HEARTBEAT_S
        standby.receive(IPv4Address("10.9.9.9").packed, b"\0" * 16, rack.now)
        standby.receive(ip_of("s1h"), b"no heartbeat", rack.now)
        standby.tick(rack.now)
    assert standby.membership.nodes_that_are(Life.ALIVE) == []
