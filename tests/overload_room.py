"""A rack of two hosts and their SmartNICs that an orchestrator hears, one heartbeat at a time."""


from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from controller.load_table import NOWHERE, NodeTable, PlacedInstance
from controller.orchestrator import Move, Orchestrator
from controller.overload import OverloadOptions
from nodes.control_messages import HEARTBEAT_S, NO_INSTANCE, Heartbeat, float_code

FAST = OverloadOptions()
SERVERS, PER_RACK, NICS = 4, 2, 2  # node 0 host, 1 and 2 its SmartNICs, 3 the next host, ...


def room(memory_mb: float = 1000.0) -> NodeTable:
    count = SERVERS * (1 + NICS)
    index = np.arange(count, dtype=np.int32)
    host = index // (1 + NICS) * (1 + NICS)
    return NodeTable((10 << 24 | index + 1).astype(np.uint32), host, host // ((1 + NICS) * PER_RACK),
                     np.full(count, memory_mb))


@dataclass
class Rack:
    """An orchestrator and what feeds it, one heartbeat at a time."""

    instances: list[PlacedInstance]
    options: OverloadOptions = FAST
    memory_mb: float = 1000.0
    slot: int = 100
    moves: list[Move] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.orchestrator = Orchestrator(room(self.memory_mb), self.instances, self.options)

    def beat(self, node: int, instance: int = NO_INSTANCE, application: int = 1, us: float = 0, queue: int = 0,
             network: float = 0.0, cpu: float = 0.0) -> list[Move]:
        share = round(network * 255)
        data = Heartbeat(self.slot % 65536, application, instance, float_code(int(us * 1000), 11, 16),
                         float_code(queue, 4, 8), share, share // 2, round(cpu * 255)).encode()
        made = self.orchestrator.take(np.array([10 << 24 | node + 1], dtype=np.uint32), data, self.slot * HEARTBEAT_S)
        self.moves += made
        return made

    def starve(self, node: int, beats: int, queue: int = 100, network: float = 0.1) -> None:
        for _ in range(beats):
            self.slot += 1
            self.beat(node, queue=queue, network=network)

    def carry_out(self) -> None:
        """Let every migration that is under way succeed."""
        table = self.orchestrator.table
        for move in self.moves:
            if move.to != NOWHERE and table.state["moving"][table.row_of(1, move.number)]:
                self.orchestrator.arrived(1, move.number, move.to)

    def reported(self, node: int, *cpus: float) -> Rack:
        """Let `node` report CPU shares of its instances 0, 1, ... of application 1."""
        for number, cpu in enumerate(cpus):
            self.slot += 1
            self.beat(node, number, us=10, cpu=cpu)
        return self


def placed(*nodes: int, memory_mb: float = 100.0, movable: bool = True) -> list[PlacedInstance]:
    return [PlacedInstance(1, number, node, memory_mb, movable) for number, node in enumerate(nodes)]


# -- the plain reference ---------------------------------------------------------------------------------------------
