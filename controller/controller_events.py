"""What a resource controller tells of itself: events as they happen, and how everything is at present."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ControllerEvent:
    """Something that happened, at `now_s` of emulated time.

    `what` is "verdict" (a detector asks for relief of `node`; `detail` says what is done about it), "rebooted" (a node
    has lost what it ran), "deployed", or a step of migration number `migration`: "begin", the state that it entered,
    "reconnected" or "done"; "dead" or "alive" (of `node`, by its heartbeats); "fence" (somebody is to cut `node` off);
    or "nowhere", "founding", "alone", "repairing", "paired" or "replacing": what a replicated instance is by a new
    view, in which `node` serves; of "nowhere", all that it held is lost; or "settling", "closing", "clearing" or
    "withdrawn": how an application is taken away. `sequence` counts events from 1.
    """

    sequence: int
    now_s: float
    what: str
    node: str = ""
    instance: str = ""
    migration: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A compute node as its heartbeats show it.

    `heard_s` ago its last slot began, in emulated seconds; None if it was never heard of. `queue_frames` is the least
    in the last 50 ms, `network` and `cpu` are shares of 0 to 1, `instances` the names of what is believed to run there,
    `backups` of what it holds a copy of, or is to: that takes as much memory as the instance. `free_mb` is left.
    """

    name: str
    role: str
    heard_s: float | None
    queue_frames: int
    network: float
    cpu: float
    instances: tuple[str, ...]
    life: str = ""  # what it is held for: see controller/membership.py
    backups: tuple[str, ...] = ()
    free_mb: float = 0.0


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A migration that is not over. `since_s` is emulated time; `unanswered` names nodes that owe an answer."""

    migration: int
    instance: str
    source: str
    destination: str
    state: str
    since_s: float
    unanswered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """Who serves a replicated instance, who backs it up, and who is to, by the view of `epoch`; "" for nobody."""

    application: int
    number: int
    instance: str
    epoch: int
    state: str
    primary: str
    backup: str
    joiner: str


@dataclass(frozen=True, slots=True)
class WithdrawalState:
    """How an application's withdrawal stands: see controller/withdrawal.py for `state`.

    `owed` have not said yet that they have nothing of it, in states "clearing" and "withdrawn"; the others have
    `dropped` so many requests and messages, at most: one on its way may count at both ends.
    """

    application: int
    name: str
    state: str
    epoch: int
    owed: tuple[str, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class ControllerState:
    """All nodes and migrations at `now_s`. `counts` holds what was taken and what was refused, by reason.

    `withdrawals` are of applications that are being withdrawn, or were and are not back.
    """

    now_s: float
    term: int
    automatic: bool
    deposed: bool
    nodes: tuple[NodeState, ...]
    under_way: tuple[UnderWay, ...]
    counts: dict[str, int] = field(default_factory=dict)
    replicas: tuple[ReplicaState, ...] = ()
    withdrawals: tuple[WithdrawalState, ...] = ()
