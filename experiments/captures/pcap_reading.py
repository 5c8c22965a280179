"""Reads classic pcap files as streams of frames, several files merged by time stamp.

dpkt's Reader reads the file header; the records are read here, because its own loop neither notices a
record that is cut short nor says how long the packet was before it was captured, and turns nanoseconds into
Decimals. A file costs one chunk of memory, however long it is.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import dpkt

from experiments.errors import CaptureError

CHUNK_BYTES = 1 << 17
MAX_FRAME_BYTES = 262_144  # libpcap's own limit (MAXIMUM_SNAPLEN)
_FILE_HEADER_BYTES = dpkt.pcap.FileHdr.__hdr_len__
_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_BIG_ENDIAN = (dpkt.pcap.TCPDUMP_MAGIC, dpkt.pcap.TCPDUMP_MAGIC_NANO)
_LITTLE_ENDIAN = (dpkt.pcap.PMUDPCT_MAGIC, dpkt.pcap.PMUDPCT_MAGIC_NANO)
_NANOSECOND = (dpkt.pcap.TCPDUMP_MAGIC_NANO, dpkt.pcap.PMUDPCT_MAGIC_NANO)


class Frame(NamedTuple):
    """One captured Ethernet frame. `number` counts from 1 in its file, as Wireshark's frame.number does."""

    time_ns: int
    source: int  # which of the merged files, from 0
    number: int
    data: bytes


def frames(paths: Sequence[Path]) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the frames of all `paths` in order of time; ties in order of `paths`.

    Each item has the shape of `Frame`, as a plain tuple because there are millions of them. Raises
    CaptureError, naming the file and the byte offset, at the first record that is not whole.
    """
    readers = [frames_of(path, source) for source, path in enumerate(paths)]
    return readers[0] if len(readers) == 1 else heapq.merge(*readers)


def frames_of(path: Path, source: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the frames of one file, in its own order; raises CaptureError as `frames` does."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from error
    with file:
        record, tick_ns = _read_header(file, path)
        yield from _records(file, path, source, record, tick_ns)


def _read_header(file: BinaryIO, path: Path) -> tuple[struct.Struct, int]:
    """Return how this file's record headers are packed and how many ns its time stamps count in."""
    start = file.read(_FILE_HEADER_BYTES)
    if start[:4] == _PCAPNG_MAGIC:
        raise CaptureError(f"{path}: byte 0: a pcapng file; only classic pcap is read "
                           f"(editcap -F pcap {path.name} OUT converts it)")
    if len(start) < _FILE_HEADER_BYTES:
        raise CaptureError(f"{path}: byte {len(start)}: the file ends inside the pcap header of "
                           f"{_FILE_HEADER_BYTES} bytes")
    magic = int.from_bytes(start[:4], "big")
    if magic not in _BIG_ENDIAN + _LITTLE_ENDIAN:
        raise CaptureError(f"{path}: byte 0: not a pcap file: it starts with {start[:4].hex()}")
    file.seek(0)
    link_type = dpkt.pcap.Reader(file).datalink()
    if link_type != dpkt.pcap.DLT_EN10MB:
        raise CaptureError(f"{path}: byte 20: link type {link_type}; only Ethernet ({dpkt.pcap.DLT_EN10MB}) is read")
    order = ">" if magic in _BIG_ENDIAN else "<"
    return struct.Struct(order + "IIII"), 1 if magic in _NANOSECOND else 1000


def _records(file: BinaryIO, path: Path, source: int, header: struct.Struct,
             tick_ns: int) -> Iterator[tuple[int, int, int, bytes]]:
    unpack, header_bytes, ticks_per_s = header.unpack_from, header.size, 1_000_000_000 // tick_ns
    buffer, position, start, number = b"", 0, _FILE_HEADER_BYTES, 0  # `start`: where `buffer` stands in the file
    while True:
        left = len(buffer) - position
        need = header_bytes
        if left >= header_bytes:
            seconds, ticks, captured, length = unpack(buffer, position)
            if captured != length or captured > MAX_FRAME_BYTES or ticks >= ticks_per_s:
                _refuse(path, start + position, ticks, ticks_per_s, captured, length)
            need += captured
        if left < need:
            chunk = file.read(max(CHUNK_BYTES, need))
            if not chunk:
                if left:
                    raise CaptureError(f"{path}: byte {start + position}: the file ends inside packet {number + 1}: "
                                       f"{left} bytes of {need} are there")
                return
            buffer, start, position = buffer[position:] + chunk, start + position, 0
            continue
        number += 1
        end = position + need
        yield seconds * 1_000_000_000 + ticks * tick_ns, source, number, buffer[position + header_bytes:end]
        position = end


def _refuse(path: Path, offset: int, ticks: int, ticks_per_s: int, captured: int, length: int) -> None:
    if captured > MAX_FRAME_BYTES or ticks >= ticks_per_s or captured > length:
        raise CaptureError(f"{path}: byte {offset}: not a packet record: {captured} bytes captured of {length} "
                           f"(at most {MAX_FRAME_BYTES}), {ticks} of {ticks_per_s} ticks of a second")
    raise CaptureError(f"{path}: byte {offset}: {captured} of the packet's {length} bytes were captured; "
                       "whole packets are needed (tcpdump -s 0)")
