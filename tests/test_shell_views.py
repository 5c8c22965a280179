"""What the interactive shell shows, as tables of what was asked."""

from __future__ import annotations

import pytest
from shell_room import Bed, typed

from controller.tor_status import SwitchStatus, TorStatus
from experiments.errors import ExperimentError
from experiments.shell import views


@pytest.fixture
def bed() -> Bed:
    return Bed()


def test_groups_shows_a_hung_and_an_unplugged_member_as_dead_each_for_its_reason(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    bed.carrier["tor1-s1n2"] = False
    bed.lacp["tor1-s1n3"] = False
    shown = typed(bed, "groups", capsys).splitlines()
    rows = {row.split("tor1-")[1].split()[0]: row for row in shown if "tor1-" in row}
    assert views.ALIVE in rows["s1n1"] and "DEAD" not in rows["s1n1"]
    assert views.NO_CARRIER in rows["s1n2"]
    assert views.LACP_DOWN in rows["s1n3"]
    assert "40.0%" in rows["s1n4"]  # 40 of 10 + 20 + 30 + 40


def test_groups_of_one_host_leaves_the_others_out(capsys: pytest.CaptureFixture[str]) -> None:
    shown = typed(Bed("type1x3"), "groups s2h", capsys)
    assert "tor1-s2n1" in shown and "tor1-s1n1" not in shown


def test_the_app_tells_what_it_mended_and_when_it_is_dead() -> None:
    changes = {"rules_added": 53, "groups_added": 0}
    status = TorStatus(7, "lib 1", "127.0.0.1:1", 1, "", {"tor1": SwitchStatus("tor1", 1, True, 1.0, 1, 1.0, changes)})
    assert views.app_lines(status, True)[1] == "tor1: connected, as it should be; it mended: rules added 53"
    assert "not running" in views.app_lines(status, False)[0]
    assert "no status" in views.app_lines(None, True)[0]


def test_tables_keep_short_cells_whole_and_break_sentences_only() -> None:
    row = ("node-with-a-long-name", "x" * 90, "y" * 90)
    assert len(views.rendered(views.View("", ("a", "b", "c"), [row]), 80).splitlines()) == 3
    broken = views.rendered(views.View("", ("a", "claim"), [("a", "word " * 60)], sentences=True), 80)
    assert max(len(line) for line in broken.splitlines()) <= 80


def test_a_cell_with_brackets_is_shown_as_it_is() -> None:
    assert "[red]s1n1[/red] :warning:" in views.rendered(views.View("", ("a",), [("[red]s1n1[/red] :warning:",)]), 80)


def test_iperf_reports_its_own_complaint() -> None:
    with pytest.raises(ExperimentError, match="c1 to s1h: unable to connect"):
        views.iperf_line({"error": "unable to connect"}, "c1", "s1h")
