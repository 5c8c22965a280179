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
    """`payloads` in turn, over and over. By itself it takes any reply; a client with an oracle looks closer."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        if not payloads:
            raise ServiceError("no payloads; at least one is needed")
        self._payloads = tuple(payloads)

    def requests(self) -> Iterator[bytes]:
        return cycle(self._payloads)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        return None
