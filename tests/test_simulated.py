"""The simulated driver: one process, virtual time, the same runtimes; and channels that hold under torture."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

import pytest

import nodes.transport
from experiments.channel_torture import FAULTS, judged, torture
from experiments.emulation.first_placement import place_in_turn
from microservices.application import Application, Channel, Stage
from microservices.applications import APPLICATIONS, application_named
from microservices.direct import DirectRun
from microservices.routing import Hop
from microservices.sql import SqlState
from microservices.state import State
from microservices.workload import Workload
from microservices.workloads import workload_named
from nodes.channel import ChannelOptions, Sender
from nodes.channel_receiver import Receiver
from nodes.cores import Cores
from nodes.deployment import Deployment, deploy
from nodes.errors import NodeError
from nodes.instances import RunningInstance
from nodes.messages import DataMessage
from nodes.outputs import INBOX_LIMIT
from nodes.simulated import NetworkFaults, SimulatedClient, Simulation
from nodes.simulated_ends import LoggedExecution
from nodes.simulated_network import NetworkCounters, SimulatedNetwork
from nodes.transport import CLIENT_BACKLOG, CLIENT_GIVE_UP_S, Address, Send, Sends
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3", clients=2))


def placed(application: Application, where: str = "mixed") -> Deployment:
    return deploy(application, place_in_turn(application, RACK, where), RACK)


class Echoed(Workload):
    """Counts upwards; the reply is what the last stage leaves of the request."""

    def requests(self) -> Iterator[bytes]:
        return (b"a b c %d" % i for i in range(1 << 30))

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        return None if reply == request else f"{reply!r} is not {request!r}"


COST_S = {"first": 5e-5, "second": 5e-5, "last": 5e-3}


@pytest.fixture
def echo(tmp_path) -> str:
    """A microservice of a user's own, in a file of its own."""
    path = tmp_path / "echo.py"
    path.write_text(
        "from microservices.service import Microservice, Output\n\n\n" + "\n\n".join(
            f"class {name.capitalize()}(Microservice):\n    name = {name!r}\n    memory_mb = 1\n\n"
            "    def handle(self, request, state):\n        return (Output(request.payload),)\n" for name in COST_S))
    return str(path)


def chain(echo: str, number: int = 300, name: str = "chain") -> Application:
    """Two quick stages before a slow one."""
    stages = tuple(Stage(stage, f"{echo}:{stage.capitalize()}") for stage in COST_S)
    return Application(name, number, stages, (Channel("first", "second"), Channel("second", "last")))


def slow_sink(_node) -> object:
    return lambda service, _size, _origin: COST_S[service]


def one_core(simulation: Simulation, node: str) -> None:
    simulation.runtime(node).execution.cores = Cores(1)


def sound(simulation: Simulation, *clients: SimulatedClient) -> None:
    assert simulation.log.complaints() == []
    for client in clients:
        assert client.complaints() == []
    assert simulation.idle


def content_of(state: State) -> object:
    return list(state.database.iterdump()) if isinstance(state, SqlState) else state.snapshot()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_replies_and_the_states_are_those_of_a_direct_run(name: str, monkeypatch) -> None:
    application, workload = application_named(name, 2, backups=0), workload_named(name, seed=3)
    began_s: dict[int, float] = {}  # the gateway's tokens depend on when a request comes

    def noted(engine: LoggedExecution, instance: RunningInstance, message: DataMessage, start: float) -> list[Hop]:
        began_s.setdefault(message.request_id, start)
        return handle(engine, instance, message, start)

    handle = LoggedExecution._handle
    monkeypatch.setattr(LoggedExecution, "_handle", noted)
    simulation = Simulation(RACK, [placed(application)], NetworkFaults(delay_s=1e-3), log=True)
    client = simulation.client(placed(application), workload, 60)
    simulation.run()
    direct = DirectRun(application)
    asked = list(client.asked.values())
    assert [a.payload for a in asked] == list(islice(workload.requests(), 60))
    assert [a.request_id for a in client.answers] == list(client.asked)
    for one, answer in zip(asked, client.answers, strict=True):
        assert answer.payload == direct.ask(one.payload, began_s[one.request_id]).payload
    for place in placed(application).places:
        state = simulation.runtime(place.node).execution.state(application.number, place.number)
        assert content_of(state) == content_of(direct.states[place.number])
    sound(simulation, client)


