"""Counters of a compute node -> the heartbeat that its agent sends every 50 ms of emulated time.

A heartbeat has room for one instance, so instances take turns: of those that finished requests since their last turn,
the next one after the last reported, by (application, number). One that has fallen idle gets one more turn, so that the
controller learns that it takes no core time any more, and is then passed over. Its execution time is the mean, and its
CPU share the share, since its last turn: nothing falls between two turns. With 30 busy instances each is heard of every
1.5 s. In the first heartbeats after the start, then once a second, and where there is no instance, the turn goes to
the node's boot number.

A host reports likewise: its queue is what waits in its instances' inboxes, its network that of all its ports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nodes.control_messages import NO_INSTANCE, SLOTS, Heartbeat, float_code, share_code, slot_of_time
from nodes.errors import NodeError

BOOT_EVERY = 20  # slots between two turns of the boot number
BOOT_FIRST = 3  # turns that it has at the start


@dataclass(frozen=True, slots=True)
class InstanceLoad:
    """Cumulative: requests finished, their execution time (from arrival in the inbox to the finish) and core time.

    Execution time includes the wait for a core: of requests that run to completion, that is what grows when too many
    microservices share a SmartNIC.
    """

    finished: int
    executed_ns: int
    busy_ns: int


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """What a node's runtime counts; all but `queue_least_frames` cumulative since its start.

    `queue_least_frames` is the shortest that the traffic manager's queue was since the last heartbeat: the part that
    stands. `instances` are by (application, number).
    """

    queue_least_frames: int
    transmitted_bytes: int
    received_bytes: int
    instances: Mapping[tuple[int, int], InstanceLoad]


_NOTHING = InstanceLoad(0, 0, 0)


class LoadReporter:
    """Makes the heartbeats of a node of `cores` cores and ports of `port_gbps` in all, in its run number `boot`."""

    def __init__(self, cores: int, port_gbps: float, boot: int, now_s: float) -> None:
        if cores < 1 or port_gbps <= 0:
            raise NodeError(f"{cores} cores and {port_gbps} Gb/s; the least are 1, and above 0")
        self._cores = cores
        self._port_gbps = port_gbps
        self._boot = boot & 0xFFFFFFFF
        self._reported_s = now_s
        self._bytes = (0, 0)
        self._turn = (-1, -1)  # the instance that was reported last
        self._last: dict[tuple[int, int], tuple[float, InstanceLoad]] = {}  # when and what each instance last reported
        self._busy: set[tuple[int, int]] = set()  # those whose last report was of some work
        self._count = 0

    def heartbeat(self, load: NodeLoad, now_s: float) -> Heartbeat:
        """Return the heartbeat of `now_s`; raises NodeError if time has not gone on since the last one."""
        period_s = now_s - self._reported_s
        if period_s <= 0:
            raise NodeError(f"a heartbeat {period_s} s after the last; it must be above 0")
        sent, came = load.transmitted_bytes, load.received_bytes
        full = self._port_gbps * 1e9 / 8 * period_s
        network = share_code((sent - self._bytes[0]) / full), share_code((came - self._bytes[1]) / full)
        self._reported_s, self._bytes = now_s, (sent, came)
        for gone in self._last.keys() - load.instances.keys():
            del self._last[gone]
            self._busy.discard(gone)
        for come in load.instances.keys() - self._last.keys():
            self._last[come] = (now_s - period_s, _NOTHING)
        application, instance, execution, cpu = self._whose_turn(load, now_s)
        return Heartbeat(slot_of_time(now_s) % SLOTS, application, instance, execution,
                         float_code(load.queue_least_frames, 4, 8), *network, cpu)

    def _whose_turn(self, load: NodeLoad, now_s: float) -> tuple[int, int, int, int]:
        count, self._count = self._count, self._count + 1
        waiting = [key for key, now in load.instances.items()
                   if key in self._busy or now.finished != self._last[key][1].finished]
        if not waiting or count < BOOT_FIRST or count % BOOT_EVERY == 0:
            return self._boot & 0xFFFF, NO_INSTANCE, self._boot >> 16, 0
        key = min((k for k in waiting if k > self._turn), default=min(waiting))
        self._turn = key
        return (*key, *self._since_last_turn(key, load.instances[key], now_s))

    def _since_last_turn(self, key: tuple[int, int], now: InstanceLoad, now_s: float) -> tuple[int, int]:
        """Return the codes of an instance's mean execution time and CPU share since its last turn."""
        then_s, then = self._last[key]
        if now.finished < then.finished:  # it left and came back with counters that begin anew
            then = _NOTHING
        self._last[key] = (now_s, now)
        finished = now.finished - then.finished
        if finished:
            self._busy.add(key)
        else:
            self._busy.discard(key)
        mean_ns = (now.executed_ns - then.executed_ns) // finished if finished else 0
        share = (now.busy_ns - then.busy_ns) / ((now_s - then_s) * 1e9 * self._cores)
        return float_code(mean_ns, 11, 16), share_code(share)
