"""The requests of a replicated instance between their handler and the log: entries in the order of the handlers.

    handler --changes, outputs--> [on its core] --finish--> entry --backup has it--> outputs leave, request acknowledged

On several cores a later request may finish first. Its entry waits for those before it, as its changes follow theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from microservices.routing import Hop
from nodes.execution import Execution
from nodes.instances import RunningInstance
from nodes.messages import KIND_REQUEST, ChannelId, DataMessage
from nodes.outputs import INBOX_LIMIT, LOGGED, Output
from nodes.replica_ledger import Consumed, Entry, Ledger, Way
from nodes.transport import Sends, Transport

Append = Callable[[bytes, object, float], None]  # an entry, what leaves with it, and the time


@dataclass(slots=True)
class Leaving:
    """What an entry lets go: outputs of `request`, or what a session `held` that has begun anew."""

    request: DataMessage | None
    outputs: list[Output]
    held: tuple[ChannelId, list[DataMessage]] | None = None


@dataclass(slots=True)
class _Request:
    """A request that was handled. `finish` is None while it keeps its core."""

    message: DataMessage
    hops: list[Hop]
    changes: bytes
    finish: float | None = None


class RequestLog:
    """Makes entries of what `instance` does. `append` takes them; `has_room` says whether the log takes more."""

    def __init__(self, instance: RunningInstance, ledger: Ledger, execution: Execution, transport: Transport,
                 append: Append, has_room: Callable[[], bool]) -> None:
        self.ledger = ledger
        self.gone = False  # the instance has left
        self.inbox = self  # as full as the log: see HasInbox
        self._instance = instance
        self._execution = execution
        self._transport = transport
        self._append = append
        self._has_room = has_room
        self._serial = 0
        self._pending: dict[bytes, _Request] = {}  # in the order of their handlers

    def __len__(self) -> int:
        return 0 if self._has_room() else INBOX_LIMIT

    def handled(self, message: DataMessage, hops: list[Hop]) -> list[Hop]:
        self._serial += 1
        serial = self._serial.to_bytes(8, "big")
        self._pending[serial] = _Request(message, hops, self._instance.state.take_changes())
        return [Hop(serial, LOGGED)]

    def finished(self, serial: bytes, finish: float) -> None:
        request = self._pending.get(serial)
        if request is None or self.gone:
            return  # it was flushed, or the instance is not ours any more
        request.finish = finish
        while self._pending:
            serial, request = next(iter(self._pending.items()))
            if request.finish is None:
                return
            del self._pending[serial]
            self._log(request, finish)

    def flush(self, now: float) -> None:
        """Log what is still on cores, too: a snapshot of the state has it."""
        pending, self._pending = self._pending, {}
        for request in pending.values():
            self._log(request, now)

    def _log(self, request: _Request, now: float) -> None:
        message, outputs = request.message, self._execution.outputs(self._instance, request.message, request.hops)
        source = self._transport.source_of(message.channel)
        self._enter(Entry(Consumed(message.sender, message.session, message.sequence, *source), request.changes,
                          self._ways(outputs, now), [one.encode() for one, _ in outputs]),
                    Leaving(message, outputs), now)

    def restarted(self, channel: ChannelId, session: int, settled: int, held: list[DataMessage], now: float) -> None:
        """Log that `session` has begun on a channel with what comes after the `settled` messages of the last one."""
        begun = self.ledger.begun(channel.receiver) + settled
        self._enter(Entry(None, b"", [Way(channel.receiver, session, begun, begun)], []),
                    Leaving(None, [], (channel, held)), now)

    def _enter(self, entry: Entry, leaving: Leaving, now: float) -> None:
        self.ledger.note(entry, [one for one, _ in leaving.outputs])
        self._append(entry.encode(), leaving, now)

    def _ways(self, outputs: list[Output], now: float) -> list[Way]:
        found = []
        for channel, to in {message.channel: to for message, to in outputs}.items():
            sender = self._transport.logged_sender(channel, to, now)
            begun = self.ledger.begun(channel.receiver)
            found.append(Way(channel.receiver, sender.session, begun, begun + sender.settled))
        return found

    def release(self, leaving: Leaving, now: float, out: Sends) -> None:
        """Let go what an entry had held."""
        transport, key = self._transport, self._instance.key
        if leaving.held is not None:
            transport.send_held(*leaving.held, now, out)
        for message, to in leaving.outputs:
            if message.kind == KIND_REQUEST:  # it may have moved since
                to = self._execution.address_of(key[0], message.instance) or to
            transport.offer(message, to, now, out)
        if leaving.request is not None:
            request = leaving.request
            transport.logged(request.channel, request.session, request.sequence + 1, now)
