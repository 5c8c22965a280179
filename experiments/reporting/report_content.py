"""What is in the report, as data: from the latest runs to tables, figures and sentences. Pure but for file names.

`report_page.py` turns it into a page; nothing here knows HTML.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from experiments.errors import ExperimentError
from experiments.reporting.chart_words import axes_of, in_words
from experiments.reporting.claim_setup import setup_findings
from experiments.reporting.claim_sources import WAITS_FOR, findings_of
from experiments.reporting.claims import Claim, ClaimRow, Finding, Tally, claim_rows, tally
from experiments.runs.fidelity_summary import FidelitySummary, summary_of
from experiments.runs.latest_runs import StoredRun, UnfinishedRun
from experiments.runs.registry import Experiment
from experiments.runs.run_plan import planned
from experiments.views.figures import StoredFigure, chart_of
from experiments.views.scenario_timeline import Timeline

LONG_ROWS = 14  # a longer table is folded on a screen
PICTURE = ".png"


class Shown(msgspec.Struct, frozen=True):
    """A picture: its file, title, what is on its axes, and the same in words for those who cannot see it."""

    path: Path
    title: str
    axes: str
    words: str
    is_wide: bool = False


class Section(msgspec.Struct, frozen=True):
    """An experiment's part: what its latest run says, or None and the command that would make one."""

    name: str
    sentence: str
    command: str
    run: StoredRun | None = None
    unfinished: UnfinishedRun | None = None
    rows: tuple[tuple[str, str, str], ...] = ()
    figures: tuple[Shown, ...] = ()
    fidelity: FidelitySummary | None = None
    trouble: str = ""

    @property
    def title(self) -> str:
        """The figure or table as the paper numbers it, and the experiment's name; without a number the name alone."""
        kind = re.fullmatch(r"(fig|table)(\d+)", self.name)
        return f"{'Figure' if kind[1] == 'fig' else 'Table'} {kind[2]} ({self.name})" if kind else self.name

    @property
    def holds(self) -> bool | None:
        return None if self.run is None else bool(self.run.manifest.get("holds"))

    @property
    def verdict(self) -> str:
        return {None: "not run", True: "holds", False: "does not hold"}[self.holds]

    @property
    def is_long(self) -> bool:
        return len(self.rows) > LONG_ROWS

    @property
    def began(self) -> str:
        return "" if self.run is None else _moment(self.run.manifest["began_unix_s"])

    @property
    def commit(self) -> str:
        if self.run is None:
            return ""
        changed = " with changes" if self.run.manifest.get("git_changed") else ""
        return (self.run.manifest.get("git_commit", "")[:10] or "unknown") + changed


class Proof(msgspec.Struct, frozen=True):
    """The routing proof of a run: where it is from, and what each check found."""

    source: str
    cluster: str
    packets: int
    holds: bool
    checks: tuple[tuple[str, str, str, str], ...]


class Report(msgspec.Struct, frozen=True):
    """All of it. `machines`: each set of facts that runs have in common, and whose they are."""

    made: str
    sections: tuple[Section, ...]
    claims: tuple[ClaimRow, ...]
    tally: Tally
    machines: tuple[tuple[str, str], ...]
    sensitivity: tuple[Section, ...]
    proofs: tuple[Proof, ...]
    assumptions: tuple[tuple[str, str, str, str, str], ...]
    gaps: tuple[tuple[str, str, str], ...]
    disagreements: tuple[Claim, ...]
    words: tuple[tuple[str, str], ...]

    @property
    def present(self) -> tuple[Section, ...]:
        return tuple(one for one in self.sections if one.run is not None)

    @property
    def missing(self) -> tuple[Section, ...]:
        return tuple(one for one in self.sections if one.run is None)


def section_of(experiment: Experiment, run: StoredRun | None, unfinished: UnfinishedRun | None) -> Section:
    """Return an experiment's part of the report."""
    root = "sudo " if planned(experiment.name).needs_root else ""
    command = f"{root}./e3 run {experiment.name} --quick" + (" --resume" if run is None and unfinished else "")
    if run is None:
        return Section(experiment.name, experiment.sentence, command, unfinished=unfinished)
    rows = tuple((str(what), str(measured), str(wanted)) for what, measured, wanted in run.manifest.get("rows", ()))
    figures, trouble = _figures(run)
    return Section(experiment.name, experiment.sentence, command, run, unfinished, rows, figures,
                   summary_of(run.manifest, run.is_virtual), trouble)


