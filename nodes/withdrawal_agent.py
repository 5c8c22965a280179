"""A compute node's side of a withdrawal: closes an application to clients, then has nothing of it any more. Pure.

    serves --close--> closed --withdraw--> nothing of it, till it is deployed by a later decision
       '---------------withdraw-----------------^

Closed, it takes no more requests of clients, and ends those that it has: how many those are, the controller asks round
after round. Withdrawn, whatever an instance is here (live, frozen, staged, a backup, half fetched) is forgotten, with
its channels, its addresses and its numbers. What stays is the decision: commands, views and deployments of earlier ones
are refused, however late they come, and clients are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodes.authority import Authority
from nodes.control_messages import Answer, Command, Refusal, Standing, UnderWay, Verb, pack_addresses
from nodes.deployment import Deployment

if TYPE_CHECKING:
    from nodes.migration_agent import MigrationAgent
    from nodes.replication import Replicator
    from nodes.service_runtime import ServiceRuntime

VERBS = (Verb.CLOSE, Verb.WITHDRAW)


class WithdrawalAgent:
    """What a node that runs `services` does when the controller that `authority` obeys takes an application away.

    `agent` and `replicator` are the same node's sides of migration and replication; `boot` is the number of its run.
    """

    def __init__(self, services: ServiceRuntime, agent: MigrationAgent, replicator: Replicator, authority: Authority,
                 boot: int) -> None:
        self._services = services
        self._execution = services.execution
        self._agent = agent
        self._replicator = replicator
        self._authority = authority
        self._boot = boot
        self._ended: dict[int, tuple[int, bytes]] = {}  # by application: requests that were dropped, and their clients
        self._counters = agent.counters  # of all commands that were refused, by reason

    def receive(self, source: bytes, command: Command) -> Answer | None:
        """Obey a CLOSE or WITHDRAW that came from `source`, as often as it comes; None to whoever is no controller."""
        if source not in self._authority.ips:
            self._counters["command not from the controller"] += 1
            return None
        application, epoch = command.application, command.epoch
        if not self._authority.obeys(source, command.term):
            return self._answer(command, Refusal.OLD_TERM)
        if command.verb == Verb.CLOSE:
            if epoch < self._latest(application):
                return self._answer(command, Refusal.OLD_EPOCH)
            self._execution.closed.add(application)
            said = UnderWay(command.size, self.outstanding(application), self._execution.begun(application))
            return self._answer(command, payload=said.packed())
        if epoch >= self._latest(application):
            if self._execution.withdrawn.get(application, 0) < epoch:
                self._withdraw(application, epoch)
        else:
            self._ended.setdefault(application, (0, b""))  # what is here was deployed later
        dropped, clients = self._ended.get(application, (0, b""))
        return self._answer(command, size=dropped, payload=clients)

    def make_way(self, deployment: Deployment) -> None:
        """Have nothing more of what an application was before it was withdrawn, if it is deployed before we know."""
        if self._execution.is_of_another_life(deployment):
            self._withdraw(deployment.number, deployment.since - 1)

    def is_too_late(self, application: int, epoch: int) -> bool:
        """Whether a command or view of the decision `epoch` is about what was withdrawn since; if so it is counted."""
        late = epoch <= self._execution.withdrawn.get(application, 0)
        if late:
            self._counters["of what was withdrawn since"] += 1
        return late

    def outstanding(self, application: int) -> int:
        """Return how many requests and messages of an application are under way here."""
        return self._services.outstanding_of(application) + self._replicator.waiting(application)

    def _latest(self, application: int) -> int:
        return max(self._execution.withdrawn.get(application, 0), self._execution.latest_epoch(application))

    def _withdraw(self, application: int, epoch: int) -> None:
        dropped, clients = self.outstanding(application), self._services.transport.clients(application)
        self._replicator.forget(application)
        self._agent.forget(application)
        self._services.withdraw(application, epoch, clients)
        self._ended[application] = dropped, pack_addresses(clients)

    def _answer(self, command: Command, refusal: Refusal = Refusal.NONE, size: int = 0, payload: bytes = b"") -> Answer:
        if refusal is not Refusal.NONE:
            self._counters[f"refused: {refusal.name.lower().replace('_', ' ')}"] += 1
        return Answer(command.term, self._boot, command.migration, command.verb, Standing.ABSENT, refusal,
                      command.application, command.instance, command.epoch, size, payload=payload)
