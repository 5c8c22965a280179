"""A machine room on paper: sends packets through the switches' programs and writes what captures would hold."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import NamedTuple

import dpkt
import msgspec

from controller.select_hash import predict
from controller.tor_program import programs_of, to_json
from controller.tor_status import RepairStatus
from experiments.captures.frame_fields import mac_bytes
from experiments.captures.hash_prediction import flow_key
from experiments.captures.routing_proof import RoutingProof
from nodes.messages import KIND_REPLY, KIND_REQUEST, DataMessage
from topologies.addressing import DATA_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

HOP_NS = 20_000
BEGIN_NS = 1_700_000_000_123_456_789

TCP = 6


class Seen(NamedTuple):
    interface: str
    position: int  # in that interface's frames


def write_pcap(path: Path, frames: list[tuple[int, bytes]], *, nano: bool = True, order: str = "<") -> None:
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    tick = 1 if nano else 1000
    with path.open("wb") as file:
        file.write(struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 262144, 1))
        for time_ns, data in frames:
            seconds, rest = divmod(time_ns, 10**9)
            file.write(struct.pack(order + "IIII", seconds, rest // tick, len(data), len(data)) + data)


def ip_frame(eth_src: str, eth_dst: str, source: str, destination: str, carried: bytes, *, ttl: int = 64,
             protocol: int = 17, identification: int = 0, fragment: int = 0x4000) -> bytes:
    header = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(carried), identification, fragment, ttl, protocol, 0,
                         IPv4Address(source).packed, IPv4Address(destination).packed)
    header = header[:10] + struct.pack(">H", dpkt.in_cksum(header)) + header[12:]
    return mac_bytes(eth_dst) + mac_bytes(eth_src) + b"\x08\x00" + header + carried


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    return struct.pack(">HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def hop_on(frame: bytes, eth_src: str, eth_dst: str) -> bytes:
    """Return `frame` as the next switch sends it: new MACs, TTL less by one, checksum renewed."""
    header = frame[14:22] + bytes([frame[22] - 1]) + frame[23:24] + b"\0\0" + frame[26:34]
    header = header[:10] + struct.pack(">H", dpkt.in_cksum(header)) + header[12:]
    return mac_bytes(eth_dst) + mac_bytes(eth_src) + b"\x08\x00" + header + frame[34:]


class Room:
    """The captures of `cluster`, one list of (time, frame) per switch interface."""

    def __init__(self, cluster: str) -> None:
        self.inventory = inventory_of(cluster_named(cluster))
        self.programs = programs_of(self.inventory)
        self.frames: dict[str, list[tuple[int, bytes]]] = {p.interface: [] for p in self.inventory.ports}
        self.told = self.programs  # what lies beside the captures; `programs` is what switches do
        self.dead: frozenset[str] = frozenset()
        self.repairs: list[RepairStatus] = []
        self.now_ns = BEGIN_NS
        self._sent = 0

    def send(self, source: str, destination: str, carried: bytes, *, protocol: int = 17, ttl: int = 64,
             by: str | None = None, destination_ip: str | None = None, source_ip: str | None = None,
             fragment: int = 0x4000) -> list[Seen]:
        """Send a packet from node to node over all switches between; returns where it was seen, in order.

        `by` is the interface of the first switch, where the source has several.
        """
        self._sent += 1
        node, target = self.inventory.node(source), self.inventory.node(destination)
        interface = by or next(p.interface for p in self.inventory.ports if p.peer == source)
        tor = next(p.switch for p in self.inventory.ports if p.interface == interface)
        frame = ip_frame(node.mac, self.inventory.switch(tor).mac, source_ip or node.ip,
                         destination_ip or target.ip, carried, protocol=protocol, ttl=ttl,
                         identification=self._sent & 0xFFFF, fragment=fragment)
        return self.inject(interface, frame)

    def inject(self, interface: str, frame: bytes) -> list[Seen]:
        ports = {p.interface: p for p in self.inventory.ports}
        mac_of = {n.name: n.mac for n in (*self.inventory.nodes, *self.inventory.switches)}
        seen = []
        while True:
            seen.append(self._see(interface, frame))
            program = self.programs[ports[interface].switch]
            out = self._route(program, frame)
            if out is None or frame[22] <= 1:
                return seen
            interface = program.interface(out)
            if interface in self.dead:
                return seen
            frame = hop_on(frame, program.mac, mac_of[ports[interface].peer])
            seen.append(self._see(interface, frame))
            if ports[interface].peer not in self.programs:
                return seen
            interface = ports[interface].peer_interface

    def request(self, request_id: int, client: str, *nodes: str) -> list[Seen]:
        """Send a request from `client` through `nodes`, and its reply back."""
        ip = IPv4Address(self.inventory.node(client).ip).packed
        port = 20_000 + request_id % 1000
        seen = []
        for hop, (source, destination) in enumerate(zip((client, *nodes), (*nodes, client), strict=True)):
            kind = KIND_REPLY if destination == client else KIND_REQUEST
            message = DataMessage(kind, 1, hop, request_id, ip, port, hop, b"payload")
            ports = (port if source == client else DATA_PORT, port if destination == client else DATA_PORT)
            seen += self.send(source, destination, udp(*ports, message.encode()), by=self._first_port(source))
        return seen

    def remove(self, seen: Seen) -> bytes:
        return self.frames[seen.interface].pop(seen.position)[1]

    def replace(self, seen: Seen, frame: bytes) -> None:
        self.frames[seen.interface][seen.position] = self.frames[seen.interface][seen.position][0], frame

    def frame(self, seen: Seen) -> bytes:
        return self.frames[seen.interface][seen.position][1]

    def write(self, folder: Path, *, only: tuple[str, ...] = ()) -> Path:
        """Write all captures, or `only` those, with the inventory and the programs beside them."""
        for interface, frames in self.frames.items():
            if not only or interface in only:
                write_pcap(folder / f"{interface}.pcap", sorted(frames, key=lambda f: f[0]))
        (folder / "inventory.json").write_bytes(self.inventory.to_json())
        (folder / "programs.json").write_bytes(to_json(self.told))
        if self.repairs:
            (folder / "repairs.json").write_bytes(msgspec.json.encode(self.repairs))
        return folder

    def _first_port(self, node: str) -> str:
        host = self.inventory.node(node)
        if host.role == "host":
            return self.inventory.ports_of_server(host)[0].interface
        return next(p.interface for p in self.inventory.ports if p.peer == node)

    def _see(self, interface: str, frame: bytes) -> Seen:
        self.now_ns += HOP_NS
        self.frames[interface].append((self.now_ns, frame))
        return Seen(interface, len(self.frames[interface]) - 1)

    def _route(self, program, frame: bytes) -> int | None:
        address = IPv4Address(frame[30:34])
        matching = [(IPv4Network(r.prefix).prefixlen, r) for r in program.routes if address in IPv4Network(r.prefix)]
        if not matching:
            return None
        route = max(matching, key=lambda m: m[0])[1]
        if route.group is None:
            return route.port
        group = program.group(route.group)
        later = int.from_bytes(frame[20:22], "big") & 0x1FFF
        flow = frame[26:34] + frame[23:24] + (b"" if later or frame[23] not in (6, 17) else frame[34:38])
        live = [b.bucket_id for b in group.buckets if program.interface(b.port) not in self.dead]
        chosen = predict(group, flow_key(flow), live)
        return next((b.port for b in group.buckets if b.bucket_id == chosen), None)


def loaded_rack() -> Room:
    """Return 2 x Type2 under 60 requests by SmartNICs and hosts, and 60 UDP and 60 TCP flows to s1h."""
    room = Room("type2x2")
    nics = [f"s{s}n{n}" for s in (1, 2) for n in (1, 2, 3, 4)]
    for i in range(60):
        room.request(1 << 32 | i, "c1", *((nics[i % 8], nics[(i + 3) % 8]) if i % 3 else ("s1n2", "s2h")))
        room.send("c1", "s1h", udp(30_000 + i, 9, b"x" * i))
        room.send("c1", "s1h", struct.pack(">HHII", 40_000 + i, 80, i, 0) + bytes(8), protocol=TCP)
    return room


def failing(proof: RoutingProof) -> set[str]:
    return {c.name for c in proof.checks if c.verdict is False}


def to_host(room: Room) -> list[Seen]:
    return room.send("c1", "s1h", udp(50_000, 9, b"one more"))


def other_port(room: Room, seen: Seen, prefix: str = "tor1-s1") -> str:
    return next(i for i in room.frames if i.startswith(prefix) and i != seen.interface)


def move(room: Room, seen: Seen, interface: str) -> None:
    time_ns, frame = room.frames[seen.interface].pop(seen.position)
    room.frames[interface].append((time_ns, frame))
