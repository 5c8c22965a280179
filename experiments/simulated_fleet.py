"""A fleet of SmartNICs that exists as heartbeats only, and the orchestrator's time to decide on them.

Two things are measured, both as time of the core that the orchestrator runs on. How many heartbeats it is through with
in a second, when they wait for it in batches. And how long a decision takes when heartbeats arrive at the rate of real
ones, each SmartNIC's at a moment of its own in every 50 ms: the orchestrator then takes what has arrived while it was
busy, and a decision's latency runs from the arrival of the heartbeat that led to it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from controller.heartbeats import WIRE
from controller.load_table import NOWHERE, LoadTable, NodeTable
from controller.orchestrator import Move, Orchestrator
from nodes.control_messages import HEARTBEAT_BYTES, HEARTBEAT_S, KIND_HEARTBEAT, SLOTS, float_code
from nodes.wire import MAGIC, VERSION

NICS, SERVERS_PER_RACK = 4, 40  # section 5.6: Type2 servers, 40 to a rack
MOST_BATCH = 4096  # heartbeats that the orchestrator takes at once, so that no decision waits for a long batch
INSTANCE_MB, NODE_MB = 64.0, 65_536.0
STARVING_SHARE, LEAST_STARVING = 0.01, 60  # of the SmartNICs, in the course of a run
STARVING_FRAMES = 3000
FIRST_SLOT = 100
PER_APPLICATION = 60_000
# A datagram of 16 bytes: UDP, IPv4 and Ethernet headers and check sequence make 62 bytes, padded to 64; and 20 bytes
# of preamble and gap on the wire.
WIRE_BYTES = 84


class Fleet:
    """`servers` hosts with NICS SmartNICs each, and `per_nic` instances on every SmartNIC."""

    def __init__(self, servers: int, per_nic: int, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self._slot = FIRST_SLOT
        index = np.arange(servers * (1 + NICS), dtype=np.int32)
        server = index // (1 + NICS)
        self.nodes = NodeTable((10 << 24 | index + 1).astype(np.uint32), server * (1 + NICS),
                               server // SERVERS_PER_RACK, np.full(len(index), NODE_MB))
        self.nics = np.flatnonzero(~self.nodes.is_host).astype(np.int32)
        self.per_nic = per_nic
        owner = np.tile(self.nics, per_nic)
        number = np.arange(len(owner), dtype=np.int64)
        self._application, self._number = number // PER_APPLICATION, number % PER_APPLICATION
        self.orchestrator = Orchestrator(self.nodes, LoadTable.of_columns(
            self.nodes, self._application, self._number, owner, INSTANCE_MB))
        # When in every 50 ms each SmartNIC sends; rounds are in this order.
        phase = self._draw.random(len(self.nics)) * HEARTBEAT_S
        self._order = np.argsort(phase)
        self.phase = phase[self._order]
        self.phase_of = dict(zip(self.nics[self._order].tolist(), self.phase.tolist(), strict=True))
        self.sources = self.nodes.ips[self.nics[self._order]]

    @property
    def microservices(self) -> int:
        return len(self.nics) * self.per_nic

    def rounds(self, count: int) -> Iterator[tuple[int, bytes]]:
        """Yield (slot, heartbeats) of the next `count` rounds, in which more and more SmartNICs starve their hosts."""
        draw, n = self._draw, len(self.nics)
        starving = min(n, max(LEAST_STARVING, round(STARVING_SHARE * n)))
        since = np.full(n, count)
        since[draw.choice(n, starving, replace=False)] = draw.integers(1, max(2, count - 8), starving)
        wire = np.zeros(n, dtype=WIRE)
        wire["header"] = np.frombuffer(MAGIC.to_bytes(2, "big") + bytes((VERSION, KIND_HEARTBEAT)), dtype=np.uint32)[0]
        for i in range(count):
            slot, self._slot = self._slot, self._slot + 1
            place = i % self.per_nic * n + self._order
            wire["slot"] = slot % SLOTS
            wire["application"], wire["instance"] = self._application[place], self._number[place]
            wire["execution"] = draw.integers(20_000, 20_050, n)  # some 4 us, give or take a little
            wire["queue"] = draw.integers(0, 30, n)
            wire["queue"][since[self._order] <= i] = float_code(STARVING_FRAMES, 4, 8)
            wire["transmitted"], wire["received"] = draw.integers(20, 120, (2, n))
            wire["cpu"] = draw.integers(0, 255 // self.per_nic + 1, n)
            yield slot, wire.tobytes()


@dataclass(frozen=True, slots=True)
class FleetResult:
    """What a fleet's heartbeats took. Latencies are in seconds of core time, rates per second of it.

    `wall_heartbeats_per_s` is by the clock, which also runs while the core does something else.
    """

    servers: int
    smartnics: int
    microservices: int
    heartbeats: int
    heartbeats_per_s: float
    decode_per_s: float
    wall_heartbeats_per_s: float
    decisions: int
    mean_s: float
    p50_s: float
    p99_s: float
    most_s: float
    mean_batch: float

    @property
    def load(self) -> float:
        """The share of one core that the fleet's heartbeats take."""
        return self.smartnics / HEARTBEAT_S / self.heartbeats_per_s

    @property
    def payload_bps(self) -> float:
        return self.smartnics * HEARTBEAT_BYTES * 8 / HEARTBEAT_S

    @property
    def wire_bps(self) -> float:
        return self.smartnics * WIRE_BYTES * 8 / HEARTBEAT_S


