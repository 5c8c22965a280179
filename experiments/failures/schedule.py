"""One schedule of failures, from a seed: what the clients on the simulated racks were told, and the verdict on it.

    begins            paired: load begins        last strike mended         whole again                  read back
    |--founding-------|--0.2 s--|--strikes, 5 s--|--at most 30 s------------|--0.5 s-----|--at most 30 s--|

The clients are those of the experiment on packets, and so are their judges: some write keys of their own and know what
every reply must be, some share a few keys, two more share those of the bystander. In half of the schedules one of them
vanishes, and another one comes. random_strikes.py says what fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from controller.replica_steps import Event as Turn
from experiments.clients.load import ClientResult
from experiments.clients.shared_store import SharedStore
from experiments.clients.store_checker import StoreChecker, StoreReadBack
from experiments.failures import judging
from experiments.failures.failing_rack import CLIENTS, SHAPES, FailingRack
from experiments.failures.random_strikes import Strikes
from experiments.measurement.simulated_told import told_by
from microservices.workload import Workload
from nodes.deployment import Deployment
from nodes.simulated import NetworkFaults, SimulatedClient

USUAL = (NetworkFaults(delay_s=5e-5), NetworkFaults(loss=0.03, delay_s=5e-5, jitter_s=1e-4),
         NetworkFaults(loss=0.1, duplication=0.02, reordering=0.05, delay_s=5e-5, jitter_s=1e-4))
FIRST_S, SPAN_S, WHOLE_WITHIN_S, LAST_LOAD_S, DRAIN_S = 0.2, 5.0, 30.0, 0.5, 30.0
LOOK_S = 0.02
SHARED_KEYS = 5
VALUES_BYTES = (64, 64, 1000)  # of which a schedule has one size: joiners fetch what there is
THINK_S = 0.03  # between a reply and the next request, at most
NO_END = 1 << 20
ASKED_AT_LAST = 20  # of the bystander


class Outcome(msgspec.Struct):
    """What came of one schedule. Times are emulated seconds, counts are by kind of failure or by name.

    `struck` counts strikes, `primaries` those at a node that served then, `spared` those that were given up. `turns`
    are views by their reason, `moves` migrations of the bystander by their end, `set_back` is how often that lost
    some of its state. Of all clients' requests, `during` were made while something failed; of their messages, `resent`
    were sent again.
    """

    seed: int
    shape: str
    struck: dict[str, int] = {}
    primaries: dict[str, int] = {}
    most_at_once: int = 0
    spared: int = 0
    turns: dict[str, int] = {}
    moves: dict[str, int] = {}
    set_back: int = 0
    operations: int = 0
    during: int = 0
    unanswered: int = 0
    resent: int = 0
    datagrams: int = 0
    lost: int = 0
    outage_s: float = 0.0
    whole_after_s: float = 0.0
    virtual_s: float = 0.0
    fingerprint: int = 0
    complaints: list[str] = []
    timeline: list[tuple[float, str]] = []


class Schedule:
    """The schedule of `seed`, to be played once."""

    def __init__(self, seed: int) -> None:
        draw = self._draw = random.Random(f"schedule {seed}")
        shape = list(SHAPES)[seed % len(SHAPES)]
        self.rack = FailingRack(seed, shape, draw.choice(USUAL))
        self.strikes = Strikes(seed, self.rack)
        self.outcome = Outcome(seed, shape, complaints=[], timeline=[])
        self._value_bytes = draw.choice(VALUES_BYTES)
        self._whole_s = 0.0  # since when nothing is amiss
        self._writers: dict[int, SimulatedClient] = {}
        self._sharing: list[SimulatedClient] = []
        self._bystanding: list[SimulatedClient] = []
        self._vanished: list[SimulatedClient] = []

    def play(self) -> Outcome:
        rack, outcome = self.rack, self.outcome
        if not self._until(rack.paired, WHOLE_WITHIN_S):
            outcome.complaints.append(f"not paired after {WHOLE_WITHIN_S:g} s: {rack.missing()}")
            return outcome
        begun_s = rack.now
        self._load()
        self._until(lambda: False, FIRST_S)
        self.strikes.begin(SPAN_S)
        if self._draw.random() < 0.5:
            rack.network.at(self._draw.uniform(0.0, SPAN_S), self._exchange_client)
        self._until(lambda: self.strikes.over, 2 * SPAN_S)
        mended_s = self._whole_s = rack.now
        if not self._until(self._is_whole, WHOLE_WITHIN_S):
            outcome.complaints.append(f"{WHOLE_WITHIN_S:g} s after all was mended: {rack.missing()}")
        outcome.whole_after_s = self._whole_s - mended_s
        self._judge(begun_s)
        self._tell()
        return outcome

    def _load(self) -> None:
        seed, size, draw = self.outcome.seed, self._value_bytes, self._draw
        replicated, moving = self.rack.deployment, self.rack.bystander
        window = 4 if self.outcome.shape == "store" else 1  # over one channel replies come in order
        for number, client in enumerate(CLIENTS, start=1):
            self._sharing.append(self._client(replicated, SharedStore(seed, size, number, keys=SHARED_KEYS), client,
                                              flows=draw.choice((1, 2)), think_s=2 * THINK_S))
            if number % 2:
                self._writers[number] = self._client(replicated, StoreChecker(seed, size, number), client, window,
                                                     think_s=window * THINK_S)
            else:
                self._bystanding.append(self._client(moving, SharedStore(seed, size, 100 + number, 1, SHARED_KEYS),
                                                     client, think_s=THINK_S))

    def _exchange_client(self) -> None:
        """Let a client of shared keys be gone at once, whatever it waits for, and another one begin."""
        gone = self._sharing.pop(0)
        gone.vanish()
        gone.stop()
        self._vanished.append(gone)
        self.strikes.said.append((self.rack.now, f"a client of {CLIENTS[0]} vanishes, another one comes"))
        self._sharing.append(self._client(self.rack.deployment, SharedStore(
            self.outcome.seed, self._value_bytes, 50, keys=SHARED_KEYS), CLIENTS[0], think_s=2 * THINK_S))

    def _client(self, deployment: Deployment, workload: Workload, node: str, window: int = 1, flows: int = 1,
                requests: int = NO_END, think_s: float = 0.0) -> SimulatedClient:
        simulation = self.rack.simulation
        draw = random.Random(f"think {self.outcome.seed} {len(simulation.clients)}").uniform
        return simulation.client(self.rack.present(deployment), workload, requests, window, flows, node,
                                 partial(draw, 0.0, think_s) if think_s else None)

    # -- the verdict ---------------------------------------------------------------------------------------------------

    def _judge(self, begun_s: float) -> None:
        rack, outcome, whole_s = self.rack, self.outcome, self._whole_s
        set_back = rack.journal.set_back > 0
        clients = [*self._writers.values(), *self._sharing]
        for client in (*clients, *self._bystanding):
            client.stop()
        self._answered(clients if set_back else [*clients, *self._bystanding])
        wrote = [told_by(client) for client in self._writers.values()]
        shared = [told_by(client) for client in self._sharing]
        moving = [told_by(client) for client in self._bystanding]
        outcome.complaints += judging.of_writers(wrote, self._read_back())
        outcome.complaints += judging.of_shared(shared, [told_by(client) for client in self._vanished])
        outcome.complaints += [f"bystander: {said}" for said in self._of_bystander(moving, set_back)]
        for one in (*wrote, *shared, *([] if set_back else moving)):
            outcome.complaints += judging.without_service(one, whole_s, whole_s, cut_off=True)
        if rack.journal.turns[Turn.ALL_GONE.value]:
            outcome.complaints.append("what is replicated began anew, with nothing")
        if said := rack.unsettled():
            outcome.complaints.append(f"at the end: {said}")
        outcome.complaints += rack.served_once() + rack.complaints + rack.journal.complaints
        told = [*wrote, *shared]
        outcome.outage_s = max(judging.outage_s(one, begun_s, whole_s) for one in told)
        outcome.operations = sum(one.sent for one in (*told, *moving))
        outcome.unanswered = sum(one.unfinished for one in told)
        outcome.resent = sum(one.resent for one in (*told, *moving))
        outcome.during = sum(self.strikes.is_during(asked.asked_s) for one in (*told, *moving) for asked in one.history)

    def _read_back(self) -> list[ClientResult]:
        """Let others read all that the writers have written."""
        back = [StoreReadBack(self.outcome.seed, self._value_bytes, number, len(writer.asked))
                for number, writer in self._writers.items()]
        clients = [self._client(self.rack.deployment, one, CLIENTS[0], 4, requests=len(one.right)) for one in back]
        self._answered(clients)
        return [told_by(client) for client in clients]

    def _of_bystander(self, told: list[ClientResult], set_back: bool) -> list[str]:
        """Return what is wrong with what has no replica; requests that it had when its node died have no reply."""
        late = self._client(self.rack.bystander, SharedStore(self.outcome.seed, 64, 200, 2), CLIENTS[0],
                            requests=ASKED_AT_LAST)
        self._answered([late])
        found = [f"at last: {said}" for said in judging.of_client(told_by(late))]
        if set_back:
            return found + [said for one in told if one.answered for said in judging.of_client(one, judging.EXCUSED)]
        return found + judging.of_shared(told)

    def _tell(self) -> None:
        """Take down what happened."""
        rack, strikes, outcome = self.rack, self.strikes, self.outcome
        network = rack.network.counters()
        outcome.struck, outcome.primaries = dict(strikes.struck), dict(strikes.primaries)
        outcome.most_at_once, outcome.spared = strikes.most_at_once, strikes.spared
        outcome.turns, outcome.moves, outcome.set_back = dict(rack.journal.turns), dict(rack.journal.moves), \
            rack.journal.set_back
        outcome.datagrams, outcome.lost = network.sent, network.lost
        outcome.virtual_s, outcome.fingerprint = rack.now, rack.network.fingerprint
        rack.hear()
        events = [(event.now_s, f"    {event.what} {event.node} {event.instance} {event.detail}".rstrip())
                  for event in rack.events]
        outcome.timeline = sorted([*strikes.said, *events], key=lambda line: line[0])

    # -- time ----------------------------------------------------------------------------------------------------------

    def _is_whole(self) -> bool:
        """Whether all has been as it is when nothing fails for as long as the last load lasts."""
        if self.rack.missing():
            self._whole_s = self.rack.now
        return self.rack.now >= self._whole_s + LAST_LOAD_S

    def _answered(self, clients: Sequence[SimulatedClient]) -> None:
        """Let time pass till all that was asked is answered, or for long enough."""
        self._until(lambda: all(len(client.answers) >= len(client.asked) for client in clients), DRAIN_S)

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


def played(seed: int) -> Outcome:
    """Play the schedule of `seed`."""
    return Schedule(seed).play()
