"""A SmartNIC's runtime, frame by frame, without sockets."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes import frames, messages
from nodes.execution import Execution
from nodes.forwarding import Forwarding, Port
from nodes.frames import packed_ip, packed_mac
from nodes.node_report import unpacked
from nodes.service_runtime import ServiceRuntime
from nodes.smartnic_runtime import SmartNicRuntime
from nodes.traffic_manager import TrafficManager
from nodes.transport import Transport
from topologies.addressing import CONTROL_PORT, DATA_PORT

NIC, HOST, CLIENT, GATEWAY = "10.1.1.11", "10.1.1.1", "10.1.254.1", "10.1.255.254"
AS_CLIENT = messages.CLIENT_BIT | 1
MAC, GATEWAY_MAC = "02:e3:01:01:00:01", "02:e3:ff:01:00:01"


def runtime(ready: bool = True, queue_frames: int = 4096, loses: Callable[[], bool] | None = None) -> SmartNicRuntime:
    services = ServiceRuntime(Execution("s1n1"), Transport(1))
    made = SmartNicRuntime(NIC, MAC, GATEWAY, HOST, services, queue_frames, loses)
    if ready:
        arp = frames.Arp(frames.ARP_REPLY, packed_mac(GATEWAY_MAC), packed_ip(GATEWAY), packed_mac(MAC), packed_ip(NIC))
        made.stack.receive_arp(Port.NETWORK, arp, [])
    return made


def udp(source: str, destination: str, port: int, payload: bytes, source_port: int = 4000) -> bytes:
    a, b = packed_ip(source), packed_ip(destination)
    ethernet = packed_mac(MAC) + packed_mac(GATEWAY_MAC) + frames.ETHERTYPE_IPV4
    return frames.udp_frame(ethernet, a, b, source_port, port, 1, payload)


def read_udp(frame: bytes) -> tuple[int, int, bytes]:
    _, _, start, end = frames.parse_ipv4(frame)
    return frames.parse_udp(frame, start, end)


def passed(nic: SmartNicRuntime, ingress: Port, frame: bytes) -> list[tuple[int, bytes]]:
    out: list[tuple[int, bytes]] = []
    nic.receive(ingress, frame)
    nic.run(10, 0.0, out)
    return out


@pytest.mark.parametrize(("ingress", "destination", "egress"), [
    (Port.NETWORK, NIC, Port.LOCAL), (Port.NETWORK, HOST, Port.HOST), (Port.NETWORK, CLIENT, Port.DROP),
    (Port.HOST, NIC, Port.LOCAL), (Port.HOST, CLIENT, Port.NETWORK), (Port.HOST, "10.1.1.12", Port.NETWORK),
    (Port.HOST, HOST, Port.DROP), (Port.LOCAL, HOST, Port.HOST), (Port.LOCAL, "10.1.1.12", Port.NETWORK)])
def test_forwarding_goes_by_destination_ip(ingress: Port, destination: str, egress: Port) -> None:
    assert Forwarding(packed_ip(NIC), packed_ip(HOST)).egress(ingress, packed_ip(destination)) is egress


def test_what_is_for_the_host_passes_untouched_both_ways() -> None:
    nic = runtime()
    inward, outward = udp(CLIENT, HOST, 9, b"in"), udp(HOST, CLIENT, 9, b"out")
    assert passed(nic, Port.NETWORK, inward) == [(Port.HOST, inward)]
    assert passed(nic, Port.HOST, outward) == [(Port.NETWORK, outward)]


def test_a_misrouted_packet_is_dropped_and_counted() -> None:
    nic = runtime()
    assert passed(nic, Port.NETWORK, udp(HOST, CLIENT, 9, b"stray")) == []
    assert nic.counters()["dropped_misrouted"] == 1


def test_the_echo_service_answers_through_the_gateway() -> None:
    (port, frame), = passed(runtime(), Port.NETWORK, udp(CLIENT, NIC, 7, b"hello"))
    assert port == Port.NETWORK and frame[:6] == packed_mac(GATEWAY_MAC)
    assert frame[30:34] == packed_ip(CLIENT) and read_udp(frame) == (7, 4000, b"hello")


def test_a_damaged_datagram_is_not_echoed() -> None:
    nic, frame = runtime(), bytearray(udp(CLIENT, NIC, 7, b"hello"))
    frame[-1] ^= 1
    assert passed(nic, Port.NETWORK, bytes(frame)) == []
    assert nic.counters()["dropped_by_stack"] == 1


def test_an_answer_to_the_host_goes_over_pcie() -> None:
    (port, frame), = passed(runtime(), Port.HOST, udp(HOST, NIC, 7, b"hello"))
    assert port == Port.HOST and frame[:12] == packed_mac(MAC) * 2


def test_two_echo_services_do_not_talk_for_ever() -> None:
    assert passed(runtime(), Port.NETWORK, udp(CLIENT, NIC, 7, b"loop", source_port=7)) == []


def test_a_request_for_no_instance_gets_an_error_reply() -> None:
    request = messages.DataMessage(messages.KIND_REQUEST, 1, 3, 77, packed_ip(CLIENT), 4000, 0, b"payload", AS_CLIENT)
    nic = runtime()
    (_, frame), = passed(nic, Port.NETWORK, udp(CLIENT, NIC, DATA_PORT, request.encode()))
    reply = messages.decode(read_udp(frame)[2])
    assert isinstance(reply, messages.DataMessage)
    assert (reply.kind, reply.request_id, reply.client) == (messages.KIND_ERROR, 77, (CLIENT, 4000))
    due = nic.due()
    assert due is not None
    out: list[tuple[int, bytes]] = []
    nic.run(0, due, out)
    (_, frame), = out
    acknowledgement = messages.decode(read_udp(frame)[2])
    assert isinstance(acknowledgement, messages.AckMessage)
    assert [(entry.channel, entry.expected) for entry in acknowledgement.entries] == [(request.channel, 1)]


@pytest.mark.parametrize("sender", [3, AS_CLIENT])
def test_nobody_begins_a_channel_in_anothers_name(sender: int) -> None:
    nic = runtime()
    elsewhere = "10.1.254.9"
    request = messages.DataMessage(messages.KIND_REQUEST, 1, 3, 77, packed_ip(CLIENT), 4000, 0, b"x", sender, 2**32 - 1)
    assert passed(nic, Port.NETWORK, udp(elsewhere, NIC, DATA_PORT, request.encode())) == []
    assert nic.counters()["dropped_forged"] == 1


def test_frames_are_lost_on_purpose_only_where_asked_and_only_ipv4() -> None:
    nic = runtime(loses=lambda: True)
    lacp = bytes.fromhex("0180c2000002") + packed_mac(MAC) + frames.ETHERTYPE_SLOW + bytes(110)
    assert passed(nic, Port.NETWORK, udp(CLIENT, HOST, 9, b"in")) == []
    assert passed(nic, Port.HOST, lacp) == [(Port.NETWORK, lacp)]
    assert nic.counters()["dropped_on_purpose"] == 1


def test_a_stats_query_is_answered_with_the_counters() -> None:
    nic = runtime()
    query = messages.StatsMessage(messages.KIND_STATS_QUERY, 5)
    (_, frame), = passed(nic, Port.NETWORK, udp("10.1.253.1", NIC, CONTROL_PORT, query.encode()))
    report = messages.decode(read_udp(frame)[2])
    assert isinstance(report, messages.StatsMessage) and report.query_id == 5
    assert "to_local" in unpacked(report.payload)


def test_lacp_passes_between_host_and_tor() -> None:
    nic = runtime()
    frame = bytes.fromhex("0180c2000002") + packed_mac(MAC) + frames.ETHERTYPE_SLOW + bytes(110)
    assert passed(nic, Port.HOST, frame) == [(Port.NETWORK, frame)]
    assert passed(nic, Port.NETWORK, frame) == [(Port.HOST, frame)]


def test_arp_for_the_host_passes_and_arp_for_the_smartnic_is_answered() -> None:
    nic = runtime()

    def asked(target: str) -> list[tuple[int, bytes]]:
        arp = frames.Arp(frames.ARP_REQUEST, packed_mac(GATEWAY_MAC), packed_ip(GATEWAY), frames.ZERO_MAC,
                         packed_ip(target))
        return passed(nic, Port.NETWORK, arp.frame(packed_mac(GATEWAY_MAC), frames.BROADCAST_MAC))

    assert asked(HOST)[0][0] == Port.HOST
    (port, frame), = asked(NIC)
    assert port == Port.NETWORK and frames.parse_arp(frame).sender_mac == packed_mac(MAC)


def test_what_cannot_be_sent_yet_waits_for_the_gateway() -> None:
    nic = runtime(ready=False)
    assert passed(nic, Port.NETWORK, udp(CLIENT, NIC, 7, b"early")) == []
    out: list[tuple[int, bytes]] = []
    nic.tick(0.0, out)
    assert frames.parse_arp(out[0][1]).target_ip == packed_ip(GATEWAY)
    reply = frames.Arp(frames.ARP_REPLY, packed_mac(GATEWAY_MAC), packed_ip(GATEWAY), packed_mac(MAC), packed_ip(NIC))
    (_, frame), = passed(nic, Port.NETWORK, reply.frame(packed_mac(GATEWAY_MAC), packed_mac(MAC)))
    assert read_udp(frame)[2] == b"early"


def test_only_the_network_may_say_who_the_gateway_is() -> None:
    nic = runtime(ready=False)
    reply = frames.Arp(frames.ARP_REPLY, packed_mac(MAC), packed_ip(GATEWAY), packed_mac(MAC), packed_ip(NIC))
    passed(nic, Port.HOST, reply.frame(packed_mac(MAC), packed_mac(MAC)))
    assert not nic.stack.ready


def test_a_full_queue_drops_and_counts() -> None:
    nic = runtime(queue_frames=2)
    frame = udp(CLIENT, HOST, 9, b"x")
    assert [nic.receive(Port.NETWORK, frame) for _ in range(3)] == [True, True, False]
    counters = nic.counters()
    assert (counters["queue_depth"], counters["queue_dropped"], counters["queue_deepest"]) == (2, 1, 2)


def test_a_queue_is_first_come_first_served() -> None:
    queue = TrafficManager(10)
    for name in (b"a", b"b", b"c"):
        queue.offer(0, name)
    assert [queue.take()[1] for _ in range(3)] == [b"a", b"b", b"c"]


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from([Port.NETWORK, Port.HOST]), st.binary(max_size=120)), max_size=20))
def test_random_frames_are_passed_or_counted(arrivals: list[tuple[Port, bytes]]) -> None:
    nic = runtime()
    for ingress, frame in arrivals:
        passed(nic, ingress, frame)
    assert nic.counters()["queue_enqueued"] == len(arrivals) and nic.counters()["queue_depth"] == 0


def test_a_hundred_thousand_hostile_frames_change_nothing_but_counters() -> None:
    """Valid frames with bytes flipped, cut short, or with their lengths lied about."""
    nic = runtime()
    draw = random.Random(3)
    request = messages.DataMessage(messages.KIND_REQUEST, 1, 3, 77, packed_ip(CLIENT), 4000, 0, b"p" * 64, AS_CLIENT)
    seeds = [udp(CLIENT, NIC, DATA_PORT, request.encode()), udp(CLIENT, NIC, DATA_PORT, request.encode()[:-1]),
             udp(CLIENT, NIC, CONTROL_PORT, b"\xe3\xa7\x01\x10"),
             udp(CLIENT, HOST, 9, b"host"), udp(CLIENT, NIC, 7, b"echo"),
             frames.Arp(1, bytes(6), packed_ip(CLIENT), bytes(6), packed_ip(NIC)).frame(bytes(6), bytes(6))]
    out: list[tuple[int, bytes]] = []
    for _ in range(100_000):
        frame = bytearray(draw.choice(seeds))
        for _ in range(draw.randrange(4)):
            frame[draw.randrange(len(frame))] = draw.randrange(256)
        if draw.random() < 0.3:
            del frame[draw.randrange(len(frame) + 1):]
        nic.receive(draw.choice((0, 1)), bytes(frame))
        nic.run(1, 0.0, out)
    counters = nic.counters()
    assert counters["queue_enqueued"] == 100_000
    for reason in ("misrouted", "truncated", "foreign", "by_stack", "undecodable", "unknown_instance"):
        assert counters[f"dropped_{reason}"] > 0, reason
    out.clear()
    assert passed(nic, Port.NETWORK, udp(CLIENT, NIC, 7, b"still here"))
