"""Every wire format, once: dataclass <-> bytes.

A message is the payload of one UDP datagram. All integers are big-endian. Every message starts with the
same four bytes (magic, version, kind); `LAYOUTS` lists the fields that follow for each kind, and the scapy
layer and the Wireshark dissector are made from that table.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from nodes.errors import WireError

MAGIC = 0xE3A7
VERSION = 1
MAX_PAYLOAD = 8192

KIND_REQUEST = 1
KIND_REPLY = 2
KIND_ERROR = 3
KIND_STATS_QUERY = 16
KIND_STATS_REPORT = 17


class Field(NamedTuple):
    """One field on the wire: `code` is its `struct` code, "ip" an IPv4 address of four bytes."""

    name: str
    code: str
    meaning: str


class Layout(NamedTuple):
    """The fields of one kind of message, in order; the last, `length`, counts the payload bytes after it."""

    kind: int
    name: str
    fields: tuple[Field, ...]


HEADER = (
    Field("magic", "H", f"0x{MAGIC:04X}"),
    Field("version", "B", str(VERSION)),
    Field("kind", "B", "which of the layouts follows"),
)
_DATA_FIELDS = (
    Field("application", "H", "application number, unique in a testbed"),
    Field("instance", "H", "DAG node that the message is for; in a reply or error, that it comes from"),
    Field("request_id", "Q", "client number in the upper 32 bits, that client's sequence number in the lower"),
    Field("client_ip", "ip", "where the reply goes"),
    Field("client_port", "H", "UDP port where the reply goes"),
    Field("hops", "B", "microservices that have handled the request so far"),
    Field("flags", "B", "reserved, 0"),
    Field("length", "H", "payload bytes that follow"),
)
_STATS_FIELDS = (
    Field("query_id", "Q", "chosen by who asks, echoed in the report"),
    Field("length", "H", "payload bytes that follow: none in a query, msgpack in a report"),
)
LAYOUTS: dict[int, Layout] = {
    layout.kind: layout
    for layout in (
        Layout(KIND_REQUEST, "request", _DATA_FIELDS),
        Layout(KIND_REPLY, "reply", _DATA_FIELDS),
        Layout(KIND_ERROR, "error", _DATA_FIELDS),
        Layout(KIND_STATS_QUERY, "stats_query", _STATS_FIELDS),
        Layout(KIND_STATS_REPORT, "stats_report", _STATS_FIELDS),
    )
}


def struct_of(fields: tuple[Field, ...]) -> struct.Struct:
    """Return the big-endian `struct.Struct` of `fields`."""
    return struct.Struct(">" + "".join("4s" if f.code == "ip" else f.code for f in fields))


_HEADER = struct_of(HEADER)
_DATA = struct_of(HEADER + _DATA_FIELDS)
_STATS = struct_of(HEADER + _STATS_FIELDS)
DATA_HEADER_BYTES = _DATA.size
DATA_KINDS = (KIND_REQUEST, KIND_REPLY, KIND_ERROR)


@dataclass(frozen=True, slots=True)
class DataMessage:
    """A request on its way through the DAG, a reply, or an error in place of a reply (by `kind`).

    `client_ip` is four packed bytes: it is copied from hop to hop and rarely looked at.
    """

    kind: int
    application: int
    instance: int
    request_id: int
    client_ip: bytes
    client_port: int
    hops: int
    payload: bytes

    def encode(self) -> bytes:
        """Return the datagram's payload; raises WireError if a value does not fit its field."""
        size = len(self.payload)
        if size > MAX_PAYLOAD:
            raise WireError(f"payload of {size} bytes; a message carries at most {MAX_PAYLOAD}")
        try:
            return _DATA.pack(MAGIC, VERSION, self.kind, self.application, self.instance, self.request_id,
                              self.client_ip, self.client_port, self.hops, 0, size) + self.payload
        except struct.error as error:
            raise WireError(f"{self}: {error}") from error

    @property
    def client(self) -> tuple[str, int]:
        return str(IPv4Address(self.client_ip)), self.client_port


@dataclass(frozen=True, slots=True)
class StatsMessage:
    """A question for a node's counters, or the answer: msgpack of {counter: value} (by `kind`)."""

    kind: int
    query_id: int
    payload: bytes = b""

    def encode(self) -> bytes:
        size = len(self.payload)
        if size > MAX_PAYLOAD:
            raise WireError(f"payload of {size} bytes; a message carries at most {MAX_PAYLOAD}")
        return _STATS.pack(MAGIC, VERSION, self.kind, self.query_id, size) + self.payload


def decode(data: bytes | memoryview) -> DataMessage | StatsMessage:
    """Read one message; raises WireError, saying what was got and what was needed."""
    got = len(data)
    if got < _HEADER.size:
        raise WireError(f"got {got} bytes, {_HEADER.size} needed at least")
    magic, version, kind = _HEADER.unpack_from(data)
    if magic != MAGIC or version != VERSION:
        raise WireError(f"magic 0x{magic:04X} version {version}; expected 0x{MAGIC:04X} version {VERSION}")
    layout = LAYOUTS.get(kind)
    if layout is None:
        raise WireError(f"kind {kind}; known: {', '.join(map(str, LAYOUTS))}")
    shape = _DATA if kind in DATA_KINDS else _STATS
    if got < shape.size:
        raise WireError(f"{layout.name}: got {got} bytes, {shape.size} needed at least")
    values = shape.unpack_from(data)
    length = values[-1]
    if length > MAX_PAYLOAD or got != shape.size + length:
        raise WireError(f"{layout.name}: length field says {length} payload bytes, "
                        f"the datagram has {got - shape.size} and at most {MAX_PAYLOAD} are allowed")
    payload = bytes(data[shape.size:])
    if shape is _STATS:
        return StatsMessage(kind, values[3], payload)
    _, _, _, application, instance, request_id, client_ip, client_port, hops, flags, _ = values
    if flags:
        raise WireError(f"{layout.name}: flags 0x{flags:02X}; none is defined")
    return DataMessage(kind, application, instance, request_id, client_ip, client_port, hops, payload)