@pytest.mark.parametrize("name", ["nfv-fin", "rta-sf"])
def test_under_faults_too_a_sequential_client_gets_the_replies_of_a_direct_run(name: str) -> None:
    application, workload = application_named(name, 2, backups=0), workload_named(name, seed=4)
    simulation = Simulation(RACK, [placed(application)], FAULTS, seed=9, log=True)
    client = simulation.client(placed(application), workload, 25)
    simulation.run()
    direct = DirectRun(application)
    assert [a.payload for a in client.answers] == [direct.ask(a.payload).payload for a in client.asked.values()]
    sound(simulation, client)
    assert simulation.network.counters().lost > 10


def test_the_same_seed_gives_the_same_events_and_another_seed_others() -> None:
    first, again, other = (torture("rta-sf", seed, requests=12) for seed in (5, 5, 6))
    assert first == again
    assert first.fingerprint != other.fingerprint


@pytest.mark.parametrize("name", APPLICATIONS)
def test_nothing_is_lost_doubled_or_out_of_order_under_torture(name: str) -> None:
    outcomes = [torture(name, seed, requests=20) for seed in range(15)]
    assert [o.complaints for o in outcomes if o.complaints] == []
    assert all(o.lost and o.doubled and o.held_back and o.resent for o in outcomes)
    assert all(o.messages >= 3 * o.requests for o in outcomes)


class DeliversDoubles(Receiver):
    __slots__ = ()

    def receive(self, message: DataMessage) -> list[DataMessage]:
        return super().receive(message) or ([message] if message.sequence < self._expected else [])

    def consumed(self) -> bool:
        self._held = max(1, self._held)
        return super().consumed()


class DeliversAtOnce(Receiver):
    __slots__ = ()

    def receive(self, message: DataMessage) -> list[DataMessage]:
        known = message.sequence < self._expected or message.sequence in self._ahead
        super().receive(message)
        return [] if known else [message]


class ForgetsToResend(Sender):
    __slots__ = ()

    def _resend(self, sent, now: float, out: list[DataMessage]) -> None:
        sent.sent_at = now


@pytest.mark.parametrize(("end", "broken", "words"), [
    ("Receiver", DeliversDoubles, "came again"), ("Receiver", DeliversAtOnce, "out of order"),
    ("Sender", ForgetsToResend, "were lost")])
def test_torture_finds_a_broken_channel(end: str, broken: type, words: str, monkeypatch) -> None:
    monkeypatch.setattr(nodes.transport, end, broken)
    outcomes = [torture("nfv-fin", seed) for seed in range(3)]
    assert any(words in complaint for o in outcomes for complaint in o.complaints)
    assert not judged(outcomes, 3)["holds"]


def test_a_sound_outcome_of_every_run_holds_and_one_run_too_few_does_not() -> None:
    outcomes = [torture(name, 0) for name in APPLICATIONS]
    assert judged(outcomes, 1)["holds"]
    assert not judged(outcomes[1:], 1)["holds"]


def test_a_slow_sink_slows_the_client_and_no_queue_grows_beyond_its_bound(echo: str) -> None:
    options = ChannelOptions(window=8, backlog=4)
    deployment = placed(chain(echo), "smartnic")
    simulation = Simulation(RACK, [deployment], cost=slow_sink, options=options, log=True)
    for place in deployment.places:
        one_core(simulation, place.node)
    client = simulation.client(deployment, Echoed(), 400, window=200)
    end_s = simulation.run()
    sound(simulation, client)
    assert end_s >= 400 * COST_S["last"]  # the sink's pace, and nothing was dropped
    assert max(a.answered_s - a.sent_s for a in client.answers) > 100 * COST_S["last"]
    blocked = 0
    for counters in simulation.counters().values():
        assert counters["channel_deepest_window"] <= options.window
        assert counters["channel_deepest_backlog"] <= options.backlog + 1  # one was running on the core
        assert counters["channel_beyond_credit"] == 0
    for place in deployment.places:
        (statistics,) = simulation.runtime(place.node).execution.statistics()
        assert statistics.deepest <= options.window
        blocked += statistics.blocked
    assert blocked > 0


