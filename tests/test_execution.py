"""The execution engine: cores kept busy in turn, requests run to completion, pressure passed upstream, nothing lost."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict

import msgspec
import pytest

from microservices.application import Application, Channel, Stage
from nodes.deployment import Deployment, deploy
from nodes.execution import MAX_ERROR_BYTES, Execution
from nodes.messages import (
    CLIENT_BIT,
    KIND_ERROR,
    KIND_REPLY,
    KIND_REQUEST,
    MAX_PAYLOAD,
    ChannelId,
    DataMessage,
)
from nodes.outputs import INBOX_LIMIT
from nodes.transport import Address
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3"))
CLIENT = CLIENT_BIT | 1

SERVICES = '''
from microservices.errors import ServiceError
from microservices.service import Microservice, Output

ran = []


class Copy(Microservice):
    name = "copy"
    memory_mb = 1

    def handle(self, request, state):
        ran.append((request.payload, request.now_s))
        if request.payload == b"wrong":
            raise ServiceError("no such thing")
        if request.payload == b"bug":
            raise KeyError("e" * 500)
        if request.payload == b"large":
            return (Output(bytes(9000)),)
        if request.payload == b"text":
            return (Output("text"),)
        return (Output(request.payload),)


class Twice(Copy):
    name = "twice"

    def handle(self, request, state):
        return (Output(request.payload, "last"), Output(request.payload, "side"))
'''


class Outlet:
    """Channels that note what they are offered, with room for so many messages each."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.offered: defaultdict[ChannelId, list[DataMessage]] = defaultdict(list)
        self.taken: list[ChannelId] = []

    def has_room(self, channel: ChannelId) -> bool:
        return len(self.offered[channel]) < self.room

    def offer(self, message: DataMessage, to: Address, now: float, out: list) -> None:
        self.offered[message.channel].append(message)
        out.append((now, message))

    def consumed(self, channel: ChannelId, now: float) -> None:
        self.taken.append(channel)


@pytest.fixture
def services(tmp_path) -> str:
    path = tmp_path / "services.py"
    path.write_text(SERVICES)
    return str(path)


def deployed(services: str, stages: str, nodes: dict[int, str] | None = None) -> Deployment:
    """Return a chain of `stages`, each a copier, on s1n1 unless `nodes` says where."""
    names = stages.split()
    application = Application("chain", 5, tuple(Stage(n, f"{services}:Copy") for n in names),
                              tuple(Channel(a, b) for a, b in itertools.pairwise(names)))
    return deploy(application, nodes or dict.fromkeys(range(len(names)), "s1n1"), RACK)


def request(number: int, payload: bytes = b"x", instance: int = 0) -> DataMessage:
    return DataMessage(KIND_REQUEST, 5, instance, CLIENT << 32 | number, bytes(4), 9, 0, payload, CLIENT)


def submit(engine: Execution, outlet: Outlet, at: float, *messages: DataMessage) -> None:
    for message in messages:
        engine.submit(message, message.channel, at, outlet, [])


def drive(engine: Execution, outlet: Outlet, arrivals: list[float]) -> list[tuple[float, DataMessage]]:
    """Submit a request at each time and let the engine work whenever it is due; return (time, message) that left."""
    out: list[tuple[float, DataMessage]] = []
    coming = list(enumerate(arrivals))
    while coming or engine.due() is not None:
        due = engine.due()
        if coming and (due is None or coming[0][1] <= due):
            number, now = coming.pop(0)
            engine.submit(request(number), request(number).channel, now, outlet, out)
        else:
            now = due
        engine.run(now, outlet, out)
    return out


def constant(cost_s: float):
    return lambda *_: cost_s


def test_requests_run_in_order_of_arrival_and_their_channel_gets_credit(services: str) -> None:
    engine, outlet, out = Execution("s1n1", (deployed(services, "only"),)), Outlet(), []
    submit(engine, outlet, 0.0, *(request(n, b"%d" % n) for n in range(5)))
    engine.run(0.0, outlet, out)
    assert [m.payload for _, m in out] == [b"0", b"1", b"2", b"3", b"4"]
    assert {m.kind for _, m in out} == {KIND_REPLY}
    assert outlet.taken == [ChannelId(5, CLIENT, 0)] * 5


