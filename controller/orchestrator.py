"""The data-plane orchestrator's decisions: heartbeats in, moves of microservices out (section 3.4).

    heartbeats --> gate --> table of loads --> starvation detector --+
                                          \\--> execution detector ---+--> hold-down --> which, and where to

"For either issue, the orchestrator will migrate the microservice with the highest CPU utilization to the host." Where
the host has no room, the least bad alternative: first the same microservice elsewhere in the rack, the less loaded the
better, hosts of other servers before SmartNICs (a SmartNIC is what could not cope); then the next microservice on that
SmartNIC in the same way; and nothing, where nothing has room. Each decision says which of these it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.heartbeats import Batch, Gate, Index, Ints
from controller.load_table import NOWHERE, LoadTable, NodeTable, PlacedInstance
from controller.overload import (
    GROSS,
    NEVER,
    Alarm,
    Badness,
    ExecutionDetector,
    HoldDown,
    OverloadOptions,
    StarvationDetector,
)
from nodes.control_messages import MAX_SHARE, NO_INSTANCE

MOST_DECISIONS = 32  # ours: in one go, so that a batch is never held up for long; further alarms wait for the next
BUSY_LIMIT = 0.9  # ours: a node whose cores are busier is full


class Move(NamedTuple):
    """A decision: `application`'s instance `number` should go from `node` to `to`, or stay where `to` is NOWHERE."""

    slot: int
    cause: str
    node: int
    application: int
    number: int
    to: int
    why: str
    badness: int = GROSS


@dataclass(slots=True)
class OrchestratorCounters:
    """Heartbeats that were used, and what came of them."""

    heartbeats: int = 0
    foreign_instance: int = 0  # of an instance that does not run on the node that reports it
    alarms: int = 0
    moves: int = 0
    stays: int = 0
    rebooted: int = 0


