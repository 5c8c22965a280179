"""Requests that a user has written down, and what a direct evaluation of their application answers to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle

from microservices.application import Application
from microservices.direct import Answer, DirectRun
from microservices.errors import ServiceError
from microservices.workload import Workload

TIME_TRIED_S = 1000.0  # between two requests, to see whether replies depend on it


def expected_answers(application: Application, payloads: Sequence[bytes], step_s: float) -> Iterator[Answer]:
    """Yield what `application` answers to each of `payloads` in turn, `step_s` of emulated time apart."""
    run = DirectRun(application)
    for number, payload in enumerate(payloads):
        yield run.ask(payload, number * step_s)


class PayloadWorkload(Workload):
    """`payloads` in turn, over and over.

    With `application` every reply is held against a run of it in this process, which sees the same requests in the same
    order; so it needs one client with one request under way. Without it every reply will do.
    """

    def __init__(self, payloads: Sequence[bytes], application: Application | None = None) -> None:
        if not payloads:
            raise ServiceError("no payloads; at least one is needed")
        self._payloads = tuple(payloads)
        self._direct = None if application is None else DirectRun(application)

    def requests(self) -> Iterator[bytes]:
        return cycle(self._payloads)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        if self._direct is None:
            return None
        answer = self._direct.ask(request)
        if answer.error is not None:
            return f"expected the error {answer.error!r}, got {_shown(reply)}"
        return None if reply == answer.payload else f"expected {_shown(answer.payload)}, got {_shown(reply)}"

    def check_error(self, request: bytes, error: str) -> str | None:
        if self._direct is None:
            return error
        answer = self._direct.ask(request)
        if answer.error is None:
            return f"expected {_shown(answer.payload)}, got the error {error!r}"
        # An error travels cut to a length that fits its message, perhaps within a character.
        if answer.error.startswith(error.rstrip("\N{REPLACEMENT CHARACTER}")):
            return None
        return f"expected the error {answer.error!r}, got {error!r}"


def _shown(payload: bytes) -> str:
    return repr(payload) if len(payload) <= 80 else f"{payload[:80]!r}... of {len(payload)} bytes"
