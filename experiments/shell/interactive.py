"""The interactive command line: Mininet's CLI on a running testbed, with E3's verbs.

What Mininet's own verbs assume (an IP on every node's interface, ifconfig, switches that it made) does not hold here;
those verbs do the same through the testbed, or say what to use instead. The loop survives whatever a verb
raises; only `exit`, end of file, SIGTERM and SIGHUP end it, and the testbed with it.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import select
import shutil
import signal
import sys
import termios
import traceback
from cmd import Cmd
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mininet.cli import CLI
from mininet.log import lg, setLogLevel
from mininet.node import Node
from mininet.term import makeTerms, runX11

from controller.errors import ControllerError
from experiments.emulation.choice import chosen
from experiments.emulation.first_placement import place_in_turn, shards_for
from experiments.emulation.pacing import Pacing
from experiments.emulation.testbed import Testbed, TestbedOptions
from experiments.errors import ExperimentError
from experiments.shell.mininet_verbs import MininetVerbs
from experiments.shell.verbs import words_of
from microservices.applications import nfv_fin
from microservices.errors import ServiceError
from nodes.deployment import deploy
from nodes.errors import NodeError
from topologies.catalog import cluster_named
from topologies.errors import TopologyError
from topologies.inventory import inventory_of

EXPECTED_ERRORS = (ControllerError, ExperimentError, ServiceError, NodeError, TopologyError, OSError)
HISTORY = Path("~/.e3_history")
HISTORY_LINES = 1000
SOURCE_DEPTH = 8
NEEDS_IP = ("ping", "iperf", "iperf3", "curl", "wget", "nc", "ssh", "traceroute", "telnet", "arping")
SHELL_ENDED = "the shell of {} has ended; only a new session has it back"
TIME_SCALE = 200.0  # ours: slow enough for all that a person types, and still quick to answer
ENDS_SHELL = ("exit", "logout", "exec")


def run_interactive(cluster: str, clients: int, pacing: Pacing, datapath: str, orchestrator: str = "watch",
                    controllers: int = 1) -> None:
    """Bring `cluster` up with NFV-FIN on it and read commands from standard input until it ends.

    Raises the testbed's errors if it cannot be brought up, KeyboardInterrupt with the signal's name on SIGTERM.
    """
    inventory = inventory_of(cluster_named(cluster, clients=clients))
    application = nfv_fin(shards=shards_for(inventory))
    deployment = deploy(application, place_in_turn(application, inventory), inventory)
    options = TestbedOptions(cluster, clients=clients, label="cli", datapath=datapath, pacing=pacing,
                             deployments=(deployment,), orchestrator=orchestrator, controllers=controllers)
    with Testbed.start(options) as bed, contextlib.suppress(BrokenPipeError):
        E3Shell(bed).run()


class E3Shell(MininetVerbs, CLI):
    """The loop. `bed` is a running testbed."""

    prompt = "e3> "

    def __init__(self, bed: Testbed, stdin: TextIO | None = None) -> None:
        MininetVerbs.__init__(self)
        stdin = stdin or sys.stdin
        Cmd.__init__(self, stdin=stdin)  # not CLI's: that one runs the loop and keeps files of its own
        self.bed = bed
        self.mn = bed.net
        self.locals = {"net": bed.net, "bed": bed}
        self.inputFile = None
        self.interactive = stdin.isatty()
        self.use_rawinput = self.interactive
        self._depth = 0

    # -- the loop ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read and do commands till the end; stop what runs for this shell alone."""
        self.say(self._banner())
        before = lg.level, lg.ch.stream, lg.propagate
        lg.propagate = False  # or all that Mininet prints would stand in our log, too
        lg.ch.setStream(sys.stdout)
        setLogLevel("output")
        try:
            with self._line_editing() if self.interactive else contextlib.nullcontext():
                self._loop()
        finally:
            lg.setLevel(before[0])
            lg.ch.setLevel(before[0])
            lg.ch.setStream(before[1])
            lg.propagate = before[2]
            self._end_terminals()
        if self.capturing:
            self.onecmd("capture off")

    def _loop(self) -> None:
        while True:
            try:
                self.cmdloop()
                return
            except KeyboardInterrupt as interrupt:
                if self.ends_session(interrupt):
                    raise
                self.say("")

    def _banner(self) -> str:
        inventory = self.bed.inventory
        hosts, nics, clients = (len(inventory.of_role(role)) for role in ("host", "smartnic", "client"))
        return (f"{inventory.cluster} is up after {self.bed.started_s['total']:.1f} s in world {self.bed.world.id}: "
                f"hosts {hosts}, SmartNICs {nics}, switches {len(inventory.switches)}, clients {clients}\n"
                f"{self.bed.pacing.said()}\n"
                "`help` lists the verbs, `exit` stops everything")

    @contextlib.contextmanager
    def _line_editing(self) -> Iterator[None]:
        """Completion that takes names with dashes whole, and a history that outlives the session."""
        try:
            import readline
        except ImportError:  # some Pythons are built without
            yield
            return
        readline.set_completer_delims(" \t\n")
        path = HISTORY.expanduser()
        with contextlib.suppress(OSError):
            readline.read_history_file(path)
        try:
            yield
        finally:
            readline.set_history_length(HISTORY_LINES)
            with contextlib.suppress(OSError):
                readline.write_history_file(path)

    def complete(self, text: str, state: int) -> str | None:
        """Offer the next completion; the only one comes with a space, ready for the next word."""
        match: Any = Cmd.complete(self, text, state)  # one match, whatever its stub says
        only = match is not None and len(self.completion_matches) == 1 and not match.endswith("/")
        return f"{match} " if only else match

    def precmd(self, line: str) -> str:
        if not self.interactive and line != "EOF":
            self.say(line.rstrip("\n"))  # so that a transcript reads like a session
        return str(CLI.precmd(self, line))

    def onecmd(self, line: str) -> bool:
        """Do one command; return whether it was the last. Only a signal or a closed output gets out of here."""
        try:
            self.refuse_unsupported(line)
            return bool(Cmd.onecmd(self, line))
        except BrokenPipeError:
            raise
        except EXPECTED_ERRORS as error:
            self.say(f"*** {error}")
        except KeyboardInterrupt as interrupt:
            if self.ends_session(interrupt):
                raise
            self.say("\ninterrupted")
        except Exception as error:  # a bug of ours, or of what `py` ran, must not take the rack down
            self.say(f"{traceback.format_exc()}*** {type(error).__name__}: {error}")
        return False

    def do_source(self, line: str) -> bool:
        """Do the commands in a file, as if they were typed; `exit` in it ends the session.
        Usage: source FILE"""
        words = words_of(line)
        if len(words) != 1:
            raise ExperimentError("usage: source FILE")
        if self._depth == SOURCE_DEPTH:
            raise ExperimentError(f"source {words[0]}: files that source files, {SOURCE_DEPTH} deep, are the limit")
        try:
            commands = Path(words[0]).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ExperimentError(f"cannot read {words[0]}: {error}") from error
        self._depth += 1
        try:
            for command in commands:
                self.say(f"{self.prompt}{command}")
                if self.onecmd(str(CLI.precmd(self, command))):
                    return True
        finally:
            self._depth -= 1
        return False

    # -- commands on nodes -------------------------------------------------------------------------------------

    def default(self, line: str, echo: bool = True) -> None:
        """Run `NODE COMMAND` in that node, names of nodes in it replaced by their IPs."""
        name, _, command = line.strip().partition(" ")
        command = command.strip()
        if name not in self.mn:
            near = difflib.get_close_matches(name, self.completenames(""), 1)
            raise ExperimentError(f"no verb or node {name!r}{f'; did you mean {near[0]}?' if near else ''} "
                                  "(`help` lists the verbs, `nodes` the nodes)")
        if not command:
            raise ExperimentError(f"what shall {name} do? {name} COMMAND, for example {name} ip address")
        first = command.split()[0]
        if first in ENDS_SHELL:
            raise ExperimentError(f"{first} would end the shell that is {name}; `exit` alone ends the session")
        if name in self.names("smartnic") and first in NEEDS_IP:
            raise ExperimentError(f"{name} holds no IP of its own kernel: its agent does, and answers. "
                                  f"Try it from elsewhere: c1 ping {name}, or `send`")
        node = self.mn[name]
        if node.shell is None or node.shell.poll() is not None:
            raise ExperimentError(SHELL_ENDED.format(name))
        node.sendCmd(" ".join(self._address(word) for word in command.split(" ")))
        self.waitForNode(node, echo)

    def do_noecho(self, line: str) -> None:
        """Run a command in a node while keys are not echoed, for programs that draw their own screen.
        Usage: noecho NODE COMMAND"""
        self.default(line, echo=False)

    def _address(self, word: str) -> str:
        return self.bed.inventory.node(word).ip if word in self.names() else word

    def waitForNode(self, node: Node, echo: bool = True) -> None:
        """Show what the node's command prints until it ends; keys and Ctrl-C typed meanwhile go to it."""
        poll = select.poll()
        poll.register(node.stdout, select.POLLIN)
        keys = self.stdin.fileno() if self.interactive else -1
        if self.interactive:
            poll.register(keys, select.POLLIN)
        interrupts = 0
        with _key_by_key(keys, echo) if self.interactive else contextlib.nullcontext():
            while node.waiting:
                try:
                    ready = {descriptor for descriptor, _ in poll.poll(500)}
                    if keys in ready:
                        typed = os.read(keys, 1024)
                        if typed:
                            os.write(node.stdin.fileno(), typed)
                        else:
                            poll.unregister(keys)
                    if node.stdout.fileno() in ready:
                        sys.stdout.write(node.monitor().replace("\r\n", "\n"))  # the shell stands at a terminal
                        sys.stdout.flush()
                    elif node.shell.poll() is not None:
                        raise ExperimentError(SHELL_ENDED.format(node.name))
                except KeyboardInterrupt as interrupt:
                    interrupts += 1
                    node.sendInt("\x03" if interrupts < 3 else "\x1c")  # Ctrl-\ for what does not hear Ctrl-C
                    if self.ends_session(interrupt):
                        raise

    # -- windows -----------------------------------------------------------------------------------------------

    def do_xterm(self, line: str, term: str = "xterm") -> None:
        """Open a terminal window in nodes.
        Usage: xterm NODE..."""
        words = [chosen(word, self.names(), "node") for word in words_of(line)]
        program = {"xterm": "xterm", "gterm": "gnome-terminal"}[term]
        if not words:
            raise ExperimentError(f"usage: {term} NODE...")
        if not os.environ.get("DISPLAY") or shutil.which(program) is None:
            lack = f"{program} is not installed" if os.environ.get("DISPLAY") else "there is no DISPLAY"
            space = f"/proc/{self.mn[words[0]].pid}/ns/net"
            raise ExperimentError(f"{lack}. In another terminal: sudo nsenter --net={space} bash")
        for word in words:
            self.mn.terms += makeTerms([self.mn[word]], term=term)

    def do_x(self, line: str) -> None:
        """Run an X program in a node.
        Usage: x NODE COMMAND"""
        words = words_of(line)
        if len(words) < 2 or not os.environ.get("DISPLAY"):
            raise ExperimentError("usage: x NODE COMMAND, with a DISPLAY")
        self.mn.terms += runX11(self.mn[chosen(words[0], self.names(), "node")], words[1:])

    def _end_terminals(self) -> None:
        """End our windows by pid: Mininet would kill, by name, everyone's."""
        for process in filter(None, self.mn.terms):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        self.mn.terms = []


@contextlib.contextmanager
def _key_by_key(terminal: int, echo: bool) -> Iterator[None]:
    """Let every key through at once, not line by line; Ctrl-C still interrupts."""
    before = termios.tcgetattr(terminal)
    now = termios.tcgetattr(terminal)
    now[3] &= ~(termios.ICANON | termios.ECHOCTL) & (~0 if echo else ~termios.ECHO)
    termios.tcsetattr(terminal, termios.TCSADRAIN, now)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
