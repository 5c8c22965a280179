"""Clients in virtual time: one that keeps all it asked and heard, and one that loads a rack and measures."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

from microservices.routing import Router
from microservices.workload import Workload
from nodes.messages import KIND_ERROR, DataMessage
from nodes.simulated_ends import ClientFlow
from nodes.simulated_network import SimulatedNetwork
from nodes.transport import Sends


class Asked(NamedTuple):
    """A request as its client sent it."""

    request_id: int
    payload: bytes
    sent_s: float


class Answer(NamedTuple):
    """A reply, or the error in its place, as its client got it."""

    request_id: int
    payload: bytes
    is_error: bool
    sent_s: float
    answered_s: float


class _Client:
    """Flows of a client, and the network that they are plugged into."""

    def __init__(self, network: SimulatedNetwork, flows: list[ClientFlow]) -> None:
        self.flows = flows
        self._network = network

    def vanish(self) -> None:
        """Be gone at once, like a client whose process was killed."""
        for flow in self.flows:
            self._network.unplug(flow)

    def _plug(self) -> None:
        for flow in self.flows:
            self._network.plug(flow)
            flow.answered = self._answered
            flow.turned_away = self._turned_away

    def _turned_away(self, flow: ClientFlow, requests: list[int]) -> None:
        """Take it that `requests` of a flow (none named: all) will not be served: ask nothing more."""
        raise NotImplementedError

    def _answered(self, flow: ClientFlow, reply: DataMessage, arrival: float, out: Sends) -> None:
        raise NotImplementedError


class SimulatedClient(_Client):
    """A closed loop of requests: each flow is an endpoint of its own with `window` requests outstanding.

    The next one leaves when a reply comes or, with `think_s`, as long after the first reply to each as that returns.
    `asked` holds the requests in the order in which they left, `answers` every reply in the order of arrival, also a
    second one to the same request; `turned_away` those of which it was told that they will not be served.
    """

    def __init__(self, network: SimulatedNetwork, flows: list[ClientFlow], window: int, workload: Workload,
                 requests: int, router: Router, think_s: Callable[[], float] | None = None) -> None:
        super().__init__(network, flows)
        self.asked: dict[int, Asked] = {}
        self.answers: list[Answer] = []
        self.turned_away: set[int] = set()
        self.workload = workload
        self._window = window
        self._router = router
        self._payloads = islice(workload.requests(), requests)
        self._think_s = think_s
        self._thought_of: set[int] = set()  # requests whose reply was followed by another request, or will be

    def start(self) -> None:
        self._plug()
        for flow in self.flows:
            out: Sends = []
            for _ in range(self._window):
                self._ask(flow, self._network.now, out)
            self._network.after(flow, out)

    def stop(self) -> None:
        """Ask nothing more."""
        self._payloads = islice(self._payloads, 0)

    def replies(self) -> dict[int, list[Answer]]:
        """Return the replies to each request that was asked, by its id, in order of arrival."""
        found: dict[int, list[Answer]] = {request_id: [] for request_id in self.asked}
        for answer in self.answers:
            found.setdefault(answer.request_id, []).append(answer)
        return found

    def complaints(self) -> list[str]:
        """Return what is wrong: requests without exactly one reply, error replies, and replies that cannot be right.

        What was turned away is to have none.
        """
        found = []
        for request_id, answers in self.replies().items():
            if request_id in self.turned_away and not answers:
                continue
            if len(answers) != 1 or request_id not in self.asked:
                found.append(f"request {request_id:#x} has {len(answers)} replies")
                continue
            reply = answers[0]
            wrong = (reply.payload.decode(errors="replace") if reply.is_error else
                     self.workload.check_reply(self.asked[request_id].payload, reply.payload))
            if wrong is not None:
                found.append(f"request {request_id:#x}: {wrong}")
        return found

    def _ask(self, flow: ClientFlow, now: float, out: Sends) -> None:
        payload = next(self._payloads, None)
        if payload is not None:
            request_id = flow.ask(payload, self._router.entry(payload), now, out)
            self.asked[request_id] = Asked(request_id, payload, now)

    def _answered(self, flow: ClientFlow, reply: DataMessage, arrival: float, out: Sends) -> None:
        asked = self.asked.get(reply.request_id)
        self.answers.append(Answer(reply.request_id, reply.payload, reply.kind == KIND_ERROR,
                                   asked.sent_s if asked is not None else arrival, arrival))
        if self._think_s is None:
            self._ask(flow, arrival, out)
        elif asked is not None and asked.request_id not in self._thought_of:
            self._thought_of.add(asked.request_id)
            self._network.at(self._think_s(), partial(self._ask_again, flow))

    def _turned_away(self, flow: ClientFlow, requests: list[int]) -> None:
        self.stop()
        named = self.asked.keys() & requests if requests else {one for one in self.asked if flow.has_asked(one)}
        self.turned_away |= named - {answer.request_id for answer in self.answers}

    def _ask_again(self, flow: ClientFlow) -> None:
        out: Sends = []
        self._ask(flow, self._network.now, out)
        self._network.after(flow, out)


class SimulatedLoad(_Client):
    """A client that measures: a closed loop or, with the times at which requests are to leave, an open one.

    `requests` yields payloads and the instances that they are for. Closed: `outstanding` are under way, shared out over
    the flows. Open: one leaves at each time of `intended`, flow after flow. `heard(payload, reply, sent_s)` is called
    for each first reply. `answered_s` and `latencies_s` are when each came, and how long after its request left, in
    seconds.
    """

    def __init__(self, network: SimulatedNetwork, flows: list[ClientFlow], outstanding: int,
                 requests: Iterator[tuple[bytes, int]], intended: Iterator[float] | None,
                 heard: Callable[[bytes, DataMessage, float], None]) -> None:
        super().__init__(network, flows)
        self.sent = 0
        self.answered_s, self.latencies_s = array("d"), array("d")
        self.doubled = 0  # replies beyond the first
        self.turned_away = 0  # requests that will not be served
        self.waiting: dict[int, tuple[float, bytes]] = {}  # requests without a reply: when they left, and what
        self._outstanding = outstanding
        self._requests = requests
        self._intended = intended
        self._heard = heard
        self._turn = cycle(flows)
        self._stopped = False

    def start(self) -> None:
        self._plug()
        if self._intended is not None:
            self._wait_for_next()
            return
        share, more = divmod(self._outstanding, len(self.flows))
        for i, flow in enumerate(self.flows):
            out: Sends = []
            for _ in range(share + (i < more)):
                self._ask(flow, self._network.now, out)
            self._network.after(flow, out)

    def stop(self) -> None:
        """Send no more requests."""
        self._stopped = True

    def _wait_for_next(self) -> None:
        assert self._intended is not None
        at = next(self._intended, None)
        if at is not None:
            self._network.agenda.at(at, self._leave, at)

    def _leave(self, intended: float) -> None:
        if self._stopped:
            return
        flow = next(self._turn)
        out: Sends = []
        self._ask(flow, intended, out)
        self._network.after(flow, out)
        self._wait_for_next()

    def _ask(self, flow: ClientFlow, now: float, out: Sends) -> None:
        following = None if self._stopped else next(self._requests, None)
        if following is not None:
            payload, number = following
            self.waiting[flow.ask(payload, number, now, out)] = now, payload
            self.sent += 1

    def _answered(self, flow: ClientFlow, reply: DataMessage, arrival: float, out: Sends) -> None:
        asked = self.waiting.pop(reply.request_id, None)
        if asked is None:
            self.doubled += 1
            return
        sent_s, payload = asked
        self.answered_s.append(arrival)
        self.latencies_s.append(arrival - sent_s)
        if self._intended is None:
            self._ask(flow, arrival, out)
        self._heard(payload, reply, sent_s)

    def _turned_away(self, flow: ClientFlow, requests: list[int]) -> None:
        self.stop()
        for request_id in requests or [one for one in self.waiting if flow.has_asked(one)]:
            if self.waiting.pop(request_id, None) is not None:
                self.turned_away += 1
