"""Reading captures: whole ones in order, and every damage named with its place."""

from __future__ import annotations

import struct
from pathlib import Path

import dpkt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pcap_room import write_pcap

from experiments.captures.frame_fields import ipv4_of, kind_of
from experiments.captures.pcap_reading import CHUNK_BYTES, frames, frames_of
from experiments.errors import CaptureError

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RECORDS = [(1_700_000_000_000_000_000 + 1000 * i, bytes([i]) * (20 + i)) for i in range(50)]


@pytest.mark.parametrize("nano", [True, False])
@pytest.mark.parametrize("order", "<>")
def test_what_was_written_is_read(tmp_path: Path, nano: bool, order: str) -> None:
    write_pcap(tmp_path / "a.pcap", RECORDS, nano=nano, order=order)
    assert [(t, d) for t, _, _, d in frames_of(tmp_path / "a.pcap")] == RECORDS


def test_dpkt_s_own_writer_and_reader_agree_with_ours(tmp_path: Path) -> None:
    with (tmp_path / "a.pcap").open("wb") as file:
        writer = dpkt.pcap.Writer(file, snaplen=65535)
        for second, (_, data) in enumerate(RECORDS):
            writer.writepkt(data, second + 0.25)
    ours = [(t / 1e9, d) for t, _, _, d in frames_of(tmp_path / "a.pcap")]
    with (tmp_path / "a.pcap").open("rb") as file:
        assert ours == list(dpkt.pcap.Reader(file))


def test_frames_larger_than_a_chunk_and_across_its_border_are_whole(tmp_path: Path) -> None:
    records = [(i, bytes([i]) * size) for i, size in enumerate((CHUNK_BYTES - 30, 200_000, 14, 0, CHUNK_BYTES, 1))]
    write_pcap(tmp_path / "a.pcap", records)
    assert [(t, d) for t, _, _, d in frames_of(tmp_path / "a.pcap")] == records


