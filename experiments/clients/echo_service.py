"""A microservice that costs nothing: what a chain of it takes is communication alone (Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from microservices.application import Application, Channel, Stage
from microservices.measured import Profile
from microservices.service import Microservice, Output, Request
from microservices.state import State

NAME = "experiments.clients.echo_service:Echo"
LONE_NUMBER, CHAIN_NUMBER = 900, 901


class Echo(Microservice):
    """Passes on what it gets, in no emulated time."""

    name: ClassVar[str] = "echo"
    memory_mb: ClassVar[float] = 1.0
    profile: ClassVar[Profile | None] = Profile.everywhere(0.0)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        return (Output(request.payload),)


def lone() -> Application:
    """Return one echo, which answers the client."""
    return Application("lone", LONE_NUMBER, (Stage("there", NAME),), ())


def chain() -> Application:
    """Return there -> away -> back: with the ends on one node, a round trip between it and that of the middle."""
    return Application("chain", CHAIN_NUMBER, (Stage("there", NAME), Stage("away", NAME), Stage("back", NAME)),
                       (Channel("there", "away"), Channel("away", "back")))
