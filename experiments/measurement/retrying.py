"""Measures again, more slowly, what this machine did not keep up with: the one loop of experiments on packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from experiments.measurement.fidelity import Verdict, next_time_scale
from experiments.runs.run_options import MOST_TIME_SCALE

T = TypeVar("T")


def slowed_till_it_holds(measure: Callable[[float], tuple[T, Verdict, bool]], time_scale: float, retries: int,
                         say: Callable[[str], None] = lambda _: None, most: float = MOST_TIME_SCALE) -> T:
    """Return what `measure` gives at a time scale that this machine keeps up with, or else the last that was tried.

    `measure(time_scale)` gives a result, the fidelity verdict on it, and whether it stands. While it does not, it is
    measured again, `retries` times at most, at the larger time scale that the verdict asks for; not beyond `most`, and
    not where the verdict holds: what slowness did not cause, more of it does not mend. `say` hears of each repetition.
    """
    scale = time_scale
    for left in range(retries, -1, -1):
        result, verdict, stands = measure(scale)
        larger = next_time_scale(verdict, scale, most)
        if stands or not left or larger is None or larger == scale:
            break
        why = f", {verdict.reasons[0]}" if verdict.reasons else ""
        say(f"refused at time scale {scale:g}{why}; again at {larger:g}")
        scale = larger
    return result
