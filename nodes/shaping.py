"""Gives links their emulated rates: a token bucket at each end, so that both directions are shaped where they leave.

A port of 10 Gb/s at a time scale of 400 sends 25 Mb/s in real time. What Ethernet adds to a frame on the wire counts.
"""

from __future__ import annotations

from typing import NamedTuple

from nodes.errors import NodeError

WIRE_OVERHEAD_BYTES = 24  # preamble 8, frame check sequence 4, gap between frames 12: the kernel counts none of them
MTU_FRAME_BYTES = 9100  # the largest frame of this testbed and its overhead
BURST_REAL_S = 0.0005  # as much may leave at once as the kernel's timers may be late
QUEUE_BYTES = 4 << 20  # ours: what a port holds before it drops
LEAST_BITS_PER_S = 8_000


class Bucket(NamedTuple):
    """A token bucket: `rate` in real bits/s, `burst_bytes` may leave at once, `queue_bytes` wait before it drops."""

    rate: float
    burst_bytes: int
    queue_bytes: int


def bucket_of(gbps: float, time_scale: float) -> Bucket:
    """Return the bucket of a link of `gbps` played `time_scale` times slower."""
    rate = gbps * 1e9 / time_scale
    burst = max(MTU_FRAME_BYTES, round(rate / 8 * BURST_REAL_S))
    return Bucket(rate, burst, max(QUEUE_BYTES, 2 * burst))


def shaping_line(interface: str, gbps: float, time_scale: float, ethernet: bool = True) -> str:
    """Return the line for `tc -batch` that shapes what leaves `interface`; raises NodeError for a rate too low."""
    rate, burst, queue = bucket_of(gbps, time_scale)
    if rate < LEAST_BITS_PER_S:
        raise NodeError(f"{interface}: {gbps} Gb/s at time scale {time_scale:g} is {rate:.0f} b/s in real time; "
                        f"the least is {LEAST_BITS_PER_S}")
    size = f"stab overhead {WIRE_OVERHEAD_BYTES} linklayer ethernet " if ethernet else ""
    return (f"qdisc replace dev {interface} root handle 1: {size}tbf rate {rate:.0f}bit burst {burst} "
            f"limit {queue}")
