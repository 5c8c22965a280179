"""A SmartNIC's own small network stack: ARP, IPv4, UDP and ICMP echo for one address.

It stands in for the user-level stack of section 3.1. Pure: frames in, frames and datagrams out. Everything
leaves through the gateway or, for the host's address, over PCIe; so the gateway is the one neighbour to find.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from nodes import frames
from nodes.errors import WireError
from nodes.forwarding import Port

ARP_RETRY_S = 0.5
ARP_REFRESH_S = 30.0
MAX_WAITING_FRAMES = 256
UDP_ECHO_PORT = 7  # RFC 862: what a ping is to ICMP, with ports

# Plain ints: looking a member of an enumeration up costs more than all else in sending.
NETWORK, HOST = int(Port.NETWORK), int(Port.HOST)


class Datagram(NamedTuple):
    """A UDP datagram addressed to this node."""

    source: bytes
    source_port: int
    port: int
    payload: bytes


class IpStack:
    """One IPv4 address behind one gateway and one host.

    `send` arguments and results are frames tagged with the Port they leave through. Time is in seconds.
    """

    def __init__(self, ip: bytes, mac: bytes, gateway: bytes, host_ip: bytes) -> None:
        self.ip = ip
        self.mac = mac
        self.gateway = gateway
        self.host_ip = host_ip
        self.refused = 0  # packets for us that the stack would not accept
        self._ident = 0
        self._to_host = mac + mac + frames.ETHERTYPE_IPV4  # host and SmartNIC share the MAC (section 2.4)
        self._to_gateway = b""  # not known yet
        self._asked_at = float("-inf")
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING_FRAMES)  # without Ethernet header

    def receive_arp(self, ingress: int, arp: frames.Arp, out: list[tuple[int, bytes]]) -> None:
        """Answer a request for our address; learn the gateway's MAC from its reply."""
        if arp.operation == frames.ARP_REQUEST and arp.target_ip == self.ip:
            reply = frames.Arp(frames.ARP_REPLY, self.mac, self.ip, arp.sender_mac, arp.sender_ip)
            out.append((ingress, reply.frame(self.mac, arp.sender_mac)))
        elif arp.operation == frames.ARP_REPLY and arp.sender_ip == self.gateway and ingress == Port.NETWORK:
            self._to_gateway = arp.sender_mac + self.mac + frames.ETHERTYPE_IPV4
            while self._waiting:
                out.append((NETWORK, self._to_gateway + self._waiting.popleft()))

    def receive(self, frame: bytes, out: list[tuple[int, bytes]]) -> Datagram | None:
        """Take an IPv4 frame for our address: return its datagram, answer an echo, or count a refusal."""
        try:
            source, protocol, start, end = frames.parse_ipv4(frame)
            if protocol == frames.PROTOCOL_UDP:
                source_port, port, payload = frames.parse_udp(frame, start, end)
                if port != UDP_ECHO_PORT:
                    return Datagram(source, source_port, port, payload)
                if source_port != UDP_ECHO_PORT:  # two echo ports would talk for ever
                    ethernet = self._to_host if source == self.host_ip else self._to_gateway
                    self._ident = ident = (self._ident + 1) & 0xFFFF
                    datagram = frame[start:start + frames.UDP_BYTES + len(payload)]
                    self._send(ethernet, frames.udp_echo_frame(ethernet, self.ip, source, ident, datagram), out)
            elif protocol == frames.PROTOCOL_ICMP:
                body = frames.icmp_echo_reply(frame[start:end])
                ethernet = self._to_host if source == self.host_ip else self._to_gateway
                self._ident = ident = (self._ident + 1) & 0xFFFF
                self._send(ethernet, frames.ipv4_frame(ethernet, self.ip, source, protocol, ident, body), out)
            else:
                self.refused += 1
        except WireError:
            self.refused += 1
        return None

    def send_udp(self, destination: bytes, source_port: int, destination_port: int, payload: bytes,
                 out: list[tuple[int, bytes]]) -> None:
        """Append to `out` the frame that carries `payload` from us to `destination`."""
        ethernet = self._to_host if destination == self.host_ip else self._to_gateway
        self._ident = ident = (self._ident + 1) & 0xFFFF
        self._send(ethernet, frames.udp_frame(ethernet, self.ip, destination, source_port, destination_port, ident,
                                              payload), out)

    def tick(self, now: float, out: list[tuple[int, bytes]]) -> None:
        """Ask for the gateway's MAC when it is unknown or old; call it every now and then."""
        wait = ARP_REFRESH_S if self._to_gateway else ARP_RETRY_S
        if now - self._asked_at >= wait:
            self._asked_at = now
            request = frames.Arp(frames.ARP_REQUEST, self.mac, self.ip, frames.ZERO_MAC, self.gateway)
            out.append((Port.NETWORK, request.frame(self.mac, frames.BROADCAST_MAC)))

    @property
    def ready(self) -> bool:
        """Whether the gateway's MAC is known."""
        return bool(self._to_gateway)

    def _send(self, ethernet: bytes, frame: bytes, out: list[tuple[int, bytes]]) -> None:
        """Append `frame`; or, where `ethernet` is empty, keep it till the gateway's MAC is known."""
        if ethernet:
            out.append((HOST if ethernet is self._to_host else NETWORK, frame))
        else:
            self._waiting.append(frame)
