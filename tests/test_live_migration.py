"""A stateful instance moves live between nodes, by the controller's commands over the network, while requests pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from moving_rack import RACK, MovingRack, counter_store

from experiments.pacing import Pacing
from experiments.simulated_bed import calibration_of
from nodes.deployment import deploy
from nodes.simulated import NetworkFaults

LOSSY = NetworkFaults(loss=0.02, duplication=0.01, reordering=0.01, delay_s=50e-6, jitter_s=20e-6, reordering_s=1e-3)


def rack(folder: Path, nodes: tuple[str, ...] = ("s1n1", "s2n1", "s3n1"), **more) -> MovingRack:
    """All of the rack's six nodes, paced and linked as in a testbed."""
    application = counter_store(folder)
    placed = deploy(application, dict(enumerate(nodes)), RACK)
    calibration = calibration_of(Pacing("calibrated", 1.0), RACK, (placed,))
    return MovingRack(application, nodes, calibration=calibration, **more)


def test_a_store_moves_under_load_with_its_state_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    moving = rack(tmp_path)
    moving.client(2000)
    moving.run(0.02)
    took_s = moving.move("s2h")
    assert took_s < 0.2
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) == 2000


def test_a_client_that_sends_to_the_instance_itself_follows_it(tmp_path: Path) -> None:
    moving = rack(tmp_path)
    moving.client(10)
    moving.finish()
    assert moving.complaints() == []


@pytest.mark.parametrize("seed", range(2))
def test_lossy(tmp_path: Path, seed: int) -> None:
    application = counter_store(tmp_path)
    moving = MovingRack(application, ("s1n1", "s2n1", "s3n1"), LOSSY, seed)
    moving.client(1000)
    moving.run(0.02)
    for node in ("s1n1", "s3n1", "s1h", "s2n1"):
        print(moving.move(node))
        moving.run(0.05)
    moving.finish()
    assert moving.complaints() == [] and len(moving.clients[0].answers) == 1000
