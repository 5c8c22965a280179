"""Two racks in virtual time, with the real resource controller, whose parts fail and are mended by the usual words.

    rack 1   r1s1, r1s2   a host and two SmartNICs each    clients r1c1, r1c2    the controller r1ctl1, its journal kept
    rack 2   r2s1, r2s2                                    clients r2c1, r2c2

All that runs is what a testbed runs but for sockets and clocks: runtimes, replication, the controller. A store is
replicated; another one, the bystander, is not, and can be moved. Where replicas stand is looked at in every view when
it is written down, and on the nodes themselves.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple

from controller.controller_events import ControllerEvent
from controller.errors import MigrationError
from controller.fault_domains import faults, places_of
from controller.migration_journal import Viewed
from controller.resource_controller import ResourceController
from experiments.clients.echo_service import NAME as ECHO
from experiments.emulation.orchestrating import placed_as
from experiments.failures.watched_journal import BY_HAND, Key, WatchedJournal
from experiments.measurement.simulated_controller import SimulatedController, SimulatedDesk
from microservices.application import Application, Channel, Stage
from microservices.applications import application_named
from microservices.routing import Router
from nodes.deployment import Deployment, deploy
from nodes.replication_messages import Part
from nodes.simulated import NetworkFaults, Simulation
from nodes.simulated_failing import FailingNetwork, Ill
from nodes.transport import Sends
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type2:2x2/2"
INVENTORY = inventory_of(cluster_named(CLUSTER, clients=2))
PLACES = places_of(INVENTORY)
NODES = tuple(PLACES)
CLIENTS = tuple(entry.name for entry in INVENTORY.of_role("client"))
CONTROLLER = INVENTORY.of_role("controller")[0].name
FORGETFUL = frozenset({"smartnic", "crash", "host", "server"})  # what was in memory is lost
LOSS = 0.3  # of all datagrams over a link
JITTER = NetworkFaults(duplication=0.1, reordering=0.3, delay_s=1e-3, jitter_s=1e-3, reordering_s=0.3)
COSTS_S = ((0.0,), (1e-5, 2e-3))  # of a request, one after the other drawn from these
MOST_FORESIGHT = 8


class Strike(NamedTuple):
    """A failure of `kind` at `names`, mended after `for_s`. The words are those of emulation/failures.py, and:

    "jitter" (over a node's link datagrams are delayed, doubled and overtaken).
    """

    kind: str
    names: tuple[str, ...]
    for_s: float

    def __str__(self) -> str:
        return " ".join((self.kind, *self.names))

    def nodes(self) -> tuple[str, ...]:
        """Return the nodes that it strikes: of a server all, of a partition one side."""
        if self.kind == "server":
            host = INVENTORY.node(self.names[0])
            return (host.name, *(nic.name for nic in INVENTORY.smartnics_of(host)))
        return self.names


BYSTANDER = Application("bystander", 401, (Stage("store", "kvs", 1, 0),), ())
_CHANNELS = (Channel("front", "store"), Channel("store", "last"))
SHAPES = {  # what is replicated
    "store": application_named("kvs", 1, 1), "two shards": application_named("kvs", 2, 1),
    "chain": Application("chain", 402, (Stage("front", ECHO, 1, 1), Stage("store", "kvs", 1, 1),
                                        Stage("last", ECHO, 1, 1)), _CHANNELS),
    "store in a chain": Application("chain", 403, (Stage("front", ECHO, 1, 0), Stage("store", "kvs", 1, 1),
                                                   Stage("last", ECHO, 1, 0)), _CHANNELS)}


@lru_cache(maxsize=len(SHAPES))
def _routers(shape: str) -> dict[int, Router]:
    return {application.number: Router(application) for application in (SHAPES[shape], BYSTANDER)}


class FailingRack:
    """The racks, with a replicated store of one of SHAPES and the bystander, begun on nodes drawn from `seed`."""

    def __init__(self, seed: int, shape: str = "store", usual: NetworkFaults | None = None) -> None:
        draw = random.Random(f"rack {seed}")
        application = SHAPES[shape]
        numbers = [instance.number for instance in application.instances if not instance.backup]
        places = dict(zip(numbers, draw.sample(NODES, len(numbers)), strict=True))
        self.deployment = deploy(application, places, INVENTORY, replicate=True)
        self.bystander = deploy(BYSTANDER, {0: draw.choice(NODES)}, INVENTORY)
        self.keys = [(self.deployment.number, number) for number in self.deployment.replicated]
        self.irreplaceable = {place.node for place in self.deployment.places
                              if place.number not in self.deployment.replicated}  # what they ran would be lost
        self.network = FailingNetwork(INVENTORY, usual, seed)
        costs, self._cost_draw = draw.choice(COSTS_S), random.Random(f"costs {seed}")
        self.simulation = Simulation(
            INVENTORY, [self.deployment, self.bystander], self.network,
            cost=lambda _: lambda *_: self._cost_draw.choice(costs), routers=_routers(shape), controller=CONTROLLER,
            foresight=draw.choice((0, MOST_FORESIGHT)))
        self.bystander_key: Key = BYSTANDER.number, 0
        self.journal = WatchedJournal(PLACES)
        self.control: SimulatedController | None = None
        self.events: list[ControllerEvent] = []
        self.complaints: list[str] = []
        self._off: Counter[str] = Counter()
        self._away = 0  # how many strikes keep the controller dead
        self._present = {one.number: one for one in (self.deployment, self.bystander)}
        self._start_controller()

    @property
    def now(self) -> float:
        return self.network.now

    # -- what is so ----------------------------------------------------------------------------------------------------

    def is_off(self, node: str) -> bool:
        return self._off[node] > 0

    def part(self, key: Key, node: str) -> tuple[int, Part]:
        """Return the epoch of an instance and the part that a node has in it, as itself believes."""
        if self.is_off(node):
            return 0, Part.OUT
        replicator = self.simulation.control_of(node).replicator
        return replicator.epoch(*key), replicator.part(*key)

    def view(self, key: Key) -> Viewed | None:
        return self.journal.views.get(key)

    def paired(self) -> bool:
        """Whether every instance has a primary and a backup that say so, and nothing of it elsewhere."""
        for key in self.keys:
            view = self.view(key)
            if view is None or view.state != "paired":
                return False
            wanted = {view.primary: Part.SERVING, view.backup: Part.FOLLOWING}
            for node in NODES:
                epoch, part = self.part(key, node)
                if part is not wanted.get(node, Part.OUT) or (node in wanted and epoch != view.epoch):
                    return False
        return True

    def missing(self) -> str:
        """Say what is not as it is when nothing fails; "" if all is."""
        if self.control is None:
            return "the controller is dead"
        state = self.control.controller.state(self.now)
        return "; ".join((*(f"{node.name} is {node.life}" for node in state.nodes if node.life != "alive"),
                          *filter(None, [self.unsettled()])))

    def unsettled(self) -> str:
        """Say which instances are not where they are to stay; "" if all are."""
        if self.control is None:
            return "the controller is dead"
        state = self.control.controller.state(self.now)
        unpaired = [] if self.paired() else [f"{r.instance} is {r.state}: {r.primary}, {r.backup}, {r.joiner}"
                                             for r in state.replicas]
        moving = [f"{m.instance} is {m.state}, {', '.join(m.unanswered)} have not answered" for m in state.under_way]
        return "; ".join((*unpaired, *moving))

    def look(self) -> None:
        """Look at the nodes: one serves in each epoch, and who has all in the latest one stands in domains apart.

        A backup that is being replaced counts as long as who replaces it has not got all.
        """
        for key in self.keys:
            parts = [(node, *self.part(key, node)) for node in NODES]
            latest = max(epoch for _, epoch, _ in parts)
            serving = Counter(epoch for _, epoch, part in parts if part is Part.SERVING)
            have = [node for node, epoch, part in parts if epoch == latest and part in (Part.SERVING, Part.FOLLOWING)]
            self._complain([f"{count} nodes serve {key} in epoch {epoch}" for epoch, count in serving.items()
                            if count > 1])
            old, new = self.journal.replacing.get((key, latest), ("", ""))
            counted = [node for node in have if node != old or new not in have]
            self._complain(faults({b"%d/%d" % key: counted}, PLACES))

    def served_once(self) -> list[str]:
        """Say of which instance there is not exactly one that executes, where the controller says."""
        found = []
        for key in self.keys:
            view = self.view(key)
            at = view.primary if view is not None else ""
            if self.runs(key) != [at]:
                found.append(f"{key} is served by {', '.join(self.runs(key)) or 'nobody'}, by its view by {at}")
        key, where = self.bystander_key, self.control.controller.where.node_of if self.control is not None else {}
        if self.runs(key) != [where.get(key)]:
            found.append(f"the bystander runs on {', '.join(self.runs(key)) or 'no node'}, by the controller on "
                         f"{where.get(key)}")
        return found

    def runs(self, key: Key) -> list[str]:
        """Return the nodes that execute an instance."""
        return [node for node in NODES if not self.is_off(node)
                and self.simulation.runtime(node).execution.runs(key)]

    def present(self, deployment: Deployment) -> Deployment:
        """Return a deployment with all where it is, by the controller or, if that is dead, as it said last."""
        if self.control is not None:
            controller = self.control.controller
            places = [(*key, node, controller.control.epochs.get(key, 1))
                      for key, node in controller.where.node_of.items()]
            self._present = {number: placed_as(one, places, INVENTORY) for number, one in self._present.items()}
        return self._present[deployment.number]

    def move(self, node: str) -> None:
        """Let the controller move the bystander, if there is one and it will."""
        if self.control is not None:
            out: Sends = []
            with suppress(MigrationError):
                self.control.controller.move(f"{BYSTANDER.name}/store-1", node, self.now, out, BY_HAND)
            self.network.after(self.control, out)

    # -- what fails ----------------------------------------------------------------------------------------------------

    def fail(self, strike: Strike) -> None:
        network, (first, *_) = self.network, strike.names
        if strike.kind in FORGETFUL:
            for node in strike.nodes():
                self._off[node] += 1
                network.fail(Ill.OFF, node)
                self.simulation.stop(node)
        elif strike.kind in _ILLS:
            network.fail(_ILLS[strike.kind], first)
        elif strike.kind in _TROUBLES:
            network.disturb(first, _TROUBLES[strike.kind])
        elif strike.kind == "partition":
            network.part(frozenset(strike.names))
        else:
            self._away += 1
            if self.control is not None:
                self.present(self.deployment)
                self.hear()
                network.unplug(self.control)
                network.unplug(self._desk)
                self.control = None

    def heal(self, strike: Strike) -> None:
        network, (first, *_) = self.network, strike.names
        if strike.kind in FORGETFUL:
            for node in strike.nodes():
                self._off[node] -= 1
                network.mend(Ill.OFF, node)
                if not self._off[node]:
                    self.simulation.reboot(node, deployments=[self.present(self.deployment),
                                                              self.present(self.bystander)])
                    if self.control is not None:
                        self.control.controller.started_again(node)
        elif strike.kind in _ILLS:
            network.mend(_ILLS[strike.kind], first)
        elif strike.kind in _TROUBLES:
            network.calm(first, _TROUBLES[strike.kind])
        elif strike.kind == "partition":
            network.join(frozenset(strike.names))
        else:
            self._away -= 1
            if not self._away:
                self._start_controller()

    def _start_controller(self) -> None:
        controller = ResourceController(INVENTORY, [self.deployment, self.bystander], self.journal, automatic=False,
                                        controller=CONTROLLER)
        self.control = SimulatedController(INVENTORY.node(CONTROLLER), controller)
        self._desk = SimulatedDesk(self.control.address.ip, controller)
        self.network.plug(self.control)
        self.network.plug(self._desk)
        self.network.after(self.control, [])

    def hear(self) -> None:
        """Take over what the controller has said of itself; a new one begins again to count."""
        if self.control is not None:
            events = self.control.controller.events
            self.events += list(events)
            events.clear()

    def _complain(self, said: Sequence[str]) -> None:
        self.complaints += [f"at {self.now:.3f} s: {one}" for one in said
                            if not any(known.endswith(one) for known in self.complaints)]


_ILLS = {"hang": Ill.HANGS, "link": Ill.NO_LINK, "pcie": Ill.NO_PCIE}
_TROUBLES = {"loss": NetworkFaults(loss=LOSS, delay_s=0.0), "jitter": JITTER}
