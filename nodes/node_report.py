"""A node's counters as they travel: one message, deflated, however many instances the node has.

A host of Figure 5 has over a hundred instances, each with counters under its own name; as they are, those would not fit
a message. If they do not fit deflated either, the last by name stay out, and the report says how many.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import msgspec

from nodes.errors import WireError
from nodes.messages import MAX_PAYLOAD
from topologies.unreadable import UNREADABLE

LEFT_OUT = "counters_left_out"
MOST_BYTES = 1 << 20  # of a report that is unpacked
_LEVEL = 1  # a node has better things to do


def packed(counters: Mapping[str, int], most_bytes: int = MAX_PAYLOAD) -> bytes:
    """Return `counters` in at most `most_bytes`; the last by name may be left out, which LEFT_OUT counts."""
    names = sorted(counters)
    kept = len(names)
    while True:
        told = {name: counters[name] for name in names[:kept]}
        if kept < len(names):
            told[LEFT_OUT] = len(names) - kept
        payload = zlib.compress(msgspec.msgpack.encode(told), _LEVEL)
        if len(payload) <= most_bytes or not kept:
            return payload
        kept = kept * 3 // 4


def unpacked(payload: bytes) -> dict[str, int]:
    """Return the counters of a report; raises WireError for anything else, also for what would fill the memory."""
    inflating = zlib.decompressobj()
    try:
        told = inflating.decompress(payload, MOST_BYTES)
        if not inflating.eof:
            raise WireError(f"a report of {len(payload)} bytes that does not end within {MOST_BYTES}")
        return msgspec.msgpack.decode(told, type=dict[str, int])
    except (zlib.error, *UNREADABLE) as error:
        raise WireError(f"{len(payload)} bytes are no report: {error}") from error
