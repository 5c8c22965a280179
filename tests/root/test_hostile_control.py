"""Hostile control traffic on a running rack: it is rejected and counted, and nothing moves.

    c1   a client's namespace: raw frames, with its own address and with others'
    s2n1 a compute node that was taken over: frames from its own interface, as its agent would send them
"""

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.overload import OverloadOptions
from experiments.clients.client import ClientConfig
from experiments.emulation.control_plane import inside
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.testbed import Testbed, TestbedOptions
from microservices.applications import nfv_fin
from nodes import frames, messages
from nodes.control_messages import (
    HEARTBEAT_S,
    MAX_CHUNK,
    NO_INSTANCE,
    Answer,
    Chunk,
    Command,
    Fetch,
    Heartbeat,
    Refusal,
    Standing,
    Verb,
    slot_of_time,
)
from nodes.deployment import deploy
from nodes.fetching import digest_of
from nodes.frames import packed_ip, packed_mac
from topologies.addressing import CONTROL_PORT, DATA_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

CLUSTER = "type1x3"
INVENTORY = inventory_of(cluster_named(CLUSTER))
APPLICATION = nfv_fin(shards=3)
DEPLOYMENT = deploy(APPLICATION, place_in_turn(APPLICATION, INVENTORY), INVENTORY)
VICTIM, TAKEN, CLIENT = "s1n1", "s2n1", "c1"
NUMBER = next(place.number for place in DEPLOYMENT.places if place.node == VICTIM)


@pytest.fixture(scope="module")
def bed() -> Iterator[Testbed]:
    """A rack whose orchestrator moves what a standing queue asks for, as the forged heartbeats have it.

    At the speed of this machine execution times are its own noise, so nothing follows from them.
    """
    with Testbed.start(TestbedOptions(CLUSTER, label="hostile-control", deployments=(DEPLOYMENT,), orchestrator="on",
                                      overload=OverloadOptions(excess=1e6))) as started:
        yield started


@pytest.fixture(autouse=True)
def nothing_moves(bed: Testbed) -> Iterator[None]:
    """After each test every instance is where it was, nothing is under way, and the application works.

    All that has happened is that nodes were heard for the first time.
    """
    before = bed.asked().places()
    yield
    time.sleep(0.5)
    assert bed.asked().places() == before
    assert {event.what for event in bed.asked().events()} <= {"alive"}
    assert not bed.asked().state().under_way
    number = bed.next_client_number()
    result = bed.start_client(CLIENT, ClientConfig(bed.inventory.node(CLIENT).ip, number, DEPLOYMENT, DEPLOYMENT.name,
                                                   200, seed=number, timeout_s=30.0)).result(60.0)
    assert result.answered == 200 and not (result.wrong or result.errors or result.foreign), result


class Attacker:
    """Sends frames from the interface of a node, whatever address they claim to come from."""

    def __init__(self, bed: Testbed, node: str) -> None:
        port = bed.inventory.ports_of_node(node)[0]
        self._ethernet = (packed_mac(bed.inventory.switch("tor1").mac) + packed_mac(bed.inventory.node(node).mac)
                          + frames.ETHERTYPE_IPV4)
        with inside(bed.net[node].pid):
            self._raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._raw.bind((port.peer_interface, 0))

    def send(self, source: str, to: str, payload: bytes, port: int = CONTROL_PORT, from_port: int = CONTROL_PORT,
             ) -> None:
        time.sleep(0.0005)  # a burst would be lost on its way, not refused
        self._raw.send(frames.udp_frame(self._ethernet, packed_ip(INVENTORY.node(source).ip),
                                        packed_ip(INVENTORY.node(to).ip), from_port, port, 1, payload))


@pytest.fixture
def attacker(bed: Testbed) -> Callable[[str], Attacker]:
    return lambda node: Attacker(bed, node)


