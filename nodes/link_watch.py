"""Tells which interfaces of this network namespace have carrier, as the kernel's rtnetlink reports it.

Not /sys/class/net: that shows the namespace in which it was mounted, not the one we are in.
"""

from __future__ import annotations

import errno
import socket
import struct

NETLINK_ROUTE = 0
RTMGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
IFLA_IFNAME = 3
IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, change
_ATTRIBUTE = struct.Struct("=HH")  # length, type


class LinkWatch:
    """A subscription to link changes; readable (`fileno`) when there is something to `read`."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.setblocking(False)
        self._socket.bind((0, RTMGRP_LINK))
        self.ask()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def ask(self) -> None:
        """Have every link reported once; the answers come through `read`."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        self._socket.send(_HEADER.pack(_HEADER.size + len(body), RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body)

    def read(self) -> list[tuple[str, bool]]:
        """Return each report since the last call, in order: the link, and whether it is up and has carrier.

        In order, because a link that went down and up again between two calls has lost its routes.
        """
        links: list[tuple[str, bool]] = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return links
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.ask()  # the kernel dropped reports: hear them all again
                continue
            links += links_in(data)


def links_in(data: bytes) -> list[tuple[str, bool]]:
    """Read the netlink messages in `data`: (interface, up with carrier) each. What is no link report is skipped."""
    links: list[tuple[str, bool]] = []
    start = 0
    while start + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, start)
        if length < _HEADER.size:
            break
        message = data[start:start + length]
        if kind in (RTM_NEWLINK, RTM_DELLINK) and len(message) >= _HEADER.size + _LINK.size:
            _, _, _, flags, _ = _LINK.unpack_from(message, _HEADER.size)
            up = kind == RTM_NEWLINK and flags & IFF_UP and flags & IFF_LOWER_UP
            name = _name_in(message[_HEADER.size + _LINK.size:])
            if name:
                links.append((name, bool(up)))
        start += length + 3 & ~3
    return links


def _name_in(attributes: bytes) -> str:
    start = 0
    while start + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, start)
        if length < _ATTRIBUTE.size:
            break
        if kind == IFLA_IFNAME:
            return attributes[start + _ATTRIBUTE.size:start + length].rstrip(b"\0").decode(errors="replace")
        start += length + 3 & ~3
    return ""
