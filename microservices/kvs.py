"""Key-value store: an in-memory hashtable with memcached's commands and its text protocol (a subset).

As a request of its own, a command is in memcached's text protocol and so is the answer:

    get KEY... | gets KEY | set|add|replace KEY FLAGS 0 BYTES [noreply is refused] CRLF DATA CRLF
    cas KEY FLAGS 0 BYTES UNIQUE CRLF DATA CRLF | delete KEY | incr|decr KEY AMOUNT

each line ended by CRLF. Only an expiry of 0 (never) is known. `get` takes one key: keys of one request could lie in
different shards. As a stage on the way of a record, its `op` (set if empty, get, delete) acts on the record's key and
text.
"""

from __future__ import annotations

from collections.abc import Sequence

from microservices.errors import ServiceError
from microservices.records import MAX_KEY_BYTES, decode_record, encode_record, record_key
from microservices.reliable import Array, Hashtable
from microservices.service import Accelerator, Microservice, Output, Request
from microservices.sharding import SLOTS, slot_of
from microservices.state import State

CRLF = b"\r\n"
STORES = (b"set", b"add", b"replace", b"cas")
_VERBS = (*STORES, b"get", b"gets", b"delete", b"incr", b"decr")
_WORDS = {b"get": 2, b"gets": 2, b"delete": 2, b"incr": 3, b"decr": 3, b"cas": 6}


class Kvs(Microservice):
    """Commands or records in; replies of memcached, or records with the value or what became of it, out."""

    name = "kvs"
    memory_mb = 64
    stateful = True
    accelerators = frozenset({Accelerator.FETCH_AND_ADD})

    def new_state(self) -> State:
        """Of each key flags, unique number and value; of each slot the last unique number given out."""
        return State(hashtables={"entries": Hashtable(bytes, tuple[int, int, bytes])},
                     arrays={"unique": Array("Q", SLOTS)})

    def key_of(self, payload: bytes) -> bytes:
        words = payload[:MAX_KEY_BYTES + 16].split(None, 2)
        return words[1] if len(words) > 1 and words[0] in _VERBS else record_key(payload)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        payload = request.payload
        if payload[:1].isalpha():
            return (Output(_command(payload, state)),)
        record = decode_record(payload)
        key = record.key.encode()
        if record.op in ("", "set"):
            _store(state, key, 0, record.text.encode())
            record.results[self.name] = "STORED"
        elif record.op == "get":
            entry = state.hashtables["entries"].get(key)
            record.results[self.name] = None if entry is None else entry[2].decode("utf-8", "replace")
        elif record.op == "delete":
            record.results[self.name] = "NOT_FOUND" if state.hashtables["entries"].pop(key) is None else "DELETED"
        else:
            raise ServiceError(f"op {record.op!r}; the store knows set, get, delete")
        return (Output(encode_record(record)),)


def _command(payload: bytes, state: State) -> bytes:
    line, end, rest = payload.partition(CRLF)
    words = line.split(b" ")
    verb = words[0]
    if not end or verb not in _VERBS or len(words) != _WORDS.get(verb, 5):
        raise ServiceError(f"command {line[:80]!r} is not one of the store's")
    key = words[1]
    if not 1 <= len(key) <= MAX_KEY_BYTES or any(c <= 32 or c == 127 for c in key):
        raise ServiceError(f"key {key[:80]!r} of {len(key)} bytes; it has 1 to {MAX_KEY_BYTES}, none of them control")
    entries = state.hashtables["entries"]
    entry: tuple[int, int, bytes] | None = entries.get(key)
    if verb in STORES:
        return _store_command(words, rest, entry, state)
    if rest:
        raise ServiceError(f"{len(rest)} bytes after {line[:80]!r}")
    if verb in (b"get", b"gets"):
        if entry is None:
            return b"END\r\n"
        unique = b" %d" % entry[1] if verb == b"gets" else b""
        return b"VALUE %b %d %d%b\r\n%b\r\nEND\r\n" % (key, entry[0], len(entry[2]), unique, entry[2])
    if entry is None:
        return b"NOT_FOUND\r\n"
    if verb == b"delete":
        entries.pop(key)
        return b"DELETED\r\n"
    amount = _number(words[2], 2**64 - 1)
    if not (entry[2].isdigit() and int(entry[2][:21]) < 2**64):
        raise ServiceError(f"value of {key!r} is not a number of 64 bits")
    old = int(entry[2])
    # As in memcached: counting up wraps at 64 bits, counting down stops at 0.
    value = b"%d" % ((old + amount) % 2**64 if verb == b"incr" else max(0, old - amount))
    _store(state, key, entry[0], value)
    return value + CRLF


def _store_command(words: list[bytes], rest: bytes, entry: tuple[int, int, bytes] | None, state: State) -> bytes:
    verb, key = words[0], words[1]
    flags, expiry, size = _number(words[2], 2**32 - 1), _number(words[3], 2**31), _number(words[4], 2**20)
    if expiry:
        raise ServiceError(f"expiry {expiry}; only 0, never, is known")
    if len(rest) != size + 2 or rest[size:] != CRLF:
        raise ServiceError(f"data block of {len(rest)} bytes; {size} and CRLF were announced")
    if verb == b"cas":
        unique = _number(words[5], 2**64 - 1)
        if entry is None:
            return b"NOT_FOUND\r\n"
        if entry[1] != unique:
            return b"EXISTS\r\n"
    elif (verb == b"add" and entry is not None) or (verb == b"replace" and entry is None):
        return b"NOT_STORED\r\n"
    _store(state, key, flags, rest[:size])
    return b"STORED\r\n"


def _store(state: State, key: bytes, flags: int, value: bytes) -> None:
    unique = state.arrays["unique"].add(slot_of(key), 1)
    state.hashtables["entries"][key] = (flags, unique, value)


def _number(word: bytes, limit: int) -> int:
    if not word.isdigit() or int(word[:21]) > limit:
        raise ServiceError(f"{word[:40]!r}; a number up to {limit} is needed")
    return int(word)
