"""The Tab key: what bash offers after `./e3`, asked of bash itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.runs.registry import ALL, EXPERIMENTS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an `e3` that runs this checkout's command line, and the script that the page has one load."""
    directory = tmp_path_factory.mktemp("bin")
    launcher = directory / "e3"
    launcher.write_text(f"#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m experiments.cli \"$@\"\n")
    launcher.chmod(0o755)
    script = subprocess.run([launcher], env={**os.environ, "_E3_COMPLETE": "source_bash"}, capture_output=True,
                            text=True, check=False, timeout=60).stdout
    (directory / "script").write_text(script)
    return directory


def offered(shell: Path, line: str) -> list[str]:
    """Return what bash offers at the end of `line`."""
    words = line.split(" ")
    asked = (f"source {shell}/script; COMP_WORDS=({' '.join(w or repr('') for w in words)}); "
             f"COMP_CWORD={len(words) - 1}; _e3_completion {shell}/e3; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(("line", "wanted"), [
    ("e3 pl", ["place"]), ("e3 run chan", ["channel-torture"]), ("e3 run table1 --qu", ["--quick"]),
    ("e3 demo type1x", ["type1x3"]), ("e3 place iot", ["iot-dh", "iot-ts"]), ("e3 apps rta-s", ["rta-sf", "rta-shm"]),
])
def test_what_has_been_begun_is_completed(shell: Path, line: str, wanted: list[str]) -> None:
    assert offered(shell, line) == wanted


def test_every_experiment_is_offered_and_all_of_them_at_once(shell: Path) -> None:
    assert set(offered(shell, "e3 run ")) == {ALL, *EXPERIMENTS}


def test_the_script_speaks_for_e3_by_whatever_path_it_is_called(shell: Path) -> None:
    said = subprocess.run(["bash", "-c", f"source {shell}/script; complete -p e3"], capture_output=True, text=True,
                          check=True, timeout=60).stdout
    assert said.split()[-1] == "e3"  # bash looks a path's last part up
