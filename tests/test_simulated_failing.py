"""A simulated network whose parts fail: what has no way is lost, what hangs goes on where it was."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from nodes.simulated import Simulation
from nodes.simulated_failing import SOCKET_DATAGRAMS, FailingNetwork, Ill
from nodes.simulated_network import NetworkFaults
from nodes.transport import Address, Send, Sends
from topologies.addressing import CONTROL_PORT, DATA_PORT
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

ROOM = inventory_of(cluster_named("type2:2x2/2", clients=1))


class Ear:
    """Hears what comes to a node, and says so once a second by itself."""

    def __init__(self, name: str, port: int = DATA_PORT) -> None:
        self.address = Address(IPv4Address(ROOM.node(name).ip).packed, port)
        self.sources: list[tuple[float, bytes]] = []
        self.heard: list[tuple[float, bytes]] = []
        self.worked: list[float] = []

    def receive(self, source: Address, payload: bytes, now: float, out: Sends) -> None:
        self.heard.append((now, payload))
        self.sources.append((now, source.ip))

    def work(self, now: float, out: Sends) -> None:
        self.worked.append(now)

    def due(self) -> float | None:
        return self.worked[-1] + 1.0 if self.worked else None


class Room:
    """A network with an ear at each of some nodes."""

    def __init__(self, *names: str) -> None:
        self.network = FailingNetwork(ROOM, NetworkFaults(delay_s=1e-4))
        self.ears = {name: Ear(name) for name in names}
        for ear in self.ears.values():
            self.network.plug(ear)

    def send(self, source: str, to: str, data: bytes = b"x") -> None:
        self.network.after(self.ears[source], [Send(*self.ears[to].address, data)])

    def arrives(self, source: str, to: str) -> bool:
        before = len(self.ears[to].heard)
        self.send(source, to)
        self.network.agenda.run(self.network.now + 0.01)
        return len(self.ears[to].heard) > before


@pytest.mark.parametrize(("ill", "name", "cut_off", "goes_on"), [
    (Ill.NO_LINK, "r1s1n1", [("r1s1n1", "r1c1"), ("r1s1n2", "r1s1n1")], [("r1s1n1", "r1s1h"), ("r1s1h", "r1c1")]),
    (Ill.NO_PCIE, "r1s1n1", [("r1s1n1", "r1s1h"), ("r1s1h", "r1s1n1")], [("r1s1n1", "r1c1"), ("r1s1h", "r1c1")]),
    (Ill.NO_LINK, "r1c1", [("r1c1", "r1s1h"), ("r1s1n1", "r1c1")], [("r1s1n1", "r2s1h")]),
    (Ill.OFF, "r1s1n1", [], [("r1s1h", "r1c1"), ("r2s1h", "r1s1h")])])
def test_what_has_failed_cuts_off_what_needs_it_and_nobody_else_till_it_is_mended(
        ill: Ill, name: str, cut_off: list[tuple[str, str]], goes_on: list[tuple[str, str]]) -> None:
    room = Room("r1s1h", "r1s1n1", "r1s1n2", "r1c1", "r2s1h")
    room.network.fail(ill, name)
    assert not [pair for pair in cut_off if room.arrives(*pair)]
    assert [pair for pair in goes_on if room.arrives(*pair)] == goes_on
    room.network.mend(ill, name)
    assert all(room.arrives(*pair) for pair in cut_off)


def test_a_host_is_cut_off_when_none_of_its_smartnics_hands_on() -> None:
    room = Room("r1s1h", "r1c1")
    room.network.fail(Ill.HANGS, "r1s1n1")
    assert room.arrives("r1s1h", "r1c1")
    room.network.fail(Ill.NO_PCIE, "r1s1n2")
    assert not room.arrives("r1s1h", "r1c1") and not room.arrives("r1c1", "r1s1h")


def test_a_side_reaches_itself_only_also_over_pcie() -> None:
    room = Room("r1s1h", "r1s1n1", "r1c1", "r2s1h")
    side = frozenset({"r1s1h", "r1c1"})
    room.network.part(side)
    assert room.arrives("r1s1h", "r1c1") and room.arrives("r1s1n1", "r2s1h")
    assert not room.arrives("r1s1h", "r1s1n1") and not room.arrives("r2s1h", "r1c1")
    room.network.join(side)
    assert room.arrives("r1s1h", "r1s1n1")


def test_what_fails_twice_is_to_be_mended_twice() -> None:
    room = Room("r1s1n1", "r1c1")
    for _ in range(2):
        room.network.fail(Ill.NO_LINK, "r1s1n1")
    room.network.mend(Ill.NO_LINK, "r1s1n1")
    assert not room.arrives("r1c1", "r1s1n1")
    room.network.mend(Ill.NO_LINK, "r1s1n1")
    assert room.arrives("r1c1", "r1s1n1")


def test_a_node_that_hangs_does_nothing_and_then_gets_what_its_sockets_kept_in_order() -> None:
    room = Room("r1s1n1", "r1c1")
    ear = room.ears["r1s1n1"]
    room.network.work(ear)
    room.network.fail(Ill.HANGS, "r1s1n1")
    for number in range(SOCKET_DATAGRAMS + 10):
        room.send("r1c1", "r1s1n1", b"%d" % number)
    room.network.agenda.run(2.5)
    assert not ear.heard and ear.worked == [0.0] and room.network.counters().lost == 10
    room.network.mend(Ill.HANGS, "r1s1n1")
    assert ear.heard == [(2.5, b"%d" % number) for number in range(SOCKET_DATAGRAMS)]
    room.network.agenda.run(4.0)
    assert ear.worked[-1] == 3.5  # its own timer goes on, too


def test_what_waits_for_a_node_that_hangs_is_gone_with_its_sockets() -> None:
    room = Room("r1s1n1", "r1c1")
    room.network.fail(Ill.HANGS, "r1s1n1")
    room.send("r1c1", "r1s1n1")
    room.network.agenda.run(0.1)
    room.network.unplug(room.ears["r1s1n1"])
    again = Ear("r1s1n1")
    room.network.plug(again)
    room.network.mend(Ill.HANGS, "r1s1n1")
    assert not again.heard and not room.ears["r1s1n1"].heard


def test_a_disturbed_link_loses_doubles_and_delays_what_crosses_it_and_nothing_else() -> None:
    room = Room("r1s1n1", "r1c1", "r2s1n1", "r2c1")
    faults = NetworkFaults(loss=0.5, duplication=0.5, delay_s=0.01)
    room.network.disturb("r1s1n1", faults)
    for _ in range(1000):
        room.send("r1c1", "r1s1n1")
        room.send("r2c1", "r2s1n1")
    room.network.agenda.run(1.0)
    assert len(room.ears["r2s1n1"].heard) == 1000 and 600 < len(room.ears["r1s1n1"].heard) < 900
    assert min(at for at, _ in room.ears["r1s1n1"].heard) > 0.01 > max(at for at, _ in room.ears["r2s1n1"].heard)
    room.network.calm("r1s1n1", faults)
    assert room.arrives("r1c1", "r1s1n1")


def test_a_node_that_is_booted_again_while_it_is_down_is_down_till_the_later_time() -> None:
    simulation = Simulation(ROOM, [], FailingNetwork(ROOM), controller="r1ctl1")
    controller = Ear("r1ctl1", CONTROL_PORT)
    simulation.network.plug(controller)
    simulation.reboot("r1s1n1", down_s=1.0)
    simulation.run(0.5)
    simulation.reboot("r1s1n1", down_s=5.0)
    simulation.run(8.0)
    beats = [at for at, source in controller.sources if source == Ear("r1s1n1").address.ip]
    assert min(beats) > 5.5 and len(beats) == len(set(beats)) > 20
