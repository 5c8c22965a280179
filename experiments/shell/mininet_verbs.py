"""Mininet's verbs that expect what Mininet itself set up: done through the testbed, or refused; and help.

What such verbs assume (an IP on every node's interface, ifconfig, switches that Mininet made, iperf servers that are
killed by name) does not hold here.
"""

from __future__ import annotations

import glob
import inspect
import subprocess
import sys
from pathlib import Path

from experiments.emulation.choice import chosen
from experiments.errors import ExperimentError
from experiments.shell.actions import ActingVerbs
from experiments.shell.orchestrator import OrchestratorVerbs
from experiments.shell.verbs import starting, words_of

INSTEAD = {
    "switch": "switches are the testbed's own: see `groups`, `fail link NODE`, and `app stop`",
    "iperfudp": "use `iperf FROM TO` for TCP, or iperf3 -u on two nodes",
    "pingpair": "use `pingall`, or `NODE ping -c1 NODE`",
    "pingallfull": "use `pingall`, or `NODE ping NODE` for round-trip times",
    "pingpairfull": "use `NODE ping NODE`",
}

ENDS = ("exit", "quit", "EOF")
E3_VERBS = ("nodes", "apps", "routes", "groups", "links", "top", "power", "deploy", "withdraw", "migrate", "events",
            "send", "capture", "proof", "fail", "heal", "app", "pingall", "iperf", "wait")
NODE_HELP = """Anything else: NODE COMMAND runs a command in that node; names of nodes in it become their IPs.
  c1 ping -c3 s1h        s1h ip route        s1n1 ip -s link
SmartNICs hold no IP of their kernel: their agents answer. Commands on them see interfaces, and cannot ping."""


class MininetVerbs(ActingVerbs, OrchestratorVerbs):
    """Mixed into Mininet's CLI, before it."""

    def refuse_unsupported(self, line: str) -> None:
        """Raise ExperimentError, saying what to use instead, for a verb that cannot mean anything here."""
        verb, *words = line.split(maxsplit=1) or [""]
        if verb in ENDS and words:
            raise ExperimentError(f"{verb} takes no words, not {words[0].strip()!r}")
        if verb in INSTEAD:
            raise ExperimentError(f"{verb} is not for this rack: {INSTEAD[verb]}")

    def do_link(self, line: str) -> None:
        """Take the link between a switch and a node, or another switch, down or up, as `fail link` and `heal link` do.
        Usage: link NODE SWITCH up|down | link SWITCH SWITCH up|down"""
        words = words_of(line)
        if len(words) != 3 or words[2] not in ("up", "down"):
            raise ExperimentError("usage: link NODE SWITCH up|down; `links` shows all")
        ends = {frozenset((p.switch, p.peer)): p for p in self.bed.inventory.ports}
        port = ends.get(frozenset(words[:2]))
        if port is None:
            raise ExperimentError(f"no link between {words[0]} and {words[1]} that fails alone; `links` shows all, and "
                                  "`fail pcie SMARTNIC` is for PCIe links")
        name = port.peer if port.peer in self.names() else port.interface
        (self.do_heal if words[2] == "up" else self.do_fail)(f"link {name}")

    def do_dpctl(self, line: str) -> None:
        """Run an ovs-ofctl command (OpenFlow 1.5) on every switch.
        Usage: dpctl COMMAND [ARGUMENT]..., for example dpctl dump-groups

        `routes` and `groups` show the same under the program's own names; what you change here, `app restart` mends."""
        words = words_of(line)
        if not words:
            raise ExperimentError("usage: dpctl COMMAND [ARGUMENT]..., for example dpctl dump-groups")
        for name in self.switches():
            self.say(f"*** {name}\n{self.bed.world.ofctl(words[0], name, *words[1:])}".rstrip())

    def do_wait(self, line: str) -> None:
        """Wait until switches are programmed, LACP is up on every port of a server, and every agent answers.
        Usage: wait [SECONDS]"""
        words = words_of(line) or ["15"]
        if len(words) > 1 or not words[0].isdigit():
            raise ExperimentError("usage: wait [SECONDS]")
        self.bed.wait_until_ready(float(words[0][:6]))
        self.say("everything is ready")

    def do_sh(self, line: str) -> None:
        """Run a command in the world's own namespace, where the switches are.
        Usage: sh COMMAND, for example sh ip -br link"""
        sys.stdout.flush()
        child = subprocess.Popen(line, shell=True, stdin=None if self.interactive else subprocess.DEVNULL)
        while child.returncode is None:
            try:
                child.wait()
            except KeyboardInterrupt as interrupt:  # the terminal has sent it to the child, too
                if self.ends_session(interrupt):
                    child.kill()
                    raise

    # -- help and completion -----------------------------------------------------------------------------------

    def verbs(self) -> list[str]:
        """Return every verb that works here."""
        known = {name[3:] for name in dir(self) if name.startswith("do_")} - set(INSTEAD) - {"EOF"}
        return sorted(known)

    def do_help(self, arg: str) -> None:
        """Say what the verbs are, or what one of them does.
        Usage: help [VERB]"""
        words = words_of(arg)
        if words and words[0] in self.names():
            self.say(NODE_HELP)
        elif words and words[0] in INSTEAD:
            self.say(f"{words[0]} is not for this rack: {INSTEAD[words[0]]}")
        elif words:
            self.say(self._help_of(chosen(words[0], self.verbs(), "verb")))
        else:
            self.say("E3's verbs (help VERB says more):")
            for verb in E3_VERBS:
                self.say(f"  {verb:<9} {self._help_of(verb).splitlines()[0]}")
            self.say(f"Mininet's: {', '.join(verb for verb in self.verbs() if verb not in E3_VERBS)}\n\n{NODE_HELP}")

    def _help_of(self, verb: str) -> str:
        return inspect.cleandoc(getattr(self, f"do_{verb}").__doc__ or "no help")

    def complete_help(self, text: str, *_: object) -> list[str]:
        return starting(text, self.verbs())

    def completenames(self, text: str, *_: object) -> list[str]:
        return starting(text, [*self.verbs(), *self.names()])

    def completedefault(self, text: str, *_: object) -> list[str]:
        return starting(text, self.names())

    def complete_link(self, text: str, *_: object) -> list[str]:
        return starting(text, [*self.names(), *self.switches(), "up", "down"])

    complete_xterm = complete_gterm = complete_x = completedefault

    def complete_source(self, text: str, *_: object) -> list[str]:
        return [path + "/" * Path(path).is_dir() for path in sorted(glob.glob(glob.escape(text) + "*"))]
