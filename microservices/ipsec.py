"""IPsec gateway: ESP in tunnel mode with AES-CBC-128 and HMAC-SHA1-96 (RFC 4303, 3602, 2404; paper Table 2).

The inner packet is carried as it is, to the byte, so that who opens the tunnel can compare: the hops of this testbed
are its switches, not this gateway. Each slot of the flow space has a security association (SA) of its own, so that a
flow always keeps its SA and its sequence numbers move with it when the stage is re-sharded.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from microservices.errors import ServiceError
from microservices.packet import ESP, IPV4_HEADER_BYTES, flow_key, header_checksum, layers
from microservices.reliable import Array
from microservices.service import Accelerator, Microservice, Output, Request
from microservices.sharding import SLOTS, slot_of
from microservices.state import State

BLOCK_BYTES = 16
ICV_BYTES = 12
NEXT_HEADER_IPV4 = 4
MAX_SEQUENCE = 2**32 - 1
FIRST_SPI = 0x1000
# Between documentation addresses (RFC 5737): the tunnel is a payload here and never leaves the testbed.
TUNNEL_SOURCE = "192.0.2.1"
TUNNEL_DESTINATION = "198.51.100.1"
# Ours: stands for what IKE would agree on. It protects nothing but synthetic packets.
DEFAULT_SECRET = b"E3 testbed: a shared secret for synthetic packets"

_OUTER = struct.Struct(">BBHHHBBH4s4s")
_ESP_HEADER = struct.Struct(">II")
# What ends the plaintext, by the number of padding bytes: 1, 2, 3, ..., their number, the next header (RFC 4303, 2.4).
_TRAILERS = [bytes(range(1, pad + 1)) + bytes((pad, NEXT_HEADER_IPV4)) for pad in range(BLOCK_BYTES)]


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """One direction of a tunnel: its SPI, its keys (16 bytes for AES, 20 for the HMAC) and its two ends."""

    spi: int
    encryption_key: bytes
    authentication_key: bytes
    source: str = TUNNEL_SOURCE
    destination: str = TUNNEL_DESTINATION


def security_association(secret: bytes, slot: int) -> SecurityAssociation:
    """Derive the SA of a slot from the shared secret: both ends do, so no key travels."""
    spi = FIRST_SPI + slot
    keys = blake2b(spi.to_bytes(4, "big"), key=secret[:64], digest_size=36, person=b"E3 ESP keys").digest()
    return SecurityAssociation(spi, keys[:16], keys[16:])


class Ipsec(Microservice):
    """Packets in, ESP packets out. `secret` (1 to 64 bytes) is what the SAs are derived from."""

    name = "ipsec"
    memory_mb = 16
    stateful = True
    accelerators = frozenset({Accelerator.CRYPTO})

    def __init__(self, secret: bytes = DEFAULT_SECRET) -> None:
        if not isinstance(secret, bytes) or not 1 <= len(secret) <= 64:
            raise ServiceError(f"secret of {len(secret)}; it is 1 to 64 bytes")
        self._secret = secret
        self._tunnels: dict[int, Tunnel] = {}

    def new_state(self) -> State:
        return State(arrays={"sequence": Array("I", SLOTS)})

    def key_of(self, payload: bytes) -> bytes:
        return flow_key(payload)

    def handle(self, request: Request, state: State) -> Sequence[Output]:
        packet = request.payload
        layers(packet)
        slot = slot_of(flow_key(packet))
        tunnel = self._tunnels.get(slot)
        if tunnel is None:
            tunnel = self._tunnels[slot] = Tunnel(security_association(self._secret, slot))
        sequences = state.arrays["sequence"]
        if sequences[slot] == MAX_SEQUENCE:
            raise ServiceError(f"SA 0x{tunnel.sa.spi:X} has used all its sequence numbers and needs new keys")
        return (Output(tunnel.seal(packet, sequences.add(slot, 1))),)


class Tunnel:
    """The sending end of one SA; what it returns depends on its arguments only."""

    def __init__(self, sa: SecurityAssociation) -> None:
        self.sa = sa
        self._ends = IPv4Address(sa.source).packed, IPv4Address(sa.destination).packed
        # Making a cipher costs five times what using it does, so one CBC encryptor lives as long as the tunnel. It
        # chains on from its last block, which is kept to be undone: see `_encrypted`.
        self._encryptor = Cipher(algorithms.AES(sa.encryption_key), modes.CBC(bytes(BLOCK_BYTES))).encryptor()
        self._last_block = 0
        self._headers: dict[tuple[int, int], bytes] = {}

    def seal(self, packet: bytes, sequence: int) -> bytes:
        """Return the outer IPv4 packet that carries `packet` (IPv4) under ESP sequence number 1 to 2**32 - 1.

        The IV is the encrypted sequence number (NIST SP 800-38A, appendix C): never repeated under a key and, as RFC
        3602 asks, not predictable without the key.
        """
        plaintext = packet + _TRAILERS[-(len(packet) + 2) % BLOCK_BYTES]
        esp = _ESP_HEADER.pack(self.sa.spi, sequence) + self._encrypted(plaintext, sequence)
        esp += hmac.digest(self.sa.authentication_key, esp, "sha1")[:ICV_BYTES]
        return self._outer_header(packet[1], IPV4_HEADER_BYTES + len(esp)) + esp

    def _encrypted(self, plaintext: bytes, sequence: int) -> bytes:
        """Return IV and ciphertext.

        CBC encrypts each block XOR the ciphertext block before it. Feeding (wanted XOR last block) first makes the
        long-lived encryptor emit E(wanted), whatever came before, and chain the plaintext on to that.
        """
        first = (sequence ^ self._last_block).to_bytes(BLOCK_BYTES, "big")
        out = self._encryptor.update(first + plaintext)
        self._last_block = int.from_bytes(out[-BLOCK_BYTES:], "big")
        return out

    def _outer_header(self, traffic_class: int, length: int) -> bytes:
        """Return the outer header: the inner one's traffic class (RFC 4301, 5.1.2.1), and never fragmented."""
        header = self._headers.get((traffic_class, length))
        if header is None:
            if length > 0xFFFF:
                raise ServiceError(f"ESP packet of {length} bytes; IPv4 carries at most {0xFFFF}")
            fields = [0x45, traffic_class, length, 0, 0x4000, 64, ESP, 0, *self._ends]
            fields[7] = header_checksum(_OUTER.pack(*fields))
            header = self._headers[traffic_class, length] = _OUTER.pack(*fields)
        return header
