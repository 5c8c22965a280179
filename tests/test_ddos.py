"""The DDoS detector's entropies are scipy's, and floods of either kind are seen."""

from collections import Counter
from itertools import islice
from random import Random

import pytest
from scipy.stats import entropy

from microservices.ddos import BINS, QUERY, WINDOW, Ddos, decode_verdict, source_bin, verdict
from microservices.errors import ServiceError
from microservices.nfv_workload import NfvWorkload, inner_packet
from microservices.packet import UDP
from microservices.service import REPLY, Output, Request
from microservices.sharding import slot_of, slot_owners
from microservices.state import reshard

DESTINATION = bytes((198, 19, 1, 1))
DETECTOR = Ddos()


def send(state, sources, destination=DESTINATION) -> None:
    for source in sources:
        packet = inner_packet(source, destination, UDP, 1, 2, b"")
        assert DETECTOR.handle(Request(packet), state) == (Output(packet),)


def usual(draw: Random, windows: int) -> list[bytes]:
    """Twelve clients, some busier than others."""
    clients = [bytes((198, 18, 0, i)) for i in range(12)]
    return draw.choices(clients, weights=range(1, 13), k=windows * WINDOW)


def test_the_entropy_of_a_window_is_scipys_over_the_bins() -> None:
    state, sources = DETECTOR.new_state(), usual(Random(1), 3)
    send(state, sources)
    bins = Counter(source_bin(s) for s in sources[-WINDOW:])
    seen = verdict(state, DESTINATION)
    assert seen.windows == 3 and seen.suspicious_windows == 0
    assert seen.entropy_bits == pytest.approx(entropy(list(bins.values()), base=2))


@pytest.mark.parametrize("flood", [lambda draw: bytes((10,)) + draw.randbytes(3), lambda draw: bytes((10, 6, 6, 6))])
def test_a_flood_of_forged_or_of_few_sources_is_suspicious_and_its_end_is_not(flood) -> None:
    state, draw = DETECTOR.new_state(), Random(2)
    send(state, usual(draw, 10))
    assert not verdict(state, DESTINATION).suspicious
    send(state, [flood(draw) for _ in range(40 * WINDOW)])
    during = verdict(state, DESTINATION)
    # However long the flood lasts, it does not become the usual.
    assert during.suspicious and during.suspicious_windows == 40
    send(state, usual(draw, 1))
    assert not verdict(state, DESTINATION).suspicious


def test_usual_traffic_raises_no_alarm() -> None:
    state = DETECTOR.new_state()
    send(state, usual(Random(3), 200))
    assert verdict(state, DESTINATION).suspicious_windows == 0


def test_a_query_is_answered_to_the_client_and_routed_like_the_destination() -> None:
    state = DETECTOR.new_state()
    send(state, usual(Random(4), 1))
    (output,) = DETECTOR.handle(Request(QUERY + DESTINATION), state)
    assert output.to == REPLY
    assert decode_verdict(output.payload) == verdict(state, DESTINATION)
    assert DETECTOR.key_of(QUERY + DESTINATION) == DESTINATION
    for wrong in (QUERY, QUERY + bytes(5), b"", bytes(20)):
        with pytest.raises(ServiceError):
            DETECTOR.handle(Request(wrong), state)
    with pytest.raises(ServiceError):
        decode_verdict(b"short")


def test_resharding_in_mid_window_changes_no_verdict() -> None:
    whole = DETECTOR.new_state()
    packets = list(islice(NfvWorkload(size_bytes=64, flows=20, malicious_share=0).requests(), 4000))
    for packet in packets[:2000]:
        DETECTOR.handle(Request(packet), whole)
    owners = slot_owners(4)
    parts = reshard([whole], owners)
    for packet in packets[2000:]:
        DETECTOR.handle(Request(packet), whole)
        DETECTOR.handle(Request(packet), parts[owners[slot_of(DETECTOR.key_of(packet))]])
    destinations = {p[16:20] for p in packets}
    assert any(verdict(whole, d).windows > 1 for d in destinations)
    for d in destinations:
        assert verdict(parts[owners[slot_of(d)]], d) == verdict(whole, d)
    assert len(whole.arrays["bins"]) == 256 * BINS


def test_a_threshold_of_nothing_is_refused() -> None:
    with pytest.raises(ServiceError):
        Ddos(threshold_bits=0.0)
