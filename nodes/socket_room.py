"""Room in sockets: what waits in a shaped link still counts as its sender's, and Linux gives a socket 208 kB."""

from __future__ import annotations

import socket

SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
SOCKET_BUFFER_BYTES = 32 << 20


def give_room(one: socket.socket, size: int = SOCKET_BUFFER_BYTES) -> None:
    """Let `one` hold `size` bytes each way, whatever the machine's usual limits; needs CAP_NET_ADMIN."""
    for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
        one.setsockopt(socket.SOL_SOCKET, option, size)
