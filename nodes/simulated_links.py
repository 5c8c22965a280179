"""Links and traffic managers in virtual time, with the rates, bursts and queues of the emulated ones.

What differs from packets: a token bucket is known by the time at which it is full again, so that its queue counts as
full within a frame of when the kernel's does; ARP, LACP and questions for counters take no part; and the hashes that
spread flows are other ones than the switch's and the kernel's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from nodes.agenda import Agenda
from nodes.frames import ETHERNET_BYTES, IPV4_BYTES, UDP_BYTES
from nodes.pace import Pace
from nodes.shaping import WIRE_OVERHEAD_BYTES, bucket_of
from nodes.traffic_manager import DEFAULT_CAPACITY_FRAMES, FrameClock, TrafficManager
from nodes.transport import Address

HEADERS_BYTES = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES


@dataclass(frozen=True, slots=True)
class Calibration:
    """What paces a simulated machine room, by node: as the agents, the links and the clients of a testbed are told.

    `paces` and `cores` are of hosts and SmartNICs, `ways` the one-way times to a client from every other node, by
    packed IP. `time_scale` is that of the testbed that is simulated: the bursts of its links depend on it.
    """

    paces: Mapping[str, Pace]
    cores: Mapping[str, int]
    ways: Mapping[str, Mapping[bytes, float]] = field(default_factory=dict)
    time_scale: float = 1.0
    queue_frames: int = DEFAULT_CAPACITY_FRAMES


class Link:
    """One direction of a link: a token bucket with a finite queue, as nodes.shaping has the kernel make it."""

    __slots__ = ("_burst_s", "_byte_s", "_full_at", "_overhead_bytes", "_queue_s", "bytes", "dropped", "frames", "name")

    def __init__(self, name: str, gbps: float, time_scale: float, ethernet: bool = True) -> None:
        bucket = bucket_of(gbps, time_scale)
        self.name = name
        self.frames = self.bytes = self.dropped = 0
        self._byte_s = 8 / (gbps * 1e9)
        self._burst_s = bucket.burst_bytes * self._byte_s
        self._queue_s = bucket.queue_bytes * self._byte_s
        self._overhead_bytes = WIRE_OVERHEAD_BYTES if ethernet else 0
        self._full_at = 0.0  # when the bucket is full of tokens again

    def leaves(self, now: float, frame_bytes: int) -> float | None:
        """Return when a frame that comes at `now` has left; None if the queue is full. Call it in order of time."""
        size = frame_bytes + self._overhead_bytes
        took_s = size * self._byte_s
        full_at = self._full_at
        leaves = full_at + took_s - self._burst_s
        if leaves < now:
            leaves = now
        elif leaves - now > self._queue_s:
            self.dropped += 1
            return None
        self._full_at = (full_at if full_at > leaves else leaves) + took_s
        self.frames += 1
        self.bytes += size
        return leaves


class Passage(NamedTuple):
    """A frame's way through a SmartNIC: a hop between the links before and after it."""

    nic: NicQueue
    ingress: int
    egress: int


Hop = Link | Passage


class Flying:
    """A datagram under way, as the frame that carries it. `way` yields the hops that are left."""

    __slots__ = ("data", "passage", "size", "source", "to", "way")

    def __init__(self, way: Iterator[Hop], source: Address, to: Address, data: bytes) -> None:
        self.way = way
        self.source = source
        self.to = to
        self.data = data
        self.size = HEADERS_BYTES + len(data)
        self.passage: Passage | None = None  # through the SmartNIC that it is in

    def __len__(self) -> int:
        return self.size


class NicQueue:
    """The traffic manager of a SmartNIC, and its agent's time on each frame."""

    def __init__(self, agenda: Agenda, forward_s: float, interference: Callable[[], float], capacity: int,
                 onward: Callable[[Flying], None]) -> None:
        self.traffic: TrafficManager[Flying] = TrafficManager(capacity)
        self.forwarded = [0, 0, 0]  # to the network, to the host, to the SmartNIC itself
        self._agenda = agenda
        self._clock = FrameClock(forward_s, interference) if forward_s else None
        self._onward = onward
        self._alarm: float | None = None

    def take_in(self, frame: Flying, passage: Passage) -> None:
        """Queue `frame`, if there is room."""
        frame.passage = passage
        self.look()
        if self.traffic.offer(passage.ingress, frame):
            if self._clock is None:
                self.look()
            elif self._alarm is None:
                self._set_alarm()

    def look(self) -> None:
        """Send on what is through by now. To be called whenever the interference may have changed."""
        traffic = self.traffic
        queued = len(traffic)
        through = queued if self._clock is None else self._clock.through_by(self._agenda.now, queued, queued)
        for _ in range(through):
            _, frame = traffic.take()
            assert frame.passage is not None
            self.forwarded[frame.passage.egress] += 1
            self._onward(frame)
        traffic.note_least()
        if through == queued:
            self._alarm = None
        else:
            self._set_alarm()

    def _set_alarm(self) -> None:
        assert self._clock is not None
        now, due = self._agenda.now, self._clock.due()
        if due <= now:  # by rounding only, where time has come so far that its digits are short of a frame
            due = now + self._clock.frame_s() / 2
        if self._alarm is None or not now < self._alarm <= due:  # one that is early finds nothing and is set anew
            self._alarm = due
            self._agenda.at(due, self._ring, due)

    def _ring(self, due: float) -> None:
        if self._alarm == due:
            self._alarm = None
            self.look()

    def counters(self) -> dict[str, int]:
        """Return the counters that a SmartNIC's agent has beside those of its services."""
        queue = self.traffic.counters()
        return {"queue_depth": queue.depth, "queue_deepest": queue.deepest, "queue_enqueued": queue.enqueued,
                "queue_dropped": queue.dropped, "queue_bytes": queue.bytes, "to_network": self.forwarded[0],
                "to_host": self.forwarded[1], "to_local": self.forwarded[2]}
