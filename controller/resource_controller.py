"""The resource controller of section 3.4, without a socket or a clock: datagrams in, commands out.

    heartbeats --> Orchestrator --a move--> MigrationControl --commands--> nodes, clients
                                                 ^  '--what happened--> events, timelines
                        answers, fetches, a move by hand

Whoever drives it, a process with a socket or a simulation, does four things:

    controller.receive(source_ip, payload, now, out)   for every datagram that comes to its control port
    controller.asked(source, payload, out)             for every datagram that comes to its data port: a client's
    controller.tick(now, out)                          when `controller.due()` says so, or later
    send each of `out`, in order, from the control port

`now` is emulated seconds and never goes back; `out` takes `nodes.transport.Send` of (IP, port, data). A heartbeat is
kept till the next `tick`, so that those which come together are judged together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from ipaddress import IPv4Address

import numpy as np

from controller.coming_and_going import ComingAndGoing
from controller.controller_events import ControllerState
from controller.controller_record import ControllerRecord
from controller.controller_view import LastReports, replicas_of, under_way
from controller.errors import MigrationError
from controller.failover import Failover
from controller.heartbeats import HeartbeatInbox
from controller.load_table import NOWHERE, NodeTable, PlacedInstance
from controller.membership import Life
from controller.migration import MigrationControl
from controller.migration_journal import Journal, MemoryJournal, with_added
from controller.migration_steps import Outgoing, State
from controller.orchestrator import Move, Orchestrator
from controller.overload import OverloadOptions
from controller.standby import Standby
from controller.surroundings import Around
from controller.telling import Tellings
from controller.whereabouts import Key, Whereabouts
from controller.withdrawal import WithdrawalControl
from nodes import messages
from nodes.artifact import artifact_of
from nodes.control_messages import HEARTBEAT_BYTES, HEARTBEAT_S, KIND_HEARTBEAT, Answer, Command, Fetch, Verb
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.replication_messages import Stands
from nodes.transport import Address, Send, Sends
from topologies.addressing import CONTROL_PORT, is_client
from topologies.inventory import Inventory

MOST_HEARTBEATS = 4096  # kept till they are judged


class ResourceController(ComingAndGoing):
    """Watches the hosts and SmartNICs of `inventory` and moves the instances of `deployments`.

    `journal` is where it goes on from, and what it writes down first; one that lives as long as the object unless one
    is given. With `automatic` false, detectors are heard and their verdicts recorded, and nothing moves but by `move`.
    `controller` names its node, the first of that role unless told. `artifact` gives the bytes to push for a
    microservice; `standby` knows who is alive. Raises MigrationError for a journal of instances that there are not.
    """

    def __init__(self, inventory: Inventory, deployments: Iterable[Deployment] = (), journal: Journal | None = None,
                 automatic: bool = True, options: OverloadOptions | None = None, controller: str = "",
                 artifact: Callable[[str], bytes] = artifact_of, standby: Standby | None = None) -> None:
        entry = inventory.node(controller) if controller else inventory.of_role("controller")[0]
        computing = [n for n in inventory.nodes if n.role in ("host", "smartnic")]
        self.automatic = automatic
        self.where = Whereabouts()
        self.record = ControllerRecord(self.where)
        self.events, self.timelines = self.record.events, self.record.timelines
        self._tell = self.record.tell
        self.names = [n.name for n in computing]
        self._index = {name: i for i, name in enumerate(self.names)}
        self._roles = [n.role for n in computing]
        self._artifact = artifact
        self._counts: Counter[str] = Counter()
        self._beats = HeartbeatInbox()
        self._reports = LastReports(len(computing))
        self._postponed: dict[Key, tuple[str, str]] = {}  # decided moves that wait for a neighbour: where to, and why
        self._beside: dict[Key, tuple[str, ...]] = {}  # who holds a copy of a replicated instance: that takes memory
        self._nowhere: set[Key] = set()  # what was lost with its node, and has no place yet
        self._settled = False  # something has, since postponed moves were looked at
        self._again: set[int] = set()  # nodes that began anew, as somebody said, and have not been heard of since
        ips = {n.name: IPv4Address(n.ip).packed for n in computing}
        self._name_of = {ip: name for name, ip in ips.items()}
        hosts = np.array([self._index[inventory.host_of(n).name] for n in computing], dtype=np.int32)
        self._nodes = NodeTable(np.array([int.from_bytes(ips[name], "big") for name in self.names], dtype=np.uint32),
                                hosts, np.array([n.rack for n in computing], dtype=np.int32),
                                np.array([n.memory_gb * 1024 for n in computing]))
        self._journal = journal = journal or MemoryJournal()
        deployments = with_added(deployments, journal.entries())
        self.deployments = {deployment.number: deployment for deployment in deployments}
        for deployment in deployments:
            self.where.add(deployment)
        standby = standby or Standby(inventory)
        self._around = Around(self.where, self.names, standby.membership.life)
        self.control = self._around.control = MigrationControl(journal, ips, IPv4Address(entry.ip).packed,
                                                               self._binary_of, self._done, around=self._around)
        for m in self.control.open.values():
            self.where.node_of[m.key] = m.owner or m.source
        for deployment in deployments:
            self._count_from(deployment)
        self._boots = np.array([self.control.boots.get(name, -1) for name in self.names], dtype=np.int64)
        self.orchestrator = self._make_orchestrator(options)
        self.orchestrator.gate = standby.gate
        self.failover = Failover(inventory, standby.membership, ips, journal, self.control.term, self.control.epochs,
                                 self.control.boots, self._fits)
        for deployment in deployments:
            self.failover.replicate(deployment)
        self._told: Tellings[int] = Tellings()
        self.withdrawals = WithdrawalControl(journal, self.names, standby.membership.life, self.control.term,
                                             self._latest_epoch, self._holders, self._has_settled,
                                             self._withdrawal_turned)
        self._follow_replicas()

    def _make_orchestrator(self, options: OverloadOptions | None) -> Orchestrator:
        movable = options.movable if options is not None else ()
        placed = [PlacedInstance(*key, self._index[self.where.node_of[key]], one.memory_mb,
                                 not one.host_only and key not in self.where.replicated
                                 and (not movable or one.service in movable))
                  for key, one in self.where.instances.items()]
        made = Orchestrator(self._nodes, placed, options)
        made.boots[:] = self._boots
        made.watch = self._reports.note
        for m in self.control.open.values():
            if m.state is not State.FINISHING and m.destination != self.where.node_of[m.key]:
                made.begun(*m.key, self._index[m.destination])
        for key, (to, _) in self._postponed.items():
            made.begun(*key, self._index[to])
        for key, names in self._beside.items():
            for name in names:
                made.table.hold(self._index[name], self.where.instances[key].memory_mb)
        return made

    # -- what comes in -------------------------------------------------------------------------------------------------

    def receive(self, source_ip: bytes, payload: bytes, now: float, out: Sends) -> None:
        """Take a datagram that came to the control port from `source_ip` (4 bytes), which the ToR vouches for."""
        if len(payload) == HEARTBEAT_BYTES and payload[3] == KIND_HEARTBEAT:
            self._beats.add(source_ip, payload, now)
            if len(self._beats) >= MOST_HEARTBEATS:
                self._judge(now, out)
            return
        try:
            message = messages.decode(payload)
        except WireError:
            self._counts["undecodable"] += 1
            return
        if isinstance(message, Answer) and message.verb in (Verb.CLOSE, Verb.WITHDRAW):
            self._cleared(source_ip, message, now, out)
        elif isinstance(message, Stands) or (isinstance(message, Answer) and not message.migration):
            self.failover.answered(source_ip, message, now, out)
            self._follow_replicas()
        elif isinstance(message, Answer):
            commands: Outgoing = []
            self.control.answered(source_ip, message, now, commands)
            self._send(commands, out)
        elif isinstance(message, Fetch):
            chunk = self.control.fetch(source_ip, message)
            if chunk is not None:
                out.append(Send(source_ip, CONTROL_PORT, chunk.encode()))
        else:
            self._counts["not_for_a_controller"] += 1

    def asked(self, source: Address, payload: bytes, out: Sends) -> None:
        """Take a datagram that came to the data port, from a client that asks where an instance is; answer there."""
        answer = None
        with suppress(WireError):
            question = messages.decode(payload)
            if isinstance(question, Command) and is_client(source.ip):
                place = self._around.answer(question)
                answer = place.encode() if place is not None else self._answer_of_withdrawn(question)
        if answer is None:
            self._counts["unanswerable"] += 1
        elif not self.control.deposed:
            out.append(Send(*source, answer))

    def due(self) -> float:
        """Return when `tick` has something to do."""
        times = (self._beats.since, self.control.due(), self.failover.due(), self.withdrawals.due())
        return min(t for t in times if t is not None)

    def tick(self, now: float, out: Sends) -> None:
        """Judge the heartbeats that have come in, and do what is due in migrations and about who is silent."""
        self._judge(now, out)
        if now >= self.failover.due():
            for change in self.failover.tick(now, out):
                if change.after is Life.DEAD or (change.before, change.after) == (Life.JOINING, Life.ALIVE):
                    self._tell(now, change.after.name.lower(), change.node, detail=change.why.value)
            self._follow_replicas()
            if self._nowhere:
                self._begin_anew(now, out)
        self._told.tick(now, out)
        commands: Outgoing = []
        self.control.tick(now, commands)
        self.withdrawals.silent = self.control.deposed or self.failover.replicas.deposed
        self.withdrawals.tick(now, commands)
        self._send(commands, out)

    def declared_dead(self, node: str, now: float, out: Sends) -> list[str]:
        """Note that a node is dead and kept from the network: whoever calls this has seen to it.

        What it ran alone is made anew, with nothing, where there is room. Returns the names of what has no place; they
        get one as soon as there is room.
        """
        commands: Outgoing = []
        self.failover.fenced(self._known(node))
        self.control.declared_dead(node, now, commands)
        self._send(commands, out)
        return self._begin_anew(now, out)

    def _begin_anew(self, now: float, out: Sends) -> list[str]:
        """Make what ran alone on nodes that are dead anew where there is room; return the names of what has no place.

        Whatever became of an instance before: what counts is that no migration of it is under way that can still end.
        """
        waiting = {m.key: m for m in self.control.stranded()}
        lost = {key: m.owner for key, m in waiting.items()} | {
            key: node for key, node in self.where.node_of.items()
            if node in self.control.dead and key not in self.control.of_instance and key not in self.where.replicated}
        lost = {key: node for key, node in lost.items() if not self.withdrawals.is_going(key[0])}
        before, self._nowhere = self._nowhere, set()
        for key, dead in sorted(lost.items()):
            to = self.failover.place_for(key, self._fits)
            if to is not None or key not in before:
                self._tell(now, "nowhere", dead, self.where.name_of(key), detail="all that it held is lost; "
                           + (f"it begins anew on {to}" if to else "no living node has room for it"))
            if to is None:
                self._nowhere.add(key)
                continue
            self._postponed.pop(key, None)
            self.orchestrator.stayed(*key)  # at a place that was set aside for it before
            commands: Outgoing = []
            self.control.replace(*key, dead, to, self._around.to_tell(key, to), now, commands)
            self.orchestrator.begun(*key, self._index[to])
            if key in waiting:
                self.record.lost(waiting[key].number)
            self._send(commands, out)
        return [self.where.name_of(key) for key in sorted(self._nowhere)]

    # -- by hand -------------------------------------------------------------------------------------------------------

    def move(self, instance: str, node: str, now: float, out: Sends, why: str = "by hand") -> int:
        """Begin to move an instance, called APPLICATION/INSTANCE or INSTANCE, to `node`; return the migration's number.

        Raises MigrationError if it is there, does not fit, is pinned to hosts, or if it or a neighbour is on its way.
        """
        key = self.where.key_of(instance)
        if key in self._postponed:
            raise MigrationError(f"{self.where.name_of(key)} is to move to {self._postponed[key][0]} already")
        if key in self.where.replicated:
            raise MigrationError(f"{self.where.name_of(key)} is replicated: where it is, views decide")
        known, index, table = self.where.instances[key], self._index[self._known(node)], self.orchestrator.table
        free_mb = float(table.free_mb[index])
        if known.host_only and self._roles[index] != "host":
            raise MigrationError(f"{known.name} runs on hosts only; {node} is a {self._roles[index]}")
        if node != self.where.node_of[key] and free_mb < known.memory_mb:
            raise MigrationError(f"{node} has {free_mb:g} MB free, {known.name} needs {known.memory_mb:g}")
        number = self._begin(key, node, why, now, out)
        self.orchestrator.begun(*key, index)
        return number

    def started_again(self, node: str) -> None:
        """Note that the run of a node that is heard of next is not its first, also if no other was ever heard of."""
        self._again.add(self._index[self._known(node)])

    def _known(self, node: str) -> str:
        if node not in self._index:
            raise MigrationError(f"no host or SmartNIC {node!r}; there are {', '.join(self.names[:8])}"
                                 + (f", ... ({len(self.names)} in all)" if len(self.names) > 8 else ""))
        return node

    # -- how everything is ---------------------------------------------------------------------------------------------

    def state(self, now: float) -> ControllerState:
        """Return how every node and migration is at `now`."""
        nodes = self._reports.states(self.names, self._roles, self.orchestrator, self.where, self.failover,
                                     now)
        moving = tuple(under_way(m, self.where.name_of(m.key), self.timelines.get(m.number), now)
                       for m in self.control.open.values())
        return ControllerState(now, self.control.term, self.automatic, self.control.deposed, nodes, moving,
                               self.counts(), replicas_of(self.failover, self.where), self.withdrawn())

    def counts(self) -> dict[str, int]:
        """Return what was taken, decided and refused, by name."""
        return {**asdict(self.orchestrator.counters),
                **{f"refused_{what}": count for what, count in asdict(self.orchestrator.gate.refused).items()},
                "refused_answers_and_fetches": self.control.refused + self.withdrawals.refused,
                **{f"refused_{what}": self._counts[what] for what in ("undecodable", "not_for_a_controller",
                                                                             "unanswerable")}}

    # -- within --------------------------------------------------------------------------------------------------------

    def _judge(self, now: float, out: Sends) -> None:
        """Let the orchestrator take the heartbeats that are kept, and do what it decides."""
        if self._beats.since is None:
            return
        moves = self.orchestrator.take(*self._beats.take(), now)
        self.orchestrator.reboots.clear()  # told by the boot numbers, with those that are heard for the first time
        for i in np.flatnonzero(self.orchestrator.boots != self._boots).tolist():
            self._booted(i, int(self.orchestrator.boots[i]), now, out)
        for move in moves:
            self._decided(move, now, out)

    def _booted(self, index: int, boot: int, now: float, out: Sends) -> None:
        """Note a node's run; what it ran before and never moved is made afresh there, all else is the control's."""
        name, first = self.names[index], self._boots[index] < 0 and index not in self._again
        if boot < self._boots[index]:
            return  # the clock of who counts boots has gone back: nothing that is said can be believed to be later
        self._boots[index] = boot
        self._again.discard(index)
        commands: Outgoing = []
        self.control.booted(name, boot, now, commands)
        self.failover.booted(name, boot, first, now)
        if not first:
            self._tell(now, "rebooted", node=name, detail=f"it is in run {boot}; what it held is gone")
            self.withdrawals.booted(name)
            moved = {m.key for m in (*self.control.open.values(), *self.control.closed.values())}
            for key in self.where.on(name):
                if key not in moved and key not in self.where.replicated and not self.withdrawals.is_going(key[0]):
                    self.control.restart(*key, name, self._around.to_tell(key), now, commands)
        self._send(commands, out)

    def _decided(self, move: Move, now: float, out: Sends) -> None:
        """Carry out what the orchestrator wants, or say why it is not done."""
        node, key = self.names[move.node], (move.application, move.number)
        if move.to == NOWHERE:
            self._tell(now, "verdict", node, detail=f"{move.cause}; nothing moves: {move.why}")
            return
        to = self.names[move.to]
        said = f"{move.cause}: to {to}, {move.why}"
        try:
            if not self.automatic:
                raise MigrationError("the controller only watches")
            why = f"{move.cause}; {move.why}"
            self.record.alarm_s[key] = move.slot * HEARTBEAT_S
            neighbour = self._neighbour_on_its_way(key)
            if neighbour:
                self._postponed[key] = to, why
                said += f"; when {neighbour}, its neighbour, has settled"
            self._tell(now, "verdict", node, self.where.name_of(key), detail=said)
            if not neighbour:
                self._begin(key, to, why, now, out)
        except MigrationError as error:
            self.orchestrator.stayed(*key)
            self._tell(now, "verdict", node, self.where.name_of(key), detail=f"{said}; not done: {error}")

    def _follow_replicas(self) -> None:
        """Note where replicated instances are served and copied now, and say what was decided about them."""
        for g in self.failover.groups():
            before = self._beside.get(g.key, ())
            if before != g.beside:
                self._beside[g.key] = g.beside
                for names, sign in ((before, -1), (g.beside, 1)):
                    for name in names:
                        self.orchestrator.table.hold(self._index[name], sign * self.where.instances[g.key].memory_mb)
            if g.primary and self.where.node_of[g.key] != g.primary:
                self.where.node_of[g.key] = g.primary
                self.orchestrator.arrived(*g.key, self._index[g.primary])
        for h in self.failover.take_happenings():
            key = h.application, h.instance
            self._tell(h.now_s, h.what, self.failover.primary(key), self.where.name_of(key),
                       detail=f"epoch {h.epoch}: {h.detail}")

    def _fits(self, node: str, application: int, number: int) -> bool:
        """Say whether a node may and can run one more instance."""
        known, index = self.where.instances[application, number], self._index[node]
        if self.withdrawals.is_going(application):
            return False
        return node not in self.control.dead and (not known.host_only or self._roles[index] == "host") \
            and float(self.orchestrator.table.free_mb[index]) >= known.memory_mb

    def _binary_of(self, application: int, number: int) -> bytes:
        known = self.where.instances.get((application, number))
        if known is None:
            raise MigrationError(f"the journal tells of instance {application}/{number}, which no deployment has")
        return self._artifact(known.service)
