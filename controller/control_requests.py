"""What an operator asks a running resource controller, and its answers: datagrams on a Unix socket, in msgpack.

The socket stands in the world's run directory, which is root's alone: nothing in the emulated network reaches it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from controller.controller_events import ControllerEvent, ControllerState
from controller.errors import MigrationError
from controller.timeline import Timeline
from nodes.deployment import Deployment

SOCKET_NAME = "controller.sock"
POWER_SOCKET_NAME = "power.sock"  # takes the names of nodes that are to be cut off; answered with Fenced
MOST_AT_ONCE = 200  # events or timelines in one answer
BUFFER_BYTES = 4 << 20  # ours: the state of a large rack is one datagram
_numbers = itertools.count()


class AskState(msgspec.Struct, frozen=True, tag=True):
    """How is everything? Answered with a ControllerState."""


class AskEvents(msgspec.Struct, frozen=True, tag=True):
    """What has happened after event number `after`? Answered with the next MOST_AT_ONCE events."""

    after: int = 0


class AskTimelines(msgspec.Struct, frozen=True, tag=True):
    """How did the migrations after number `after` go? Answered with the next MOST_AT_ONCE `ToldTimeline`."""

    after: int = 0


class AskPlaces(msgspec.Struct, frozen=True, tag=True):
    """Where is everything? Answered with [application, instance, node, epoch of that decision] of each instance."""


class Move(msgspec.Struct, frozen=True, tag=True):
    """Move an instance to a node. Answered with the migration's number, once it has begun."""

    instance: str
    node: str


class Deployed(msgspec.Struct, frozen=True, tag=True):
    """An application was deployed beside what runs. Answered with nothing."""

    deployment: Deployment


class StartedAgain(msgspec.Struct, frozen=True, tag=True):
    """A node was started again, with nothing: its next heartbeat is of another run. Answered with nothing."""

    node: str


class Fenced(msgspec.Struct, frozen=True, tag=True):
    """A node is kept from the network for good. Answered with the names of what it ran and has no place elsewhere."""

    node: str


class ToldTimeline(msgspec.Struct, frozen=True):
    """A `timeline.Timeline` as it travels."""

    migration: int
    instance: str
    source: str
    destination: str
    why: str
    outcome: str
    owner: str
    state_bytes: int
    began_s: float
    steps_s: dict[str, float]

    @staticmethod
    def of(line: Timeline) -> ToldTimeline:
        return ToldTimeline(line.migration, line.instance, line.source, line.destination, line.why, line.outcome,
                            line.owner, line.state_bytes, min(line.at.values()), dict(line.steps_s))


Request = AskState | AskEvents | AskTimelines | AskPlaces | Move | Deployed | StartedAgain | Fenced
Places = list[tuple[int, int, str, int]]
T = TypeVar("T")


class Reply(msgspec.Struct, frozen=True):
    """The answer, or in `error` why there is none."""

    answer: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""


def decode_request(data: bytes) -> Request:
    """Read a request; raises msgspec.MsgspecError for anything else."""
    return msgspec.msgpack.decode(data, type=Request)


def encode_reply(answer: object = None, error: str = "") -> bytes:
    return msgspec.msgpack.encode(Reply(msgspec.Raw(msgspec.msgpack.encode(answer)), error))


def listen(path: Path) -> socket.socket:
    """Return the socket that the controller reads requests from; whatever an earlier run left there is removed."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return made


class ControllerClient:
    """Asks the resource controller whose socket stands in `run_dir`."""

    def __init__(self, run_dir: Path, timeout_s: float = 5.0) -> None:
        self._run_dir = run_dir
        self._timeout_s = timeout_s

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

    def move(self, instance: str, node: str) -> int:
        """Begin to move an instance; return the migration's number. Raises MigrationError if it cannot be."""
        return self._asked(Move(instance, node), int)

    def deployed(self, deployment: Deployment) -> None:
        self._asked(Deployed(deployment), type(None))

    def started_again(self, node: str) -> None:
        """Say that a node has begun anew, should the controller never have heard of its earlier run."""
        self._asked(StartedAgain(node), type(None))

    def fenced(self, node: str) -> list[str]:
        """Say that a node is kept from the network; return the names of what it ran and has no place elsewhere."""
        return self._asked(Fenced(node), list[str])

    def _asked(self, request: Request, kind: type[T]) -> T:
        """Return the answer to `request`; raises MigrationError with the controller's complaint, or if none comes."""
        to = self._run_dir / SOCKET_NAME
        own = self._run_dir / f"ask-{os.getpid()}-{next(_numbers)}.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            try:
                asking.bind(str(own))
                asking.settimeout(self._timeout_s)
                asking.sendto(msgspec.msgpack.encode(request), str(to))
                data = asking.recv(BUFFER_BYTES)
            except (FileNotFoundError, ConnectionRefusedError):
                raise MigrationError(f"no resource controller answers at {to}: is the orchestrator off?") from None
            except TimeoutError:
                raise MigrationError(f"the resource controller did not answer within {self._timeout_s:g} s") from None
            finally:
                with contextlib.suppress(FileNotFoundError):
                    own.unlink()
        reply = msgspec.msgpack.decode(data, type=Reply)
        if reply.error:
            raise MigrationError(reply.error)
        return msgspec.msgpack.decode(reply.answer, type=kind)