def test_files_are_merged_by_time_and_frames_keep_their_file_and_number(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pcap" for name in "abc"]
    for i, path in enumerate(paths):
        write_pcap(path, RECORDS[i::3])
    merged = list(frames(paths))
    assert [(t, d) for t, _, _, d in merged] == RECORDS
    assert [(source, number) for _, source, number, _ in merged[:5]] == [(0, 1), (1, 1), (2, 1), (0, 2), (1, 2)]


def message(path: Path) -> str:
    with pytest.raises(CaptureError) as caught:
        list(frames([path]))
    assert str(path) in str(caught.value)
    return str(caught.value)


def damaged(tmp_path: Path, damage: dict[int, bytes] | None = None, size: int | None = None) -> Path:
    path = tmp_path / "a.pcap"
    write_pcap(path, RECORDS)
    data = bytearray(path.read_bytes())
    for offset, value in (damage or {}).items():
        data[offset:offset + len(value)] = value
    path.write_bytes(data[:size])
    return path


def test_a_file_cut_inside_a_packet_names_the_byte_where_that_begins(tmp_path: Path) -> None:
    second = 24 + 16 + 20
    assert f"byte {second}: the file ends inside packet 2" in message(damaged(tmp_path, size=second + 20))
    assert f"byte {second}: the file ends inside packet 2" in message(damaged(tmp_path, size=second + 3))


def test_a_file_that_ends_between_packets_is_whole(tmp_path: Path) -> None:
    assert len(list(frames([damaged(tmp_path, size=24 + 16 + 20)]))) == 1


def test_packets_cut_by_a_snaplen_are_refused(tmp_path: Path) -> None:
    path = damaged(tmp_path, {24 + 12: struct.pack("<I", 1500)})
    assert "byte 24: 20 of the packet's 1500 bytes were captured" in message(path)


def test_a_file_that_is_no_pcap_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(b"PK\x03\x04" + bytes(60))
    assert "byte 0: not a pcap file: it starts with 504b0304" in message(tmp_path / "a.pcap")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").touch()
    assert "byte 0: the file ends inside the pcap header" in message(tmp_path / "a.pcap")


def test_pcapng_is_named_with_its_conversion(tmp_path: Path) -> None:
    (tmp_path / "a.pcap").write_bytes(b"\x0a\x0d\x0d\x0a" + bytes(60))
    assert "pcapng" in message(tmp_path / "a.pcap")


def test_captures_of_another_link_type_are_refused(tmp_path: Path) -> None:
    assert "link type 113" in message(damaged(tmp_path, {20: struct.pack("<I", 113)}))


def test_impossible_records_are_refused(tmp_path: Path) -> None:
    assert "byte 24: not a packet record" in message(damaged(tmp_path, {24 + 4: struct.pack("<I", 10**9)}))
    huge = struct.pack("<II", 1 << 31, 1 << 31)
    assert "byte 24: not a packet record" in message(damaged(tmp_path, {24 + 8: huge}))


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    assert "No such file" in message(tmp_path / "nowhere.pcap")
    assert "directory" in message(tmp_path)


@FUZZ
@given(data=st.binary(max_size=400), header=st.booleans())
def test_random_bytes_are_frames_or_a_capture_error(tmp_path: Path, data: bytes, header: bool) -> None:
    start = struct.pack("<IHHIIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1) if header else b""
    (tmp_path / "a.pcap").write_bytes(start + data)
    try:
        read = list(frames([tmp_path / "a.pcap"]))
    except CaptureError:
        return
    assert header or data[:4] in (b"\xa1\xb2\xc3\xd4", b"\xa1\xb2\x3c\x4d", b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1")
    assert sum(16 + len(d) for _, _, _, d in read) == len(data) - (0 if header else 24)


@FUZZ
@given(size=st.integers(0, 24 + sum(16 + len(d) for _, d in RECORDS)))
def test_every_truncation_gives_the_packets_before_it_or_an_error(tmp_path: Path, size: int) -> None:
    path, read = damaged(tmp_path, size=size), []
    try:
        read.extend((t, d) for t, _, _, d in frames([path]))
        whole = True
    except CaptureError as error:
        whole = False
        assert f"byte {size if size < 24 else 24 + sum(16 + len(d) for _, d in RECORDS[:_whole_before(size)])}" in str(
            error)
    assert whole == (size in _borders())


def _borders() -> list[int]:
    borders = [24]
    for _, data in RECORDS:
        borders.append(borders[-1] + 16 + len(data))
    return borders


def _whole_before(size: int) -> int:
    return sum(border <= size for border in _borders()[1:])


@FUZZ
@given(st.binary(max_size=120) | st.binary(max_size=100).map(lambda b: bytes(12) + b"\x08\x00\x45" + b))
def test_any_frame_is_ipv4_with_sound_bounds_or_has_a_kind(frame: bytes) -> None:
    fields = ipv4_of(frame)
    if fields is None:
        assert kind_of(frame) in ("ARP", "LACP", "IPv6", "other", "malformed")
    else:
        _, flow, ttl, start, end, _ = fields
        assert 34 <= start <= end <= len(frame)
        assert flow[:8] == frame[26:34] and ttl == frame[22]
        assert len(flow) in (9, 13)


def test_the_identity_survives_a_hop_and_ethernet_padding_and_nothing_else(tmp_path: Path) -> None:
    from pcap_room import hop_on, ip_frame, udp
    frame = ip_frame("02:00:00:00:00:01", "02:00:00:00:00:02", "10.1.1.1", "10.1.1.2", udp(1, 2, b"abc"))
    identity = ipv4_of(frame)[0]
    assert ipv4_of(hop_on(frame, "02:00:00:00:00:03", "02:00:00:00:00:04") + bytes(7))[0] == identity
    kept = [*range(18, 22), 23, *range(26, len(frame))]
    for position in kept:
        changed = bytearray(frame)
        changed[position] ^= 0x40
        fields = ipv4_of(bytes(changed))
        assert fields is None or fields[0] != identity, position