class Facts(msgspec.Struct, frozen=True):
    """What does not come from runs: claims, why some are missed, our assumptions, what the paper leaves open, words."""

    claims: tuple[Claim, ...]
    reasons: dict[str, str]
    assumptions: tuple[tuple[str, str, str, str, str], ...]
    gaps: tuple[tuple[str, str, str], ...]
    words: tuple[tuple[str, str], ...]


def report_of(sections: Sequence[Section], sensitivity: Sequence[Section], proof_runs: Sequence[StoredRun],
              facts: Facts, now_unix_s: float) -> Report:
    """Put the report together; what a run's manifest does not give is left out and said in its section."""
    findings: list[Finding] = list(setup_findings())
    made = []
    for section in sections:
        try:
            findings += [] if section.run is None else findings_of(section.name, section.run.manifest)
        except (msgspec.ValidationError, KeyError, ValueError, ArithmeticError, StopIteration) as error:
            section = msgspec.structs.replace(section, trouble=f"its claims cannot be read, it is perhaps of another "
                                              f"version: {error!r}; run it again: {section.command}")
        made.append(section)
    commands = {key: next((one.command for one in sections if one.name == name), f"./e3 run {name}")
                for key, name in WAITS_FOR.items()}
    rows = claim_rows(facts.claims, findings, facts.reasons, commands)
    return Report(_moment(now_unix_s), tuple(made), tuple(rows), tally(rows), machines_of(made), tuple(sensitivity),
                  tuple(proof for run in proof_runs if (proof := proof_of(run)) is not None), facts.assumptions,
                  facts.gaps, tuple(claim for claim in facts.claims if claim.disagrees), facts.words)


def machines_of(sections: Sequence[Section]) -> tuple[tuple[str, str], ...]:
    """Return what runs were made on, as a sentence, and the experiments that share it."""
    found: dict[str, list[str]] = {}
    for section in sections:
        if section.run is not None:
            found.setdefault(_machine(section.run.manifest), []).append(section.name)
    return tuple((said, ", ".join(names)) for said, names in found.items())


def proof_of(run: StoredRun) -> Proof | None:
    """Return the routing proof in a manifest; None if it has none."""
    proof = run.manifest.get("proof")
    if not proof:
        return None
    checks = tuple((check["name"], {True: "holds", False: "FAILS", None: "not judged"}[check["verdict"]],
                    check["claim"], ", ".join(f"{count:,} {what}" if isinstance(count, int) else f"{count} {what}"
                                              for what, count in check["counts"].items()) or check["note"])
                   for check in proof["checks"])
    return Proof(run.run_id, proof["cluster"], proof["packets"], proof["holds"], checks)


def _figures(run: StoredRun) -> tuple[tuple[Shown, ...], str]:
    """Return the run's pictures that are there, and what is to be said of those that are not."""
    shown, absent = [], []
    stored: Mapping[str, Any] = run.manifest.get("figures", {})
    for name, content in stored.items():
        path = run.directory / (name + PICTURE)
        try:
            chart = chart_of(msgspec.convert(content, StoredFigure))
        except (ExperimentError, msgspec.ValidationError) as error:
            absent.append(f"{name}: {error}")
            continue
        if not path.exists():
            absent.append(f"{name}: its picture is gone; draw it anew: ./e3 report --redraw")
            continue
        shown.append(Shown(path, chart.title.replace("\n", " "), axes_of(chart), in_words(chart),
                           isinstance(chart, Timeline)))
    return tuple(shown), "; ".join(absent)


def _machine(manifest: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.get("libraries", {}).items() if version)
    switch = str(manifest.get("open_vswitch", "")).replace("ovs-vswitchd (Open vSwitch)", "Open vSwitch")
    return (f"{manifest.get('cores', '?')} cores, Linux {manifest.get('kernel', '?')}, Python "
            f"{manifest.get('python', '?')}, {switch}; {libraries}")


def _moment(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_s))
