"""Makes the report: reads the latest runs and the paper's facts, and writes report.html and report.pdf."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.errors import ExperimentError
from experiments.reporting.claims import claims_of
from experiments.reporting.report_content import Facts, Report, report_of, section_of
from experiments.reporting.report_page import page_of, pdf_of
from experiments.runs.latest_runs import StoredRun, latest_finished, latest_unfinished
from experiments.runs.registry import EXPERIMENTS
from experiments.runs.results import RESULTS, write_whole
from experiments.views.figures import redraw
from microservices.assumptions import ASSUMPTIONS

CLAIMS, REASONS, GAPS = "paper_claims.csv", "claim_reasons.csv", "paper_gaps.csv"
WORDS = "report_words.csv"
VARIED = "-sensitivity"  # what follows an experiment's name where its sensitivity runs are
PROOFS = ("demo", "racks")  # runs that keep a routing proof
PAGE = "report.html"


def collected(parent: Path = RESULTS) -> Report:
    """Return the report on the latest runs in `parent`."""
    sections = [section_of(experiment, latest_finished(name, parent, packets_first=True),
                           latest_unfinished(name, parent))
                for name, experiment in EXPERIMENTS.items()]
    facts = Facts(claims_of(_text(CLAIMS)),
                  {f"{row['key']}/{row['what']}".rstrip("/"): row["why"] for row in _table(REASONS)},
                  tuple((one.name, f"{one.default:g}", f"{one.low:g} to {one.high:g}", one.meaning, one.rests_on)
                        for one in ASSUMPTIONS),
                  tuple((row["section"], row["open"], row["ours"]) for row in _table(GAPS)),
                  tuple((row["term"], row["meaning"]) for row in _table(WORDS)))
    proofs = [run for name in PROOFS if (run := latest_finished(name, parent)) is not None]
    varied = [section_of(experiment, run, None) for name, experiment in EXPERIMENTS.items()
              if (run := latest_finished(name + VARIED, parent, sensitivity=True)) is not None]
    return report_of(sections, varied, proofs, facts, time.time())


def make_report(output: Path, pdf: bool, redrawn: bool, say: Callable[[str], None],
                parent: Path = RESULTS) -> dict[str, Any]:
    """Write the page to `output` and, with `pdf`, the same on paper beside it. Returns what was written and counted.

    With `redrawn` the plots of the latest runs are first drawn anew from their stored data. Raises ExperimentError if a
    file cannot be written.
    """
    pictures = list(_redrawn(parent, say)) if redrawn else []
    report = collected(parent)
    written = [_write(output, page_of(report).encode())]
    if pdf:
        written.append(_write(output.with_suffix(".pdf"), pdf_of(page_of(report, on_paper=True))))
    return {"files": [str(path) for path in written], "redrawn": len(pictures), "runs": len(report.present),
            "missing": {one.name: one.command for one in report.missing},
            "failing": [one.name for one in report.present if not one.holds],
            "comparable": report.tally.comparable, "same_direction": report.tally.same_direction,
            "same_direction_as_worded": report.tally.as_worded,
            "with_ratio": report.tally.with_ratio, "within_25_percent": report.tally.close,
            "claims_without_result": report.tally.missing}


def _redrawn(parent: Path, say: Callable[[str], None]) -> Iterator[Path]:
    runs: list[StoredRun] = [run for name in EXPERIMENTS for end in ("", VARIED)
                             if (run := latest_finished(name + end, parent, bool(end), packets_first=True)) is not None]
    for run in runs:
        try:
            paths = redraw(run.directory)
        except (ExperimentError, OSError) as error:
            say(f"{run.run_id}: its plots stay as they are: {error}")
            continue
        if paths:
            say(f"{run.run_id}: {len(paths)} files drawn anew")
        yield from paths


def _write(path: Path, content: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ExperimentError(f"cannot write {path}: {error.strerror}") from error
    return path


def _table(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(_text(name).splitlines()))


def _text(name: str) -> str:
    return files("experiments.reporting").joinpath(name).read_text(encoding="utf-8")
