"""Instances come to a node, are halted, leave and return: what runs ends, what waits goes along, neighbours follow."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from microservices.application import Application, Channel, Stage
from microservices.reliable import Hashtable
from microservices.service import Microservice, Output, Request
from microservices.state import State
from nodes.delay_line import DelayLine
from nodes.deployment import Deployment, Place, deploy
from nodes.errors import NodeError
from nodes.execution import Execution
from nodes.instances import Waiting
from nodes.messages import CLIENT_BIT, KIND_REQUEST, ChannelId, DataMessage
from nodes.origin import Origin
from nodes.transport import Address, Sends
from topologies.addressing import DATA_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3"))
CLIENT = CLIENT_BIT | 1
APPLICATION = Application("chain", 5, tuple(Stage(name, f"{__file__}:Keeper") for name in ("first", "second", "third")),
                          (Channel("first", "second"), Channel("second", "third")))
FIRST, SECOND, THIRD = (5, 0), (5, 1), (5, 2)
ELSEWHERE = Address(bytes((10, 1, 2, 1)), DATA_PORT)


class Keeper(Microservice):
    """Keeps what it gets, and hands it on."""

    name = "keeper"
    memory_mb = 1

    def new_state(self) -> State:
        return State(hashtables={"kept": Hashtable(bytes, int)})

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        state.hashtables["kept"][request.payload] = 1
        return (Output(request.payload),)


class Outlet:
    """Channels without end, which note what they are offered."""

    def __init__(self) -> None:
        self.offered: list[DataMessage] = []

    def has_room(self, channel: ChannelId) -> bool:
        return True

    def offer(self, message: DataMessage, to: Address, now: float, out: Sends) -> None:
        self.offered.append(message)

    def consumed(self, channel: ChannelId, now: float) -> None:
        pass


def placed(*nodes: str) -> Deployment:
    return deploy(APPLICATION, dict(enumerate(nodes)), RACK)


def engine(*nodes: str, cost_s: float = 1.0, empty: bool = False) -> Execution:
    return Execution("s1n1", (placed(*(nodes or ("s1n1",) * 3)),), 4, lambda *_: cost_s, empty=empty)


def ask(made: Execution, outlet: Outlet, number: int, instance: int = 0, now: float = 0.0) -> None:
    message = DataMessage(KIND_REQUEST, 5, instance, CLIENT << 32 | number, bytes(4), 9, 0, b"k%d" % number, CLIENT)
    made.submit(message, message.channel, now, outlet, [])


def test_a_halted_instance_ends_what_it_has_begun_and_begins_nothing_more() -> None:
    made, outlet = engine(), Outlet()
    ask(made, outlet, 1, instance=2)
    made.run(0.0, outlet, [])
    made.halt(THIRD)
    assert not made.runs(THIRD) and not made.is_quiet(THIRD)
    ask(made, outlet, 2, instance=2, now=0.5)
    made.run(0.5, outlet, [])
    assert [w.message.request_id & 0xFF for w in made.inbox(THIRD)] == [2] and outlet.offered == []
    made.run(1.0, outlet, [])
    assert len(outlet.offered) == 1 and made.is_quiet(THIRD) and made.due() is None


def test_what_its_neighbours_hand_it_in_memory_still_comes_to_the_inbox_of_a_halted_instance() -> None:
    made, outlet = engine(), Outlet()
    ask(made, outlet, 1)
    made.run(0.0, outlet, [])
    made.halt(SECOND)
    made.run(1.0, outlet, [])
    assert len(made.inbox(SECOND)) == 1 and outlet.offered == [] and made.idle


def test_an_instance_that_goes_on_takes_up_its_inbox_where_it_was() -> None:
    made, outlet = engine(), Outlet()
    for number in (1, 2):
        ask(made, outlet, number, instance=2)
    made.halt(THIRD)
    made.run(0.0, outlet, [])
    assert made.idle
    made.go_on(THIRD, 3.0)
    made.run(3.0, outlet, [])
    made.run(4.0, outlet, [])
    assert [m.request_id & 0xFF for m in outlet.offered] == [1, 2] and made.inbox(THIRD) == []


def test_one_that_was_held_up_can_be_halted_and_goes_on() -> None:
    made, outlet = engine("s1n1", "s2n1", "s1n1"), Outlet()
    outlet.has_room = lambda channel: False  # type: ignore[method-assign]
    ask(made, outlet, 1)
    made.run(0.0, outlet, [])
    made.halt(FIRST)
    made.run(1.0, outlet, [])
    assert made.idle and len(made.inbox(FIRST)) == 1
    del outlet.has_room  # type: ignore[method-assign]
    made.go_on(FIRST, 2.0)
    made.run(2.0, outlet, [])
    made.run(3.0, outlet, [])
    assert len(outlet.offered) == 1


def test_those_that_stay_reach_one_that_left_by_channel() -> None:
    made, outlet = engine(), Outlet()
    made.halt(SECOND)
    made.take_out(SECOND)
    made.place(SECOND, ELSEWHERE, 2)
    ask(made, outlet, 1)
    made.run(0.0, outlet, [])
    made.run(1.0, outlet, [])
    assert [m.channel for m in outlet.offered] == [ChannelId(5, 0, 1)]
    assert not made.runs(SECOND) and made.address_of(*SECOND) == ELSEWHERE


def test_one_that_comes_is_reached_by_channel_till_that_is_idle_and_then_in_memory() -> None:
    made, outlet = engine("s1n1", "s2n1", "s1n1"), Outlet()
    made.put_in(SECOND, None, ())
    assert made.detours == {ChannelId(5, 0, 1), ChannelId(5, 1, 2)}
    ask(made, outlet, 1)
    made.run(0.0, outlet, [])
    made.run(1.0, outlet, [])
    assert [m.channel for m in outlet.offered] == [ChannelId(5, 0, 1)]
    made.straighten([ChannelId(5, 0, 1)])
    ask(made, outlet, 2, now=2.0)
    for now in (2.0, 3.0, 4.0):
        made.run(now, outlet, [])
    assert [m.channel for m in outlet.offered] == [ChannelId(5, 0, 1), ChannelId(5, 1, 2)]


def test_one_that_comes_begins_with_its_state_and_its_inbox() -> None:
    here, there, outlet = engine(), engine("s1n1", "s1n1", "s2n1"), Outlet()
    ask(here, outlet, 1, instance=2)
    here.run(0.0, outlet, [])
    here.run(1.0, outlet, [])
    ask(here, outlet, 2, instance=2)
    here.halt(THIRD)
    state, inbox = here.state(*THIRD), here.inbox(THIRD)
    here.take_out(THIRD)
    there.put_in(THIRD, state, inbox)
    there.run(2.0, outlet, [])
    assert [key for key, _ in there.state(*THIRD).hashtables["kept"].items()] == [b"k1", b"k2"]
    with pytest.raises(KeyError):
        here.state(*THIRD)


def test_requests_that_were_still_under_way_are_held_behind_those_that_wait() -> None:
    made, outlet = engine(), Outlet()
    ask(made, outlet, 1, instance=2)
    made.halt(THIRD)
    late = DataMessage(KIND_REQUEST, 5, 2, CLIENT << 32 | 2, bytes(4), 9, 0, b"k", CLIENT)
    made.hold(THIRD, [Waiting(late, late.channel, 5.0, Origin.NETWORK)])
    assert [(w.message.request_id & 0xFF, w.arrived) for w in made.inbox(THIRD)] == [(1, 0.0), (2, 5.0)]


def test_what_left_is_not_made_afresh_by_a_deployment_and_does_not_go_back_to_an_old_place() -> None:
    made = engine()
    made.halt(SECOND)
    made.take_out(SECOND)
    assert made.deploy(placed("s1n1", "s1n1", "s1n1")) == ([], []) and not made.runs(SECOND)
    made.place(SECOND, ELSEWHERE, 3)
    assert made.deploy(placed("s1n1", "s3n1", "s1n1")) == ([], []) and made.address_of(*SECOND) == ELSEWHERE
    later = msgspec.structs.replace(placed("s1n1", "s3n1", "s1n1"), places=(Place(1, "s3n1", "10.1.3.11", 3),))
    assert made.deploy(later) == ([], [1]) and made.epoch_of(SECOND) == 3
    assert made.neighbours(FIRST) == [(1, 3, bytes((10, 1, 3, 11)))]
    assert [number for number, _, _ in made.neighbours(SECOND)] == [0, 2]


def test_a_live_instance_that_came_is_not_sent_away_by_the_placement_it_came_from() -> None:
    made = engine("s1n1", "s2n1", "s1n1")
    made.put_in(SECOND, None, ())
    made.place(SECOND, Address(bytes((10, 1, 1, 11)), DATA_PORT), 2)
    assert made.deploy(placed("s1n1", "s2n1", "s1n1")) == ([], []) and made.runs(SECOND)


def test_a_node_that_begins_empty_knows_where_all_are_and_runs_none() -> None:
    made = engine(empty=True)
    assert made.statistics() == [] and made.address_of(*SECOND) is not None
    made.put_in(SECOND, None, ())
    assert [s.name for s in made.statistics()] == ["chain/second-1"]


def test_what_an_instance_did_here_is_counted_when_it_has_left_and_goes_on_when_it_returns() -> None:
    made, outlet = engine(), Outlet()
    for turn in (1, 2):
        ask(made, outlet, turn, instance=2, now=turn)
        made.run(turn, outlet, [])
        made.run(turn + 1, outlet, [])
        assert made.counters()["handled chain/third-1"] == turn
        assert made.loads()[THIRD].finished == 1  # what a heartbeat tells begins anew
        made.halt(THIRD)
        made.take_out(THIRD)
        assert made.counters()["handled chain/third-1"] == turn and THIRD not in made.loads()
        made.put_in(THIRD, None, ())


def test_an_instance_of_no_known_application_cannot_begin() -> None:
    with pytest.raises(NodeError, match="application 9 is known on s1n1"):
        engine().put_in((9, 1), None, ())
    with pytest.raises(NodeError, match="no instance 7"):
        engine().put_in((5, 7), None, ())


def test_what_is_wanted_is_taken_out_of_a_delay_line_in_order_and_the_rest_stays() -> None:
    line: DelayLine[str] = DelayLine()
    for arrival, held in ((3.0, "c-x"), (1.0, "a-x"), (2.0, "b-y"), (1.0, "d-x")):
        line.put(arrival, held)
    assert line.take(lambda held: held.endswith("x")) == [(1.0, "a-x"), (1.0, "d-x"), (3.0, "c-x")]
    assert list(line.due_by(9.0)) == [(2.0, "b-y")] and line.empty


def test_a_channel_is_clear_when_what_came_last_has_arrived() -> None:
    line: DelayLine[str] = DelayLine()
    channel = ChannelId(5, 0, 1)
    assert line.is_clear(channel, 0.0)
    line.put(line.arrival_of(channel, 0.0, 2.0), "a")
    assert not line.is_clear(channel, 1.9) and line.is_clear(channel, 2.0)
