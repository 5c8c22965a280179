"""The messages of the control plane: heartbeats, and the commands, answers and chunks of a migration.

`messages.decode` reads them, and their layouts stand in `messages.LAYOUTS` beside the others. A heartbeat is the whole
UDP payload in 16 bytes (section 5.6), our header included: 4 of 16 bytes are spent on being recognised like any other
message, and in exchange the rest is packed:

    queue      8 bits, a float without sign: exact up to 31 frames, from there at most 6 % low
    execution  16 bits, a float without sign, ns: exact up to 4 us, from there at most 0.05 % low; up to 73 minutes
    shares     8 bits, 255 being all

Who reports stands in no field: it is the source address, which the ToR vouches for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from nodes.errors import WireError
from nodes.wire import HEADER, MAGIC, MAX_PAYLOAD, VERSION, Field, Layout, struct_of

KIND_HEARTBEAT = 18
KIND_COMMAND = 19
KIND_ANSWER = 20
KIND_FETCH = 21
KIND_CHUNK = 22

HEARTBEAT_S = 0.05
HEARTBEAT_BYTES = 16
SLOTS = 1 << 16  # of a heartbeat's slot number, which starts again after 54 minutes
NO_INSTANCE = 0xFFFF  # no instance has this number; such a heartbeat tells the node's boot number instead
MAX_SHARE = 255
DIGEST_BYTES = 16
FRESH = b"fresh"  # payload of a PREPARE for an instance that is to begin with nothing: it need not be movable


class Verb(IntEnum):
    """What a command asks of a node."""

    PREPARE = 1  # fetch the binary of `digest` from `peer` and check it
    FREEZE = 2  # stop the instance, keep all that it is for `peer` to fetch
    COLLECT = 3  # fetch the frozen instance of `digest` from `peer` and check it
    START = 4  # run what was collected; with `size` 0, a fresh instance from the binary
    CONNECT = 5  # the instance stands at `peer` from now on
    RESUME = 6  # run what was frozen here
    RELEASE = 7  # forget what was frozen here
    DISCARD = 8  # forget what was prepared and collected here
    WHERE = 9  # asked by a client, of a controller's data port: where is the instance, which I believe at `peer`?
    CLOSE = 10  # take no more requests of clients for the application, and say in round `size` what is under way
    WITHDRAW = 11  # have nothing of the application any more; to a client: it, or the requests named, is not served


class Standing(IntEnum):
    """What an instance is on a node."""

    ABSENT = 0
    PREPARING = 1
    PREPARED = 2
    COLLECTING = 3
    STAGED = 4
    LIVE = 5
    STOPPING = 6
    FROZEN = 7
    RELEASED = 8


class Refusal(IntEnum):
    """Why a node did not do what a command asked."""

    NONE = 0
    OLD_EPOCH = 1  # a later migration, or a later turn of this one, has been here
    OLD_TERM = 2  # from a controller that has a successor
    OTHER_BOOT = 3  # meant for an earlier run of this node
    OUT_OF_PLACE = 4  # an instance that stands so here can not do that
    WRONG_DIGEST = 5  # what was fetched is not what was announced
    UNUSABLE = 6  # fetched as announced, but the node can not run it
    TOO_LARGE = 7


_ID_FIELDS = (
    Field("term", "I", "the controller's run: grows when it restarts"),
    Field("boot", "I", "the node's run: in a command, of the one that is meant, 0 for any"),
    Field("migration", "I", "number of the migration, unique in a controller's journal"),
    Field("verb", "B", "what the command asks: 1 prepare, 2 freeze, 3 collect, 4 start, 5 connect, 6 resume, "
                       "7 release, 8 discard; of a controller: 9 where; of an application: 10 close, 11 withdraw"),
)
_WHAT_FIELDS = (
    Field("application", "H", "application number"),
    Field("instance", "H", "DAG node"),
    Field("epoch", "I", "of the instance's whereabouts: grows with every decision on them"),
)
_ARTIFACT_FIELDS = (
    Field("size", "I", "bytes of the binary, or of the frozen instance"),
    Field("digest_high", "Q", "BLAKE2b of it, upper 8 of 16 bytes"),
    Field("digest_low", "Q", "BLAKE2b of it, lower 8 of 16 bytes"),
)
_LENGTH = Field("length", "H", "payload bytes that follow")
_PLACE = struct.Struct("!HI4s")  # an instance, by which decision it stands where it does, and its IP
_ADDRESS = struct.Struct("!4sH")
_REQUEST = struct.Struct("!Q")
_UNDER_WAY = struct.Struct("!IIQ")
HEARTBEAT_FIELDS = (
    Field("slot", "H", "emulated time in steps of 50 ms, modulo 65536"),
    Field("application", "H", "application of the instance reported; of the boot number, the lower 16 bits"),
    Field("instance", "H", "DAG node reported, they take turns; 65535: none, but the node's boot number"),
    Field("execution", "H", "its mean execution time, ns as a float (exponent 5, mantissa 11 bits); or upper 16 bits"),
    Field("queue", "B", "least frames in the traffic manager, as a float (exponent 4, mantissa 4 bits)"),
    Field("transmitted", "B", "share of the port's rate that was sent, in 1/255"),
    Field("received", "B", "share of the port's rate that came in, in 1/255"),
    Field("cpu", "B", "share of the node's core time that the instance took, in 1/255"),
)
_COMMAND_FIELDS = (*_ID_FIELDS, *_WHAT_FIELDS, Field("peer", "ip", "the node to fetch from, or where the instance is"),
                   *_ARTIFACT_FIELDS, _LENGTH)
_ANSWER_FIELDS = (*_ID_FIELDS, Field("standing", "B", "what the instance is here: 0 absent, 1 preparing, 2 prepared, "
                                     "3 collecting, 4 staged, 5 live, 6 stopping, 7 frozen, 8 released"),
                  Field("refusal", "B", "why the command was not obeyed, 0 if it was"), *_WHAT_FIELDS,
                  *_ARTIFACT_FIELDS, _LENGTH)
_DIGEST_FIELDS = (*_ARTIFACT_FIELDS[1:], Field("offset", "I", "first byte"))
CONTROL_LAYOUTS = (
    Layout(KIND_HEARTBEAT, "heartbeat", HEARTBEAT_FIELDS),
    Layout(KIND_COMMAND, "command", _COMMAND_FIELDS),
    Layout(KIND_ANSWER, "answer", _ANSWER_FIELDS),
    Layout(KIND_FETCH, "fetch", (*_DIGEST_FIELDS, _LENGTH)),
    Layout(KIND_CHUNK, "chunk", (*_DIGEST_FIELDS, _LENGTH)),
)
CONTROL_SHAPES = {layout.kind: struct_of(HEADER + layout.fields) for layout in CONTROL_LAYOUTS}
MAX_CHUNK = MAX_PAYLOAD


def float_code(value: int, mantissa_bits: int, code_bits: int) -> int:
    """Return the code of the greatest number not above `value` that such a float holds; the greatest at most."""
    implied = 1 << mantissa_bits
    if value < implied:
        return max(0, value)
    shift = value.bit_length() - 1 - mantissa_bits
    code = (shift + 1) << mantissa_bits | (value >> shift) - implied
    return min(code, (1 << code_bits) - 1)


def float_value(code: int, mantissa_bits: int) -> int:
    """Return the number behind `code`."""
    exponent, mantissa = code >> mantissa_bits, code & (1 << mantissa_bits) - 1
    return mantissa if exponent == 0 else (mantissa | 1 << mantissa_bits) << exponent - 1


def share_code(share: float) -> int:
    """Return a share of 0 to 1 as 1/255, rounded; what is outside counts as the limit."""
    return max(0, min(MAX_SHARE, round(share * MAX_SHARE)))


def slot_of_time(now_s: float) -> int:
    """Return the heartbeat slot that the emulated time `now_s` lies in, not yet modulo SLOTS."""
    return int(now_s / HEARTBEAT_S + 1e-6)  # a timer that fires on the boundary belongs to what follows


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat as on the wire: the fields hold codes, see `HEARTBEAT_FIELDS`; the properties hold units."""

    slot: int
    application: int
    instance: int
    execution: int
    queue: int
    transmitted: int
    received: int
    cpu: int
    kind: int = KIND_HEARTBEAT

    def encode(self) -> bytes:
        return _packed(self.kind, self.slot, self.application, self.instance, self.execution, self.queue,
                       self.transmitted, self.received, self.cpu)

    @property
    def queue_frames(self) -> int:
        return float_value(self.queue, 4)

    @property
    def execution_ns(self) -> int:
        return float_value(self.execution, 11)

    @property
    def boot(self) -> int | None:
        """The node's boot number if this heartbeat tells it in place of an instance."""
        return self.execution << 16 | self.application if self.instance == NO_INSTANCE else None


