"""Requests for network functions: inner IPv4 packets of many flows, some of them malicious.

Flow sizes follow a Zipf law, as flows in data centers do; addresses are from the range for benchmarks (RFC 2544). The
check of replies is written apart from the microservices: rules are matched by plain search and ESP is opened by hand.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from microservices.assumptions import DEFAULTS
from microservices.errors import ServiceError
from microservices.ipsec import DEFAULT_SECRET, FIRST_SPI, security_association
from microservices.natv4 import Mapping
from microservices.nids import decode_alert
from microservices.nids_rules import BUILT_IN_RULES, Rule, parse_rules
from microservices.packet import ICMP, TCP, UDP, flow_key, header_checksum
from microservices.sharding import SLOTS, slot_of
from microservices.workload import Workload

DEFAULT_SIZE_BYTES = 512
# Ours: the shares of transports, and the services that flows go to.
TCP_SHARE = 0.8
SERVER_PORTS = {TCP: (80, 443, 8080, 22, 25, 3306, 5432, 6379), UDP: (53, 123, 443, 4789, 5060, 11211)}
_HEADER_BYTES = {TCP: 40, UDP: 28, ICMP: 28}


class NfvWorkload(Workload):
    """`flows` flows with Zipf exponent `zipf`; a share of the packets is made to match one of `rules` (text).

    The check of replies expects a chain that translates by `mappings` if there are any, then inspects if `inspected`,
    and then encrypts if `encrypted`. Every packet is `size_bytes` long in all. Raises ServiceError if that is too
    little for the headers, or for the contents of every rule while `malicious_share` is above 0.
    """

    def __init__(self, seed: int = 1, size_bytes: int = DEFAULT_SIZE_BYTES, flows: int = int(DEFAULTS.keys),
                 zipf: float = DEFAULTS.zipf, malicious_share: float = DEFAULTS.malicious_share,
                 rules: str = BUILT_IN_RULES, secret: bytes = DEFAULT_SECRET,
                 inspected: bool = True, encrypted: bool = True, mappings: Sequence[Mapping] = ()) -> None:
        if not max(_HEADER_BYTES.values()) <= size_bytes <= 0xFFFF:
            raise ServiceError(f"packets of {size_bytes} bytes; the limits are {max(_HEADER_BYTES.values())} and 65535")
        if flows < 1:
            raise ServiceError(f"{flows} flows; the least is 1")
        if not 0.0 <= malicious_share <= 1.0:
            raise ServiceError(f"malicious share {malicious_share}; the limits are 0 and 1")
        self.seed, self.size_bytes, self.malicious_share = seed, size_bytes, malicious_share
        self._rules = parse_rules(rules)
        self._fitting = [r for r in self._rules if _HEADER_BYTES[r.protocol or TCP] + _contents_bytes(r) <= size_bytes]
        if malicious_share and not self._fitting:
            raise ServiceError(f"no rule's contents fit in packets of {size_bytes} bytes")
        self._secret = secret
        self._inspected, self._encrypted = inspected, encrypted
        # By prefix length, longest first: {network bits: the bits inside}.
        self._mappings = [(length, {int(m.outside.network_address): int(m.inside.network_address)
                                    for m in mappings if m.outside.prefixlen == length}) for length in range(32, -1,
                                    -1)]
        draw = Random(f"flows {seed}")
        self._flows = [_flow(draw) for _ in range(flows)]
        self._weights = list(accumulate(1.0 / rank**zipf for rank in range(1, flows + 1)))

    def requests(self) -> Iterator[bytes]:
        draw = Random(f"packets {self.seed}")
        while True:
            source, destination, protocol, source_port, destination_port = draw.choices(
                self._flows, cum_weights=self._weights)[0]
            data = draw.randbytes(self.size_bytes - _HEADER_BYTES[protocol])
            if draw.random() < self.malicious_share:
                rule = draw.choice(self._fitting)
                protocol = rule.protocol or TCP
                source_port = _port_in(rule.source_ports, source_port)
                destination_port = _port_in(rule.destination_ports, destination_port)
                data = _malicious(draw, rule, self.size_bytes - _HEADER_BYTES[protocol])
            yield inner_packet(source, destination, protocol, source_port, destination_port, data)

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        """Hold a reply against its request: the right alert record, the right packet, or ESP that opens to it."""
        packet = self._translated(request)
        expected = self.expected_alerts(packet) if self._inspected else []
        if expected:
            try:
                got = decode_alert(reply)
            except ServiceError as error:
                return f"expected alerts {expected}: {error}"
            return None if got == expected else f"expected alerts {expected}, got {got}"
        if self._encrypted:
            return self._check_esp(packet, reply)
        return None if reply == packet else f"expected the packet {packet[:20].hex()}..., got {reply[:20].hex()}..."

    def _translated(self, packet: bytes) -> bytes:
        destination = int.from_bytes(packet[16:20], "big")
        for length, inside in self._mappings:
            host_mask = (1 << (32 - length)) - 1
            base = inside.get(destination & ~host_mask)
            if base is not None:
                source_port, destination_port = struct.unpack_from(">HH", packet, 24 if packet[9] == ICMP else 20)
                return inner_packet(packet[12:16], (base | destination & host_mask).to_bytes(4, "big"), packet[9],
                                    source_port, destination_port, packet[_HEADER_BYTES[packet[9]]:])
        return packet

    def expected_alerts(self, request: bytes) -> list[tuple[int, str]]:
        """Return (sid, action) of the rules that a packet of this workload matches, found by plain search."""
        protocol = request[9]
        data = request[_HEADER_BYTES[protocol]:] if protocol != ICMP else request[20:]
        ports = struct.unpack_from(">HH", request, 20) if protocol != ICMP else (0, 0)
        return sorted(
            (rule.sid, rule.action) for rule in self._rules
            if rule.protocol in (None, protocol) and _listed(rule.source_ports, ports[0])
            and _listed(rule.destination_ports, ports[1])
            and all((c.pattern.lower() in data.lower()) if c.nocase else (c.pattern in data) for c in rule.contents))

    def _check_esp(self, request: bytes, reply: bytes) -> str | None:
        if len(reply) < 20 + 8 + 16 + 16 + 12 or reply[0] != 0x45 or reply[9] != 50:
            return f"expected an ESP packet, got {len(reply)} bytes starting {reply[:12].hex()}"
        if int.from_bytes(reply[2:4], "big") != len(reply):
            return f"ESP packet's length field says {int.from_bytes(reply[2:4], 'big')}, it has {len(reply)} bytes"
        spi, sequence = struct.unpack_from(">II", reply, 20)
        slot = spi - FIRST_SPI
        if not 0 <= slot < SLOTS or slot != slot_of(flow_key(request)):
            return f"SPI 0x{spi:X} is not that of the flow's slot, 0x{FIRST_SPI + slot_of(flow_key(request)):X}"
        sa = security_association(self._secret, slot)
        if not sequence:
            return "sequence number 0; the first is 1"
        if hmac.new(sa.authentication_key, reply[20:-12], "sha1").digest()[:12] != reply[-12:]:
            return "the integrity check value is wrong"
        decryptor = Cipher(algorithms.AES(sa.encryption_key), modes.CBC(reply[28:44])).decryptor()
        plain = decryptor.update(reply[44:-12]) + decryptor.finalize()
        pad, next_header = plain[-2], plain[-1]
        if next_header != 4 or plain[len(plain) - 2 - pad:-2] != bytes(range(1, pad + 1)):
            return f"ESP trailer {plain[-2 - pad:].hex()} is wrong"
        inner = plain[:len(plain) - 2 - pad]
        return None if inner == request else f"the tunnel holds {len(inner)} other bytes than the request's"


def inner_packet(source: bytes, destination: bytes, protocol: int, source_port: int, destination_port: int,
                 data: bytes) -> bytes:
    """Return an IPv4 packet with a TCP, UDP or ICMP echo header and `data`; all its checksums are right."""
    pseudo = b""
    if protocol == TCP:
        transport = struct.pack(">HHIIBBHHH", source_port, destination_port, 1, 1, 5 << 4, 0x18, 0xFFFF, 0, 0)
        checksum_at = 16
    elif protocol == UDP:
        transport = struct.pack(">HHHH", source_port, destination_port, 8 + len(data), 0)
        checksum_at = 6
    else:
        transport = struct.pack(">BBHHH", 8, 0, 0, source_port, 1)
        checksum_at = 2
    if protocol != ICMP:
        pseudo = source + destination + struct.pack(">HH", protocol, len(transport) + len(data))
    summed = b"".join((pseudo, transport, data, bytes(len(data) % 2)))
    total = sum(struct.unpack(f">{len(summed) // 2}H", summed)) % 0xFFFF
    checksum = 0xFFFF - total if total or protocol == UDP else 0  # UDP sends 0xFFFF for 0: 0 means none there
    transport = transport[:checksum_at] + checksum.to_bytes(2, "big") + transport[checksum_at + 2:]
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(transport) + len(data), 0, 0x4000, 64, protocol, 0,
                         source, destination)
    return header[:10] + header_checksum(header).to_bytes(2, "big") + header[12:] + transport + data


def _flow(draw: Random) -> tuple[bytes, bytes, int, int, int]:
    protocol = TCP if draw.random() < TCP_SHARE else UDP
    return (bytes((198, 18)) + draw.randbytes(2), bytes((198, 19)) + draw.randbytes(2), protocol,
            draw.randint(1024, 65535), draw.choice(SERVER_PORTS[protocol]))


def _contents_bytes(rule: Rule) -> int:
    return sum(len(content.pattern) for content in rule.contents)


def _malicious(draw: Random, rule: Rule, size: int) -> bytes:
    """Return `size` random bytes with the rule's contents in them, in random order and at random places."""
    pieces = [bytes(draw.choice((b, ord(chr(b).upper()))) if 97 <= b <= 122 else b for b in c.pattern)
              if c.nocase else c.pattern for c in rule.contents]
    draw.shuffle(pieces)
    room = size - _contents_bytes(rule)
    cuts = sorted(draw.randint(0, room) for _ in pieces)
    gaps = [after - before for before, after in zip([0, *cuts], [*cuts, room], strict=True)]
    return b"".join(draw.randbytes(gap) + piece for gap, piece in zip(gaps, [*pieces, b""], strict=True))


def _port_in(ranges: Sequence[tuple[int, int]], wanted: int) -> int:
    return wanted if _listed(ranges, wanted) else ranges[0][0]


def _listed(ranges: Sequence[tuple[int, int]], port: int) -> bool:
    return not ranges or any(port in range(low, high + 1) for low, high in ranges)
