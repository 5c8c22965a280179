"""A process that owns a world, for tests to kill: python world_owner.py [--die-at-line N | --count] [--no-cgroups].

With --die-at-line it kills itself, as kill -9 would, just before the Nth line that it runs of the package
`nodes`; with --count it prints how many lines there are. Otherwise it prints, when all is up, the
world's id and the pids that would outlive it, and stops the world when a line arrives on its standard input.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from nodes import cgroups, netns
from nodes.world import World

NODES = str(Path(netns.__file__).parent)
lines_run = 0


def trace_lines(last: int) -> None:
    """Count the lines of the package `nodes` from here on, and die before line number `last`."""
    def on_event(frame: FrameType, event: str, argument: Any) -> Any:
        global lines_run
        if not frame.f_code.co_filename.startswith(NODES):
            return None
        if event == "line":
            lines_run += 1
            if lines_run == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return on_event
    sys.settrace(on_event)


def furnish(world: World) -> list[int]:
    """Make one of everything that a testbed makes; return the pids of the processes that outlive us unless cleaned."""
    world.vsctl("add-br", "tor1", "--", "set", "bridge", "tor1", "datapath_type=netdev")
    node = world.spawn(["unshare", "--net", "sleep", "1000"], "s1n1")
    while netns.inode_of(node.pid) in (None, world.netns_inode):
        pass
    subprocess.run(["ip", "link", "add", "tor1-s1n1", "type", "veth", "peer", "s1n1-net", "netns", str(node.pid)],
                   check=True)
    world.vsctl("add-port", "tor1", "tor1-s1n1")
    hung = world.spawn(["sleep", "1000"], "hung")
    os.kill(hung.pid, signal.SIGSTOP)
    shell = subprocess.Popen(["unshare", "--net", "sleep", "1000"])  # as Mininet's: only its environment names us
    stray = forked(in_own_namespace=False)  # only its namespace tells whose it is
    agent = forked(in_own_namespace=True)  # only the journal tells
    world.adopt(agent, "agent")
    if world.subtree is not None:
        world.cgroup("s1n1", 0.5).add(agent)
    return [shell.pid, stray, agent]


def forked(in_own_namespace: bool) -> int:
    """Fork a process that waits for ever, as an agent without an exec: its environment does not name the world."""
    pid = os.fork()
    if pid == 0:
        sys.settrace(None)
        if in_own_namespace:
            netns.unshare()
        while True:
            signal.pause()
    return pid


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--die-at-line", type=int, default=0)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--no-cgroups", action="store_true")
    arguments = parser.parse_args()
    if arguments.no_cgroups:
        cgroups.detect = lambda mounts=None: None
    if arguments.count or arguments.die_at_line:
        trace_lines(arguments.die_at_line)
    with World.start("victim") as world:
        survivors = furnish(world)
        if not (arguments.count or arguments.die_at_line):
            print(world.id, *survivors, flush=True)
            sys.stdin.readline()
    if arguments.count:
        print(lines_run)


if __name__ == "__main__":
    main()
