"""A compute node's side of a migration: obeys the controller's commands, each as often as it comes.

What an instance is on this node, and what a command does about it (DOES, below):

    destination   absent --prepare--> preparing ~~> prepared --collect--> collecting ~~> staged --start--> live
    source        live --freeze--> stopping ~~> frozen --release--> released
                                   '-----------'--resume--> live

`~~>` happens by itself, and is told to the controller without being asked. What is released or discarded stays in
memory for KEEP_S all the same: should the other side have died just then, before the controller could know, it can be
resumed, or prepared and found staged. Frozen stays frozen: however long nothing is
heard, a node never makes an instance live by its own decision, so there is never a second one. Commands carry an
epoch, which the controller counts up with every decision on an instance: one of an earlier epoch than the last that
was obeyed is refused, so a command that comes late does no harm. One that could make an instance live out of nothing
names the run of the node that is meant, since a node that has lost its memory has lost its epochs, too.
"""

from __future__ import annotations

import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from nodes.authority import Authority
from nodes.control_messages import (
    FRESH,
    Answer,
    Chunk,
    Command,
    ControlMessage,
    Fetch,
    Refusal,
    Standing,
    Verb,
    pack_addresses,
    unpack_places,
)
from nodes.errors import WireError
from nodes.fetching import Fetcher, chunk_of, digest_of

MAX_BINARY_BYTES = 256 << 20
MAX_PACKAGE_BYTES = 1 << 30
KEEP_S = 30.0  # ours: longer than it takes to notice, and to be sure, that a node is dead
POLL_S = 1e-4  # how often an instance that is stopping is looked at
Key = tuple[int, int]
Outgoing = list[tuple[bytes, ControlMessage]]  # (IP, message), for its control port

_S, _V = Standing, Verb
DOES: dict[tuple[Standing, Verb], str] = {
    **{(s, _V.PREPARE): "_prepare" for s in (_S.ABSENT, _S.RELEASED, _S.PREPARING, _S.PREPARED, _S.COLLECTING,
                                             _S.STAGED)},
    (_S.LIVE, _V.PREPARE): "_stay",
    (_S.LIVE, _V.FREEZE): "_freeze",
    (_S.STOPPING, _V.FREEZE): "_stay",
    (_S.FROZEN, _V.FREEZE): "_stay",
    (_S.PREPARED, _V.COLLECT): "_collect",
    (_S.COLLECTING, _V.COLLECT): "_collect",
    (_S.STAGED, _V.COLLECT): "_collect",
    (_S.STAGED, _V.START): "_start",
    (_S.PREPARED, _V.START): "_start_fresh",
    (_S.COLLECTING, _V.START): "_start_fresh",
    (_S.LIVE, _V.START): "_stay",
    (_S.STOPPING, _V.RESUME): "_resume",
    (_S.FROZEN, _V.RESUME): "_resume",
    (_S.RELEASED, _V.RESUME): "_resume",
    (_S.LIVE, _V.RESUME): "_stay",
    (_S.FROZEN, _V.RELEASE): "_release",
    (_S.RELEASED, _V.RELEASE): "_stay",
    (_S.ABSENT, _V.RELEASE): "_stay",
    **{(s, _V.DISCARD): "_discard" for s in (_S.ABSENT, _S.PREPARING, _S.PREPARED, _S.COLLECTING, _S.STAGED)},
    (_S.RELEASED, _V.DISCARD): "_stay",
}


class Local(Protocol):
    """What the agent needs of the node's runtime. A complaint is why something cannot be used, None if it can."""

    def usable(self, key: Key, binary: bytes, fresh: bool) -> str | None:
        """Say whether the instance could run from `binary` here, having moved here unless `fresh`."""

    def acceptable(self, key: Key, package: bytes) -> str | None:
        """Say whether `package` is an instance of this kind, whole and undamaged."""

    def clients(self, key: Key, package: bytes) -> list[tuple[bytes, int]]:
        """Return the addresses, each once, of the clients that send to the instance in an acceptable `package`."""

    def freeze(self, key: Key) -> None:
        """Begin no request of the instance any more, and acknowledge nothing for it."""

    def frozen(self, key: Key) -> bytes | None:
        """Return the instance as a package once nothing of it runs any more; None till then."""

    def resume(self, key: Key) -> None:
        """Go on with an instance that `freeze` stopped, as if nothing had been."""

    def start(self, key: Key, binary: bytes, package: bytes | None) -> None:
        """Run the instance that is in `package`, or a fresh one."""

    def release(self, key: Key) -> None:
        """Forget what is kept of an instance that was frozen, or was to begin here."""

    def connect(self, key: Key, ip: bytes, epoch: int) -> None:
        """By the decision `epoch`, send what is for the instance to `ip` from now on, and believe it there only."""


