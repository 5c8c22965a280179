"""A host's runtime: it starts where the host's Linux stack ends, at UDP datagrams. No sockets and no clock."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address

from nodes.control_port import control_answer, counters_of, earlier
from nodes.frames import packed_ip
from nodes.ip_stack import UDP_ECHO_PORT
from nodes.node_control import Controls, NodeControl
from nodes.service_runtime import Counters, ServiceRuntime
from nodes.transport import Address, Sends
from topologies.addressing import CONTROL_PORT, DATA_PORT

Datagrams = list[tuple[tuple[str, int], int, bytes]]  # destination, our port, payload


class HostRuntime:
    """The runtime of a host: its services behind the Linux stack's UDP sockets."""

    def __init__(self, services: ServiceRuntime) -> None:
        self.services = services
        self._refused = 0
        self.unsent = 0  # datagrams that the driver could not send
        self.control: NodeControl | None = None  # None: no controller to report to
        self.driver_counters: Callable[[], Counters] = dict

    def receive(self, source: tuple[str, int], port: int, payload: bytes, now: float, out: Datagrams) -> None:
        """Take the datagram that `source` sent at `now` to our UDP `port`; append what must be sent to `out`."""
        if port == DATA_PORT:
            sends: Sends = []
            self.services.receive(Address(packed_ip(source[0]), source[1]), payload, now, sends)
            self._to_sockets(sends, out)
        elif port == UDP_ECHO_PORT:
            if source[1] != UDP_ECHO_PORT:  # two echo ports would talk for ever
                out.append((source, port, payload))
        else:
            told: Controls = []
            answer = control_answer(payload, packed_ip(source[0]), self.counters, self.services, self.control, now,
                                     told)
            if answer is None:
                self._refused += 1
            elif answer:
                out.append((source, port, answer))
            self._tell(told, out)

    def work(self, now: float, out: Datagrams) -> None:
        if self.control is not None and now >= self.control.at:
            told: Controls = []
            self.control.work(now, told)
            self._tell(told, out)
        sends: Sends = []
        self.services.work(now, sends)
        self._to_sockets(sends, out)

    def due(self) -> float | None:
        later = self.services.due()
        return later if self.control is None else earlier(later, self.control.at)

    def counters(self) -> Counters:
        return {"dropped_refused": self._refused, "dropped_unsent": self.unsent, **counters_of(self.control),
                **self.services.counters(), **self.driver_counters()}

    def _tell(self, told: Controls, out: Datagrams) -> None:
        for ip, data in told:
            out.append(((str(IPv4Address(ip)), CONTROL_PORT), CONTROL_PORT, data))

    def _to_sockets(self, sends: Sends, out: Datagrams) -> None:
        for ip, port, data in sends:
            out.append(((str(IPv4Address(ip)), port), DATA_PORT, data))
