"""Bringing up interfaces of the namespace that a process stands in, without starting a program for each."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
from pathlib import Path

from nodes.errors import NodeError

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1
_REQUEST = struct.Struct("16sh14x")


def set_up(name: str) -> None:
    """Bring interface `name` up (netdevice(7)); raises NodeError if it cannot be."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
            flags = _REQUEST.unpack(answer)[1]
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, _REQUEST.pack(name.encode(), flags | IFF_UP))
        except OSError as error:
            raise NodeError(f"cannot bring up {name}: {error.strerror}") from error


def set_sysctl(name: str, value: int) -> None:
    """Set net.`name` in the caller's namespace; a kernel without that setting has nothing to set."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net", *name.split(".")).write_text(str(value))


def disable_ipv6() -> None:
    """Keep the kernel from sending router solicitations and neighbour discovery of its own."""
    set_sysctl("ipv6.conf.all.disable_ipv6", 1)
    set_sysctl("ipv6.conf.default.disable_ipv6", 1)
