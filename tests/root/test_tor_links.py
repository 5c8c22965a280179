"""Links between switches die under the real app, with either OpenFlow library: who is told what, and how often.

    tor3, tor4 - agg3,4 - core1..4 - agg1 -x- tor1
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from tor_room import Room, ip, room
from waiting import until

from controller.fabric_repair import ends_of, repair
from controller.link_watch import HELD_S
from controller.tor_counters import rule_counters
from controller.tor_status import TorStatus
from topologies import addressing as at

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

FLOWS = 64


@pytest.fixture(scope="module", params=["ryu", "os_ken"])
def racks(request: pytest.FixtureRequest) -> Iterator[Room]:
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    with room("type1x1/4", request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def mended(racks: Room) -> Iterator[None]:
    yield
    ip(*[f"link set {p.interface} up" for p in racks.inventory.ports])
    settled(racks, ())
    assert strangers(racks) == []


def cut(*interfaces: str) -> None:
    ip(*[f"link set {name} down" for name in interfaces])


def heal(*interfaces: str) -> None:
    ip(*[f"link set {name} up" for name in interfaces])


def settled(racks: Room, dead: tuple[str, ...]) -> TorStatus:
    """Wait till the app counts the interfaces `dead` as down, and all switches do what follows."""
    assert until(lambda: racks.status_file.exists() and racks.status().dead_links == dead and racks.is_settled()), \
        racks.status() if racks.status_file.exists() else "no status"
    return racks.status()


def strangers(racks: Room) -> list[str]:
    """Return the rules that switches have beyond their programs as they are in force."""
    now = repair(racks.programs, ends_of(racks.programs, racks.status().dead_links)).programs
    return [f"{name}: {rule}" for name, program in now.items()
            for rule in rule_counters(racks.world.ofctl("dump-flows", name), program) if rule.startswith("stranger")]


def arrived(racks: Room, source: int, target: int) -> int:
    """Send FLOWS flows from a rack's client to another's; return how many arrive."""
    racks.send(f"r{source}c1-net", *[bytes(
        Ether(src=at.client_mac(source, 1), dst=at.switch_mac("tor", source))
        / IP(src=at.client_ip(source, 1), dst=at.client_ip(target, 1)) / UDP(sport=30000 + i, dport=at.DATA_PORT))
        for i in range(FLOWS)])
    return len(racks.received(FLOWS, wait_s=1.0).get(f"r{target}c1-net", []))


def test_a_link_that_another_switch_would_need_is_gone_round_and_only_switches_that_differ_are_told(
        racks: Room) -> None:
    before = racks.status()
    cut("agg1-tor1", "tor1-agg1")
    status = settled(racks, ("agg1-tor1", "tor1-agg1"))
    assert strangers(racks) == []
    for source in (2, 3, 4):
        assert arrived(racks, source, 1) == FLOWS
        assert arrived(racks, 1, source) == FLOWS
    sent = {name: seen.sent - (before.of(name) or seen).sent for name, seen in (status.switches or {}).items()}
    assert {name for name, count in sent.items() if count} == set(status.reroutes or {}) == {
        "tor2", "tor3", "tor4", "agg1", "agg3", "core1", "core2"}
    assert max(sent.values()) <= 4  # a group, a route, a guard for the port that is left out and its own
    repaired = status.repairs[-1]
    assert 0 < repaired.in_force_s - repaired.noticed_s < 2.0


def test_a_link_that_is_down_at_one_end_only_counts_as_dead_for_both(racks: Room) -> None:
    programs = racks.programs
    racks.world.ofctl("mod-port", "agg1", "agg1-tor1", "down")  # on a veth this takes the carrier of both
    assert until(lambda: "agg1-tor1" in racks.status().dead_links and racks.is_settled())
    assert arrived(racks, 1, 3) == arrived(racks, 3, 1) == FLOWS
    assert programs == racks.programs
    racks.world.ofctl("mod-port", "agg1", "agg1-tor1", "up")


def test_a_rack_that_nothing_leads_to_is_told_and_its_packets_are_dropped_under_a_name(racks: Room) -> None:
    cut("tor1-agg1", "tor1-agg2")
    status = settled(racks, ("agg1-tor1", "agg2-tor1", "tor1-agg1", "tor1-agg2"))
    assert (status.reroutes or {})["tor3"] == ("no way left to rack 1",)
    assert arrived(racks, 3, 1) == 0 and arrived(racks, 3, 2) == FLOWS
    now = repair(racks.programs, ends_of(racks.programs, status.dead_links)).programs["tor3"]
    assert until(lambda: rule_counters(racks.world.ofctl("dump-flows", "tor3"), now)[
        "no way left to rack 1, dropped"].packets == FLOWS)


def test_a_link_that_flaps_makes_no_storm_and_is_used_again_when_it_has_stayed_up(racks: Room) -> None:
    before, begun_s = len(racks.status().repairs), time.monotonic()
    for _ in range(30):
        cut("agg1-core1")
        time.sleep(0.03)
        heal("agg1-core1")
        time.sleep(0.03)
    lasted_s = time.monotonic() - begun_s
    status = settled(racks, ())
    assert 1 <= len(status.repairs) - before <= 2 * (1 + lasted_s / HELD_S)
    latest = status.repairs[-1]
    assert latest.dead == () and latest.in_force_s - latest.noticed_s >= HELD_S


def test_an_app_that_starts_anew_leaves_what_goes_round_the_dead_link_as_it_is(racks: Room) -> None:
    cut("agg1-tor1", "tor1-agg1")
    settled(racks, ("agg1-tor1", "tor1-agg1"))
    racks.app.kill()
    racks.app.wait()
    racks.status_file.unlink()
    racks.start_app()
    status = settled(racks, ("agg1-tor1", "tor1-agg1"))
    assert {seen.sent for seen in (status.switches or {}).values()} == {0}
    assert arrived(racks, 3, 1) == FLOWS


def test_an_app_that_starts_when_the_link_has_been_healed_restores_the_programs_and_dates_it(racks: Room) -> None:
    cut("agg1-tor1", "tor1-agg1")
    cut_at = settled(racks, ("agg1-tor1", "tor1-agg1")).repairs[-1]
    racks.app.kill()
    racks.app.wait()
    heal("agg1-tor1", "tor1-agg1")
    racks.start_app()
    assert until(lambda: racks.status().pid == racks.app.pid)
    status = settled(racks, ())
    assert strangers(racks) == [] and cut_at in status.repairs
    assert status.repairs[-1].dead == () and status.repairs[-1].in_force_s > cut_at.in_force_s


def test_a_link_that_dies_while_both_its_switches_are_away_is_gone_round_when_they_are_back(racks: Room) -> None:
    away = ("agg1", "tor1")
    for name in away:
        racks.world.vsctl("set-controller", name, "tcp:127.0.0.1:6654")  # where nobody listens
    time.sleep(0.5)
    cut("agg1-tor1", "tor1-agg1")
    time.sleep(0.3)
    assert racks.status().dead_links == () and arrived(racks, 3, 2) == FLOWS
    for name in away:
        racks.world.vsctl("set-controller", name, "tcp:127.0.0.1:6653", "--", "set", "controller", name,
                          "max_backoff=1000")
    settled(racks, ("agg1-tor1", "tor1-agg1"))
    assert arrived(racks, 3, 1) == FLOWS


def test_programs_that_are_read_again_are_repaired_for_what_is_dead(racks: Room) -> None:
    cut("agg1-tor1", "tor1-agg1")
    settled(racks, ("agg1-tor1", "tor1-agg1"))
    status = racks.hang_up()
    assert status.dead_links == ("agg1-tor1", "tor1-agg1") and strangers(racks) == []
    assert all(not any((seen.changes or {}).values()) for seen in (status.switches or {}).values())


def test_a_host_s_link_is_none_of_the_repairs(racks: Room) -> None:
    before = len(racks.status().repairs)
    cut("tor1-c1")
    time.sleep(0.5)
    assert len(racks.status().repairs) == before and racks.status().dead_links == ()
