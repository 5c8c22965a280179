"""The interactive CLI's verbs that do something: send, fail, heal, restart the ToR app, measure the network."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable

import msgspec

from experiments import shell_views as views
from experiments.client import ClientConfig
from experiments.errors import ExperimentError
from experiments.shell_captures import CapturingVerbs
from experiments.shell_verbs import no_words, process_state, starting, words_of
from experiments.shell_views import ALIVE, chosen
from nodes.emulated_node import run_in
from topologies.inventory import switch_links

MAX_REQUESTS = 1_000_000
FLOWS = 8
WINDOW = 1
REPLY_TIMEOUT_REAL_S = 3.0  # a person waits
DRAIN_REAL_S = 2.0  # after Ctrl-C: whoever typed it waits no longer for replies that a dead node owes
PAYLOAD_BYTES = 512
SWITCH_SEES_WITHIN_S = 15.0  # LACP with fast timers needs up to 3 s to notice, and about as long to come back
IPERF_PORT = 5201
MAX_STREAMS = 128  # iperf3's own
KINDS = {"link": "node or switch interface whose link can fail", "node": "SmartNIC", "agent": "agent"}


class ActingVerbs(CapturingVerbs):
    """Mixed into a cmd.Cmd, as LookingVerbs is."""

    def __init__(self) -> None:
        CapturingVerbs.__init__(self)  # not super(): next after the verbs comes Mininet's CLI
        self._client_numbers = itertools.count(1)  # request ids stay apart, and captures of several sends too

    # -- requests ----------------------------------------------------------------------------------------------

    def do_send(self, line: str) -> None:
        """Send requests through the application and say what came of them.
        Usage: send [N] [CLIENT]

        100 requests from c1 unless told otherwise; 8 flows with one request outstanding each. Every reply is checked.
        Ctrl-C stops sending and shows what came until then."""
        count, client = self._send_words(words_of(line))
        if not self.bed.deployments:
            raise ExperimentError("no application is deployed here")
        deployment = self.bed.deployments[0]
        number = next(self._client_numbers)
        running = self.bed.start_client(client, ClientConfig(
            self.bed.inventory.node(client).ip, number, deployment, deployment.name, count, FLOWS, WINDOW,
            PAYLOAD_BYTES, seed=number, timeout_s=REPLY_TIMEOUT_REAL_S / self.bed.pacing.time_scale,
            drain_real_s=DRAIN_REAL_S))
        limit_s = 60 + count / 20
        try:
            result = running.result(limit_s)
        except KeyboardInterrupt as interrupt:
            running.stop()
            if self.ends_session(interrupt):
                raise
            result = running.result(10.0)
            self.say("\ninterrupted")
        except ExperimentError:
            running.stop()
            raise
        for text in views.request_lines(result, client, deployment.name):
            self.say(text)

    def _send_words(self, words: list[str]) -> tuple[int, str]:
        clients = self.names("client")
        if not clients:
            raise ExperimentError("this rack has no client")
        count, client = 100, clients[0]
        for word in words:
            if word.isascii() and word.isdigit():
                count = int(word[:9])
            elif word[:1] in "+-.0123456789":
                raise ExperimentError(f"{word!r} is not a number of requests: send [N] [CLIENT]")
            else:
                client = chosen(word, clients, "client")
        if not 1 <= count <= MAX_REQUESTS or len(words) > 2:
            raise ExperimentError(f"send {' '.join(words)}: send [N] [CLIENT], N from 1 to {MAX_REQUESTS}")
        return count, client

    def complete_send(self, text: str, *_: object) -> list[str]:
        return starting(text, self.names("client"))

    # -- failures ----------------------------------------------------------------------------------------------

    def do_fail(self, line: str) -> None:
        """Break something, and see how the switch notices.
        Usage: fail link NODE | fail node SMARTNIC | fail agent NODE

        link   the cable between NODE and the ToR is pulled; between switches, the link of that interface (tor1-agg1)
        node   the SmartNIC loses its power: its agent ends, both its links lose carrier
        agent  the agent hangs (SIGSTOP) with its links up, which only LACP can notice, within 3 s"""
        kind, name = self._failure(line, "fail")
        if kind == "link":
            self._set_link(name, up=False)
        elif process_state(self.bed.agent_pid(name)) == "ended":
            raise ExperimentError(f"{name} has failed already: `heal node {name}`")
        elif kind == "node":
            self.bed.fail_node(name)
        else:
            self.bed.hang_agent(name)
        self.say({"link": f"the link of {name} is down", "node": f"{name} is off",
                  "agent": f"the agent of {name} hangs"}[kind])
        self._watch(kind, name, alive=False)

    def do_heal(self, line: str) -> None:
        """Mend what `fail` broke, and see when the switch uses it again.
        Usage: heal link NODE | heal node SMARTNIC | heal agent NODE

        A node comes back with an empty state: its instances start anew."""
        kind, name = self._failure(line, "heal")
        if kind == "link":
            self._set_link(name, up=True)
        elif kind == "node":
            self.bed.heal_node(name)
        else:
            if process_state(self.bed.agent_pid(name)) == "ended":
                raise ExperimentError(f"the agent of {name} has ended: `heal node {name}` starts another")
            self.bed.resume_agent(name)
        self.say({"link": f"the link of {name} is up", "node": f"{name} is on, with a new agent",
                  "agent": f"the agent of {name} goes on"}[kind])
        self._watch(kind, name, alive=True)

    def _failure(self, line: str, verb: str) -> tuple[str, str]:
        words = words_of(line)
        if len(words) != 2:
            raise ExperimentError(f"usage: {verb} link NODE | {verb} node SMARTNIC | {verb} agent NODE")
        kind = chosen(words[0], list(KINDS), "kind of failure")
        return kind, chosen(words[1], self._can_fail(kind), KINDS[kind])

    def _can_fail(self, kind: str) -> list[str]:
        if kind == "link":
            nodes = [name for name in self.names() if self.bed.inventory.ports_of_node(name)]
            return nodes + [end.interface for ends in switch_links(self.bed.inventory) for end in ends]
        return self.names("smartnic") if kind == "node" else self.names("host", "smartnic")

    def _set_link(self, name: str, up: bool) -> None:
        if name not in self.names():  # an interface between switches; either end may have been taken down
            ends = [p.interface for p in self.bed.inventory.ports if name in (p.interface, p.peer_interface)]
            for interface in ends:
                run_in(None, ["ip", "link", "set", interface, "up" if up else "down"])
        elif up:
            self.bed.heal_link(name)
        else:
            self.bed.fail_link(name)

    def _watch(self, kind: str, name: str, alive: bool) -> None:
        """Wait till the switch sees what happened, and say how long that took."""
        ports = [p.interface for p in self.bed.inventory.ports if name in (p.peer, p.interface, p.peer_interface)]
        if not ports or (kind == "agent" and self.bed.inventory.node(name).role == "host"):
            self.say("no port of a switch depends on it: groups stay as they are")
            if alive:
                self._await_answers(name, time.monotonic())
            return
        start = time.monotonic()
        while time.monotonic() - start < SWITCH_SEES_WITHIN_S:
            states = self.liveness()
            took_s = time.monotonic() - start
            if all((states.get(port) == ALIVE) is alive for port in ports):
                for port in ports:
                    self.say(f"after {took_s:.1f} s the switch sees {port} {states[port]}")
                if alive:
                    self._await_answers(name, start)
                return
            time.sleep(0.05)
        self.say(f"after {SWITCH_SEES_WITHIN_S:g} s the switch still sees "
                 + ", ".join(f"{port} {states.get(port, views.UNKNOWN)}" for port in ports))

    def _await_answers(self, name: str, start: float) -> None:
        """Wait till the agents whose way leads over `name` answer again, and say how long that took."""
        if name not in self.names("host", "smartnic"):
            return
        entry = self.bed.inventory.node(name)
        silent = {name, self.bed.inventory.host_of(entry).name}
        while silent and time.monotonic() - start < SWITCH_SEES_WITHIN_S:
            answered = self.bed.counters(*silent).keys()
            for node in sorted(answered):
                self.say(f"after {time.monotonic() - start:.1f} s {node} answers")
            silent -= answered
        if silent:
            self.say(f"{' and '.join(sorted(silent))} did not answer within {SWITCH_SEES_WITHIN_S:g} s")
            return
        while (lacking := self.bed.not_running_on(name)) and time.monotonic() - start < SWITCH_SEES_WITHIN_S:
            time.sleep(0.1)
        if self.bed.resource is not None:
            self.say(f"after {time.monotonic() - start:.1f} s "
                     + (f"{', '.join(lacking)} still do not run there" if lacking else "all that belongs there runs"))

    def complete_fail(self, text: str, line: str, begin: int, _end: int) -> list[str]:
        before = line[:begin].split()
        if len(before) == 1:
            return starting(text, list(KINDS))
        return starting(text, self._can_fail(before[1])) if len(before) == 2 and before[1] in KINDS else []

    complete_heal = complete_fail

    # -- the ToR app -------------------------------------------------------------------------------------------

    def do_app(self, line: str) -> None:
        """Show, stop, start or restart the app that programs the switches.
        Usage: app [stop | start | restart]

        While it is stopped (killed, without a word to the switches) packets are forwarded as before. When it starts
        it reads every switch and changes only what is not as it should be."""
        words = words_of(line)
        if len(words) > 1:
            raise ExperimentError("usage: app [stop | start | restart]")
        what = chosen(words[0], ("stop", "start", "restart"), "action") if words else ""
        running = self.bed.tor_app.poll() is None
        if what == "start" and running:
            raise ExperimentError(f"the ToR app runs already, as process {self.bed.tor_app.pid}")
        if what in ("stop", "restart") and running:
            self.bed.tor_app.kill()
            self.bed.tor_app.wait()
        if what in ("start", "restart"):
            self.bed.start_tor_app()
            start = time.monotonic()
            _wait(lambda: not self.bed.unprogrammed(), SWITCH_SEES_WITHIN_S)
            self.say(f"{what}ed; waited {time.monotonic() - start:.1f} s for the switches")
        for text in views.app_lines(self.bed.tor_status(), self.bed.tor_app.poll() is None):
            self.say(text)

    def complete_app(self, text: str, *_: object) -> list[str]:
        return starting(text, ["stop", "start", "restart"])

    # -- measuring the network ---------------------------------------------------------------------------------

    def do_pingall(self, line: str) -> None:
        """Ping every node from every node that has a kernel's IP stack (hosts, clients, controllers).
        Usage: pingall

        SmartNICs are pinged too, and their agents answer; they cannot ping, because their namespaces hold no IP."""
        no_words(line, "pingall")
        sent, answered, nowhere = 0, 0, subprocess.DEVNULL
        for source in self.names("host", "client", "controller"):
            space = ["nsenter", f"--net=/proc/{self.bed.net[source].pid}/ns/net"]
            pings = {node.name: subprocess.Popen([*space, "ping", "-n", "-q", "-c1", "-W1", node.ip],
                                                 stdin=nowhere, stdout=nowhere, stderr=nowhere)
                     for node in self.bed.inventory.nodes if node.name != source}
            reached = {name: ping.wait() == 0 for name, ping in pings.items()}
            sent, answered = sent + len(reached), answered + sum(reached.values())
            self.say(f"{source} -> " + " ".join(name if ok else f"X({name})" for name, ok in reached.items()))
        self.say(f"{answered} of {sent} answered")

    def do_iperf(self, line: str) -> None:
        """Measure TCP throughput between two nodes with iperf3.
        Usage: iperf FROM TO [SECONDS [STREAMS]]

        3 seconds and 1 stream unless told otherwise; with many streams to a host, `groups` shows how they spread.
        Not to or from SmartNICs: their namespaces hold no IP; use `send` for them."""
        words = words_of(line)
        ends = self.names("host", "client", "controller")
        seconds, streams = (*words[2:], *("3", "1")[len(words) - 2:])[:2] if len(words) in (2, 3, 4) else ("", "")
        if not (_is_within(seconds, 3600) and _is_within(streams, MAX_STREAMS)):
            raise ExperimentError(f"usage: iperf FROM TO [SECONDS [STREAMS]], at most 3600 and {MAX_STREAMS}")
        client, server = (chosen(word, ends, "node with an IP stack of its own") for word in words[:2])
        if client == server:
            raise ExperimentError(f"iperf needs two nodes, not {client} twice")
        address = self.bed.inventory.node(server).ip
        spaces = {name: ["nsenter", f"--net=/proc/{self.bed.net[name].pid}/ns/net"] for name in (client, server)}
        log = self.bed.world.run_dir / "iperf3.log"
        log.unlink(missing_ok=True)
        listener = self.bed.world.spawn([*spaces[server], "iperf3", "--server", "--one-off", "--forceflush",
                                         "--bind", address, "--port", str(IPERF_PORT)], "iperf3")
        try:
            _wait(lambda: "listening" in log.read_text() or listener.poll() is not None, 5.0)
            done = subprocess.run([*spaces[client], "iperf3", "--client", address, "--port", str(IPERF_PORT), "--json",
                                   "--time", seconds, "--parallel", streams, "--connect-timeout", "3000"],
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        finally:
            listener.terminate()
            listener.wait(5)
        try:
            report = msgspec.json.decode(done.stdout)
        except msgspec.DecodeError as error:
            raise ExperimentError(f"iperf3 said no JSON: {(done.stdout + done.stderr).strip()[:200]!r}") from error
        self.say(views.iperf_line(report, client, server))

    def complete_iperf(self, text: str, *_: object) -> list[str]:
        return starting(text, self.names("host", "client", "controller"))


def _is_within(word: str, most: int) -> bool:
    return word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= most


def _wait(true: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
