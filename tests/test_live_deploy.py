"""Deploying onto an engine that runs: new instances begin, moved ones are found, live ones are left where they are."""

from __future__ import annotations

from ipaddress import IPv4Address

import msgspec
import pytest

from microservices.application import Application, Channel, Stage
from nodes import messages
from nodes.deployment import Deployment, deploy
from nodes.errors import NodeError
from nodes.execution import Execution
from nodes.host_runtime import HostRuntime
from nodes.messages import CLIENT_BIT, KIND_DEPLOY, KIND_DEPLOYED, KIND_REQUEST, DataMessage, StatsMessage
from nodes.service_runtime import ServiceRuntime
from nodes.transport import Address, Transport
from topologies.addressing import CONTROL_PORT, DATA_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3"))
CONTROLLER, CLIENT = "10.1.253.1", "10.1.254.1"


def chain(nodes: dict[int, str], number: int = 7) -> Deployment:
    stages = (Stage("first", "count"), Stage("second", "ema"))
    return deploy(Application("chain", number, stages, (Channel("first", "second"),)), nodes, RACK)


def host(name: str = "s1h") -> HostRuntime:
    return HostRuntime(ServiceRuntime(Execution(name), Transport(100)))


def told(runtime: HostRuntime, deployment: Deployment, source: str = CONTROLLER) -> StatsMessage | None:
    """Let `source` send the deployment to the control port; return the answer."""
    out: list[tuple[tuple[str, int], int, bytes]] = []
    payload = StatsMessage(KIND_DEPLOY, 5, msgspec.msgpack.encode(deployment)).encode()
    runtime.receive((source, 4000), CONTROL_PORT, payload, 0.0, out)
    if not out:
        return None
    answer = messages.decode(out[0][2])
    assert isinstance(answer, StatsMessage) and (answer.kind, answer.query_id) == (KIND_DEPLOYED, 5)
    return answer


def test_a_controller_deploys_on_a_node_that_runs() -> None:
    runtime = host()
    answer = told(runtime, chain({0: "s1h", 1: "s2h"}))
    assert answer is not None and answer.payload == b""
    assert [s.name for s in runtime.services.execution.statistics()] == ["chain/first-1"]
    assert runtime.services.execution.address_of(7, 1) == Address(IPv4Address("10.1.2.1").packed, DATA_PORT)


@pytest.mark.parametrize("source", [CLIENT, "10.1.2.1", "10.1.2.11"])
def test_nobody_but_a_controller_deploys(source: str) -> None:
    runtime = host()
    assert told(runtime, chain({0: "s1h", 1: "s1h"}), source) is None
    assert runtime.services.execution.statistics() == [] and runtime.counters()["dropped_refused"] == 1


@pytest.mark.parametrize("nonsense", [b"", b"\x00nonsense", msgspec.msgpack.encode({"name": "a"}),
                                      b"\x81\xa4name\xa1\xff"])
def test_a_deployment_that_is_none_is_refused_and_said_so(nonsense: bytes) -> None:
    runtime = host()
    out: list[tuple[tuple[str, int], int, bytes]] = []
    runtime.receive((CONTROLLER, 4000), CONTROL_PORT, StatsMessage(KIND_DEPLOY, 5, nonsense).encode(), 0.0, out)
    answer = messages.decode(out[0][2])
    assert isinstance(answer, StatsMessage) and answer.payload and runtime.services.execution.statistics() == []


def test_an_instance_that_runs_here_is_not_sent_away() -> None:
    engine = Execution("s1h", (chain({0: "s1h", 1: "s1h"}),))
    state = engine.state(7, 0)
    with pytest.raises(NodeError, match=r"instances \[0\] run on s1h"):
        engine.deploy(chain({0: "s2h", 1: "s1h"}))
    assert engine.deploy(chain({0: "s1h", 1: "s1h"})) == ([], []) and engine.state(7, 0) is state


def test_what_was_lost_begins_here_and_its_neighbours_hand_it_work_in_memory() -> None:
    engine = Execution("s1h", (chain({0: "s1h", 1: "s2h"}),))
    (first,) = engine._instances.values()
    assert first.local == [] and len(first.channels) == 1
    assert engine.deploy(chain({0: "s1h", 1: "s1h"})) == ([1], [1])
    assert [i.name for i in first.local] == ["chain/second-1"] and first.channels == []


def test_what_is_under_way_to_a_moved_instance_goes_to_where_it_is_now() -> None:
    runtime = ServiceRuntime(Execution("s1h", (chain({0: "s1h", 1: "s2h"}),)), Transport(100))
    old, new = (Address(IPv4Address(RACK.node(n).ip).packed, DATA_PORT) for n in ("s2h", "s3h"))
    out: list = []
    message = DataMessage(KIND_REQUEST, 7, 1, CLIENT_BIT << 32 | 1, bytes(4), 9, 0, b"x", 0)
    runtime.transport.offer(message, old, 0.0, out)
    assert out[0][:2] == old
    runtime.deploy(chain({0: "s1h", 1: "s3h"}))
    out.clear()
    runtime.transport.tick(2.0, out)
    assert out and out[0][:2] == new


def test_a_node_that_takes_over_counts_as_a_later_run_than_the_one_before() -> None:
    runtime = host()
    before = runtime.services.transport.boot
    told(runtime, chain({0: "s1h", 1: "s2h"}))
    assert runtime.services.transport.boot > before
    told(runtime, chain({0: "s1h", 1: "s2h"}))  # nothing new: nothing to tell
    assert runtime.services.transport.boot == before + 1
