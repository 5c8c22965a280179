"""What the commands of a migration do to one node: it freezes, goes on, judges, and tells who comes to an old place."""

from __future__ import annotations

from pathlib import Path

import pytest
from moving_rack import RACK, MovingRack, counter_store, lone_store

from nodes import messages
from nodes.artifact import artifact_of
from nodes.channel_move import decode_package
from nodes.control_messages import Command, Verb
from nodes.cores import Cores
from nodes.local_instances import LocalInstances
from nodes.messages import CLIENT_BIT, KIND_REQUEST, DataMessage
from nodes.simulated import NetworkFaults
from nodes.transport import Address, Sends
from topologies.addressing import DATA_PORT

SLOW = NetworkFaults(delay_s=5e-5)
OLD, NEW = (Address(bytes(int(part) for part in RACK.node(name).ip.split(".")), DATA_PORT) for name in ("s2n1", "s2h"))


def local(moving: MovingRack, node: str = "s2n1") -> LocalInstances:
    made = LocalInstances(moving.simulation.runtime(node))
    made.now = moving.simulation.network.now
    return made


def work(moving: MovingRack, node: str = "s2n1") -> None:
    moving.simulation.network.work(moving.simulation._nodes[node])


@pytest.mark.parametrize("wait_s", [0.0, 0.02], ids=["while it stops", "when it is frozen"])
def test_a_frozen_instance_that_resumes_goes_on_as_if_nothing_had_been(tmp_path: Path, wait_s: float) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), SLOW,
                        cost=lambda _: lambda *_: 1e-3)
    moving.client(300, window=8)
    for _ in range(10):
        moving.run(0.0071)
        here = local(moving)
        here.freeze(moving.key)
        assert moving.where() == []
        moving.run(wait_s)
        assert not wait_s or here.frozen(moving.key) is not None
        here.now = moving.simulation.network.now
        here.resume(moving.key)
        work(moving)
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) == 300


@pytest.mark.parametrize("seed", range(3))
def test_one_that_resumes_gets_again_what_had_come_ahead_of_order(seed: int) -> None:
    faults = NetworkFaults(loss=0.15, duplication=0.02, reordering=0.05, delay_s=5e-5, reordering_s=1e-3)
    moving = MovingRack(lone_store(), ("s2n1",), faults, seed)
    moving.client(1 << 20, window=16)
    lost = 0
    for _ in range(100):
        moving.run(0.05)
        here, runtime = local(moving), moving.simulation.runtime("s2n1")
        lost += any(not receiver.in_order for receiver in runtime.transport._receivers.values())
        here.freeze(moving.key)
        here.resume(moving.key)
        work(moving)
    moving.stop_clients()
    moving.finish()
    assert moving.complaints() == [] and moving.simulation.idle and lost > 5


def test_nothing_is_acknowledged_in_the_name_of_a_frozen_instance() -> None:
    moving = MovingRack(lone_store(), ("s2n1",), SLOW)
    client = moving.client(1 << 20, window=1)
    moving.run(0.01)
    here = local(moving)
    here.freeze(moving.key)
    assert here.frozen(moving.key) is not None
    moving.run(0.01)
    (flow,) = client.flows
    heard, dropped = len(client.answers), moving.simulation.counters()["s2n1"]["dropped_not_here"]
    moving.run(1.0)
    assert len(client.answers) == heard and not flow.transport.idle
    assert moving.simulation.counters()["s2n1"]["dropped_not_here"] > dropped


def test_a_frozen_instance_is_whole_in_its_package(tmp_path: Path) -> None:
    moving = MovingRack(counter_store(tmp_path), ("s1n1", "s2n1", "s3n1"), SLOW, cost=lambda _: lambda *_: 1e-3)
    moving.simulation.runtime("s2n1").execution.cores = Cores(1)
    moving.client(300, window=64)
    moving.run(0.005)
    here = local(moving)
    state = moving.simulation.runtime("s2n1").execution.state(*moving.key)
    waiting = len(moving.simulation.runtime("s2n1").execution.inbox(moving.key))
    here.freeze(moving.key)
    moving.run(0.01)
    package = decode_package(here.frozen(moving.key) or b"", *moving.key)
    assert package.snapshot == state.snapshot() and len(package.inbox) >= waiting > 0
    assert [image.sender for image in package.receivers] == [0]
    assert [image.receiver for image in package.senders] == [2]
    assert here.acceptable(moving.key, package.encode()) is None
    assert here.clients(moving.key, package.encode()) == []  # they send to the first stage


