"""Drives the same runtimes as the agents do, in virtual time, in one process, from a seed.

    client's flow --datagrams--> network: lost? doubled? held back? --delay--> a node's ServiceRuntime --> ...

Nodes and clients are those of an inventory, instances stand where a Deployment places them, and what travels are the
bytes of the wire format. SimPy keeps the time. The same seed gives the same events in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from itertools import islice

from microservices.routing import Router
from microservices.workload import Workload
from nodes.channel import ChannelOptions
from nodes.deployment import Deployment
from nodes.errors import NodeError
from nodes.execution import CostModel
from nodes.runtime import Counters, ServiceRuntime
from nodes.simulated_ends import MAX_FLOWS, Answer, Asked, ChannelLog, ClientFlow, LoggedExecution, LoggedTransport
from nodes.simulated_network import NetworkFaults, SimulatedNetwork
from nodes.transport import Address, Sends
from topologies.addressing import DATA_PORT
from topologies.inventory import Inventory, NodeEntry

FIRST_FLOW_PORT = 40_000
BOOT_STEP = 1 << 16  # between the boot numbers of two runs of a node: room for the sessions that each begins
CostOf = Callable[[NodeEntry], CostModel | None]


class _Node:
    """A compute node: its runtime, and where it stands in the network."""

    def __init__(self, address: Address, runtime: ServiceRuntime) -> None:
        self.address = address
        self.runtime = runtime
        self.receive = runtime.receive
        self.work = runtime.work
        self.due = runtime.due


class SimulatedClient:
    """A closed loop of requests: each flow is an endpoint of its own with `window` requests outstanding.

    `asked` holds the requests in the order in which they left, `answers` every reply in the order of arrival, also a
    second one to the same request.
    """

    def __init__(self, network: SimulatedNetwork, flows: list[ClientFlow], window: int, workload: Workload,
                 requests: int) -> None:
        self.asked: dict[int, Asked] = {}
        self.answers: list[Answer] = []
        self.workload = workload
        self.flows = flows
        self._network = network
        self._window = window
        self._payloads = islice(workload.requests(), requests)

    def start(self) -> None:
        for flow in self.flows:
            self._network.plug(flow)
            flow.answered = self._answered
        for flow in self.flows:
            out: Sends = []
            for _ in range(self._window):
                self._ask(flow, self._network.now, out)
            self._network.after(flow, out)

    def vanish(self) -> None:
        """Be gone at once, like a client whose process was killed."""
        for flow in self.flows:
            self._network.unplug(flow)

    def replies(self) -> dict[int, list[Answer]]:
        """Return the replies to each request that was asked, by its id, in order of arrival."""
        found: dict[int, list[Answer]] = {request_id: [] for request_id in self.asked}
        for answer in self.answers:
            found.setdefault(answer.request_id, []).append(answer)
        return found

    def complaints(self) -> list[str]:
        """Return what is wrong: requests without exactly one reply, error replies, and replies that cannot be right."""
        found = []
        for request_id, answers in self.replies().items():
            if len(answers) != 1 or request_id not in self.asked:
                found.append(f"request {request_id:#x} has {len(answers)} replies")
                continue
            reply = answers[0]
            wrong = (reply.payload.decode(errors="replace") if reply.is_error else
                     self.workload.check_reply(self.asked[request_id].payload, reply.payload))
            if wrong is not None:
                found.append(f"request {request_id:#x}: {wrong}")
        return found

    def _ask(self, flow: ClientFlow, now: float, out: Sends) -> None:
        payload = next(self._payloads, None)
        if payload is not None:
            asked = flow.ask(payload, now, out)
            self.asked[asked.request_id] = asked

    def _answered(self, flow: ClientFlow, answer: Answer, now: float, out: Sends) -> None:
        self.answers.append(answer)
        self._ask(flow, now, out)


class Simulation:
    """The nodes of `inventory` that `deployments` place instances on, and a network between them.

    `cost` gives for each node how long its cores are busy with a request; where there is none, requests take no time.
    With `log`, every message is kept, so that `ChannelLog.complaints` can tell what a channel did to it. `routers`, by
    application number, may be shared between simulations: they hold the microservices, which are costly to make.
    """

    def __init__(self, inventory: Inventory, deployments: Sequence[Deployment],
                 network: NetworkFaults | None = None, seed: int = 1, cost: CostOf | None = None,
                 options: ChannelOptions | None = None, log: bool = False,
                 routers: Mapping[int, Router] | None = None) -> None:
        self.inventory = inventory
        self.network = SimulatedNetwork(network or NetworkFaults(), seed)
        self.log = ChannelLog() if log else None
        self.clients: list[SimulatedClient] = []
        self._deployments = tuple(deployments)
        self._cost = cost
        self._options = options
        self._routers = dict(routers or {})
        for deployment in self._deployments:
            if deployment.number not in self._routers:
                self._routers[deployment.number] = Router(deployment.application())
        self._boots: dict[str, int] = {}
        self._nodes: dict[str, _Node] = {}
        for name in dict.fromkeys(place.node for d in self._deployments for place in d.places):
            self.reboot(name)

    def client(self, deployment: Deployment, workload: Workload, requests: int, window: int = 1, flows: int = 1,
               client: str = "c1") -> SimulatedClient:
        """Start a client on the node called `client` at the present time; raises NodeError if it cannot be."""
        if requests < 0 or window < 1 or flows < 1:
            raise NodeError(f"{requests} requests over {flows} flows with {window} outstanding: the least are 0, 1, 1")
        ip = IPv4Address(self.inventory.node(client).ip).packed
        number = len(self.clients) + 1
        port = FIRST_FLOW_PORT + sum(len(client.flows) for client in self.clients)
        if flows > MAX_FLOWS or port + flows > 1 << 16:
            raise NodeError(f"{flows} flows from port {port}; the limits are {MAX_FLOWS} and port {(1 << 16) - 1}")
        router = self._routers[deployment.number]
        made = SimulatedClient(self.network, [
            ClientFlow(Address(ip, port + i), number, i, deployment, router,
                       LoggedTransport(BOOT_STEP, self._options, self.log), self.log) for i in range(flows)],
            window, workload, requests)
        self.clients.append(made)
        made.start()
        return made

    def run(self, until_s: float | None = None) -> float:
        """Let time pass till nothing is left to do, or till `until_s`; return the time."""
        self.network.environment.run(until=until_s)
        return self.network.now

    def reboot(self, node: str, down_s: float = 0.0) -> None:
        """Start the node called `node` anew, with nothing in its memory, after `down_s` in which it hears nothing."""
        old = self._nodes.get(node)
        if old is not None:
            self.network.unplug(old)
        self._boots[node] = self._boots.get(node, 0) + BOOT_STEP
        entry = self.inventory.node(node)
        cost = self._cost(entry) if self._cost is not None else None
        execution = LoggedExecution(node, self._deployments, entry.cores, cost, routers=self._routers)
        execution.log = self.log
        runtime = ServiceRuntime(execution, LoggedTransport(self._boots[node], self._options, self.log))
        new = self._nodes[node] = _Node(Address(IPv4Address(entry.ip).packed, DATA_PORT), runtime)
        if down_s:
            self.network.at(down_s, lambda: self.network.plug(new))
        else:
            self.network.plug(new)

    def runtime(self, node: str) -> ServiceRuntime:
        """Return what runs on `node` at present; raises NodeError where no instance is placed."""
        if node not in self._nodes:
            raise NodeError(f"no instance is placed on {node!r}; there are {', '.join(self._nodes)}")
        return self._nodes[node].runtime

    def counters(self) -> dict[str, Counters]:
        return {name: node.runtime.counters() for name, node in self._nodes.items()}

    @property
    def idle(self) -> bool:
        """Whether every channel has delivered all that it was given."""
        return (all(node.runtime.transport.idle for node in self._nodes.values())
                and all(flow.transport.idle for client in self.clients for flow in client.flows))
