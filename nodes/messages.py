"""Every wire format, once: dataclass <-> bytes.

A message is the payload of one UDP datagram. All integers are big-endian. Every message starts with the
same four bytes (magic, version, kind); `LAYOUTS` lists the fields that follow for each kind, and the scapy
layer and the Wireshark dissector are made from that table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

import msgspec

from nodes.control_messages import (
    CONTROL_LAYOUTS,
    CONTROL_SHAPES,
    Answer,
    Chunk,
    Command,
    ControlMessage,
    Fetch,
    Heartbeat,
    control_message,
)
from nodes.errors import WireError
from nodes.replication_messages import REPLICATION_LAYOUTS, REPLICATION_SHAPES, ReplicationMessage, replication_message
from nodes.wire import HEADER, MAGIC, MAX_PAYLOAD, VERSION, Field, Layout, struct_of

KIND_REQUEST = 1
KIND_REPLY = 2
KIND_ERROR = 3
KIND_PROBE = 4
KIND_REPLY_PROBE = 5
KIND_ACK = 8
KIND_STATS_QUERY = 16
KIND_STATS_REPORT = 17
KIND_DEPLOY = 24
KIND_DEPLOYED = 25

_DATA_FIELDS = (
    Field("application", "H", "application number, unique in a testbed"),
    Field("instance", "H", "DAG node that the message is for; in a reply or error, that it comes from"),
    Field("request_id", "Q", "the client's endpoint in the upper 32 bits, that client's count in the lower"),
    Field("client_ip", "ip", "where the reply goes"),
    Field("client_port", "H", "UDP port where the reply goes"),
    Field("hops", "B", "microservices that have handled the request so far"),
    Field("flags", "B", "reserved, 0"),
    Field("sender", "I", "endpoint at the sending end of the channel: a DAG node, or a client (upper bit set)"),
    Field("session", "I", "the channel's run: grows when the sender starts counting anew"),
    Field("sequence", "I", "number of this message on its channel, from 0; in a probe, of the next one"),
    Field("sent", "I", "emulated time at which it left, in nanoseconds modulo 2^32"),
    Field("length", "H", "payload bytes that follow"),
)
_ACK_FIELDS = (
    Field("boot", "I", "the acknowledging node's run: changes when it has lost its state"),
    Field("length", "H", "payload bytes that follow: entries of 30 bytes, one per channel"),
)
ACK_ENTRY = (
    Field("application", "H", "application number"),
    Field("sender", "I", "sending end of the channel"),
    Field("receiver", "I", "receiving end of the channel"),
    Field("session", "I", "session that is acknowledged"),
    Field("expected", "I", "every sequence below this one has arrived"),
    Field("bitmap", "Q", "bit i: sequence expected + 1 + i has arrived, too"),
    Field("edge", "I", "credit: sequences below this one may be sent"),
)
_STATS_FIELDS = (
    Field("query_id", "Q", "chosen by who asks, echoed in the report"),
    Field("length", "H", "payload bytes that follow: none in a query, msgpack in a report"),
)
_DEPLOY_FIELDS = (
    Field("query_id", "Q", "chosen by who asks, echoed in the answer"),
    Field("length", "H", "payload bytes that follow: a deployment in msgpack; in the answer why not, if so"),
)
LAYOUTS: dict[int, Layout] = {
    layout.kind: layout
    for layout in (
        Layout(KIND_REQUEST, "request", _DATA_FIELDS),
        Layout(KIND_REPLY, "reply", _DATA_FIELDS),
        Layout(KIND_ERROR, "error", _DATA_FIELDS),
        Layout(KIND_PROBE, "probe", _DATA_FIELDS),
        Layout(KIND_REPLY_PROBE, "reply_probe", _DATA_FIELDS),
        Layout(KIND_ACK, "ack", _ACK_FIELDS),
        Layout(KIND_STATS_QUERY, "stats_query", _STATS_FIELDS),
        Layout(KIND_STATS_REPORT, "stats_report", _STATS_FIELDS),
        Layout(KIND_DEPLOY, "deploy", _DEPLOY_FIELDS),
        Layout(KIND_DEPLOYED, "deployed", _DEPLOY_FIELDS),
        *CONTROL_LAYOUTS,
        *REPLICATION_LAYOUTS,
    )
}


_HEADER = struct_of(HEADER)
_DATA = struct_of(HEADER + _DATA_FIELDS)
_ACK = struct_of(HEADER + _ACK_FIELDS)
_ACK_ENTRY = struct_of(ACK_ENTRY)
_STATS = struct_of(HEADER + _STATS_FIELDS)
DATA_HEADER_BYTES = _DATA.size
MAX_ACK_ENTRIES = MAX_PAYLOAD // _ACK_ENTRY.size
DATA_KINDS = (KIND_REQUEST, KIND_REPLY, KIND_ERROR, KIND_PROBE, KIND_REPLY_PROBE)
TO_CLIENT_KINDS = (KIND_REPLY, KIND_ERROR, KIND_REPLY_PROBE)
PROBE_KINDS = (KIND_PROBE, KIND_REPLY_PROBE)
_SHAPES = {**dict.fromkeys(DATA_KINDS, _DATA), KIND_ACK: _ACK, KIND_STATS_QUERY: _STATS, KIND_STATS_REPORT: _STATS,
           KIND_DEPLOY: _STATS, KIND_DEPLOYED: _STATS, **CONTROL_SHAPES, **REPLICATION_SHAPES}
_Reader = Callable[[int, tuple[int, ...], bytes], ControlMessage | ReplicationMessage]
_READERS: dict[int, _Reader] = {
    **dict.fromkeys(CONTROL_SHAPES, control_message), **dict.fromkeys(REPLICATION_SHAPES, replication_message)}
CLIENT_BIT = 1 << 31  # of an endpoint: a client's, not a DAG node's
_STAMP_MASK = (1 << 32) - 1


class ChannelId(NamedTuple):
    """A channel of an application: from one endpoint to another."""

    application: int
    sender: int
    receiver: int


class DataMessage(msgspec.Struct, frozen=True, gc=False):
    """A request on its way through the DAG, a reply, an error in place of a reply, or a probe (by `kind`).

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
    sender: int = 0
    session: int = 0
    sequence: int = 0
    sent: int = 0

    def encode(self, sent: int | None = None) -> bytes:
        """Return the datagram's payload, with the stamp `sent` if given; raises WireError if a value does not fit."""
        size = len(self.payload)
        if size > MAX_PAYLOAD:
            raise WireError(f"payload of {size} bytes; a message carries at most {MAX_PAYLOAD}")
        try:
            return _DATA.pack(MAGIC, VERSION, self.kind, self.application, self.instance, self.request_id,
                              self.client_ip, self.client_port, self.hops, 0, self.sender, self.session,
                              self.sequence, self.sent if sent is None else sent, size) + self.payload
        except struct.error as error:
            raise WireError(f"{self}: {error}") from error

    def numbered(self, session: int, sequence: int) -> DataMessage:
        """Return it as this message of its channel's `session`."""
        return DataMessage(self.kind, self.application, self.instance, self.request_id, self.client_ip,
                           self.client_port, self.hops, self.payload, self.sender, session, sequence, self.sent)

    @property
    def channel(self) -> ChannelId:
        """The channel that the message travels on; replies go back to the client's endpoint."""
        if self.kind in TO_CLIENT_KINDS:
            return ChannelId(self.application, self.sender, self.request_id >> 32)
        return ChannelId(self.application, self.sender, self.instance)

    @property
    def client(self) -> tuple[str, int]:
        return str(IPv4Address(self.client_ip)), self.client_port