def test_who_feeds_an_instance_of_the_same_node_stops_at_its_inbox(echo: str) -> None:
    stages = (Stage("first", f"{echo}:First", shards=3), Stage("last", f"{echo}:Last"))
    application = Application("funnel", 302, stages, (Channel("first", "last"),))
    deployment = deploy(application, dict.fromkeys(range(4), "s1n1"), RACK)
    simulation = Simulation(RACK, [deployment], cost=slow_sink, log=True)
    cores = RACK.node("s1n1").cores
    client = simulation.client(deployment, Echoed(), 900, window=600)
    simulation.run()
    sound(simulation, client)
    *feeders, sink = simulation.runtime("s1n1").execution.statistics()
    assert INBOX_LIMIT <= sink.deepest <= INBOX_LIMIT + cores  # what was running when it became full comes on top
    assert all(feeder.blocked > 0 for feeder in feeders)


def test_two_applications_on_one_rack_share_its_cores(echo: str) -> None:
    greedy, modest = chain(echo, 300, "greedy"), chain(echo, 301, "modest")
    nodes_of = {0: "s1n1", 1: "s2n1", 2: "s3n1"}
    deployments = [deploy(application, nodes_of, RACK) for application in (greedy, modest)]
    simulation = Simulation(RACK, deployments, cost=slow_sink, log=True)
    one_core(simulation, "s3n1")
    many = simulation.client(deployments[0], Echoed(), 1000, window=64, flows=4)
    few = simulation.client(deployments[1], Echoed(), 50, client="c2")
    simulation.run()
    sound(simulation, many, few)
    slowest = max(a.answered_s - a.sent_s for a in few.answers)
    assert slowest < 4 * COST_S["last"]  # its turn comes after one request of the other, not after its queue
    assert few.answers[-1].answered_s < many.answers[-1].answered_s / 4


@pytest.mark.parametrize("node", ["s1n1", "s2n1", "s3n1"])
def test_a_node_that_reboots_gets_what_it_is_owed_and_the_channels_go_on(echo: str, node: str) -> None:
    deployment = placed(chain(echo), "smartnic")
    simulation = Simulation(RACK, [deployment], NetworkFaults(delay_s=1e-3))
    client = simulation.client(deployment, Echoed(), 2000, window=4)
    simulation.network.at(1.0, lambda: simulation.reboot(node, down_s=0.5))
    end_s = simulation.run()
    counts = [len(answers) for answers in client.replies().values()]
    assert counts.count(0) <= 4  # those that were in the node's memory
    # What it had handled and not yet acknowledged, it handles again: it has forgotten that, as it has all state.
    assert max(counts) <= 2 and counts.count(2) <= ChannelOptions().ack_every
    assert simulation.idle
    if counts.count(0) < 4:
        assert len(client.asked) == 2000 and end_s > 1.5


def test_what_was_on_its_way_to_a_node_while_it_was_down_is_delivered_after(echo: str) -> None:
    deployment = placed(chain(echo), "smartnic")
    simulation = Simulation(RACK, [deployment])
    simulation.run(0.5)
    for place in deployment.places:
        simulation.reboot(place.node, down_s=3.0)
    client = simulation.client(deployment, Echoed(), 100, window=10)
    simulation.run()
    assert client.complaints() == [] and client.answers[0].answered_s > 3.5


def test_a_client_that_vanishes_is_given_up_and_counted_and_holds_up_nobody(echo: str) -> None:
    deployment = placed(chain(echo), "smartnic")
    simulation = Simulation(RACK, [deployment], NetworkFaults(delay_s=1e-3), cost=slow_sink)
    one_core(simulation, "s3n1")
    gone = simulation.client(deployment, Echoed(), 1000, window=50)
    simulation.network.at(0.2, gone.vanish)
    stays = simulation.client(deployment, Echoed(), 300, client="c2")
    end_s = simulation.run()
    assert stays.complaints() == []
    assert max(a.answered_s - a.sent_s for a in stays.answers) < 1.0
    assert simulation.counters()["s3n1"]["channel_clients_gone"] == 1
    assert CLIENT_GIVE_UP_S < end_s < CLIENT_GIVE_UP_S + 10.0
    assert all(runtime.transport.idle for runtime in map(simulation.runtime, ("s1n1", "s2n1", "s3n1")))


