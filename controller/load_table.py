"""What the orchestrator knows of every compute node and instance, as columns of numbers.

A heartbeat touches one row of each table, whichever that is, so the work per heartbeat does not grow with the number
of nodes or of deployed microservices; memory does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.errors import HeartbeatError
from controller.heartbeats import Array, Bools, Index, Ints
from nodes.control_messages import MAX_SHARE

NOWHERE = -1


@dataclass(frozen=True)
class NodeTable:
    """Every compute node. `host` is the index of its server's host (its own for a host), `rack` any number."""

    ips: npt.NDArray[np.uint32]
    host: Ints
    rack: Ints
    memory_mb: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        sizes = {len(column) for column in (self.ips, self.host, self.rack, self.memory_mb)}
        if len(sizes) != 1 or not np.array_equal(self.host[self.host], self.host):
            raise HeartbeatError(f"columns of {sorted(sizes)} nodes; they must be as long, and a host its own host")

    def __len__(self) -> int:
        return len(self.ips)

    @property
    def is_host(self) -> npt.NDArray[np.bool_]:
        return self.host == np.arange(len(self))


class PlacedInstance(NamedTuple):
    """One instance, with what it needs and where it is; `movable` is false for one that is pinned."""

    application: int
    number: int
    node: int
    memory_mb: float
    movable: bool = True


# A record per instance and not a column per property, so that what a report needs is one cache line.
_INSTANCE = np.dtype([("owner", np.int32), ("cpu", np.uint8), ("movable", np.bool_), ("moving", np.bool_),
                      ("rest", np.uint8)])


class LoadTable:
    """Where instances are and what they take.

    An instance's row is that of the first of its application plus its number: found in the same time whatever is
    deployed. Rows of numbers that are not placed stay empty.
    """

    def __init__(self, nodes: NodeTable, instances: Iterable[PlacedInstance]) -> None:
        rows = sorted(instances)
        self._load(nodes, *(np.array(column) for column in zip(*rows, strict=True))) if rows else self._load(
            nodes, *(np.zeros(0, dtype=np.int64),) * 5)

    def _load(self, nodes: NodeTable, application: Array, number: Array, node: Array, memory_mb: Array,
              movable: Array) -> None:
        """Take instances column by column, in order of (application, number)."""
        keys = application.astype(np.int64) << 16 | number.astype(np.int64)
        if np.any(keys[1:] <= keys[:-1]):
            raise HeartbeatError("an instance that is placed twice")
        if len(node) and not 0 <= node.min() <= node.max() < len(nodes):
            raise HeartbeatError(f"an instance on node {node.max()}; there are {len(nodes)}")
        self.nodes = nodes
        last = np.full(1 << 16, -1, dtype=np.int64)
        last[application] = number  # of equal indices the last is written: the highest number of an application
        self._first = np.concatenate(([0], np.cumsum(last + 1))).astype(np.int32)
        row = self._first[application] + number.astype(np.int32)
        self.state = np.zeros(int(self._first[-1]), dtype=_INSTANCE)
        self.state["owner"] = NOWHERE
        self.state["owner"][row], self.state["movable"][row] = node, movable
        self.memory_mb = np.zeros(len(self.state))
        self.memory_mb[row] = memory_mb
        self.node_cpu = np.zeros(len(nodes), dtype=np.int32)  # of the instances on each node, in 1/255
        self.free_mb = nodes.memory_mb - np.bincount(node.astype(np.int64), memory_mb, len(nodes))
        self._head, self._next = _chains(self.state["owner"], len(nodes))

    @classmethod
    def of_columns(cls, nodes: NodeTable, application: Array, number: Array, node: Array,
                   memory_mb: float) -> LoadTable:
        """Make a large table from columns, in order of (application, number), all movable and of one size."""
        made = cls.__new__(cls)
        made._load(nodes, application, number, node, np.full(len(node), memory_mb), np.ones(len(node), dtype=bool))
        return made

    def rows_of(self, application: Array, number: Array) -> Index:
        """Return the row of each instance; NOWHERE for a number that no instance of the application has."""
        place = application.astype(np.intp)
        row: Ints = self._first[place] + number
        return np.where(row < self._first[place + 1], row, NOWHERE).astype(np.intp)

    def row_of(self, application: int, number: int) -> int:
        """Return an instance's row; raises HeartbeatError for one that is not deployed."""
        row = int(self.rows_of(np.array([application]), np.array([number]))[0])
        if row == NOWHERE or self.state["owner"][row] == NOWHERE:
            raise HeartbeatError(f"no instance {application}/{number} is deployed")
        return row

    def name_of(self, row: int) -> tuple[int, int]:
        """Return the (application, number) of a row."""
        application = int(self._first.searchsorted(np.int32(row), side="right")) - 1
        return application, row - int(self._first[application])

    def on_node(self, node: int) -> Iterator[int]:
        """Yield the rows of the instances on a node."""
        row = int(self._head[node])
        while row >= 0:
            yield row
            row = int(self._next[row])

    def note_cpu(self, row: Index, node: Index, cpu: Array) -> Bools:
        """Take reports of CPU shares, no node twice; return which are of instances that run where they come from."""
        if not len(self.state):
            return np.zeros(len(row), dtype=np.bool_)
        state = self.state[row]  # NOWHERE finds the last one, which is then another's
        own = (row != NOWHERE) & (state["owner"] == node)
        if not own.all():
            row, node, cpu, state = row[own], node[own], cpu[own], state[own]
        self.node_cpu[node] += cpu.astype(np.int32) - state["cpu"]
        state["cpu"] = cpu
        self.state[row] = state
        return own

    def busy_share(self, node: int) -> float:
        """Return how much of a node's core time its instances take, of 0 to 1 (and a little more, by rounding)."""
        return float(self.node_cpu[node]) / MAX_SHARE

    def hold(self, node: int, memory_mb: float) -> None:
        """Take so much of a node's memory for what is no instance of this table; give it back if that is negative."""
        self.free_mb[node] -= memory_mb

    def move(self, row: int, to: int) -> None:
        """Note that an instance stands at another node. What it takes there is not known before it reports."""
        old = int(self.state["owner"][row])
        before, here = NOWHERE, int(self._head[old])
        while here != row:
            before, here = here, int(self._next[here])
        if before == NOWHERE:
            self._head[old] = self._next[row]
        else:
            self._next[before] = self._next[row]
        self._next[row], self._head[to] = self._head[to], row
        self.state["owner"][row] = to
        self.free_mb[old] += self.memory_mb[row]
        self.free_mb[to] -= self.memory_mb[row]
        self.node_cpu[old] -= self.state["cpu"][row]
        self.state["cpu"][row] = 0


def _chains(owner: Ints, nodes: int) -> tuple[Ints, Ints]:
    """Return the first instance of each node, and the next of each instance on the same node; NOWHERE for none."""
    head, following = np.full(nodes, NOWHERE, dtype=np.int32), np.full(len(owner), NOWHERE, dtype=np.int32)
    order = np.argsort(owner, kind="stable")[::-1].astype(np.int32)
    order = order[owner[order] != NOWHERE]
    same = owner[order[1:]] == owner[order[:-1]]
    following[order[1:][same]] = order[:-1][same]
    head[owner[order]] = order  # the last written is the first in order
    return head, following
