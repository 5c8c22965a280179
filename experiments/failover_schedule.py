"""One schedule of failures, from a seed: what fails when on the simulated racks, under which load, and what came of it.

    0 s               begins    paired: load begins                  last strike mended    whole again      load ends
    |--founding-------|--0.2 s--|--three to eight strikes, 5 s-------|--at most 30 s-------|--0.5 s---------|-read back

Strikes come at random times, three at most at once, most of them at a primary or what it needs; the first one is at a
primary, of the kind that is the seed's turn. More come right after the controller has decided something. No memory is
lost where that would leave no replica: by the live placement at that moment another one must be there, complete, in a
fault domain where nothing fails or has failed half a second ago. What loses no memory may strike both. The clients are
those of the experiment on packets, and so are their judges.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import msgspec

from controller.migration_journal import Viewed
from controller.replica_steps import Event as Turn
from experiments import failover_judging as judging
from experiments.failing_rack import (
    CLIENTS,
    CONTROLLER,
    FORGETFUL,
    INVENTORY,
    NODES,
    PLACES,
    FailingRack,
    Key,
    Strike,
)
from experiments.shared_store import SharedStore
from experiments.simulated_told import told_by
from experiments.store_checker import StoreChecker, StoreReadBack
from nodes.replication_messages import Part
from nodes.simulated import NetworkFaults, SimulatedClient

AT_NODES = ("smartnic", "crash", "host", "server", "hang", "link", "pcie", "loss", "jitter", "partition")
AT_CONTROLLER = {"controller": "controller", "controller cut off": "partition", "controller hangs": "hang"}
KINDS = (*AT_NODES, *AT_CONTROLLER)
LASTS_S = {**dict.fromkeys(FORGETFUL, (0.02, 0.4, 0.8, 2.0)), **dict.fromkeys(AT_CONTROLLER, (0.05, 0.4, 1.5)),
           **dict.fromkeys(("hang", "link", "pcie", "partition"), (0.1, 0.7, 1.5, 3.0)),
           **dict.fromkeys(("loss", "jitter"), (0.7, 1.5, 3.0))}
USUAL = (NetworkFaults(delay_s=5e-5), NetworkFaults(loss=0.03, delay_s=5e-5, jitter_s=1e-4),
         NetworkFaults(loss=0.1, duplication=0.02, reordering=0.05, delay_s=5e-5, jitter_s=1e-4))
FIRST_S, SPAN_S, WHOLE_WITHIN_S, LAST_LOAD_S, DRAIN_S = 0.2, 5.0, 30.0, 0.5, 30.0
LOOK_S = 0.02
MOST_AT_ONCE, FEWEST, MOST = 3, 3, 8
MARGIN_S = 0.5  # a domain counts as failing for so long after it was mended
AIMS = (*("primary",) * 5, "backup", "joiner", "")
STRIKE_AT_VIEW, AT_VIEW_S = 0.3, 0.02  # how often something fails after a view, and how soon at most
TRIES = 5  # to find a strike that may be
SHARED_KEYS = 5
VALUES_BYTES = (64, 64, 1000)  # of which a schedule has one size: joiners fetch what there is
THINK_S = 0.03  # at most, of who writes; of who shares keys, twice as long


class Outcome(msgspec.Struct):
    """What came of one schedule. Times are emulated seconds, counts are by kind of failure or by name.

    `struck` counts strikes, `primaries` those at a node that served then. `turns` are the controller's decisions by
    their reason. Of the clients' requests, `during` were asked while something failed; `resent` are messages that
    channels repeated.
    """

    seed: int
    shards: int
    struck: dict[str, int] = {}
    primaries: dict[str, int] = {}
    most_at_once: int = 0
    spared: int = 0
    turns: dict[str, int] = {}
    controllers: int = 0
    operations: int = 0
    during: int = 0
    unanswered: int = 0
    resent: int = 0
    datagrams: int = 0
    lost: int = 0
    outage_s: float = 0.0
    whole_after_s: float = 0.0
    steps: int = 0
    virtual_s: float = 0.0
    fingerprint: int = 0
    complaints: list[str] = []
    timeline: list[tuple[float, str]] = []


class Schedule:
    """The schedule of `seed`, to be played once."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(f"schedule {seed}")
        self.seed = seed
        shards = 1 + seed % 2
        self.rack = FailingRack(seed, shards, self.draw.choice(USUAL))
        self.value_bytes = self.draw.choice(VALUES_BYTES)
        self.outcome = Outcome(seed, shards, complaints=[], timeline=[])
        self.struck: Counter[str] = Counter()
        self.primaries: Counter[str] = Counter()
        self.under_way: list[Strike] = []
        self.times: list[tuple[float, float]] = []  # from when to when something failed
        self.failing: dict[str, float] = {}  # fault domain: until when
        self.last_s = self.whole_s = 0.0  # when strikes end, and since when nothing is amiss
        self.writers: dict[int, SimulatedClient] = {}
        self.sharing: list[SimulatedClient] = []

    def play(self) -> Outcome:
        rack, outcome = self.rack, self.outcome
        if not self._until(rack.paired, 10.0):
            outcome.complaints.append(f"not paired at first: {rack.missing()}")
            return outcome
        self._load()
        begun = rack.now
        self._run(FIRST_S)
        self.last_s = rack.now + SPAN_S
        self._strike(KINDS[self.seed % len(KINDS)], "primary")
        for _ in range(self.draw.randint(FEWEST, MOST) - 1):
            rack.network.at(self.draw.uniform(0.0, SPAN_S), self._strike)
        rack.journal.heard = self._viewed
        self._run(SPAN_S)
        rack.journal.heard = lambda view: None
        self._until(lambda: not self.under_way, 10.0)
        mended_s = self.whole_s = rack.now
        if not self._until(self._is_whole, WHOLE_WITHIN_S):
            outcome.complaints.append(f"{WHOLE_WITHIN_S:g} s after all was mended: {rack.missing()}")
        whole_s = self.whole_s
        outcome.whole_after_s = whole_s - mended_s
        self._judge(begun, whole_s)
        return outcome

    def _is_whole(self) -> bool:
        """Whether all has been as it is when nothing fails for as long as the last load lasts."""
        if self.rack.missing():
            self.whole_s = self.rack.now
        return self.rack.now >= self.whole_s + LAST_LOAD_S

    # -- load ----------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        start, deployment, draw = self.rack.simulation.client, self.rack.present(), self.draw
        window = 4 if self.outcome.shards == 1 else 1  # over one channel replies come in order
        for number, client in enumerate(CLIENTS, start=1):
            think = random.Random(f"think {self.seed} {number}").uniform
            shared = SharedStore(self.seed, self.value_bytes, number, keys=SHARED_KEYS)
            self.sharing.append(start(deployment, shared, 1 << 20, flows=draw.choice((1, 2)), client=client,
                                      think_s=partial(think, 0.0, 2 * THINK_S)))
            if number % 2:
                own = StoreChecker(self.seed, self.value_bytes, number)
                self.writers[number] = start(deployment, own, 1 << 20, window, client=client,
                                             think_s=partial(think, 0.0, THINK_S * window))

    def _judge(self, begun: float, whole_s: float) -> None:
        rack, outcome = self.rack, self.outcome
        clients = [*self.writers.values(), *self.sharing]
        for client in clients:
            client.stop()
        self._until(lambda: all(len(c.answers) >= len(c.asked) for c in clients), DRAIN_S)
        if said := rack.missing():
            outcome.complaints.append(f"after the load: {said}")
        wrote = {number: told_by(client) for number, client in self.writers.items()}
        shared = [told_by(client) for client in self.sharing]
        back = [StoreReadBack(self.seed, self.value_bytes, number, len(writer.asked))
                for number, writer in self.writers.items()]
        reading = [rack.simulation.client(rack.present(), one, len(one.right), 4, client=CLIENTS[0]) for one in back]
        self._until(lambda: all(len(c.answers) >= len(c.asked) for c in reading), DRAIN_S)
        outcome.complaints += rack.served_once() + rack.complaints + rack.journal.complaints
        outcome.complaints += judging.of_writers(list(wrote.values()), [told_by(client) for client in reading])
        outcome.complaints += judging.of_shared(shared)
        told = [*wrote.values(), *shared]
        for one in told:
            outcome.complaints += judging.without_service(one, whole_s, whole_s, cut_off=True)
            outcome.outage_s = max(outcome.outage_s, judging.outage_s(one, begun, whole_s))
        turns = rack.journal.turns
        if turns[Turn.ALL_GONE.value]:
            outcome.complaints.append("an instance began anew, with nothing")
        network = rack.network.counters()
        outcome.struck, outcome.primaries, outcome.turns = dict(self.struck), dict(self.primaries), dict(turns)
        outcome.operations = sum(one.sent for one in told)
        outcome.unanswered = sum(one.unfinished for one in told)
        outcome.resent = sum(one.resent for one in told)
        outcome.during = sum(any(since <= asked.asked_s <= until for since, until in self.times)
                             for one in told for asked in one.history)
        outcome.datagrams, outcome.lost = network.sent, network.lost
        outcome.virtual_s, outcome.fingerprint = rack.now, rack.network.fingerprint
        rack.hear()
        outcome.timeline += [(event.now_s, f"    {event.what} {event.node} {event.instance} {event.detail}".rstrip())
                             for event in rack.events]
        outcome.timeline.sort(key=lambda line: line[0])

    # -- strikes -------------------------------------------------------------------------------------------------------

    def _strike(self, kind: str = "", aim: str = "") -> None:
        """Let something fail, of `kind` and at a node with that part in an instance; drawn unless given."""
        draw = self.draw
        if len(self.under_way) >= MOST_AT_ONCE or self.rack.now > self.last_s:
            return
        for _ in range(TRIES):
            strike = self._drawn(kind or draw.choice(KINDS), aim or draw.choice(AIMS))
            if strike is not None and self._may(strike):
                self._do(strike)
                return
        self.outcome.spared += 1

    def _viewed(self, view: Viewed) -> None:
        """Let something fail in the middle of what a new view sets going."""
        if self.draw.random() < STRIKE_AT_VIEW:
            aim = self.draw.choice([part for part in ("primary", "backup", "joiner") if getattr(view, part)] or [""])
            self.rack.network.at(self.draw.uniform(0.0, AT_VIEW_S), partial(self._strike, aim=aim))

    def _drawn(self, kind: str, aim: str) -> Strike | None:
        draw = self.draw
        for_s = draw.choice(LASTS_S[kind])
        if kind in AT_CONTROLLER:
            return Strike(AT_CONTROLLER[kind], (CONTROLLER,), for_s)
        view = self.rack.view(draw.choice(self.rack.keys))
        node = getattr(view, aim, "") if aim and view is not None else ""
        node = node or draw.choice(NODES)
        entry = INVENTORY.node(node)
        host = INVENTORY.host_of(entry).name
        nics = [nic.name for nic in INVENTORY.smartnics_of(INVENTORY.node(host))]
        if kind in ("host", "server"):
            return Strike(kind, (host,), for_s)
        if kind in ("smartnic", "link", "pcie", "loss", "jitter"):
            return Strike(kind, (node if entry.role == "smartnic" else draw.choice(nics),), for_s)
        if kind != "partition":
            return Strike(kind, (node,), for_s)
        side = draw.choice(([node], [host, *nics], [n for n in NODES if PLACES[n].rack == PLACES[node].rack],
                            sorted({node, *(n for n in (*NODES, *CLIENTS, CONTROLLER) if draw.random() < 0.3)})))
        if draw.random() < 0.5:
            side = sorted({*side, draw.choice(CLIENTS)})
        return Strike(kind, tuple(side), for_s)

    def _may(self, strike: Strike) -> bool:
        if strike.kind == "controller":
            return self.rack.control is not None
        if strike.kind not in FORGETFUL:
            return True
        domains = {PLACES[node].domain for node in strike.nodes()}
        return all(self._survives(key, domains) for key in self.rack.keys)

    def _survives(self, key: Key, domains: set[str]) -> bool:
        """Say whether a replica outside `domains` has all that was answered, where nothing fails now."""
        rack, view = self.rack, self.rack.view(key)
        assert view is not None
        wanted = {view.primary: Part.SERVING, view.backup: Part.FOLLOWING}
        return any(PLACES[name].domain not in domains and rack.part(key, name) == (view.epoch, part)
                   and self.failing.get(PLACES[name].domain, 0.0) < rack.now
                   for name, part in wanted.items() if name)

    def _do(self, strike: Strike) -> None:
        rack, now = self.rack, self.rack.now
        kind = tally_of(strike)
        self.under_way.append(strike)
        self.outcome.most_at_once = max(self.outcome.most_at_once, len(self.under_way))
        self.struck[kind] += 1
        serving = {view.primary for key in rack.keys if (view := rack.view(key)) is not None}
        self.primaries[kind] += bool(serving & set(strike.nodes()))
        self.times.append((now, now + strike.for_s))
        for node in strike.nodes():
            if node in PLACES:
                domain = PLACES[node].domain
                self.failing[domain] = max(self.failing.get(domain, 0.0), now + strike.for_s + MARGIN_S)
        self.outcome.timeline.append((now, f"fail {strike}, for {strike.for_s:g} s"))
        rack.fail(strike)
        rack.network.at(strike.for_s, partial(self._mend, strike))

    def _mend(self, strike: Strike) -> None:
        self.outcome.timeline.append((self.rack.now, f"heal {strike}"))
        self.under_way.remove(strike)
        self.rack.heal(strike)

    # -- time ----------------------------------------------------------------------------------------------------------

    def _run(self, for_s: float) -> None:
        self._until(lambda: False, for_s)

    def _until(self, true: Callable[[], bool], within_s: float) -> bool:
        """Let time pass till something is so, at most so long; return whether it is. Look at the replicas meanwhile."""
        rack = self.rack
        end_s = rack.now + within_s
        while not true():
            if rack.now >= end_s:
                return False
            rack.simulation.run(min(end_s, rack.now + LOOK_S))
            rack.look()
        return True


def tally_of(strike: Strike) -> str:
    """Return under which of KINDS a strike counts."""
    if strike.names == (CONTROLLER,):
        return next(kind for kind, word in AT_CONTROLLER.items() if word == strike.kind)
    return strike.kind


def played(seed: int) -> Outcome:
    """Play the schedule of `seed`."""
    return Schedule(seed).play()
