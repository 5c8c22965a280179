"""Which bucket of a select group Open vSwitch gives a flow, computed from the flow's addresses and ports.

With `selection_method=hash` Open vSwitch chooses by rendezvous hashing (Thaler and Ravishankar, 1998): each
live bucket gets a score from the flow's hash and its own id, and the highest wins, so a bucket that dies
takes only its own flows with it. The hash is MurmurHash3's 32-bit mixing, as in builds of Open vSwitch that may not
assume a CRC32 instruction; `disagreements` finds a build that hashes otherwise from what it says itself.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address

from controller.tor_program import EcmpGroup

TCP, UDP = 6, 17
_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class FlowKey:
    """What a packet is hashed by. Later fragments and protocols without ports have `src_port` None."""

    src_ip: str
    dst_ip: str
    protocol: int = UDP
    src_port: int | None = None
    dst_port: int | None = None


def scores(group: EcmpGroup, flow: FlowKey) -> dict[int, int]:
    """Return each bucket's score for `flow`, by bucket id, in the group's order."""
    basis = _flow_hash(group.hash_parameter, flow)
    return {b.bucket_id: (_hash_int(b.bucket_id, basis) & 0xFFFF) * b.weight for b in group.buckets}


def predict(group: EcmpGroup, flow: FlowKey, live: Collection[int] | None = None) -> int | None:
    """Return the id of the bucket that `flow` takes; None, and the packet is dropped, where none is alive.

    `live` holds the ids of the live buckets; without it all are.
    """
    best, best_score = None, -1
    for bucket_id, score in scores(group, flow).items():
        if (live is None or bucket_id in live) and score >= best_score:
            best, best_score = bucket_id, score
    return best


_SCORE = re.compile(r"-> bucket (\d+): score (\d+)")
_USING = re.compile(r"-> using bucket (\d+)")
_GROUP = re.compile(r"^\s*group:(\d+)\s*$")


def disagreements(group: EcmpGroup, flow: FlowKey, trace: str) -> list[str]:
    """Compare the prediction with what `ovs-appctl ofproto/trace` printed; [] if they agree.

    Only the buckets that the trace scored are taken as alive. A trace that never enters `group` disagrees.
    """
    predicted = scores(group, flow)
    seen: dict[int, int] = {}
    used: int | None = None
    inside = False
    for line in trace.splitlines():
        if entered := _GROUP.match(line):
            inside = int(entered[1]) == group.group_id
        elif inside and (scored := _SCORE.search(line)):
            seen[int(scored[1])] = int(scored[2])
        elif inside and (using := _USING.search(line)):
            used = int(using[1])
    if not seen:
        return [f"the trace scores no bucket of group {group.group_id}"]
    wrong = [f"bucket {b}: the switch scores {score}, predicted {predicted.get(b)}"
             for b, score in seen.items() if predicted.get(b) != score]
    if used != predict(group, flow, seen.keys()):
        wrong.append(f"the switch uses bucket {used}, predicted {predict(group, flow, seen.keys())}")
    return wrong


def _flow_hash(parameter: int, flow: FlowKey) -> int:
    basis = _hash_u64(parameter)
    for address in (flow.src_ip, flow.dst_ip):
        basis = _hash_bytes(IPv4Address(address).packed, basis)
    if flow.protocol in (TCP, UDP):
        for port in (flow.src_port, flow.dst_port):
            if port is not None:
                basis = _hash_bytes(struct.pack("!H", port), basis)
    return basis


def _rotate(x: int, by: int) -> int:
    return (x << by | x >> 32 - by) & _MASK


def _add(h: int, word: int) -> int:
    word = word * 0xCC9E2D51 & _MASK
    h ^= _rotate(word, 15) * 0x1B873593 & _MASK
    return _rotate(h, 13) * 5 + 0xE6546B64 & _MASK


def _finish(h: int, size: int) -> int:
    h ^= size
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK
    return h ^ h >> 16


def _hash_int(x: int, basis: int) -> int:
    return _finish(_add(_add(x, 0), basis), 8)


def _hash_u64(x: int) -> int:
    return _finish(_add(_add(0, x & _MASK), x >> 32), 8)


def _hash_bytes(data: bytes, basis: int) -> int:
    h = basis
    for start in range(0, len(data), 4):
        h = _add(h, int.from_bytes(data[start:start + 4], "little"))
    return _finish(h, len(data))
