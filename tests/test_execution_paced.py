"""The execution engine under a pace: costs, the hand-over in a node, overruns, and what interferes with the NIC."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from microservices.application import Application, Channel, Stage
from nodes.deployment import Deployment, deploy
from nodes.execution import Execution
from nodes.instances import Foreseen
from nodes.lateness import summary
from nodes.messages import CLIENT_BIT, KIND_REPLY, KIND_REQUEST, ChannelId, DataMessage
from nodes.origin import Origin
from nodes.transport import Address
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x2"))
CLIENT = CLIENT_BIT | 1
MICROSECOND = 1e-6
SERVICES = '''
from microservices.service import Microservice, Output


class Front(Microservice):
    name = "front"
    memory_mb = 1

    def handle(self, request, state):
        return (Output(request.payload),)


class Middle(Front):
    name = "middle"


class Back(Front):
    name = "back"
'''


class Outlet:
    """Channels that take everything and note when it left."""

    def __init__(self) -> None:
        self.left: list[tuple[float, DataMessage]] = []

    def has_room(self, channel: ChannelId) -> bool:
        return True

    def offer(self, message: DataMessage, to: Address, now: float, out: list) -> None:
        self.left.append((now, message))

    def consumed(self, channel: ChannelId, now: float) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def services(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two microservices that pass on what they get."""
    path = tmp_path_factory.mktemp("services") / "paced_services.py"
    path.write_text(SERVICES)
    PLACES.update({name.lower(): f"{path}:{name}" for name in ("Front", "Middle", "Back")})
    return path


PLACES: dict[str, str] = {}


def deployed(*stages: str) -> Deployment:
    application = Application("chain", 5, tuple(Stage(name, PLACES[name]) for name in stages),
                              tuple(Channel(a, b) for a, b in itertools.pairwise(stages)))
    return deploy(application, dict.fromkeys(range(len(stages)), "s1n1"), RACK)