def alarming(bed: Testbed, number: int = NUMBER, after: int = 0) -> bytes:
    """Return a heartbeat that a starving SmartNIC would send now, of an instance that takes all its cores."""
    slot = slot_of_time(bed.clock.reader()()) + after
    return Heartbeat(slot % 65536, DEPLOYMENT.number, number, 40_000, 255, 0, 0, 255).encode()


def flood(bed: Testbed, send: Callable[[bytes], Any], seconds: float = 1.0) -> int:
    """Send alarming heartbeats for a while, one for each slot and one for the next; return how many."""
    sent, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        for after in (0, 1):
            send(alarming(bed, after=after))
            sent += 1
        time.sleep(HEARTBEAT_S)
    return sent


def dropped(bed: Testbed, *words: str) -> int:
    return sum(c.packets for c in bed.rule_counters("tor1").values() if c.drops and all(w in c.name for w in words))


def soon(what: Callable[[], object], wanted: object) -> None:
    """Assert that something comes to be as wanted within 5 s."""
    deadline = time.monotonic() + 5.0
    while (found := what()) != wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == wanted


def refused(bed: Testbed, node: str) -> dict[str, int]:
    return {name: count for name, count in bed.counters(node)[node].items() if name.startswith("control ")}


def command(verb: Verb, epoch: int = 99, **more: Any) -> bytes:
    values = {"term": 99, "boot": 0, "migration": 99, "application": DEPLOYMENT.number, "instance": NUMBER, **more}
    return Command(verb=verb, epoch=epoch, **values).encode()


# -- from a client ---------------------------------------------------------------------------------------------------