def test_cores_work_side_by_side_and_none_idles_beside_a_waiting_request(services: str) -> None:
    engine, outlet = Execution("s1n1", (deployed(services, "only"),), cores=3, cost=constant(1.0)), Outlet()
    finished = [at for at, _ in drive(engine, outlet, [0.0] * 7 + [2.5])]
    assert finished == [1.0] * 3 + [2.0] * 3 + [3.0, 3.5]


def test_requests_go_round_the_cores(services: str) -> None:
    engine, outlet = Execution("s1n1", (deployed(services, "only"),), cores=4, cost=constant(0.1)), Outlet()
    used = []
    for step in range(8):  # each core is idle again before its turn comes
        before = engine.cores.free_at
        submit(engine, outlet, float(step), request(step))
        engine.run(float(step), outlet, [])
        used += [core for core in range(4) if engine.cores.free_at[core] != before[core]]
    assert used == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_request_runs_to_completion_before_its_core_takes_another(services: str) -> None:
    costs = {b"long": 5.0, b"x": 1.0}
    engine = Execution("s1n1", (deployed(services, "only"),), cost=lambda _, size, __: 5.0 if size == 4 else 1.0)
    outlet, out = Outlet(), []
    submit(engine, outlet, 0.0, request(1, b"long"), request(2))
    for now in (0.0, 1.0, 4.9, 5.0, 6.0):
        engine.run(now, outlet, out)
    assert [(at, m.payload) for at, m in out] == [(costs[b"long"], b"long"), (6.0, b"x")]


def test_a_late_driver_does_not_make_the_cores_late(services: str) -> None:
    engine, outlet, out = Execution("s1n1", (deployed(services, "first second"),), cost=constant(1.0)), Outlet(), []
    submit(engine, outlet, 0.0, request(1), request(2))
    for now in (0.0, 1.7, 2.9, 4.0):
        engine.run(now, outlet, out)
    assert engine.cores.free_at == (4.0,)  # four requests of 1 s each, back to back
    assert sum(s.busy_s for s in engine.statistics()) == 4.0


def test_a_request_that_waited_for_room_does_not_start_in_the_past(services: str) -> None:
    engine = Execution("s1n1", (deployed(services, "first second", {0: "s1n1", 1: "s2n1"}),), cost=constant(1.0))
    outlet = Outlet(room=0)
    submit(engine, outlet, 0.0, request(1))
    engine.run(0.0, outlet, [])
    assert engine.due() is None and outlet.taken == []
    outlet.room = 1
    engine.run(10.0, outlet, [])
    assert engine.due() == 11.0


def test_the_waiting_time_at_half_load_is_that_of_m_d_c(services: str) -> None:
    """In services: half of M/M/c's wait, for c > 1 with Cosmetatos' correction (European J. OR 2, 1978)."""
    load = 0.5
    m_m_c = {1: load / (1 - load), 2: load**2 / (1 - load**2)}
    for cores in (1, 2):
        waits = m_m_c[cores] / 2 * (1 + (1 - load) * (cores - 1) * ((4 + 5 * cores)**0.5 - 2) / (16 * load * cores))
        draw, now, arrivals = random.Random(2), 0.0, []
        for _ in range(20_000):
            now += draw.expovariate(load * cores)
            arrivals.append(now)
        engine, outlet = Execution("s1n1", (deployed(services, "only"),), cores, constant(1.0)), Outlet()
        out = drive(engine, outlet, arrivals)
        mean = sum(at - arrivals[m.request_id & 0xFFFFFFFF] for at, m in out) / len(arrivals)
        assert mean - 1.0 == pytest.approx(waits, rel=0.08)
        (statistics,) = engine.statistics()
        assert statistics.busy_s / (now * cores) == pytest.approx(load, rel=0.03)


def test_no_more_is_started_than_there_is_room_for_and_the_rest_goes_on_when_there_is(services: str) -> None:
    engine = Execution("s1n1", (deployed(services, "first second", {0: "s1n1", 1: "s2n1"}),))
    outlet, out = Outlet(room=10), []
    submit(engine, outlet, 0.0, *(request(n) for n in range(64)))
    engine.run(0.0, outlet, out)
    assert len(out) == 10 and len(outlet.taken) == 10  # the channel filled up while the engine ran
    (statistics,) = engine.statistics()
    assert (statistics.waiting, statistics.blocked) == (54, 1)
    outlet.room = 1000
    engine.run(1.0, outlet, out)
    assert [m.request_id & 0xFF for _, m in out] == list(range(64))


