"""What the reply to each request must be: the application's graph evaluated directly, one request at a time.

Written apart from the runtime and its routing tables: it follows the answering channels of the graph itself.
Side branches are left out, since nothing leads back from them to a reply (Application checks that). It holds for
a client that waits for each reply before it sends the next request, with the application to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microservices.application import Application
from microservices.errors import ServiceError
from microservices.service import REPLY, Output, Request, new_service
from microservices.sharding import shard_of


@dataclass(frozen=True, slots=True)
class Expected:
    """The reply, or the error that comes in its place."""

    payload: bytes
    error: str = ""


class Oracle:
    """The answering stages of `application`, each shard with its own state."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._services = {s.name: new_service(s.service, **s.options) for s in application.stages}
        self._shards = {s.name: s.shards for s in application.stages}
        self._states = {(s.name, shard): self._services[s.name].new_state()
                        for s in application.stages for shard in range(s.shards)}

    def ask(self, payload: bytes, now: float) -> Expected:
        """Return what the application must answer to `payload`, asked at `now` (emulated seconds)."""
        stage: str | None = self._application.sources[0]
        shard = self._shard(self._application.sources[0], payload)
        while stage is not None:
            try:
                outputs = self._services[stage].handle(Request(payload, now), self._states[stage, shard])
            except ServiceError as error:
                return Expected(b"", str(error))
            payload, stage, shard = self._onward(stage, shard, outputs)
        return Expected(payload)

    def complaint(self, payload: bytes, reply: bytes, is_error: bool, now: float) -> str | None:
        """Ask, and return how `reply` (or error text, cut to what a message carries) differs; None if it does not."""
        expected = self.ask(payload, now)
        if is_error:
            error = reply.decode(errors="replace").rstrip("\N{REPLACEMENT CHARACTER}")  # may be cut within a character
            right = bool(expected.error) and expected.error.startswith(error)
        else:
            right = not expected.error and expected.payload == reply
        if right:
            return None
        due = f"the error {expected.error!r}" if expected.error else _shown(expected.payload)
        return f"expected {due}, got {'the error ' if is_error else ''}{_shown(reply)}"

    def _shard(self, stage: str, payload: bytes) -> int:
        return shard_of(self._services[stage].key_of(payload), self._shards[stage])

    def _onward(self, stage: str, shard: int, outputs: Sequence[Output]) -> tuple[bytes, str | None, int]:
        """Return the one output that leads to the reply, and where it goes; None for the client."""
        answering = [c for c in self._application.channels if c.source == stage and c.answers]
        for payload, to in outputs:
            if to == REPLY:
                return payload, None, 0
            if to is not None and all(c.target != to for c in answering):
                continue  # for a side branch
            for channel in answering:
                if channel.trigger is None or channel.trigger.fires(payload):
                    onward = shard if channel.aligned else self._shard(channel.target, payload)
                    return payload, channel.target, onward
            return payload, None, 0
        raise ServiceError(f"{stage} gave no output that leads to a reply")


def _shown(payload: bytes) -> str:
    return repr(payload) if len(payload) <= 80 else f"{payload[:80]!r}... of {len(payload)} bytes"