class AckEntry(NamedTuple):
    """What a receiver says of one channel; see ACK_ENTRY for each field."""

    channel: ChannelId
    session: int
    expected: int
    bitmap: int
    edge: int


@dataclass(frozen=True, slots=True)
class AckMessage:
    """Acknowledgements of any number of channels between two nodes, up to MAX_ACK_ENTRIES."""

    boot: int
    entries: tuple[AckEntry, ...]
    kind: int = KIND_ACK

    def encode(self) -> bytes:
        if len(self.entries) > MAX_ACK_ENTRIES:
            raise WireError(f"{len(self.entries)} acknowledgements; a message carries at most {MAX_ACK_ENTRIES}")
        body = b"".join(_ACK_ENTRY.pack(*e.channel, e.session, e.expected, e.bitmap, e.edge) for e in self.entries)
        return _ACK.pack(MAGIC, VERSION, KIND_ACK, self.boot, len(body)) + body


@dataclass(frozen=True, slots=True)
class StatsMessage:
    """A question for a node's counters, or these (node_report.py); a deployment, or why it was not done."""

    kind: int
    query_id: int
    payload: bytes = b""

    def encode(self) -> bytes:
        size = len(self.payload)
        if size > MAX_PAYLOAD:
            raise WireError(f"payload of {size} bytes; a message carries at most {MAX_PAYLOAD}")
        return _STATS.pack(MAGIC, VERSION, self.kind, self.query_id, size) + self.payload


Message = DataMessage | AckMessage | StatsMessage | Heartbeat | Command | Answer | Fetch | Chunk | ReplicationMessage


def stamp_of(now_s: float) -> int:
    """Return the emulated time `now_s` as it is stamped on a message."""
    return int(now_s * 1e9) & _STAMP_MASK


def age_s(stamp: int, now_s: float) -> float:
    """Return how long before `now_s` a message left that is stamped so.

    0 for one that seems to come from the future: the stamp starts anew every 4.3 s, so such a one may be older.
    """
    behind = (int(now_s * 1e9) - stamp) & _STAMP_MASK
    return 0.0 if behind >> 31 else behind * 1e-9


def decode(data: bytes | memoryview) -> Message:
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
    shape = _SHAPES[kind]
    if got < shape.size:
        raise WireError(f"{layout.name}: got {got} bytes, {shape.size} needed at least")
    values = shape.unpack_from(data)
    length = values[-1] if layout.has_payload else 0
    if length > MAX_PAYLOAD or got != shape.size + length:
        raise WireError(f"{layout.name}: length field says {length} payload bytes, "
                        f"the datagram has {got - shape.size} and at most {MAX_PAYLOAD} are allowed")
    payload = bytes(data[shape.size:])
    if kind in _READERS:
        return _READERS[kind](kind, values[3:], payload)
    if shape is _STATS:
        return StatsMessage(kind, values[3], payload)
    if shape is _ACK:
        return _acknowledgements(values[3], payload)
    (application, instance, request_id, client_ip, client_port, hops, flags, sender, session, sequence, sent,
     _) = values[3:]
    if flags:
        raise WireError(f"{layout.name}: flags 0x{flags:02X}; none is defined")
    return DataMessage(kind, application, instance, request_id, client_ip, client_port, hops, payload, sender, session,
                       sequence, sent)


def _acknowledgements(boot: int, payload: bytes) -> AckMessage:
    if len(payload) % _ACK_ENTRY.size:
        raise WireError(f"ack: {len(payload)} payload bytes; entries have {_ACK_ENTRY.size} bytes each")
    return AckMessage(boot, tuple(AckEntry(ChannelId(*entry[:3]), *entry[3:])
                                  for entry in _ACK_ENTRY.iter_unpack(payload)))
