"""Reads a data message of which only the first fragment is there."""

from __future__ import annotations

from nodes.errors import WireError
from nodes.messages import DATA_HEADER_BYTES, DATA_KINDS, HEADER, LAYOUTS, DataMessage, struct_of

_DATA_HEADER = {kind: struct_of(HEADER + LAYOUTS[kind].fields) for kind in DATA_KINDS}


def first_fragment(payload: bytes) -> DataMessage:
    """Read the fields of a message whose payload goes on in other fragments; raises WireError."""
    kind = payload[3] if len(payload) >= DATA_HEADER_BYTES else 0
    if kind not in _DATA_HEADER:
        raise WireError(f"first fragment of {len(payload)} bytes, kind {kind}: no data message")
    (_, _, _, application, instance, request_id, client_ip, client_port, hops, _, sender, session, sequence, sent,
     _) = _DATA_HEADER[kind].unpack_from(payload)
    return DataMessage(kind, application, instance, request_id, client_ip, client_port, hops, b"", sender, session,
                       sequence, sent)
