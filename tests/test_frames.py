"""Ethernet, ARP, IPv4, ICMP and UDP as bytes, checked against scapy and the checksum of RFC 1071."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from nodes import frames
from nodes.errors import WireError

MAC_A, MAC_B = bytes.fromhex("02e301010001"), bytes.fromhex("02e3ff010001")
IP_A, IP_B = bytes((10, 1, 1, 11)), bytes((10, 1, 254, 1))
ETHERNET = MAC_B + MAC_A + frames.ETHERTYPE_IPV4


def folded(data: bytes) -> int:
    """RFC 1071 as it is written: add 16-bit words, fold the carries."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def udp_frame(payload: bytes, source_port: int = 5000, destination_port: int = 0xE300) -> bytes:
    return frames.udp_frame(ETHERNET, IP_A, IP_B, source_port, destination_port, 7, payload)


def read_udp(frame: bytes) -> tuple[int, int, bytes]:
    _, protocol, start, end = frames.parse_ipv4(frame)
    if protocol != frames.PROTOCOL_UDP:
        raise WireError(f"protocol {protocol}")
    return frames.parse_udp(frame, start, end)


@given(st.binary(max_size=200))
def test_the_quick_checksum_is_the_folded_sum(data: bytes) -> None:
    assert frames.ones_complement_sum(data) % 0xFFFF == folded(data) % 0xFFFF


@given(st.binary(max_size=1500), st.integers(0, 65535), st.integers(0, 65535))
def test_scapy_builds_the_same_udp_frame(payload: bytes, source_port: int, destination_port: int) -> None:
    ours = udp_frame(payload, source_port, destination_port)
    theirs = bytes(Ether(src="02:e3:01:01:00:01", dst="02:e3:ff:01:00:01")
                   / IP(src="10.1.1.11", dst="10.1.254.1", id=7, flags="DF", ttl=64)
                   / UDP(sport=source_port, dport=destination_port) / Raw(payload))
    assert ours == theirs


@given(st.binary(max_size=1500))
def test_a_udp_frame_is_read_back(payload: bytes) -> None:
    frame = udp_frame(payload)
    assert frames.parse_ipv4(frame) == (IP_A, frames.PROTOCOL_UDP, 34, len(frame))
    assert read_udp(frame) == (5000, 0xE300, payload)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_one_flipped_bit_is_noticed(payload: bytes, data: st.DataObject) -> None:
    frame = bytearray(udp_frame(payload))
    at = data.draw(st.integers(frames.ETHERNET_BYTES, len(frame) - 1))
    frame[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError):
        read_udp(bytes(frame))


@given(st.binary(max_size=300), st.integers(0, 65535), st.integers(0, 65535))
def test_an_echo_is_the_datagram_that_would_be_built_anew(payload: bytes, client_port: int, port: int) -> None:
    asked = frames.udp_frame(ETHERNET, IP_B, IP_A, client_port, port, 1, payload)
    anew = frames.udp_frame(ETHERNET, IP_A, IP_B, port, client_port, 7, payload)
    assert frames.udp_echo_frame(ETHERNET, IP_A, IP_B, 7, asked[34:]) == anew


def test_a_checksum_of_zero_means_none_was_sent() -> None:
    frame = bytearray(udp_frame(b"abc"))
    frame[40:42] = b"\0\0"
    assert read_udp(bytes(frame))[2] == b"abc"


def test_padding_behind_the_packet_is_cut_off() -> None:
    assert read_udp(udp_frame(b"x") + bytes(17))[2] == b"x"


@pytest.mark.parametrize("length", range(43))
def test_a_truncated_frame_is_refused(length: int) -> None:
    with pytest.raises(WireError):
        read_udp(udp_frame(b"hello")[:length])


@given(st.binary(max_size=300))
def test_a_datagram_behind_ip_options_is_read_and_checked(payload: bytes) -> None:
    built = bytes(Ether() / IP(src="10.1.254.1", dst="10.1.1.11", options=[IPOption(b"\x01\x01\x01\x00")])
                  / UDP(sport=5000, dport=7) / Raw(payload))
    assert read_udp(built) == (5000, 7, payload)
    broken = built[:44] + bytes((built[44] ^ 1,)) + built[45:]  # its checksum
    with pytest.raises(WireError, match="checksum"):
        read_udp(broken)


def test_a_fragment_is_refused() -> None:
    fragment = bytes(Ether() / IP(src="10.1.1.11", dst="10.1.254.1", flags="MF") / UDP() / Raw(b"x" * 16))
    with pytest.raises(WireError, match="fragment"):
        frames.parse_ipv4(fragment)


@given(st.binary(max_size=200))
def test_random_bytes_are_no_frame(data: bytes) -> None:
    for parse in (frames.parse_ipv4, frames.parse_arp):
        with pytest.raises(WireError):
            parse(data[:20] + b"\xff" + data[21:])


@given(st.binary(min_size=62, max_size=90), st.sampled_from((0x45, 0x45, 0x47)) | st.integers(0, 255),
       st.integers(15, 80), st.integers(0, 80))
def test_whatever_a_header_with_a_right_checksum_says_what_is_read_lies_in_the_frame(
        data: bytes, version_ihl: int, total: int, udp_size: int) -> None:
    frame, header = bytearray(data), 4 * (version_ihl & 15)
    frame[14], frame[16:18], frame[20:22] = version_ihl, total.to_bytes(2, "big"), b"\x40\0"
    udp = 14 + header
    if udp + 8 <= len(frame):
        frame[udp + 4:udp + 8] = udp_size.to_bytes(2, "big") + b"\0\0"
    frame[24:26] = b"\0\0"
    frame[24:26] = (0xFFFF - folded(frame[14:udp])).to_bytes(2, "big")
    sound = version_ihl >> 4 == 4 and 20 <= header <= total <= len(frame) - 14
    if not sound:
        with pytest.raises(WireError):
            frames.parse_ipv4(bytes(frame))
        return
    _, _, start, end = frames.parse_ipv4(bytes(frame))
    assert (start, end) == (udp, 14 + total)
    if not 8 <= udp_size <= end - start:
        with pytest.raises(WireError):
            frames.parse_udp(bytes(frame), start, end)
    else:
        assert frames.parse_udp(bytes(frame), start, end)[2] == frame[start + 8:start + udp_size]


def test_scapy_builds_the_same_arp_request() -> None:
    ours = frames.Arp(frames.ARP_REQUEST, MAC_A, IP_A, frames.ZERO_MAC, IP_B).frame(MAC_A, frames.BROADCAST_MAC)
    theirs = bytes(Ether(src="02:e3:01:01:00:01", dst="ff:ff:ff:ff:ff:ff")
                   / ARP(op=1, hwsrc="02:e3:01:01:00:01", psrc="10.1.1.11", hwdst="00:00:00:00:00:00",
                         pdst="10.1.254.1"))
    assert ours == theirs
    assert frames.parse_arp(ours) == frames.Arp(1, MAC_A, IP_A, frames.ZERO_MAC, IP_B)


def test_an_echo_reply_is_what_scapy_expects() -> None:
    request = bytes(Ether() / IP(src="10.1.254.1", dst="10.1.1.11") / ICMP(id=3, seq=9) / Raw(b"ping of odd size!"))
    _, _, start, end = frames.parse_ipv4(request)
    body = frames.icmp_echo_reply(request[start:end])
    assert body == bytes(ICMP(type=0, id=3, seq=9) / Raw(b"ping of odd size!"))
