"""Measuring again, more slowly: only while it can help, and no oftener than allowed."""

from experiments.measurement.fidelity import Figure, Verdict
from experiments.measurement.retrying import slowed_till_it_holds
from experiments.runs.run_options import MOST_TIME_SCALE

HOLDS = Verdict(True, (), ())
LATE = Verdict(False, ("lateness p99 at s1h",), (Figure("lateness p99", "s1h", 3.0, 1.0, "s"),))


def tried(verdicts: list[Verdict], retries: int, scale: float = 10.0,
          stands: bool = True) -> tuple[float, list[float], list[str]]:
    scales: list[float] = []
    said: list[str] = []

    def measure(time_scale: float) -> tuple[float, Verdict, bool]:
        verdict = verdicts[len(scales)]
        scales.append(time_scale)
        return time_scale, verdict, verdict.holds and stands

    return slowed_till_it_holds(measure, scale, retries, said.append), scales, said


def test_what_holds_is_measured_once() -> None:
    assert tried([HOLDS], 3) == (10.0, [10.0], [])


def test_what_is_refused_is_measured_again_more_slowly_until_it_holds() -> None:
    result, scales, said = tried([LATE, LATE, HOLDS], 5)
    assert result == scales[-1] and len(scales) == 3 and scales == sorted(set(scales))
    assert said[0].startswith("refused at time scale 10, lateness p99 at s1h; again at ") and len(said) == 2


def test_no_oftener_than_is_allowed_and_the_last_is_what_is_kept() -> None:
    result, scales, said = tried([LATE] * 9, 2)
    assert len(scales) == 3 and result == scales[-1] and len(said) == 2
    assert tried([LATE], 0) == (10.0, [10.0], [])


def test_nothing_is_slowed_beyond_the_limit_or_for_what_slowness_did_not_cause() -> None:
    assert tried([LATE] * 9, 5, scale=MOST_TIME_SCALE) == (MOST_TIME_SCALE, [MOST_TIME_SCALE], [])
    assert tried([HOLDS] * 9, 5, stands=False) == (10.0, [10.0], [])  # no knee, say, on a machine that kept up
