"""A SmartNIC's runtime: frames in, frames out, no sockets and no clock.

It owns both wires of the SmartNIC: a frame is queued by the traffic manager, forwarded by destination IP, and, if it
is for this SmartNIC, goes through the node's own stack to its microservices.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from nodes import frames
from nodes.control_port import control_answer, counters_of, earlier
from nodes.errors import WireError
from nodes.forwarding import Forwarding, Port
from nodes.frames import packed_ip, packed_mac
from nodes.ip_stack import IpStack
from nodes.lacpdu import out_of_sync
from nodes.node_control import Controls, NodeControl
from nodes.service_runtime import Counters, ServiceRuntime
from nodes.traffic_manager import DEFAULT_CAPACITY_FRAMES, FrameClock, TrafficManager
from nodes.transport import Address, Sends
from topologies.addressing import CONTROL_PORT, DATA_PORT

Frames = list[tuple[int, bytes]]


class SmartNicRuntime:
    """The agent of one SmartNIC. Feed it with `receive`, let it work with `run`, call `tick` now and then."""

    def __init__(self, ip: str, mac: str, gateway: str, host_ip: str, services: ServiceRuntime,
                 queue_frames: int = DEFAULT_CAPACITY_FRAMES, loses: Callable[[], bool] | None = None,
                 forward_s: float = 0.0) -> None:
        self.traffic: TrafficManager[bytes] = TrafficManager(queue_frames)
        self._urgent: list[tuple[int, bytes]] = []  # the links' own protocols, which no queue holds up
        execution = services.execution
        self._frame_clock = FrameClock(forward_s, lambda: execution.interference) if forward_s else None
        # Queue a frame that came in from Port.NETWORK or Port.HOST; return False if it was dropped.
        self.receive: Callable[[int, bytes], bool] = self._receive_urgent if forward_s else self.traffic.offer
        self.stack = IpStack(packed_ip(ip), packed_mac(mac), packed_ip(gateway), packed_ip(host_ip))
        self._forwarding = Forwarding(self.stack.ip, self.stack.host_ip)
        self.services = services
        self._loses = loses
        self._forwarded = [0, 0, 0]  # to the network, to the host, to ourselves
        self._misrouted = 0  # IPv4 that no table entry lets through
        self._truncated = 0
        self._foreign = 0  # neither IPv4, ARP nor a slow protocol
        self._refused = 0  # control datagrams that are no question
        self._lost = 0  # frames dropped on purpose, to try the channels
        self.unsent = 0  # frames that the driver could not send
        self.control: NodeControl | None = None  # None: no controller to report to
        self.driver_counters: Callable[[], Counters] = dict
        self._switch_said = b""  # its last LACPDU for the host

    def _receive_urgent(self, ingress: int, frame: bytes) -> bool:
        """Queue a frame where frames wait; without a time per frame each `run` is through with all that there are."""
        if frame[12:14] == frames.ETHERTYPE_SLOW:
            self._urgent.append((ingress, frame))
            return True
        return self.traffic.offer(ingress, frame)

    def run(self, budget: int, now: float, out: Frames) -> int:
        """Work off up to `budget` queued frames at `now`, append what must be sent to `out`; return how many."""
        if self._urgent:
            for ingress, frame in self._urgent:  # in order: of two LACPDUs the later one is what its sender is now
                self._not_ipv4(ingress, frame, out)
            self._urgent.clear()
        traffic = self.traffic
        waiting = min(budget, len(traffic))
        if self._frame_clock is not None:
            waiting = self._frame_clock.through_by(now, waiting, len(traffic))
        egress, own, drop, take = self._forwarding.egress, Port.LOCAL, Port.DROP, traffic.take
        forwarded, local, loses = self._forwarded, self._local, self._loses
        ipv4, least = frames.ETHERTYPE_IPV4, frames.MIN_IPV4_FRAME
        for _ in range(waiting):
            ingress, frame = take()
            if loses is not None and frame[12:14] == ipv4 and loses():
                self._lost += 1
                continue
            if frame[12:14] == ipv4 and len(frame) >= least:
                to = egress(ingress, frame[30:34])
                if to is own:
                    forwarded[2] += 1
                    local(frame, now, out)
                elif to is drop:
                    self._misrouted += 1
                else:
                    forwarded[to] += 1
                    out.append((to, frame))
            else:
                self._not_ipv4(ingress, frame, out)
        if self.control is not None and now >= self.control.at:
            told: Controls = []
            self.control.work(now, told)
            self._tell(told, out)
        if self.services.awake:
            sends: Sends = []
            self.services.work(now, sends)
            self._to_wire(sends, out)
        traffic.note_least()
        return waiting

    def due(self) -> float | None:
        """Return when `run` has something to do although no frame comes in."""
        later = self.services.due()
        if self._frame_clock is not None and len(self.traffic):
            forwarded = self._frame_clock.due()
            later = forwarded if later is None else min(forwarded, later)
        return later if self.control is None else earlier(later, self.control.at)

    @property
    def awake(self) -> bool:
        """Whether there is, or may soon be, something to do although no frame comes in."""
        return (self.services.awake or self.control is not None
                or (self._frame_clock is not None and len(self.traffic) > 0))

    def tick(self, now: float, out: Frames) -> None:
        """Do what is due now and then: keep the gateway's address fresh."""
        self.stack.tick(now, out)

    def lost_network(self, out: Frames) -> None:
        """Tell the host at once that our port to the ToR lost carrier: its PCIe link keeps its own."""
        if self._switch_said:
            with suppress(WireError):
                out.append((Port.HOST, out_of_sync(self._switch_said)))
            self._switch_said = b""

    def counters(self) -> Counters:
        """Return every counter of this node by name."""
        queue = self.traffic.counters()
        return {
            **{f"queue_{name}": value for name, value in asdict(queue).items()},
            "to_network": self._forwarded[Port.NETWORK],
            "to_host": self._forwarded[Port.HOST],
            "to_local": self._forwarded[Port.LOCAL],
            "dropped_misrouted": self._misrouted,
            "dropped_truncated": self._truncated,
            "dropped_foreign": self._foreign,
            "dropped_by_stack": self.stack.refused,
            "dropped_refused": self._refused,
            "dropped_on_purpose": self._lost,
            "dropped_unsent": self.unsent,
            **counters_of(self.control),
            **self.services.counters(),
            **self.driver_counters(),
        }

    def _local(self, frame: bytes, now: float, out: Frames) -> None:
        datagram = self.stack.receive(frame, out)
        if datagram is None:
            return
        if datagram.port == DATA_PORT:
            sends: Sends = []
            self.services.receive(Address(datagram.source, datagram.source_port), datagram.payload, now, sends)
            self._to_wire(sends, out)
        elif datagram.port == CONTROL_PORT:
            told: Controls = []
            answer = control_answer(datagram.payload, datagram.source, self.counters, self.services, self.control,
                                     now, told)
            if answer is None:
                self._refused += 1
            elif answer:
                self.stack.send_udp(datagram.source, CONTROL_PORT, datagram.source_port, answer, out)
            self._tell(told, out)
        else:
            self.stack.refused += 1

    def _tell(self, told: Controls, out: Frames) -> None:
        for ip, data in told:
            self.stack.send_udp(ip, CONTROL_PORT, CONTROL_PORT, data, out)

    def _to_wire(self, sends: Sends, out: Frames) -> None:
        for ip, port, data in sends:
            self.stack.send_udp(ip, DATA_PORT, port, data, out)

    def _not_ipv4(self, ingress: int, frame: bytes, out: Frames) -> None:
        kind = frame[12:14]
        other = Port.HOST if ingress == Port.NETWORK else Port.NETWORK
        if len(frame) < frames.ETHERNET_BYTES or kind == frames.ETHERTYPE_IPV4:
            self._truncated += 1
        elif kind == frames.ETHERTYPE_SLOW:
            if ingress == Port.NETWORK:
                self._switch_said = frame
            out.append((other, frame))  # LACP is between the host's team and the ToR
        elif kind == frames.ETHERTYPE_ARP:
            try:
                arp = frames.parse_arp(frame)
            except WireError:
                self._truncated += 1
                return
            if arp.target_ip == self.stack.ip:
                self.stack.receive_arp(ingress, arp, out)
            else:
                out.append((other, frame))
        else:
            self._foreign += 1