@dataclass(frozen=True, slots=True)
class Command:
    """What the controller tells a node to do; doing it again changes nothing."""

    term: int
    boot: int
    migration: int
    verb: int
    application: int
    instance: int
    epoch: int
    peer: bytes = bytes(4)
    size: int = 0
    digest: bytes = bytes(DIGEST_BYTES)
    payload: bytes = b""
    kind: int = KIND_COMMAND

    def encode(self) -> bytes:
        return _packed(self.kind, self.term, self.boot, self.migration, self.verb, self.application, self.instance,
                       self.epoch, self.peer, self.size, *_halves(self.digest), len(self.payload)) + self.payload


def moved_to(key: tuple[int, int], ip: bytes, epoch: int) -> bytes:
    """Return what a node tells a client that comes for an instance which has moved to `ip`, as on the wire."""
    return Command(0, 0, 0, Verb.CONNECT, *key, epoch, ip).encode()


def turned_away(key: tuple[int, int], epoch: int, requests: Iterable[int] = (), term: int = 0) -> bytes:
    """Return what a client is told whose `requests` (ids; none named: all) for an instance will not be served."""
    return Command(term, 0, 0, Verb.WITHDRAW, *key, epoch, payload=b"".join(map(_REQUEST.pack, requests))).encode()


def requests_in(payload: bytes) -> list[int]:
    """Read the ids that `turned_away` named; raises WireError for a payload that ends within one."""
    if len(payload) % _REQUEST.size:
        raise WireError(f"{len(payload)} bytes of request ids; each has {_REQUEST.size}")
    return [number for number, in _REQUEST.iter_unpack(payload)]


