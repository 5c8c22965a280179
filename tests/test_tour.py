"""The terminal tour: what the page says that commands print is what they print."""

from __future__ import annotations

from pathlib import Path

import pytest
from tour_page import Step, comparable, follows, printed, steps

ROOTLESS = [step for step in steps() if not step.as_root]


@pytest.mark.parametrize("step", ROOTLESS, ids=lambda step: " ".join(step.words))
def test_a_command_of_the_tour_prints_what_the_page_says(step: Step, tmp_path: Path) -> None:
    words = list(step.words)
    if "-o" in words:
        words[words.index("-o") + 1] = str(tmp_path / words[words.index("-o") + 1])
    done = printed(words)
    assert done.returncode == 0, done.stderr
    assert not follows(done.stdout.replace(f"{tmp_path}/", "").splitlines(), step.lines)


def test_the_tour_has_steps_of_both_kinds() -> None:
    assert len(ROOTLESS) >= 5 and len(steps()) > len(ROOTLESS)


def test_a_line_that_is_not_printed_is_found_out() -> None:
    said = ["┃ a ┃ 1 ┃", "└───┘", "b 2.5 W", "c"]
    assert not follows(said, ("a 1", "", "b   2.5 W", "c"))
    assert not follows(said, ("a 1", "...", "c")) and not follows(said, ("...", "b 2.5 W", "..."))
    assert follows(said, ("a 2", "...")) and follows(said, ("...", "d", "..."))
    assert follows(said, ("a 1", "", "b 2.5 W")) and follows(said, ("a 1", "", "b 2.5 W", "c", "d"))
    assert not follows(["9 of 10"], ("7 of 12",), numbers=False) and follows(["9 of 10"], ("7 of 12",))
    assert comparable("  12,000 requests, 3.5e-06 s", numbers=False) == "# requests, # s"
