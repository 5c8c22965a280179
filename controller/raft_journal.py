"""The controller's journal, replicated to three controller nodes by Raft (PySyncObj), with one writer at a time.

Raft (Ongaro and Ousterhout, USENIX ATC 2014) makes the same log on all nodes and lets a majority go on without the
rest. It does not say which controller may decide: a command of one that was replaced is forwarded to the new leader
like any other. So the log has a writer. Who leads takes over by an entry of its own, which counts up the run; entries
of an earlier run are refused by all replicas alike. A controller whose `append` fails must fall silent: what it wanted
to write may have been written or not, and its successor finds out by reading.

Raft's timeouts are real seconds, since its threads and sockets are real; they know nothing of emulated time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

_inet_ntop = socket.inet_ntop
from pysyncobj import SyncObj, SyncObjConf, SyncObjException, replicated  # noqa: E402

from controller.errors import JournalError  # noqa: E402

socket.inet_ntop = _inet_ntop  # the library puts one for Windows in its place, whatever the system
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class RaftOptions:
    """Real seconds. A leader is missed after `least_timeout_s` to `most_timeout_s`, and one that hears of no majority
    ceases to lead after `fallback_s`. `append_s` is how long an entry may take."""

    beat_s: float = 0.05
    least_timeout_s: float = 0.4
    most_timeout_s: float = 1.0
    fallback_s: float = 1.0
    append_s: float = 2.0


class _Log(SyncObj):
    """What all replicas have: lines, and the run that may add to them."""

    def __init__(self, own: str, others: list[str], conf: SyncObjConf) -> None:
        super().__init__(own, others, conf)
        self.lines: list[bytes] = []
        self.run = 0

    @replicated
    def take_over(self) -> int:
        self.run += 1
        return self.run

    @replicated
    def add(self, run: int, line: bytes) -> bool:
        if run != self.run:
            return False
        self.lines.append(line)
        return True


class RaftJournal(Generic[Entry]):
    """A journal at `own` ("IP:port"), replicated to `others`.

    `encode` gives a line for an entry and `decode` the entries of many lines. With `directory` what was agreed on
    outlives the process, as Raft asks for; a node that comes back (`again`) without it is refused, by a JournalError:
    with a majority that has forgotten, what was agreed on could be decided otherwise. The
    library does not sync the file: two of the three losing power at once may lose what was written last.
    `secret` is known to the three nodes and to nobody else: they unpickle what is encrypted with it.

    Raises nothing else itself while others are out of reach; `append` and `take_over` do. Call `close` in the end.
    """

    def __init__(self, own: str, others: Sequence[str], secret: str, encode: Callable[[Entry], bytes],
                 decode: Callable[[bytes], Iterable[Entry]], directory: Path | None = None,
                 options: RaftOptions | None = None, again: bool = False) -> None:
        self.options = options or RaftOptions()
        self._encode, self._decode = encode, decode
        self._run = 0  # as whose writer this one counts itself; 0: it is none
        o, stem = self.options, own.replace(":", "-").replace(".", "-")
        files: dict[str, Any] = {} if directory is None else {
            "journalFile": str(directory / f"{stem}.journal"), "fullDumpFile": str(directory / f"{stem}.dump")}
        if again and not (files and Path(files["journalFile"]).exists()):
            raise JournalError(f"{own} was here before, and its journal in {directory} is gone: with it what it voted "
                               "for and what it promised to keep. It may not take part again under this name; the "
                               "other two go on")
        self._log = _Log(own, list(others), SyncObjConf(
            password=secret, appendEntriesPeriod=o.beat_s, raftMinTimeout=o.least_timeout_s,
            raftMaxTimeout=o.most_timeout_s, leaderFallbackTimeout=o.fallback_s, appendEntriesUseBatch=False,
            connectionTimeout=max(2.0, o.most_timeout_s), connectionRetryTime=0.5, commandsWaitLeader=False, **files))

    @property
    def leads(self) -> bool:
        """Whether this node leads as far as it knows: it may be about to find out that it does not."""
        return bool(self._log.isReady() and self._log._isLeader())

    @property
    def leader(self) -> str:
        """Return the address ("IP:port") of who leads, as far as this node knows; "" while nobody does."""
        found = self._log._getLeader()
        return "" if found is None else str(found.id)

    @property
    def writes(self) -> bool:
        """Whether this controller may decide: it took over, and nobody has since, as far as this node knows."""
        return self._run != 0 and self._run == self._log.run

    def take_over(self) -> int:
        """Become the writer; return the number of the run, higher than any before. Read `entries` afterwards.

        Raises JournalError where this node does not lead, or no majority is heard.
        """
        if not self.leads:
            raise JournalError("this node does not lead")
        self._run = 0
        self._run = int(self._agreed(self._log.take_over))
        return self._run

    def append(self, entry: Entry) -> None:
        """Write an entry; return when a majority has it. Raises JournalError if that is not known for certain.

        After an error nothing more is written before `take_over`.
        """
        if not self._run:
            raise JournalError("this controller is not the writer")
        run, self._run = self._run, 0
        if not self._agreed(self._log.add, run, self._encode(entry)):
            raise JournalError(f"run {run} was replaced by {self._log.run}")
        self._run = run

    def entries(self) -> Sequence[Entry]:
        """Return what this node knows to be agreed on: all of it right after `take_over`."""
        return tuple(self._decode(b"".join(list(self._log.lines))))

    def close(self) -> None:
        self._log.destroy()

    def _agreed(self, command: Callable[..., Any], *values: object) -> Any:
        try:
            return command(*values, sync=True, timeout=self.options.append_s)
        except SyncObjException as error:
            raise JournalError(f"no majority agreed within {self.options.append_s:g} s: {error}") from error
