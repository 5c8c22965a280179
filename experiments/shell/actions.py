"""The interactive CLI's verbs that do something: send requests, restart the ToR app, measure the network."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable

import msgspec

from experiments.clients.client import ClientConfig
from experiments.emulation.choice import chosen
from experiments.errors import ExperimentError
from experiments.shell import views
from experiments.shell.captures import CapturingVerbs
from experiments.shell.failures import SWITCH_SEES_WITHIN_S, FailingVerbs
from experiments.shell.verbs import no_words, starting, words_of
from topologies.unreadable import UNREADABLE

MAX_REQUESTS = 1_000_000
FLOWS = 8
WINDOW = 1
REPLY_TIMEOUT_REAL_S = 3.0  # a person waits
DRAIN_REAL_S = 2.0  # after Ctrl-C: whoever typed it waits no longer for replies that a dead node owes
PAYLOAD_BYTES = 512
IPERF_PORT = 5201
IPERF_SPARE_S = 30  # for connecting and for the end
MAX_STREAMS = 128  # iperf3's own


class ActingVerbs(CapturingVerbs, FailingVerbs):
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
        known = self.bed.deployed()
        if not known:
            raise ExperimentError("no application is deployed here")
        deployment = known[0]
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
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                                  timeout=int(seconds) + IPERF_SPARE_S)
        except subprocess.TimeoutExpired as error:
            raise ExperimentError(f"iperf3, told to last {seconds} s, has not ended {IPERF_SPARE_S} s later") from error
        finally:
            listener.terminate()
            listener.wait(5)
        try:
            report = msgspec.json.decode(done.stdout)
        except UNREADABLE as error:
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
