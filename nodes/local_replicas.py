"""What the views of replication do to a node's runtime: an instance serves here, follows, or is forgotten.

A backup is a state and a ledger (nodes/replica_ledger.py), and no instance of the engine: it executes nothing, and
acknowledges and sends nothing on any channel. When it is promoted, the ledger's ends of channels become real.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from microservices.errors import StateError
from microservices.state import State
from nodes.channel_logged import LoggedSender
from nodes.errors import NodeError
from nodes.messages import DataMessage
from nodes.replica_ledger import Ledger, decode_entry, decode_image, messages_of
from nodes.replication import Replicator
from nodes.replication_steps import Key, Outgoing
from nodes.request_log import Leaving, RequestLog

if TYPE_CHECKING:
    from nodes.service_runtime import ServiceRuntime


class LocalReplicas:
    """The `Local` of nodes/replication_steps.py. `now` is to be set before each turn of the `replicator`.

    What an entry gives the replicator to say between its turns is in `outgoing`: then `wake` is called.
    """

    replicator: Replicator

    def __init__(self, services: ServiceRuntime, wake: Callable[[float], None]) -> None:
        self.now = 0.0
        self.outgoing: Outgoing = []
        self._services = services
        self._execution = services.execution
        self._transport = services.transport
        self._wake = wake
        self._following: dict[Key, tuple[State, Ledger]] = {}
        self._logs: dict[Key, RequestLog] = {}
        self._transport.restarted = self._restarted

    def found(self, key: Key) -> None:
        self._transport.renew(self._services.boot_now())
        self._serve(key, self._new_state(key), Ledger())

    def serve(self, key: Key) -> None:
        self._serve(key, *self._following.pop(key))

    def snapshot(self, key: Key) -> bytes:
        requests = self._logs[key]
        requests.flush(self.now)
        return requests.ledger.image(self._execution.state(*key).copy_out())

    def restore(self, key: Key, snapshot: bytes) -> str | None:
        try:
            image = decode_image(snapshot)
            state = self._new_state(key)
            state.copy_in(image.snapshot)
            self._following[key] = state, Ledger.of(image)
        except (NodeError, StateError) as error:
            return str(error)
        return None

    def apply(self, key: Key, entry: bytes) -> str | None:
        state, ledger = self._following[key]
        try:
            one = decode_entry(entry)
            outputs = messages_of(one.outputs)
            if one.consumed is not None:
                state.apply_changes(one.changes)
            ledger.note(one, outputs)
            kind = self._execution.kind_of(key)
            assert kind is not None  # the state was made by it
            self._execution.copied(kind[0].services[kind[1].stage].name, len(entry), self.now)
        except (NodeError, StateError) as error:
            return str(error)
        return None

    def release(self, key: Key, outputs: object) -> None:
        requests = self._logs.get(key)
        if requests is not None and isinstance(outputs, Leaving):
            requests.release(outputs, self.now, self._services.pending)
            self._services.changed()

    def clients(self, key: Key) -> list[tuple[bytes, int]]:
        return self._logs[key].ledger.clients()

    def forget(self, key: Key) -> None:
        self._following.pop(key, None)
        requests = self._logs.pop(key, None)
        if requests is None:
            return
        requests.gone = True
        execution = self._execution
        execution.halt(key)
        self._services.hold_back(key, self.now)
        self._transport.take_out_receivers(*key)
        self._transport.take_out(*key)
        execution.take_out(key)
        self._services.changed()

    def _serve(self, key: Key, state: State, ledger: Ledger) -> None:
        """Let the instance live here, with the ends of its channels as the ledger has them."""
        services, execution, transport = self._services, self._execution, self._transport
        own = services.own
        assert own is not None
        state.start_changes()
        execution.put_in(key, state, ())
        instance = execution.instance(key)
        requests = RequestLog(instance, ledger, execution, transport,
                              lambda entry, leaving, now: self._append(key, entry, leaving, now),
                              lambda: self.replicator.has_room(*key))
        instance.replica = self._logs[key] = requests
        execution.connect(key[0])
        if execution.address_of(*key) != own:
            execution.place(key, own, execution.epoch_of(key))
            transport.redirect(*key, own, self.now, services.pending)
        transport.put_in_receivers(*key, ledger.receivers(), {}, self.now)
        senders = ledger.senders(transport.options.window, lambda other: execution.address_of(key[0], other))
        transport.put_in(*key, senders, 0, self.now, services.pending)
        services.changed()

    def _append(self, key: Key, entry: bytes, leaving: object, now: float) -> None:
        self.now = max(self.now, now)
        self.replicator.append(*key, entry, leaving, self.now, self.outgoing)
        if self.outgoing:
            self._wake(self.now)

    def _restarted(self, sender: LoggedSender, settled: int, held: list[DataMessage]) -> None:
        channel = sender.channel
        requests = self._logs.get((channel.application, channel.sender))
        if requests is not None:
            requests.restarted(channel, sender.session, settled, held, self.now)

    def _new_state(self, key: Key) -> State:
        kind = self._execution.kind_of(key)
        if kind is None:
            raise NodeError(f"no instance {key[1]} of an application {key[0]} is known here")
        router, instance = kind
        return router.services[instance.stage].new_state()
