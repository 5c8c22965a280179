"""What strikes the simulated racks, when and where, drawn from a seed; and what may not strike at the same time.

Strikes come at random times, three at most at once, most of them at a primary or what it needs, and some right after
the controller has decided something. No memory is lost where that would leave no replica: by the live placement at that
moment another one must be there, complete, in a fault domain where nothing fails or has failed half a second ago; nor
where a stage has no replica between others that have. What loses no memory may strike both. The bystander, which has no
replica, is moved all the time, and spared nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

from controller.migration_journal import Started, Viewed
from experiments.failures.failing_rack import (
    CLIENTS,
    CONTROLLER,
    FORGETFUL,
    INVENTORY,
    NODES,
    PLACES,
    FailingRack,
    Strike,
)
from experiments.failures.watched_journal import Key
from nodes.replication_messages import Part

AT_NODES = ("smartnic", "crash", "host", "server", "hang", "link", "pcie", "loss", "jitter", "partition")
AT_CONTROLLER = {"controller": "controller", "controller cut off": "partition", "controller hangs": "hang"}
KINDS = (*AT_NODES, *AT_CONTROLLER)
LASTS_S = {**dict.fromkeys(FORGETFUL, (0.02, 0.4, 0.8, 2.0)), **dict.fromkeys(AT_CONTROLLER, (0.05, 0.4, 1.5)),
           **dict.fromkeys(("hang", "link", "pcie", "partition"), (0.1, 0.7, 1.5, 3.0)),
           **dict.fromkeys(("loss", "jitter"), (0.7, 1.5, 3.0))}
MOST_AT_ONCE, FEWEST, MOST = 3, 3, 8
MARGIN_S = 0.5  # a domain counts as failing for so long after it was mended
AIMS = (*("primary",) * 5, "backup", "joiner", "")
STRIKE_THEN, THEN_S = 0.3, 0.02  # how often something fails after a decision, and how soon at most
MOVE_EVERY_S = 0.3, 1.0
TRIES = 5  # to find a strike that may be


class Strikes:
    """Strikes at `rack`, from `begin` on. `struck` counts them by kind, `primaries` those at a node that served then.

    `spans` are the times in which something failed, in seconds; `said` is what happened when, for a reader.
    """

    def __init__(self, seed: int, rack: FailingRack) -> None:
        self.struck: Counter[str] = Counter()
        self.primaries: Counter[str] = Counter()
        self.most_at_once = 0
        self.spared = 0
        self.spans: list[tuple[float, float]] = []
        self.said: list[tuple[float, str]] = []
        self._first = KINDS[seed % len(KINDS)]
        self._draw = random.Random(f"strikes {seed}")
        self._rack = rack
        self._until_s = 0.0
        self._under_way: list[Strike] = []
        self._failing: dict[str, float] = {}  # fault domain: until when

    def begin(self, for_s: float) -> None:
        """Strike a primary at once, in the way that is the seed's turn, and at random for `for_s` from now."""
        rack, draw = self._rack, self._draw
        self._until_s = rack.now + for_s
        self._strike(self._first, self._aimed("primary"))
        for _ in range(draw.randint(FEWEST, MOST) - 1):
            rack.network.at(draw.uniform(0.0, for_s), self._strike)
        rack.journal.heard = self._decided
        self._move()

    @property
    def over(self) -> bool:
        """Whether nothing fails, and nothing will."""
        return not self._under_way and self._rack.now > self._until_s

    def is_during(self, at_s: float) -> bool:
        return any(since <= at_s <= until for since, until in self.spans)

    def _strike(self, kind: str = "", node: str = "") -> None:
        """Let something fail, of `kind` and at `node`; drawn unless given."""
        draw = self._draw
        if len(self._under_way) >= MOST_AT_ONCE or self._rack.now > self._until_s:
            return
        for _ in range(TRIES):
            strike = self._drawn(kind or draw.choice(KINDS), node or self._aimed(draw.choice(AIMS)))
            if self._may(strike):
                self._do(strike)
                return
        self.spared += 1

    def _decided(self, entry: Viewed | Started) -> None:
        """Let something fail in the middle of what a new view, or a migration, sets going."""
        if self._draw.random() < STRIKE_THEN:
            parts = ("primary", "backup", "joiner") if isinstance(entry, Viewed) else ("source", "destination")
            node = getattr(entry, self._draw.choice(parts))
            self._rack.network.at(self._draw.uniform(0.0, THEN_S), partial(self._strike, node=node))

    def _move(self) -> None:
        """Move the bystander somewhere, and again after a while."""
        if self._rack.now < self._until_s:
            self._rack.move(self._draw.choice(NODES))
            self._rack.network.at(self._draw.uniform(*MOVE_EVERY_S), self._move)

    def _aimed(self, part: str) -> str:
        """Return the node that has a part in an instance; any if there is none, or no such part."""
        view = self._rack.view(self._draw.choice(self._rack.keys))
        return (getattr(view, part) if part and view is not None else "") or self._draw.choice(NODES)

    def _drawn(self, kind: str, node: str) -> Strike:
        """Return a strike of `kind` at `node`, or at what that needs of its server."""
        draw = self._draw
        for_s = draw.choice(LASTS_S[kind])
        if kind in AT_CONTROLLER:
            return Strike(AT_CONTROLLER[kind], (CONTROLLER,), for_s)
        entry = INVENTORY.node(node)
        host = INVENTORY.host_of(entry)
        nics = [nic.name for nic in INVENTORY.smartnics_of(host)]
        if kind in ("host", "server"):
            return Strike(kind, (host.name,), for_s)
        if kind in ("smartnic", "link", "pcie", "loss", "jitter"):
            return Strike(kind, (node if entry.role == "smartnic" else draw.choice(nics),), for_s)
        if kind != "partition":
            return Strike(kind, (node,), for_s)
        side = draw.choice(([node], [host.name, *nics], [n for n in NODES if PLACES[n].rack == PLACES[node].rack],
                            [node, *(n for n in (*NODES, *CLIENTS, CONTROLLER) if n != node and draw.random() < 0.3)]))
        if draw.random() < 0.5:
            side = sorted({*side, draw.choice(CLIENTS)})
        return Strike(kind, tuple(side), for_s)

    def _may(self, strike: Strike) -> bool:
        if strike.kind == "controller":
            return self._rack.control is not None
        if strike.kind not in FORGETFUL:
            return True
        domains = {PLACES[node].domain for node in strike.nodes()}
        return (not self._rack.irreplaceable & set(strike.nodes())
                and all(self._survives(key, domains) for key in self._rack.keys))

    def _survives(self, key: Key, domains: set[str]) -> bool:
        """Say whether a replica outside `domains` has all that was answered, where nothing fails now."""
        rack, view = self._rack, self._rack.view(key)
        assert view is not None
        wanted = {view.primary: Part.SERVING, view.backup: Part.FOLLOWING}
        return any(PLACES[name].domain not in domains and rack.part(key, name) == (view.epoch, part)
                   and self._failing.get(PLACES[name].domain, 0.0) < rack.now
                   for name, part in wanted.items() if name)

    def _do(self, strike: Strike) -> None:
        rack, now, kind = self._rack, self._rack.now, kind_of(strike)
        self._under_way.append(strike)
        self.most_at_once = max(self.most_at_once, len(self._under_way))
        self.struck[kind] += 1
        serving = {view.primary for key in rack.keys if (view := rack.view(key)) is not None}
        self.primaries[kind] += bool(serving & set(strike.nodes()))
        self.spans.append((now, now + strike.for_s))
        for domain in {PLACES[node].domain for node in strike.nodes() if node in PLACES}:
            self._failing[domain] = max(self._failing.get(domain, 0.0), now + strike.for_s + MARGIN_S)
        self.said.append((now, f"fail {strike}, for {strike.for_s:g} s"))
        rack.fail(strike)
        rack.network.at(strike.for_s, partial(self._mend, strike))

    def _mend(self, strike: Strike) -> None:
        self.said.append((self._rack.now, f"heal {strike}"))
        self._under_way.remove(strike)
        self._rack.heal(strike)


def kind_of(strike: Strike) -> str:
    """Return which of KINDS a strike is."""
    if strike.names == (CONTROLLER,):
        return next(kind for kind, word in AT_CONTROLLER.items() if word == strike.kind)
    return strike.kind