class Stopwatch:
    """Emulated time that passes only when a handler computes, or as told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def engine_of(*stages: str, cost: Callable[[str, int, Origin], float], cores: int = 1,
              **options) -> tuple[Execution, Outlet]:
    return Execution("s1n1", (deployed(*stages),), cores, cost, **options), Outlet()


def submit(engine: Execution, outlet: Outlet, at: float, count: int = 1, origin: Origin = Origin.NETWORK,
           payload: bytes = b"x" * 64, first: int = 0, foreseen: Foreseen | None = None) -> None:
    for number in range(first, first + count):
        message = request(number, payload)
        engine.submit(message, message.channel, at, outlet, [], origin, foreseen)


def request(number: int, payload: bytes = b"x" * 64) -> DataMessage:
    return DataMessage(KIND_REQUEST, 5, 0, CLIENT << 32 | number, bytes(4), 9, 0, payload, CLIENT)


def run_out(engine: Execution, outlet: Outlet, late_s: float = 0.0) -> None:
    """Let the engine work at each time that something is due, `late_s` too late."""
    engine.run(0.0, outlet, [])
    while (due := engine.due()) is not None:
        engine.run(due + late_s, outlet, [])


def test_the_cost_model_is_asked_with_service_size_and_how_it_came() -> None:
    asked: list[tuple[str, int, Origin]] = []

    def cost(*told) -> float:
        asked.append(told)
        return MICROSECOND

    engine, outlet = engine_of("front", "back", cost=cost)
    submit(engine, outlet, 0.0, payload=b"p" * 300)
    submit(engine, outlet, 0.0, origin=Origin.PCIE, payload=b"p" * 40)
    run_out(engine, outlet)
    assert [a for a in asked if a[0] == "front"] == [("front", 300, Origin.NETWORK), ("front", 40, Origin.PCIE)]
    # What a neighbour on the node hands over came over no network.
    assert {origin for service, _, origin in asked if service == "back"} == {Origin.NODE}


def test_between_two_microservices_of_a_node_lies_the_hand_over() -> None:
    engine, outlet = engine_of("front", "back", cost=lambda *_: 10.0, in_node_s=0.5, cores=4)
    submit(engine, outlet, 1.0)
    run_out(engine, outlet)
    ((finish, message),) = outlet.left
    assert message.kind == KIND_REPLY and finish == 1.0 + 10.0 + 0.5 + 10.0


@pytest.mark.parametrize("late_s", [0.0, 0.3, 5.0])
def test_what_leaves_is_stamped_with_its_computed_finish_however_late_the_driver_looks(late_s: float) -> None:
    engine, outlet = engine_of("back", cost=lambda *_: 1.0)
    submit(engine, outlet, 0.0, count=5)
    run_out(engine, outlet, late_s)
    assert [at for at, _ in outlet.left] == [1.0, 2.0, 3.0, 4.0, 5.0]
    found = summary("late", engine.counters())
    assert found.count == 5 and late_s * 1e9 <= found.max_ns <= late_s * 1.19e9 + 1


def test_a_handler_that_ends_after_its_emulated_finish_is_an_overrun_and_one_at_it_is_none(
        monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = Stopwatch()
    engine, outlet = engine_of("back", cost=lambda *_: 2.0, stopwatch=stopwatch)
    takes = iter((1.5, 2.5, 5.0))  # real computing, in emulated seconds, against costs of 2
    handle = engine._handle

    def slow(*told):
        stopwatch.now += next(takes)
        return handle(*told)

    monkeypatch.setattr(engine, "_handle", slow)
    submit(engine, outlet, 0.0, count=3)
    run_out(engine, outlet)  # ends at 1.5, 4.0 and 9.0; finishes are 2, 4 and 6
    counters = engine.counters()
    assert counters["overruns"] == 1
    assert counters["overrun_ns"] == counters["overrun_max_ns"] == 3_000_000_000
    assert counters["computing_ns"] == 9_000_000_000
    assert counters["busy_ns back"] == 6_000_000_000  # cores are busy by the cost, not by this machine


@pytest.mark.parametrize("seed", range(20))
def test_computing_ahead_changes_no_start_no_finish_and_no_order(seed: int) -> None:
    """Random arrivals for three microservices in a row on two cores, looked at when something is due and only then.

    With foresight each is known for a while before it comes.
    """
    draw = random.Random(seed)
    arrivals = sorted(draw.uniform(0.0, 60.0) for _ in range(80))
    left = []
    for ahead_s, foresight in ((0.0, 0), (0.7, 0), (4.0, 0), (0.0, 3), (4.0, 200)):
        stopwatch = Stopwatch()
        engine, outlet = engine_of("front", "middle", "back", cost=lambda name, *_: {"front": 0.6, "middle": 0.3}.get(
            name, 0.4), cores=2, in_node_s=0.05, ahead_s=ahead_s, hol=lambda name: 1.0, stopwatch=stopwatch,
            foresight=foresight)
        seen = []
        coming = list(enumerate(arrivals))
        known = list(coming)
        foreseen: dict[int, Foreseen | None] = {}
        while coming or engine.due() is not None:
            due = engine.due()
            now = coming[0][1] if coming and (due is None or coming[0][1] <= due) else due
            assert now is not None
            stopwatch.now = now
            while foresight and known and known[0][1] <= now + 2.0:
                number, at = known.pop(0)
                told = request(number)
                foreseen[number] = engine.foresee(told, told.channel, at)
            if coming and coming[0][1] == now:
                number = coming.pop(0)[0]
                submit(engine, outlet, now, first=number, foreseen=foreseen.get(number))
            engine.run(now, outlet, [])
            seen.append((now, engine.interference))
        left.append(([(round(at, 9), message.request_id) for at, message in outlet.left],
                     sorted((round(at, 9), on_cores) for at, on_cores in seen)))
        assert any(foreseen.values()) == bool(foresight)
    assert all(other == left[0] for other in left[1:])
    assert len(left[0][0]) == 80


def test_a_handler_that_waits_for_its_core_is_through_before_its_finish_although_the_driver_is_late() -> None:
    def overruns(ahead_s: float) -> int:
        stopwatch = Stopwatch()
        engine, outlet = engine_of("back", cost=lambda *_: 2.0, stopwatch=stopwatch, ahead_s=ahead_s)
        submit(engine, outlet, 0.0, count=10)
        for late_s in itertools.cycle((0.0, 2.5)):  # a look at every finish, each second one too late
            engine.run(stopwatch.now, outlet, [])
            if (due := engine.due()) is None:
                break
            stopwatch.now = max(stopwatch.now, due + late_s)
        assert [at for at, _ in outlet.left] == [2.0 * n for n in range(1, 11)]
        return engine.counters()["overruns"]

    assert overruns(ahead_s=0.0) > 0 and overruns(ahead_s=3.0) == 0


def test_nothing_is_computed_ahead_for_what_has_no_room() -> None:
    engine, outlet = engine_of("back", cost=lambda *_: 1.0, ahead_s=10.0)
    submit(engine, outlet, 0.0, count=3)
    outlet.has_room = lambda channel: False  # type: ignore[method-assign]
    engine._instances[5, 0].channels.append(ChannelId(5, 0, 1))
    engine.run(0.0, outlet, [])
    assert engine.statistics()[0].handled == 0


def foreseeing(*services: str, foresight: int = 10, cores: int = 2) -> tuple[Execution, Outlet]:
    return engine_of(*services, cost=lambda *_: 1.0, cores=cores, stopwatch=Stopwatch(), foresight=foresight)


def test_what_is_known_is_computed_at_once_with_what_it_hands_over_and_leaves_at_its_finish() -> None:
    engine, outlet = foreseeing("front", "back")
    first = request(0)
    foreseen = engine.foresee(first, first.channel, 5.0)
    assert foreseen is not None and [s.handled for s in engine.statistics()] == [1, 0]
    submit(engine, outlet, 5.0, foreseen=foreseen)
    engine.run(5.0, outlet, [])
    assert [s.handled for s in engine.statistics()] == [1, 1]  # what it hands over at 6.0 is known, too
    run_out(engine, outlet)
    assert [at for at, _ in outlet.left] == [7.0]


def test_requests_of_one_channel_are_computed_in_their_order_although_foresight_is_short() -> None:
    engine, outlet = foreseeing("back", foresight=1, cores=1)
    order = []
    handle = engine._handle
    engine._handle = lambda *told: (order.append(told[1].request_id), handle(*told))[1]  # type: ignore[method-assign]
    told = [request(number) for number in range(4)]
    foreseen = [engine.foresee(one, one.channel, 1.0) for one in told[:3]]
    assert [one is not None for one in foreseen] == [True, False, False]
    submit(engine, outlet, 1.0, foreseen=foreseen[0])
    engine.run(1.0, outlet, [])
    foreseen.append(engine.foresee(told[3], told[3].channel, 1.5))
    assert foreseen[3] is None  # there is room, but others of its channel come first
    submit(engine, outlet, 1.0, count=3, first=1)
    run_out(engine, outlet)
    assert order == [one.request_id for one in told]
    last = request(4)
    assert engine.foresee(last, last.channel, 9.0) is not None


def test_an_instance_that_is_halted_executes_what_is_computed_and_keeps_the_rest() -> None:
    engine, outlet = foreseeing("front", "back", cores=1)
    told = [request(number) for number in range(3)]
    foreseen = [engine.foresee(one, one.channel, 1.0) for one in told[:2]]
    for number in range(2):
        submit(engine, outlet, 1.0, first=number, foreseen=foreseen[number])
    engine.run(1.0, outlet, [])  # the first is on the core, and its successor's handler has run
    for key in ((5, 0), (5, 1)):
        engine.halt(key)
        engine.begin_foreseen(key, 1.0, outlet)
    submit(engine, outlet, 1.0, first=2, foreseen=engine.foresee(told[2], told[2].channel, 1.0))
    assert not engine.is_quiet((5, 0)) and not engine.is_quiet((5, 1))
    run_out(engine, outlet)
    assert engine.is_quiet((5, 0)) and engine.is_quiet((5, 1))
    assert [w.message.request_id for w in engine.inbox((5, 0))] == [told[2].request_id]
    assert len(outlet.left) == 2 and engine.inbox((5, 1)) == []  # their hand-over was computed when they got a core


def test_a_handler_that_was_through_before_its_finish_is_no_overrun_however_late_the_driver_wakes() -> None:
    engine, outlet = foreseeing("back")
    told = request(0)
    foreseen = engine.foresee(told, told.channel, 1.0)
    engine._stopwatch.now = 9.0  # type: ignore[union-attr]
    submit(engine, outlet, 1.0, foreseen=foreseen)
    engine.run(9.0, outlet, [])
    assert [at for at, _ in outlet.left] == [2.0] and engine.counters()["overruns"] == 0


def test_without_a_stopwatch_there_are_no_overruns_and_no_computing_time() -> None:
    engine, outlet = engine_of("back", cost=lambda *_: 1e-12)
    submit(engine, outlet, 0.0, count=3)
    run_out(engine, outlet)
    assert engine.counters()["overruns"] == engine.counters()["computing_ns"] == 0


def test_interference_rises_with_each_core_that_begins_and_falls_with_each_that_is_done() -> None:
    costs = {"front": 1.0, "back": 4.0}
    engine, outlet = engine_of("front", "back", cost=lambda service, *_: costs[service], cores=2,
                               hol=lambda service: 4.0 if service == "back" else 0.0)
    submit(engine, outlet, 0.0, count=2)
    seen = []
    for now in (0.0, 1.0, 4.9, 5.0):
        engine.run(now, outlet, [])
        seen.append(engine.interference)
    assert seen == [0.0, 8.0, 8.0, 0.0]  # none while the first runs; two cores with the other; none again
    assert len(outlet.left) == 2


def test_the_wait_for_a_core_is_no_interference() -> None:
    engine, outlet = engine_of("back", cost=lambda *_: 1.0, cores=1, hol=lambda _: 4.0)
    submit(engine, outlet, 0.0, count=3)
    engine.run(0.0, outlet, [])
    assert engine.interference == 4.0


def test_lulls_and_busy_time_are_in_the_report() -> None:
    engine, outlet = engine_of("back", cost=lambda *_: 2e-6, sleep_after_s=400e-6)
    for at in (0.0, 100e-6, 1.0):
        submit(engine, outlet, at)
        engine.run(at, outlet, [])
        engine.run(at + 2e-6, outlet, [])
    counters = engine.counters()
    assert counters["busy_ns back"] == 6000
    assert counters["lull_ns back"] == pytest.approx(98_000 + 400_000, abs=2)


def test_an_instance_s_core_time_is_the_cost_of_what_it_handled() -> None:
    engine, outlet = engine_of("front", "back", cost=lambda service, *_: 3.0 if service == "back" else 1.0, cores=2)
    submit(engine, outlet, 0.0, count=4)
    run_out(engine, outlet)
    assert {s.name: (s.handled, s.busy_s) for s in engine.statistics()} == {
        "chain/front-1": (4, 4.0), "chain/back-1": (4, 12.0)}


def test_an_instance_can_be_halted_while_a_request_of_it_was_computed_ahead_of_its_core() -> None:
    engine, outlet = engine_of("back", cost=lambda *_: 1.0, ahead_s=10.0, hol=lambda name: 1.0)
    submit(engine, outlet, 0.0, count=3)
    engine.run(0.0, outlet, [])  # the first is on the core, the second computed for 1.0
    engine.halt((5, 0))
    run_out(engine, outlet)
    assert [at for at, _ in outlet.left] == [1.0, 2.0] and engine.is_quiet((5, 0)) and engine.interference == 0.0
    engine.go_on((5, 0), 2.5)
    engine.run(2.5, outlet, [])
    run_out(engine, outlet)
    assert [at for at, _ in outlet.left] == [1.0, 2.0, 3.5] and engine.interference == 0.0
