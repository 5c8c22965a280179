"""ESP against the RFCs' vectors and against scapy's implementation."""

import hmac
from itertools import islice

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import IP
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation

from microservices.errors import ServiceError
from microservices.ipsec import (
    DEFAULT_SECRET,
    FIRST_SPI,
    MAX_SEQUENCE,
    TUNNEL_DESTINATION,
    TUNNEL_SOURCE,
    Ipsec,
    Tunnel,
    security_association,
)
from microservices.ipsec import SecurityAssociation as OurAssociation
from microservices.nfv_workload import NfvWorkload
from microservices.packet import flow_key
from microservices.service import Request
from microservices.sharding import slot_of, slot_owners
from microservices.state import reshard

PACKETS = list(islice(NfvWorkload(seed=3, flows=20, malicious_share=0).requests(), 60))


def scapy_association(spi: int) -> SecurityAssociation:
    ours = security_association(DEFAULT_SECRET, spi - FIRST_SPI)
    return SecurityAssociation(ESP, spi=spi, crypt_algo="AES-CBC", crypt_key=ours.encryption_key,
                               auth_algo="HMAC-SHA1-96", auth_key=ours.authentication_key,
                               tunnel_header=IP(src=TUNNEL_SOURCE, dst=TUNNEL_DESTINATION))


def with_iv(sa: OurAssociation, sequence: int, iv: bytes) -> Tunnel:
    """Return a tunnel whose next IV under `sequence` is `iv`: as if the block before had been what leads to it."""
    tunnel = Tunnel(sa)
    wanted = Cipher(algorithms.AES(sa.encryption_key), modes.ECB()).decryptor().update(iv)
    tunnel._last_block = sequence ^ int.from_bytes(wanted, "big")
    return tunnel


