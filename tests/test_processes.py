"""Tests of what processes are at, and of which are ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from nodes.processes import doing


def until(said: str, pid: int) -> str:
    """Wait till a process is at what is `said`, for 10 s at most; return what it is at."""
    deadline = time.monotonic() + 10
    while not doing(pid).startswith(said) and time.monotonic() < deadline:
        time.sleep(0.01)
    return doing(pid)


def test_a_process_is_running_waiting_stopped_or_gone() -> None:
    assert doing(os.getpid()) == "running"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        assert until("waiting", child.pid).startswith("waiting")
        child.send_signal(signal.SIGSTOP)
        assert until("stopped", child.pid) == "stopped"
    finally:
        child.kill()
    assert until("gone", child.pid) == "gone"  # a zombie: nobody has asked for its status yet
    child.wait()
    assert doing(child.pid) == "gone"
