"""The failover manager of section 3: who is alive, and who serves and backs up every replicated instance.

    heartbeats' slots --> Membership --lives--> ReplicaControl --views--> nodes
                                                   ^  '--where it is--> all compute nodes, clients
                                                   '-- what nodes say they are, and their clients

Every compute node is told where a replicated instance is: whoever is to run one of its neighbours one day, and that can
be any, then knows. Clients do not answer, so they are told again for a while. See docs/failover.md.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from controller.fault_domains import next_copy, places_of
from controller.membership import Change, Life, Membership
from controller.migration_journal import Entry, Journal, Term, Viewed, of_living
from controller.replica_steps import Group, Happening, Key, Outgoing, ReplicaEntry
from controller.replicas import ReplicaControl
from controller.telling import Tellings
from nodes.control_messages import HEARTBEAT_S, Answer, Command, Refusal, Verb, slot_of_time, unpack_addresses
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.replication_messages import Part, Stands
from nodes.transport import Send, Sends
from topologies.addressing import CONTROL_PORT
from topologies.inventory import Inventory


class _Views:
    """The views in a resource controller's journal, whose run is written down already."""

    def __init__(self, journal: Journal, term: int) -> None:
        self._journal = journal
        self._term = term

    def entries(self) -> list[ReplicaEntry]:
        views: list[ReplicaEntry] = [entry for entry in of_living(self._journal.entries()) if isinstance(entry, Viewed)]
        return [*views, Term(self._term - 1)]

    def append(self, entry: Entry) -> None:
        if not isinstance(entry, Term):
            self._journal.append(entry)


class Failover:
    """Replicas on the nodes of `membership`, which stand at `ips`.

    `epochs` and `term` are those of whoever else decides on instances. `fits` says whether a node has room for one.
    """

    def __init__(self, inventory: Inventory, membership: Membership, ips: dict[str, bytes], journal: Journal, term: int,
                 epochs: dict[Key, int], boots: dict[str, int], fits: Callable[[str, int, int], bool]) -> None:
        self.membership = membership
        self._places = places_of(inventory)
        self.replicas = ReplicaControl(_Views(journal, term), ips, self._places, self.membership.life, epochs, fits)
        self._names = membership.names
        self._ips = ips
        self._term = term
        self._epochs = epochs
        self._tellings: Tellings[Key] = Tellings()
        self._looked = -1
        for name, boot in boots.items():
            self.replicas.booted(name, boot)

    def replicate(self, deployment: Deployment) -> None:
        """Take the replicated instances of a deployment in hand, each with its primary where it is placed at first."""
        for number in deployment.replicated:
            key = deployment.number, number
            if key not in self.replicas.groups:
                self._epochs.setdefault(key, 1)
                self.replicas.found(*key, self._names, deployment.place(number).node)

    def groups(self) -> list[Group]:
        return list(self.replicas.groups.values())

    def primary(self, key: Key) -> str:
        """Return the node that serves a replicated instance; "" where none does, or it is not replicated."""
        group = self.replicas.groups.get(key)
        return group.primary if group is not None else ""

    def booted(self, node: str, boot: int, first: bool, now: float) -> None:
        """Note the run of a node; `first` if no earlier one was heard of."""
        if not first:
            self.membership.restarted(node, now)
        self.replicas.booted(node, boot)

    def fenced(self, node: str) -> None:
        """Note that a node is kept from the network: whoever calls this has seen to it."""
        self.replicas.fenced(node)

    def place_for(self, key: Key, fits: Callable[[str, int, int], bool]) -> str | None:
        """Return where an instance that was lost should begin anew; None where it may not."""
        alive = self.membership.nodes_that_are(Life.ALIVE)
        return next_copy(b"%d/%d" % key, (), self._places, alive, lambda name: fits(name, *key))

    def answered(self, source: bytes, answer: Stands | Answer, now: float, out: Sends) -> None:
        """Take what a node says of a replicated instance."""
        said: Outgoing = []
        self.replicas.answered(source, answer, now, said)
        self._send(said, out)
        if isinstance(answer, Stands) and answer.part == Part.SERVING and answer.refusal == Refusal.NONE:
            self._know_clients(source, answer, now)

    def tick(self, now: float, out: Sends) -> list[Change]:
        """Decide on what is known at `now`; return whose life has changed."""
        self._looked = slot_of_time(now)
        changes = self.membership.tick(now)
        said: Outgoing = []
        self.replicas.tick(now, said)
        self._send(said, out)
        self._tellings.tick(now, out)
        return changes

    def due(self) -> float:
        """Return when the next `tick` is due: when the next slot begins."""
        return (self._looked + 1) * HEARTBEAT_S

    def take_happenings(self) -> list[Happening]:
        """Return what was decided since this was last called."""
        found, self.replicas.happenings = self.replicas.happenings, []
        return found

    def _know_clients(self, source: bytes, answer: Stands, now: float) -> None:
        key = answer.application, answer.instance
        primary = self.primary(key)
        if self._ips.get(primary) != source or self.replicas.groups[key].epoch != answer.epoch:
            return
        clients: list[tuple[bytes, int]] = []
        with suppress(WireError):
            clients = unpack_addresses(answer.payload)
        if clients:
            command = Command(self._term, 0, 0, Verb.CONNECT, *key, answer.epoch, source).encode()
            self._tellings.begin(key, command, clients, now)

    def forget(self, application: int) -> None:
        """Have nothing more to do with an application's instances."""
        for key in [key for key in self.replicas.groups if key[0] == application]:
            self.replicas.forget(key)
            self._tellings.end(key)

    def _send(self, said: Outgoing, out: Sends) -> None:
        out += [Send(self._ips[node], CONTROL_PORT, message.encode()) for node, message in said]
