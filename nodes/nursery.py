"""The preloaded parent from which every agent is forked: hundreds of agents share one copy of the code.

`Nursery` is the owner's side. The other side is this module run as a program: it imports what it is told
to, then forks a child for each order, moves it into its node's network namespace and control group, and
lets it run one function. A child dies with the nursery, and the nursery with its owner.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import os
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import msgspec

from nodes import netns
from nodes.errors import NodeError
from nodes.programs import python_module

if TYPE_CHECKING:
    from nodes.world import World

PR_SET_NAME, PR_SET_TIMERSLACK = 15, 29
TIMER_SLACK_NS = 1_000  # the kernel's own 50 us would make every sleep that much longer
START_TIMEOUT_S = 20.0


class Order(msgspec.Struct, frozen=True):
    """Start `entry` ("module:function") with `config`, encoded for it, in the namespace of `namespace_pid`.

    `entry` takes the encoded config and returns None, or bytes that are written to `result_file`. In `pid_file`, if
    one is named, stands the process that was started last, once it is called `process_name(name)`.
    """

    name: str
    entry: str
    config: bytes
    namespace_pid: int
    log: str
    cgroup_procs: tuple[str, ...] = ()
    result_file: str = ""
    pid_file: str = ""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that the nursery forked."""

    name: str
    pid: int


def process_name(name: str) -> str:
    """Return what the system calls the child of an order called `name`; it takes 15 characters."""
    return f"e3-{name}"[:15]


class Nursery:
    """The owner's handle on the nursery process. Not thread-safe: one thread orders and waits.

    The process imports while its owner does other things; the first order waits for it.
    """

    def __init__(self, world: World, preload: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = world.spawn(
                [*python_module("nodes.nursery"), str(theirs.fileno()), *preload], "nursery",
                pass_fds=(theirs.fileno(),))
        self._connection = Connection(ours.detach())
        self._exited: dict[int, int] = {}
        self._ready = False

    def wait_ready(self) -> None:
        """Wait till it has imported what it was told to; raises NodeError if it does not come up."""
        if not self._ready and self._receive(START_TIMEOUT_S) != {"ready": True}:
            raise NodeError("the nursery did not come up")
        self._ready = True

    def start(self, order: Order) -> Child:
        """Fork a child as ordered and return it; raises NodeError if it could not be forked."""
        self.wait_ready()
        self._connection.send_bytes(msgspec.msgpack.encode(order))
        while True:
            answer = self._receive(START_TIMEOUT_S)
            if "pid" in answer:
                return Child(order.name, answer["pid"])
            self._note(answer)

    def status(self, child: Child, timeout_s: float = 0.0) -> int | None:
        """Return the exit status of `child` (negative: the signal that ended it), or None if it still runs."""
        deadline = time.monotonic() + timeout_s
        while child.pid not in self._exited:
            left = max(0.0, deadline - time.monotonic())
            if not self._connection.poll(left):
                return None
            self._note(self._receive(left + 1.0))
        return self._exited[child.pid]

    def close(self) -> None:
        """End the nursery and with it all its children."""
        self._connection.close()
        self._process.terminate()
        self._process.wait(5)

    def _note(self, event: dict[str, Any]) -> None:
        self._exited[event["exited"]] = event["status"]

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            if not self._connection.poll(timeout_s):
                raise NodeError(f"the nursery said nothing for {timeout_s:g} s")
            return msgspec.msgpack.decode(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise NodeError(f"the nursery is gone (exit status {self._process.poll()}); see nursery.log") from error


def main() -> None:
    parser = argparse.ArgumentParser(description="forks agents from one preloaded parent")
    parser.add_argument("descriptor", type=int)
    parser.add_argument("preload", nargs="*")
    arguments = parser.parse_args()
    for module in arguments.preload:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that a child's collector does not touch, and so copy, the shared pages
    connection = Connection(arguments.descriptor)
    connection.send_bytes(msgspec.msgpack.encode({"ready": True}))
    children: dict[int, int] = {}  # pidfd -> pid
    while True:
        for ready in wait([connection, *children]):
            if isinstance(ready, int):
                pid = children.pop(ready)
                os.close(ready)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                connection.send_bytes(msgspec.msgpack.encode({"exited": pid, "status": status}))
                continue
            try:
                order = msgspec.msgpack.decode(connection.recv_bytes(), type=Order)
            except EOFError:
                return  # the owner is gone; the children follow
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                _run_child(order, parent, [connection.fileno(), *children])
            children[os.pidfd_open(pid)] = pid
            connection.send_bytes(msgspec.msgpack.encode({"pid": pid}))


def _run_child(order: Order, parent: int, descriptors: list[int]) -> None:
    """Become the process that `order` describes; never returns."""
    status = 1
    try:
        netns.die_with(parent)
        for descriptor in descriptors:
            os.close(descriptor)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the owner's business
        log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_NAME, process_name(order.name).encode(), 0, 0, 0)
        libc.prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(TIMER_SLACK_NS), 0, 0, 0)
        if order.pid_file:
            with open(order.pid_file, "w") as file:
                file.write(f"{os.getpid()}")
        for procs in order.cgroup_procs:
            with open(procs, "w") as file:
                file.write("0")
        namespace = os.open(f"/proc/{order.namespace_pid}/ns/net", os.O_RDONLY)
        netns.enter(namespace)
        os.close(namespace)
        module, _, function = order.entry.partition(":")
        result = getattr(importlib.import_module(module), function)(order.config)
        if result is not None:
            with open(order.result_file + ".part", "wb") as file:
                file.write(result)
            os.rename(order.result_file + ".part", order.result_file)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        if not isinstance(leaving.code, int | None):
            print(leaving.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
