"""The store on one node of the replica room: the real key-value store, and what clients were answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from microservices.errors import StateError
from microservices.kvs import Kvs
from microservices.service import Request
from nodes.migration_agent import Key

if TYPE_CHECKING:
    from replica_room import Room

KEY = (1, 3)
KVS = Kvs()


class Seen(msgspec.Struct, array_like=True):
    """What an entry or a snapshot is made of: whose request it was, what it answered, and what changed."""

    client: int
    number: int
    reply: bytes
    changes: bytes


class Store:
    """A node's runtime in small: the store, and of each client its last request and reply."""

    def __init__(self, room: Room, name: str) -> None:
        self.room, self.name = room, name
        self.forget(KEY)

    def forget(self, key: Key) -> None:
        self.state = KVS.new_state()
        self.seen: dict[int, tuple[int, bytes]] = {}
        self.unanswered: set[int] = set()  # clients whose last reply may not leave yet
        self.executes = False

    def found(self, key: Key) -> None:
        self.serve(key)

    def serve(self, key: Key) -> None:
        self.state.start_changes()
        self.executes = True

    def snapshot(self, key: Key) -> bytes:
        return msgspec.msgpack.encode((self.state.snapshot(), self.seen))

    def restore(self, key: Key, snapshot: bytes) -> str | None:
        try:
            state, seen = msgspec.msgpack.decode(snapshot, type=tuple[bytes, dict[int, tuple[int, bytes]]])
            self.state.restore(state)
        except (msgspec.MsgspecError, StateError) as error:
            return str(error)
        self.seen = seen
        return None

    def apply(self, key: Key, entry: bytes) -> str | None:
        try:
            one = msgspec.msgpack.decode(entry, type=Seen)
            self.state.apply_changes(one.changes)
        except (msgspec.MsgspecError, StateError) as error:
            return str(error)
        self.seen[one.client] = one.number, one.reply
        return None

    def clients(self, key: Key) -> list[tuple[bytes, int]]:
        return []

    def execute(self, client: int, number: int, request: bytes) -> bytes | None:
        """Return an entry to replicate; None for a request that was executed before."""
        before, reply = self.seen.get(client, (-1, b""))
        if number <= before:
            if number == before and client not in self.unanswered:
                self.release(KEY, (client, number, reply))
            return None
        (output,) = KVS.handle(Request(request), self.state)
        self.seen[client] = number, output.payload
        self.unanswered.add(client)
        return msgspec.msgpack.encode(Seen(client, number, output.payload, self.state.take_changes()))

    def release(self, key: Key, outputs: object) -> None:
        if outputs is None:
            return  # of a variant that has let them go before
        client, number, reply = outputs  # type: ignore[misc]
        if self.seen[client][0] == number:
            self.unanswered.discard(client)
        to = self.room.client_of(client)
        self.room.carry(self.name, to, lambda: self.room.clients[to].replied(client, number, reply))
