"""The interactive CLI on a real rack: a script over standard input, and keys typed at a terminal.

    c1 --- tor1 === s1n1, s1n2, s1n3, s1n4 === s1h
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nodes import journal

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "experiments.cli", "cli", "type2x1")
PROMPT = "e3> "
CTRL_C, CTRL_D, TAB = "\x03", "\x04", "\t"

SCRIPT = """\
nodes
routes
routes s1h
links
groups
send 100
capture {captures}/all/
c1 for i in $(seq 100); do echo ping > /dev/udp/10.1.1.1/7; done
send 200
proof
capture s1n1 {captures}/pcie/
s1n1 ip -br link
c1 ping -c1 s1h
capture off
fail link s1n2
groups
c1 ping -c1 s1h
heal link s1n2
groups
fail hang s1n3
nodes
groups
fail smartnic s1n3
heal smartnic s1n3
fail smartnic s1n4
links
heal smartnic s1n4
groups
send 100
apps
dpctl del-flows
app restart
app stop
send 30
app start
app
pingall
iperf c1 s1h 1 4
fail server s1h
fail
heal all
send 20
source {captures}/more
time send 5
nonsense
"""


def worlds() -> set[str]:
    return {path.name for path in journal.run_dirs(journal.RUN_ROOT)}


def world_of(output: str) -> str:
    return re.findall(r"in world (w\w+):", output)[0]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, str]]]:
    """Run SCRIPT through standard input; yield each command with what it printed."""
    captures = tmp_path_factory.mktemp("captures")
    (captures / "more").write_text("send 7 c1\n# a comment\npy 1 + 1\n")
    done = subprocess.run(COMMAND, input=SCRIPT.format(captures=captures), capture_output=True, text=True, cwd=ROOT,
                          timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert world_of(done.stdout) not in worlds()
    print(done.stdout)
    parts = done.stdout.split(PROMPT)
    yield [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts[1:]]


class Said:
    """What each command of the script printed; the same command again is `again=1`, and so on."""

    def __init__(self, answers: list[tuple[str, str]]) -> None:
        self.answers = answers

    def __call__(self, command: str, again: int = 0) -> str:
        return [text for line, text in self.answers if line.startswith(command)][again]

    def member(self, interface: str, again: int) -> str:
        """Return the line of `interface` in the `again`th `groups`."""
        return next(line for line in self("groups", again).splitlines() if interface in line)


@pytest.fixture(scope="module")
def said(answers: list[tuple[str, str]]) -> Said:
    return Said(answers)


def test_all_agents_answer_over_the_network(said: Said) -> None:
    assert said("nodes").count("answers") == 5
    assert "SILENT" not in said("nodes")


def test_routes_count_packets_by_rule_and_the_host_has_kernel_routes(said: Said) -> None:
    to_host = next(line for line in said("routes").splitlines() if line.strip().startswith("s1h "))
    assert "10.1.1.1/32" in to_host and int(to_host.split()[-1]) > 0
    assert "10.0.0.0/8" in said("routes s1h") and "10.1.1.11" in said("routes s1h")


def test_every_request_is_answered(said: Said) -> None:
    assert "100 answered, 0 lost, 0 wrong" in said("send 100")
    assert "200 answered, 0 lost" in said("send 200")
    assert "7 answered, 0 lost" in said("send 7")
    assert "5 answered, 0 lost" in said("time send 5") and "Elapsed" in said("time send 5")


def test_captures_prove_the_routing_and_the_spread_of_flows_over_the_group(said: Said) -> None:
    proof = said("proof")
    assert "the routing is proved" in proof and "FAILS" not in proof
    assert "200 requests, 200 followed" in re.sub(r"\s+", " ", proof)
    flows, uneven = re.findall(r"1 groups judged, (\d+) flows, (\d+) uneven", proof)[0]
    assert int(flows) >= 100 and uneven == "0"


def test_a_smartnics_two_interfaces_are_captured_by_its_name(said: Said) -> None:
    assert "s1n1-net, s1n1-pcie" in said("capture", 1)
    assert "2 captures" in said("capture off")


def test_commands_run_in_nodes_with_names_replaced_by_addresses(said: Said) -> None:
    assert "s1n1-pcie" in said("s1n1 ip -br link")
    assert "1 received" in said("c1 ping -c1 s1h")


def test_a_cut_link_is_dead_in_its_group_and_the_host_still_reached_and_healed_it_lives_again(said: Said) -> None:
    assert "alive" in said.member("tor1-s1n2", 0)
    assert "DEAD: no carrier" in said("fail link s1n2")
    assert "DEAD: no carrier" in said.member("tor1-s1n2", 1)
    assert all("alive" in said.member(f"tor1-s1n{i}", 1) for i in (1, 3, 4))
    assert "1 received" in said("c1 ping -c1 s1h", 1)
    assert "tor1-s1n2 alive" in said("heal link s1n2") and "s1n2 answers" in said("heal link s1n2")
    assert "alive" in said.member("tor1-s1n2", 2)


def test_a_hung_agent_is_dead_by_lacp_while_its_link_is_up(said: Said) -> None:
    assert "DEAD: LACP is down" in said("fail hang s1n3")
    assert "DEAD: LACP is down" in said.member("tor1-s1n3", 3)
    assert "SILENT (stopped)" in next(line for line in said("nodes", 1).splitlines() if " s1n3 " in line)


def test_a_node_fails_with_both_its_links_and_comes_back_to_serve(said: Said) -> None:
    assert "DOWN / DOWN" in next(line for line in said("links", 1).splitlines() if "s1n4-net" in line)
    assert "DOWN / DOWN" in next(line for line in said("links", 1).splitlines() if "s1n4-pcie" in line)
    assert "s1n4 answers" in said("heal smartnic s1n4")
    assert "DEAD" not in said("groups", 4)
    assert "100 answered, 0 lost" in said("send 100", 1)


def test_a_new_agent_starts_with_empty_counters_and_the_others_keep_theirs(said: Said) -> None:
    handled = {row.split()[3]: int(row.split()[5]) for row in said("apps").splitlines()
               if row.startswith(" nfv-fin") and "monitor" in row}
    assert handled["s1n1"] + handled["s1n2"] > handled["s1n3"] + handled["s1n4"] > 0
    assert sum(handled[name] for name in ("s1n3", "s1n4")) <= 100


def test_a_restarted_app_mends_the_switch_and_a_dead_one_stops_no_request(said: Said) -> None:
    assert re.search(r"mended: rules added \d+", said("app restart"))
    assert "not running" in said("app stop")
    assert "30 answered, 0 lost" in said("send 30")
    assert "changed nothing" in said("app start")


def test_all_nodes_reach_each_other_and_tcp_runs(said: Said) -> None:
    assert "18 of 18 answered" in said("pingall")
    assert re.search(r"c1 -> s1h: \d+\.\d\d Gb/s", said("iperf"))


def test_a_server_fails_as_a_whole_and_comes_back_to_serve(said: Said) -> None:
    assert said("fail server").count("DEAD") == 4
    assert "heal server s1h" in said("fail\n".strip(), 5)
    assert said("heal all").count("answers") == 5
    assert "20 answered, 0 lost" in said("send 20", 1)


def test_nonsense_does_not_end_the_session(said: Said) -> None:
    assert said("nonsense").startswith("*** no verb or node 'nonsense'")
    assert said("py 1 + 1") == "2\n"


class Terminal:
    """The CLI at a terminal of its own."""

    def __init__(self, home: Path) -> None:
        self.text = ""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored by what a shell runs in the background
            os.execve(COMMAND[0], COMMAND, {**os.environ, "HOME": str(home), "TERM": "dumb"})

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def until(self, text: str, limit_s: float = 30.0) -> str:
        """Return what is printed up to and with `text`; fail after `limit_s`."""
        deadline = time.monotonic() + limit_s
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.text!r}"
            if select.select([self._descriptor], [], [], 0.1)[0]:
                self.text += os.read(self._descriptor, 65536).decode(errors="replace")
        head, _, self.text = self.text.partition(text)
        return head + text

    def interrupt_line(self) -> None:
        """Press Ctrl-C till there is a new prompt: one that comes while readline looks names up goes no further."""
        for _ in range(10):
            self.type(CTRL_C)
            with suppress(AssertionError):
                self.until(PROMPT, 3.0)
                return
        raise AssertionError(f"no prompt after Ctrl-C: {self.text!r}")

    def exit_status(self, limit_s: float = 20.0) -> int | None:
        """Wait for the end and return the exit status; None if it does not come."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if select.select([self._descriptor], [], [], 0.05)[0]:
                try:
                    os.read(self._descriptor, 65536)
                except OSError:
                    time.sleep(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        return None

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            if self.exit_status() is None:
                os.kill(self.pid, signal.SIGKILL)
        os.close(self._descriptor)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def test_at_a_terminal_tab_completes_ctrl_c_ends_commands_only_and_ctrl_d_all(
        terminal: Terminal, tmp_path: Path) -> None:
    world = world_of(terminal.until(PROMPT))
    terminal.type(f"fai{TAB}li{TAB}s1n2{TAB}\n")
    assert "fail link s1n2" in terminal.until(PROMPT)
    terminal.type("capture tor1-s1n" + 2 * TAB)
    terminal.until("tor1-s1n4")
    terminal.until("capture tor1-s1n")  # the line again, below what was offered
    time.sleep(0.2)
    terminal.interrupt_line()

    terminal.type("c1 ping -i 0.2 s1h\n")
    terminal.until("icmp_seq=3")
    terminal.type(CTRL_C)
    assert "packets transmitted" in terminal.until(PROMPT)

    terminal.type("send 1000000\n")
    terminal.until("\n")
    time.sleep(1)
    terminal.type(CTRL_C)
    assert "interrupted" in terminal.until(PROMPT)

    terminal.type("iperf c1 s1h 30\n")
    terminal.until("\n")
    time.sleep(1)
    terminal.type(CTRL_C)
    assert "interrupted" in terminal.until(PROMPT)

    terminal.type("s1h cat\n")
    terminal.until("\n")
    time.sleep(0.5)
    terminal.type("typed into cat\n")
    assert terminal.until("into cat\r\ntyped into cat")
    terminal.type(CTRL_C)
    terminal.until(PROMPT)

    time.sleep(0.3)
    terminal.type(CTRL_D)
    assert terminal.exit_status() == 0
    assert world not in worlds()
    assert "c1 ping" in (tmp_path / ".e3_history").read_text()


def test_sigterm_in_the_middle_of_a_command_stops_everything(terminal: Terminal) -> None:
    world = world_of(terminal.until(PROMPT))
    terminal.type("c1 ping -i 0.2 s1h\n")
    terminal.until("icmp_seq=2")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.exit_status() == 130
    assert world not in worlds()
