"""Room in the packet sockets of a running Open vSwitch, and what it failed to send for want of it.

In user space the switch sends through one packet socket for all of its ports. A frame that waits in a shaped link still
counts as its sender's, so the 208 kB that Linux gives a socket are a queue of some 160 frames that all ports share: no
queue of the emulated switch. There is no option for it, so the socket is borrowed (pidfd_getfd(2), Linux 5.6) and given
room; its receiving sockets likewise.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import socket
from pathlib import Path

from nodes.socket_room import give_room

log = logging.getLogger(__name__)

PIDFD_GETFD = 438  # the same on all architectures
SWITCH_BUFFER_BYTES = 256 << 20  # more than full queues of a rack's ports; a limit, not an allocation
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_NOT_SENT = re.compile(r"error sending Ethernet packet on \S+: (?:Resource temporarily unavailable|No buffer space)")


def widen(pid: int, proc: Path = Path("/proc")) -> int:
    """Give all packet sockets that process `pid` has now SWITCH_BUFFER_BYTES each way; return how many there are.

    Where the machine does not allow it, a warning says so: then `not_sent` tells whether it mattered.
    """
    found = 0
    try:
        process = os.pidfd_open(pid)
        try:
            for descriptor in packet_sockets(pid, proc):
                with socket.socket(fileno=_borrowed(process, descriptor)) as borrowed:
                    give_room(borrowed, SWITCH_BUFFER_BYTES)
                found += 1
        finally:
            os.close(process)
    except OSError as error:
        log.warning("the switch's sockets keep the room that they have: %s", error)
    return found


def packet_sockets(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the descriptors of a process that are packet sockets of its network namespace."""
    inodes = {line.split()[-1] for line in (proc / str(pid) / "net" / "packet").read_text().splitlines()[1:]}
    found = []
    for entry in (proc / str(pid) / "fd").iterdir():
        try:
            match = _SOCKET.fullmatch(os.readlink(entry))
        except FileNotFoundError:
            continue  # closed since
        if match is not None and match[1] in inodes:
            found.append(int(entry.name))
    return sorted(found)


def not_sent(switch_log: Path) -> int:
    """Return how often the switch has said that a frame did not fit into its socket; it says at most some of them."""
    try:
        return len(_NOT_SENT.findall(switch_log.read_text(errors="replace")))
    except FileNotFoundError:
        return 0


def _borrowed(process: int, descriptor: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    borrowed: int = libc.syscall(PIDFD_GETFD, process, descriptor, 0)
    if borrowed < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return borrowed