# RFC 3602, section 4: key, IV, plaintext, ciphertext.
@pytest.mark.parametrize(("key", "iv", "plaintext", "ciphertext"), [
    ("06a9214036b8a15b512e03d534120006", "3dafba429d9eb430b422da802c9fac41", b"Single block msg".hex(),
     "e353779c1079aeb82708942dbe77181a"),
    ("c286696d887c9aa0611bbb3e2025a45a", "562e17996d093d28ddb3ba695a2e6f58",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1"),
])
def test_aes_cbc_gives_the_vectors_of_rfc_3602(key, iv, plaintext, ciphertext) -> None:
    tunnel = with_iv(OurAssociation(1, bytes.fromhex(key), bytes(20)), 7, bytes.fromhex(iv))
    assert tunnel._encrypted(bytes.fromhex(plaintext), 7).hex() == iv + ciphertext
    # The encryptor that is kept alive does the same whatever it did before, under the IV that is the sequence number's.
    block = Cipher(algorithms.AES(bytes.fromhex(key)), modes.ECB())
    for sequence in (9, 4, 9):
        out = tunnel._encrypted(bytes.fromhex(plaintext), sequence)
        assert block.decryptor().update(out[:16]) == sequence.to_bytes(16, "big")
        anew = Cipher(algorithms.AES(bytes.fromhex(key)), modes.CBC(out[:16])).encryptor()
        assert out[16:] == anew.update(bytes.fromhex(plaintext))


def test_a_tunnelled_ping_is_sealed_as_in_case_7_of_rfc_3602() -> None:
    """The RFC's sample has no integrity check, so what comes after the ciphertext is not its business."""
    ping = bytes.fromhex("45000054090400004001f988c0a87b03c0a87bc8" "08009f76a90a0100b49c083d02a20400")
    ping += bytes(range(8, 56))
    sa = OurAssociation(0x8765, bytes.fromhex("0123456789abcdef" * 2), bytes(20), "192.168.123.3", "192.168.123.200")
    sealed = with_iv(sa, 2, bytes.fromhex("f4e765244f6407adf13dc1380f673f37")).seal(ping, 2)
    assert sealed[20:-12].hex() == (
        "0000876500000002" "f4e765244f6407adf13dc1380f673f37"
        "773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8e4ecaec78ac53aad7a0f022b859243c6"
        "47752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d")


def test_the_integrity_check_is_the_hmac_of_rfc_2202_cut_as_rfc_2404_says() -> None:
    """RFC 2202 gives HMAC-SHA-1 of 50 times 0xCD under 0x0102...19, whose first 12 bytes RFC 2404 sends."""
    vector = hmac.digest(bytes(range(1, 26)), b"\xcd" * 50, "sha1")
    assert vector.hex() == "4c9007f4026250c6bc8414f9bf50c86c2d7235da"
    sa = OurAssociation(7, bytes(16), bytes(range(1, 26)))
    sealed = Tunnel(sa).seal(PACKETS[0], 5)
    assert sealed[-12:] == hmac.digest(sa.authentication_key, sealed[20:-12], "sha1")[:12]


def test_scapy_opens_every_packet_and_finds_the_inner_one() -> None:
    ipsec = Ipsec()
    state = ipsec.new_state()
    for packet in PACKETS:
        (output,) = ipsec.handle(Request(packet), state)
        outer = IP(output.payload)
        spi = outer[ESP].spi
        assert spi == FIRST_SPI + slot_of(flow_key(packet))
        assert bytes(scapy_association(spi).decrypt(outer)) == packet
        outer = IP(output.payload)
        checksum = outer.chksum
        del outer.chksum
        assert IP(bytes(outer)).chksum == checksum


def test_ours_is_scapys_packet_to_the_byte_with_the_same_iv_and_sequence_number() -> None:
    for size in range(40, 72):
        packet = next(NfvWorkload(seed=size, size_bytes=size, malicious_share=0).requests())
        theirs = scapy_association(FIRST_SPI).encrypt(IP(packet), seq_num=77, iv=bytes(range(16)))
        ours = with_iv(security_association(DEFAULT_SECRET, 0), 77, bytes(range(16))).seal(packet, 77)
        assert ours[20:] == bytes(theirs)[20:]


def test_a_changed_byte_does_not_pass_scapys_integrity_check() -> None:
    ipsec = Ipsec()
    sealed = bytearray(ipsec.handle(Request(PACKETS[0]), ipsec.new_state())[0].payload)
    sealed[60] ^= 1
    outer = IP(bytes(sealed))
    with pytest.raises(IPSecIntegrityError):
        scapy_association(outer[ESP].spi).decrypt(outer)


def test_sequence_numbers_count_up_per_association_and_move_with_it() -> None:
    ipsec = Ipsec()
    state, last = ipsec.new_state(), {}
    for packet in PACKETS[:40]:
        header = IP(ipsec.handle(Request(packet), state)[0].payload)[ESP]
        assert header.seq == last.get(header.spi, 0) + 1
        last[header.spi] = header.seq
    owners = slot_owners(3)
    parts = reshard([state], owners)
    for packet in PACKETS[40:]:
        elsewhere = Ipsec()  # another node, with nothing but the state
        here = elsewhere.handle(Request(packet), parts[owners[slot_of(flow_key(packet))]])[0].payload
        assert here == ipsec.handle(Request(packet), state)[0].payload


def test_no_initialisation_vector_is_used_twice() -> None:
    ipsec = Ipsec()
    state = ipsec.new_state()
    ivs = [ipsec.handle(Request(PACKETS[0]), state)[0].payload[28:44] for _ in range(500)]
    assert len(set(ivs)) == 500


def test_an_association_without_sequence_numbers_left_is_an_error_not_a_wrap() -> None:
    ipsec = Ipsec()
    state = ipsec.new_state()
    slot = slot_of(flow_key(PACKETS[0]))
    state.arrays["sequence"][slot] = MAX_SEQUENCE - 1
    ipsec.handle(Request(PACKETS[0]), state)
    with pytest.raises(ServiceError, match="new keys"):
        ipsec.handle(Request(PACKETS[0]), state)
    assert state.arrays["sequence"][slot] == MAX_SEQUENCE


def test_a_packet_too_long_for_a_tunnel_is_an_error_and_costs_no_harm() -> None:
    ipsec = Ipsec()
    state = ipsec.new_state()
    long = next(NfvWorkload(size_bytes=65_500, malicious_share=0).requests())
    with pytest.raises(ServiceError, match="at most 65535"):
        ipsec.handle(Request(long), state)
    (output,) = ipsec.handle(Request(PACKETS[0]), state)
    assert bytes(scapy_association(IP(output.payload)[ESP].spi).decrypt(IP(output.payload))) == PACKETS[0]
