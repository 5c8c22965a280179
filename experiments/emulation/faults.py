"""Breaking and mending parts of a running testbed: every kind of failure in failures.py.

What is broken is written down in `broken`, and links and filters are set to what follows from all of it: a SmartNIC
that gets its power back while its PCIe link is broken has that link down.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from experiments.emulation.failures import Failure, failure_of, part_of
from experiments.errors import ExperimentError
from nodes.emulated_node import ip_batch, tc_batch
from nodes.frame_filter import Program, filter_lines, filter_program
from nodes.nursery import Child, Nursery
from topologies.inventory import Inventory, PortEntry

KILLED_WITHIN_S = 5.0
Down = tuple[str, ...]  # nodes whose agents ended with a failure


class Faults(ABC):
    """What can fail in a testbed, as verbs; the Testbed inherits them and has what they work on.

    `broken`: every failure that is not healed, in order, with the nodes whose agents it ended.
    """

    inventory: Inventory
    net: Any
    nursery: Nursery
    agents: dict[str, Child]
    teaming: str
    tor_app: Any
    broken: dict[Failure, Down]
    _teams: dict[str, Child]
    _filters: dict[tuple[str | None, str], Program]  # by namespace and interface

    # -- what else a testbed can do ----------------------------------------------------------------------------

    @abstractmethod
    def start_agent(self, name: str, again: bool = False) -> None:
        """Start the agent of host or SmartNIC `name`, `again` if it has run before and is gone."""

    @abstractmethod
    def start_team(self, host: str) -> None:
        """Start the teaming process of `host`, which sets up its links."""

    @abstractmethod
    def kill_tor_app(self) -> None: ...

    @abstractmethod
    def start_tor_app(self) -> None: ...

    @abstractmethod
    def whose_controller(self) -> tuple[str, ...]:
        """Return the node whose controller is to be killed, should none be named; () where there is only one."""

    @abstractmethod
    def kill_controller(self, name: str = "") -> str: ...

    @abstractmethod
    def start_controller(self, name: str = "") -> None: ...

    # -- verbs -------------------------------------------------------------------------------------------------

    def fail(self, kind: str, *names: str, share: float = 0.0) -> Down:
        """Break something: see failures.KINDS. Return the nodes whose agents ended with it.

        Raises ExperimentError for what is not there, or has failed already.
        """
        failure = failure_of(self.inventory, kind, names, share)
        if kind == "controller" and not names:
            failure = Failure(kind, self.whose_controller())
        self._refuse_again(failure)
        self.broken[failure] = ()
        try:
            self.broken[failure] = _VERBS[kind][0](self, failure)
        except BaseException:
            del self.broken[failure]
            raise
        return self.broken[failure]

    def heal(self, kind: str, *names: str) -> Down:
        """Mend what `fail` broke. Return the nodes that have new agents, with nothing in them.

        With an orchestrator they run nothing till that has heard of them, and has told them what they are to run.
        Raises ExperimentError for what has not failed.
        """
        part = part_of(self.inventory, kind, names)
        failure = next((f for f in self.broken if f.same_part(part)), None)
        if failure is None and kind == "controller" and not names:  # it was named when it was killed
            failure = next((f for f in reversed(list(self.broken)) if f.kind == kind), None)
        if failure is None:
            listed = "; ".join(f.heal_words for f in self.broken) or "nothing"
            raise ExperimentError(f"{part.heal_words} has not failed; to be healed: {listed}")
        down = self.broken.pop(failure)
        try:
            _VERBS[kind][1](self, failure, down)
        except BaseException:
            self.broken[failure] = down
            raise
        return down

    def agent_pid(self, name: str) -> int:
        """Return the pid of the agent of `name`; raises ExperimentError for a node that has none."""
        if name not in self.agents:
            raise ExperimentError(f"{name} has no agent; agents run on {', '.join(self.agents)}")
        return self.agents[name].pid

    def _refuse_again(self, failure: Failure) -> None:
        same = next((f for f in self.broken if f.same_part(failure) or f.kind == failure.kind == "partition"), None)
        if same is not None:
            raise ExperimentError(f"{same.said()} already: `heal {same.heal_words}`")

    # -- links -------------------------------------------------------------------------------------------------

    def _cut_link(self, failure: Failure) -> Down:
        ip_batch(None, [f"link set {port.interface} down" for port in self._ends(failure.names[0])])
        return ()

    def _mend_link(self, failure: Failure, _: Down) -> None:
        ip_batch(None, [f"link set {port.interface} up" for port in self._ends(failure.names[0])])

    def _ends(self, name: str) -> list[PortEntry]:
        """Return the switch ports of a node, or both of a link between switches that is named by an interface."""
        return self.inventory.ports_of_node(name) or [
            p for p in self.inventory.ports if name in (p.interface, p.peer_interface)]

    def _set_pcie(self, failure: Failure, _: Down = ()) -> Down:
        """Set both ends of a PCIe link; and lose all that is sent, should who starts again there set an end up."""
        name = failure.names[0]
        self._set_smartnic_links(name)
        link = self.inventory.pcie_of_smartnic(name)
        off = failure in self.broken or self._is_off(link.host)
        ip_batch(self.net[link.host], [f"link set {link.host_interface} {'down' if off else 'up'}"])
        return self._refilter()

    def _is_off(self, node: str) -> bool:
        return any(node in down for f, down in self.broken.items() if f.kind in ("smartnic", "host", "server"))

    def _set_smartnic_links(self, name: str) -> None:
        """Set a SmartNIC's ends of its links to what follows from all that is broken."""
        off = self._is_off(name)
        network = self.inventory.ports_of_node(name)[0].peer_interface
        pcie = self.inventory.pcie_of_smartnic(name).smartnic_interface
        cut = Failure("pcie", (name,)) in self.broken
        ip_batch(self.net[name], [f"link set {network} {'down' if off else 'up'}",
                                  f"link set {pcie} {'down' if off or cut else 'up'}"])

    def _refilter(self, *_: object) -> Down:
        """Give every interface the filter that follows from all links that lose and the partition there is."""
        wanted: dict[tuple[str | None, str], float] = {}
        side: tuple[str, ...] = ()
        for failure in self.broken:
            if failure.kind == "loss":
                for port in self._ends(failure.names[0]):
                    at = port.peer if any(n.name == port.peer for n in self.inventory.nodes) else None
                    wanted |= {(None, port.interface): failure.share, (at, port.peer_interface): failure.share}
            elif failure.kind == "pcie":
                link = self.inventory.pcie_of_smartnic(failure.names[0])
                wanted |= {(link.smartnic, link.smartnic_interface): 1.0, (link.host, link.host_interface): 1.0}
            elif failure.kind == "partition":
                side = tuple(self.inventory.node(name).ip for name in failure.names)
        if side:
            ends: list[tuple[str | None, str]] = [(None, port.interface) for port in self.inventory.ports]
            for link in self.inventory.pcie:
                ends += [(link.smartnic, link.smartnic_interface), (link.host, link.host_interface)]
            wanted = dict.fromkeys(ends, 0.0) | wanted
        programs = {end: filter_program(loss, side) for end, loss in wanted.items()}
        batches: dict[str | None, list[str]] = {}
        for end in programs.keys() | self._filters.keys():
            if programs.get(end, ()) != self._filters.get(end, ()):
                batches.setdefault(end[0], []).extend(filter_lines(end[1], programs.get(end, ())))
        self._filters = programs
        for node, lines in batches.items():
            tc_batch(None if node is None else self.net[node], lines)
        return ()

    # -- agents, and what they run on --------------------------------------------------------------------------

    def _runs(self, name: str) -> bool:
        return self.nursery.status(self.agents[name]) is None

    def _end_agent(self, name: str) -> None:
        if not self._runs(name):
            why = next((f"`heal {f.heal_words}`" for f, down in self.broken.items() if name in down), "see its log")
            raise ExperimentError(f"the agent of {name} has ended already: {why}")
        self._kill(self.agents[name])
        self.broken.pop(Failure("hang", (name,)), None)  # what is gone does not hang any more

    def _kill(self, child: Child) -> None:
        os.kill(child.pid, signal.SIGKILL)
        self.nursery.status(child, timeout_s=KILLED_WITHIN_S)

    def _crash(self, failure: Failure) -> Down:
        self._end_agent(failure.names[0])
        return failure.names

    def _start_again(self, _: Failure, down: Down) -> None:
        for name in down:
            self.start_agent(name, again=True)

    def _hang(self, failure: Failure) -> Down:
        name = failure.names[0]
        if not self._runs(name):
            raise ExperimentError(f"the agent of {name} has ended: it cannot hang")
        os.kill(self.agent_pid(name), signal.SIGSTOP)
        return ()

    def _wake(self, failure: Failure, _: Down) -> None:
        name = failure.names[0]
        if self._runs(name):
            os.kill(self.agent_pid(name), signal.SIGCONT)
        else:  # somebody has cut it off meanwhile
            self.start_agent(name, again=True)

    def _smartnic_off(self, failure: Failure) -> Down:
        self._end_agent(failure.names[0])
        self.broken[failure] = failure.names
        self._set_smartnic_links(failure.names[0])
        return failure.names

    def _smartnic_on(self, failure: Failure, down: Down) -> None:
        self._set_smartnic_links(failure.names[0])
        self._start_again(failure, down)

    def _host_off(self, failure: Failure) -> Down:
        host = failure.names[0]
        self._end_agent(host)
        team = self._teams.get(host)
        if team is not None and self.nursery.status(team) is None:
            self._kill(team)
        ip_batch(self.net[host], [f"link set {name} down" for name in self._host_interfaces(host)])
        return (host,)

    def _host_on(self, failure: Failure, down: Down) -> None:
        host = failure.names[0]
        cut = {self.inventory.pcie_of_smartnic(f.names[0]).host_interface for f in self.broken if f.kind == "pcie"}
        ip_batch(self.net[host], [f"link set {name} up" for name in self._host_interfaces(host) if name not in cut])
        if self.teaming != "bonding":  # which the kernel does, and has gone on doing
            self.start_team(host)
        self._start_again(failure, down)

    def _host_interfaces(self, host: str) -> list[str]:
        return ([link.host_interface for link in self.inventory.pcie_of_host(host)]
                + [port.peer_interface for port in self.inventory.ports_of_node(host)])

    def _server_off(self, failure: Failure) -> Down:
        """End what of the server still runs: what had failed by itself before is healed by itself."""
        host = failure.names[0]
        down = [nic.name for nic in self.inventory.smartnics_of(self.inventory.node(host)) if self._runs(nic.name)]
        if self._runs(host):
            down += self._host_off(Failure("host", (host,)))
        if not down:
            raise ExperimentError(f"nothing of the server of {host} runs any more")
        self.broken[failure] = tuple(down)
        for name in down:
            if name != host:
                self._end_agent(name)
                self._set_smartnic_links(name)
        return tuple(down)

    def _server_on(self, failure: Failure, down: Down) -> None:
        for name in down:
            if name != failure.names[0]:
                self._set_smartnic_links(name)
                self.start_agent(name, again=True)
        if failure.names[0] in down:
            self._host_on(failure, failure.names)

    # -- controllers -------------------------------------------------------------------------------------------

    def _kill_tor_app(self, _: Failure) -> Down:
        if self.tor_app.poll() is not None:
            raise ExperimentError("the ToR app does not run: `app start`")
        self.kill_tor_app()
        return ()

    def _start_tor_app(self, *_: object) -> None:
        if self.tor_app.poll() is not None:  # or somebody has started it by hand
            self.start_tor_app()

    def _kill_controller(self, failure: Failure) -> Down:
        self.kill_controller(*failure.names)
        return ()

    def _start_controller(self, failure: Failure, _: Down) -> None:
        self.start_controller(*failure.names)


_VERBS: dict[str, tuple[Callable[[Any, Failure], Down], Callable[[Any, Failure, Down], object]]] = {
    "link": (Faults._cut_link, Faults._mend_link),
    "pcie": (Faults._set_pcie, Faults._set_pcie),
    "smartnic": (Faults._smartnic_off, Faults._smartnic_on),
    "crash": (Faults._crash, Faults._start_again),
    "hang": (Faults._hang, Faults._wake),
    "host": (Faults._host_off, Faults._host_on),
    "server": (Faults._server_off, Faults._server_on),
    "tor": (Faults._kill_tor_app, Faults._start_tor_app),
    "controller": (Faults._kill_controller, Faults._start_controller),
    "loss": (Faults._refilter, Faults._refilter),
    "partition": (Faults._refilter, Faults._refilter),
}
