"""The tour's steps that build a rack: they print what the page says, but for the numbers of another machine."""

from __future__ import annotations

import pytest
from tour_page import Step, follows, printed, steps

pytestmark = pytest.mark.root


@pytest.mark.parametrize("step", [step for step in steps() if step.as_root], ids=lambda step: " ".join(step.words))
def test_a_step_on_a_rack_prints_what_the_page_says(step: Step) -> None:
    done = printed(step.words, timeout_s=240.0)
    assert done.returncode == 0, done.stderr
    assert not follows(done.stdout.splitlines(), step.lines, numbers=False), done.stdout