def test_heartbeats_from_a_client_do_not_pass_the_switch(bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    before, heard = dropped(bed, "control port", CLIENT), bed.asked().state().counts
    client = attacker(CLIENT)
    sent = flood(bed, lambda beat: client.send(CLIENT, "ctl1", beat), 0.5)
    soon(lambda: dropped(bed, "control port", CLIENT), before + sent)
    assert bed.asked().state().counts["refused_unknown_source"] == heard["refused_unknown_source"] == 0


@pytest.mark.parametrize("as_if", [VICTIM, "ctl1"])
def test_a_client_cannot_send_in_the_name_of_a_node_or_the_controller(bed: Testbed, as_if: str,
                                                                      attacker: Callable[[str], Attacker]) -> None:
    before, commands = dropped(bed, "spoofed source", "tor1-c1"), refused(bed, VICTIM)
    client = attacker(CLIENT)
    sent = flood(bed, lambda beat: client.send(as_if, "ctl1", beat), 0.5)
    for verb in Verb:
        client.send(as_if, VICTIM, command(verb))
        sent += 1
    soon(lambda: dropped(bed, "spoofed source", "tor1-c1"), before + sent)
    assert refused(bed, VICTIM) == commands


def test_commands_from_a_client_do_not_pass_the_switch_nor_through_the_data_port(
        bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    before, commands = dropped(bed, "control port", CLIENT), refused(bed, VICTIM)
    undecodable = bed.counters(VICTIM)[VICTIM]["dropped_undecodable"]
    client = attacker(CLIENT)
    for verb in Verb:
        client.send(CLIENT, VICTIM, command(verb))
        client.send(CLIENT, VICTIM, command(verb), port=DATA_PORT)
    soon(lambda: dropped(bed, "control port", CLIENT), before + len(Verb))
    assert refused(bed, VICTIM) == commands
    soon(lambda: bed.counters(VICTIM)[VICTIM]["dropped_undecodable"], undecodable + len(Verb))


def test_a_client_that_lies_to_another_of_where_an_instance_is_is_not_believed(
        bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    number = bed.next_client_number()
    running = bed.start_client(CLIENT, ClientConfig(bed.inventory.node(CLIENT).ip, number, DEPLOYMENT, DEPLOYMENT.name,
                                                    0, flows=4, window=2, seed=number, timeout_s=30.0))
    time.sleep(0.5)
    with inside(bed.net[CLIENT].pid):
        ports = [int(line.split()[1].rpartition(":")[2], 16)
                 for line in Path("/proc/thread-self/net/udp").read_text().splitlines()
                 if line.split()[0][:-1].isdigit()]
        liar = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        liar.bind((bed.inventory.node(CLIENT).ip, 0))
    with liar:
        for port in ports:
            for entry in (p.number for p in DEPLOYMENT.places):
                liar.sendto(command(Verb.CONNECT, instance=entry, peer=packed_ip(INVENTORY.node("s3h").ip)),
                            (bed.inventory.node(CLIENT).ip, port))
    time.sleep(0.5)
    running.stop()
    result = running.result(60.0)
    assert ports and result.answered == result.sent > 0 and not (result.lost or result.wrong or result.errors), result


# -- from a node that was taken over -----------------------------------------------------------------------------------

def test_a_node_that_was_taken_over_cannot_report_for_another(bed: Testbed,
                                                              attacker: Callable[[str], Attacker]) -> None:
    before = dropped(bed, "spoofed source", f"tor1-{TAKEN}")
    foreign = bed.asked().state().counts["foreign_instance"]
    taken = attacker(TAKEN)
    spoofed = flood(bed, lambda beat: taken.send(VICTIM, "ctl1", beat), 0.5)
    soon(lambda: dropped(bed, "spoofed source", f"tor1-{TAKEN}"), before + spoofed)
    quiet = Heartbeat(0, DEPLOYMENT.number, NUMBER, 60_000, 0, 0, 0, 255)
    for _ in range(10):
        slot = slot_of_time(bed.clock.reader()()) + 1
        taken.send(TAKEN, "ctl1", Heartbeat(slot % 65536, quiet.application, quiet.instance, quiet.execution, 0, 0, 0,
                                            255).encode())
        time.sleep(HEARTBEAT_S)
    assert bed.asked().state().counts["foreign_instance"] > foreign


def test_old_heartbeats_that_are_sent_again_are_refused(bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    counts = bed.asked().state().counts
    taken = attacker(TAKEN)
    slot = slot_of_time(bed.clock.reader()())
    repeated = [Heartbeat((slot - back) % 65536, 1, NO_INSTANCE, 0, 255, 0, 0, 0).encode() for back in (1, 3, 5)]
    stale = [Heartbeat((slot - back) % 65536, 1, NO_INSTANCE, 0, 255, 0, 0, 0).encode() for back in (60, 600, 30_000)]
    early = [Heartbeat((slot + ahead) % 65536, 1, NO_INSTANCE, 0, 255, 0, 0, 0).encode() for ahead in (200, 2000)]
    for beat in (*repeated, *stale, *early):
        taken.send(TAKEN, "ctl1", beat)
    time.sleep(0.3)
    now = bed.asked().state().counts
    assert now["refused_late"] == counts["refused_late"] + len(stale)
    assert now["refused_ahead"] == counts["refused_ahead"] + len(early)
    assert now["refused_repeated"] >= counts["refused_repeated"] + len(repeated)
    assert now["rebooted"] == counts["rebooted"]


def test_a_node_obeys_no_other_node(bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    reason = "control command not from the controller"
    before = refused(bed, VICTIM).get(reason, 0)
    taken = attacker(TAKEN)
    for verb in Verb:
        taken.send(TAKEN, VICTIM, command(verb))
    soon(lambda: refused(bed, VICTIM).get(reason, 0), before + len(Verb))
    assert f"handled {DEPLOYMENT.name}/{APPLICATION.instances[NUMBER].name}" in bed.counters(VICTIM)[VICTIM]


def test_a_node_that_was_taken_over_cannot_speak_as_the_controller(bed: Testbed,
                                                                   attacker: Callable[[str], Attacker]) -> None:
    before, commands = dropped(bed, "spoofed source", f"tor1-{TAKEN}"), refused(bed, VICTIM)
    taken = attacker(TAKEN)
    for verb in Verb:
        taken.send("ctl1", VICTIM, command(verb))
    soon(lambda: dropped(bed, "spoofed source", f"tor1-{TAKEN}"), before + len(Verb))
    assert refused(bed, VICTIM) == commands


def test_answers_fetches_and_noise_that_nobody_asked_for_are_counted(bed: Testbed,
                                                                     attacker: Callable[[str], Attacker]) -> None:
    counts, draw = bed.asked().state().counts, random.Random(6)
    taken = attacker(TAKEN)
    answers = [Answer(1, 1, migration, verb, Standing.LIVE, Refusal.NONE, DEPLOYMENT.number, NUMBER, 9).encode()
               for migration in (0, 1, 99) for verb in Verb]
    fetches = [Fetch(draw.randbytes(16), 0).encode() for _ in range(20)]
    noise = [draw.randbytes(draw.randrange(600)) for _ in range(200)]
    foreign = [command(verb) for verb in Verb] + [Chunk(bytes(16), 0, b"x").encode()]
    for payload in (*answers, *fetches, *noise, *foreign):
        taken.send(TAKEN, "ctl1", payload)
    names = ("refused_answers_and_fetches", "refused_undecodable", "refused_not_for_a_controller")
    soon(lambda: [bed.asked().state().counts[name] - counts[name] for name in names],
         [len(fetches), len(noise), len(foreign)])
    assert not bed.asked().state().deposed


def test_a_node_that_was_taken_over_cannot_depose_the_controller(
        bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    taken = attacker(TAKEN)
    taken.send(TAKEN, "ctl1", Answer(bed.asked().state().term, 1, 1, Verb.START, Standing.LIVE, Refusal.OLD_TERM,
                                     DEPLOYMENT.number, NUMBER, 9).encode())
    time.sleep(0.2)
    assert not bed.asked().state().deposed


def test_chunks_of_another_content_are_not_taken(bed: Testbed, attacker: Callable[[str], Attacker]) -> None:
    reason = "control chunk that was not asked for"
    before = refused(bed, VICTIM).get(reason, 0)
    taken = attacker(TAKEN)
    for i in range(10):
        taken.send(TAKEN, VICTIM, Chunk(bytes([i]) * 16, 0, b"evil").encode())
    soon(lambda: refused(bed, VICTIM).get(reason, 0), before + 10)


@pytest.mark.parametrize(("served", "reason"), [(b"evil" * 1000, "fetched: wrong digest"),
                                                (b"# another program\n" * 222, "fetched: unusable")])
def test_a_pushed_binary_that_is_not_what_it_should_be_is_not_taken(bed: Testbed, served: bytes, reason: str) -> None:
    """Who stands at the controller's own address pushes other bytes than announced, or another program."""
    to, announced = "s3h", digest_of(served) if "unusable" in reason else digest_of(b"good" * 1000)
    before = refused(bed, to).get(f"control {reason}", 0)
    bed.kill_controller()
    own = bed.inventory.node("ctl1")
    with inside(bed.net["ctl1"].pid):
        evil = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with evil:
        evil.bind((own.ip, CONTROL_PORT))
        evil.settimeout(5.0)
        number = next(place.number for place in DEPLOYMENT.places if place.node == "s1h")
        evil.sendto(command(Verb.PREPARE, epoch=1, term=1, migration=hash(reason) & 0xFFFF, instance=number,
                            peer=packed_ip(own.ip), size=len(served), digest=announced),
                    (bed.inventory.node(to).ip, CONTROL_PORT))
        while refused(bed, to).get(f"control {reason}", 0) == before:
            message = messages.decode(evil.recv(1 << 16))
            if isinstance(message, Fetch):
                evil.sendto(Chunk(announced, message.offset,
                                  served[message.offset:message.offset + MAX_CHUNK]).encode(),
                            (bed.inventory.node(to).ip, CONTROL_PORT))
    bed.start_controller()
    assert refused(bed, to)[f"control {reason}"] == before + 1
    assert not any(name.startswith(f"handled {DEPLOYMENT.name}/{APPLICATION.instances[number].name}")
                   for name in bed.counters(to)[to])
