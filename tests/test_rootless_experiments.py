"""Experiments that need no root come to their end. Table 6's is tried in test_placement_study.py.

Figure 11 judges how long this machine takes to decide: whether that is good is no test's to say.
"""

import pytest

from experiments import fig11
from experiments.runs.registry import EXPERIMENTS
from experiments.runs.run_options import RunOptions


def test_channels_hold_under_loss_doubling_and_reordering() -> None:
    said: list[str] = []
    outcome = EXPERIMENTS["channel-torture"].run(RunOptions(quick=True), said.append)
    assert outcome["holds"], (outcome["rows"], said)


def test_figure_11_ends_with_a_decision_time_for_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fig11, "QUICK_SERVERS", (100, 1000))
    said: list[str] = []
    outcome = fig11.run(RunOptions(quick=True), said.append)
    sizes = [row for row in outcome["rows"] if "decision p50" in row[0]]
    assert len(sizes) == len(said) == 4 and outcome["figures"], (outcome["rows"], said)
