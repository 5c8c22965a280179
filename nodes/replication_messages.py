"""The messages of replication: views from the controller, what a node says to them, and the log between replicas.

    controller --view--> every replica --stands--> controller
    primary --offer--> joiner <==fetch / chunk==> primary           the snapshot, as in a migration
    primary --append--> backup, joiner --appended--> primary        the log

Entries of the log are cut into fragments that fit a datagram; positions count fragments. `messages.decode` reads all of
it, and the layouts stand in `messages.LAYOUTS` beside the others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from nodes.control_messages import DIGEST_BYTES, Refusal
from nodes.errors import WireError
from nodes.wire import HEADER, MAGIC, MAX_PAYLOAD, VERSION, Field, Layout, struct_of

KIND_VIEW = 32
KIND_STANDS = 33
KIND_OFFER = 34
KIND_APPEND = 35
KIND_APPENDED = 36

NOBODY = bytes(4)
LAST = 1  # this fragment ends its entry
PLEDGE = 2  # no entry: from here on nothing is answered that the joiner does not have


class Part(IntEnum):
    """What a node has in the replication of an instance."""

    OUT = 0
    JOINING = 1
    CATCHING_UP = 2
    FOLLOWING = 3
    SERVING = 4


_WHAT_FIELDS = (
    Field("application", "H", "application number"),
    Field("instance", "H", "DAG node"),
    Field("epoch", "I", "of the instance's whereabouts: grows with every decision on them"),
)
_NEXT = Field("next", "Q", "position of the next fragment")
_PART = Field("part", "B", "the node is: 0 out, 1 joining, 2 catching up, 3 following, 4 serving")
_LENGTH = Field("length", "H", "payload bytes that follow")
REPLICATION_LAYOUTS = (
    Layout(KIND_VIEW, "view", (
        Field("term", "I", "the controller's run: grows when it restarts"),
        Field("boot", "I", "the run of the node that is meant, 0 for any"), *_WHAT_FIELDS,
        Field("fresh", "B", "1: the primary is to begin with an empty state"),
        Field("primary", "ip", "who serves"), Field("backup", "ip", "who has all that is answered; 0.0.0.0: nobody"),
        Field("joiner", "ip", "who is to become a backup; 0.0.0.0: nobody"))),
    Layout(KIND_STANDS, "stands", (
        Field("term", "I", "of the view that is answered"), Field("boot", "I", "the node's run"), *_WHAT_FIELDS, _PART,
        Field("refusal", "B", "why the view was not obeyed, 0 if it was"), _NEXT,
        Field("silent", "ip", "a follower that this primary does not hear; 0.0.0.0: none"), _LENGTH)),
    Layout(KIND_OFFER, "offer", (
        *_WHAT_FIELDS, _NEXT, Field("size", "I", "bytes of the snapshot that ends at `next`"),
        Field("digest_high", "Q", "BLAKE2b of it, upper 8 of 16 bytes"),
        Field("digest_low", "Q", "BLAKE2b of it, lower 8 of 16 bytes"))),
    Layout(KIND_APPEND, "append", (
        *_WHAT_FIELDS, _NEXT._replace(name="position", meaning="position of this fragment"),
        Field("flags", "B", "1: the last fragment of its entry; 2: the pledge"), _LENGTH)),
    Layout(KIND_APPENDED, "appended", (*_WHAT_FIELDS, _NEXT, _PART)),
)
_LAYOUTS = {layout.kind: layout for layout in REPLICATION_LAYOUTS}
REPLICATION_SHAPES = {layout.kind: struct_of(HEADER + layout.fields) for layout in REPLICATION_LAYOUTS}


@dataclass(frozen=True, slots=True)
class View:
    """Who serves an instance, who backs it up and who is to, in an epoch; NOBODY where there is none."""

    term: int
    boot: int
    application: int
    instance: int
    epoch: int
    fresh: int
    primary: bytes
    backup: bytes = NOBODY
    joiner: bytes = NOBODY
    kind: int = KIND_VIEW

    def encode(self) -> bytes:
        return _packed(self.kind, self.term, self.boot, self.application, self.instance, self.epoch, self.fresh,
                       self.primary, self.backup, self.joiner)


@dataclass(frozen=True, slots=True)
class Stands:
    """What a node is in an instance's replication, and how far; said to a view, and when it has changed by itself."""

    term: int
    boot: int
    application: int
    instance: int
    epoch: int
    part: int
    refusal: int
    next: int
    silent: bytes = NOBODY
    payload: bytes = b""  # a complaint in words; of who serves, its clients' addresses
    kind: int = KIND_STANDS

    def encode(self) -> bytes:
        return _packed(self.kind, self.term, self.boot, self.application, self.instance, self.epoch, self.part,
                       self.refusal, self.next, self.silent, len(self.payload)) + self.payload


