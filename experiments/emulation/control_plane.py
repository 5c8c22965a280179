"""Asking nodes for their counters, over the network: from the controller node, through the ToR."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from nodes import messages, netns
from nodes.deployment import Deployment
from nodes.errors import WireError
from nodes.node_report import unpacked
from topologies.addressing import CONTROL_PORT
from topologies.inventory import NodeEntry

RETRY_S = 0.3


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """Stand in the network namespace of process `pid`; a socket made there stays there."""
    here = netns.open_current()
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        netns.enter(there)
        yield
    finally:
        netns.enter(here)
        os.close(there)
        os.close(here)


class ControlPlane:
    """A UDP socket on the controller node whose shell is `pid`, and what can be asked over it."""

    def __init__(self, pid: int, ip: str) -> None:
        with inside(pid):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((ip, 0))  # the control port is the resource controller's
        self._last_query = 0

    def close(self) -> None:
        self._socket.close()

    def deploy(self, nodes: Iterable[NodeEntry], deployment: Deployment, timeout_s: float = 5.0) -> dict[str, str]:
        """Tell `nodes` of a deployment; return what each that answers in time says: why not, or nothing."""
        payload = msgspec.msgpack.encode(deployment)
        return {name: answer.payload.decode(errors="replace") for name, answer in self._asked(
            nodes, messages.KIND_DEPLOY, payload, messages.KIND_DEPLOYED, timeout_s, RETRY_S).items()}

    def counters(self, nodes: Iterable[NodeEntry], timeout_s: float = 2.0,
                 retry_s: float = RETRY_S) -> dict[str, dict[str, int]]:
        """Return the counters of those `nodes` (hosts and SmartNICs) that answer within `timeout_s`, by name."""
        found = {}
        for name, answer in self._asked(nodes, messages.KIND_STATS_QUERY, b"", messages.KIND_STATS_REPORT, timeout_s,
                                        retry_s).items():
            with suppress(WireError):  # what is no report is no answer
                found[name] = unpacked(answer.payload)
        return found

    def _asked(self, nodes: Iterable[NodeEntry], kind: int, payload: bytes, answer_kind: int, timeout_s: float,
               retry_s: float) -> dict[str, messages.StatsMessage]:
        """Ask each of `nodes`, again while it does not answer; return the answers that come within `timeout_s`."""
        waiting: dict[int, NodeEntry] = {}
        for node in nodes:
            self._last_query += 1
            waiting[self._last_query] = node
        found: dict[str, messages.StatsMessage] = {}
        deadline = time.monotonic() + timeout_s
        ask_at = 0.0
        while waiting and time.monotonic() < deadline:
            if time.monotonic() >= ask_at:
                ask_at = time.monotonic() + retry_s
                for query, node in waiting.items():
                    self._socket.sendto(messages.StatsMessage(kind, query, payload).encode(), (node.ip, CONTROL_PORT))
            self._socket.settimeout(0.05)
            try:
                answer = messages.decode(self._socket.recv(1 << 16))
            except (TimeoutError, ConnectionError, WireError):
                continue  # an unreachable node may have its ICMP error reported here
            if (isinstance(answer, messages.StatsMessage) and answer.kind == answer_kind
                    and answer.query_id in waiting):
                found[waiting.pop(answer.query_id).name] = answer
        return found
