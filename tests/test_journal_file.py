"""A controller's journal on disk: what was appended is there after a crash, and nobody else writes into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.errors import MigrationError
from controller.journal_file import FileJournal
from controller.migration_journal import Ended, Entry, Started, Term, encode_entry

ENTRIES: list[Entry] = [Term(1), Started(1, 1, 2, 3, "a", "b", ("c",), 4), Ended(1, "b", 4)]


def written(path: Path) -> Path:
    journal = FileJournal(path)
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return path


def test_what_was_appended_is_there_for_the_next_controller(tmp_path: Path) -> None:
    again = FileJournal(written(tmp_path / "journal"))
    assert list(again.entries()) == ENTRIES
    again.append(Term(2))
    assert list(again.entries()) == [*ENTRIES, Term(2)]


def test_an_entry_is_on_the_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append((tmp_path / "journal").read_bytes()))
    journal = FileJournal(tmp_path / "journal")
    journal.append(Term(1))
    assert synced == [encode_entry(Term(1))]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_a_crash_cut_short_is_cut_off_and_the_next_begins_on_its_own(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "journal")
    os.truncate(path, path.stat().st_size - cut)
    journal = FileJournal(path)
    assert list(journal.entries()) == ENTRIES[:-1]
    journal.append(Term(7))
    journal.close()
    assert list(FileJournal(path).entries()) == [*ENTRIES[:-1], Term(7)]


def test_two_controllers_never_have_one_journal(tmp_path: Path) -> None:
    first = FileJournal(tmp_path / "journal")
    with pytest.raises(MigrationError, match="alive"):
        FileJournal(tmp_path / "journal")
    first.close()
    FileJournal(tmp_path / "journal").close()


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(b"something else\nand more\n")
    with pytest.raises(MigrationError, match="line 1"):
        FileJournal(path)
    assert path.read_bytes() == b"something else\nand more\n"
    path.write_bytes(b"")
    FileJournal(path).close()  # the lock of the refused one is gone
