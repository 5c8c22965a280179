"""Network namespaces and parent-death signals: the few calls of libc that Python 3.10 does not offer."""

from __future__ import annotations

import ctypes
import os
import signal

from nodes.errors import WorldError

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
OWN_NAMESPACE = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)  # loaded here, since nothing may be loaded between fork and exec


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise WorldError(f"{what}: {os.strerror(number)} (errno {number}); it needs root and network namespaces")


def open_current() -> int:
    """Return a descriptor of the calling thread's network namespace; it keeps the namespace alive till closed."""
    return os.open(OWN_NAMESPACE, os.O_RDONLY)


def current_inode() -> int:
    """Return the inode that names the calling thread's network namespace; no two living ones share it."""
    return os.stat(OWN_NAMESPACE).st_ino


def inode_of(pid: int) -> int | None:
    """Return the inode of process `pid`'s network namespace; None once it is gone or a zombie."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def unshare() -> None:
    """Move the calling thread, and what it starts from now on, into a new and empty network namespace."""
    _checked(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")


def enter(descriptor: int) -> None:
    """Move the calling thread into the network namespace that `descriptor` was opened on."""
    _checked(_libc.setns(descriptor, CLONE_NEWNET), "setns(CLONE_NEWNET)")


def die_with(parent_pid: int) -> None:
    """Ask the kernel to kill the calling process when the thread of `parent_pid` that forked it ends.

    To be called in a child just after fork. A parent that died before the call is noticed by its
    absence, and the child leaves at once.
    """
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