class Orchestrator:
    """Detectors and choice for the instances of a `LoadTable`."""

    def __init__(self, nodes: NodeTable, instances: Iterable[PlacedInstance] | LoadTable,
                 options: OverloadOptions | None = None) -> None:
        self.options = options or OverloadOptions()
        self.nodes = nodes
        self.table = instances if isinstance(instances, LoadTable) else LoadTable(nodes, instances)
        self.gate = Gate(nodes.ips)
        self.counters = OrchestratorCounters()
        self.boots = np.full(len(nodes), -1, dtype=np.int64)
        self.reboots: list[tuple[int, int]] = []  # (node, boot) since somebody emptied the list
        self.watch: Callable[[Batch], None] | None = None  # is shown every heartbeat that is believed
        self._starvation = StarvationDetector(len(nodes), self.options)
        self._execution = ExecutionDetector(len(self.table.state), self.options)
        self._peace = HoldDown(len(nodes), self.options)
        self._smartnic = ~nodes.is_host
        self._leaving = np.zeros(len(nodes), dtype=bool)  # an instance is on its way from there
        self._waiting: deque[Alarm] = deque()
        self._waits = np.zeros(len(nodes), dtype=bool)
        self._reserved: dict[int, tuple[int, int]] = {}  # per row that moves: where to, and the CPU share set aside
        order = np.argsort(nodes.rack, kind="stable")
        racks, first = np.unique(nodes.rack[order], return_index=True)
        self._by_rack = dict(zip(racks.tolist(), np.split(order, first[1:]), strict=True))

    def take(self, sources: npt.NDArray[np.uint32], data: bytes | memoryview, now_s: float) -> list[Move]:
        """Take heartbeats that were received at `now_s`, 16 bytes for each source address; return what to do."""
        for part, before in self.gate.admit(sources, data, now_s):
            self._detect(part, before)
        return self._decide()

    def begun(self, application: int, number: int, to: int) -> None:
        """Note that an instance is on its way to `to` by somebody else's decision: until it arrives or stays."""
        row = self.table.row_of(application, number)
        self._set_aside(row, to)
        self._leaving[self.table.state["owner"][row]] = True

    def arrived(self, application: int, number: int, to: int) -> None:
        """Note that an instance runs at `to` now."""
        row = self.table.row_of(application, number)
        self._settle(row)
        self.table.move(row, to)
        self._execution.forget(row)

    def stayed(self, application: int, number: int) -> None:
        """Note that a migration was rolled back."""
        self._settle(self.table.row_of(application, number))

    def _settle(self, row: int) -> None:
        table, node = self.table, int(self.table.state["owner"][row])
        if row in self._reserved:
            to, cpu = self._reserved.pop(row)
            table.free_mb[to] += table.memory_mb[row]
            table.node_cpu[to] -= cpu
        table.state["moving"][row] = False
        self._leaving[node] = False
        self._starvation.forget(node)

    def _detect(self, part: Batch, before: Ints) -> None:
        counters, table = self.counters, self.table
        counters.heartbeats += len(part.node)
        if self.watch is not None:
            self.watch(part)
        self._alarm(part.node, part.slot, self._starvation.update(part.node, part.slot, before, part.queue_frames,
                                                                  part.network), None)
        of_boot = part.instance == NO_INSTANCE
        if of_boot.any():
            self._booted(part.where(of_boot))
            part = part.where(~of_boot)
        row = table.rows_of(part.application, part.instance)
        own = table.note_cpu(row, part.node, part.cpu)
        if not own.all():
            counters.foreign_instance += int(np.count_nonzero(~own))
            part, row = part.where(own), row[own]
        worked = part.execution > 0
        if not worked.all():
            part, row = part.where(worked), row[worked]
        self._alarm(part.node, part.slot, self._execution.update(row, part.execution_ns), row)

    def _booted(self, part: Batch) -> None:
        boot = part.boot
        news = boot != self.boots[part.node]
        if news.any():
            again = news & (self.boots[part.node] >= 0)
            self.counters.rebooted += int(np.count_nonzero(again))
            self.reboots += zip(part.node[again].tolist(), boot[again].tolist(), strict=True)
            self.boots[part.node] = boot

    def _alarm(self, node: Index, slot: Ints, badness: Badness, row: Index | None) -> None:
        bad = np.flatnonzero(badness)
        if not len(bad):
            return
        node, slot, badness = node[bad], slot[bad], badness[bad]
        raised = np.flatnonzero(self._peace.lets_through(node, slot, badness) & self._smartnic[node]
                                & ~self._leaving[node] & ~self._waits[node])
        for i in raised.tolist():
            self._waiting.append(Alarm(int(slot[i]), int(node[i]), NEVER if row is None else int(row[bad[i]]),
                                       int(badness[i])))
        self._waits[node[raised]] = True
        self.counters.alarms += len(raised)

    def _decide(self) -> list[Move]:
        moves = []
        for _ in range(min(MOST_DECISIONS, len(self._waiting))):
            alarm = self._waiting.popleft()
            self._waits[alarm.node] = False
            self._peace.decided(alarm.node, alarm.slot)
            move = self._choose(alarm)
            if move.to == NOWHERE:
                self.counters.stays += 1
            else:
                self.counters.moves += 1
                self._leaving[alarm.node] = True
            moves.append(move)
        return moves

    def _choose(self, alarm: Alarm) -> Move:
        table, node = self.table, alarm.node
        state = table.state
        candidates = sorted((row for row in table.on_node(node) if state["movable"][row] and not state["moving"][row]),
                            key=lambda row: (-int(state["cpu"][row]), row))
        host = int(self.nodes.host[node])
        for rank, row in enumerate(candidates):
            which = "the highest CPU utilisation" if not rank else f"CPU share number {rank + 1}, as none above fits"
            if self._has_room(host, row):
                return self._move(alarm, row, host, f"{which}, to its host")
            elsewhere = self._best_elsewhere(node, row)
            if elsewhere != NOWHERE:
                kind = "another server's host" if self.nodes.host[elsewhere] == elsewhere else "another SmartNIC"
                return self._move(alarm, row, elsewhere, f"{which}, to {kind}: its own host is full")
        application, number = table.name_of(candidates[0]) if candidates else (0, NO_INSTANCE)
        why = "no node of the rack has room" if candidates else "nothing on it can move"
        return Move(alarm.slot, alarm.cause, node, application, number, NOWHERE, why, alarm.badness)

    def _move(self, alarm: Alarm, row: int, to: int, why: str) -> Move:
        """Set aside room at `to`, so that no second move takes it, and return the move."""
        self._set_aside(row, to)
        return Move(alarm.slot, alarm.cause, alarm.node, *self.table.name_of(row), to, why, alarm.badness)

    def _set_aside(self, row: int, to: int) -> None:
        table, cpu = self.table, int(self.table.state["cpu"][row])
        table.state["moving"][row] = True
        table.free_mb[to] -= table.memory_mb[row]
        table.node_cpu[to] += cpu
        self._reserved[row] = to, cpu

    def _has_room(self, node: int, row: int) -> bool:
        table = self.table
        return bool(table.free_mb[node] >= table.memory_mb[row]) and table.busy_share(node) < BUSY_LIMIT

    def _best_elsewhere(self, node: int, row: int) -> int:
        """Return the node of the rack, but for `node` and its host, that has room and the most of it."""
        nodes, table = self.nodes, self.table
        others = self._by_rack[int(nodes.rack[node])]
        others = others[(others != node) & (others != nodes.host[node])]
        others = others[(table.free_mb[others] >= table.memory_mb[row])
                        & (table.node_cpu[others] < BUSY_LIMIT * MAX_SHARE)]
        if not len(others):
            return NOWHERE
        rank = np.lexsort((others, table.node_cpu[others], nodes.host[others] != others))
        return int(others[rank[0]])
