"""The paper's claims, each beside what our runs found: the ratio, the direction, and whether it is within 25 %. Pure.

`paper_claims.csv` has every figure that the paper's text states, by a key of ours, with what does not add up in it. A
`Finding` is our side of one of them, or of one of several numbers in one. What the paper gives as a way to measure, or
what goes into a run, is told apart from what comes out of it: only the latter is judged.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from experiments.errors import ExperimentError

CLOSE = 0.25  # what "within 25 %" means, of the paper's value
Kind = Literal["prediction", "input", "set-up"]


class Claim(msgspec.Struct, frozen=True):
    """A row of paper_claims.csv. `disagrees`: `note` says what in the paper's own numbers does not add up."""

    key: str
    section: str
    metric: str
    value: str
    unit: str
    conditions: str
    note: str
    disagrees: bool

    def said(self) -> str:
        """Return the paper's value as a reader wants it: "up to 3x", "21 % average improvement"."""
        return f"{self.value}{'' if self.unit.startswith('x') else ' '}{self.unit}".strip()


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has to say of the claim `key`, or of the part `what` of it.

    `paper` and `ours` are numbers in `unit`; `neutral` is the value that would mean no effect (1 for a factor, 0 for a
    saving), None where a direction makes no sense, as for watts. A claim in words has `holds` in place of numbers, and
    `said` has ours in words. `refused`: the measurement's fidelity verdict does not hold. Where the paper says "up to",
    `ours` is the most that any application shows, and `typical` the mean over all that the claim is about: it decides
    the direction, since the best of eight is seldom a loss.
    """

    key: str
    experiment: str
    what: str = ""
    paper: float | None = None
    ours: float | None = None
    unit: str = ""
    neutral: float | None = None
    typical: float | None = None
    holds: bool | None = None
    said: str = ""
    kind: Kind = "prediction"
    refused: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours over the paper's; None without two numbers."""
        return self.ours / self.paper if self.ours is not None and self.paper else None

    @property
    def same_direction(self) -> bool | None:
        """Whether ours is on the paper's side of no effect; None where that cannot be asked."""
        if self.holds is not None:
            return self.holds
        return self._on_the_papers_side(self.ours if self.typical is None else self.typical)

    @property
    def same_direction_as_worded(self) -> bool | None:
        """The same, but with "up to" taken at its word: it speaks of the best application alone."""
        return self.holds if self.holds is not None else self._on_the_papers_side(self.ours)

    def _on_the_papers_side(self, ours: float | None) -> bool | None:
        if self.paper is None or ours is None or self.neutral is None:
            return None
        return (ours - self.neutral) * (self.paper - self.neutral) > 0

    @property
    def close(self) -> bool | None:
        """Whether ours is within 25 % of the paper's; None without two numbers."""
        ratio = self.ratio
        return None if ratio is None else abs(ratio - 1) <= CLOSE

    @property
    def missed(self) -> bool:
        """Whether it owes an explanation: another direction, or beyond 25 %."""
        return self.same_direction is False or self.close is False

    def ours_said(self) -> str:
        if self.said or self.ours is None:
            return self.said
        most = amount(self.ours, self.unit)
        return most if self.typical is None else f"{most} at most, {amount(self.typical, self.unit)} on average"

    def paper_said(self) -> str:
        return "" if self.paper is None else amount(self.paper, self.unit)


class ClaimRow(msgspec.Struct, frozen=True):
    """A claim and one finding of it; None: there is none yet, and `command` would make it. `why` explains a miss."""

    claim: Claim
    finding: Finding | None
    why: str = ""
    command: str = ""


class Tally(msgspec.Struct, frozen=True):
    """How many rows can be compared, and how many of them agree; `refused`: the machine did not keep up.

    `as_worded`: as many have the same direction if "up to" is held against the best application, not the average one.
    """

    comparable: int
    same_direction: int
    as_worded: int
    with_ratio: int
    close: int
    inputs: int
    refused: int
    missing: int

    @property
    def direction_share(self) -> float | None:
        return self.same_direction / self.comparable if self.comparable else None

    @property
    def as_worded_share(self) -> float | None:
        return self.as_worded / self.comparable if self.comparable else None


def claims_of(text: str) -> tuple[Claim, ...]:
    """Return the claims of a CSV file's text, in its order; raises ExperimentError for a key that is there twice."""
    found = [msgspec.convert({**row, "disagrees": row["disagrees"] == "yes"}, Claim)
             for row in csv.DictReader(text.splitlines())]
    keys = [claim.key for claim in found]
    for key in keys:
        if keys.count(key) > 1:
            raise ExperimentError(f"two claims with the key {key!r}")
    return tuple(found)


def claim_rows(claims: Sequence[Claim], findings: Iterable[Finding], reasons: dict[str, str],
               commands: dict[str, str]) -> list[ClaimRow]:
    """Return every claim with each of its findings, or with none; raises ExperimentError for a finding of no claim.

    `reasons` explains misses by key, or by "key/what" where its parts differ; `commands` makes what is missing, by key.
    """
    found = list(findings)
    unknown = {one.key for one in found} - {claim.key for claim in claims}
    if unknown:
        raise ExperimentError(f"findings of claims that there are not: {', '.join(sorted(unknown))}")
    rows = []
    for claim in claims:
        own = [one for one in found if one.key == claim.key]
        rows += [ClaimRow(claim, one, _why(one, reasons)) for one in own]
        if not own:
            rows.append(ClaimRow(claim, None, command=commands.get(claim.key, "")))
    return rows


def tally(rows: Iterable[ClaimRow]) -> Tally:
    """Count. What went in, what is set-up and what is refused by its verdict is not counted as agreement."""
    rows = list(rows)
    made = [row.finding for row in rows if row.finding is not None]
    stated = [one for one in made if one.kind == "prediction"]
    predicted = [one for one in stated if not one.refused]
    directed = [one for one in predicted if one.same_direction is not None]
    ratios = [one for one in predicted if one.close is not None]
    return Tally(len(directed), sum(one.same_direction is True for one in directed),
                 sum(one.same_direction_as_worded is True for one in directed), len(ratios),
                 sum(one.close is True for one in ratios), len(made) - len(stated), len(stated) - len(predicted),
                 sum(row.finding is None for row in rows))


def amount(value: float, unit: str) -> str:
    """Return `value` with its unit in three digits: "6.45x", "83.3 %", "24.6 W"."""
    shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return shown + ("x" if unit == "x" else f" {unit}" if unit else "")


def _why(finding: Finding, reasons: dict[str, str]) -> str:
    if finding.refused:
        return "the machine did not keep up: measure again with --retry or a larger --time-scale"
    if finding.kind != "prediction" or not finding.missed:
        return ""
    return reasons.get(f"{finding.key}/{finding.what}") or reasons.get(finding.key) or "not explained yet"
