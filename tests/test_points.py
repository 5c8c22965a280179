"""Resumable runs: every finished point survives whatever stops the run, and no point is measured twice."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from experiments.errors import ExperimentError
from experiments.runs.points import POINTS_FILE, PointFile, measured
from experiments.runs.progress import LineProgress, PointProgress, remaining, shown
from experiments.runs.results import MANIFEST, RUN_FILE, Run, csv_of
from experiments.runs.run_options import RunOptions

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["ipsec/linux/rep1", "ipsec/linux/rep2", "kvs/smartnic/rep1"]
RESUMED = RunOptions(resume=True)


class Value(msgspec.Struct, frozen=True):
    rps: float


def test_points_come_back_by_name_and_in_order_and_the_run_becomes_a_result(tmp_path: Path) -> None:
    run = Run.begin("table1", RunOptions(quick=True), tmp_path)
    found = measured(run, NAMES, lambda name: Value(len(name)), Value, print, io.StringIO())
    assert list(found) == NAMES and found[NAMES[0]] == Value(16.0)
    manifest = json.loads(run.finish({"holds": True}).read_text())
    assert len(manifest["sessions"]) == 1 and manifest["sessions"][0]["git_commit"] == manifest["git_commit"]
    with pytest.raises(ExperimentError, match="no unfinished run of table1"):
        Run.begin("table1", RESUMED, tmp_path)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ExperimentError, SystemExit])
def test_what_stops_a_run_leaves_what_is_done_and_resume_measures_only_the_rest(
        tmp_path: Path, stop: type[BaseException]) -> None:
    asked: list[str] = []
    said: list[str] = []

    def measure(name: str) -> Value:
        asked.append(name)
        if len(asked) == 2:
            raise stop("stopped")
        return Value(1.0)
    with pytest.raises(stop):
        measured(Run.begin("fig8", RunOptions(), tmp_path), NAMES, measure, Value, said.append, io.StringIO())
    assert "1 of 3 points are kept" in said[-1] and "--resume" in said[-1]
    run = Run.begin("fig8", RESUMED, tmp_path)
    assert list(measured(run, NAMES, measure, Value, said.append, io.StringIO())) == NAMES
    assert asked == [NAMES[0], NAMES[1], NAMES[1], NAMES[2]] and "1 of 3 points are there" in said[-1]
    assert len(json.loads(run.finish({}).read_text())["sessions"]) == 2
    assert len(list((tmp_path / "fig8").iterdir())) == 1


SLOW = """
import sys, time
from pathlib import Path
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions

def measure(name):
    time.sleep(0.2)
    return {"name": name, "filler": "x" * 50_000}

