"""An application is withdrawn from a running rack under load, with a neighbour on one of its nodes that stays."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from moving_rack import RACK
from withdrawing_rack import LONE_AT, NAME, NODES, PLACED, WithdrawingRack, ip_of

from controller.errors import MigrationError
from controller.migration_journal import Viewed
from controller.resource_controller import ResourceController
from controller.withdrawal import DRAIN_S, SETTLE_S
from nodes import messages
from nodes.control_messages import Command, Refusal, Standing, Verb
from nodes.errors import NodeError
from nodes.simulated import NetworkFaults
from nodes.transport import Sends

LOSSY = NetworkFaults(loss=0.05, duplication=0.01, reordering=0.01, delay_s=50e-6, jitter_s=20e-6, reordering_s=1e-3)
COST_S = 2e-4


def under_load(folder: Path, backups: int = 0, faults: NetworkFaults | None = None, cost_s: float = COST_S,
               **more) -> WithdrawingRack:
    """Both applications, each with a client that has counted for a while."""
    rack = WithdrawingRack(folder, backups, faults, cost=lambda _: lambda *_: cost_s, **more)
    assert rack.until(rack.paired)
    rack.client(rack.deployment)
    rack.client(rack.lone, "c2")
    rack.run(0.1)
    return rack


def finished(rack: WithdrawingRack) -> None:
    """Let everybody have what is still to come, and clients be told for as long as they are."""
    rack.run(0.3)
    rack.stop_clients()
    assert rack.until(lambda: all(rack.is_answered(client) for client in rack.clients))


@pytest.mark.parametrize("backups", [0, 1], ids=["no backups", "a backup"])
@pytest.mark.parametrize("foresight", [0, 64])
def test_requests_under_way_are_ended_others_are_turned_away_and_the_neighbour_loses_nothing(
        tmp_path: Path, backups: int, foresight: int) -> None:
    rack = under_load(tmp_path, backups, foresight=foresight)
    rack.withdraw()
    assert rack.until(rack.gone, 1.0)
    finished(rack)
    (_, client), (_, neighbour) = rack.counting
    assert rack.of_withdrawn() == rack.of_neighbour() == rack.remains() == []
    assert 1 <= len(client.turned_away) <= 4 and len(client.answers) + len(client.turned_away) == len(client.asked)
    assert rack.controller.withdrawn()[0].dropped == 0  # all that was accepted was answered
    assert sorted(int(answer.payload) for answer in client.answers) == list(range(1, len(client.answers) + 1))
    assert len(neighbour.answers) > 500


def test_in_a_network_that_loses_datagrams_each_request_is_answered_or_turned_away(tmp_path: Path) -> None:
    for seed in range(5):
        rack = under_load(tmp_path, seed % 2, LOSSY, seed=seed)
        rack.withdraw()
        assert rack.until(rack.gone, 10.0)
        finished(rack)
        assert rack.of_withdrawn() == rack.of_neighbour() == rack.remains() == []


def test_what_takes_longer_than_it_is_given_is_dropped_counted_and_turned_away(tmp_path: Path) -> None:
    rack = under_load(tmp_path, cost_s=0.7 * DRAIN_S)  # at each of three stages
    began = rack.network.now
    rack.withdraw()
    assert rack.until(rack.gone, 30.0)
    assert rack.network.now - began == pytest.approx(DRAIN_S, abs=0.1)
    finished(rack)
    client = rack.counting[0][1]
    assert rack.controller.withdrawn()[0].dropped > 0 < len(client.turned_away)
    assert rack.of_withdrawn() == rack.of_neighbour() == rack.remains() == []
    assert "it has taken too long" in next(e for e in rack.controller.events if e.what == "clearing").detail


def test_who_comes_afterwards_is_turned_away_at_once_by_every_node_that_had_it(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    assert rack.until(rack.gone)
    for node in NODES:
        elsewhere = msgspec.structs.replace(rack.deployment, places=tuple(
            msgspec.structs.replace(place, node=node, ip=RACK.node(node).ip) for place in rack.deployment.places))
        late = rack.simulation.client(elsewhere, rack.clients[0].workload, 3, 2, client="c2")
        asked = rack.network.now
        assert rack.until(lambda late=late: len(late.turned_away) == 2, 0.1)
        assert rack.network.now - asked < 0.01 and not late.answers and len(late.asked) == 2
    rack.run(3.0)
    assert rack.remains() == []


def test_who_hears_nothing_is_told_by_the_controller(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    assert rack.until(rack.gone)
    rack.simulation.stop("s1n1")  # where requests enter
    late = rack.simulation.client(rack.deployment, rack.clients[0].workload, 10, 3, client="c2")
    assert rack.until(lambda: len(late.turned_away) == 3, 2.0) and not late.answers


# -- what is under way -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("after_s", [0.0, 1e-4, 3e-4, 1e-3, 3e-3])
def test_a_migration_under_way_ends_first_and_no_other_begins(tmp_path: Path, after_s: float) -> None:
    rack = under_load(tmp_path)
    out: Sends = []
    rack.controller.move(f"{NAME}/store-1", "s1h", rack.network.now, out)
    rack.network.after(rack.control, out)
    rack.run(after_s)
    assert rack.withdraw() == "settling" or after_s == 3e-3
    with pytest.raises(MigrationError, match="counters is being withdrawn"):
        rack.controller.move(f"{NAME}/last-1", "s1h", rack.network.now, out)
    assert rack.until(rack.gone, 2.0)
    finished(rack)
    assert rack.controller.timelines[1].outcome == "moved"
    assert rack.controller.withdrawn()[0].dropped == 0
    assert rack.of_withdrawn() == rack.of_neighbour() == rack.remains() == []


def test_a_migration_that_waits_for_a_dead_node_is_cut_off_when_its_time_is_over(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    out: Sends = []
    rack.controller.move(f"{NAME}/store-1", "s1h", rack.network.now, out)
    rack.network.after(rack.control, out)
    assert rack.until(lambda: any(m.state.value == "switching" for m in rack.controller.control.open.values()), 1.0,
                      2e-5)
    rack.hang("s1h")
    began = rack.network.now
    rack.withdraw()
    assert rack.until(rack.gone, 60.0)
    assert SETTLE_S < rack.network.now - began < SETTLE_S + DRAIN_S + 1.0
    assert rack.controller.timelines[1].outcome == "withdrawn"
    assert rack.controller.withdrawn()[0].owed == ("s1h",)
    assert rack.remains(but=("s1h",)) == []
    rack.go_on("s1h")
    assert rack.until(lambda: not rack.controller.withdrawn()[0].owed)
    finished(rack)
    assert rack.of_neighbour() == rack.remains() == []


def test_a_node_that_was_away_is_told_to_stop_what_it_had_when_it_is_back(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.hang("s3n1")  # and nobody hears its host, which is behind it
    rack.withdraw()
    assert rack.until(rack.gone, 20.0)
    assert rack.controller.withdrawn()[0].owed == ("s3h", "s3n1") and rack.remains(but=("s3h", "s3n1")) == []
    assert rack.on_node("s3n1") and "s3h, s3n1 will be told when back" in rack.controller.events[-1].detail
    rack.run(5.0)
    rack.go_on("s3n1")
    back = rack.network.now
    assert rack.until(lambda: not rack.controller.withdrawn()[0].owed)
    assert rack.network.now - back < 1.2  # it is told at least once a second
    finished(rack)
    assert rack.of_neighbour() == rack.remains() == []


def test_a_node_that_comes_back_with_nothing_does_not_get_its_instances_and_turns_clients_away(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    assert rack.until(rack.gone)
    rack.reboot("s1n1", 0.2)  # it knows the deployment that it began with
    assert rack.until(lambda: any(e.what == "rebooted" for e in rack.controller.events))
    assert rack.until(lambda: not rack.controller.withdrawn()[0].owed)
    assert rack.remains() == []
    late = rack.simulation.client(rack.deployment, rack.clients[0].workload, 10, 3, client="c2")
    assert rack.until(lambda: len(late.turned_away) == 3, 1.0)


def test_while_it_is_withdrawn_no_backup_joins_and_none_is_left(tmp_path: Path) -> None:
    rack = under_load(tmp_path, backups=1, cost_s=DRAIN_S / 5)
    backup = rack.controller.state(rack.network.now).replicas[0].backup
    rack.withdraw()
    rack.reboot(backup, 10.0)
    assert rack.until(rack.gone, 30.0)
    views = [entry for entry in rack.journal.entries() if isinstance(entry, Viewed)]
    assert backup in [view.backup for view in views] and views[-1].joiner == ""
    assert rack.until(lambda: not rack.controller.withdrawn()[0].owed)
    assert rack.remains() == []


# -- the controller ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("backups", [0, 1])
@pytest.mark.parametrize("step", ["settling", "closing", "clearing", "withdrawn"])
def test_a_controller_that_restarts_at_any_step_goes_on_with_it(tmp_path: Path, step: str, backups: int) -> None:
    rack = under_load(tmp_path, backups)
    if step == "settling" and not backups:
        out: Sends = []
        rack.controller.move(f"{NAME}/store-1", "s1h", rack.network.now, out)
        rack.network.after(rack.control, out)
        rack.run(3e-4)
    rack.withdraw()
    assert rack.until(lambda: rack.state() == step or (backups and rack.state() == "closing"), 5.0, 5e-5)
    rack.kill_controller()
    rack.run(1.0)
    rack.start_controller()
    assert rack.until(rack.gone, 20.0)
    assert rack.until(lambda: not rack.controller.withdrawn()[0].owed)
    finished(rack)
    assert rack.of_withdrawn() == rack.of_neighbour() == rack.remains() == []
    steps = [entry.state for entry in rack.journal.entries() if hasattr(entry, "owed")]
    assert steps == ["settling", "closing", "clearing", "withdrawn"]  # none is taken twice


def test_a_controller_that_begins_anew_does_not_bring_back_what_its_configuration_still_names(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    assert rack.until(rack.gone)
    for _ in range(3):
        rack.start_controller()  # told of both deployments, as at first
        rack.run(1.5)
        assert rack.remains() == [] and rack.gone()
        assert list(rack.controller.deployments) == [rack.lone.number]
    finished(rack)
    assert rack.of_neighbour() == []


def test_asking_again_changes_nothing(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    assert rack.withdraw() == rack.withdraw() == "closing"
    assert rack.until(rack.gone)
    entries = rack.journal.entries()
    assert rack.withdraw() == "withdrawn" and rack.journal.entries() == entries


def test_an_application_that_there_is_not_is_an_error_that_names_those_there_are(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    with pytest.raises(MigrationError, match="no application 'nfv-fin' is deployed; there are counters, lone"):
        rack.withdraw("nfv-fin")
    rack.withdraw("lone")
    assert rack.until(lambda: "lone" not in rack.controller.where.applications().values())
    with pytest.raises(MigrationError, match=r"there are counters$"):
        rack.withdraw("nfv-fin")


def test_memory_and_names_are_free_again(tmp_path: Path) -> None:
    rack = under_load(tmp_path, backups=1)
    before = {node.name: node.free_mb for node in rack.controller.state(0.0).nodes}
    rack.withdraw()
    assert rack.until(rack.gone)
    state = rack.controller.state(rack.network.now)
    after = {node.name: node.free_mb for node in state.nodes}
    assert sum(after.values()) > sum(before.values()) and all(after[name] >= before[name] for name in before)
    assert [name for node in state.nodes for name in (*node.instances, *node.backups)] == ["lone/store-1"]
    with pytest.raises(MigrationError, match="no instance"):
        rack.controller.where.key_of(f"{NAME}/store-1")
    assert rack.controller.where.key_of("store-1") == (rack.lone.number, 0)  # nobody else has that name now


# -- again -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("backups", [0, 1])
def test_deployed_again_elsewhere_it_works_and_begins_with_nothing(tmp_path: Path, backups: int) -> None:
    rack = under_load(tmp_path, backups)
    for turn in range(3):
        rack.withdraw()
        assert rack.until(rack.gone)
        made = rack.deploy_again({0: NODES[turn], 1: NODES[turn + 1], 2: NODES[turn + 2]})
        assert rack.until(rack.paired)
        client = rack.client(made, requests=100)
        assert rack.until(lambda client=client: rack.is_answered(client))
        assert client.complaints() == []
        assert sorted(int(answer.payload) for answer in client.answers) == list(range(1, 101))
        handled = {name: count for node in NODES for name, count in rack.simulation.runtime(node).counters().items()
                   if name.startswith(f"handled {NAME}/")}
        assert set(handled.values()) == {101}  # and one that made the key: nothing of the last time
    rack.stop_clients()
    assert rack.until(lambda: rack.is_answered(rack.counting[1][1]))
    assert rack.of_neighbour() == []


@pytest.mark.parametrize("backups", [0, 1])
def test_a_node_that_is_told_of_the_new_life_before_it_knows_that_the_old_one_is_over_has_nothing_of_it(
        tmp_path: Path, backups: int) -> None:
    rack = under_load(tmp_path, backups)
    with_it = next(node for node in NODES if rack.simulation.runtime(node).execution.runs((rack.number, 1)))
    rack.hang(with_it)
    rack.withdraw()
    assert rack.until(rack.gone, 30.0) and with_it in rack.controller.withdrawn()[0].owed
    made = rack.deploy_again({0: "s1n1", 1: with_it, 2: "s3n1"})  # the deployment waits at its port
    rack.go_on(with_it)
    assert rack.until(lambda: not rack.controller.withdrawals.of[rack.number].owed)
    assert rack.until(lambda: all(node.life == "alive" for node in rack.controller.state(rack.network.now).nodes))
    assert rack.until(rack.paired)
    client = rack.client(made, requests=50)
    assert rack.until(lambda: rack.is_answered(client))
    assert client.complaints() == [] and len(client.answers) == 50
    entries = rack.simulation.runtime(with_it).execution.state(rack.number, 1).hashtables["entries"]
    assert [key for key, _ in entries.items()] == [b"k4"]  # the client's own, and no key of before


def test_deployed_again_it_moves_and_survives_its_controller(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    assert rack.until(rack.gone)
    made = rack.deploy_again()
    rack.start_controller()  # which is told of the first deployment; the journal has the second
    assert rack.until(lambda: rack.controller.state(rack.network.now).nodes[0].life == "alive")
    client = rack.client(made)
    for instance, node in (("store-1", "s1h"), ("front-1", "s2h"), ("store-1", LONE_AT)):
        out: Sends = []
        number = rack.controller.move(f"{NAME}/{instance}", node, rack.network.now, out)
        rack.network.after(rack.control, out)
        assert rack.until(lambda: not rack.controller.control.open, 5.0)
        assert rack.controller.timelines[number].outcome == "moved"
        rack.run(0.02)
    finished(rack)
    assert client.complaints() == rack.of_neighbour() == [] and len(client.answers) > 100


def test_it_cannot_be_deployed_while_it_is_withdrawn_nor_by_an_earlier_decision_afterwards(tmp_path: Path) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    with pytest.raises(MigrationError, match=r"counters is being withdrawn \(closing\)"):
        rack.controller.deploy(rack.deployment, rack.network.now)
    assert rack.until(rack.gone)
    with pytest.raises(MigrationError, match="counters was withdrawn by decision 2"):
        rack.controller.deploy(rack.deployment, rack.network.now)
    for node in NODES:
        with pytest.raises(NodeError, match="counters was withdrawn by decision 2"):
            rack.simulation.runtime(node).deploy(rack.deployment)
    assert rack.remains() == []


# -- what comes late ---------------------------------------------------------------------------------------------------

def commanded(rack: WithdrawingRack, node: str, command: Command) -> list[messages.Message]:
    """Let a node take a command that comes from the controller's address; return what it says."""
    out: list[tuple[bytes, bytes]] = []
    rack.simulation.control_of(node).receive(ip_of("ctl1"), command, rack.network.now, out)
    return [messages.decode(data) for _, data in out]


