"""The composition root: builds a world, wires a cluster in it, starts everything, and always stops it.

    with Testbed.start(TestbedOptions("type1x3")) as bed:
        print(bed.counters("s1n1"))
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from controller import tor_program, tor_status
from controller.controller_events import WithdrawalState
from controller.tor_status import TorStatus
from experiments.clients.client import ClientConfig
from experiments.emulation.bed_facts import BedFacts
from experiments.emulation.coming_and_going import tell, withdrawn
from experiments.emulation.coming_up import complaints, said_of, team_status_path
from experiments.emulation.control_plane import ControlPlane
from experiments.emulation.failures import Failure
from experiments.emulation.faults import Down, Faults
from experiments.emulation.node_setup import agent_order, set_up_single, team_order
from experiments.emulation.observing import Observing
from experiments.emulation.orchestrating import Orchestrating
from experiments.emulation.pacing import Pacing
from experiments.emulation.running import RunningClient, RunningProcess
from experiments.emulation.switches import configure_switches, lacp_members, leave_queues_alone
from experiments.emulation.testbed_options import TestbedOptions
from experiments.errors import ExperimentError
from nodes.bonding import teaming_mode
from nodes.cgroups import Cgroup
from nodes.communication import Communication, ways_to
from nodes.deployment import Deployment
from nodes.emulated_clock import started_now
from nodes.emulated_node import build_network, end_network, tc_batch
from nodes.frame_filter import Program
from nodes.nursery import Child, Nursery, Order
from nodes.programs import python_module
from nodes.switch_sockets import widen
from nodes.world import World
from topologies.catalog import cluster_named
from topologies.inventory import Inventory, NodeEntry, inventory_of

log = logging.getLogger(__name__)

OPENFLOW_LISTEN = "127.0.0.1:6653"
CLIENT = "experiments.clients.client:run"
PRELOAD = ("nodes.agent", "experiments.clients.client", "experiments.clients.flow_probe")
READY_TIMEOUT_S = 60.0
AGENT_END_TIMEOUT_S = 10.0
REPLICAS_WITHIN_S = 3.0  # emulated: a node counts when it has been heard for a second
FIRST_OWN_CLIENT_NUMBER = 100_000  # of 2^19


class Testbed(Observing, Orchestrating, Faults):
    """A running machine room. Make it with `start`; everything in it ends with `stop`."""

    __test__ = False

    def __init__(self, options: TestbedOptions, inventory: Inventory, world: World) -> None:
        self.options = options
        self.world = world
        self.inventory = inventory
        self.programs = tor_program.programs_of(self.inventory)
        self.deployments = options.deployments
        self.pacing = options.pacing
        self.clock = started_now(self.pacing.time_scale)
        self.teaming = teaming_mode()
        self.started_s: dict[str, float] = {}  # seconds that each step of the start took
        self.agents: dict[str, Child] = {}
        self.controller_processes: dict[str, Child] = {}
        self.controllers_joined: set[str] = set()
        self._secret = secrets.token_hex(16)
        self.broken: dict[Failure, Down] = {}
        self._teams: dict[str, Child] = {}
        self._filters: dict[tuple[str | None, str], Program] = {}
        self._groups: dict[str, Cgroup] = {}
        self._processes_started = 0
        self._shaped = False
        self._clients_numbered = 0

    # -- life ----------------------------------------------------------------------------------------------

    @classmethod
    def start(cls, options: TestbedOptions | None = None) -> Testbed:
        """Build and start everything; raises WorldError, NodeError or ExperimentError, leaving nothing behind."""
        options = options or TestbedOptions()
        cluster = options.cluster
        if isinstance(cluster, str):
            racks = len(cluster_named(cluster).racks)
            cluster = cluster_named(cluster, clients=options.clients, controllers=-(-options.controllers // racks))
        inventory = inventory_of(cluster)  # refuses what cannot be before anything is made
        if 0 < len(inventory.of_role("controller")) < options.controllers:
            raise ExperimentError(f"cluster {inventory.cluster} has {len(inventory.of_role('controller'))} controller "
                                  f"nodes; {options.controllers} are needed")
        world = World.start(options.label, options.datapath)
        try:
            bed = cls(options, inventory, world)
            bed._build()
            return bed
        except BaseException:
            world.stop()
            raise

    def stop(self) -> None:
        """End everything; a second call does nothing."""
        try:
            end_network(self.net)
        except Exception:  # of many kinds, as Mininet's nodes may be dead; the world ends what is left of them
            log.debug("the network did not end in its own way", exc_info=True)
        self.world.stop()

    def __enter__(self) -> Testbed:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _build(self) -> None:
        controllers = self.inventory.of_role("controller")
        if not controllers:
            raise ExperimentError(f"cluster {self.inventory.cluster} has no controller node; the testbed needs one")
        with self._timed("total"):
            with self._timed("programs"):
                self._write("inventory.json", self.inventory.to_json())
                self._write("programs.json", tor_program.to_json(self.programs))
                preload = PRELOAD if self.options.orchestrator == "off" else (*PRELOAD, "controller.control_service")
                self.nursery = Nursery(self.world, preload)  # it and the app import while the network is built
                self.start_tor_app()
            with self._timed("nodes and links"):
                self._build_network()
            with self._timed("switches"):
                configure_switches(self.world, self.inventory, OPENFLOW_LISTEN, bonded=self.teaming == "bonding")
                self._shape()
            with self._timed("agents"):
                self.nursery.wait_ready()
                for node in self.inventory.nodes:
                    if node.role in ("client", "controller"):
                        self._set_up(node)
                if self.options.orchestrator != "off":
                    self.start_controller()
                for node in self.inventory.nodes:
                    if node.role not in ("client", "controller"):
                        self._set_up(node)
                controller = controllers[0]
                self.control = ControlPlane(self.net[controller.name].pid, controller.ip)
            with self._timed("ready"):
                self.wait_until_ready()
        self._write_facts()

    def _write_facts(self) -> None:
        node = self.controller_node.name
        BedFacts(self.options.label, self.pacing, self.deployments, node, self.node_pid(node)).write(self.world.run_dir)

    def _build_network(self) -> None:
        self.net = build_network(self.inventory)
        for node in self.net.hosts:
            self.world.adopt(node.pid, f"shell-{node.name}")

    def _set_up(self, entry: NodeEntry) -> None:
        node = self.net[entry.name]
        if self.world.subtree is not None:
            cores = self.pacing.quota_cores(entry, self.inventory)
            group = self._groups[entry.name] = self.world.cgroup(entry.name, cores)
            group.add(node.pid)
        if entry.role in ("client", "controller"):
            set_up_single(node, entry, self.inventory)
            return
        if entry.role == "host":
            self.start_team(entry.name)
        self.start_agent(entry.name)

    def repace(self, pacing: Pacing, deployments: tuple[Deployment, ...] | None = None) -> None:
        """Start all agents anew at another speed or with other deployments, and shape the links to it.

        Emulated time starts at 0 again. No client may be at work. Raises ExperimentError, NodeError or ServiceError;
        what cannot be is refused before anything is changed.
        """
        if pacing.quota_cores(self.inventory.of_role("host")[0], self.inventory) is not None:
            raise ExperimentError("a running testbed cannot change to the quota model: cgroups are set at the start")
        if self.broken:
            raise ExperimentError(f"heal first what is broken: {'; '.join(f.heal_words for f in self.broken)}")
        deployments = self.deployed() if deployments is None else deployments
        for name in self.agents:
            pacing.pace(self.inventory.node(name), self.inventory, self.clock, deployments)
        if pacing.calibrated:
            list(pacing.shaping(self.inventory))
        for name, child in self.agents.items():
            os.kill(child.pid, signal.SIGTERM)
            if self.nursery.status(child, AGENT_END_TIMEOUT_S) is None:
                raise ExperimentError(f"the agent of {name} did not end within {AGENT_END_TIMEOUT_S:g} s")
        self.forget_controller()
        self.pacing = pacing
        self.deployments = deployments
        self.clock = started_now(pacing.time_scale)
        self._shape()
        if self.options.orchestrator != "off":
            self.start_controller()
        for name in list(self.agents):
            self.start_agent(name)
        self.wait_until_ready()
        self._write_facts()

    def _shape(self) -> None:
        """Give every link its rate, in real time; or, where nothing is paced, take limits away."""
        if not self.pacing.calibrated and not self._shaped:
            return
        batches: dict[str | None, list[str]] = {}
        for node, line in self.pacing.shaping(self.inventory):
            batches.setdefault(node, []).append(line)
        if not self._shaped:
            leave_queues_alone(self.world, self.inventory)
        for node, lines in batches.items():
            tc_batch(None if node is None else self.net[node], lines)
        self._shaped = self.pacing.calibrated

    # -- processes ------------------------------------------------------------------------------------------

    def fork(self, order: Order, node: str) -> Child:
        """Run `order` in the namespace and control group of `node`."""
        group = self._groups.get(node)
        procs = tuple(str(d / "cgroup.procs") for d in group.directories) if group else ()
        child = self.nursery.start(msgspec.structs.replace(order, cgroup_procs=procs))
        self.world.adopt(child.pid, order.name)
        return child

    def node_pid(self, name: str) -> int:
        return int(self.net[name].pid)

    def start_agent(self, name: str, again: bool = False) -> None:
        """Start the agent of host or SmartNIC `name`, with its instances.

        `again`, under an orchestrator: with none, since that alone says where instances are to run.
        """
        entry = self.inventory.node(name)
        known = self.deployed() if again else self.deployments
        pace = self.pacing.pace(entry, self.inventory, self.clock, known)
        deployments = tuple(self.present(deployment) for deployment in known) if again else known
        order = agent_order(entry, self.net[name].pid, self.world.run_dir, self.inventory, deployments,
                            self.options.frame_loss, self.pacing.cores_of(entry), self.clock, pace, self.controller_ips,
                            again and self.resource is not None)
        self.agents[name] = self.fork(order, name)
        if again:
            self.tell_of_restart(name)

    def start_team(self, host: str) -> None:
        """Start the teaming process of `host`."""
        entry = self.inventory.node(host)
        self._teams[host] = self.fork(team_order(entry, self.net[host].pid, self.world.run_dir, self.teaming), host)

    def start_tor_app(self) -> None:
        """Start the Ryu app that programs the switches."""
        self.tor_app = self.world.spawn(
            [*python_module("controller.tor_app"), "--programs", str(self.world.run_dir / "programs.json"),
             "--listen", OPENFLOW_LISTEN, "--status", str(self.tor_status_path)], "tor-app")

    def kill_tor_app(self) -> None:
        """Kill the app (SIGKILL), as a crash would."""
        self.tor_app.kill()
        self.tor_app.wait(5)

    @property
    def tor_status_path(self) -> Path:
        return self.world.run_dir / "tor-app.json"

    def tor_status(self) -> TorStatus | None:
        """Return what the app last wrote of itself; None before it wrote anything."""
        try:
            return tor_status.from_json(self.tor_status_path.read_bytes())
        except FileNotFoundError:
            return None

    def unprogrammed(self) -> list[str]:
        """Return the switches that the running app has not (yet) brought to their programs."""
        status = self.tor_status()
        names = [s.name for s in self.inventory.switches]
        return names if status is None or status.pid != self.tor_app.pid else tor_status.unsettled(status, names)

    def deploy(self, deployment: Deployment) -> None:
        """Deploy an application on the running rack, or tell where its instances are now.

        Nothing that runs is restarted. Raises ExperimentError, naming them, for agents that refuse or do not answer,
        MigrationError for an application that is being withdrawn.
        """
        living = [self.inventory.node(name) for name, child in self.agents.items()
                  if self.nursery.status(child) is None]
        if deployment.replicated and self.resource is None:
            raise ExperimentError(f"{deployment.name} cannot be replicated with the orchestrator off")
        deployment = tell(self.control, living, deployment, self.resource)
        self.deployments = (*(d for d in self.deployments if d.number != deployment.number), deployment)
        self._write_facts()

    def withdraw(self, name: str) -> WithdrawalState:
        """Take an application from the running rack; return how that ended, once no node that is there has it.

        Raises MigrationError if it is not there, ExperimentError if there is no orchestrator, or if it takes too long.
        """
        found = withdrawn(self.asked(), name, self.pacing.time_scale)
        self.deployed()
        self._write_facts()
        return found

    # -- load -----------------------------------------------------------------------------------------------

    def start_process(self, node: str, entry: str, config: bytes, name: str = "") -> RunningProcess:
        """Start `entry` ("module:function": config bytes in, result bytes out) as a process of `node`."""
        self._processes_started += 1
        name = f"{name or entry.partition(':')[0].rpartition('.')[2]}-{node}"
        result_path = self.world.run_dir / f"{name}-{self._processes_started}.result"
        order = Order(name, entry, config, self.net[node].pid, str(self.world.run_dir / f"{name}.log"),
                      result_file=str(result_path))
        return RunningProcess(self.nursery, self.fork(order, node), result_path)

    def next_client_number(self) -> int:
        """Return a number that no client of this testbed has had, nor will get by hand."""
        self._clients_numbered += 1
        return FIRST_OWN_CLIENT_NUMBER + self._clients_numbered

    def start_client(self, client: str, config: ClientConfig) -> RunningClient:
        """Start a client process on node `client`; ask for its `result` when it should be done.

        It plays by the testbed's clock, whatever `config` says of that, and knows where instances are now.
        """
        config = msgspec.structs.replace(config, clock=self.clock, ways=self._ways_to(client),
                                         controllers=self.controller_ips,
                                         deployment=self.present(config.deployment))
        return RunningClient(self.start_process(client, CLIENT, msgspec.msgpack.encode(config)))

    def _ways_to(self, client: str) -> dict[bytes, float]:
        if not self.pacing.calibrated:
            return {}
        communication = Communication(self.pacing.assumptions, self.pacing.stack)
        return ways_to(self.inventory.node(client), self.inventory, communication)

    # -- coming up ------------------------------------------------------------------------------------------

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait till switches are programmed, servers' ports have LACP up, agents answer, and a controller decides.

        Where something is replicated, also till it has a backup. Raises ExperimentError, saying what is not ready,
        after `timeout_s` and, for backups, three emulated seconds more.
        """
        replicated = any(deployment.replicated for deployment in self.deployments)
        deadline = time.monotonic() + timeout_s + replicated * REPLICAS_WITHIN_S * self.pacing.time_scale
        silent = [self.inventory.node(n) for n in self.agents]
        missing = "nothing"
        while time.monotonic() < deadline:
            unprogrammed = self.unprogrammed()
            lacp = lacp_members(self.world)
            down = [name for name, up in lacp.items() if not up]
            if unprogrammed or down or len(lacp) < len(self._server_ports()):
                missing = f"switches {unprogrammed}, LACP on {down}"
                time.sleep(0.05)
                continue
            answered = self.control.counters(silent, timeout_s=2.0)
            silent = [n for n in silent if n.name not in answered]
            if not silent and self.undecided():
                missing = "a controller node that decides"
                time.sleep(0.05)
                continue
            unpaired = self.unpaired() if not silent else []
            unheard = self.unheard() if not silent and self._power_switch is None else []
            if not silent and not unpaired and not unheard:
                widen(self.world.switch_pid)  # by now it has sent, and so has its sockets
                self.arm_fencing()
                return
            asked = said_of({node.name: self.agents[node.name].pid for node in silent}, self.world.run_dir)
            missing = (f"agents of {asked}" if silent else f"replicas of {unpaired}" if unpaired
                       else f"heartbeats of {unheard}")
        raise ExperimentError(f"not ready after {timeout_s:g} s: {missing}{complaints(self.world.run_dir)}")

    def _server_ports(self) -> list[str]:
        return [p.interface for h in self.inventory.of_role("host") for p in self.inventory.ports_of_server(h)]

    def has_carrier(self, interface: str) -> bool:
        """Return whether the switch sees its own `interface` as up."""
        return self.world.vsctl("get", "interface", interface, "link_state").strip() == "up"

    def team_status_path(self, host: str) -> Path:
        return team_status_path(self.world.run_dir, host)

    def _write(self, name: str, data: bytes) -> None:
        (self.world.run_dir / name).write_bytes(data)

    @contextlib.contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.started_s[step] = time.monotonic() - start
