"""The process that runs one experiment of all: the command line, which ends when the one that started it does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from experiments.cli import main

PR_SET_PDEATHSIG = 1


def run(parent: int, words: list[str]) -> None:
    """Run `e3 run WORDS`, or end at once if the process `parent` has gone already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(1)
    sys.argv = ["e3", "run", *words]
    main()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2:])
