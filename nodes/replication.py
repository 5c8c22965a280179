"""A compute node's side of replication: serves an instance, or follows who serves it, as the controller's views say.

    out --join--> joining ~~restored~~> catching up ~~pledged~~> following --serve--> serving
     |                ^                                          '--back up'            ^
     |                '--join-- any                                                     |
     '--found---------------------------------------------------------------------------'         any --forget--> out

`~~>` happens by itself, and is told to the controller without being asked. A view names primary, backup and joiner in
an epoch. The primary executes; what a request did (its changes of state, what it consumed and what it sent) is one
entry of the log, and its reply leaves when the backup has acknowledged the entry. A read is an entry, too, an empty
one: so a primary that was replaced without knowing it can answer nothing at all, and no clock or lease is needed.

A joiner fetches a snapshot, then applies the log. Once it is nearly level the primary makes a pledge, by an entry of
its own: from there on it answers nothing that the joiner has not acknowledged. A joiner that has read the pledge
therefore has all that was ever answered, and says so to the controller, which may make it backup, or primary, from
then on.

Followers obey appends of their own epoch only. A primary that returns and finds itself replaced has executed requests
that nobody else knows of; it cannot take them back, so it forgets everything, and joins like a stranger. This is
primary-backup replication with the views decided elsewhere (Lamport, Malkhi, Zhou, "Vertical Paxos and primary-backup
replication", PODC 2009; Lin et al., "PacificA", MSR-TR-2008-25).
"""

from __future__ import annotations

from collections import Counter

from nodes.authority import Authority
from nodes.control_messages import Chunk, Fetch, Refusal, pack_addresses
from nodes.errors import NodeError
from nodes.fetching import Fetcher, chunk_of
from nodes.replication_log import MOST_BEHIND, MOST_TRIES, PLEDGE_LAG, WINDOW, Log, joiner_of
from nodes.replication_messages import LAST, NOBODY, PLEDGE, Append, Appended, Offer, Part, Stands, View
from nodes.replication_steps import BEGINS_ANEW, TRANSITIONS, Event, Here, Key, Local, Message, Outgoing

MOST_SNAPSHOT_BYTES = 1 << 30


