"""The failover experiment's judges find a build that acknowledges before it replicates, and nothing in the right one.

The replicated store on the rack in virtual time: the clients of the experiment, the primary's server dies, all that was
written is read back. Only the judges' view is looked at: what clients were told.
"""

from __future__ import annotations

import pytest
from moving_rack import RACK
from replicated_rack import ReplicatedRack, lone_store

from experiments.clients.shared_store import SharedStore
from experiments.clients.store_checker import StoreChecker, StoreReadBack
from experiments.emulation.orchestrating import placed_as
from experiments.failures import judging
from experiments.measurement.simulated_told import told_by
from nodes.replication import Replicator
from nodes.replication_steps import Outgoing
from nodes.simulated import NetworkFaults

LOSSY = NetworkFaults(loss=0.1, delay_s=50e-6, jitter_s=20e-6)
SEEDS = range(6)


class AnswersFirst(Replicator):
    """Acknowledges before it replicates."""

    def append(self, application: int, instance: int, entry: bytes, outputs: object, now: float, out: Outgoing) -> None:
        self._local.release((application, instance), outputs)
        super().append(application, instance, entry, None, now, out)


def judged(seed: int) -> list[str]:
    """Let the primary's server die under the experiment's clients; return what its judges say."""
    rack = ReplicatedRack(lone_store(), {0: "s1n1"}, LOSSY, seed)
    start, deployment = rack.simulation.client, rack.deployment
    writers = {w: start(deployment, StoreChecker(w, 64, w), 1 << 20, 4, client=f"c{w}") for w in (1, 2)}
    sharing = [start(deployment, SharedStore(w, 64, w), 1 << 20, 1, flows=2, client=f"c{w - 2}") for w in (3, 4)]
    rack.run(0.3)
    rack.kill_server(rack.replica().primary)
    rack.run(1.5)
    rack.until(rack.paired)
    for client in (*writers.values(), *sharing):
        client.stop()
    rack.run(2.0)
    r = rack.replica()
    now_at = placed_as(deployment, [(r.application, r.number, r.primary, r.epoch)], RACK)
    read = []
    for w, client in writers.items():
        back = StoreReadBack(w, 64, w, len(client.asked))
        read.append(start(now_at, back, len(back.right), 4, client="c1"))
    rack.run(6.0)
    return (judging.of_writers([told_by(client) for client in writers.values()], [told_by(client) for client in read])
            + judging.of_shared(told_by(client) for client in sharing))


@pytest.mark.parametrize("seed", SEEDS)
def test_of_what_was_acknowledged_the_judges_miss_nothing_when_the_primarys_server_dies(seed: int) -> None:
    assert judged(seed) == []


def test_a_build_that_acknowledges_before_it_replicates_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodes.node_control.Replicator", AnswersFirst)
    said = [one for seed in SEEDS for one in judged(seed)]
    assert any(one.startswith("reading back: ") and "wrong" in one for one in said), said
    assert any(one.startswith("shared keys: not linearizable") for one in said), said
