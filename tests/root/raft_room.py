"""Three controller nodes, each a process in a network namespace of its own, that obey lines of JSON.

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
from pathlib import Path
from typing import Any

from waiting import until

PORT = 4321


class Node:
    """A controller node's process, and its place on the bridge."""

    def __init__(self, room: ThreeNodes, number: int) -> None:
        self.room, self.number = room, number
        others = [f"10.9.0.{n}:{PORT}" for n in (1, 2, 3) if n != number]
        # The shell waits in its namespace until the interface is there, and then becomes the node.
        script = (f'read go; ip link set lo up; exec "$0" {room.program} 10.9.0.{number}:{PORT} {room.directory} '
                  + " ".join(others))
        self.process = room.start(["unshare", "--net", "sh", "-c", script, sys.executable])
        self.attach()

    def attach(self) -> None:
        room, pid, name = self.room, self.process.pid, f"v{self.number}"
        around = namespace_of(os.getpid()), namespace_of(room.holder.pid)  # through which it comes to its own
        assert until(lambda: namespace_of(pid) not in around)
        # One MAC for good: the others go on sending to the one that they know, and connect to nobody under another.
        room.ip("link", "add", name, "type", "veth", "peer", "name", "eth0",
                "address", f"02:e3:00:00:00:{self.number:02x}", "netns", str(pid))
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


class ThreeNodes:
    """A namespace with a bridge and three controller nodes that run `program`. `stop` ends all of it, by pid."""

    def __init__(self, directory: Path, program: Path) -> None:
        self.directory, self.program = directory, program
        self._processes: list[subprocess.Popen[str]] = []
        self.nodes: dict[int, Node] = {}
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "600"], text=True, stdout=subprocess.DEVNULL)
        self._processes.append(self.holder)

    def build(self) -> None:
        assert until(lambda: namespace_of(self.holder.pid) != namespace_of(os.getpid()))
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
        assert until(led)
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
        assert until(took_over)
        return found[0]

    def restart(self, number: int) -> Node:
        """Start a node that was killed again, with the files that it has."""
        subprocess.run(["nsenter", "-t", str(self.holder.pid), "-n", "ip", "link", "del", f"v{number}"], check=False,
                       stderr=subprocess.DEVNULL)  # it may have gone with the namespace that held its other end
        self.nodes[number] = Node(self, number)
        return self.nodes[number]

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()


def namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def others_of(node: Node) -> tuple[int, ...]:
    return tuple(n for n in (1, 2, 3) if n != node.number)
