"""Reads many heartbeats at once, and admits those that are what they claim to be.

A heartbeat names no node: its source address does. What keeps a forged one out, layer by layer:

    the ToR       no frame enters by a port with a source address that does not stand behind it; clients do not reach
                  the control port at all (tor_rules.py)
    here          a source that is no compute node's; a slot that is over for more than a second, or has not begun; a
                  slot that its node has reported already; an instance that does not run on its node (load_table.py)

There is no room for a keyed digest in 16 bytes, and none that fits would be worth having. So a node that has been
taken over can lie about itself, and about itself only: what it gains is that its own microservices move.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from controller.errors import HeartbeatError
from nodes.control_messages import (
    HEARTBEAT_BYTES,
    HEARTBEAT_FIELDS,
    KIND_HEARTBEAT,
    float_value,
    slot_of_time,
)
from nodes.wire import MAGIC, VERSION

Array = npt.NDArray[np.integer[Any]]
Ints = npt.NDArray[np.int32]
Index = npt.NDArray[np.intp]  # numpy is twice as fast with indices of this type as with others
Bools = npt.NDArray[np.bool_]

MOST_LATE_SLOTS = 20  # ours: a second; older news is of no use to a decision, and is how a replay would look
WIRE = np.dtype([("header", np.uint32), *((f.name, {"H": ">u2", "B": "u1"}[f.code]) for f in HEARTBEAT_FIELDS)])
_HEADER = int.from_bytes(MAGIC.to_bytes(2, "big") + bytes((VERSION, KIND_HEARTBEAT)), sys.byteorder)
_IN_NETWORK_ORDER = ("application", "instance", "execution")
_QUEUE = np.array([float_value(code, 4) for code in range(1 << 8)], dtype=np.int32)
_EXECUTION = np.array([float_value(code, 11) for code in range(1 << 16)], dtype=np.int64)
assert WIRE.itemsize == HEARTBEAT_BYTES


class Batch(NamedTuple):
    """Heartbeats column by column: `node` is an index into the node table, `execution` still a code.

    `network` is the greater of the two directions, in 1/255 of the port's rate, and `cpu` in 1/255 of the node's cores.
    """

    node: Index
    slot: Ints
    application: Array
    instance: Array
    execution: Array
    queue_frames: Ints
    network: Array
    cpu: Array

    @property
    def execution_ns(self) -> npt.NDArray[np.int64]:
        return _EXECUTION[self.execution]

    @property
    def boot(self) -> npt.NDArray[np.int64]:
        """What a heartbeat without an instance tells in its place."""
        return self.execution.astype(np.int64) << 16 | self.application

    def where(self, mask: Bools) -> Batch:
        return Batch(*(column[mask] for column in self))  # type: ignore[arg-type]


class Directory:
    """Which compute node stands at which address of 10.0.0.0/8; raises HeartbeatError for another."""

    def __init__(self, ips: npt.NDArray[np.uint32]) -> None:
        if np.any(ips >> np.uint32(24) != 10):
            raise HeartbeatError("a compute node outside 10.0.0.0/8")
        self._index = np.zeros(1 << 24, dtype=np.int32)  # one page of it per neighbourhood in use
        self._index[ips & 0xFFFFFF] = np.arange(1, len(ips) + 1, dtype=np.int32)
        if len(np.unique(ips)) != len(ips):
            raise HeartbeatError(f"{len(ips)} compute nodes at {len(np.unique(ips))} addresses")

    def nodes_at(self, sources: npt.NDArray[np.uint32]) -> Index:
        """Return the index of the node at each address; -1 where there is none."""
        found: Index = self._index[(sources & 0xFFFFFF).astype(np.intp)].astype(np.intp) - 1
        found[sources >> np.uint32(24) != 10] = -1
        return found


class HeartbeatInbox:
    """Heartbeats that wait to be judged together. `since` is when the oldest came in, None while there is none."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._sources, self._data = array("I"), bytearray()

    def __len__(self) -> int:
        return len(self._sources)

    def add(self, source_ip: bytes, payload: bytes, now: float) -> None:
        self._sources.append(int.from_bytes(source_ip, "big"))
        self._data += payload
        if self.since is None:
            self.since = now

    def take(self) -> tuple[npt.NDArray[np.uint32], bytes]:
        """Return what `Gate.admit` takes, and keep nothing."""
        sources, data = np.frombuffer(self._sources, dtype=np.uint32), bytes(self._data)
        self._sources, self._data, self.since = array("I"), bytearray(), None
        return sources, data


