"""What an operator asks a running resource controller, and its answers: datagrams on a Unix socket, in msgpack.

The socket stands in the world's run directory, which is root's alone: nothing in the emulated network reaches it.
"""

from __future__ import annotations

import socket
from pathlib import Path

import msgspec

from controller.timeline import Timeline
from nodes.deployment import Deployment

SOCKET_NAME, ONE_OF_SEVERAL = "controller.sock", "controller-{}.sock"
POWER_SOCKET_NAME = "power.sock"  # takes the names of nodes that are to be cut off; answered with Fenced
MOST_AT_ONCE = 200  # events or timelines in one answer
BUFFER_BYTES = 4 << 20  # ours: the state of a large rack is one datagram


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


class AskHistory(msgspec.Struct, frozen=True, tag=True):
    """What does the journal say of a migration, and which terms began since? Answered with its entries."""

    migration: int


class AskRole(msgspec.Struct, frozen=True, tag=True):
    """Do you decide? Answered with a Role, by every controller node."""


class Move(msgspec.Struct, frozen=True, tag=True):
    """Move an instance to a node. Answered with the migration's number, once it has begun."""

    instance: str
    node: str


class Deployed(msgspec.Struct, frozen=True, tag=True):
    """An application was deployed beside what runs. Answered with nothing."""

    deployment: Deployment


class AskDeployments(msgspec.Struct, frozen=True, tag=True):
    """What is deployed? Answered with the deployments, each as it came; where all is now, AskPlaces tells."""


class AskFirstEpoch(msgspec.Struct, frozen=True, tag=True):
    """From which decision on may application number `application` be deployed? Answered with it, or with why not."""

    application: int


class Withdraw(msgspec.Struct, frozen=True, tag=True):
    """Withdraw the application of that name. Answered with a WithdrawalState, once it has begun."""

    application: str


class StartedAgain(msgspec.Struct, frozen=True, tag=True):
    """A node was started again, with nothing: its next heartbeat is of another run. Answered with nothing."""

    node: str


class Fenced(msgspec.Struct, frozen=True, tag=True):
    """A node is kept from the network for good. Answered with the names of what it ran and has no place elsewhere."""

    node: str


class Role(msgspec.Struct, frozen=True):
    """Whether controller node `node` decides, who does as far as it knows ("" if it does not), and how many it holds
    for `alive` of the hosts and SmartNICs."""

    node: str
    decides: bool
    leader: str
    alive: int = 0


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


# What can be asked twice.
Question = (AskState | AskEvents | AskTimelines | AskPlaces | AskHistory | AskRole | AskDeployments
            | AskFirstEpoch)
Request = Question | Move | Deployed | Withdraw | StartedAgain | Fenced
Places = list[tuple[int, int, str, int]]


class Reply(msgspec.Struct, frozen=True):
    """The answer, or in `error` why there is none; `follows` if that is because this node does not decide."""

    answer: msgspec.Raw = msgspec.Raw(b"\xc0")
    error: str = ""
    follows: bool = False
    leader: str = ""  # of one that follows: whom to ask, if it knows


def decode_request(data: bytes) -> Request:
    """Read a request; raises one of UNREADABLE for anything else."""
    return msgspec.msgpack.decode(data, type=Request)


def encode_reply(answer: object = None, error: str = "", follows: bool = False, leader: str = "") -> bytes:
    return msgspec.msgpack.encode(Reply(msgspec.Raw(msgspec.msgpack.encode(answer)), error, follows, leader))


def listen(path: Path) -> socket.socket:
    """Return the socket that the controller reads requests from; whatever an earlier run left there is removed."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(path))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    return made
