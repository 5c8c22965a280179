"""A replicated instance on a rack in virtual time: whatever fails, clients get each reply once, and nothing is lost."""

from __future__ import annotations

import pytest
from replicated_rack import ReplicatedRack, lone_store

from nodes.simulated import NetworkFaults

CLEAN = NetworkFaults(delay_s=5e-5)
LOSSY = NetworkFaults(loss=0.02, duplication=0.01, reordering=0.01, delay_s=50e-6, jitter_s=20e-6, reordering_s=1e-3)


def test_a_replicated_store_answers_and_its_backup_has_what_it_answered() -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, CLEAN)
    assert rack.replica().primary == "s1n1"
    rack.client(500)
    rack.finish()
    rack.run(0.1)
    assert rack.judged() == []


@pytest.mark.parametrize("faults", [CLEAN, LOSSY], ids=["no loss", "2 % lost"])
def test_when_the_primarys_server_dies_the_backup_goes_on_and_nothing_is_lost_or_done_twice(
        faults: NetworkFaults) -> None:
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, faults)
    client = rack.client()
    rack.client(name="c2", window=1)
    rack.run(0.2)
    before = rack.replica()
    rack.kill_server(before.primary)
    answered = len(client.answers)
    took_s = rack.until(lambda: len(client.answers) > answered + 10)
    assert took_s < 1.5 and rack.replica().primary == before.backup
    rack.until(rack.paired)
    rack.run(0.2)
    rack.finish()
    assert rack.judged() == []