def test_the_clients_of_an_instance_are_known_from_its_package_each_once() -> None:
    moving = MovingRack(lone_store(), ("s2n1",), SLOW)
    moving.client(5)
    moving.client(5, name="c2")
    moving.finish()
    here = local(moving)
    here.freeze(moving.key)
    package = here.frozen(moving.key)
    assert package is not None
    ips = [ip for ip, _ in local(moving, "s2h").clients(moving.key, package)]
    assert sorted(set(ips)) == sorted(client.flows[0].address.ip for client in moving.clients)
    assert len(ips) == 4  # each began with a client of its own that made the counter


def test_a_package_that_cannot_go_on_here_is_said_to_be_so() -> None:
    moving = MovingRack(lone_store(), ("s2n1",), SLOW)
    here, there = local(moving), local(moving, "s2h")
    here.freeze(moving.key)
    package = here.frozen(moving.key) or b""
    assert there.acceptable(moving.key, package) is None
    assert "301/0" in (there.acceptable((301, 1), package) or "")
    assert "package of" in (there.acceptable(moving.key, package[:-9]) or "")
    assert there.acceptable((9, 9), package) is not None


def test_only_the_source_that_is_installed_is_usable() -> None:
    there = local(MovingRack(lone_store(), ("s2n1",)), "s2h")
    assert there.usable((301, 0), artifact_of("kvs")) is None
    assert "kvs: sha256" in (there.usable((301, 0), artifact_of("kvs") + b"\n") or "")
    assert "kvs: sha256" in (there.usable((301, 0), artifact_of("count")) or "")
    assert there.usable((301, 5), artifact_of("kvs")) == "no instance 5 of an application 301 is known here"


def asked(moving: MovingRack, node: str, sender: int, source: Address, application: int = 301) -> list[bytes]:
    """Send a request to a node as if from `sender`; return what it says at once, decoded."""
    out: Sends = []
    message = DataMessage(KIND_REQUEST, application, 0, sender << 32 | 1, source.ip, source.port, 0, b"get k\r\n",
                          sender, 1)
    runtime = moving.simulation.runtime(node)
    runtime.receive(source, message.encode(), 0.0, out)
    runtime.work(0.0, out)
    assert all((send.ip, send.port) == source for send in out)
    return [send.data for send in out]


def test_a_client_that_comes_to_an_old_place_is_told_the_new_one_and_nobody_else_is() -> None:
    moving = MovingRack(lone_store(), ("s2n1",), SLOW)
    moving.move("s2h")
    client = Address(bytes((10, 1, 254, 1)), 4000)
    (said,) = asked(moving, "s2n1", CLIENT_BIT | 5, client)
    command = messages.decode(said)
    assert isinstance(command, Command) and (command.verb, command.peer) == (Verb.CONNECT, NEW.ip)
    assert (command.application, command.instance, command.epoch) == (301, 0, 2)
    assert asked(moving, "s2n1", 0, OLD) == []  # an instance's, which its node is told of by the controller


def test_a_request_for_what_nobody_knows_is_answered_with_an_error() -> None:
    moving = MovingRack(lone_store(), ("s2n1",), SLOW)
    said = [messages.decode(data) for data in asked(moving, "s2n1", CLIENT_BIT | 5, Address(bytes(4), 9), 77)]
    assert [m.kind for m in said if isinstance(m, DataMessage)] == [messages.KIND_ERROR]


def test_news_that_are_older_than_those_of_a_package_change_nothing() -> None:
    moving = MovingRack(lone_store(), ("s2n1",), SLOW)
    there = local(moving, "s3n1")
    there.connect(moving.key, NEW.ip, 5)
    there.connect(moving.key, OLD.ip, 4)
    assert moving.simulation.runtime("s3n1").execution.address_of(*moving.key) == NEW
