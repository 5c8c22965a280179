"""A run of all: one that fails does not end the rest, and what is done is not done again. Real runs, small ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from experiments.errors import ExperimentError
from experiments.runs import run_all as runner
from experiments.runs.latest_runs import latest_finished
from experiments.runs.registry import EXPERIMENTS
from experiments.runs.run_all import ERROR, Outcome, flags_of, jobs_of, run_all
from experiments.runs.run_options import RunOptions

ROOT = Path(__file__).resolve().parent.parent
QUICK = RunOptions(quick=True, simulate=True)
BEGIN = ("import sys; from pathlib import Path; from experiments.runs.run_all import run_all; "
         "from experiments.runs.run_options import RunOptions; "
         "run_all(['channel-torture', 'queue'], RunOptions(quick=True, simulate=True), "
         "lambda line: print(line, file=sys.stderr, flush=True), Path(sys.argv[1]))")


def campaign(parent: Path) -> Path:
    (found,) = (parent / "all").iterdir()
    return found


def test_each_result_is_a_line_when_it_lands_and_the_run_is_one_like_any_other(tmp_path: Path) -> None:
    said: list[str] = []
    content = run_all(["channel-torture"], QUICK, said.append, tmp_path)
    assert content["holds"] and content["minutes"] > 0
    ((name, state, fidelity, minutes, directory),) = content["rows"]
    assert (name, state) == ("channel-torture", "holds") and float(minutes) >= 0 and fidelity
    assert (ROOT / directory / "manifest.json").exists()
    assert any(line.startswith("1 of 1: channel-torture holds") and line.endswith("all done") for line in said)
    kept = latest_finished("all", tmp_path)
    assert kept is not None and kept.manifest["holds"] and kept.manifest["quick"]
    assert "what" in (campaign(tmp_path) / "channel-torture.log").read_text()


def test_one_that_cannot_be_run_does_not_end_the_rest_and_is_tried_again_on_resume(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    # An option that the experiment refuses: the command line ends with status 2.
    monkeypatch.setattr(runner, "flags_of", lambda options: (
        ["--time-scale", "0.5"] if options.simulate else ["--quick"]))
    content = run_all(["queue", "channel-torture"], QUICK, said.append, tmp_path)
    assert not content["holds"]
    states = {name: state for name, state, *_ in content["rows"]}
    assert states["channel-torture"] == "holds" and states["queue"].startswith(f"{ERROR} time scale 0.5")
    assert latest_finished("all", tmp_path) is None and "--resume" in said[-1]
    monkeypatch.undo()
    again: list[str] = []
    content = run_all(["queue", "channel-torture"], RunOptions(quick=True, simulate=True, resume=True), again.append,
                      tmp_path)
    assert content["holds"] and "1 of 2 experiments are there" in again[0]
    assert not any("channel-torture" in line for line in again)


def test_killed_with_its_child_it_goes_on_where_it_was(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", BEGIN, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("1 of 2: channel-torture"):
            break
    child.kill()
    child.wait()
    found = campaign(tmp_path)
    assert not (found / "manifest.json").exists() and len((found / "points.jsonl").read_text().splitlines()) >= 1
    deadline = time.monotonic() + 30
    while runner.latest_unfinished("queue") is not None and _at_work() and time.monotonic() < deadline:
        time.sleep(0.1)  # the child ends when it hears that its parent is gone
    said: list[str] = []
    content = run_all(["channel-torture", "queue"], RunOptions(quick=True, simulate=True, resume=True), said.append,
                      tmp_path)
    assert content["holds"] and "experiments are there" in said[0]
    assert campaign(tmp_path) == found


def _at_work() -> bool:
    """Say whether a process of a run of all is still there."""
    return any(b"experiments.one_of_all" in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
               if path.exists())


def heed_ctrl_c() -> None:
    """Undo what a shell does to what it runs in the background: there SIGINT is ignored, and so it is in children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_stops_what_is_at_work_and_says_how_to_go_on(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", BEGIN, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True,
                             preexec_fn=heed_ctrl_c)
    assert child.stderr is not None
    while not (tmp_path / "all").exists() or not list(campaign(tmp_path).glob("*.log")):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=60)[1]
    assert child.returncode != 0 and "--resume goes on with it" in said


def test_options_of_another_run_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="no unfinished run of all"):
        run_all(["channel-torture"], RunOptions(quick=True, simulate=True, resume=True), print, tmp_path)


def test_without_root_it_says_so_before_anything_runs(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("this is root")
    with pytest.raises(ExperimentError, match="needs root"):
        run_all(["ecmp"], RunOptions(quick=True), print, tmp_path)


def test_what_is_left_out_or_played_in_virtual_time_is_said() -> None:
    said: list[str] = []
    assert {job.name for job in jobs_of(["ecmp", "queue"], RunOptions(simulate=True), said.append)} == {"queue"}
    assert said == ["left out, since they cannot be simulated: ecmp"]
    said.clear()
    jobs_of(list(EXPERIMENTS), RunOptions(quick=True), said.append)
    assert any("in virtual time" in line and "fig6, fig7" in line for line in said)


@pytest.mark.parametrize(("options", "words"), [
    (RunOptions(), []), (RunOptions(quick=True, resume=True), ["--quick", "--resume"]),
    (RunOptions(time_scale="auto", retry=3), ["--time-scale", "auto", "--retry", "3"]),
    (RunOptions(time_scale=12.5), ["--time-scale", "12.5"]), (RunOptions(simulate=True), ["--simulate"]),
])
def test_options_become_words_that_mean_them(options: RunOptions, words: list[str]) -> None:
    assert flags_of(options) == words


def test_an_outcome_reads_as_a_row_and_goes_through_json() -> None:
    one = Outcome("fig3", ERROR, 90.0, said="needs root")
    assert one.row() == ("fig3", "ERROR needs root", "", "1.5", "")
    assert msgspec.json.decode(msgspec.json.encode(one), type=Outcome) == one
