"""The cold migration of an instance, step by step, as the controller drives it (section 3.4).

    PUSHING ---prepared--> STOPPING ---frozen--> MOVING ---staged--> SWITCHING ---live--> FINISHING ---settled--> done
       |  hopeless, destination lost  |             |   destination lost |  ^                 |
       '------------------------------+-------------'                    v  | staged          | owner lost: to who may
                                      |             |                RESUMING|                | still have the instance
                                      '-------------+---source lost--> SALVAGING              v
                                                                          '---hopeless--> RESTARTING

PUSHING sends the binary to the destination; STOPPING takes the instance out of the source's engine; MOVING brings its
state over, chunk by chunk and verified. Entering SWITCHING is the commit: it is written to the journal before the
destination is told to start and the neighbours where to send. FINISHING waits for the neighbours, and lets the
other side forget. RESUMING is the way back: the source goes on with what it froze. SALVAGING asks whether the
destination already has the whole of an instance whose source died; only if nobody has, RESTARTING makes a fresh one.

What has ended is looked after further: an instance whose owner dies goes to whoever still has it in the same way, and
a controller that restarts asks the owners first. A node counts as lost when it says itself that it has nothing, or is
declared dead by who sees to it that it stays so (its port closed); silence alone never changes who is to run the
instance. Every turn to another owner takes a new epoch, and nodes refuse commands of earlier ones. Commands repeat
until they are answered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress

from controller.errors import MigrationError
from controller.migration_journal import Booted, Ended, Journal, Replay, Started, Term, Turned
from controller.migration_steps import (
    LOST,
    MOST_RETRY_S,
    NEW_EPOCH,
    RETRY_S,
    SALVAGE_S,
    STALL_S,
    STILL_THERE,
    TRANSITIONS,
    UNCOMMITTED,
    Event,
    Happening,
    Migration,
    Nobody,
    Outgoing,
    State,
    Surroundings,
    ToNode,
    commands_of,
)
from nodes.control_messages import Answer, Chunk, Command, Fetch, Refusal, Standing, Verb, unpack_addresses
from nodes.errors import WireError
from nodes.fetching import chunk_of, digest_of


class MigrationControl:
    """All migrations of one controller.

    `ips` says where each node stands; `binary_of` gives what is pushed for an instance of (application, number);
    `done` is called with (application, instance, node, epoch) when an instance has settled; `around` knows who has to
    do with it at any time. What the journal tells
    goes on where it was. Nothing is sent before `tick`, `begin`, `answered`, `booted` or `declared_dead`.
    """

    def __init__(self, journal: Journal, ips: dict[str, bytes], controller_ip: bytes,
                 binary_of: Callable[[int, int], bytes],
                 done: Callable[[int, int, str, int], None] = lambda *_: None, stall_s: float = STALL_S,
                 around: Surroundings | None = None) -> None:
        self._journal = journal
        self._ips = ips
        self._names = {ip: name for name, ip in ips.items()}
        self._controller_ip = controller_ip
        self._binary_of = binary_of
        self._done = done
        self._stall_s = stall_s
        self._around = around or Nobody()
        self.closed: dict[tuple[int, int], Migration] = {}  # the last of each instance that was ever moved
        self.happenings: list[Happening] = []
        self.refused = 0  # answers and fetches from where none was expected
        self.deposed = False  # another controller has taken over: this one must be silent
        self._obey_another: set[bytes] = set()  # servers that say so
        self.dead: set[str] = set()  # nodes that were declared so, and have not begun another run since
        told = Replay(journal.entries(), binary_of)
        self.boots = told.boots  # by node: the run of it that was heard of last
        self._last, self.epochs, self.open = told.last, told.epochs, told.open
        self.of_instance = {m.key: m for m in self.open.values()}  # the same as `open`: there is one at most
        self.term = told.term + 1
        journal.append(Term(self.term))

    def begin(self, application: int, instance: int, source: str, destination: str, neighbours: Iterable[str],
              now: float, out: Outgoing, why: str = "") -> int:
        """Start to move an instance; return the migration's number. Raises MigrationError if it cannot be."""
        if source == destination:
            raise MigrationError(f"{application}/{instance} is on {source} already")
        if {source, destination} & self.dead:
            raise MigrationError(f"{source if source in self.dead else destination} was declared dead")
        m = self._new(application, instance, source, destination, tuple(neighbours), why, now)
        self._enter(m, State.PUSHING, now, out)
        return m.number

    def _new(self, application: int, instance: int, source: str, destination: str, neighbours: tuple[str, ...],
             why: str, now: float) -> Migration:
        for name in (source, destination, *neighbours):
            if name not in self._ips:
                raise MigrationError(f"no node {name!r}")
        if (application, instance) in self.of_instance:
            raise MigrationError(f"{application}/{instance} is on its way already")
        self.closed.pop((application, instance), None)
        self._last += 1
        epoch = self.epochs.get((application, instance), 1) + 1
        self._journal.append(Started(self.term, self._last, application, instance, source, destination,
                                     neighbours, epoch, why))
        self.epochs[application, instance] = epoch
        m = Migration(self._last, application, instance, source, destination, neighbours, epoch,
                      self._binary_of(application, instance), progress_at=now)
        self.open[m.number] = self.of_instance[m.key] = m
        self._say(now, m, "begin", f"{source} -> {destination}{', ' + why if why else ''}")
        return m

    def restart(self, application: int, instance: int, node: str, neighbours: Iterable[str], now: float,
                out: Outgoing) -> int:
        """Make an instance afresh on a node that has come back without it; return the number, as of a migration."""
        m = self._new(application, instance, node, node, tuple(neighbours), "restart", now)
        self._enter(m, State.RESTARTING, now, out)
        return m.number

    def replace(self, application: int, instance: int, dead: str, node: str, neighbours: Iterable[str], now: float,
                out: Outgoing) -> int:
        """Make an instance afresh on `node` that was lost with a node declared dead; return the number.

        A migration of it that waits for dead nodes only is given up. Raises MigrationError if `dead` is not.
        """
        if dead not in self.dead:
            raise MigrationError(f"{dead} is not known to be dead: {application}/{instance} may run there")
        waits = self.of_instance.get((application, instance))
        if waits is not None and self._is_stranded(waits):
            del self.open[waits.number], self.of_instance[waits.key]
        m = self._new(application, instance, dead, node, tuple(neighbours), "nowhere", now)
        m.lost.add("source")
        self._enter(m, State.RESTARTING, now, out)
        return m.number

    def answered(self, source: bytes, answer: Answer, now: float, out: Outgoing) -> None:
        """Take an answer that came from the address `source`."""
        node = self._names.get(source)
        if node is None:
            self.refused += 1
            return
        if answer.boot < self.boots.get(node, 0):
            return  # from an earlier run of that node
        if answer.refusal != Refusal.OLD_TERM:
            self.booted(node, answer.boot, now, out)
        m = self.open.get(answer.migration)
        if m is None or answer.epoch != m.epoch or (answer.application, answer.instance) != m.key \
                or (node, Verb(answer.verb)) not in m.unanswered:
            return  # late, and of no use any more
        if answer.refusal == Refusal.OLD_TERM:
            if answer.term == self.term:
                self._succeeded(source)
            return
        if node == m.destination and answer.refusal == Refusal.NONE and answer.payload:
            with suppress(WireError):
                m.clients = tuple(unpack_addresses(answer.payload))
        progress = (node, answer.verb, answer.standing, answer.size)
        if progress != m.progress:
            m.progress, m.progress_at = progress, now
        self._weigh(m, node, Verb(answer.verb), answer, now, out)

    def _succeeded(self, source: bytes) -> None:
        """Take a node's word that it obeys a later controller; that of two servers, since one may be taken over."""
        self._obey_another.add(source[:3])  # 10.RACK.SERVER
        self.deposed = len(self._obey_another) >= min(2, len({ip[:3] for ip in self._ips.values()}))

    def booted(self, node: str, boot: int, now: float, out: Outgoing) -> None:
        """Note which run of itself a node is in; if it is a new one, all that it had is gone. Boots grow."""
        before = self.boots.get(node)
        if before is None or boot > before:
            self._journal.append(Booted(node, boot))
            self.boots[node] = boot
            self.dead.discard(node)
            if before is not None:
                self._gone(node, now, out)

    def forget(self, application: int) -> list[Migration]:
        """Cut off an application's migrations and return them: whoever calls this sees to its instances."""
        cut = [m for m in self.open.values() if m.application == application]
        for m in cut:
            del self.open[m.number], self.of_instance[m.key]
        for key in [key for key in self.closed if key[0] == application]:
            del self.closed[key]
        return cut

    def declared_dead(self, node: str, now: float, out: Outgoing) -> None:
        """Note that a node is dead and kept from the network: whoever calls this has seen to it."""
        if node not in self.dead:
            self.dead.add(node)
            self._gone(node, now, out)

    def stranded(self) -> list[Migration]:
        """Return the migrations that can only begin anew, and on no node that is not declared dead."""
        return [m for m in self.open.values() if self._is_stranded(m)]

    def _is_stranded(self, m: Migration) -> bool:
        return m.state is State.RESTARTING and m.owner in self.dead

    def fetch(self, source: bytes, fetch: Fetch) -> Chunk | None:
        """Return the piece of a binary that a node asks for; None if it is no business of its."""
        node = self._names.get(source)
        for m in self.open.values():
            if node in (m.source, m.destination) and digest_of(m.binary) == fetch.digest:
                return chunk_of(m.binary, fetch)
        self.refused += 1
        return None

    def tick(self, now: float, out: Outgoing) -> None:
        """Repeat what is not answered, and give up what comes no further."""
        for m in list(self.open.values()):
            if m.progress_at == math.inf:
                m.progress_at = now  # taken up from the journal
            idle_s = now - m.progress_at
            if (m.state in UNCOMMITTED and idle_s > self._stall_s) or (
                    m.state is State.SALVAGING and idle_s > SALVAGE_S
                    and m.progress[:3] == (m.destination, Verb.PREPARE, Standing.COLLECTING)):
                self._turn(m, Event.HOPELESS, now, out)
            elif now >= m.next_at:
                self._send(m, now, out)

    def due(self) -> float | None:
        return min((m.next_at for m in self.open.values()), default=None)

    def ip_of(self, node: str) -> bytes:
        return self._ips[node]

    def migration(self, number: int) -> Migration | None:
        """Return the migration of that number; of those that are over, only the last of each instance is known."""
        return self.open.get(number) or next((m for m in self.closed.values() if m.number == number), None)

    def for_clients(self, m: Migration) -> Command | None:
        """Return what clients of a migration are to be told now, at `m.clients`; None where nothing has changed.

        They do not answer: the control port is closed to them. An old place tells them, too, as often as they come.
        """
        if not m.moved or not m.owner or self.deposed:
            return None
        return Command(self.term, 0, m.number, Verb.CONNECT, *m.key, m.epoch, self._ips[m.owner])

    # -- what an answer means ------------------------------------------------------------------------------------------

    def _weigh(self, m: Migration, node: str, verb: Verb, answer: Answer, now: float, out: Outgoing) -> None:
        standing, state = Standing(answer.standing), m.state
        if verb is Verb.CONNECT or (state is State.FINISHING and node != m.owner):
            self._settled(m, node, verb, now, out)
        elif state is State.FINISHING:
            if standing is Standing.LIVE:
                self._settled(m, node, verb, now, out)
            else:
                self._lost_owner(m, now, out)
        elif state is State.RESTARTING:
            self._restart(m, node, standing, answer, now, out)
        elif standing is Standing.LIVE and answer.refusal == Refusal.NONE and verb in (Verb.START, Verb.RESUME):
            self._turn(m, Event.LIVE, now, out)
        elif node == m.source:
            if standing not in STILL_THERE:
                self._turn(m, Event.SOURCE_LOST, now, out)
            elif standing is Standing.FROZEN and state is State.STOPPING:
                m.size, m.digest = answer.size, answer.digest
                self._turn(m, Event.FROZEN, now, out)
        elif standing in (Standing.STAGED, Standing.LIVE) and state is not State.SWITCHING:
            m.size, m.digest = answer.size, answer.digest
            self._turn(m, Event.STAGED, now, out)
        elif answer.refusal != Refusal.NONE or state is State.SWITCHING:
            if standing not in (Standing.STAGED, Standing.LIVE):
                lost = state is State.SWITCHING or (verb is Verb.COLLECT and standing is Standing.ABSENT)
                self._turn(m, Event.DESTINATION_LOST if lost else Event.HOPELESS, now, out)
        elif state is State.PUSHING and standing in (Standing.PREPARED, Standing.COLLECTING):
            self._turn(m, Event.PREPARED, now, out)
        elif state is State.SALVAGING and standing is not Standing.COLLECTING:
            self._turn(m, Event.HOPELESS, now, out)

    def _restart(self, m: Migration, node: str, standing: Standing, answer: Answer, now: float, out: Outgoing) -> None:
        if standing is Standing.LIVE:
            m.owner_boot = answer.boot
            self._turn(m, Event.LIVE, now, out)
        elif standing is Standing.STAGED and node == m.destination:
            m.size, m.digest = answer.size, answer.digest
            self._turn(m, Event.STAGED, now, out)
        elif standing in (Standing.PREPARED, Standing.COLLECTING) and m.owner_boot != answer.boot:
            m.owner_boot = answer.boot
            self._send(m, now, out)
        elif standing in (Standing.ABSENT, Standing.RELEASED) and m.owner_boot:
            m.owner_boot = 0
            self._send(m, now, out)
        elif standing in (Standing.FROZEN, Standing.STOPPING) and node == m.source:
            m.lost.discard("source")  # it was not lost after all
            self._enter(m, State.RESUMING, now, out)

    def _settled(self, m: Migration, node: str, verb: Verb, now: float, out: Outgoing) -> None:
        del m.unanswered[node, verb]
        if verb is Verb.CONNECT and not any(v is Verb.CONNECT for _, v in m.unanswered):
            self._say(now, m, "reconnected", f"{len(m.neighbours)} neighbours send to {m.owner}")
        if m.state is State.FINISHING and not m.unanswered:
            self._turn(m, Event.SETTLED, now, out)

    def _lost_owner(self, m: Migration, now: float, out: Outgoing) -> None:
        self._turn(m, Event.SOURCE_LOST if m.owner == m.source else Event.DESTINATION_LOST, now, out)

    def _gone(self, node: str, now: float, out: Outgoing) -> None:
        """A node has nothing any more of what it had."""
        for m in [*self.open.values(), *self.closed.values()]:
            if node in (m.source, m.destination):
                m.lost.add("source" if node == m.source else "destination")
            if m.state in (State.FINISHING, State.DONE):
                if node == m.owner:
                    self._lost_owner(m, now, out)
                elif m.state is State.FINISHING:
                    self._excuse(m, node, now, out)
            elif m.state is State.RESTARTING:
                m.owner_boot = 0 if node == m.owner else m.owner_boot
                if m.owner in self.dead:
                    self._enter(m, State.RESTARTING, now, out)
            elif node in (m.source, m.destination):
                self._turn(m, Event.SOURCE_LOST if node == m.source else Event.DESTINATION_LOST, now, out)

    def _excuse(self, m: Migration, node: str, now: float, out: Outgoing) -> None:
        """Expect no more of a node that died than that it is told anew what it has forgotten, if it came back."""
        if not m.unanswered:
            return  # taken up from the journal: nobody has been asked yet
        for key in [key for key in m.unanswered if key[0] == node]:
            del m.unanswered[key]
        commands = self._commands(m)
        if (node, Verb.CONNECT) in commands:
            m.unanswered[node, Verb.CONNECT] = commands[node, Verb.CONNECT]
        if not m.unanswered:
            self._turn(m, Event.SETTLED, now, out)

    # -- turns ---------------------------------------------------------------------------------------------------------

    def _turn(self, m: Migration, event: Event, now: float, out: Outgoing) -> None:
        if event in LOST:
            m.lost |= {LOST[event]} if m.source != m.destination else set(LOST.values())
        m.lost |= {end for end, node in (("source", m.source), ("destination", m.destination)) if node in self.dead}
        to = TRANSITIONS.get((m.state, event))
        if to is None:
            return
        if {"source", "destination"} <= m.lost and to in (State.RESUMING, State.SALVAGING):
            to = State.RESTARTING
        if m.state is State.DONE:
            self.open[m.number] = self.of_instance[m.key] = self.closed.pop(m.key)
        self._say(now, m, to.value, event.value)
        self._enter(m, to, now, out)

    def _enter(self, m: Migration, state: State, now: float, out: Outgoing) -> None:
        """Decide, write it down, and say so to the nodes, in this order."""
        back = m.state in (State.RESUMING, State.FINISHING, State.DONE)
        if state in NEW_EPOCH or (state is State.SALVAGING and back):
            m.epoch += 1
            self.epochs[m.key] = m.epoch
        if state is State.SWITCHING:
            m.owner, m.moved, m.fresh = m.destination, True, False
        elif state is State.RESUMING:
            m.owner, m.fresh = m.source, False
        elif state is State.RESTARTING:
            m.owner, m.moved, m.fresh, m.owner_boot = self._where_to_restart(m), True, True, 0
        m.state, m.progress_at, m.progress, m.retry_s = state, now, (), RETRY_S
        m.unanswered.clear()
        if state is State.DONE:
            self._journal.append(Ended(m.number, m.owner, m.epoch))
            self.closed[m.key] = self.open.pop(m.number)
            del self.of_instance[m.key]
            self._done(m.application, m.instance, m.owner, m.epoch)
            return
        if state not in UNCOMMITTED:
            self._journal.append(Turned(m.number, state.value, m.epoch, m.owner, m.size, m.digest))
        self._send(m, now, out)

    def _where_to_restart(self, m: Migration) -> str:
        """Where nobody has the instance: at the source, as before, unless it is dead and the destination is not."""
        return m.destination if m.source in self.dead and m.destination not in self.dead else m.source

    # -- what to say ---------------------------------------------------------------------------------------------------

    def _send(self, m: Migration, now: float, out: Outgoing) -> None:
        if self.deposed:
            return
        commands = self._commands(m)
        if m.state is State.FINISHING and m.unanswered:
            commands = {key: command for key, command in commands.items() if key in m.unanswered}
        m.unanswered = commands
        out += [ToNode(node, command) for (node, _), command in commands.items()]
        m.next_at = now + m.retry_s
        m.retry_s = min(MOST_RETRY_S, m.retry_s * 1.5)
        if m.state is State.FINISHING and not commands:
            self._turn(m, Event.SETTLED, now, out)

    def _commands(self, m: Migration) -> dict[tuple[str, Verb], Command]:
        return commands_of(m, self.term, self._ips, self._controller_ip, self.dead, self._around)

    def _say(self, now: float, m: Migration, what: str, detail: str = "") -> None:
        self.happenings.append(Happening(now, m.number, what, detail))
