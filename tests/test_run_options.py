"""What an experiment cannot honour is refused by name before anything runs; what it can, it is given."""

from __future__ import annotations

import importlib
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from test_cli import e3

from experiments.errors import ExperimentError
from experiments.runs.registry import EXPERIMENTS, Experiment
from experiments.runs.run_options import RunOptions, time_scale_of


def test_an_experiment_is_given_the_options_that_it_honours(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[RunOptions] = []
    module: Any = types.ModuleType("made_up_experiment")
    module.run = lambda options, say: seen.append(options) or {"holds": True, "rows": []}
    monkeypatch.setitem(sys.modules, "made_up_experiment", module)
    made_up = Experiment("made-up", "made_up_experiment", "...", frozenset({"quick", "retry", "time_scale"}))
    options = RunOptions(quick=True, retry=2, time_scale=7.5)
    assert made_up.run(options, print)["holds"] and seen == [options]
    with pytest.raises(ExperimentError, match="made-up cannot honour --resume, --simulate; what it honours: "
                                              "--quick, --time-scale, --retry"):
        made_up.run(RunOptions(quick=True, resume=True, simulate=True), print)
    assert len(seen) == 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_run_quick(name: str) -> None:
    EXPERIMENTS[name].refuse(RunOptions(quick=True))


@pytest.mark.parametrize(("arguments", "words"), [
    (["ecmp", "--resume"], ["ecmp", "--resume"]), (["tcp", "--simulate"], ["tcp", "--simulate"]),
    (["racks", "--time-scale", "auto"], ["racks", "--time-scale"]), (["all", "--retry", "11"], ["11", "10"]),
    (["racks", "--time-scale", "fast"], ["'fast'", "auto"]), (["racks", "--time-scale", "0.5"], ["0.5", "1"]),
    (["racks", "--time-scale", "nan"], ["nan"]), (["racks", "--retry", "11"], ["11", "10"]),
    (["racks", "--simulate", "--time-scale", "5"], ["virtual time"])])
def test_a_setting_that_cannot_be_honoured_is_one_line_and_exit_status_2(arguments: list[str],
                                                                        words: list[str]) -> None:
    done = e3("run", *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_a_time_scale_is_a_number_or_auto_or_left_to_the_experiment() -> None:
    assert (time_scale_of("12.5"), time_scale_of("auto"), time_scale_of(None)) == (12.5, "auto", None)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_keeps_its_results_under_its_own_name(name: str) -> None:
    text = Path(importlib.import_module(EXPERIMENTS[name].module).__file__ or "").read_text()
    kept = set(re.findall(r"\bRun(?:\.begin)?\(\"([\w-]+)\"", text))
    assert name in kept, f"{name} keeps its results as {kept}: the report and a run of all do not find them"
