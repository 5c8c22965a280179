"""Drives the same runtimes as the agents do, in virtual time, in one process, from a seed.

    client's flow --datagrams--> network --> a node's ServiceRuntime --> ...

Nodes and clients are those of an inventory, instances stand where a Deployment places them, and what travels are the
bytes of the wire format. The network either has faults, and no links: lost? doubled? held back? Or it is the calibrated
one that packets cross in a testbed: ports, PCIe, traffic managers. The same seed gives the same events in the same
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address

from microservices.routing import Router
from microservices.workload import Workload
from nodes import messages
from nodes.authority import Authority
from nodes.channel import ChannelOptions
from nodes.deployment import Deployment
from nodes.errors import NodeError, WireError
from nodes.execution import CostModel, Execution
from nodes.messages import DataMessage
from nodes.node_control import Controls, NodeControl, ToNodeControl, reports_of
from nodes.port_bytes import Carried
from nodes.service_runtime import Counters, ServiceRuntime
from nodes.simulated_clients import SimulatedClient, SimulatedLoad
from nodes.simulated_ends import MAX_FLOWS, ChannelLog, ClientFlow, LoggedExecution, LoggedTransport
from nodes.simulated_links import Calibration
from nodes.simulated_network import NetworkFaults, SimulatedNetwork
from nodes.simulated_rack import RackNetwork
from nodes.transport import Address, Send, Sends, Transport
from topologies.addressing import CONTROL_PORT, DATA_PORT
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


class _ControlPort:
    """The control port of a compute node, whose services work whenever something was said there."""

    def __init__(self, node: _Node, control: NodeControl, network: SimulatedNetwork) -> None:
        self.address = Address(node.address.ip, CONTROL_PORT)
        self.control = control
        self._node = node
        self._network = network
        control.woken = lambda: network.after(self, [])

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        try:
            message = messages.decode(payload)
        except WireError:
            return
        if isinstance(message, ToNodeControl):
            told: Controls = []
            self.control.receive(source.ip, message, now, told)
            out += [Send(ip, CONTROL_PORT, data) for ip, data in told]

    def work(self, now: float, out: Sends) -> None:
        told: Controls = []
        self.control.work(now, told)
        out += [Send(ip, CONTROL_PORT, data) for ip, data in told]
        if self._node.runtime.awake:
            self._network.work(self._node)

    def due(self) -> float:
        return self.control.at


class Simulation:
    """The nodes of `inventory` that `deployments` place instances on, and a network between them.

    With a `calibration` all hosts and SmartNICs take part, as fast as it says, and `network` and `cost` must be left
    out. Without, `network` says what happens to datagrams, or is what carries them, with a seed of its own; `cost`
    gives for each node how long its cores are busy with a request; where there is none, requests take no time. With
    `log`, every message is kept, so that `ChannelLog.complaints` can tell what a channel did to it. `routers`, by
    application number, may be shared between simulations: they hold the microservices, which are costly to make. With
    `controller`, the name of a node, all hosts and SmartNICs take part, report to that one's control port and obey it,
    and clients ask its data port; time then has no end but that which `run` is told, and what stands there is for the
    caller to plug into `network`. With `foresight` nodes compute as far ahead as agents do: nothing is late in virtual
    time, but what moves an instance must come to terms with it.
    """

    def __init__(self, inventory: Inventory, deployments: Sequence[Deployment],
                 network: NetworkFaults | SimulatedNetwork | None = None, seed: int = 1, cost: CostOf | None = None,
                 options: ChannelOptions | None = None, log: bool = False,
                 routers: Mapping[int, Router] | None = None, calibration: Calibration | None = None,
                 controller: str = "", foresight: int = 0) -> None:
        if calibration is not None and (network is not None or cost is not None):
            raise NodeError("a calibrated simulation has its links and costs: faults and a cost cannot be set as well")
        self.inventory = inventory
        self.calibration = calibration
        self.network: SimulatedNetwork
        self.log = ChannelLog() if log else None
        self.clients: list[SimulatedClient] = []
        self.loads: list[SimulatedLoad] = []
        self._deployments = tuple(deployments)
        self._cost = cost
        self._foresight = foresight
        self._options = options
        self._routers = dict(routers or {})
        for deployment in self._deployments:
            if deployment.number not in self._routers:
                self._routers[deployment.number] = Router(deployment.application())
        self._boots: dict[str, int] = {}
        self._latest_boot = 0
        self._nodes: dict[str, _Node] = {}
        self._controller_ips = (inventory.node(controller).ip,) if controller else ()
        self._control_ports: dict[str, _ControlPort] = {}
        self._next_port = FIRST_FLOW_PORT
        if isinstance(network, SimulatedNetwork):
            self.network = network
        elif calibration is None:
            self.network = SimulatedNetwork(network or NetworkFaults(), seed)
        else:
            self.network = RackNetwork(inventory, calibration, self._interference)
        if calibration is not None or controller:
            names = [entry.name for entry in inventory.nodes if entry.role in ("host", "smartnic")]
        else:
            names = [place.node for d in self._deployments for place in d.places]
        for name in dict.fromkeys(names):
            self.reboot(name)

    def client(self, deployment: Deployment, workload: Workload, requests: int, window: int = 1, flows: int = 1,
               client: str = "c1", think_s: Callable[[], float] | None = None) -> SimulatedClient:
        """Start a client on the node called `client` at the present time: see SimulatedClient.

        Raises NodeError if it cannot be.
        """
        if requests < 0 or window < 1:
            raise NodeError(f"{requests} requests with {window} outstanding: the least are 0 and 1")
        made = SimulatedClient(self.network, self._flows(client, len(self.clients) + 1, deployment, flows), window,
                               workload, requests, self._routers[deployment.number], think_s)
        self.clients.append(made)
        made.start()
        return made

    def load(self, client: str, number: int, deployment: Deployment, requests: Iterator[tuple[bytes, int]],
             heard: Callable[[bytes, DataMessage, float], None], window: int = 1, flows: int = 1,
             intended: Iterator[float] | None = None, outstanding: int = 0) -> SimulatedLoad:
        """Start client `number` on the node called `client` at the present time: see SimulatedLoad.

        A closed loop has `window` requests of each flow outstanding, or `outstanding` in all if that is given.

        Raises NodeError if it cannot be.
        """
        made = SimulatedLoad(self.network, self._flows(client, number, deployment, flows),
                             outstanding or window * flows, requests, intended, heard)
        self.loads.append(made)
        made.start()
        return made

    def run(self, until_s: float | None = None) -> float:
        """Let time pass till nothing is left to do, till `until_s`, or till the agenda is stopped; return the time."""
        self.network.agenda.run(until_s)
        return self.network.now

    def reboot(self, node: str, down_s: float = 0.0, deployments: Sequence[Deployment] = ()) -> None:
        """Start the node called `node` anew, with nothing in its memory, after `down_s` in which it hears nothing.

        `deployments` say where all instances are; if there are none, all are taken to be where they were at first.
        """
        old = self._nodes.get(node)
        self.stop(node)
        self._boots[node] = self._boots.get(node, 0) + BOOT_STEP
        entry = self.inventory.node(node)
        new = self._nodes[node] = _Node(Address(IPv4Address(entry.ip).packed, DATA_PORT),
                                       self._services(entry, tuple(deployments) or self._deployments,
                                                      old is not None and bool(self._controller_ips)))
        if down_s:
            self.network.at(down_s, partial(self._plug, entry, new))
        else:
            self._plug(entry, new)

    def stop(self, node: str) -> None:
        """Let the node called `node` lose all it has and hear nothing, till it is booted again."""
        if node in self._nodes:
            self.network.unplug(self._nodes[node])
        if node in self._control_ports:
            self.network.unplug(self._control_ports[node])

    def runtime(self, node: str) -> ServiceRuntime:
        """Return what runs on `node` at present; raises NodeError where nothing does."""
        if node not in self._nodes:
            raise NodeError(f"no instance is placed on {node!r}; there are {', '.join(self._nodes)}")
        return self._nodes[node].runtime

    def control_of(self, node: str) -> NodeControl:
        """Return a node's side of the control plane; raises NodeError where there is none."""
        if node not in self._control_ports:
            raise NodeError(f"{node!r} obeys no controller; there are: {', '.join(self._control_ports)}")
        return self._control_ports[node].control

    def counters(self) -> dict[str, Counters]:
        """Return the counters of every node; with a calibration, all that a testbed's agents report of emulation."""
        found = {name: node.runtime.counters() for name, node in self._nodes.items()}
        if isinstance(self.network, RackNetwork):
            for name, counters in found.items():
                counters["now_ns"] = round(self.network.now * 1e9)
                nic = self.network.nics.get(name)
                if nic is not None:
                    counters.update(nic.counters())
        return found

    @property
    def idle(self) -> bool:
        """Whether every channel has delivered all that it was given."""
        return (all(node.runtime.transport.idle for node in self._nodes.values())
                and all(flow.transport.idle for client in (*self.clients, *self.loads) for flow in client.flows))

    def _plug(self, entry: NodeEntry, node: _Node) -> None:
        if self._nodes[entry.name] is not node:
            return  # it has been booted once more since
        self.network.plug(node)
        if self._controller_ips:
            port = _ControlPort(node, self._control(entry, node.runtime), self.network)
            self._control_ports[entry.name] = port
            self.network.plug(port)
            self.network.after(port, [])

    def _control(self, entry: NodeEntry, runtime: ServiceRuntime) -> NodeControl:
        """Return a node's side of the control plane, as nodes.agent makes it."""
        reports = reports_of(entry, self.inventory, self._controller_ips)
        network, execution = self.network, runtime.execution
        queue_least: Callable[[], int] = lambda: execution.waiting  # noqa: E731
        carried: Callable[[], Carried] = lambda: Carried(0, 0)  # noqa: E731
        if isinstance(network, RackNetwork):
            carried = partial(network.carried, reports.interfaces)
            if entry.name in network.nics:
                queue_least = network.nics[entry.name].traffic.take_least
        runtime.boot_now = self._later_boot
        authority = Authority(*(IPv4Address(ip).packed for ip in reports.controller_ips))
        return NodeControl(runtime, IPv4Address(entry.ip).packed, authority, self._boots[entry.name],
                           reports.port_gbps, queue_least, carried, network.now)

    def _later_boot(self) -> int:
        """Return a boot number that is later than any node's."""
        self._latest_boot = max(self._latest_boot, *self._boots.values()) + 1
        return self._latest_boot

    def _services(self, entry: NodeEntry, deployments: tuple[Deployment, ...], empty: bool) -> ServiceRuntime:
        """Return what runs on `entry`, as nodes.agent makes it."""
        pace, cores = None, entry.cores
        cost = self._cost(entry) if self._cost is not None else None
        if self.calibration is not None:
            pace, cores = self.calibration.paces[entry.name], self.calibration.cores[entry.name]
            cost = pace.cost_s
        engine = LoggedExecution if self.log is not None else Execution
        execution = engine(entry.name, deployments, cores, cost, routers=self._routers,
                           hol=pace.hol_of if pace is not None else None,
                           sleep_after_s=pace.sleep_after_s if pace is not None else 0.0,
                           in_node_s=pace.in_node_s if pace is not None else 0.0, empty=empty,
                           stopwatch=(lambda: self.network.now) if self._foresight else None,
                           foresight=self._foresight, copy_share=pace.copy_share if pace is not None else 0.0)
        if isinstance(execution, LoggedExecution):
            execution.log = self.log
        return ServiceRuntime(execution, self._transport(self._boots[entry.name]), pace)

    def _interference(self, name: str) -> Callable[[], float]:
        nodes = self._nodes  # of which one may be started anew
        return lambda: nodes[name].runtime.execution.interference

    def _transport(self, boot: int) -> Transport:
        return Transport(boot, self._options) if self.log is None else LoggedTransport(boot, self._options, self.log)

    def _flows(self, client: str, number: int, deployment: Deployment, flows: int) -> list[ClientFlow]:
        """Return the flows of client `number` on the node called `client`."""
        first, ip = self._next_port, IPv4Address(self.inventory.node(client).ip).packed
        if not 1 <= flows <= MAX_FLOWS or first + flows > 1 << 16:
            raise NodeError(f"{flows} flows from port {first}; the limits are 1 and {MAX_FLOWS}, and port "
                            f"{(1 << 16) - 1}")
        self._next_port += flows
        ways = self.calibration.ways.get(client, {}) if self.calibration is not None else {}
        controllers = [IPv4Address(controller).packed for controller in self._controller_ips]
        return [ClientFlow(Address(ip, first + i), number, i, deployment, self._transport(BOOT_STEP), self.log, ways,
                           controllers) for i in range(flows)]
