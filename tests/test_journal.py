"""A journal tells what was made even when its owner was cut short, and whether the owner lives."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import journal
from nodes.errors import WorldError
from nodes.journal import JOURNAL_NAME, Journal

ROOT = Path(__file__).resolve().parent.parent
HOLDER = """
import sys, pathlib
from nodes.journal import Journal, JOURNAL_NAME
held = Journal.create(pathlib.Path(sys.argv[1]) / JOURNAL_NAME)
held.note("process", pid=7)
print("held", flush=True)
sys.stdin.read()
"""


def holder(run_dir: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(run_dir)], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    made = tmp_path / "e3" / "w012345"
    made.mkdir(parents=True)
    return made


def test_what_was_noted_is_read_back_in_order(run_dir: Path) -> None:
    kept = Journal.create(run_dir / JOURNAL_NAME)
    kept.note("world", id="w012345", label="a \"b\"\nc")
    kept.note("cgroup", paths=["/x", "/y"])
    kept.close()
    assert journal.read(run_dir / JOURNAL_NAME) == [{"what": "world", "id": "w012345", "label": "a \"b\"\nc"},
                                                    {"what": "cgroup", "paths": ["/x", "/y"]}]


@pytest.mark.parametrize("torn", [b'{"what": "proc', b'{"pid": 1}', b"[1]", b"\xff\xfe", b'{"what": 3}'])
def test_a_torn_or_foreign_line_costs_only_itself(run_dir: Path, torn: bytes) -> None:
    (run_dir / JOURNAL_NAME).write_bytes(b'{"what": "world"}\n' + torn + b'\n{"what": "namespace"}')
    assert [entry["what"] for entry in journal.read(run_dir / JOURNAL_NAME)] == ["world", "namespace"]


def test_no_journal_reads_as_nothing_written(run_dir: Path) -> None:
    assert journal.read(run_dir / JOURNAL_NAME) == []


def test_a_journal_is_never_made_over_another(run_dir: Path) -> None:
    Journal.create(run_dir / JOURNAL_NAME).close()
    with pytest.raises(FileExistsError):
        Journal.create(run_dir / JOURNAL_NAME)


def test_a_living_owner_keeps_others_out_and_a_killed_one_does_not(run_dir: Path) -> None:
    process = holder(run_dir)
    assert journal.is_alive(run_dir)
    assert journal.take_over(run_dir) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not journal.is_alive(run_dir)
    taken = journal.take_over(run_dir)
    assert taken is not None
    assert taken[1] == [{"what": "process", "pid": 7}]
    os.close(taken[0])


def test_the_owner_itself_sees_its_world_alive_and_keeps_the_lock(run_dir: Path) -> None:
    kept = Journal.create(run_dir / JOURNAL_NAME)
    assert journal.is_alive(run_dir)
    assert journal.take_over(run_dir) is None
    child = os.fork()
    if child == 0:
        os._exit(0 if journal.is_alive(run_dir) and journal.take_over(run_dir) is None else 1)
    assert os.waitpid(child, 0)[1] == 0
    kept.close()
    assert not journal.is_alive(run_dir)


def test_a_fork_does_not_keep_a_dead_owner_alive(run_dir: Path) -> None:
    script = HOLDER.replace('print("held"', 'import os, time\nif os.fork() == 0: time.sleep(30)\nprint("held"')
    process = subprocess.Popen([sys.executable, "-c", script, str(run_dir)], cwd=ROOT, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    try:
        assert not journal.is_alive(run_dir)
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_run_dir_whose_journal_was_not_yet_made_can_be_taken_over(run_dir: Path) -> None:
    taken = journal.take_over(run_dir)
    assert taken is not None
    assert taken[1] == []
    os.close(taken[0])


def test_only_directories_named_like_worlds_are_worlds(run_dir: Path) -> None:
    for name in ("w01234", "w0123456", "wXYZXYZ", "lock", "w012345.old"):
        (run_dir.parent / name).mkdir()
    (run_dir.parent / "wabcdef").write_text("a file")
    assert journal.run_dirs(run_dir.parent) == [run_dir]


def test_the_room_lock_leaves_an_empty_room_away_and_a_used_one_alone(tmp_path: Path, run_dir: Path) -> None:
    with journal.room_lock(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    assert not (tmp_path / "empty").exists()
    with journal.room_lock(run_dir.parent):
        pass
    assert run_dir.is_dir()


def test_the_room_lock_lets_one_process_in_at_a_time(run_dir: Path) -> None:
    with journal.room_lock(run_dir.parent):
        descriptor = os.open(run_dir.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_room_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorldError, match=r"cannot make .*file/e3"), journal.room_lock(tmp_path / "file" / "e3"):
        pass
