"""The command line's runs of experiments."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.commands.shared import Json, emit, experiment_names, say, table
from experiments.errors import ExperimentError
from experiments.runs.run_options import RunOptions


def run(names: Annotated[list[str], typer.Argument(help="Experiments, or all; see `e3 list`.",
                                               autocompletion=experiment_names)],
        quick: Annotated[bool, typer.Option("--quick", help="Minutes rather than the full size.")] = False,
        resume: Annotated[bool, typer.Option("--resume", help="Go on with the latest unfinished run of these options.")]
        = False,
        time_scale: Annotated[str | None, typer.Option(help="Real seconds per emulated one: a number, or auto.")]
        = None,
        retry: Annotated[int, typer.Option(help="Times to repeat, slower, a point whose machine did not keep up.")] = 0,
        simulate: Annotated[bool, typer.Option("--simulate", help="In virtual time, without packets.")] = False,
        sensitivity: Annotated[bool, typer.Option("--sensitivity", help="How the result changes with each assumption, "
                                                  "in virtual time.")] = False,
        file: Annotated[str, typer.Option(help="What an experiment reads what it is to do from, as scenario does.")]
        = "",
        seed: Annotated[int | None, typer.Option(help="Play one of an experiment's seeds alone, and tell all of it.")]
        = None,
        json: Json = False) -> None:
    """Run experiments; each writes results/NAME/RUN-ID/. An option that an experiment cannot honour is refused."""
    from experiments.runs.registry import ALL, EXPERIMENTS, chosen
    from experiments.runs.run_options import time_scale_of

    options = RunOptions(quick, resume, time_scale_of(time_scale), retry, simulate, sensitivity, file, seed)
    if ALL in names:
        _run_all(options, json)
    content = {}
    for name in chosen(names):
        EXPERIMENTS[name].refuse(options)  # before the first begins
    for name in chosen(names):
        say(f"{name}: {EXPERIMENTS[name].sentence}")
        outcome = content[name] = EXPERIMENTS[name].run(options, say)
        emit(None, False, lambda outcome=outcome, name=name: None if json else table(  # type: ignore[misc]
            f"{name}: {'holds' if outcome['holds'] else 'FAILS'}", ("what", "measured", "wanted"), outcome["rows"]))
    if json:
        emit(content, True, lambda: None)
    raise typer.Exit(0 if all(outcome["holds"] for outcome in content.values()) else 1)


def _run_all(options: RunOptions, json: bool) -> None:
    """Run every experiment, one process each, whatever becomes of the others."""
    from experiments.runs.registry import EXPERIMENTS
    from experiments.runs.run_all import run_all

    asked = {"sensitivity": options.sensitivity, "file": bool(options.file), "seed": options.seed is not None}
    for field, given in asked.items():
        if given:
            able = ", ".join(name for name, one in EXPERIMENTS.items() if field in one.honours)
            raise ExperimentError(f"all experiments with --{field}: only {able} can honour it; name it")
    content = run_all(list(EXPERIMENTS), options, say)
    emit(content, json, lambda: table(
        f"all: {'holds' if content['holds'] else 'FAILS'} after {content['minutes']:.1f} min",
        ("experiment", "verdict", "fidelity", "min", "results"), content["rows"]))
    raise typer.Exit(0 if content["holds"] else 1)