@dataclass(slots=True)
class _Here:
    """What is known of one instance; `told` is the last command whose end is to be reported."""

    standing: Standing = Standing.ABSENT
    epoch: int = 0
    migration: int = 0
    binary: bytes = b""
    package: bytes = b""
    package_digest: bytes = b""
    clients: bytes = b""  # that sent to it at its old place, for the controller
    peer: bytes = b""  # who may fetch the package
    fetcher: Fetcher | None = None
    fresh: bool = False  # what is prepared begins with nothing
    told: Command | None = None
    keep_until: float = math.inf  # what is released or discarded
    refusal: Refusal = Refusal.NONE
    complaint: str = ""


class MigrationAgent:
    """Answers commands of the controller that `authority` obeys. `boot` is the number of this run of the node."""

    def __init__(self, local: Local, authority: Authority, boot: int) -> None:
        self._local = local
        self.authority = authority
        self.boot = boot
        self.counters: Counter[str] = Counter()  # what was refused, by reason
        self._now = 0.0
        self._here: dict[Key, _Here] = {}
        self._connected: dict[Key, tuple[int, bytes]] = {}  # epoch and address of instances elsewhere

    def run_here(self, application: int, instance: int, epoch: int, binary: bytes = b"") -> None:
        """Note an instance that lives here since the start of the node."""
        self._here[application, instance] = _Here(Standing.LIVE, epoch, binary=binary)

    def forget(self, application: int) -> None:
        """Have nothing of an application's instances any more, however each stands, and believe none anywhere."""
        for key in [key for key in self._here if key[0] == application]:
            del self._here[key]
            self._local.release(key)
        for key in [key for key in self._connected if key[0] == application]:
            del self._connected[key]

    def standing(self, application: int, instance: int) -> Standing:
        here = self._here.get((application, instance))
        return Standing.ABSENT if here is None else here.standing

    def epoch(self, application: int, instance: int) -> int:
        here = self._here.get((application, instance))
        return 0 if here is None else here.epoch

    def package(self, application: int, instance: int) -> bytes:
        """Return what is frozen or staged of an instance; nothing where nothing is."""
        here = self._here.get((application, instance))
        return b"" if here is None else here.package

    def receive(self, source: bytes, message: ControlMessage, now: float, out: Outgoing) -> None:
        """Take a message that came to the control port from `source`, which the ToR vouches for."""
        if isinstance(message, Command):
            if source not in self.authority.ips:
                self.counters["command not from the controller"] += 1
                return
            out.append((source, self._obey(source, message, now)))
            self.tick(now, out)
        elif isinstance(message, Fetch):
            self._serve(source, message, out)
        elif isinstance(message, Chunk):
            self._take(source, message)
            self.tick(now, out)
        else:
            self.counters["answer to a node"] += 1

    def tick(self, now: float, out: Outgoing) -> None:
        """Do what is due: ask for chunks, look after what is stopping, report what has come to an end."""
        self._now = now
        for key, here in self._here.items():
            if now >= here.keep_until:
                self._forget(key, here)
            if here.fetcher is not None and not here.fetcher.complete:
                out += [(here.fetcher.source, fetch) for fetch in here.fetcher.ask(now)]
            ended = self._fetched(key, here) if here.fetcher is not None and here.fetcher.complete else (
                here.standing is Standing.STOPPING and self._stopped(key, here))
            if ended and here.told is not None:
                out.append((self.authority.leader, self._answer(here.told, here, here.refusal)))

    def due(self, now: float) -> float | None:
        """Return when `tick` has something to do; None while nothing is under way."""
        times = [t for here in self._here.values() if here.fetcher and (t := here.fetcher.due()) is not None]
        times += [here.keep_until for here in self._here.values() if here.keep_until < math.inf]
        if any(here.standing is Standing.STOPPING for here in self._here.values()):
            times.append(now + POLL_S)
        return min(times) if times else None

    def _obey(self, source: bytes, command: Command, now: float) -> Answer:
        self._now = now
        key = command.application, command.instance
        here = self._here.get(key) or _Here()
        if not self.authority.obeys(source, command.term):
            return self._answer(command, here, Refusal.OLD_TERM)
        if command.boot not in (0, self.boot):
            return self._answer(command, here, Refusal.OTHER_BOOT)
        if command.verb == Verb.CONNECT:
            return self._answer(command, here, self._connect(key, command))
        if command.epoch < here.epoch:
            return self._answer(command, here, Refusal.OLD_EPOCH)
        does = DOES.get((here.standing, Verb(command.verb)))
        refusal: Refusal = getattr(self, does)(key, here, command) if does is not None else Refusal.OUT_OF_PLACE
        if refusal is Refusal.NONE:
            here.epoch, here.migration, here.told = command.epoch, command.migration, command
            self._here[key] = here
            refusal = here.refusal
        return self._answer(command, here, refusal)

    def _answer(self, command: Command, here: _Here, refusal: Refusal) -> Answer:
        if refusal is not Refusal.NONE:
            self.counters[f"refused: {refusal.name.lower().replace('_', ' ')}"] += 1
        size, digest = len(here.package), here.package_digest or bytes(16)
        if here.fetcher is not None:
            size, digest = here.fetcher.got, here.fetcher.digest
        said = here.complaint.encode()[:200]
        if refusal is Refusal.NONE and here.standing in (Standing.STAGED, Standing.LIVE):
            said = here.clients
        return Answer(command.term, self.boot, command.migration, command.verb, here.standing, refusal,
                      command.application, command.instance, command.epoch, size, digest, said)

    def _connect(self, key: Key, command: Command) -> Refusal:
        return self._stands(key, command.epoch, command.peer)

    def _stands(self, key: Key, epoch: int, ip: bytes) -> Refusal:
        """Believe that an instance stands at `ip` by the decision `epoch`, unless a later one is known."""
        known = self._connected.get(key, (0, b""))
        if epoch < max(known[0], self.epoch(*key)):
            return Refusal.OLD_EPOCH
        self._connected[key] = epoch, ip
        if known != (epoch, ip):
            self._local.connect(key, ip, epoch)
        return Refusal.NONE

    def _learn(self, key: Key, command: Command) -> None:
        """Believe where the neighbours of an instance that is about to run here are, unless later is known."""
        with suppress(WireError):
            for number, epoch, ip in unpack_places(command.payload):
                self._stands((key[0], number), epoch, ip)

    def _stay(self, key: Key, here: _Here, command: Command) -> Refusal:
        return Refusal.NONE

    def _prepare(self, key: Key, here: _Here, command: Command) -> Refusal:
        if here.migration == command.migration and here.standing not in (Standing.ABSENT, Standing.RELEASED):
            if here.standing is Standing.PREPARING and here.fetcher and here.fetcher.source != command.peer:
                here.fetcher = Fetcher(command.peer, command.digest, command.size)  # from who leads now
            return Refusal.NONE  # however far it has come
        if here.migration == command.migration and here.standing is Standing.ABSENT and here.package:
            here.standing, here.keep_until = Standing.STAGED, math.inf  # discarded, but not forgotten
            return Refusal.NONE
        if command.size > MAX_BINARY_BYTES:
            return Refusal.TOO_LARGE
        self._forget(key, here)
        here.standing = Standing.PREPARING
        here.fresh = command.payload == FRESH
        here.refusal, here.complaint = Refusal.NONE, ""
        here.fetcher = Fetcher(command.peer, command.digest, command.size)
        return Refusal.NONE

    def _freeze(self, key: Key, here: _Here, command: Command) -> Refusal:
        here.standing, here.peer = Standing.STOPPING, command.peer
        self._local.freeze(key)
        return Refusal.NONE

    def _stopped(self, key: Key, here: _Here) -> bool:
        package = self._local.frozen(key)
        if package is None:
            return False
        here.standing, here.package, here.package_digest = Standing.FROZEN, package, digest_of(package)
        return True

    def _collect(self, key: Key, here: _Here, command: Command) -> Refusal:
        held = here.fetcher.digest if here.fetcher is not None else here.package_digest
        if here.standing is not Standing.PREPARED and held == command.digest:
            return Refusal.NONE
        if command.size > MAX_PACKAGE_BYTES:
            return Refusal.TOO_LARGE
        here.standing, here.package, here.package_digest = Standing.COLLECTING, b"", b""
        here.refusal, here.complaint = Refusal.NONE, ""
        here.fetcher = Fetcher(command.peer, command.digest, command.size)
        return Refusal.NONE

    def _fetched(self, key: Key, here: _Here) -> bool:
        """Judge what has come in full; what cannot be used is thrown away and said."""
        fetcher, here.fetcher = here.fetcher, None
        assert fetcher is not None
        data = fetcher.data()
        of_binary = here.standing is Standing.PREPARING
        if fetcher.wrong:
            here.complaint = f"digest of {len(data)} bytes"
        else:
            here.complaint = (self._local.usable(key, data, here.fresh) if of_binary
                              else self._local.acceptable(key, data)) or ""
        if here.complaint:
            here.refusal = Refusal.WRONG_DIGEST if fetcher.wrong else Refusal.UNUSABLE
            self.counters[f"fetched: {here.refusal.name.lower().replace('_', ' ')}"] += 1
            here.standing = Standing.ABSENT if of_binary else Standing.PREPARED
        elif of_binary:
            here.standing, here.binary = Standing.PREPARED, data
        else:
            here.standing, here.package, here.package_digest = Standing.STAGED, data, fetcher.digest
            here.clients = pack_addresses(self._local.clients(key, data))
        return True

    def _start(self, key: Key, here: _Here, command: Command) -> Refusal:
        if (len(here.package), here.package_digest) != (command.size, command.digest):
            return Refusal.WRONG_DIGEST
        self._learn(key, command)
        self._local.start(key, here.binary, here.package)
        here.standing, here.package = Standing.LIVE, b""
        return Refusal.NONE

    def _start_fresh(self, key: Key, here: _Here, command: Command) -> Refusal:
        if command.size or not command.boot:
            return Refusal.OUT_OF_PLACE
        self._learn(key, command)
        self._local.start(key, here.binary, None)
        here.standing, here.fetcher = Standing.LIVE, None
        return Refusal.NONE

    def _resume(self, key: Key, here: _Here, command: Command) -> Refusal:
        if here.standing is Standing.RELEASED and not here.package:
            return Refusal.OUT_OF_PLACE
        self._learn(key, command)
        self._local.resume(key)
        here.standing, here.package, here.package_digest, here.keep_until = Standing.LIVE, b"", b"", math.inf
        return Refusal.NONE

    def _release(self, key: Key, here: _Here, command: Command) -> Refusal:
        here.standing, here.peer, here.keep_until = Standing.RELEASED, b"", self._now + KEEP_S
        return Refusal.NONE

    def _discard(self, key: Key, here: _Here, command: Command) -> Refusal:
        if here.standing is not Standing.ABSENT:
            here.standing, here.fetcher, here.keep_until = Standing.ABSENT, None, self._now + KEEP_S
        return Refusal.NONE

    def _forget(self, key: Key, here: _Here) -> None:
        """Free what is kept of an instance that is elsewhere."""
        if here.standing is Standing.RELEASED and here.package:
            self._local.release(key)
        here.package, here.package_digest, here.binary, here.keep_until = b"", b"", b"", math.inf

    def _serve(self, source: bytes, fetch: Fetch, out: Outgoing) -> None:
        for here in self._here.values():
            if here.standing is Standing.FROZEN and here.package_digest == fetch.digest and here.peer == source:
                chunk = chunk_of(here.package, fetch)
                if chunk is not None:
                    out.append((source, chunk))
                    return
        self.counters["fetch of what is not there, or not theirs"] += 1

    def _take(self, source: bytes, chunk: Chunk) -> None:
        if not any(here.fetcher is not None and here.fetcher.take(source, chunk) for here in self._here.values()):
            self.counters["chunk that was not asked for"] += 1
