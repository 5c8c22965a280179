"""Takes the commands of the terminal tour and what they print out of docs/tour.md.

`python tests/tour_page.py` writes anew, there, what its commands print that need no root and have nothing cut out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tour.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CUT = "..."  # a line of this stands for lines left out


@dataclass(frozen=True)
class Step:
    """A command as it is typed, and the lines that follow it on the page."""

    words: tuple[str, ...]
    lines: tuple[str, ...]
    as_root: bool


def steps() -> list[Step]:
    """Return the tour's commands in order."""
    found = []
    for block in _BLOCK.findall(PAGE.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, said = part.partition("\n")
            words = command.split()
            as_root = words[0] == "sudo"
            words = words[1:] if as_root else words
            assert words[0] == "./e3", f"the tour types {command!r}"
            found.append(Step(tuple(words[1:]), tuple(said.rstrip("\n").split("\n")), as_root))
    return found


def comparable(line: str, numbers: bool) -> str:
    """Return a line without what a terminal's width changes and, unless `numbers` count, with # for each."""
    plain = " ".join(re.sub("[\u2500-\u257f]+", " ", line).split())  # a table's rules
    return plain if numbers else re.sub(r"\d[\d,.]*(e[+-]?\d+)?", "#", plain)


def follows(said: list[str], written: tuple[str, ...], numbers: bool = True) -> str:
    """Return "" if `said` is what is `written`, else the first line that is not there."""
    lines = [line for one in said if (line := comparable(one, numbers))]
    at, skipping = 0, False
    for line in (comparable(one, numbers) for one in written):
        if not line:
            continue  # a rule of a table
        if line == CUT:
            skipping = True
            continue
        if skipping:
            rest = lines[at:]
            if line not in rest:
                return line
            at += rest.index(line) + 1
        elif at >= len(lines) or lines[at] != line:
            return f"{line!r}, where it says {lines[at] if at < len(lines) else 'nothing'!r}"
        else:
            at += 1
        skipping = False
    return "" if skipping or at == len(lines) else f"nothing, where it says {lines[at]!r}"


def printed(words: tuple[str, ...] | list[str], timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run a command of the tour on a terminal of 120 columns."""
    return subprocess.run([sys.executable, "-m", "experiments.cli", *words], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=timeout_s, env={**os.environ, "COLUMNS": "120", "TERM": "dumb"})


def rewritten(text: str) -> str:
    """Return the page with what its whole rootless steps print now."""
    for step in steps():
        if not step.as_root and CUT not in step.lines and "-o" not in step.words:
            said = "\n".join(line.rstrip() for line in printed(step.words).stdout.rstrip("\n").split("\n"))
            command = f"$ ./e3 {' '.join(step.words)}\n"
            before, after = text.split(command, 1)
            text = before + command + said + after[len("\n".join(step.lines)):]
    return text


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