parent, resume = Path(sys.argv[1]), sys.argv[2] == "resume"
run = Run.begin("slow", RunOptions(resume=resume), parent)
print("begun", flush=True)
names = [f"point{i}" for i in range(12)]
found = measured(run, names, measure, dict, lambda line: print(line, file=sys.stderr))
run.finish({"holds": [f["name"] for f in found.values()] == names})
"""


def test_finished_points_survive_kill_9(tmp_path: Path) -> None:
    kept = 0
    for attempt in range(3):
        child = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path), "resume" if attempt else "begin"],
                                 cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        if attempt == 1:  # while the first session's successor is at work, nobody else takes the run
            with pytest.raises(ExperimentError, match="still going on"):
                Run.begin("slow", RESUMED, tmp_path)
        if attempt == 2:
            _, said = child.communicate(timeout=60)
            assert child.returncode == 0, said
            break
        until = time.monotonic() + 60
        while (lines := _lines(tmp_path)) < kept + 2 and time.monotonic() < until:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        kept = _lines(tmp_path)
        assert lines <= kept < 12
    (directory,) = (tmp_path / "slow").iterdir()
    assert json.loads((directory / MANIFEST).read_text())["holds"] and f"{kept} of 12 points are there" in said
    assert (directory / POINTS_FILE).read_bytes().count(b"\n") == 12


def _lines(parent: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (parent / "slow").glob(f"*/{POINTS_FILE}"))


def test_a_line_torn_by_a_kill_is_cut_off_and_a_broken_one_within_is_named(tmp_path: Path) -> None:
    path = tmp_path / POINTS_FILE
    points = PointFile(path)
    points.add("a", 0.1, {"x": 1})
    whole = path.read_bytes()
    for torn in (b"{", b'{"point":"b","took_s":1,"value":{}}', b"\0\0\0"):
        path.write_bytes(whole + torn)
        again = PointFile(path)
        assert again.names() == ["a"] and again.value("a", dict) == {"x": 1} and path.read_bytes() == whole
    path.write_bytes(b"{broken\n" + whole)
    with pytest.raises(ExperimentError, match=r"points\.jsonl, line 1"):
        PointFile(path)
    with pytest.raises(ExperimentError, match="'a' is in"):
        points.add("a", 0.1, {})


def test_resuming_with_other_options_is_refused_with_what_differs(tmp_path: Path) -> None:
    Run.begin("fig8", RunOptions(quick=True, time_scale=20.0), tmp_path).release()
    with pytest.raises(ExperimentError, match=r"quick was True and is False; time_scale was 20\.0 and is 'auto'"):
        Run.begin("fig8", RunOptions(resume=True, time_scale="auto"), tmp_path)
    Run.begin("fig8", RunOptions(quick=True, resume=True, time_scale=20.0, retry=3), tmp_path).release()


def test_the_latest_unfinished_run_is_the_one_that_goes_on(tmp_path: Path) -> None:
    first = Run.begin("fig8", RunOptions(), tmp_path)
    first.release()
    time.sleep(1.1)  # a run's name has whole seconds
    second = Run.begin("fig8", RunOptions(), tmp_path)
    second.release()
    Run("fig8", tmp_path)  # of the kind that cannot be resumed
    assert Run.begin("fig8", RESUMED, tmp_path).directory == second.directory


def test_points_that_this_run_does_not_know_and_names_that_are_twice_are_refused(tmp_path: Path) -> None:
    run = Run.begin("fig8", RunOptions(), tmp_path)
    PointFile(run.directory / POINTS_FILE).add("strange", 0.0, {"rps": "many"})
    with pytest.raises(ExperimentError, match="does not measure: strange"):
        measured(run, NAMES, lambda _: Value(1.0), Value, print)
    with pytest.raises(ExperimentError, match="same name: a"):
        measured(run, ["a", "b", "a"], lambda _: Value(1.0), Value, print)
    with pytest.raises(ExperimentError, match=r"'strange' in .* none of this experiment's"):
        measured(run, ["strange"], lambda _: Value(1.0), Value, print, io.StringIO())


def test_lines_say_how_much_time_is_left_from_what_this_session_took() -> None:
    stream, now = io.StringIO(), [0.0]
    progress = LineProgress(4, 1, stream, lambda: now[0])
    assert progress.left() == "time left unknown"
    for name, took in (("a", 100.0), ("b", 200.0), ("c", 5.0)):
        progress.begin(name)
        now[0] += took
        progress.end(name)
    assert stream.getvalue().splitlines() == ["e3: 2 of 4: a took 2 min, about 3 min left",
                                              "e3: 3 of 4: b took 3 min, about 2 min left",
                                              "e3: 4 of 4: c took 5 s, all done"]
    assert remaining(0.2) == "1 s" and remaining(7300) == "2 h 2 min"


def test_a_terminal_gets_a_bar_that_names_the_point_and_other_streams_get_lines(
        monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True
    monkeypatch.setenv("TERM", "xterm")
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with shown("fig8", 2, 0, stream) as progress:
            assert isinstance(progress, PointProgress)
            for name in ("one", "two"):
                progress.begin(name)
                progress.end(name)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    assert "fig8" in drawn and "2/2" in drawn and "all done" in drawn and "\x1b" not in pipe.getvalue()
    assert len(pipe.getvalue().splitlines()) == 2


def test_data_is_written_as_csv_with_a_head_line_and_quoted_where_needed(tmp_path: Path) -> None:
    run = Run("fig2", tmp_path)
    path = run.write_data([{"name": "a, b", "rps": 1.5}, {"rps": 2, "name": 'say "c"'}])
    assert path.name == "data.csv" and path.read_text() == 'name,rps\n"a, b",1.5\n"say ""c""",2\n'
    with pytest.raises(ExperimentError, match="row 2 has the columns rps; the first has name, rps"):
        csv_of([{"name": "a", "rps": 1}, {"rps": 2}])
    assert not (run.directory / RUN_FILE).exists() and not list(run.directory.glob("*.part"))
