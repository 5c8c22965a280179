"""What a resource controller shows of nodes: what each last reported, and what is believed to run there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from controller.controller_events import NodeState, ReplicaState, UnderWay
from controller.failover import Failover
from controller.heartbeats import Batch
from controller.migration_steps import Migration
from controller.orchestrator import Orchestrator
from controller.timeline import Timeline
from controller.whereabouts import Whereabouts
from nodes.control_messages import HEARTBEAT_S, MAX_SHARE


class LastReports:
    """The queue and the network share that each of `count` nodes last reported."""

    def __init__(self, count: int) -> None:
        self._queue, self._network = np.zeros(count, np.int32), np.zeros(count, np.int32)

    def note(self, part: Batch) -> None:
        self._queue[part.node], self._network[part.node] = part.queue_frames, part.network

    def states(self, names: Sequence[str], roles: Sequence[str], orchestrator: Orchestrator, where: Whereabouts,
               failover: Failover, now: float) -> tuple[NodeState, ...]:
        """Return how every node is at `now`."""
        slots, table = orchestrator.gate.last_slot, orchestrator.table
        on: dict[str, list[str]] = {name: [] for name in names}
        for key in sorted(where.node_of):
            on[where.node_of[key]].append(where.name_of(key))
        backups: dict[str, list[str]] = {name: [] for name in names}
        for g in failover.groups():
            for name in g.beside:
                backups[name].append(where.name_of(g.key))
        return tuple(NodeState(name, roles[i],
                               max(0.0, now - int(slots[i]) * HEARTBEAT_S) if slots[i] >= 0 else None,
                               int(self._queue[i]), int(self._network[i]) / MAX_SHARE, table.busy_share(i),
                               tuple(on[name]), failover.membership.life(name).name.lower(), tuple(backups[name]),
                               float(table.free_mb[i]))
                     for i, name in enumerate(names))


def under_way(m: Migration, name: str, line: Timeline | None, now: float) -> UnderWay:
    """Return how a migration of the instance called `name` stands."""
    since_s = line.at.get(m.state.value, now) if line is not None else now
    return UnderWay(m.number, name, m.source, m.destination, m.state.value, since_s,
                    tuple(sorted({node for node, _ in m.unanswered})))


def replicas_of(failover: Failover, where: Whereabouts) -> tuple[ReplicaState, ...]:
    """Return how every replicated instance stands."""
    return tuple(ReplicaState(*g.key, where.name_of(g.key), g.epoch, g.state.value, g.primary, g.backup, g.joiner)
                 for g in failover.groups())