def test_replies_to_a_client_that_does_not_take_them_are_given_up_before_they_fill_the_memory(echo: str) -> None:
    deployment = placed(chain(echo), "smartnic")
    simulation = Simulation(RACK, [deployment], NetworkFaults(delay_s=1e-3))
    deaf = simulation.client(deployment, Echoed(), CLIENT_BACKLOG + 1000, window=CLIENT_BACKLOG + 1000)
    for flow in deaf.flows:
        flow.transport.receive = lambda *_: []  # takes acknowledgements of its requests, but no reply
    simulation.run(CLIENT_GIVE_UP_S / 2)
    assert simulation.counters()["s3n1"]["channel_clients_gone"] == 1


def test_with_a_cost_a_node_answers_at_its_pace_and_without_at_once(echo: str) -> None:
    deployment = placed(chain(echo), "smartnic")
    for cost, took_s in ((None, 0.0), (slow_sink, sum(COST_S.values()))):
        simulation = Simulation(RACK, [deployment], NetworkFaults(delay_s=1e-3), cost=cost)
        client = simulation.client(deployment, Echoed(), 1)
        simulation.run()
        (answer,) = client.answers
        assert answer.answered_s == pytest.approx(4e-3 + took_s)


class Listener:
    """An end that notes what it hears and says nothing."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.heard: list[bytes] = []

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        self.heard.append(payload)

    def work(self, now: float, out: Sends) -> None:
        pass

    def due(self) -> None:
        return None


def heard_under(faults: NetworkFaults, count: int = 400) -> tuple[list[int], NetworkCounters]:
    network, source, to = SimulatedNetwork(faults, 1), *(Listener(Address(bytes([10, 0, 0, i]), 1)) for i in (1, 2))
    network.plug(to)
    for number in range(count):
        network.at(number * 1e-4, partial(network.after, source, [Send(*to.address, b"%d" % number)]))
    network.agenda.run()
    return [int(payload) for payload in to.heard], network.counters()


def test_delays_that_vary_change_no_order_and_reordering_does() -> None:
    jittery, _ = heard_under(NetworkFaults(jitter_s=2e-3))
    assert jittery == list(range(400))
    mixed, counters = heard_under(NetworkFaults(reordering=0.2))
    assert sorted(mixed) == jittery != mixed and 50 < counters.held_back < 110


def test_loss_and_duplication_are_as_probable_as_was_said() -> None:
    heard, counters = heard_under(NetworkFaults(loss=0.25, duplication=0.5))
    assert (counters.sent, len(heard)) == (400, 400 - counters.lost + counters.doubled)
    assert 70 < counters.lost < 130 and 110 < counters.doubled < 190
    assert len(set(heard)) == 400 - counters.lost


@pytest.mark.parametrize("fault", [{"loss": -0.1}, {"duplication": 1.1}, {"reordering": 2.0}, {"delay_s": -1.0},
                                   {"jitter_s": float("nan")}])
def test_an_impossible_fault_is_refused(fault: dict[str, float]) -> None:
    with pytest.raises(NodeError, match=next(iter(fault))):
        NetworkFaults(**fault)


def test_an_unknown_node_or_an_impossible_client_is_refused(echo: str) -> None:
    deployment = placed(chain(echo))
    simulation = Simulation(RACK, [deployment])
    with pytest.raises(NodeError, match="s9n9"):
        simulation.runtime("s9n9")
    with pytest.raises(NodeError, match="0 outstanding"):
        simulation.client(deployment, Echoed(), 1, window=0)
    with pytest.raises(NodeError, match="5000 flows"):
        simulation.client(deployment, Echoed(), 1, flows=5000)
