"""What a node can be in an instance's replication, and what leads from one to the next (see replication.py)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from nodes.control_messages import Chunk, Fetch
from nodes.fetching import Fetcher
from nodes.replication_log import Follower, Log
from nodes.replication_messages import Append, Part, ReplicationMessage, View

Key = tuple[int, int]
Message = ReplicationMessage | Fetch | Chunk
Outgoing = list[tuple[bytes, Message]]  # (IP, message), for its control port


class Event(Enum):
    """What a view asks of a node, and what happens by itself."""

    FOUND = "serve, with an empty state"
    SERVE = "serve"
    BACK_UP = "back up"
    JOIN = "join"
    FORGET = "have no part"
    RESTORED = "the snapshot is here"
    PLEDGED = "the pledge is here"
    MISFIT = "what came cannot be used"


_P, _E = Part, Event
TRANSITIONS: dict[tuple[Part, Event], Part] = {
    **{(p, _E.FOUND): _P.SERVING for p in Part},
    **{(p, _E.JOIN): _P.JOINING for p in Part},
    **{(p, _E.FORGET): _P.OUT for p in Part},
    (_P.JOINING, _E.RESTORED): _P.CATCHING_UP,
    (_P.CATCHING_UP, _E.PLEDGED): _P.FOLLOWING,
    (_P.FOLLOWING, _E.BACK_UP): _P.FOLLOWING,
    (_P.FOLLOWING, _E.SERVE): _P.SERVING,
    (_P.SERVING, _E.SERVE): _P.SERVING,
    **{(p, _E.MISFIT): _P.OUT for p in (_P.JOINING, _P.CATCHING_UP, _P.FOLLOWING)},
}
BEGINS_ANEW = (_E.FOUND, _E.JOIN, _E.FORGET)  # what the node had of the instance is thrown away


class Local(Protocol):
    """What replication needs of the node's runtime. A complaint is why something cannot be used, None if it can."""

    def found(self, key: Key) -> None:
        """Make the instance with an empty state, and execute its requests from now on."""

    def serve(self, key: Key) -> None:
        """Execute requests from now on, and send again what the entries that were applied had sent."""

    def snapshot(self, key: Key) -> bytes:
        """Return all that the entries up to now have made: state, channels, what was sent and is not settled."""

    def restore(self, key: Key, snapshot: bytes) -> str | None:
        """Become what a snapshot says, without executing anything."""

    def apply(self, key: Key, entry: bytes) -> str | None:
        """Follow by one entry."""

    def release(self, key: Key, outputs: object) -> None:
        """Let leave what was given to `append` with an entry: everybody has the entry who must."""

    def clients(self, key: Key) -> list[tuple[bytes, int]]:
        """Return the addresses of the clients that send to the instance, which serves here."""

    def forget(self, key: Key) -> None:
        """Stop, and throw away all there is of the instance."""


@dataclass(slots=True)
class Here:
    """An instance on this node. `log` and `followers` are a primary's, the rest below is a follower's."""

    part: Part = Part.OUT
    epoch: int = 0
    view: View | None = None
    log: Log = field(default_factory=Log)
    waiting: deque[tuple[int, object]] = field(default_factory=deque)  # outputs, and the position that lets them leave
    followers: dict[bytes, Follower] = field(default_factory=dict)
    next: int = 0
    partial: list[bytes] = field(default_factory=list)  # of the entry that comes
    ahead: dict[int, Append] = field(default_factory=dict)  # came out of order
    fetcher: Fetcher | None = None
    fetches: int = 0  # position at which the snapshot ends that is being fetched
    complaint: str = ""
