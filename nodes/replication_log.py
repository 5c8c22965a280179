"""What a primary has yet to bring to its followers, and how far each of them is.

The log is a row of numbered fragments. Followers acknowledge how many they have; what nobody needs any more is dropped.
Within a window a primary sends ahead, and if nothing more is acknowledged for RESEND_S it sends the window again (as in
go-back-N; but followers keep what comes out of order, so that a round fills all gaps but those that it makes itself).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from nodes.fetching import digest_of
from nodes.replication_messages import LAST, PLEDGE
from nodes.wire import MAX_PAYLOAD

WINDOW = 64  # fragments sent and not acknowledged
RESEND_S = 0.05
OFFER_AGAIN_S = 0.1
PLEDGE_LAG = 64  # a joiner that is no further behind counts as caught up
MOST_TRIES = 20  # ours: a follower that leaves so many repetitions unanswered, a second of them, counts as silent
MOST_BEHIND = 4096  # fragments kept for the slowest follower; from there on the primary waits for it


class Log:
    """Fragments from position `first` on; `next` is the position of the one that will follow."""

    __slots__ = ("_fragments", "first")

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self._fragments: deque[tuple[int, bytes]] = deque()

    @property
    def next(self) -> int:
        return self.first + len(self._fragments)

    def append(self, entry: bytes) -> int:
        """Add an entry; return the position after it: who has acknowledged that has all of it."""
        for start in range(0, max(1, len(entry)), MAX_PAYLOAD):
            last = start + MAX_PAYLOAD >= len(entry)
            self._fragments.append((LAST if last else 0, entry[start:start + MAX_PAYLOAD]))
        return self.next

    def pledge(self) -> int:
        self._fragments.append((PLEDGE, b""))
        return self.next

    def at(self, position: int) -> tuple[int, bytes]:
        """Return the flags and bytes of a fragment that is still kept."""
        return self._fragments[position - self.first]

    def trim(self, to: int) -> None:
        """Drop what lies before `to`."""
        while self.first < to and self._fragments:
            self._fragments.popleft()
            self.first += 1


@dataclass(slots=True)
class Snapshot:
    """A state that is offered to a joiner: it ends at position `next`."""

    next: int
    data: bytes
    digest: bytes
    offered_at: float = -math.inf


@dataclass(slots=True)
class Follower:
    """A backup or joiner as its primary sees it. Replies from `pledged` on wait for it; for a joiner that has not
    caught up, `pledged` is None and nothing waits."""

    acknowledged: int
    pledged: int | None
    snapshot: Snapshot | None = None  # until it was fetched
    sent: int = 0
    moved_at: float = 0.0  # when it came further, or was sent something again
    tries: int = 0  # repetitions since it was last heard; not time, so that a primary that hung blames nobody

    @property
    def permits(self) -> float:
        """Return the position before which it holds up no reply."""
        return math.inf if self.pledged is None else max(self.pledged, self.acknowledged)

    @property
    def needs(self) -> int:
        """Return the position from which on it may still ask for fragments."""
        return self.acknowledged if self.snapshot is None else self.snapshot.next

    def took(self, next_: int, now: float) -> None:
        """Note that it has acknowledged all before `next_`."""
        self.tries = 0
        if self.snapshot is not None and next_ >= self.snapshot.next:
            self.snapshot = None
        if next_ > self.acknowledged:
            self.acknowledged, self.moved_at = next_, now
        self.sent = max(self.sent, self.acknowledged)

    def to_send(self, log: Log, now: float) -> range:
        """Return the positions to send at `now`, and count them as sent."""
        if self.snapshot is not None:
            return range(0)
        if self.sent > self.acknowledged and now >= self.moved_at + RESEND_S:
            self.sent = self.acknowledged
            self.tries += 1
        first, end = self.sent, min(log.next, self.acknowledged + WINDOW)
        if end > first:
            if first == self.acknowledged:
                self.moved_at = now
            self.sent = end
        return range(first, end)

    def due(self, log: Log) -> float | None:
        if self.snapshot is not None:
            return self.snapshot.offered_at + OFFER_AGAIN_S
        return self.moved_at + RESEND_S if log.next > self.acknowledged else None


def joiner_of(log: Log, data: bytes) -> Follower:
    """Return a follower that is to begin with the snapshot `data`, taken now."""
    return Follower(0, None, Snapshot(log.next, data, digest_of(data)))
