"""Who serves and who backs up every replicated instance, as the controller decides it (section 3.5).

    NOWHERE --candidate--> FOUNDING --serves--> ALONE <------------primary lost, or backup lost and no candidate
                                                 |  ^ joiner lost                      |
                                       candidate v  |                                  |
                                              REPAIRING ------complete-------------> PAIRED --candidate--> REPLACING
                                                                                       ^                       |
                                                                                       '-complete, joiner lost-'

Each turn is a new view: written to the journal first, then told to everybody who has a part or had one, under a new
epoch, until they answer. Decisions are made on what is known now (who is alive, what they said), not on what happened:
a controller that restarts goes on from the journal, asks everybody, and comes to the same ones.

Whoever is promoted has all that was ever answered, and whoever was replaced can answer nothing more, since a reply
needs the acknowledgement of a backup, and a backup obeys one epoch only. So silence is enough to replace one of two.
It is not enough to replace who serves alone: that takes its own word (it restarted, or says that it has nothing), or
that somebody keeps it from the network (`fenced`). A backup that is lost stays in the view till a joiner has
everything, if there can be one: replies wait so long, and at no time is one node's memory all there is. A joiner that
outlives everybody else is asked whether it is complete; with nobody left the instance begins anew, empty, which is
said aloud.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from controller.fault_domains import Places, next_copy
from controller.membership import Life
from controller.migration_journal import Term
from controller.replica_steps import (
    FRESH_S,
    MOST_RETRY_S,
    RETRY_S,
    SHUN_S,
    TRANSITIONS,
    Event,
    Group,
    Happening,
    Key,
    Outgoing,
    ReplicaError,
    ReplicaJournal,
    State,
    ToNode,
    Viewed,
    messages_of,
)
from nodes.control_messages import Answer, Refusal, Verb
from nodes.replication_messages import Part, Stands


def _has_room(node: str, application: int, instance: int) -> bool:
    return True


class ReplicaControl:
    """All replicated instances of one controller.

    `ips` says where each node and neighbour stands, `places` which of them may hold replicas and in which fault domain,
    `life` what the membership holds a node for, `fits` whether a node has room for an instance. `epochs` are the
    instances' last ones, shared with whoever else decides on their whereabouts.
    """

    def __init__(self, journal: ReplicaJournal, ips: Mapping[str, bytes], places: Places,
                 life: Callable[[str], Life], epochs: dict[Key, int],
                 fits: Callable[[str, int, int], bool] = _has_room) -> None:
        self._journal = journal
        self._ips = ips
        self._names = {ip: name for name, ip in ips.items()}
        self._places = places
        self._racks = len({place.rack for place in places.values()})
        self._life = life
        self._fits = fits
        self.epochs = epochs
        self.groups: dict[Key, Group] = {}
        self.happenings: list[Happening] = []
        self.refused = 0  # answers from where none was expected
        self.deposed = False  # another controller has taken over: this one must be silent
        self._boots: dict[str, int] = {}
        self._fenced: set[str] = set()
        self._now = 0.0  # of the decision that is being made
        self.term = 0
        for entry in journal.entries():
            if isinstance(entry, Viewed):
                key = entry.application, entry.instance
                self.groups.setdefault(key, Group(*key, entry.neighbours)).take(entry)
                self.epochs[key] = max(entry.epoch, self.epochs.get(key, 0))
            else:
                self.term = entry.term
        self.term += 1
        journal.append(Term(self.term))

    def found(self, application: int, instance: int, neighbours: Iterable[str], at: str | None = None) -> None:
        """Take an instance in hand, with its primary at `at` if that is alive; raises ReplicaError if it is already.

        `neighbours` are told where its primary is: who may send to it, clients too.
        """
        key = application, instance
        if key in self.groups:
            raise ReplicaError(f"{application}/{instance} is replicated already")
        if at is not None and at not in self._places:
            raise ReplicaError(f"no place {at!r}")
        self.groups[key] = Group(*key, tuple(neighbours), at)

    def forget(self, key: Key) -> None:
        """Have nothing more to do with an instance: whoever calls this sees to it that nobody has it."""
        del self.groups[key]

    def booted(self, node: str, boot: int) -> None:
        """Note which run of itself a node is in. Boots grow; a new one has nothing of what the last had."""
        before = self._boots.get(node)
        if before is None or boot > before:
            self._boots[node] = boot
            self._fenced.discard(node)
            for g in self.groups.values():
                if before is not None:
                    g.said.pop(node, None)
                    g.former.discard(node)
                if node in g.neighbours and g.primary:
                    g.untold.add(node)
                    g.next_at = 0.0

    def fenced(self, node: str) -> None:
        """Note that a node is kept from the network, so that it answers nobody: whoever calls this has seen to it."""
        self._fenced.add(node)

    def answered(self, source: bytes, answer: Stands | Answer, now: float, out: Outgoing) -> None:
        """Take an answer that came from the address `source`."""
        node = self._names.get(source)
        if node is None:
            self.refused += 1
            return
        if answer.refusal == Refusal.OLD_TERM and answer.term == self.term:
            self.deposed = True
            return
        g = self.groups.get((answer.application, answer.instance))
        if isinstance(answer, Answer):
            if g is not None and answer.verb == Verb.CONNECT and answer.epoch == g.epoch:
                g.untold.discard(node)
            return
        if answer.boot < self._boots.get(node, 0):
            return  # from an earlier run of that node
        self.booted(node, answer.boot)
        if g is None or answer.epoch != g.epoch:
            return
        if node in g.former and answer.part == Part.OUT:
            g.former.discard(node)
        elif node in g.members:
            g.said[node], g.said_at[node] = Part(answer.part), now
            silent = self._names.get(answer.silent, "")
            if node == g.primary and silent in (g.backup, g.joiner) and silent:
                g.unheard.add(silent)
                g.shunned[silent] = now + SHUN_S
            self._consider(g, now, out)

    def tick(self, now: float, out: Outgoing) -> None:
        """Decide on what is known now, and repeat what is not answered."""
        for g in self.groups.values():
            self._consider(g, now, out)

    def due(self) -> float | None:
        """Return when something is to be repeated; decisions need a `tick` after each of the membership."""
        return min((g.next_at for g in self.groups.values() if not g.settled), default=None)

    # -- decisions -----------------------------------------------------------------------------------------------------

    def _consider(self, g: Group, now: float, out: Outgoing) -> None:
        """Take turns until nothing more follows from what is known, and say what is to be said now."""
        if self.deposed:
            return
        self._now = now
        while (event := self._event(g)) is not None:
            self._turn(g, event, now, out)
        if now >= g.next_at and not g.settled:
            self._send(g, now, out)

    def _event(self, g: Group) -> Event | None:
        """Return what asks for another view, the most urgent first."""
        if g.joiner and g.said.get(g.joiner) is Part.FOLLOWING and not self._gone(g, g.joiner):
            return Event.COMPLETE
        if g.state is State.NOWHERE:
            return Event.CANDIDATE if self._candidate(g) else None
        if all(self._gone(g, name) for name in g.copies()):
            may_have_it = g.joiner and not self._lost(g, g.joiner) and not self._has_just_said(g, g.joiner)
            return None if may_have_it else Event.ALL_GONE
        if g.state is State.FOUNDING:
            return Event.SERVES if g.said.get(g.primary) is Part.SERVING else None
        if g.backup:
            hears_nobody = bool(g.joiner) and {g.backup, g.joiner} <= g.unheard
            if (self._lost(g, g.primary) or self._leaves(g.primary) or hears_nobody) and self._is_there(g, g.backup):
                return Event.PRIMARY_LOST if self._has_just_said(g, g.backup) else None
            if not g.joiner and self._lost(g, g.backup) and self._is_there(g, g.primary):
                if self._candidate(g):
                    return Event.CANDIDATE
                return Event.BACKUP_LOST if self._has_just_said(g, g.primary) else None
        if g.joiner:
            return Event.JOINER_LOST if self._lost(g, g.joiner) or self._leaves(g.joiner) else None
        return Event.CANDIDATE if self._is_there(g, g.primary) and self._candidate(g) else None

    def _has_just_said(self, g: Group, name: str) -> bool:
        """Whether a node has said what it is a moment ago; if not, it is asked, before anybody is given up for it."""
        if self._now - g.said_at.get(name, -FRESH_S) < FRESH_S:
            return True
        if self._now >= g.asked_at + RETRY_S:
            g.said.pop(name, None)
            g.asked_at, g.next_at = self._now, 0.0
        return False

    def _gone(self, g: Group, name: str) -> bool:
        """Whether a node has nothing of what it had a part in, for certain."""
        return name in self._fenced or self._boots.get(name, 0) > g.boots.get(name, 0) \
            or g.said.get(name) is Part.OUT

    def _lost(self, g: Group, name: str) -> bool:
        return self._gone(g, name) or name in g.unheard or self._life(name) in (Life.DEAD, Life.OUTSIDE)

    def _is_there(self, g: Group, name: str) -> bool:
        return not self._gone(g, name) and self._life(name) in (Life.ALIVE, Life.LEAVING)

    def _leaves(self, name: str) -> bool:
        return self._life(name) is Life.LEAVING

    def _candidate(self, g: Group) -> str | None:
        """Return who should be the next to have a part; None if nobody can, or need."""
        wanted = g.state is not State.PAIRED or self._leaves(g.backup) or self._lost(g, g.backup)
        if not wanted and (self._racks == 1 or self._places[g.backup].rack != self._places[g.primary].rack):
            return None
        usable = [name for name in self._places if self._life(name) is Life.ALIVE and name in self._boots
                  and name not in self._fenced and name not in g.members and g.shunned.get(name, 0.0) <= self._now]
        copies = [name for name in g.copies() if name != g.backup]
        if g.state is State.NOWHERE and g.at is not None:
            if g.at in usable:
                return g.at
            if self._life(g.at) is Life.JOINING:
                return None  # a moment more: all nodes begin at the same time
        found = next_copy(g.name, copies, self._places, usable, lambda name: self._fits(name, *g.key))
        if wanted or found is None:
            return found
        rack = self._places[g.primary].rack  # somebody backs up already: one in another rack would be better
        return found if self._places[g.backup].rack == rack != self._places[found].rack else None

    def _turn(self, g: Group, event: Event, now: float, out: Outgoing) -> None:
        """Decide, write it down, and say so to the nodes, in this order."""
        candidate = self._candidate(g) if event is Event.CANDIDATE else None
        to = TRANSITIONS[g.state, event]
        before, primary = set(g.members), g.primary
        if event is Event.PRIMARY_LOST:
            g.primary, g.backup, g.joiner = g.backup, "", ""
        elif event is Event.BACKUP_LOST:
            g.backup = ""
        elif event is Event.JOINER_LOST:
            g.joiner = ""
        elif event is Event.COMPLETE:
            g.backup, g.joiner = g.joiner, ""
        elif event is Event.ALL_GONE:
            g.primary = g.backup = g.joiner = ""
        elif candidate is not None and g.state is State.NOWHERE:
            g.primary, g.at = candidate, None
        elif candidate is not None:
            g.joiner = candidate
        g.state = to
        if event is not Event.SERVES:
            self.epochs[g.key] = g.epoch = self.epochs.get(g.key, 0) + 1
            g.said, g.said_at, g.unheard = {}, {}, g.unheard & set(g.members)
        if candidate is not None:
            g.boots[candidate] = self._boots[candidate]
        g.boots = {name: g.boots.get(name, 0) for name in g.members}
        g.former = (g.former | before) - set(g.members)
        if g.primary and g.primary != primary:
            g.untold = set(g.neighbours)
        self._journal.append(g.entry(event.value))
        self.happenings.append(Happening(now, *g.key, g.epoch, to.value, f"{event.value}: {' '.join(g.members)}"))
        g.retry_s = RETRY_S
        self._send(g, now, out)

    def _send(self, g: Group, now: float, out: Outgoing) -> None:
        if self.deposed:
            return
        out += [ToNode(node, message) for node, message in messages_of(g, self.term, self._ips)
                if node not in self._fenced]
        g.next_at = now + g.retry_s
        g.retry_s = min(MOST_RETRY_S, g.retry_s * 1.5)