@pytest.mark.parametrize("deployed", [False, True], ids=["gone", "deployed again"])
def test_commands_of_before_a_withdrawal_do_nothing_however_late_they_come(tmp_path: Path, deployed: bool) -> None:
    rack = under_load(tmp_path)
    rack.withdraw()
    assert rack.until(rack.gone)
    if deployed:
        rack.deploy_again()
    term, key = rack.controller.control.term, (rack.number, 1)
    runs = rack.simulation.runtime("s2n1").execution.runs(key)
    for verb in (Verb.FREEZE, Verb.CONNECT, Verb.PREPARE, Verb.DISCARD, Verb.RELEASE):
        assert commanded(rack, "s2n1", Command(term, 0, 9, verb, *key, 2, ip_of("s1h"))) == []
    for verb, application_wide in ((Verb.CLOSE, 1), (Verb.WITHDRAW, 1)):
        answer, = commanded(rack, "s2n1", Command(term, 0, 0, verb, rack.number, 0xFFFF, application_wide))
        assert answer.refusal == (Refusal.OLD_EPOCH if verb is Verb.CLOSE else Refusal.NONE)
        assert answer.standing == Standing.ABSENT
    assert rack.simulation.runtime("s2n1").execution.runs(key) is runs is deployed
    assert rack.number not in rack.simulation.runtime("s2n1").execution.closed
    if not deployed:
        assert rack.remains() == []


