"""The command line's report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.commands.shared import Json, emit, say, table


def report(output: Annotated[Path | None, typer.Option("--output", "-o", help="The page; without it, "
                                                       "results/report.html.")] = None,
           pdf: Annotated[bool, typer.Option("--pdf", help="Also on paper: the same name with .pdf.")] = False,
           redraw: Annotated[bool, typer.Option("--redraw", help="First draw all plots anew from stored data.")]
           = False,
           json: Json = False) -> None:
    """Put the latest results beside the paper's, in one HTML page. Measures nothing and needs no root."""
    from experiments.reporting.report import PAGE, make_report
    from experiments.runs.results import RESULTS

    content = make_report(output or RESULTS / PAGE, pdf, redraw, say)
    emit(content, json, lambda: _show(content))


def _show(content: dict[str, Any]) -> None:
    table("The report", ("what", "how many"), [
        ("experiments with a finished run", content["runs"]),
        ("of them not holding", ", ".join(content["failing"]) or "none"),
        ("predicted claims that go the paper's way", f"{content['same_direction']} of {content['comparable']}"),
        ('and if "up to" is about the best alone', f"{content['same_direction_as_worded']} of {content['comparable']}"),
        ("predicted numbers within 25 %", f"{content['within_25_percent']} of {content['with_ratio']}"),
        ("claims without a result yet", content["claims_without_result"])])
    for name, command in content["missing"].items():
        say(f"{name} is missing: {command}")
    for path in content["files"]:
        print(path)