class Replicator:
    """The replicated instances of the node at `own_ip`, obeying the controller that `authority` obeys.

    `boot` is the number of this run of the node. What the controller says to an earlier run makes nothing begin here.
    """

    def __init__(self, local: Local, own_ip: bytes, authority: Authority, boot: int) -> None:
        self._local = local
        self._own_ip = own_ip
        self.authority = authority
        self.boot = boot
        self.counters: Counter[str] = Counter()  # what was refused, by reason
        self._here: dict[Key, Here] = {}

    def forget(self, application: int) -> None:
        """Have no part in any instance of an application, nor know one."""
        for key in [key for key in self._here if key[0] == application]:
            if self._here.pop(key).part is not Part.OUT:
                self._local.forget(key)

    def waiting(self, application: int) -> int:
        """Return how many requests of an application are done here and wait for a backup before they are answered."""
        return sum(len(here.waiting) for key, here in self._here.items() if key[0] == application)

    def part(self, application: int, instance: int) -> Part:
        here = self._here.get((application, instance))
        return Part.OUT if here is None else here.part

    def epoch(self, application: int, instance: int) -> int:
        here = self._here.get((application, instance))
        return 0 if here is None else here.epoch

    def has_room(self, application: int, instance: int) -> bool:
        """Whether the instance may execute: it serves, and its followers are not too far behind."""
        here = self._here.get((application, instance))
        return here is not None and here.part is Part.SERVING and here.log.next - here.log.first < MOST_BEHIND

    def append(self, application: int, instance: int, entry: bytes, outputs: object, now: float, out: Outgoing) -> None:
        """Log what a request did; `Local.release` is called with its outputs once they may leave.

        That is at once where there is no follower. Raises NodeError if the instance does not serve here.
        """
        here = self._here.get((application, instance))
        if here is None or here.part is not Part.SERVING:
            raise NodeError(f"{application}/{instance} does not serve on this node")
        here.waiting.append((here.log.append(entry), outputs))
        self._advance((application, instance), here, now, out)

    def receive(self, source: bytes, message: Message, now: float, out: Outgoing) -> None:
        """Take a message that came to the control port from `source`, which the ToR vouches for."""
        if isinstance(message, View):
            if source not in self.authority.ips:
                self.counters["view not from the controller"] += 1
                return
            self._obey(source, message, now, out)
        elif isinstance(message, Append):
            self._follow(source, message, out)
        elif isinstance(message, Appended):
            self._acknowledged(source, message, now, out)
        elif isinstance(message, Offer):
            self._offered(source, message, now, out)
        elif isinstance(message, Fetch):
            self._serve_chunk(source, message, out)
        elif isinstance(message, Chunk):
            if not any(here.fetcher and here.fetcher.take(source, message) for here in self._here.values()):
                self.counters["chunk that was not asked for"] += 1
            self.tick(now, out)
        else:
            self.counters["answer to a node"] += 1

    def is_mine(self, message: Fetch | Chunk) -> bool:
        """Return whether a fetch or a chunk is of a snapshot that replication offers or fetches here."""
        heres = self._here.values()
        if isinstance(message, Chunk):
            return any(here.fetcher is not None and here.fetcher.digest == message.digest for here in heres)
        return any(f.snapshot is not None and f.snapshot.digest == message.digest
                   for here in heres for f in here.followers.values())

    def tick(self, now: float, out: Outgoing) -> None:
        """Do what is due: fetch, offer, send again."""
        for key, here in self._here.items():
            if here.fetcher is not None:
                out += [(here.fetcher.source, fetch) for fetch in here.fetcher.ask(now)]
                if here.fetcher.complete:
                    self._fetched(key, here, out)
            if here.part is Part.SERVING:
                self._advance(key, here, now, out)

    def due(self) -> float | None:
        """Return when `tick` has something to do; None while nothing is under way."""
        times = [here.fetcher.due() for here in self._here.values() if here.fetcher]
        times += [f.due(here.log) for here in self._here.values() for f in here.followers.values()]
        return min((t for t in times if t is not None), default=None)

    # -- views ---------------------------------------------------------------------------------------------------------

    def _obey(self, source: bytes, view: View, now: float, out: Outgoing) -> None:
        key = view.application, view.instance
        here = self._here.setdefault(key, Here())
        event = self._asked_of_us(view)
        obeyed = self.authority.obeys(source, view.term)
        refusal = self._refusal(here, view, event) if obeyed else Refusal.OLD_TERM
        if refusal is Refusal.NONE and (view.epoch > here.epoch or here.view is None):
            self._enter(key, here, view, event)
        if refusal is not Refusal.NONE:
            self.counters[f"refused: {refusal.name.lower().replace('_', ' ')}"] += 1
        self._tell(view, here, refusal, out, to=source)
        if here.part is Part.SERVING:
            self._advance(key, here, now, out)

    def _asked_of_us(self, view: View) -> Event:
        if self._own_ip == view.primary:
            return Event.FOUND if view.fresh else Event.SERVE
        return {view.backup: Event.BACK_UP, view.joiner: Event.JOIN}.get(self._own_ip, Event.FORGET)

    def _refusal(self, here: Here, view: View, event: Event) -> Refusal:
        if view.epoch < here.epoch:
            return Refusal.OLD_EPOCH
        if view.boot not in (0, self.boot):
            return Refusal.OTHER_BOOT
        if view.epoch == here.epoch and here.view is not None:
            return Refusal.NONE  # a repetition: however far it has come
        if (here.part, event) not in TRANSITIONS or not self._has_pledged_to(here, view, event):
            return Refusal.OUT_OF_PLACE
        return Refusal.NONE

    def _has_pledged_to(self, here: Here, view: View, event: Event) -> bool:
        """Say whether a primary waits already for the backup that it is given; else that may lack what was answered."""
        if event is not Event.SERVE or view.backup == NOBODY:
            return True
        follower = here.followers.get(view.backup)
        return follower is not None and follower.pledged is not None

    def _enter(self, key: Key, here: Here, view: View, event: Event) -> None:
        before, here.part = here.part, TRANSITIONS[here.part, event]
        here.epoch, here.view, here.complaint = view.epoch, view, ""
        if event in BEGINS_ANEW:
            if before is not Part.OUT:
                self._local.forget(key)
            here.log, here.next, here.fetcher = Log(), 0, None
            here.waiting.clear()
            here.followers.clear()
            here.partial.clear()
            here.ahead.clear()
        if event is Event.FOUND:
            self._local.found(key)
        elif event is Event.SERVE and before is Part.FOLLOWING:
            here.partial.clear()  # of an entry that never came whole, and so was never answered
            here.ahead.clear()
            here.log = Log(here.next)
            self._local.serve(key)
        if here.part is Part.SERVING:
            self._arrange(key, here, view)

    def _arrange(self, key: Key, here: Here, view: View) -> None:
        """Keep the followers of `view`, drop others, and make an offer to a joiner."""
        here.followers = {ip: f for ip, f in here.followers.items() if ip == view.backup}
        if view.joiner != NOBODY:
            here.followers[view.joiner] = joiner_of(here.log, self._local.snapshot(key))

    def _tell(self, view: View, here: Here, refusal: Refusal, out: Outgoing, silent: bytes = NOBODY,
              to: bytes = b"") -> None:
        position = here.log.next if here.part is Part.SERVING else here.next
        said = here.complaint.encode()[:200]
        if here.part is Part.SERVING and not said:
            said = pack_addresses(self._local.clients((view.application, view.instance)))
        stands = Stands(view.term, self.boot, view.application, view.instance, view.epoch, here.part, refusal, position,
                        silent, said)
        out.append((to or self.authority.leader, stands))

    def _turn(self, here: Here, event: Event, out: Outgoing, complaint: str = "") -> None:
        """Take a turn that no view asked for, and tell the controller."""
        here.part, here.complaint = TRANSITIONS[here.part, event], complaint
        assert here.view is not None
        self._tell(here.view, here, Refusal.UNUSABLE if complaint else Refusal.NONE, out)

    # -- a primary -----------------------------------------------------------------------------------------------------

    def _advance(self, key: Key, here: Here, now: float, out: Outgoing) -> None:
        """Send followers what they lack, and let leave what all have."""
        for ip, follower in here.followers.items():
            snapshot, tries = follower.snapshot, follower.tries
            if snapshot is not None:
                if now >= (follower.due(here.log) or 0.0):
                    snapshot.offered_at = now
                    follower.tries += 1
                    out.append((ip, Offer(*key, here.epoch, snapshot.next, len(snapshot.data), snapshot.digest)))
                self._blame(here, ip, tries, out)
                continue
            if follower.pledged is None and here.log.next - follower.acknowledged <= PLEDGE_LAG:
                follower.pledged = here.log.pledge()
            for position in follower.to_send(here.log, now):
                flags, data = here.log.at(position)
                out.append((ip, Append(*key, here.epoch, position, flags, data)))
            self._blame(here, ip, tries, out)
        here.log.trim(min((f.needs for f in here.followers.values()), default=here.log.next))
        permitted = min((f.permits for f in here.followers.values()), default=here.log.next)
        while here.waiting and here.waiting[0][0] <= permitted:
            self._local.release(key, here.waiting.popleft()[1])

    def _blame(self, here: Here, ip: bytes, before: int, out: Outgoing) -> None:
        """Tell the controller, now and then, of a follower that is not heard; `before` were its repetitions so far."""
        tries = here.followers[ip].tries
        if tries > before and tries % MOST_TRIES == 0:
            assert here.view is not None
            self._tell(here.view, here, Refusal.NONE, out, ip)

    def _acknowledged(self, source: bytes, message: Appended, now: float, out: Outgoing) -> None:
        here = self._here.get((message.application, message.instance))
        follower = here.followers.get(source) if here is not None else None
        if here is None or follower is None or message.epoch != here.epoch or message.next > here.log.next:
            self.counters["acknowledgement of something else"] += 1
            return
        if message.part >= Part.CATCHING_UP:
            follower.took(message.next, now)
            self._advance((message.application, message.instance), here, now, out)

    def _serve_chunk(self, source: bytes, fetch: Fetch, out: Outgoing) -> None:
        for here in self._here.values():
            follower = here.followers.get(source)
            if follower and follower.snapshot and follower.snapshot.digest == fetch.digest:
                chunk = chunk_of(follower.snapshot.data, fetch)
                if chunk is not None:
                    follower.tries = 0
                    out.append((source, chunk))
                    return
        self.counters["fetch of what is not there, or not theirs"] += 1

    # -- a follower ----------------------------------------------------------------------------------------------------

    def _of_our_primary(self, source: bytes, message: Append | Offer) -> Here | None:
        """Return the instance if `message` comes from who serves it in our epoch; else count it."""
        here = self._here.get((message.application, message.instance))
        if here is None or here.view is None or message.epoch != here.epoch or source != here.view.primary:
            self.counters[f"{type(message).__name__.lower()} of another epoch or primary"] += 1
            return None
        return here

    def _offered(self, source: bytes, offer: Offer, now: float, out: Outgoing) -> None:
        here = self._of_our_primary(source, offer)
        if here is None:
            return
        if here.part is Part.JOINING and offer.size <= MOST_SNAPSHOT_BYTES:
            if here.fetcher is None or here.fetcher.digest != offer.digest or here.fetches != offer.next:
                here.fetcher, here.fetches = Fetcher(source, offer.digest, offer.size), offer.next
                self.tick(now, out)
        elif here.part >= Part.CATCHING_UP:
            self._acknowledge(source, here, offer, out)

    def _fetched(self, key: Key, here: Here, out: Outgoing) -> None:
        fetcher, here.fetcher = here.fetcher, None
        assert fetcher is not None and here.view is not None
        if fetcher.wrong:
            self.counters["fetched: wrong digest"] += 1  # the next offer begins anew
            return
        complaint = self._local.restore(key, fetcher.data())
        if complaint is not None:
            self._turn(here, Event.MISFIT, out, complaint)
            return
        here.next = here.fetches
        self._turn(here, Event.RESTORED, out)
        out.append((fetcher.source, Appended(*key, here.epoch, here.next, here.part)))

    def _follow(self, source: bytes, message: Append, out: Outgoing) -> None:
        here = self._of_our_primary(source, message)
        if here is None:
            return
        if here.part not in (Part.CATCHING_UP, Part.FOLLOWING):
            self.counters["append to who does not follow"] += 1
            return
        if here.next <= message.position < here.next + WINDOW:
            here.ahead[message.position] = message
        while (one := here.ahead.pop(here.next, None)) is not None:
            here.next += 1
            complaint = self._take_in(here, one, out)
            if complaint is not None:
                self._local.forget((message.application, message.instance))
                self._turn(here, Event.MISFIT, out, complaint)
                return
        self._acknowledge(source, here, message, out)

    def _take_in(self, here: Here, message: Append, out: Outgoing) -> str | None:
        """Take the next fragment; return a complaint if it ends an entry that cannot be applied."""
        if message.flags == PLEDGE:
            if here.part is Part.CATCHING_UP:
                self._turn(here, Event.PLEDGED, out)
            return None
        here.partial.append(message.payload)
        if message.flags != LAST:
            return None
        entry = b"".join(here.partial)
        here.partial.clear()
        return self._local.apply((message.application, message.instance), entry)

    def _acknowledge(self, source: bytes, here: Here, to: Append | Offer, out: Outgoing) -> None:
        out.append((source, Appended(to.application, to.instance, here.epoch, here.next, here.part)))