def test_who_was_stopped_by_a_full_inbox_goes_on_in_the_same_run(services: str) -> None:
    engine = Execution("s1n1", (deployed(services, "first last"),))
    outlet, out = Outlet(), []
    submit(engine, outlet, 0.0, *(request(n, instance=1) for n in range(INBOX_LIMIT)))  # the last one's inbox is full
    submit(engine, outlet, 0.0, *(request(1000 + n) for n in range(5)))
    engine._runnable.rotate(1)  # the turn is the first stage's
    engine.run(0.0, outlet, out)
    assert len(out) == INBOX_LIMIT + 5
    assert engine.statistics()[0].blocked >= 1 and engine.due() is None


@pytest.mark.parametrize(("payload", "words"), [
    (b"wrong", b"no such thing"), (b"bug", b"eeee"), (b"text", b"of type str; it must be bytes"),
    (b"large", b"an output of 9000 bytes; a message carries at most %d" % MAX_PAYLOAD)])
def test_whatever_a_handler_does_wrong_is_the_reply_to_that_request_only(
        services: str, payload: bytes, words: bytes) -> None:
    engine, outlet, out = Execution("s1n1", (deployed(services, "first second"),)), Outlet(), []
    submit(engine, outlet, 0.0, request(1, payload), request(2))
    engine.run(0.0, outlet, out)
    replies = {m.request_id & 0xFF: m for _, m in out}
    assert (replies[1].kind, replies[2].kind) == (KIND_ERROR, KIND_REPLY)
    assert words in replies[1].payload and len(replies[1].payload) <= MAX_ERROR_BYTES
    assert engine.counters()["errors chain/first-1"] == 1


def test_an_error_on_a_side_branch_answers_nobody_and_is_counted(services: str) -> None:
    application = Application(
        "fork", 5, (Stage("first", f"{services}:Twice"), Stage("last", f"{services}:Copy"),
                    Stage("side", f"{services}:Copy")),
        (Channel("first", "last"), Channel("first", "side", answers=False)))
    engine = Execution("s1n1", (deploy(application, dict.fromkeys(range(3), "s1n1"), RACK),))
    outlet, out = Outlet(), []
    submit(engine, outlet, 0.0, request(1, b"wrong"), request(2, b"fine"))
    engine.run(0.0, outlet, out)
    assert sorted((m.request_id & 0xFF, m.kind) for _, m in out) == [(1, KIND_ERROR), (2, KIND_REPLY)]
    assert engine.counters()["errors fork/side-1"] == 1 and engine.counters()["errors fork/last-1"] == 1


def test_a_request_for_no_instance_is_answered_and_gives_its_credit_back(services: str) -> None:
    engine, outlet, out = Execution("s1n1", (deployed(services, "only"),)), Outlet(), []
    stray = request(1, instance=77)
    engine.submit(stray, stray.channel, 0.0, outlet, out)
    ((_, reply),) = out
    assert (reply.kind, reply.request_id) == (KIND_ERROR, stray.request_id)
    assert outlet.taken == [stray.channel]
    assert engine.counters()["dropped_unknown_instance"] == 1


def test_without_a_cost_the_stopwatch_measures_how_long_handlers_ran(services: str) -> None:
    ticks = iter(range(100))
    engine = Execution("s1n1", (deployed(services, "only"),), stopwatch=lambda: float(next(ticks)))
    outlet = Outlet()
    submit(engine, outlet, 0.0, request(1), request(2))
    engine.run(0.0, outlet, [])
    (statistics,) = engine.statistics()
    assert (statistics.handled, statistics.busy_s) == (2, 2.0)


def test_instances_take_turns_whoever_has_more_to_do(services: str) -> None:
    many, few = deployed(services, "only"), deployed(services, "only")
    few = msgspec.structs.replace(few, name="few", number=6)
    engine, outlet, out = Execution("s1n1", (many, few), cores=1, cost=constant(1.0)), Outlet(), []
    submit(engine, outlet, 0.0, *(request(n) for n in range(50)))
    other = DataMessage(KIND_REQUEST, 6, 0, 1, bytes(4), 9, 0, b"x", CLIENT)
    submit(engine, outlet, 0.0, other)
    while engine.due() is not None or not out:
        engine.run(engine.due() or 0.0, outlet, out)
    assert next(at for at, m in out if m.application == 6) == 2.0
