"""Asks the resource controller of a running world, whichever of its nodes decides."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from controller.control_requests import (
    BUFFER_BYTES,
    ONE_OF_SEVERAL,
    SOCKET_NAME,
    AskDeployments,
    AskEvents,
    AskFirstEpoch,
    AskHistory,
    AskPlaces,
    AskRole,
    AskState,
    AskTimelines,
    Deployed,
    Fenced,
    Move,
    Places,
    Question,
    Reply,
    Request,
    Role,
    StartedAgain,
    ToldTimeline,
    Withdraw,
)
from controller.controller_events import ControllerEvent, ControllerState, WithdrawalState
from controller.errors import MigrationError
from controller.migration_journal import Entry
from nodes.deployment import Deployment

QUESTION_S = 1.0  # ours: then another controller node is asked; this one may have died over the question
LOOK_AGAIN_S = 0.02
_numbers = itertools.count()
T = TypeVar("T")


class _GoneError(Exception):
    """Nobody reads from that socket."""


class ControllerClient:
    """Asks the resource controller whose socket, or whose nodes' sockets, stand in `run_dir`.

    Of several nodes the one that decides is asked; while none does, it waits for one, up to `timeout_s`. Raises
    MigrationError with the controller's complaint, or if no answer comes. What is to be done, and not only answered, is
    asked for once: with no answer, it may be done or not.
    """

    def __init__(self, run_dir: Path, timeout_s: float = 5.0) -> None:
        self._run_dir = run_dir
        self._timeout_s = timeout_s
        self._leader = ""  # who answered last

    @property
    def stands(self) -> bool:
        """Whether there is, or was, a controller to be asked."""
        return any((self._run_dir / name).exists() for name in self._sockets())

    def state(self) -> ControllerState:
        return self._asked(AskState(), ControllerState)

    def events(self, after: int = 0) -> Iterator[ControllerEvent]:
        """Yield what has happened after event number `after`, as far as the controller remembers."""
        while found := self._asked(AskEvents(after), list[ControllerEvent]):
            yield from found
            after = found[-1].sequence

    def timelines(self, after: int = 0) -> Iterator[ToldTimeline]:
        """Yield how each migration after number `after` went, or goes."""
        while found := self._asked(AskTimelines(after), list[ToldTimeline]):
            yield from found
            after = found[-1].migration

    def places(self) -> Places:
        return self._asked(AskPlaces(), Places)

    def history(self, migration: int) -> list[Entry]:
        """Return what the journal says of a migration, and which terms have begun since."""
        return self._asked(AskHistory(migration), list[Entry])

    def move(self, instance: str, node: str) -> int:
        """Begin to move an instance; return the migration's number. Raises MigrationError if it cannot be."""
        return self._asked(Move(instance, node), int)

    def deployed(self, deployment: Deployment) -> None:
        self._asked(Deployed(deployment), type(None))

    def deployments(self) -> tuple[Deployment, ...]:
        """Return what is deployed, each as it came: where its instances are now, `places` tells."""
        return self._asked(AskDeployments(), tuple[Deployment, ...])

    def first_epoch(self, application: int) -> int:
        """Return from which decision on an application may be deployed; raises MigrationError while it is withdrawn."""
        return self._asked(AskFirstEpoch(application), int)

    def withdraw(self, application: str) -> WithdrawalState:
        """Begin to withdraw an application; return how that stands. Raises MigrationError if there is none."""
        return self._asked(Withdraw(application), WithdrawalState)

    def started_again(self, node: str) -> None:
        """Say that a node has begun anew, should the controller never have heard of its earlier run."""
        self._asked(StartedAgain(node), type(None))

    def fenced(self, node: str) -> list[str]:
        """Say that a node is kept from the network; return the names of what it ran and has no place elsewhere."""
        return self._asked(Fenced(node), list[str])

    def roles(self) -> dict[str, Role]:
        """Return what each controller node that answers says of itself, by its name."""
        found = {}
        for name in self._sockets():
            with contextlib.suppress(_GoneError, TimeoutError):
                role = _read(self._once(name, AskRole(), QUESTION_S), Role)
                found[role.node] = role
        return found

    def leader(self) -> str:
        """Return the name of the controller node that decides; raises MigrationError if none does in time."""
        return self._asked(AskRole(), Role).node

    # -- within --------------------------------------------------------------------------------------------------------

    def _sockets(self) -> list[str]:
        """Return the names of the sockets to try, that of who answered last first."""
        several = sorted(path.name for path in self._run_dir.glob(ONE_OF_SEVERAL.format("*")))
        return sorted(several, key=lambda name: name != self._leader) or [SOCKET_NAME]

    def _asked(self, request: Request, kind: type[T]) -> T:
        deadline = time.monotonic() + self._timeout_s
        while True:
            names = self._sockets()
            for name in names:
                left_s = max(LOOK_AGAIN_S, deadline - time.monotonic())
                may_repeat = len(names) > 1 and isinstance(request, Question)
                try:
                    reply = self._once(name, request, min(left_s, QUESTION_S) if may_repeat else left_s)
                except _GoneError:
                    continue
                except TimeoutError:
                    if may_repeat:
                        continue
                    raise MigrationError(f"the resource controller did not answer within {self._timeout_s:g} s"
                                         ) from None
                if not reply.follows:
                    self._leader = name
                    return _read(reply, kind)
                self._leader = ONE_OF_SEVERAL.format(reply.leader)
            if len(names) == 1 and names[0] == SOCKET_NAME:
                raise MigrationError(f"no resource controller answers at {self._run_dir / SOCKET_NAME}: is the "
                                     "orchestrator off?")
            if time.monotonic() > deadline:
                raise MigrationError(f"none of {len(names)} controller nodes decides, within {self._timeout_s:g} s")
            time.sleep(LOOK_AGAIN_S)

    def _once(self, name: str, request: Request, timeout_s: float) -> Reply:
        """Ask at one socket; raises _GoneError or TimeoutError."""
        own = self._run_dir / f"ask-{os.getpid()}-{next(_numbers)}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            try:
                asking.bind(str(own))
                asking.settimeout(timeout_s)
                asking.sendto(msgspec.msgpack.encode(request), str(self._run_dir / name))
                return msgspec.msgpack.decode(asking.recv(BUFFER_BYTES), type=Reply)
            except (FileNotFoundError, ConnectionRefusedError):
                raise _GoneError from None
            finally:
                with contextlib.suppress(FileNotFoundError):
                    own.unlink()


def _read(reply: Reply, kind: type[T]) -> T:
    if reply.error:
        raise MigrationError(reply.error)
    return msgspec.msgpack.decode(reply.answer, type=kind)
