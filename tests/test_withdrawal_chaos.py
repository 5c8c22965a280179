"""An application is withdrawn while nodes and the controller die at any step of it, in a network that loses datagrams.

In the end nothing of it is anywhere, its neighbour has lost nothing, and it can be deployed again, empty.
"""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from withdrawing_rack import LONE_AT, NAME, NODES, MigrationError, WithdrawingRack

from nodes.simulated import NetworkFaults
from nodes.transport import Send

STEPS = ("settling", "closing", "clearing", "withdrawn")
USUAL = (NetworkFaults(delay_s=5e-5), NetworkFaults(loss=0.03, delay_s=5e-5, jitter_s=1e-4),
         NetworkFaults(loss=0.15, duplication=0.05, reordering=0.05, delay_s=5e-5, jitter_s=1e-4, reordering_s=1e-3))
COSTS_S = ((0.0,), (1e-5, 2e-3), (0.05,))
VICTIMS = tuple(node for node in NODES if node != LONE_AT)  # what that one held would be lost with it


class Chaos:
    """The withdrawal of `seed`, and what strikes it."""

    def __init__(self, folder: Path, seed: int) -> None:
        draw = self.draw = random.Random(f"withdrawal {seed}")
        costs, cost_draw = draw.choice(COSTS_S), random.Random(f"costs {seed}")
        self.rack = WithdrawingRack(folder, draw.choice((0, 1)), draw.choice(USUAL), seed,
                                    lambda _: lambda *_: cost_draw.choice(costs), draw.choice((0, 8)))
        self.rebooted = False
        self.said: list[str] = []

    def play(self) -> list[str]:
        """Play it; return what is wrong."""
        rack, draw = self.rack, self.draw
        assert rack.until(lambda: all(node.life == "alive" for node in rack.controller.state(rack.network.now).nodes)
                          and rack.paired())
        clients = [rack.client(rack.deployment, window=draw.choice((1, 4))), rack.client(rack.lone, "c2")]
        rack.run(draw.uniform(0.0, 0.3))
        if draw.random() < 0.7:
            self.move(draw.choice(("front-1", "last-1", "store-1")))
            rack.run(draw.choice((0.0, 1e-3, 0.02)))
        rack.withdraw()
        for _ in range(draw.choice((1, 2, 3))):
            self.strike(draw.choice(STEPS))
        if rack.control is None:
            rack.start_controller()
        gone = rack.until(lambda: rack.gone() and not rack.controller.withdrawals.of[rack.number].owed, 60.0, 0.02)
        found = [] if gone else [f"not withdrawn: {rack.state()}, {rack.controller.withdrawals.of[rack.number]}"]
        rack.run(1.0)
        rack.stop_clients()
        rack.until(lambda: rack.is_answered(clients[1]), 30.0, 0.02)
        if not rack.is_answered(clients[1]):
            found.append("the neighbour owes replies")
        rack.run(12.0)  # clients are told for so long
        found += rack.remains() + rack.of_neighbour()
        if not self.rebooted:  # what went down with a node nobody knows any more
            found += rack.of_withdrawn()
        return found + self.again()

    def move(self, instance: str) -> None:
        rack, out = self.rack, list[Send]()
        with suppress(MigrationError):
            rack.controller.move(f"{NAME}/{instance}", self.draw.choice(NODES), rack.network.now, out)
        assert rack.control is not None
        rack.network.after(rack.control, out)

    def strike(self, step: str) -> None:
        """Wait for a step, if it is still to come, and let somebody die, be started anew, or hang for a while."""
        rack, draw = self.rack, self.draw
        rack.until(lambda: rack.state() in (step, *STEPS[STEPS.index(step):]), 20.0, 2e-4)
        rack.run(draw.choice((0.0, 1e-4, 0.01)))
        kind, node, for_s = draw.choice(("reboot", "hang", "controller", "controller")), draw.choice(VICTIMS), \
            draw.choice((0.01, 0.3, 2.0))
        self.said.append(f"{rack.network.now:.4f} {rack.state()}: {kind} {node} {for_s}")
        if kind == "reboot":
            self.rebooted = True
            rack.reboot(node, for_s)
        elif kind == "hang":
            node = draw.choice(NODES)
            rack.hang(node)
            rack.network.at(for_s, partial(rack.go_on, node))
        else:
            rack.kill_controller()
            rack.run(for_s)
            rack.start_controller()

    def again(self) -> list[str]:
        """Deploy it again, and return what is not as it is for one that was never there."""
        rack = self.rack
        rack.until(lambda: all(node.life == "alive" for node in rack.controller.state(rack.network.now).nodes))
        made = rack.deploy_again()
        if not rack.until(rack.paired, 20.0, 0.02):
            return ["deployed again, it is not paired"]
        client = rack.client(made, requests=20)
        rack.until(lambda: rack.is_answered(client))
        told = sorted(int(answer.payload) for answer in client.answers)
        return client.complaints() + ([] if told == list(range(1, 21)) else [f"deployed again, it told {told}"])


@pytest.mark.parametrize("seed", range(20))
def test_whoever_dies_at_whichever_step_nothing_of_it_is_left_and_its_neighbour_loses_nothing(tmp_path: Path,
                                                                                              seed: int) -> None:
    chaos = Chaos(tmp_path, seed)
    assert chaos.play() == [], chaos.said
