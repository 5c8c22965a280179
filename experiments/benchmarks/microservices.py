"""What each microservice's handler costs on one core, and beside it a bare call of the library that does the work.

Three things are timed in turn, slice by slice, so that whatever else the machine does hits all alike:

    handler   Request -> handle -> outputs, on the microservice's own workload, its state warm
    passing   a handler that reads the same request, checks it as this one does, and passes it on: what the contract
              and the wire format cost, so that handler - passing is the algorithm
    bare      the library alone on the same data, prepared beforehand in the library's own types (library_calls.py)
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from experiments.benchmarks.library_calls import LIBRARY_CALLS
from microservices.packet import layers
from microservices.record_workload import KINDS
from microservices.records import Record, RecordService, decode_record
from microservices.service import BUILT_IN, Microservice, Output, Request, new_service
from microservices.state import State
from microservices.workloads import workload_named

ROUNDS = 25
REQUESTS = 2000  # of the workload; all of them warm the state before anything is timed
SLICE_S = 0.004
LEAST_RATIO = 0.7
# No client of the benchmark is to run into its rate.
OPTIONS: dict[str, dict[str, Any]] = {"api_gateway": {"rate_per_s": 1e9, "burst": 1e9}}
COLUMNS = ("microservice", "requests/s", "us", "outside the algorithm", "bare call of", "us", "ratio", "wanted")


@dataclass(frozen=True, slots=True)
class Row:
    """One microservice. Times are medians over the rounds, in microseconds; ratios medians of the rounds' ratios.

    `outside_share` is passing / handler, and `ratio` bare / handler; None where no library carries the algorithm.
    """

    microservice: str
    requests_per_s: float
    handler_us: float
    outside_share: float
    library: str | None
    bare_us: float | None
    ratio: float | None
    wanted: float | None

    @property
    def holds(self) -> bool:
        return self.ratio is None or self.wanted is None or self.ratio >= self.wanted

    def values(self) -> tuple[str, ...]:
        return (self.microservice, f"{self.requests_per_s:,.0f}", f"{self.handler_us:.2f}", f"{self.outside_share:.0%}",
                self.library or "", "" if self.bare_us is None else f"{self.bare_us:.2f}",
                "" if self.ratio is None else f"{self.ratio:.2f}", "" if self.wanted is None else f">= {self.wanted}")


def measure(say: Callable[[str], None] = lambda _: None, names: Sequence[str] = (), rounds: int = ROUNDS) -> list[Row]:
    """Measure the built-in microservices, or those of `names`; about half a minute for all sixteen."""
    rows = []
    for name in names or sorted(BUILT_IN):
        row = _measured(name, rounds)
        rows.append(row)
        beside = f", {row.ratio:.2f} of {row.library}" if row.ratio is not None else ""
        say(f"{name}: {row.requests_per_s:,.0f} requests/s{beside}")
    return rows


def _measured(name: str, rounds: int) -> Row:
    service = new_service(name, **OPTIONS.get(name, {}))
    state = service.new_state()
    payloads = list(islice(workload_named(name).requests(), REQUESTS))
    outputs = [service.handle(Request(payload), state) for payload in payloads]
    calls: dict[str, Iterator[tuple[Callable[[Any], object], Any]]] = {
        "handler": _handled(service, state, payloads),
        "passing": _handled(_passing(name, outputs[-1][0]), State(), payloads)}
    library, bare = None, LIBRARY_CALLS.get(name)
    if bare is not None:
        library = bare.library
        call, prepared = bare.prepare(service, state, payloads)
        calls["bare"] = ((call, one) for one in cycle(prepared))
    counts = {what: _count_for(slices) for what, slices in calls.items()}
    took: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(rounds):
        for what, slices in calls.items():
            took[what].append(_seconds_of(slices, counts[what]))
    handler = statistics.median(took["handler"])
    ratio = None if bare is None else statistics.median(
        b / h for b, h in zip(took["bare"], took["handler"], strict=True))
    outside = statistics.median(p / h for p, h in zip(took["passing"], took["handler"], strict=True))
    return Row(name, 1.0 / handler, handler * 1e6, outside, library,
               None if bare is None else statistics.median(took["bare"]) * 1e6, ratio,
               None if bare is None else LEAST_RATIO)


def _handled(service: Microservice, state: State,
             payloads: Sequence[bytes]) -> Iterator[tuple[Callable[[Any], object], Any]]:
    def call(payload: bytes) -> object:
        return service.handle(Request(payload), state)
    return ((call, payload) for payload in cycle(payloads))


def _count_for(slices: Iterator[tuple[Callable[[Any], object], Any]]) -> int:
    """Return how many calls fill a slice of time."""
    return max(10, min(REQUESTS, round(SLICE_S / min(_seconds_of(slices, 20) for _ in range(3)))))


def _seconds_of(slices: Iterator[tuple[Callable[[Any], object], Any]], count: int) -> float:
    """Return how long one call takes, on average over `count` of them."""
    pairs = list(islice(slices, count))
    call = pairs[0][0]
    arguments = [argument for _, argument in pairs]
    began = time.perf_counter()
    for argument in arguments:
        call(argument)
    return (time.perf_counter() - began) / count


class _PassRecord(RecordService):
    """Reads a record and adds what another microservice has found once."""

    name = "passing"
    memory_mb = 0.0

    def __init__(self, found: Any) -> None:
        self._found = found

    def answer(self, record: Record, state: State, now_s: float) -> Any:
        return self._found


class _PassPacket(Microservice):
    """Checks a packet and passes it on."""

    name = "passing"
    memory_mb = 0.0

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        layers(request.payload)
        return (Output(request.payload),)


def _passing(name: str, output: Output) -> Microservice:
    return _PassRecord(decode_record(output.payload).results[name]) if name in KINDS else _PassPacket()
