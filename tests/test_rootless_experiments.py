"""Every experiment that needs no root comes to its end at its quick size, and holds unless it judges this machine.

Figure 11 judges how long this machine takes to decide: whether that is good is no test's to say.
"""

import pytest

from experiments.runs.registry import EXPERIMENTS
from experiments.runs.run_options import RunOptions
from experiments.runs.run_plan import planned

ROOTLESS = [name for name in EXPERIMENTS if not planned(name).needs_root]


@pytest.mark.parametrize("name", [name for name in ROOTLESS if name != "fig11"])
def test_an_experiment_without_root_holds(name: str) -> None:
    said: list[str] = []
    outcome = EXPERIMENTS[name].run(RunOptions(quick=True), said.append)
    assert outcome["holds"], (outcome["rows"], said)


def test_figure_11_ends_with_a_decision_time_for_every_size() -> None:
    said: list[str] = []
    outcome = EXPERIMENTS["fig11"].run(RunOptions(quick=True), said.append)
    sizes = [row for row in outcome["rows"] if "decision p50" in row[0]]
    assert len(sizes) == len(said) == 8 and outcome["figures"], (outcome["rows"], said)
