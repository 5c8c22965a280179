"""Runs every experiment, a process each: one that fails does not end the rest, and what is done is not done again.

A run of all is a run like any other, results/all/RUN-ID/, whose points are the experiments. `--resume` goes on with the
latest unfinished one: at the experiment that was at work and, where that is a list of points, at its next point.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from experiments.errors import ExperimentError
from experiments.runs.fidelity_summary import summary_of
from experiments.runs.latest_runs import latest_finished, latest_unfinished
from experiments.runs.points import POINTS_FILE, PointFile
from experiments.runs.progress import remaining
from experiments.runs.registry import ALL, EXPERIMENTS
from experiments.runs.results import RESULTS, Run
from experiments.runs.run_options import RunOptions
from experiments.runs.run_plan import in_order
from experiments.runs.schedule import Job, job_of, minutes_left, startable, unheeded

LOOK_S = 0.2
TELL_S = 60.0  # between two lines on what is at work
STOP_LIMIT_S = 120.0  # for a testbed to take down what it built
STATES: dict[int, Literal["holds", "FAILS"]] = {0: "holds", 1: "FAILS"}
ERROR = "ERROR"


class Outcome(msgspec.Struct, frozen=True):
    """What became of an experiment: `state` holds, FAILS, or ERROR where it could not be run; `said` is its last line.

    `directory` is its run's, of which `fidelity` tells; both are empty where it left no result.
    """

    name: str
    state: str
    took_s: float
    fidelity: str = ""
    directory: str = ""
    said: str = ""

    def row(self) -> tuple[str, str, str, str, str]:
        state = self.state if self.state == STATES[0] else f"{self.state} {self.said}".strip()
        return self.name, state, self.fidelity, f"{self.took_s / 60:.1f}", self.directory


@dataclass(slots=True)
class Running:
    """An experiment at work in a process of its own."""

    job: Job
    child: subprocess.Popen[bytes]
    log: Path
    began_s: float

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.began_s) / 60


def run_all(names: Sequence[str], options: RunOptions, say: Callable[[str], None],
            parent: Path = RESULTS) -> dict[str, Any]:
    """Run the experiments `names` in the plan's order. Returns {"holds", "rows", "minutes"}.

    Raises ExperimentError if one of them needs root and there is none, or if there is nothing to resume.
    """
    jobs = jobs_of(names, options, say)
    if os.geteuid() != 0 and (needing := [job.name for job in jobs if job.needs_root]):
        raise ExperimentError(f"{len(needing)} of {len(jobs)} experiments build networks, which needs root: run it "
                              "with sudo, or with --simulate for those that can do without packets")
    run = Run.begin(ALL, options, parent)
    began_s = time.monotonic()
    try:
        campaign = _Campaign(run, jobs, say)
        outcomes = campaign.outcomes()
    except BaseException:
        run.release()
        say(f"what is done is kept in {run.directory}; --resume goes on with it")
        raise
    content = {"holds": all(one.state == STATES[0] for one in outcomes), "rows": [one.row() for one in outcomes],
               "minutes": (campaign.earlier_s + time.monotonic() - began_s) / 60, "quick": options.quick}
    if any(one.state == ERROR for one in outcomes):
        run.release()
        say(f"some could not be run; once that is mended, --resume tries them again ({run.directory})")
    else:
        run.finish(content)
    return content


def jobs_of(names: Sequence[str], options: RunOptions, say: Callable[[str], None]) -> list[Job]:
    """Return the jobs in the plan's order; `say` hears of every experiment left out and every option not heeded."""
    jobs = {name: job_of(EXPERIMENTS[name], options) for name in in_order(list(names))}
    left_out = [name for name, job in jobs.items() if job is None]
    if left_out:
        say(f"left out, since they cannot be simulated: {', '.join(left_out)}")
    for line in unheeded([EXPERIMENTS[name] for name, job in jobs.items() if job is not None], options):
        say(line)
    virtual = [job.name for job in jobs.values() if job is not None and job.options.simulate and not options.simulate]
    if virtual:
        say(f"in virtual time, to keep a quick run of all short: {', '.join(virtual)}; on packets by "
            f"`sudo ./e3 run {virtual[0]} --quick`")
    return [job for job in jobs.values() if job is not None]


