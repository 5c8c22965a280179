"""API gateway: authenticates a record and limits the rate of its client with a token bucket (paper Table 2).

A token is the first 16 bytes of HMAC-SHA-256, under the client's key, of the client's name, a zero byte, the time
(big-endian double) and the text. Client keys derive from one secret. A record that does not pass is an error reply.
"""

from __future__ import annotations

import hmac
import struct
from hashlib import blake2b

from microservices.errors import ServiceError
from microservices.records import Record, RecordService
from microservices.reliable import Hashtable
from microservices.service import Accelerator
from microservices.state import State

TOKEN_BYTES = 16
DEFAULT_SECRET = b"E3 testbed: clients of the API gateway"  # ours; it guards synthetic records only


def client_key(secret: bytes, client: str) -> bytes:
    return blake2b(client.encode(), key=secret[:64], digest_size=32, person=b"E3 api client").digest()


def sign(record: Record, key: bytes) -> bytes:
    """Return the token of a record under its client's key."""
    message = b"%b\0%b%b" % (record.key.encode(), struct.pack(">d", record.time_s), record.text.encode())
    return hmac.digest(key, message, "sha256")[:TOKEN_BYTES]


class ApiGateway(RecordService):
    """Adds the tokens left in the client's bucket, a float.

    A bucket holds up to `burst` and gains `rate_per_s` each emulated second; a record takes one. The time is the
    gateway's, not the client's, so no client can refill its own.
    """

    name = "api_gateway"
    memory_mb = 64
    stateful = True
    accelerators = frozenset({Accelerator.CRYPTO})

    def __init__(self, rate_per_s: float = 10_000.0, burst: float = 10_000.0, secret: bytes = DEFAULT_SECRET) -> None:
        if rate_per_s <= 0.0 or burst < 1.0:
            raise ServiceError(f"rate {rate_per_s} per s, burst {burst}; the least are above 0 and 1")
        self.rate_per_s, self.burst, self._secret = rate_per_s, burst, secret
        self._keys: dict[str, bytes] = {}

    def new_state(self) -> State:
        """Of each client: the tokens in its bucket, and the time in seconds at which they were so many."""
        return State(hashtables={"bucket": Hashtable(str, tuple[float, float])})

    def answer(self, record: Record, state: State, now_s: float) -> float:
        client = record.key
        if len(record.token) != TOKEN_BYTES or not hmac.compare_digest(record.token, sign(record, self._key(client))):
            raise ServiceError(f"client {client!r} is not who the token says")
        buckets = state.hashtables["bucket"]
        tokens, since_s = buckets.get(client, (self.burst, now_s))
        tokens = min(self.burst, tokens + max(0.0, now_s - since_s) * self.rate_per_s)
        if tokens < 1.0:
            buckets[client] = (tokens, max(now_s, since_s))
            raise ServiceError(f"client {client!r} is over its rate of {self.rate_per_s:g} requests per s")
        buckets[client] = (tokens - 1.0, max(now_s, since_s))
        return float(tokens - 1.0)

    def _key(self, client: str) -> bytes:
        """Derive a client's key, once for clients that were seen before; the cache forgets all when it is full."""
        key = self._keys.get(client)
        if key is None:
            if len(self._keys) >= 10_000:
                self._keys.clear()
            key = self._keys[client] = client_key(self._secret, client)
        return key
