"""An application run in this process, one request after another: no network, no placement, no time.

It is how a user tries an application before there is a rack, and what the replies of a rack can be held against.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from microservices.application import Application
from microservices.errors import ServiceError
from microservices.routing import CLIENT, Router
from microservices.service import Request


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply, or the error in its place, and the numbers of the instances that ran, in order."""

    payload: bytes
    error: str | None
    path: tuple[int, ...]


class DirectRun:
    """Primaries of every stage with their state; `states` is by instance number."""

    def __init__(self, application: Application) -> None:
        self.router = Router(application)
        self._instances = {i.number: i for i in application.instances if not i.backup}
        self.states = {n: self.router.services[i.stage].new_state() for n, i in self._instances.items()}

    def ask(self, payload: bytes, now_s: float = 0.0) -> Answer:
        """Run one request and all it sets off. A handler's ServiceError on the answering way becomes the answer."""
        waiting = deque([(payload, self.router.entry(payload))])
        path: list[int] = []
        replies: list[bytes] = []
        errors: list[str] = []
        while waiting:
            body, number = waiting.popleft()
            path.append(number)
            instance = self._instances[number]
            try:
                outputs = self.router.services[instance.stage].handle(Request(body, now_s), self.states[number])
                hops = self.router.next(number, outputs)
            except ServiceError as error:
                if instance.stage in self.router.application.answering:
                    errors.append(str(error))
                continue
            for hop in hops:
                if hop.instance == CLIENT:
                    replies.append(hop.payload)
                else:
                    waiting.append((hop.payload, hop.instance))
        if len(replies) + len(errors) != 1:
            raise ServiceError(f"{len(replies)} replies and {len(errors)} errors to one request; exactly one is due")
        return Answer(replies[0] if replies else b"", errors[0] if errors else None, tuple(path))
