"""What all wire formats share: the four bytes that every message starts with, and how a layout is written down."""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = 0xE3A7
VERSION = 1
MAX_PAYLOAD = 8192


class Field(NamedTuple):
    """One field on the wire: `code` is its `struct` code, "ip" an IPv4 address of four bytes."""

    name: str
    code: str
    meaning: str


class Layout(NamedTuple):
    """The fields of one kind of message, in order.

    If the last is `length`, it counts the payload bytes after it; a layout without it has no payload.
    """

    kind: int
    name: str
    fields: tuple[Field, ...]

    @property
    def has_payload(self) -> bool:
        return self.fields[-1].name == "length"


HEADER = (
    Field("magic", "H", f"0x{MAGIC:04X}"),
    Field("version", "B", str(VERSION)),
    Field("kind", "B", "which of the layouts follows"),
)


def struct_of(fields: tuple[Field, ...]) -> struct.Struct:
    """Return the big-endian `struct.Struct` of `fields`."""
    return struct.Struct(">" + "".join("4s" if f.code == "ip" else f.code for f in fields))
