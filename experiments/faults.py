"""Breaking and mending parts of a running testbed: links, SmartNICs, agents."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from typing import Any

from experiments.errors import ExperimentError
from nodes.emulated_node import ip_batch
from nodes.nursery import Child, Nursery
from topologies.inventory import Inventory


class Faults(ABC):
    """What can fail in a testbed, as verbs; the Testbed inherits them and has what they work on."""

    inventory: Inventory
    net: Any
    nursery: Nursery
    agents: dict[str, Child]

    @abstractmethod
    def start_agent(self, name: str, again: bool = False) -> None:
        """Start the agent of host or SmartNIC `name`, `again` if it has run before and is gone."""

    def agent_pid(self, name: str) -> int:
        """Return the pid of the agent of `name`; raises ExperimentError for a node that has none."""
        if name not in self.agents:
            raise ExperimentError(f"{name} has no agent; agents run on {', '.join(self.agents)}")
        return self.agents[name].pid

    def fail_link(self, name: str) -> None:
        """Take the link between SmartNIC `name` and the ToR down, as if its cable were pulled."""
        self._set_link(name, "down")

    def heal_link(self, name: str) -> None:
        self._set_link(name, "up")

    def _set_link(self, name: str, state: str) -> None:
        ports = self.inventory.ports_of_node(self.inventory.node(name).name)
        if not ports:
            raise ExperimentError(f"{name} has no link to a switch")
        ip_batch(None, [f"link set {port.interface} {state}" for port in ports])

    def fail_node(self, name: str) -> None:
        """Cut the power of SmartNIC `name`: its agent ends at once and both its links lose carrier."""
        self._require_smartnic(name)
        os.kill(self.agent_pid(name), signal.SIGKILL)
        self.nursery.status(self.agents[name], timeout_s=5.0)
        self._set_smartnic_links(name, "down")

    def heal_node(self, name: str) -> None:
        """Give SmartNIC `name` its power back: links up, a new agent with empty state.

        With an orchestrator it runs nothing till that has heard of it, and has told it what it is to run.
        """
        self._require_smartnic(name)
        if self.nursery.status(self.agents[name]) is None:
            raise ExperimentError(f"{name} has not failed: its agent runs as process {self.agent_pid(name)}")
        self._set_smartnic_links(name, "up")
        self.start_agent(name, again=True)

    def _set_smartnic_links(self, name: str, state: str) -> None:
        pcie = self.inventory.pcie_of_smartnic(name)
        ip_batch(self.net[name], [f"link set {self.inventory.ports_of_node(name)[0].peer_interface} {state}",
                                  f"link set {pcie.smartnic_interface} {state}"])

    def fail_server(self, host: str) -> list[str]:
        """Cut the power of the server of `host`: its host's agent ends at once, and all its SmartNICs do.

        Returns the nodes that are gone. They share one power supply, and so one fault domain (section 3.5).
        """
        entry = self.inventory.node(host)
        if entry.role != "host":
            raise ExperimentError(f"{host} is a {entry.role}, not a host")
        gone = [nic.name for nic in self.inventory.smartnics_of(entry)]
        for name in gone:
            self.fail_node(name)
        os.kill(self.agent_pid(host), signal.SIGKILL)
        self.nursery.status(self.agents[host], timeout_s=5.0)
        return [host, *gone]

    def crash_agent(self, name: str) -> None:
        """Kill the agent of `name` (SIGKILL) with its links up."""
        os.kill(self.agent_pid(name), signal.SIGKILL)
        self.nursery.status(self.agents[name], timeout_s=5.0)

    def hang_agent(self, name: str) -> None:
        """Stop the agent of `name` (SIGSTOP) with its links up: what only a liveness protocol can notice."""
        os.kill(self.agent_pid(name), signal.SIGSTOP)

    def resume_agent(self, name: str) -> None:
        os.kill(self.agent_pid(name), signal.SIGCONT)

    def _require_smartnic(self, name: str) -> None:
        if self.inventory.node(name).role != "smartnic":
            raise ExperimentError(f"{name} is a {self.inventory.node(name).role}, not a SmartNIC")
