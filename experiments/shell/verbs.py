"""The interactive CLI's verbs that look: at nodes, routes, groups, links and applications.

Every verb is a method `do_VERB` whose docstring is its help: a summary, then `Usage:` and what it prints. It
takes the rest of the line and raises ExperimentError for words that it does not know.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from experiments.emulation.choice import chosen
from experiments.emulation.switches import lacp_members
from experiments.errors import ExperimentError
from experiments.measurement.energy import power_between
from experiments.measurement.node_power import services_of
from experiments.shell import views
from experiments.shell.views import View
from microservices.measured import Column
from nodes.emulated_node import run_in
from topologies.inventory import NodeEntry

if TYPE_CHECKING:
    from experiments.emulation.testbed import Testbed

LEAST_COLUMNS = 130


def words_of(line: str) -> list[str]:
    """Split a line into words as a shell does; raises ExperimentError on an open quote."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise ExperimentError(f"{line!r}: {error}") from error


def process_state(pid: int) -> str:
    """Return whether process `pid` is "running", "stopped" (SIGSTOP) or "ended"."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "ended"
    state = stat[stat.rindex(")") + 2]
    return "ended" if state in "ZX" else "stopped" if state in "tT" else "running"


class LookingVerbs:
    """Mixed into a cmd.Cmd. `bed` is a running testbed; `interactive` tells whether someone types."""

    bed: Testbed
    interactive = False

    # -- what all verbs use ------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        print(text, flush=True)

    def show(self, view: View) -> None:
        if view.title and not view.rows:
            self.say(f"{view.title}: nothing")
        else:
            sys.stdout.write(views.rendered(view, self.columns()))
            sys.stdout.flush()

    def columns(self) -> int:
        """Return the width that tables have: that of the terminal, but never too narrow to keep words whole."""
        terminal = shutil.get_terminal_size((0, 0)).columns if self.interactive else 0
        return max(terminal, LEAST_COLUMNS)

    def ends_session(self, interrupt: KeyboardInterrupt) -> bool:
        """Return whether `interrupt` is more than Ctrl-C on one command: SIGTERM, or Ctrl-C on a whole script."""
        return bool(interrupt.args) or not self.interactive

    def names(self, *roles: str) -> list[str]:
        """Return the names of the nodes of `roles` (default: all)."""
        return [n.name for n in self.bed.inventory.nodes if not roles or n.role in roles]

    def switches(self) -> list[str]:
        return [s.name for s in self.bed.inventory.switches]

    def agent_processes(self) -> dict[str, str]:
        """Return how the process of each agent is, by node."""
        return {name: process_state(self.bed.agent_pid(name)) for name in self.names("host", "smartnic")}

    def liveness(self) -> dict[str, str]:
        """Return how the switches see each of their interfaces."""
        world = self.bed.world
        listing = world.vsctl("--format=json", "--columns=name,link_state", "list", "Interface")
        return views.liveness(views.link_states(listing), lacp_members(world))

    # -- verbs -------------------------------------------------------------------------------------------------

    def do_nodes(self, line: str) -> None:
        """Show all nodes, their addresses, and what their agents count.
        Usage: nodes

        Agents are asked over the network, from the controller node. "queue" is the SmartNIC's traffic manager now,
        "deepest" the longest that it ever was, in frames. An agent is SILENT if it does not answer within 2 s."""
        no_words(line, "nodes")
        counters = self.bed.counters()
        self.show(views.nodes_view(self.bed.inventory, counters, self.agent_processes()))
        for name, seen in counters.items():
            dropped = views.drops_of(seen)
            if dropped:
                self.say(f"{name} dropped: " + ", ".join(f"{count} {what}" for what, count in dropped.items()))

    def do_routes(self, line: str) -> None:
        """Show where each IP goes, with packets per rule, and what was dropped by which rule.
        Usage: routes [SWITCH | NODE]

        Without a name: the program of every switch. With a host, client or controller: its kernel's routes; with
        a SmartNIC: what its agent does with a packet, by destination IP."""
        words = words_of(line)
        if len(words) > 1:
            raise ExperimentError(f"routes takes one name, not {len(words)}: routes [SWITCH | NODE]")
        name = chosen(words[0], [*self.switches(), *self.names()], "switch or node") if words else ""
        if name and name not in self.switches():
            self._node_routes(self.bed.inventory.node(name))
            return
        programs = self.bed.programs_in_force()
        for switch in [name] if name else self.switches():
            for view in views.route_views(programs[switch], self.bed.rule_counters(switch)):
                self.show(view)
            if switch in self.bed.unprogrammed():
                self.say(f"{switch} is not (yet) under the ToR app's control: see `app`")

    def _node_routes(self, node: NodeEntry) -> None:
        if node.role == "smartnic":
            self.show(views.smartnic_routes_view(node, self.bed.inventory.host_of(node)))
            return
        mininet_node = self.bed.net[node.name]
        self.say(run_in(mininet_node, ["ip", "route"]).rstrip())
        hops = run_in(mininet_node, ["ip", "nexthop"]).rstrip()
        if hops:
            self.say(f"next hops:\n{hops}")

    def complete_routes(self, text: str, *_: object) -> list[str]:
        return starting(text, [*self.switches(), *self.names()])

    def do_groups(self, line: str) -> None:
        """Show every select group: its members, which are alive, and packets per bucket.
        Usage: groups [HOST | SWITCH]...

        A member is dead while its port has no carrier, or while LACP with the host is down on it (link cut, SmartNIC
        dead, or its agent hung). The switch sends a dead member's flows, and no others, to the rest."""
        hosts, switches = self.names("host"), self.switches()
        words = [chosen(word, [*hosts, *switches], "host or switch") for word in words_of(line)]
        wanted = {w for w in words if w in switches} or set(switches)
        only = {f"ports of {w}" for w in words if w in hosts} or None
        self.show(views.groups_view({s: p for s, p in self.bed.programs_in_force().items() if s in wanted},
                                    self.bed.bucket_packets(), self.liveness(), only))

    def complete_groups(self, text: str, *_: object) -> list[str]:
        return starting(text, [*self.names("host"), *self.switches()])

    def do_apps(self, line: str) -> None:
        """Show every instance: its microservice, its node, and the requests that it has handled.
        Usage: apps

        Counters are the agents' own, asked over the network; "?" stands for an agent that does not answer."""
        no_words(line, "apps")
        known = self.bed.deployed()
        nodes = sorted({place.node for d in known for place in d.places})
        self.show(views.apps_view(known, self.bed.counters(*nodes) if nodes else {}))

    def do_power(self, line: str) -> None:
        """Show what every server and node draws, over the next second or so.
        Usage: power [SECONDS]

        SECONDS are real ones, 0.2 to 60; 1 unless told otherwise. Watts are those of calibrated speed: active power is
        above idle (Table 1), wall power is a server's idle power and all that is active in it (Table 4)."""
        seconds = seconds_of(words_of(line), "power")
        if not self.bed.pacing.calibrated:
            raise ExperimentError(f"watts are known at calibrated speed only, and this testbed is "
                                  f"{self.bed.pacing.speed}: start it with `e3 cli --speed calibrated`")
        before = self.bed.counters()
        time.sleep(seconds)
        power = power_between(before, self.bed.counters(), self.bed.inventory, Column(self.bed.pacing.stack.value),
                              self.bed.pacing.assumptions, services_of(self.bed.deployments))
        for view in views.power_views(power):
            self.show(view)

    def do_links(self, line: str) -> None:
        """Show every link with the carrier at both of its ends.
        Usage: links"""
        no_words(line, "links")
        up: dict[str, bool] = {}
        for name in [None, *self.names()]:
            listing = run_in(None if name is None else self.bed.net[name], ["ip", "-json", "link", "show"])
            up |= {i["ifname"]: i["operstate"] == "UP" for i in msgspec.json.decode(listing)}
        self.show(views.link_rows(self.bed.inventory, up))


def starting(text: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(text)]


def seconds_of(words: list[str], verb: str, least: float = 0.2, most: float = 60.0) -> float:
    """Return the one number of seconds that a verb takes, 1 if there is none; raises ExperimentError."""
    try:
        seconds = float(words[0]) if words else 1.0
    except ValueError:
        seconds = -1.0
    if len(words) > 1 or not least <= seconds <= most:
        raise ExperimentError(f"{verb} {' '.join(words)}: {verb} [SECONDS], from {least:g} to {most:g}")
    return seconds


def no_words(line: str, verb: str) -> None:
    if line.strip():
        raise ExperimentError(f"{verb} takes no words, not {line.strip()!r}")
