"""A testbed that is not there, for the interactive shell, and what is typed at it."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from controller.controller_events import WithdrawalState
from controller.tor_program import TorProgram, programs_of
from experiments.clients.client import ClientConfig, ClientResult
from experiments.clients.latencies import summary_of
from experiments.emulation.failures import Failure, failure_of, part_of
from experiments.emulation.first_placement import place_in_turn
from experiments.emulation.pacing import UNPACED
from experiments.errors import ExperimentError
from experiments.shell.interactive import E3Shell
from microservices.applications import nfv_fin
from nodes.deployment import Deployment, deploy
from topologies.catalog import cluster_named
from topologies.inventory import PortEntry, inventory_of

LACP = "member: {0}: current attached\n  may_enable: {1}\n"


class Net(dict[str, Any]):
    """As much of Mininet's net as the shell asks."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__({name: SimpleNamespace(name=name, pid=os.getpid()) for name in names})
        self.terms: list[Any] = []


class Bed:
    """A testbed that records what it is told and answers from what a test set."""

    pacing = UNPACED

    def __init__(self, cluster: str = "type2x1") -> None:
        self.inventory = inventory_of(cluster_named(cluster))
        self.programs = programs_of(self.inventory)
        application = nfv_fin(shards=4)
        places = place_in_turn(application, self.inventory)
        self.deployments: tuple[Deployment, ...] = (deploy(application, places, self.inventory),)
        self.net = Net([n.name for n in self.inventory.nodes])
        self.started_s = {"total": 1.5}
        self.world = SimpleNamespace(id="wtest", appctl=self._appctl, vsctl=self._vsctl)
        self.done: list[tuple[str, ...]] = []
        self.broken: dict[Failure, tuple[str, ...]] = {}
        self.resource = None
        self.configs: list[ClientConfig] = []
        self.carrier = {p.interface: True for p in self.inventory.ports}
        self.lacp = {p.interface: True for h in self.inventory.of_role("host")
                     for p in self.inventory.ports_of_server(h)}
        self.seen: dict[str, dict[str, int]] = {}
        self.agents = {n.name: os.getpid() for n in self.inventory.nodes if n.role in ("host", "smartnic")}

    def deployed(self) -> tuple[Deployment, ...]:
        return self.deployments

    def deploy(self, deployment: Deployment) -> None:
        self.deployments = (*self.deployments, deployment)
        self.done.append(("deploy", deployment.name))

    def withdraw(self, name: str) -> WithdrawalState:
        self.done.append(("withdraw", name))
        self.deployments = tuple(known for known in self.deployments if known.name != name)
        return WithdrawalState(1, name, "withdrawn", 2, ("s1n2",), 3)

    def _appctl(self, *words: str) -> str:
        shown = "".join(LACP.format(name, str(up).lower()) for name, up in self.lacp.items())
        return shown if words[0] == "lacp/show" else ""

    def _vsctl(self, *_: str) -> str:
        rows = ",".join(f'["{name}","{"up" if up else "down"}"]' for name, up in self.carrier.items())
        return f'{{"headings":["name","link_state"],"data":[{rows},["tor1",["set",[]]]]}}'

    def agent_pid(self, name: str) -> int:
        return self.agents[name]

    def counters(self, *names: str) -> dict[str, dict[str, int]]:
        return {name: self.seen.get(name, {}) for name in names or self.agents if name in self.seen}

    def programs_in_force(self) -> dict[str, TorProgram]:
        return self.programs

    def bucket_packets(self) -> dict[str, dict[str, dict[str, int]]]:
        return {s: {g.name: {p.interface(b.port): 10 * b.port for b in g.buckets} for g in p.groups}
                for s, p in self.programs.items()}

    def places(self) -> dict[str, int | None]:
        return {p.interface: None for p in self.inventory.ports} | {p.peer_interface: 1 for p in self.inventory.ports}

    def start_client(self, client: str, config: ClientConfig) -> Any:
        self.configs.append(config)
        result = ClientResult(config.requests, config.requests - 2, 0, 0, 2, 0, 0, 0, 0.5, 0.1, summary_of([0.002]),
                              ["request 0x1: no reply within 2 s"])
        return SimpleNamespace(result=lambda _limit: result, stop=lambda: self.done.append(("stop", client)))

    def _ends(self, names: Sequence[str]) -> list[PortEntry]:
        return [p for p in self.inventory.ports if names and names[0] in (p.peer, p.interface, p.peer_interface)]

    def fail(self, kind: str, *names: str, share: float = 0.0) -> tuple[str, ...]:
        failure = failure_of(self.inventory, kind, names, share)
        self.broken[failure] = ()
        self.done.append(("fail", failure.words))
        for port in self._ends(failure.names):
            if kind == "link":
                self.carrier[port.interface] = False
            elif kind in ("hang", "crash", "pcie"):
                self.lacp[port.interface] = False
        return ()

    def heal(self, kind: str, *names: str) -> tuple[str, ...]:
        part = part_of(self.inventory, kind, names)
        found = next((f for f in self.broken if f.same_part(part)), None)
        if found is None:
            raise ExperimentError(f"{part.heal_words} has not failed")
        del self.broken[found]
        self.done.append(("heal", part.heal_words))
        for port in self._ends(part.names):
            self.carrier[port.interface] = self.lacp[port.interface] = True
        self.seen |= {name: {} for name in (*names, "s1h")}
        return ()


def session(bed: Bed, script: str) -> None:
    E3Shell(bed, io.StringIO(script)).run()  # type: ignore[arg-type]


def shell(bed: Bed, interactive: bool = True) -> E3Shell:
    made = E3Shell(bed, io.StringIO())  # type: ignore[arg-type]
    made.interactive = interactive
    return made


def typed(bed: Bed, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert shell(bed).onecmd(line) is False
    return capsys.readouterr().out
