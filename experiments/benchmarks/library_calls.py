"""The bare calls that handlers are held against: a library's own work on a handler's data, and nothing else.

Whatever a program could do once is done beforehand and not timed: keys and tables are made, bytes are in the types that
the library takes. What every request needs anew is timed, so a cipher starts with the packet's own IV, and a database
runs the request's statements.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from os import urandom
from typing import Any

import ahocorasick
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from microservices.bm25 import synthetic_documents
from microservices.ipsec import DEFAULT_SECRET, security_association
from microservices.knn import synthetic_clusters
from microservices.nids import Nids
from microservices.packet import flow_key, layers
from microservices.records import decode_record, value_of
from microservices.service import Microservice
from microservices.sharding import slot_of
from microservices.state import State

Prepared = tuple[Callable[[Any], object], Sequence[Any]]  # what to call, and with what in turn


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """`prepare(service, state, payloads)` makes the call and its arguments, one for each payload."""

    library: str
    prepare: Callable[[Microservice, State, Sequence[bytes]], Prepared]


def _ipsec(service: Microservice, state: State, payloads: Sequence[bytes]) -> Prepared:
    """AES-CBC under an IV of the packet's own, as RFC 3602 demands, and HMAC-SHA1 over header, IV and ciphertext.

    The library takes an IV when a cipher is made, so one is made for each packet; keys are kept.
    """
    associations = [security_association(DEFAULT_SECRET, slot) for slot in range(256)]
    ciphers = [algorithms.AES(sa.encryption_key) for sa in associations]
    prepared = []
    for payload in payloads:
        slot = slot_of(flow_key(payload))
        padding = -(len(payload) + 2) % 16
        plaintext = payload + bytes(range(1, padding + 1)) + bytes((padding, 4))
        prepared.append((ciphers[slot], associations[slot].authentication_key, bytes(8), urandom(16), plaintext))

    def call(one: tuple[Any, bytes, bytes, bytes, bytes]) -> bytes:
        cipher, key, header, iv, plaintext = one
        encryptor = Cipher(cipher, modes.CBC(iv)).encryptor()
        esp = header + iv + encryptor.update(plaintext) + encryptor.finalize()
        return esp + hmac.digest(key, esp, "sha1")[:12]
    return call, prepared


def _nids(service: Microservice, state: State, payloads: Sequence[bytes]) -> Prepared:
    """One pass of the automaton of all contents over the data of a packet, given as the text that it takes."""
    assert isinstance(service, Nids)
    automaton = ahocorasick.Automaton()
    for content in {c.pattern.lower() for rule in service.rules for c in rule.contents}:
        automaton.add_word(content.decode("latin-1"), content)
    automaton.make_automaton()
    scan = automaton.iter
    prepared = [p[layers(p).data_offset:].lower().decode("latin-1") for p in payloads]

    def call(text: str) -> list[Any]:
        return list(scan(text))
    return call, prepared


def _knn(service: Microservice, state: State, payloads: Sequence[bytes]) -> Prepared:
    """Squared distances to all points, the five least of them, and the commonest label."""
    points, names = synthetic_clusters()
    training = np.array(points)
    labels = np.unique(names, return_inverse=True)[1]

    def call(vector: np.ndarray) -> int:
        offsets = training - vector
        near = np.einsum("ij,ij->i", offsets, offsets).argpartition(4)[:5]
        return int(np.bincount(labels[near]).argmax())
    return call, [np.array(decode_record(p).values) for p in payloads]


def _bm25(service: Microservice, state: State, payloads: Sequence[bytes]) -> Prepared:
    """The sum of the rows of the query's words in a matrix of scores, and its ten greatest values in order."""
    documents = [Counter(d.split()) for d in synthetic_documents()]
    lengths = np.array([d.total() for d in documents])
    damping = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
    rows: dict[str, int] = {}
    scores: list[np.ndarray] = []
    for word in sorted(set().union(*documents)):
        f = np.array([d[word] for d in documents])
        holding = np.count_nonzero(f)
        rows[word] = len(scores)
        scores.append(log(1 + (len(f) - holding + 0.5) / (holding + 0.5)) * f / (f + damping))
    matrix = np.array(scores)

    def call(words: list[int]) -> tuple[list[int], list[float]]:
        found = matrix[words].sum(axis=0)
        best = found.argpartition(-10)[-10:]
        best = best[(-found[best]).argsort()]
        return best.tolist(), found[best].tolist()
    return call, [[rows[w] for w in decode_record(p).text.split() if w in rows] for p in payloads]


def _recommend(service: Microservice, state: State, payloads: Sequence[bytes]) -> Prepared:
    """Collaborative filtering by the book on a matrix that stands ready, as it is after the last request.

    Cosine similarities, the users in their order, the ratings of the first twenty for each item, and their mean.
    """
    table = state.hashtables["ratings"]
    users = list(table)
    tastes = np.array([np.frombuffer(table[user], "<f4") for user in users], dtype=np.float64)

    def call(row: int) -> list[tuple[int, float]]:
        mine = tastes[row]
        similarity = tastes @ mine / np.sqrt(np.einsum("ij,ij->i", tastes, tastes) * (mine @ mine))
        similarity[row] = 0.0
        nearest = (-similarity).argsort()[:np.count_nonzero(similarity)]
        weights, ratings = similarity[nearest], tastes[nearest]
        rated = ratings > 0.0
        rated &= rated.cumsum(axis=0, dtype=np.int32) <= 20
        predicted = weights @ (ratings * rated) / np.maximum(weights @ rated, 1e-9)
        predicted[mine > 0.0] = 0.0
        best = predicted.argpartition(-3)[-3:]
        return [(int(item), float(predicted[item])) for item in best]
    rows = {user: row for row, user in enumerate(users)}
    return call, [rows[decode_record(p).key] for p in payloads]


def _sql(service: Microservice, state: State, payloads: Sequence[bytes]) -> Prepared:
    """The two statements of an update, on a database of the same readings."""
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.executescript("""
        CREATE TABLE device (name TEXT PRIMARY KEY, updates INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE reading (device TEXT NOT NULL, place INTEGER NOT NULL, time_s REAL NOT NULL, value REAL NOT NULL,
                              PRIMARY KEY (device, place)) WITHOUT ROWID;""")
    execute = database.execute

    def call(one: tuple[str, float, float]) -> int:
        device, time_s, value = one
        updates: int = execute("INSERT INTO device VALUES (?, 1) ON CONFLICT (name) DO UPDATE "
                               "SET updates = updates + 1 RETURNING updates", (device,)).fetchall()[0][0]
        execute("INSERT OR REPLACE INTO reading VALUES (?, ?, ?, ?)", (device, updates % 64, time_s, value))
        return updates
    records = [decode_record(p) for p in payloads]
    prepared = [(r.key, r.time_s, value_of(r)) for r in records]
    for one in prepared:
        call(one)
    return call, prepared


LIBRARY_CALLS = {
    "bm25": LibraryCall("numpy", _bm25), "ipsec": LibraryCall("cryptography, hmac", _ipsec),
    "knn": LibraryCall("numpy", _knn), "nids": LibraryCall("pyahocorasick", _nids),
    "recommend": LibraryCall("numpy", _recommend), "sql": LibraryCall("sqlite3", _sql)}
