"""How applications come onto the resource controller's rack and go from it, and what it must not do meanwhile."""

from __future__ import annotations

from controller.controller_events import WithdrawalState
from controller.controller_record import ControllerRecord
from controller.errors import MigrationError
from controller.failover import Failover
from controller.migration import MigrationControl
from controller.migration_journal import Added, Journal
from controller.migration_steps import Outgoing
from controller.moving import Moving
from controller.orchestrator import Orchestrator
from controller.overload import OverloadOptions
from controller.telling import Tellings
from controller.whereabouts import Key, Whereabouts
from controller.withdrawal import DRAIN_S, SETTLE_S, State, Withdrawal, WithdrawalControl
from nodes.control_messages import NO_INSTANCE, Answer, Command, Verb, turned_away
from nodes.deployment import Deployment
from nodes.transport import Sends


class ComingAndGoing(Moving):
    """What the resource controller, which inherits it, does about deployments and withdrawals."""

    where: Whereabouts
    deployments: dict[int, Deployment]
    record: ControllerRecord
    control: MigrationControl
    failover: Failover
    withdrawals: WithdrawalControl
    _journal: Journal
    _beside: dict[Key, tuple[str, ...]]  # who holds a copy of a replicated instance
    _nowhere: set[Key]
    _name_of: dict[bytes, str]  # of nodes, by their addresses
    _told: Tellings[int]  # clients of what is withdrawn, by application

    def deploy(self, deployment: Deployment, now: float) -> None:
        """Know the instances of `deployment` from now on; detectors begin anew with all.

        Raises MigrationError for an instance that is known and runs elsewhere: what runs moves by migration only; and
        for an application that is being withdrawn, or was by a later decision than `first_epoch` gives.
        """
        first = self.first_epoch(deployment.number)
        if deployment.since < first or any(place.epoch < first for place in deployment.places):
            raise MigrationError(f"{deployment.name} was withdrawn by decision {first - 1}: only later ones deploy it")
        self.where.add(deployment)
        self._journal.append(Added.of(deployment))
        self.deployments[deployment.number] = deployment
        self._count_from(deployment)
        self._told.end(deployment.number)
        self._renew_orchestrator()
        self.failover.replicate(deployment)
        self.record.tell(now, "deployed", detail=deployment.name)

    def _count_from(self, deployment: Deployment) -> None:
        """Count decisions on instances from those on that have placed them."""
        for place in deployment.places:
            key = deployment.number, place.number
            if place.epoch > self.control.epochs.get(key, 1):
                self.control.epochs[key] = place.epoch

    def withdraw(self, application: str, now: float, out: Sends) -> WithdrawalState:
        """Begin to withdraw an application, by its name; return how that stands. Asking again changes nothing.

        Raises MigrationError, naming those that there are, for one that is not deployed and was not withdrawn.
        """
        number = self.where.number_of(application)
        if number is None:
            found = next((w for w in self.withdrawals.of.values() if w.name == application), None)
            if found is None:
                names = ", ".join(sorted(self.where.applications().values())) or "none"
                raise MigrationError(f"no application {application!r} is deployed; there are {names}")
            return self._stands(found)
        commands: Outgoing = []
        w = self.withdrawals.begin(number, application, now, commands)
        for key in [key for key in self._postponed if key[0] == number]:
            del self._postponed[key]
            self.orchestrator.stayed(*key)
        self._send(commands, out)
        return self._stands(w)

    def withdrawn(self) -> tuple[WithdrawalState, ...]:
        """Return how the last withdrawal of each application stands that is not deployed (again)."""
        known = self.where.applications()
        return tuple(self._stands(w) for w in self.withdrawals.of.values()
                     if not w.is_over or w.application not in known)

    def first_epoch(self, application: int) -> int:
        """Return the earliest decision that may deploy an application; raises MigrationError while it is withdrawn."""
        self._refuse_withdrawn(application)
        return self.withdrawals.first_epoch(application)

    def _cleared(self, source_ip: bytes, answer: Answer, now: float, out: Sends) -> None:
        """Take what a node says to a CLOSE or a WITHDRAW, unless it was said by an earlier run of that node."""
        node = self._name_of.get(source_ip)
        if node is None or answer.boot >= self.control.boots.get(node, 0):
            commands: Outgoing = []
            self.withdrawals.answered(node, answer, now, commands)
            self._send(commands, out)

    def _stands(self, w: Withdrawal) -> WithdrawalState:
        return WithdrawalState(w.application, w.name, w.state.value, w.epoch, tuple(sorted(w.owed)),
                               sum(w.dropped.values()))

    def _refuse_withdrawn(self, application: int) -> None:
        if self.withdrawals.is_going(application):
            w = self.withdrawals.of[application]
            raise MigrationError(f"{w.name} is being withdrawn ({w.state.value})")

    def _begin(self, key: Key, to: str, why: str, now: float, out: Sends) -> int:
        self._refuse_withdrawn(key[0])
        return super()._begin(key, to, why, now, out)

    def _withdrawal_turned(self, w: Withdrawal, why: str, now: float) -> None:
        """Take down that a withdrawal has entered a state, and forget the application where it is to be forgotten."""
        said = {State.SETTLING: f"{why}; what is on its way has {SETTLE_S:g} s to arrive",
                State.CLOSING: f"{why}; requests under way have {DRAIN_S:g} s to be ended, others are turned away",
                State.CLEARING: f"{why}; all nodes are to forget it",
                State.GONE: why}[w.state]
        if w.state is State.CLEARING:
            for m in self.control.forget(w.application):
                self.record.cut_off(m.number)
            self.failover.forget(w.application)
            self.where.remove(w.application)
            self.deployments.pop(w.application, None)
            for table in (self._postponed, self._beside, self.record.alarm_s):
                for key in [key for key in table if key[0] == w.application]:
                    del table[key]
            self._nowhere = {key for key in self._nowhere if key[0] != w.application}
            self._renew_orchestrator()
        elif w.state is State.GONE:
            dropped = sum(w.dropped.values())
            said += f"; {dropped} requests and messages were dropped" + (
                f"; {', '.join(sorted(w.owed))} will be told when back" if w.owed else "")
            self._told.begin(w.application, self._turned_away(w, NO_INSTANCE), w.clients, now)
        self.record.tell(now, w.state.value, detail=f"{w.name}: {said}")

    def _turned_away(self, w: Withdrawal, instance: int) -> bytes:
        return turned_away((w.application, instance), w.epoch, term=self.control.term)

    def _answer_of_withdrawn(self, question: Command) -> bytes | None:
        """Return what a client is told that asks where an instance of a withdrawn application is; None of another."""
        application = question.application
        if question.verb != Verb.WHERE or not self.withdrawals.is_cleared(application) \
                or application in self.where.applications():
            return None
        return self._turned_away(self.withdrawals.of[application], question.instance)

    def _latest_epoch(self, application: int) -> int:
        """Return the latest decision on any instance of an application."""
        return max((epoch for key, epoch in self.control.epochs.items() if key[0] == application), default=1)

    def _holders(self, application: int) -> set[str]:
        """Return the nodes that are to have something of an application."""
        found = {node for key, node in self.where.node_of.items() if key[0] == application}
        found |= {name for g in self.failover.groups() if g.application == application for name in g.members}
        for m in self.control.open.values():
            if m.application == application:
                found |= {m.source, m.destination}
        return found

    def _has_settled(self, application: int) -> bool:
        return not any(m.application == application for m in self.control.open.values())

    def _renew_orchestrator(self) -> None:
        """Let detectors begin anew with the instances that there are now."""
        before = self.orchestrator
        self.orchestrator = self._make_orchestrator(before.options)
        self.orchestrator.gate, self.orchestrator.counters = before.gate, before.counters

    def _make_orchestrator(self, options: OverloadOptions | None) -> Orchestrator:
        raise NotImplementedError