@dataclass(frozen=True, slots=True)
class Offer:
    """The primary's snapshot, for the joiner to fetch; the log goes on from `next`."""

    application: int
    instance: int
    epoch: int
    next: int
    size: int
    digest: bytes
    kind: int = KIND_OFFER

    def encode(self) -> bytes:
        if len(self.digest) != DIGEST_BYTES:
            raise WireError(f"digest of {len(self.digest)} bytes; it has {DIGEST_BYTES}")
        return _packed(self.kind, self.application, self.instance, self.epoch, self.next, self.size,
                       int.from_bytes(self.digest[:8], "big"), int.from_bytes(self.digest[8:], "big"))


@dataclass(frozen=True, slots=True)
class Append:
    """One fragment of the log."""

    application: int
    instance: int
    epoch: int
    position: int
    flags: int
    payload: bytes
    kind: int = KIND_APPEND

    def encode(self) -> bytes:
        return _packed(self.kind, self.application, self.instance, self.epoch, self.position, self.flags,
                       len(self.payload)) + self.payload


@dataclass(frozen=True, slots=True)
class Appended:
    """How much of the log a follower has: all before `next`."""

    application: int
    instance: int
    epoch: int
    next: int
    part: int
    kind: int = KIND_APPENDED

    def encode(self) -> bytes:
        return _packed(self.kind, self.application, self.instance, self.epoch, self.next, self.part)


ReplicationMessage = View | Stands | Offer | Append | Appended


def replication_message(kind: int, values: tuple[int, ...], payload: bytes) -> ReplicationMessage:
    """Return the message of a replication `kind` with these fields; raises WireError for a number without meaning."""
    if kind == KIND_VIEW:
        _known((0, 1), values[5], "fresh")
        return View(*values)  # type: ignore[arg-type]
    if kind == KIND_STANDS:
        _known(tuple(Part), values[5], "part")
        _known(tuple(Refusal), values[6], "refusal")
        return Stands(*values[:-1], payload)  # type: ignore[arg-type, call-arg]
    if kind == KIND_OFFER:
        application, instance, epoch, next_, size, high, low = values
        digest = high.to_bytes(8, "big") + low.to_bytes(8, "big")
        return Offer(application, instance, epoch, next_, size, digest)
    if kind == KIND_APPEND:
        _known((0, LAST, PLEDGE), values[4], "flags")
        return Append(*values[:-1], payload)  # type: ignore[arg-type, call-arg]
    _known(tuple(Part), values[4], "part")
    return Appended(*values)


def _packed(kind: int, *values: object) -> bytes:
    try:
        if _LAYOUTS[kind].has_payload and values[-1] > MAX_PAYLOAD:  # type: ignore[operator]
            raise WireError(f"payload of {values[-1]} bytes; a message carries at most {MAX_PAYLOAD}")
        return REPLICATION_SHAPES[kind].pack(MAGIC, VERSION, kind, *values)
    except struct.error as error:
        raise WireError(f"kind {kind} with {values}: {error}") from error


def _known(known: tuple[int, ...], value: int, what: str) -> None:
    if value not in known:
        raise WireError(f"{what} {value}; known: {', '.join(str(int(k)) for k in known)}")
