"""SQL's backups follow row by row; SQL itself moves as little as ever."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moving_rack import RACK
from replicated_rack import ReplicatedRack

from controller.errors import MigrationError
from microservices.application import Application, Stage
from microservices.errors import StateError
from microservices.records import Record, decode_record, encode_record
from microservices.sql import READINGS_KEPT, Sql, SqlState
from microservices.workload import Workload
from nodes.simulated import NetworkFaults

HOSTS = {node.name for node in RACK.of_role("host")}
DEVICES = ("a", "b", "'; DROP TABLE reading; --", "ü")


def content(state: SqlState) -> list[str]:
    return list(state.database.iterdump())


def followed(seed: int, batches: int) -> tuple[SqlState, SqlState]:
    """Return a state that was written to, and one that followed it from the middle on."""
    draw, primary, backup = random.Random(seed), SqlState(), SqlState()
    primary.start_changes()
    for batch in range(batches):
        for _ in range(draw.randrange(3 * READINGS_KEPT if batch == 0 else 4)):
            primary.store(draw.choice(DEVICES), draw.random(), draw.uniform(-1e9, 1e9))
        changes = primary.take_changes()
        if batch == batches // 2:
            backup.copy_in(primary.copy_out())
        elif batch > batches // 2:
            backup.apply_changes(changes)
    return primary, backup


@pytest.mark.parametrize("seed", range(10))
def test_a_backup_that_followed_has_the_same_rows_and_answers_alike(seed: int) -> None:
    primary, backup = followed(seed, 20)
    assert content(primary) == content(backup) and primary.copy_out() == backup.copy_out()
    assert primary.sequence == backup.sequence
    service = Sql()
    for device in DEVICES:
        query = Record(device, op="query")
        assert service.answer(query, primary, 0.0) == service.answer(query, backup, 0.0)
    backup.start_changes()  # promoted, it is followed in turn
    third = SqlState()
    third.copy_in(backup.copy_out())
    backup.store("a", 1.0, 2.0)
    third.apply_changes(backup.take_changes())
    assert content(third) == content(backup)


def test_requests_that_wrote_nothing_are_a_step_all_the_same() -> None:
    primary, backup = followed(1, 4)
    before = content(backup)
    backup.apply_changes(primary.take_changes())
    assert content(backup) == before and backup.sequence == primary.sequence


def test_a_gap_is_noticed_and_changes_nothing() -> None:
    primary, backup = followed(2, 6)
    before = content(backup)
    primary.store("a", 0.0, 1.0)
    primary.take_changes()
    primary.store("a", 0.0, 2.0)
    with pytest.raises(StateError, match="changes follow state 7; this is state 6"):
        backup.apply_changes(primary.take_changes())
    assert content(backup) == before


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_changes_and_copies_are_refused_and_change_nothing(data: st.DataObject) -> None:
    primary, backup = followed(3, 4)
    primary.store("a", 0.0, 1.0)
    good = data.draw(st.sampled_from([primary.take_changes(), primary.copy_out()]))
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(st.sampled_from([good[:at], good[:at] + bytes([good[at] ^ 1]) + good[at + 1:], b""]))
    before = content(backup)
    for take in (backup.apply_changes, backup.copy_in):
        with pytest.raises(StateError):
            take(bad)
    assert content(backup) == before


def test_a_copy_replaces_all_that_was_there() -> None:
    primary, backup = followed(4, 2)
    backup.store("only here", 0.0, 1.0)
    backup.copy_in(primary.copy_out())
    assert content(backup) == content(primary)


# -- on the rack -----------------------------------------------------------------------------------------------------

class Updates(Workload):
    """Updates of one device: the reply says how many there were."""

    def requests(self) -> Iterator[bytes]:
        return (encode_record(Record("device", float(i), (float(i),))) for i in itertools.count())

    def check_reply(self, request: bytes, reply: bytes) -> str | None:
        return None


def lone_sql() -> ReplicatedRack:
    return ReplicatedRack(Application("lone", 305, (Stage("store", "sql", 1, 1),), ()), {0: "s1h"},
                          NetworkFaults(0.02, delay_s=5e-5), seed=2)


def test_every_acknowledged_update_survives_the_host_that_it_was_made_on() -> None:
    rack = lone_sql()
    client = rack.simulation.client(rack.deployment, Updates(), 1 << 20, 4)
    for _ in range(3):
        rack.run(0.05)
        rack.kill_server(rack.replica().primary, down_s=0.3)
        assert {rack.replica().primary, rack.replica().backup} <= HOSTS
        rack.run(0.7)
        rack.until(rack.paired)
    client.stop()
    rack.until(lambda: len(client.answers) == len(client.asked))
    told = sorted(decode_record(answer.payload).results["sql"] for answer in client.answers)
    assert told == list(range(1, len(told) + 1)) and len(told) > 300 and rack.complaints == []
    state = rack.simulation.runtime(rack.replica().primary).execution.state(305, 0)
    assert state.database.execute("SELECT updates FROM device").fetchall() == [(len(told),)]


def test_its_backups_stand_on_hosts_and_it_does_not_move() -> None:
    rack = lone_sql()
    assert rack.replica().backup in HOSTS - {"s1h"}
    with pytest.raises(MigrationError, match="is replicated"):
        rack.control.move("store-1", "s2h")