class _Campaign:
    """`earlier_s`: what the experiments took that earlier sessions have done, one after the other."""

    def __init__(self, run: Run, jobs: Sequence[Job], say: Callable[[str], None]) -> None:
        self._run, self._jobs, self._say = run, list(jobs), say
        self._points = PointFile(run.directory / POINTS_FILE)
        self._found = {name: self._points.value(name, Outcome) for name in self._points.names()}
        self.earlier_s = sum(one.took_s for one in self._found.values())
        self._running: list[Running] = []
        self._cores = os.cpu_count() or 1
        self._told_s = time.monotonic()

    def outcomes(self) -> list[Outcome]:
        """Run what is left; return what became of every job, in order."""
        pending = [job for job in self._jobs if job.name not in self._found]
        if len(pending) < len(self._jobs):
            self._say(f"going on with {self._run.directory}: {len(self._jobs) - len(pending)} of {len(self._jobs)} "
                      "experiments are there")
        try:
            while pending or self._running:
                for job in startable(pending, [one.job for one in self._running], self._cores):
                    pending.remove(job)
                    self._running.append(self._started(job))
                time.sleep(LOOK_S)
                for one in [one for one in self._running if one.child.poll() is not None]:
                    self._running.remove(one)
                    self._ended(one, pending)
                self._tell(pending)
        except BaseException:
            self._stop()
            raise
        return [self._found[job.name] for job in self._jobs]

    def _started(self, job: Job) -> Running:
        log = self._run.directory / f"{job.name}.log"
        options = replace(job.options, resume=self._is_resumable(job))
        with log.open("ab") as file:
            # A session of its own: Ctrl-C reaches this process, which then stops the child in its own way.
            child = subprocess.Popen([sys.executable, "-I", "-m", "experiments.one_of_all", str(os.getpid()),
                                      job.name, *flags_of(options)], stdin=subprocess.DEVNULL, stdout=file,
                                     stderr=file, start_new_session=True)
        return Running(job, child, log, time.monotonic())

    def _is_resumable(self, job: Job) -> bool:
        """Say whether an earlier session of this run of all left the experiment unfinished."""
        unfinished = latest_unfinished(job.name)
        if unfinished is None or "resume" not in EXPERIMENTS[job.name].honours:
            return False
        return unfinished.began_unix_s >= self._run.sessions[0]["began_unix_s"]

    def _ended(self, one: Running, pending: Sequence[Job]) -> None:
        name, took_s = one.job.name, time.monotonic() - one.began_s
        state = STATES.get(one.child.returncode, ERROR)
        result = latest_finished(name) if state != ERROR else None
        outcome = Outcome(name, state, took_s, said=_last_line(one.log) if state == ERROR else "")
        if result is not None:
            outcome = msgspec.structs.replace(
                outcome, directory=f"results/{result.run_id}",
                fidelity=summary_of(result.manifest, result.is_virtual).said)
        self._found[name] = outcome
        if state != ERROR:
            self._points.add(name, took_s, outcome)
        self._say(f"{len(self._found)} of {len(self._jobs)}: {name} {outcome.state}, "
                  f"{outcome.fidelity or outcome.said}, {remaining(took_s)}; {self._left(pending)}")
        self._told_s = time.monotonic()

    def _left(self, pending: Sequence[Job]) -> str:
        if not pending and not self._running:
            return "all done"
        done = [(job, self._found[job.name].took_s / 60) for job in self._jobs if job.name in self._found]
        running = [(one.job, one.minutes) for one in self._running]
        return f"about {remaining(60 * minutes_left(pending, running, self._cores, done))} left"

    def _tell(self, pending: Sequence[Job]) -> None:
        """Say from time to time what is at work, and where."""
        if self._running and time.monotonic() - self._told_s >= TELL_S:
            self._told_s = time.monotonic()
            for one in self._running:
                self._say(f"{one.job.name}, {remaining(60 * one.minutes)} so far: {_last_line(one.log)}")
            self._say(self._left(pending))

    def _stop(self) -> None:
        """Stop what is at work; a testbed takes down what it built."""
        for one in self._running:
            one.child.send_signal(signal.SIGTERM)
        for one in self._running:
            try:
                one.child.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                one.child.kill()


def flags_of(options: RunOptions) -> list[str]:
    """Return the words on the command line that mean `options`."""
    words = [flag for flag, given in (("--quick", options.quick), ("--resume", options.resume),
                                      ("--simulate", options.simulate)) if given]
    if options.time_scale is not None:
        words += ["--time-scale", f"{options.time_scale}"]
    return words + (["--retry", str(options.retry)] if options.retry else [])


def _last_line(log: Path) -> str:
    lines = log.read_bytes()[-4096:].decode(errors="replace").split("\n") if log.exists() else []
    return next((line.removeprefix("e3: ").strip() for line in reversed(lines) if line.strip()), "")
