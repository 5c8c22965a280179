"""The record that real-time analytics and IoT microservices pass along: an event, and the results added to it so far.

On the wire it is a msgpack array of the fields in order. Each microservice reads what it needs, adds its result under
its own name and passes the record on, so the reply shows what every stage on the way has found.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgspec

from microservices.errors import ServiceError
from microservices.service import Microservice, Output, Request
from microservices.state import State
from topologies.unreadable import UNREADABLE

MAX_KEY_BYTES = 250


class Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One event.

    `key` is the device, user, topic or server that it is about; `values` numbers measured; `text` words or a stored
    value; `op` what to do where a microservice can do several things ("" for its usual one); `token` authenticates;
    `padding` fills the request up to the size that is studied.
    """

    key: str
    time_s: float = 0.0
    values: tuple[float, ...] = ()
    text: str = ""
    op: str = ""
    token: bytes = b""
    results: dict[str, Any] = msgspec.field(default_factory=dict)
    padding: bytes = b""


class _KeyOnly(msgspec.Struct, array_like=True):
    key: str


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
_KEY_DECODER = msgspec.msgpack.Decoder(_KeyOnly)


def encode_record(record: Record) -> bytes:
    return _ENCODER.encode(record)


def decode_record(payload: bytes) -> Record:
    """Read a record; raises ServiceError, also on an empty or over-long key and on numbers that are not finite."""
    try:
        record = _DECODER.decode(payload)
    except UNREADABLE as error:
        raise ServiceError(f"{len(payload)} bytes that are not a record: {error}") from error
    if not 1 <= len(record.key) <= MAX_KEY_BYTES:
        raise ServiceError(f"record's key has {len(record.key)} characters; the limits are 1 and {MAX_KEY_BYTES}")
    if not all(map(isfinite, record.values)) or not isfinite(record.time_s):
        raise ServiceError(f"record of {record.key!r} holds a number that is not finite")
    return record


def record_key(payload: bytes) -> bytes:
    """Return the key that a record is sharded by; bytes that are no record are their own key."""
    try:
        return _KEY_DECODER.decode(payload).key.encode()
    except (msgspec.MsgspecError, UnicodeError):
        return payload


def value_of(record: Record) -> float:
    if not record.values:
        raise ServiceError(f"record of {record.key!r} has no value; one is needed")
    return record.values[0]


class RecordService(Microservice):
    """A microservice on records: it only says what to add."""

    def key_of(self, payload: bytes) -> bytes:
        return record_key(payload)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        record = decode_record(request.payload)
        record.results[self.name] = self.answer(record, state, request.now_s)
        return (Output(_ENCODER.encode(record)),)

    @abstractmethod
    def answer(self, record: Record, state: State, now_s: float) -> Any:
        """Return the result to add: None, numbers, text, bytes, lists and maps of them. Raises ServiceError."""
