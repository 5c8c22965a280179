"""How an experiment is to be run: what every experiment is told, and may refuse."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from experiments.errors import ExperimentError

LEAST_TIME_SCALE, MOST_TIME_SCALE = 1.0, 10_000.0
MOST_RETRIES = 10
AUTO: Literal["auto"] = "auto"
# Not part of what a run measures: a run may be resumed with others.
_OF_THE_SESSION = ("resume", "retry")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """`quick`: minutes rather than the full size. `resume`: go on with the latest unfinished run of the same options.

    `time_scale`: how many real seconds an emulated one lasts, or "auto"; None leaves it to the experiment. `retry`: how
    often a point whose fidelity verdict fails is measured again at a larger time scale. `simulate`: in virtual time
    and one process, in place of real packets. `sensitivity`: not the result, but how it changes with each assumption.
    `file`: what the experiment reads what it is to do from. `seed`: of many that it would play, this one alone.
    """

    quick: bool = False
    resume: bool = False
    time_scale: float | Literal["auto"] | None = None
    retry: int = 0
    simulate: bool = False
    sensitivity: bool = False
    file: str = ""
    seed: int | None = None

    def __post_init__(self) -> None:
        scale = self.time_scale
        if isinstance(scale, (int, float)) and not LEAST_TIME_SCALE <= scale <= MOST_TIME_SCALE:
            raise ExperimentError(f"time scale {scale:g}; the limits are {LEAST_TIME_SCALE:g} and {MOST_TIME_SCALE:g}")
        if not 0 <= self.retry <= MOST_RETRIES:
            raise ExperimentError(f"{self.retry} retries; the limits are 0 and {MOST_RETRIES}")
        if self.sensitivity and scale is not None:
            raise ExperimentError(f"a time scale of {scale} for a sensitivity run, which is in virtual time: leave out "
                                  "--time-scale or --sensitivity")
        if self.simulate and scale is not None:
            raise ExperimentError(f"a time scale of {scale} for a simulation, which runs in virtual time: leave out "
                                  "--time-scale or --simulate")

    def identity(self) -> dict[str, Any]:
        """Return the options that a run must share to be continued, by name."""
        unknown = {"sensitivity": self.sensitivity, "seed": self.seed is not None}  # to older runs
        left_out = {*_OF_THE_SESSION, *(name for name, given in unknown.items() if not given)}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def with_retries(self, usual: int) -> RunOptions:
        """Return the same with the `usual` number of retries, where packets are sent and nobody asked for another."""
        return self if self.retry or self.simulate else replace(self, retry=usual)

    def refuse_beyond(self, honours: Collection[str], experiment: str) -> None:
        """Raise ExperimentError, naming it, for a setting that is not the default and not among `honours`."""
        usual = RunOptions()
        given = [f.name for f in fields(self) if getattr(self, f.name) != getattr(usual, f.name)]
        refused = [_flag(name) for name in given if name not in honours]
        if refused:
            able = ", ".join(_flag(f.name) for f in fields(self) if f.name in honours) or "none"
            raise ExperimentError(f"{experiment} cannot honour {', '.join(refused)}; what it honours: {able}")


def time_scale_of(text: str | None) -> float | Literal["auto"] | None:
    """Return what `text` means on the command line: a number, "auto", or None; raises ExperimentError if neither."""
    if text is None:
        return None
    if text == AUTO:
        return AUTO
    try:
        scale = float(text)
    except ValueError:
        scale = math.nan
    if math.isnan(scale):
        raise ExperimentError(f"time scale {text!r}: it must be a number from {LEAST_TIME_SCALE:g} to "
                              f"{MOST_TIME_SCALE:g}, or {AUTO}")
    return scale


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
