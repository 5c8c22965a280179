"""Bytes that should be text and are no UTF-8: whoever reads them refuses them, as anything else that is not theirs."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest

from controller import migration_journal, tor_program, tor_status
from controller.control_requests import Fenced, decode_request
from controller.errors import MigrationError, ProgramError
from experiments.errors import ExperimentError
from experiments.runs.points import POINTS_FILE, PointFile
from experiments.runs.results import RUN_FILE, Run
from experiments.runs.run_options import RunOptions
from experiments.views.figures import redraw
from microservices import state
from microservices.errors import StateError
from nodes.errors import NodeError, WireError
from nodes.node_report import unpacked
from nodes.team import read_status
from topologies.catalog import cluster_named
from topologies.errors import TopologyError
from topologies.inventory import Inventory, inventory_of

RACK = inventory_of(cluster_named("type1x1"))


def unframed(body: bytes) -> object:
    head = state.MAGIC + bytes((state.VERSION, 1))
    return state.unframed(1, head + blake2b(body, digest_size=state.DIGEST_BYTES).digest() + body, dict[str, int])


def unpacked_of(report: bytes) -> object:
    return unpacked(zlib.compress(report))


READERS: list[tuple[Callable[[bytes], object], bytes, type[Exception]]] = [
    (Inventory.from_json, RACK.to_json(), TopologyError),
    (tor_program.from_json, tor_program.to_json(tor_program.programs_of(RACK)), ProgramError),
    (tor_status.from_json, tor_status.to_json(tor_status.TorStatus(1, "name", "127.0.0.1:1")), ProgramError),
    (migration_journal.decode_entries,
     migration_journal.encode_entry(migration_journal.Started(1, 1, 2, 3, "name", "b", ("c",), 4)), MigrationError),
    (unframed, msgspec.msgpack.encode({"name": 1}), StateError),
    (unpacked_of, msgspec.msgpack.encode({"name": 1}), WireError),
    (decode_request, msgspec.msgpack.encode(Fenced("name")), UnicodeDecodeError)]


@pytest.mark.parametrize(("read", "written", "error"), READERS)
def test_a_reader_refuses_it_with_the_error_that_its_caller_expects(
        read: Callable[[bytes], object], written: bytes, error: type[Exception]) -> None:
    read(written)
    word = b"s1n1" if b"s1n1" in written else b"name"
    with pytest.raises(error):
        read(written.replace(word, b"\xff" * len(word)))


@pytest.mark.parametrize(("name", "content"), [
    (RUN_FILE, b'{"options": {"\xff": 1}, "sessions": [{}]}'), (RUN_FILE, b'{"options": {}, "sessions": []}'),
    (RUN_FILE, b"{"), (POINTS_FILE, b'{"point": "\xff", "took_s": 1.0, "value": 2}\n'), (POINTS_FILE, b"{\n")])
def test_a_run_that_cannot_be_read_is_not_resumed_and_the_file_is_named(
        tmp_path: Path, name: str, content: bytes) -> None:
    run = Run.begin("fig8", RunOptions(), tmp_path)
    run.release()
    (run.directory / name).write_bytes(content)
    with pytest.raises(ExperimentError, match=name):
        PointFile(Run.begin("fig8", RunOptions(resume=True), tmp_path).directory / POINTS_FILE)


def test_a_point_whose_value_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / POINTS_FILE).write_bytes(b'{"point": "a", "took_s": 1.0, "value": "\xff"}\n')
    with pytest.raises(ExperimentError, match="point 'a' in"):
        PointFile(tmp_path / POINTS_FILE).value("a", str)


def test_figures_and_a_team_s_status_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for name in ("manifest.json", "team-s1h.json"):
        (tmp_path / name).write_bytes(b'{"figures": "\xff", "host": "\xff", "pid": 1}')
    with pytest.raises(ExperimentError, match=r"manifest\.json"):
        redraw(tmp_path)
    with pytest.raises(NodeError, match="is not a team's status"):
        read_status(tmp_path / "team-s1h.json")
