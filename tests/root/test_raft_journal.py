"""Three controller nodes, each a process in a network namespace of its own: a leader dies, is cut off, returns.

    n1 --+
    n2 --+-- br0, all in a private namespace
    n3 --+
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pysyncobj")
NODE = Path(__file__).with_name("raft_node.py")
PORT = 4321


class Node:
    """A controller node's process, and its place on the bridge."""

    def __init__(self, room: Room, number: int) -> None:
        self.room, self.number = room, number
        others = [f"10.9.0.{n}:{PORT}" for n in (1, 2, 3) if n != number]
        # The shell waits in its namespace until the interface is there, and then becomes the node.
        script = (f'read go; ip link set lo up; exec "$0" {NODE} 10.9.0.{number}:{PORT} {room.directory} '
                  + " ".join(others))
        self.process = room.start(["unshare", "--net", "sh", "-c", script, sys.executable])
        self.attach()

    def attach(self) -> None:
        room, pid, name = self.room, self.process.pid, f"v{self.number}"
        around = namespace_of(os.getpid()), namespace_of(room.holder.pid)  # through which it comes to its own
        until(lambda: namespace_of(pid) not in around)
        room.ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        room.ip("link", "set", name, "master", "br0", "up")
        inside = ["nsenter", "-t", str(pid), "-n", "ip"]
        subprocess.run([*inside, "addr", "add", f"10.9.0.{self.number}/24", "dev", "eth0"], check=True)
        subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def ask(self, *what: object) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def connected(self, yes: bool) -> None:
        self.room.ip("link", "set", f"v{self.number}", "up" if yes else "down")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def epochs(self) -> list[int]:
        found: list[int] = self.ask("entries")["epochs"]
        return found


class Room:
    """A namespace with a bridge and three controller nodes. `stop` ends what was started here, by pid."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[str]] = []
        self.nodes: dict[int, Node] = {}
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "600"], text=True, stdout=subprocess.DEVNULL)
        self._processes.append(self.holder)

    def build(self) -> None:
        until(lambda: namespace_of(self.holder.pid) != namespace_of(os.getpid()))
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("link", "set", "br0", "up")
        self.nodes.update({n: Node(self, n) for n in (1, 2, 3)})

    def ip(self, *words: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.holder.pid), "-n", "ip", *words], check=True)

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(["nsenter", "-t", str(self.holder.pid), "-n", *command], text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._processes.append(process)
        return process

    def leader(self, among: tuple[int, ...] = (1, 2, 3)) -> Node:
        """Wait for one of `among` to lead, and return it."""
        found: list[Node] = []

        def led() -> bool:
            found[:] = [self.nodes[n] for n in among if self.nodes[n].ask("status")["leads"]]
            return bool(found)
        until(led)
        return found[0]

    def writer(self, among: tuple[int, ...] = (1, 2, 3)) -> tuple[Node, int]:
        """Wait for one of `among` to lead and take over; return it and its run."""
        found: list[tuple[Node, int]] = []

        def took_over() -> bool:
            node = self.leader(among)
            run = node.ask("take over").get("run")
            if run is not None:
                found.append((node, run))
            return bool(found)
        until(took_over)
        return found[0]

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()


def namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, f"not so after {seconds} s"
        time.sleep(0.02)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    room = Room(tmp_path)
    try:
        room.build()
        yield room
    finally:
        room.stop()


def others_of(node: Node) -> tuple[int, ...]:
    return tuple(n for n in (1, 2, 3) if n != node.number)


def test_when_the_leader_dies_another_goes_on_with_the_same_entries_and_it_returns_as_a_follower(room: Room) -> None:
    first, run = room.writer()
    took_s = first.ask("append", 50)["took_s"]
    first.kill()
    started = time.monotonic()
    second, later = room.writer(others_of(first))
    print(f"50 entries in {took_s:.3f} s; another writes after {time.monotonic() - started:.2f} s")
    assert later > run and second.epochs == list(range(50))
    second.ask("append", 50, 60)
    subprocess.run(["nsenter", "-t", str(room.holder.pid), "-n", "ip", "link", "del", f"v{first.number}"], check=False)
    back = room.nodes[first.number] = Node(room, first.number)
    until(lambda: back.epochs == list(range(60)))
    assert not back.ask("status")["writes"] and second.ask("append", 60, 61).get("took_s")


def test_a_leader_that_is_cut_off_decides_nothing_and_is_not_the_writer_when_it_returns(room: Room) -> None:
    old, _ = room.writer()
    old.ask("append", 10)
    old.connected(False)
    assert "no majority" in old.ask("append", 100, 101)["error"]
    until(lambda: not old.ask("status")["leads"])
    assert "error" in old.ask("append", 101, 102) and "error" in old.ask("take over")
    new, _ = room.writer(others_of(old))
    new.ask("append", 10, 20)
    old.connected(True)
    until(lambda: old.epochs == list(range(20)))
    assert "error" in old.ask("append", 102, 103) and not old.ask("status")["writes"]
    assert all(room.nodes[n].epochs == list(range(20)) for n in others_of(old))


def test_a_controller_that_was_replaced_while_it_was_held_up_writes_nothing_more(room: Room) -> None:
    old, _ = room.writer()
    old.ask("append", 5)
    old.process.send_signal(signal.SIGSTOP)
    new, _ = room.writer(others_of(old))
    new.ask("append", 5, 8)
    old.process.send_signal(signal.SIGCONT)
    assert "error" in old.ask("append", 100, 101)
    until(lambda: old.epochs == list(range(8)))
    assert new.epochs == list(range(8))


def test_one_of_three_alone_never_leads(room: Room) -> None:
    room.writer()
    alone, *rest = room.nodes.values()
    for node in rest:
        node.kill()
    until(lambda: not alone.ask("status")["leads"])
    for _ in range(20):
        time.sleep(0.1)
        assert not alone.ask("status")["leads"] and "error" in alone.ask("take over")
