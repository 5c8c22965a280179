"""One of the nodes that a resource controller is replicated to: it decides, or listens till it has to.

    listens --leads, and has taken the journal over--> decides
       ^                                                  |
       '--an entry is not known to be written, or another leads--'

Pure: the journal is whatever keeps one writer among its nodes (raft_journal.py; in tests, a list with a pen). All that
a controller decides is in the journal before anybody is told. So a node that takes over knows every migration, view and
run of a node, and one that may not write has nothing to say: it is thrown away, with all that it was about to send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from controller.errors import ControllerError, JournalError
from controller.membership import Life
from controller.migration_journal import Entry, Journal
from controller.resource_controller import ResourceController
from controller.standby import Standby
from nodes.transport import Address, Sends
from topologies.inventory import Inventory

T = TypeVar("T")


class SharedJournal(Protocol):
    """A journal of several nodes that has one writer at a time; seen from one of them."""

    @property
    def leads(self) -> bool:
        """Whether this node may take over, as far as it knows."""

    @property
    def writes(self) -> bool:
        """Whether this node has taken over and nobody has since, as far as it knows."""

    @property
    def leader(self) -> str:
        """The address of who leads; "" if that is not known."""

    def take_over(self) -> int:
        """Become the writer; raises JournalError where this node does not lead, or no majority is heard."""

    def append(self, entry: Entry) -> None:
        """Return when a majority has the entry; raises JournalError if that is not known for certain."""

    def entries(self) -> Sequence[Entry]: ...


class SoleJournal:
    """A journal of one node, which leads."""

    leads = writes = True
    leader = ""

    def __init__(self, journal: Journal) -> None:
        self.append, self.entries = journal.append, journal.entries

    def take_over(self) -> int:
        return 1


class FollowsError(ControllerError):
    """This node does not decide; `leader` is the address of who does, "" if that is not known."""

    def __init__(self, leader: str) -> None:
        super().__init__("this controller node does not decide")
        self.leader = leader


class ControllerNode:
    """A node with a view of `journal`. `make` returns a resource controller that goes on from it, with a Standby.

    Whoever drives it calls `look` often (in real time: that is what elections take), `receive` for each datagram, and
    `tick` when `due` says so; then sends `out`. `controller` is None while this node listens; `why_silent` then says
    why it does not decide any more, if it ever did.
    """

    def __init__(self, inventory: Inventory, journal: SharedJournal,
                 make: Callable[[Standby], ResourceController]) -> None:
        self.journal = journal
        self.controller: ResourceController | None = None
        self.why_silent = ""
        self._standby = Standby(inventory)
        self._make = make

    @property
    def alive(self) -> int:
        """How many hosts and SmartNICs this node holds for alive, whether it decides or not."""
        return len(self._standby.membership.nodes_that_are(Life.ALIVE))

    def look(self, out: Sends) -> None:
        """Take over if this node leads; fall silent if it does not any more."""
        if self.controller is not None and not (self.journal.leads and self.journal.writes):
            self._fall_silent(out, "it leads no more")
        if self.controller is None and self.journal.leads:
            try:
                self.journal.take_over()
                self.controller = self._make(self._standby)
            except JournalError as error:
                self._fall_silent(out, str(error))  # somebody else, or nobody, leads: the next look will tell

    def receive(self, source_ip: bytes, payload: bytes, now: float, out: Sends) -> None:
        """Take a datagram that came to the control port from `source_ip` (4 bytes)."""
        if self.controller is None:
            self._standby.receive(source_ip, payload, now)
            return
        try:
            self.controller.receive(source_ip, payload, now, out)
        except JournalError as error:
            self._fall_silent(out, str(error))

    def asked_where(self, source: Address, payload: bytes, out: Sends) -> None:
        """Take a datagram that came to the data port from `source`: a client's question, which who decides answers."""
        if self.controller is not None:
            self.controller.asked(source, payload, out)

    def tick(self, now: float, out: Sends) -> None:
        """Do what is due."""
        if self.controller is None:
            self._standby.tick(now)
            return
        try:
            self.controller.tick(now, out)
        except JournalError as error:
            self._fall_silent(out, str(error))

    def due(self) -> float:
        """Return when `tick` has something to do."""
        return self._standby.due() if self.controller is None else self.controller.due()

    def asked(self, does: Callable[[ResourceController], T], out: Sends) -> T:
        """Return what the controller answers; raises FollowsError where this node does not decide.

        Raises JournalError if it cannot be said whether what was asked for will be done.
        """
        if self.controller is None:
            raise FollowsError(self.journal.leader)
        try:
            return does(self.controller)
        except JournalError as error:
            self._fall_silent(out, str(error))
            raise

    def _fall_silent(self, out: Sends, why: str) -> None:
        self.controller, self.why_silent = None, why
        out.clear()