@pytest.mark.parametrize("verb", [Verb.CLOSE, Verb.WITHDRAW])
def test_only_the_controller_that_decides_closes_or_withdraws(tmp_path: Path, verb: Verb) -> None:
    rack = under_load(tmp_path)
    out: list[tuple[bytes, bytes]] = []
    control = rack.simulation.control_of("s2n1")
    control.receive(ip_of("s1h"), Command(99, 0, 0, verb, rack.number, 0xFFFF, 99), rack.network.now, out)
    assert out == [] and control.counters()["control command not from the controller"] == 1
    commanded(rack, "s2n1", Command(rack.controller.control.term, 0, 0, Verb.CLOSE, 999, 0xFFFF, 1))
    answer, = commanded(rack, "s2n1", Command(0, 0, 0, verb, rack.number, 0xFFFF, 99))
    assert answer.refusal == Refusal.OLD_TERM
    assert rack.simulation.runtime("s2n1").execution.runs((rack.number, 1))
    finished(rack)
    assert rack.of_neighbour() == [] and not rack.counting[0][1].turned_away


def test_the_journal_says_the_same_to_a_controller_on_another_node(tmp_path: Path) -> None:
    rack = under_load(tmp_path, backups=1)
    rack.withdraw()
    assert rack.until(rack.gone)
    rack.deploy_again()
    rack.withdraw()
    assert rack.until(rack.gone)
    other = ResourceController(RACK, [rack.deployment, rack.lone], rack.journal, automatic=False)
    assert list(other.deployments) == [rack.lone.number] and other.failover.groups() == []
    assert other.first_epoch(rack.number) == rack.controller.first_epoch(rack.number) > 4
    assert PLACED.keys() and other.control.open == {}
