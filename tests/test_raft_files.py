"""A controller node that comes back without its files is refused: it has forgotten what it voted for and promised."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

pytest.importorskip("controller.raft_journal", reason="pysyncobj is not installed")

from controller.errors import JournalError
from controller.migration_journal import decode_entries, encode_entry
from controller.raft_journal import RaftJournal

OWN, OTHERS = "127.0.0.1:47311", ["127.0.0.1:47312", "127.0.0.1:47313"]  # nobody is there


def journal(directory: Path, again: bool) -> RaftJournal:
    return RaftJournal(OWN, OTHERS, "secret", encode_entry, decode_entries, directory, again=again)


def test_with_its_files_it_comes_back_and_without_them_it_is_refused(tmp_path: Path) -> None:
    for again in (False, True):
        journal(tmp_path, again).close()
    (lost,) = tmp_path.glob("*.journal")
    lost.unlink()
    with pytest.raises(JournalError, match=f"{OWN} was here before, and its journal in .* is gone"):
        journal(tmp_path, again=True)
    assert not lost.exists()  # and it has not begun another


def test_the_library_leaves_the_process_s_sockets_as_they_were() -> None:
    assert socket.inet_ntop(socket.AF_INET6, bytes(15) + b"\1") == "::1"
