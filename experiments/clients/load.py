"""What a client is told to do, and what came of it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from experiments.clients.latencies import Latencies
from experiments.errors import ExperimentError
from nodes.deployment import Deployment
from nodes.emulated_clock import EmulatedClock
from nodes.lateness import LatenessSummary

FLOW_BITS = 12  # of an endpoint: which of a client's flows
MAX_FLOWS = 1 << FLOW_BITS
ARRIVALS = ("poisson", "constant")


class ClientConfig(msgspec.Struct, frozen=True):
    """What a client does: `requests` in all (0: until SIGTERM), over `flows` ports.

    Closed loop (`rate_rps` 0): each flow keeps `window` requests outstanding or, if `outstanding` says how many there
    are in all, its share of them. Open loop: requests leave at `rate_rps`,
    `arrivals` "poisson" or "constant", flow after flow, and a latency counts from the time at which its request was to
    leave, whenever it did: a client that falls behind hides nothing (no coordinated omission).

    A request without a reply after `timeout_s` is lost. `client_number` keeps request ids apart between
    clients, also those that come one after the other; times are drawn for `drawn_as`, that number unless it is given.
    `payloads`, if there are any, are sent in turn in place of what `workload` makes; of that, `pool` requests are made
    before the start and sent in turn (0: each is made when it is sent). With `history`, all that was asked and
    answered is kept. Every reply is checked, or one in `check_every`. `exact` holds every reply against the oracle,
    byte for byte: with one flow, one request outstanding, and no other client of this application. `ways` are the
    one-way times from nodes to the client by packed IP. `controllers` are asked where an instance is that says nothing.
    Told to stop, a client waits for outstanding replies, `drain_real_s` at most. Times are emulated, but for that one.

    Raises ExperimentError for what no client can do.
    """

    ip: str
    client_number: int
    deployment: Deployment
    workload: str
    requests: int = 1000
    flows: int = 8
    window: int = 4
    payload_bytes: int = 512
    seed: int = 1
    timeout_s: float = 10.0
    options: dict[str, Any] = {}
    payloads: tuple[bytes, ...] = ()
    exact: bool = False
    clock: EmulatedClock = EmulatedClock()
    ways: dict[bytes, float] = {}
    controllers: tuple[str, ...] = ()
    rate_rps: float = 0.0
    arrivals: str = "poisson"
    check_every: int = 1
    pool: int = 0
    drain_real_s: float = 60.0
    outstanding: int = 0
    history: bool = False
    drawn_as: int | None = None

    @property
    def draw(self) -> int:
        """What times are drawn for."""
        return self.client_number if self.drawn_as is None else self.drawn_as

    def __post_init__(self) -> None:
        if self.requests < 0 or not 1 <= self.flows <= MAX_FLOWS or self.window < 1:
            raise ExperimentError(f"{self.requests} requests over {self.flows} flows with {self.window} outstanding: "
                                  f"the least are 0, 1 and 1, and {MAX_FLOWS} flows the most")
        outstanding = self.outstanding or self.flows * self.window
        if self.exact and (outstanding != 1 or self.rate_rps or self.check_every != 1):
            raise ExperimentError(f"{outstanding} requests outstanding at {self.rate_rps} requests/s, one reply in "
                                  f"{self.check_every} checked; exact replies are known only for one request at a "
                                  "time, each of them checked")
        if not 0 <= self.rate_rps < math.inf or self.arrivals not in ARRIVALS:
            raise ExperimentError(f"{self.arrivals} arrivals at {self.rate_rps} requests/s; the least rate is 0, "
                                  f"and arrivals are {' or '.join(ARRIVALS)}")
        if self.outstanding < 0 or (self.outstanding and self.rate_rps):
            raise ExperimentError(f"{self.outstanding} requests outstanding at {self.rate_rps} requests/s: the least "
                                  "is 0, and an open loop has no such number")
        if self.check_every < 1 or self.pool < 0:
            raise ExperimentError(f"one reply in {self.check_every} checked, {self.pool} requests made before the "
                                  "start; the least are 1 and 0")


class Exchange(msgspec.Struct, frozen=True, array_like=True):
    """A request, when it was made, its reply and when that came, in emulated seconds; without, None and inf."""

    request: bytes
    asked_s: float
    reply: bytes | None
    answered_s: float


class ClientResult(msgspec.Struct, frozen=True):
    """What came of it. Every request sent is in exactly one of `answered`, `errors`, `wrong`, `lost`, `turned_away`,
    `unfinished`. Who is turned away, since the application is withdrawn, sends nothing more.

    `late` and `duplicated` count replies beyond the first or after the timeout; `longest_gap_s` is the longest
    time without any reply, `resent` the datagrams that the client's channels repeated, `checked` the replies whose
    contents were looked at. `answered_s` and `latencies_s` are packed doubles, one each per reply: see `replies`.
    `strays` were for a client that was here before.
    `behind` is how late requests left after they were to, `turns` how long the client was kept from its sockets.
    """

    sent: int
    answered: int
    errors: int
    wrong: int
    lost: int
    late: int
    duplicated: int
    foreign: int
    seconds: float
    longest_gap_s: float
    latencies: Latencies
    complaints: list[str]
    resent: int = 0
    checked: int = 0
    unfinished: int = 0
    answered_s: bytes = b""
    latencies_s: bytes = b""
    behind: LatenessSummary = LatenessSummary()
    turns: LatenessSummary = LatenessSummary()
    dropped_socket: int = 0
    strays: int = 0
    history: tuple[Exchange, ...] = ()
    turned_away: int = 0

    def replies(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return when each reply came, in emulated seconds, and its latency in seconds."""
        return np.frombuffer(self.answered_s), np.frombuffer(self.latencies_s)

    def content(self) -> dict[str, Any]:
        """Return what belongs in a manifest: all but the single replies."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in content.items() if name not in ("answered_s", "latencies_s", "history")}
