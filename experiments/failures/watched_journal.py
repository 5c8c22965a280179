"""The resource controller's journal as somebody reads it who looks for what must not be decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from controller.fault_domains import Places, faults
from controller.migration_journal import Ended, Entry, MemoryJournal, Started, Turned, Viewed
from controller.migration_steps import State

BY_HAND = "by hand"
Key = tuple[int, int]


class WatchedJournal(MemoryJournal):
    """A journal that keeps the view of each instance that holds, and looks at all whether they keep domains apart.

    `replacing` has of each epoch in which a backup is being replaced the backup and who is to take its place: the
    two may share a domain, since the next view keeps one of them at most.

    `turns` counts views by their reason, `moves` migrations by hand by how they ended, and `set_back` how often what
    has no replica had to begin anew, or to go on from what a migration had left behind. `heard` is called with each
    view, and with each migration's start.
    """

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places
        self.views: dict[Key, Viewed] = {}
        self.replacing: dict[tuple[Key, int], tuple[str, str]] = {}
        self.turns: Counter[str] = Counter()
        self.moves: Counter[str] = Counter()
        self.set_back = 0
        self.complaints: list[str] = []
        self.heard: Callable[[Viewed | Started], None] = lambda entry: None
        self._moving: dict[int, Started] = {}
        self._committed: set[int] = set()  # migrations whose destination may have gone on

    def append(self, entry: Entry) -> None:
        super().append(entry)
        if isinstance(entry, Viewed):
            self.views[entry.application, entry.instance] = entry
            if entry.backup and entry.joiner:
                self.replacing[(entry.application, entry.instance), entry.epoch] = entry.backup, entry.joiner
            self.turns[entry.why] += 1
            copies = [name for name in (entry.primary, entry.backup) if name]
            joining = [name for name in (entry.primary, entry.joiner) if name]
            self.complaints += [f"by view {entry.epoch}: {said}"
                                for said in faults({b"copies": copies, b"joiner": joining}, self._places)]
            self.heard(entry)
        elif isinstance(entry, Started) and entry.why == BY_HAND:
            self._moving[entry.migration] = entry
            self.heard(entry)
        elif isinstance(entry, Turned):
            back = entry.state in (State.RESUMING.value, State.SALVAGING.value)
            self.set_back += entry.state == State.RESTARTING.value or (back and entry.migration in self._committed)
            if entry.state == State.SWITCHING.value:
                self._committed.add(entry.migration)
        elif isinstance(entry, Ended) and entry.migration in self._moving:
            began = self._moving.pop(entry.migration)
            self.moves["moved" if entry.owner == began.destination else "rolled back"] += 1