def measure_fleet(servers: int, per_nic: int, rounds: int, seed: int = 1) -> FleetResult:
    """Measure rate and latency over `rounds` rounds of heartbeats each."""
    fleet = Fleet(servers, per_nic, seed)
    gc.collect()
    gc.freeze()  # a fleet's tables are there to stay; to look through them again and again is no part of deciding
    try:
        return _measured(fleet, rounds)
    finally:
        gc.unfreeze()


def _measured(fleet: Fleet, rounds: int) -> FleetResult:
    core_s, wall_s = _work_off(fleet, rounds)
    heartbeats = rounds * len(fleet.nics)
    latencies, mean_batch = _arriving(fleet, rounds)
    ordered = np.sort(latencies) if latencies else np.full(1, np.nan)
    p50, p99, most = (float(ordered[int(q * (len(ordered) - 1))]) for q in (0.5, 0.99, 1.0))
    return FleetResult(len(fleet.nics) // NICS, len(fleet.nics), fleet.microservices, heartbeats, heartbeats / core_s,
                       len(fleet.nics) / _decode_s(fleet), heartbeats / wall_s, len(latencies), float(ordered.mean()),
                       p50, p99, most, mean_batch)


def _batches(fleet: Fleet, data: bytes) -> Iterator[tuple[npt.NDArray[np.uint32], memoryview]]:
    view = memoryview(data)
    for first in range(0, len(fleet.sources), MOST_BATCH):
        batch = fleet.sources[first:first + MOST_BATCH]
        yield batch, view[first * HEARTBEAT_BYTES:(first + len(batch)) * HEARTBEAT_BYTES]


def _carry_out(orchestrator: Orchestrator, moves: list[Move]) -> None:
    for move in moves:
        if move.to != NOWHERE:
            orchestrator.arrived(move.application, move.number, move.to)


def _work_off(fleet: Fleet, rounds: int) -> tuple[float, float]:
    """Return the seconds, of the core and by the clock, in which all that waits in batches is decided on."""
    core_s = wall_s = 0.0
    for slot, data in fleet.rounds(rounds):
        moves = []
        wall, core = time.perf_counter(), time.thread_time()
        for sources, batch in _batches(fleet, data):
            moves += fleet.orchestrator.take(sources, batch, (slot + 1) * HEARTBEAT_S)
        core_s, wall_s = core_s + time.thread_time() - core, wall_s + time.perf_counter() - wall
        _carry_out(fleet.orchestrator, moves)
    return core_s, wall_s


def _arriving(fleet: Fleet, rounds: int) -> tuple[list[float], float]:
    """Return the latency of each decision when heartbeats arrive at their times, and how many were taken at once."""
    orchestrator, free_at = fleet.orchestrator, 0.0
    latencies: list[float] = []
    batches = 0
    for slot, data in fleet.rounds(rounds):
        arrivals, view = slot * HEARTBEAT_S + fleet.phase, memoryview(data)
        first = 0
        while first < len(arrivals):
            start = max(free_at, float(arrivals[first]))
            last = min(int(np.searchsorted(arrivals, start, side="right")), first + MOST_BATCH)
            batch = view[first * HEARTBEAT_BYTES:last * HEARTBEAT_BYTES]
            core = time.thread_time()
            moves = orchestrator.take(fleet.sources[first:last], batch, start)
            free_at = start + time.thread_time() - core
            batches, first = batches + 1, last
            latencies += [free_at - (move.slot * HEARTBEAT_S + fleet.phase_of[move.node]) for move in moves]
            _carry_out(orchestrator, moves)
    return latencies, rounds * len(fleet.nics) / batches


def _decode_s(fleet: Fleet) -> float:
    """Return the core time of decoding and admitting one round in batches, and nothing more."""
    gate = Orchestrator(fleet.nodes, ()).gate
    slot, data = next(fleet.rounds(1))
    core = time.thread_time()
    for sources, batch in _batches(fleet, data):
        for _ in gate.admit(sources, batch, (slot + 1) * HEARTBEAT_S):
            pass
    return time.thread_time() - core