@dataclass(slots=True)
class Refused:
    """Heartbeats that were not believed, by reason."""

    malformed: int = 0
    unknown_source: int = 0
    late: int = 0  # by more than MOST_LATE_SLOTS: a replay, or a clock that is wrong
    ahead: int = 0
    repeated: int = 0  # this slot of this node, or a later one, has been here


class Gate:
    """Lets each node's heartbeats in once and in order, and knows which slot it reported last."""

    def __init__(self, ips: npt.NDArray[np.uint32]) -> None:
        self._directory = Directory(ips)
        self.last_slot = np.full(len(ips), -1, dtype=np.int32)
        self.refused = Refused()
        self._mark = np.zeros(len(ips), dtype=np.int32)

    def admit(self, sources: npt.NDArray[np.uint32], data: bytes | memoryview,
              now_s: float) -> Iterator[tuple[Batch, Ints]]:
        """Decode `data`, 16 bytes for each of `sources`, received at `now_s`; yield in order what is believed.

        Each batch comes with the slots that its nodes reported before. No node is twice in a batch, so there are as
        many as one node has heartbeats in `data`, nearly always one. Raises HeartbeatError where
        data and sources do not belong together.
        """
        if len(data) != HEARTBEAT_BYTES * len(sources):
            raise HeartbeatError(f"{len(data)} bytes for {len(sources)} heartbeats of {HEARTBEAT_BYTES}")
        wire = np.frombuffer(data, dtype=WIRE)
        refused, nodes = self.refused, self._directory.nodes_at(sources)
        good = wire["header"] == _HEADER
        refused.malformed += int(np.count_nonzero(~good))
        known = nodes >= 0
        refused.unknown_source += int(np.count_nonzero(good & ~known))
        here = slot_of_time(now_s)
        late = (np.uint16(here & 0xFFFF) - wire["slot"]).astype(np.int16).astype(np.int32)  # modulo 65536, signed
        refused.late += int(np.count_nonzero(good & known & (late > MOST_LATE_SLOTS)))
        refused.ahead += int(np.count_nonzero(good & known & (late < -1)))
        good &= known & (late <= MOST_LATE_SLOTS) & (late >= -1)
        if not good.all():
            wire, nodes, late = wire[good], nodes[good], late[good]
        application, instance, execution = (wire[name].astype(np.uint16) for name in _IN_NETWORK_ORDER)
        whole = Batch(nodes, np.int32(here) - late, application, instance, execution, _QUEUE[wire["queue"]],
                      np.maximum(wire["transmitted"], wire["received"]), wire["cpu"])
        for part in self._in_turns(whole):
            fresh = self._fresh(part)
            before = self.last_slot[fresh.node]
            self.last_slot[fresh.node] = fresh.slot
            yield fresh, before

    def _in_turns(self, whole: Batch) -> list[Batch]:
        """Cut a batch so that no node is twice in a part."""
        parts = []
        while len(whole.node):
            order = np.arange(len(whole.node), dtype=np.int32)
            self._mark[whole.node[::-1]] = order[::-1]  # of equal indices the last is written: the first in the batch
            first = self._mark[whole.node] == order
            if first.all():
                parts.append(whole)
                break
            parts.append(whole.where(first))
            whole = whole.where(~first)
        return parts

    def _fresh(self, part: Batch) -> Batch:
        fresh = part.slot > self.last_slot[part.node]
        if not fresh.all():
            self.refused.repeated += int(np.count_nonzero(~fresh))
            part = part.where(fresh)
        return part