class UnderWay(NamedTuple):
    """What a node says of an application that is closed: in which round it was asked, how many requests and messages
    of it wait or are on their way from there, and how many its instances there have ever begun."""

    round: int
    outstanding: int
    begun: int

    def packed(self) -> bytes:
        return _UNDER_WAY.pack(*self)

    @staticmethod
    def of(payload: bytes) -> UnderWay:
        """Read what `packed` made; raises WireError for anything else."""
        try:
            return UnderWay(*_UNDER_WAY.unpack(payload))
        except struct.error as error:
            raise WireError(f"{len(payload)} bytes of what is under way: {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node says to a command: what the instance is there now, and why not more.

    `payload` says why not in words; of an instance that is staged or live after a migration, it holds the clients that
    send to it (`pack_addresses`), who must be told where it is.
    """

    term: int
    boot: int
    migration: int
    verb: int
    standing: int
    refusal: int
    application: int
    instance: int
    epoch: int
    size: int = 0
    digest: bytes = bytes(DIGEST_BYTES)
    payload: bytes = b""
    kind: int = KIND_ANSWER

    def encode(self) -> bytes:
        return _packed(self.kind, self.term, self.boot, self.migration, self.verb, self.standing, self.refusal,
                       self.application, self.instance, self.epoch, self.size, *_halves(self.digest),
                       len(self.payload)) + self.payload


@dataclass(frozen=True, slots=True)
class Fetch:
    """A question for the bytes of `digest` from `offset` on."""

    digest: bytes
    offset: int
    payload: bytes = b""
    kind: int = KIND_FETCH

    def encode(self) -> bytes:
        return _packed(self.kind, *_halves(self.digest), self.offset, len(self.payload)) + self.payload


@dataclass(frozen=True, slots=True)
class Chunk:
    """The bytes of `digest` from `offset` on: MAX_CHUNK of them, or what is left."""

    digest: bytes
    offset: int
    payload: bytes
    kind: int = KIND_CHUNK

    def encode(self) -> bytes:
        return _packed(self.kind, *_halves(self.digest), self.offset, len(self.payload)) + self.payload


ControlMessage = Heartbeat | Command | Answer | Fetch | Chunk


def control_message(kind: int, values: tuple[int, ...], payload: bytes) -> ControlMessage:
    """Return the message of a control `kind` with these fields; raises WireError for a number that means nothing."""
    if kind == KIND_HEARTBEAT:
        return Heartbeat(*values)
    if kind == KIND_COMMAND:
        *ids, size, high, low, _ = values
        _known(Verb, ids[3], "verb")
        return Command(*ids, size, _digest(high, low), payload)  # type: ignore[arg-type, call-arg]
    if kind == KIND_ANSWER:
        *ids, size, high, low, _ = values
        _known(Verb, ids[3], "verb")
        _known(Standing, ids[4], "standing")
        _known(Refusal, ids[5], "refusal")
        return Answer(*ids, size, _digest(high, low), payload)  # type: ignore[arg-type, call-arg]
    high, low, offset, _ = values
    return (Fetch if kind == KIND_FETCH else Chunk)(_digest(high, low), offset, payload)


def _packed(kind: int, *values: object) -> bytes:
    try:
        if values and kind != KIND_HEARTBEAT and values[-1] > MAX_PAYLOAD:  # type: ignore[operator]
            raise WireError(f"payload of {values[-1]} bytes; a message carries at most {MAX_PAYLOAD}")
        return CONTROL_SHAPES[kind].pack(MAGIC, VERSION, kind, *values)
    except struct.error as error:
        raise WireError(f"kind {kind} with {values}: {error}") from error


def pack_addresses(addresses: Iterable[tuple[bytes, int]]) -> bytes:
    """Return (IP of 4 bytes, UDP port) pairs as a payload: as many of them as a message carries."""
    return b"".join(_ADDRESS.pack(ip, port) for ip, port in addresses)[:MAX_PAYLOAD // _ADDRESS.size * _ADDRESS.size]


def unpack_addresses(payload: bytes) -> list[tuple[bytes, int]]:
    """Read what `pack_addresses` made; raises WireError for a payload that ends within an address."""
    if len(payload) % _ADDRESS.size:
        raise WireError(f"{len(payload)} bytes of addresses; each has {_ADDRESS.size}")
    return list(_ADDRESS.iter_unpack(payload))


def pack_places(places: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return (instance, epoch, IP) of an application's instances as a payload: as many of them as a message carries.

    A START or RESUME says so where the neighbours of the instance are: what is new there, or was frozen for a while,
    may not have been told.
    """
    return b"".join(_PLACE.pack(*place) for place in places)[:MAX_PAYLOAD // _PLACE.size * _PLACE.size]


def unpack_places(payload: bytes) -> list[tuple[int, int, bytes]]:
    """Read what `pack_places` made; raises WireError for a payload that ends within a place."""
    if len(payload) % _PLACE.size:
        raise WireError(f"{len(payload)} bytes of places; each has {_PLACE.size}")
    return list(_PLACE.iter_unpack(payload))


def _halves(digest: bytes) -> tuple[int, int]:
    if len(digest) != DIGEST_BYTES:
        raise WireError(f"digest of {len(digest)} bytes; it has {DIGEST_BYTES}")
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


def _digest(high: int, low: int) -> bytes:
    return high.to_bytes(8, "big") + low.to_bytes(8, "big")


def _known(kinds: type[IntEnum], value: int, what: str) -> None:
    if value not in kinds._value2member_map_:
        raise WireError(f"{what} {value}; known: {', '.join(str(k.value) for k in kinds)}")
