"""Which of all experiments starts next, and about how long the rest will take. Pure.

What is measured on packets, or by the clock, has the machine to itself: beside another it would be late. What plays in
virtual time cannot be late, so as many of those run at once as there are cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.runs.registry import Experiment
from experiments.runs.run_options import RunOptions
from experiments.runs.run_plan import planned

LEAST_PACE, MOST_PACE = 0.3, 4.0  # this machine's minutes over those that are planned: beyond, a forecast is no good


@dataclass(frozen=True, slots=True)
class Job:
    """One experiment with the options that it gets; `beside_others`: it needs no machine of its own."""

    name: str
    options: RunOptions
    minutes: float
    beside_others: bool
    needs_root: bool
    after: str = ""


def job_of(experiment: Experiment, options: RunOptions) -> Job | None:
    """Return what `options` for all experiments mean for this one; None if it is left out.

    An experiment is left out of a simulated run if it cannot be simulated. A time scale and retries go to those that
    honour them. In a quick run, some are played in virtual time (run_plan.py).
    """
    plan = planned(experiment.name)
    able = "simulate" in experiment.honours
    if options.simulate and not (able or plan.beside_others):
        return None
    simulate = able and (options.simulate or (options.quick and plan.virtual_if_quick))
    honoured = experiment.honours
    own = RunOptions(options.quick, False,
                     options.time_scale if "time_scale" in honoured and not simulate else None,
                     options.retry if "retry" in honoured and not simulate else 0, simulate)
    return Job(experiment.name, own, plan.quick_minutes if options.quick else plan.full_minutes,
               simulate or plan.beside_others, plan.needs_root and not simulate, plan.after)


def unheeded(experiments: Sequence[Experiment], options: RunOptions) -> list[str]:
    """Return a line for each option that some of the experiments do not heed, naming them."""
    said = []
    for field, flag in (("time_scale", "--time-scale"), ("retry", "--retry")):
        if getattr(options, field):
            deaf = [one.name for one in experiments if field not in one.honours]
            if deaf:
                said.append(f"{flag} means nothing to {', '.join(deaf)}")
    return said


def startable(pending: Sequence[Job], running: Sequence[Job], cores: int) -> list[Job]:
    """Return what is to start now, in order: the next by itself, or as many beside each other as there are cores."""
    unfinished = {job.name for job in (*pending, *running)}
    pending = [job for job in pending if job.after not in unfinished]
    if not pending or any(not job.beside_others for job in running) or len(running) >= cores:
        return []
    if not pending[0].beside_others:
        return [] if running else [pending[0]]
    return [job for job in pending if job.beside_others][:cores - len(running)]


def minutes_left(pending: Sequence[Job], running: Sequence[tuple[Job, float]], cores: int,
                 done: Sequence[tuple[Job, float]]) -> float:
    """Return the forecast in minutes; `running` and `done` are jobs with the minutes that they have taken.

    What is planned is corrected by what those done took over their plan.
    """
    plan = sum(job.minutes for job, _ in done)
    pace = min(MOST_PACE, max(LEAST_PACE, sum(took for _, took in done) / plan)) if plan else 1.0
    alone = [job.minutes * pace for job in pending if not job.beside_others]
    alone += [max(0.0, job.minutes * pace - took) for job, took in running if not job.beside_others]
    shared = [job.minutes * pace for job in pending if job.beside_others]
    shared += [max(0.0, job.minutes * pace - took) for job, took in running if job.beside_others]
    return sum(alone) + max([sum(shared) / cores, *shared], default=0.0)
