"""The interactive CLI on a testbed of stand-ins: words, tables, completion, a loop that nothing ends by accident."""

import itertools
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell_room import Bed, session, shell, typed

from controller.tor_counters import RuleCounter
from controller.tor_rules import rules_of
from experiments.clients.client import ClientConfig, ClientResult
from experiments.emulation.failures import KINDS
from experiments.errors import ExperimentError
from experiments.shell import views
from experiments.shell.mininet_verbs import E3_VERBS, INSTEAD


@pytest.fixture
def bed() -> Bed:
    return Bed()


# -- the loop ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    "bogus", "nodez", "c1", "c1 exit", "send 1 c1 2", "s1n1 ping s1h", "s1n1 iperf3 -s", "send -3", "send 0",
    "send 10 c9", "send 1 2 3", "send 99999999999", "routes a b", 'routes "a', "routes nobody", "groups s1n1",
    "capture tor9", "capture a/ b/",
    "exit now", "quit now", "EOF now",
    "deploy", "deploy nfv-fin rta-sf", "deploy nobody", "deploy nfv-fin", "withdraw", "withdraw nfv-fin rta-sf",
    "capture off", "proof", "proof x", "fail lnk s1n1", "fail link s1h", "fail link tor1",
    "fail smartnic s1h", "fail hang c1", "fail link", "fail link s1n1 s1n2", "fail tor tor1", "fail controller s1h",
    "fail loss s1n1", "fail loss s1n1 much", "fail loss s1n1 1.5", "fail loss s1n1 -1%", "fail loss s1n1 nan",
    "fail partition", "fail partition s1h s1h", "fail partition s1h s9h", "fail server s1n1", "fail host s1n1",
    "fail pcie s1h", "heal", "heal link", "heal link s1n1", "heal frob", "heal partition",
    "app frob", "app stop now", "iperf s1h", "iperf s1h s1h", "iperf s1h s1n1",
    "iperf s1h c1 0", "iperf s1h c1 1 129", "link s1n1 tor1", "link s1n1 s1h down", "link s1n1 tor2 down", "dpctl",
    "wait x", "source", "source /nonexistent", "xterm", "xterm c9", "x", "x c1", "nodes x", "apps x", "links x",
    "pingall x", "help frob", *INSTEAD])
def test_a_wrong_word_is_answered_in_one_line_and_ends_nothing(
        line: str, bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    answer = typed(bed, line, capsys)
    assert answer.startswith("*** ")
    assert answer.count("\n") == 1
    assert not bed.done


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["send ", "routes ", "groups ", "fail ", "heal ", "capture ", "iperf ", "link ", "help ",
                        "app x", "wait x", ""]), st.text(st.characters(exclude_characters="!/"), max_size=20))
def test_no_line_whatever_it_holds_ends_the_session(bed: Bed, verb: str, words: str) -> None:
    assert shell(bed).onecmd(f"{verb}{words} \N{SNOWMAN}") is False


def test_an_unknown_name_is_answered_with_the_nearest_and_all_there_are(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(bed, "fail smartnic s1n7", capsys) == (
        "*** no SmartNIC 's1n7' (did you mean s1n4?); there are s1n1, s1n2, s1n3, s1n4\n")


def test_a_bug_shows_its_trace_and_the_session_goes_on(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    def bucket_packets() -> None:
        raise RuntimeError("broken")

    bed.bucket_packets = bucket_packets  # type: ignore[assignment,method-assign]
    session(bed, "groups\napps\nexit\n")
    out = capsys.readouterr().out
    assert "RuntimeError: broken" in out and "monitor-1" in out


def test_a_script_ends_at_its_end_and_shows_each_line_before_its_answer(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    session(bed, "send 50  # before\nsend 60")
    out = capsys.readouterr().out
    assert out.index("e3> send 50") < out.index("c1 sent 50 requests") < out.index("e3> send 60")
    assert [config.requests for config in bed.configs] == [50, 60]


def test_two_sends_never_use_the_same_request_ids(bed: Bed) -> None:
    session(bed, "send 5\nsend 5\n")
    assert len({config.client_number for config in bed.configs}) == 2


def test_exit_in_a_sourced_file_ends_the_session(bed: Bed, tmp_path: Path) -> None:
    (tmp_path / "two").write_text("send 1\nexit\nsend 2\n")
    (tmp_path / "one").write_text(f"source {tmp_path}/two\nsend 3\n")
    session(bed, f"source {tmp_path}/one\nsend 4\n")
    assert [config.requests for config in bed.configs] == [1]


def test_a_file_that_sources_itself_is_stopped(bed: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").write_text(f"source {tmp_path}/loop\n")
    assert "are the limit" in typed(bed, f"source {tmp_path}/loop", capsys)


@pytest.mark.parametrize(("signal_name", "interactive", "survives"),
                         [((), True, True), (("SIGTERM",), True, False), ((), False, False)])
def test_ctrl_c_ends_a_command_and_sigterm_the_session(
        bed: Bed, signal_name: tuple[str, ...], interactive: bool, survives: bool) -> None:
    def counters(*_: str) -> None:
        raise KeyboardInterrupt(*signal_name)

    bed.counters = counters  # type: ignore[assignment,method-assign]
    made = shell(bed, interactive)
    if survives:
        assert made.onecmd("nodes") is False
    else:
        with pytest.raises(KeyboardInterrupt):
            made.onecmd("nodes")


def test_ctrl_c_during_send_stops_the_client_and_still_shows_what_came(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    start, calls = bed.start_client, itertools.count()

    def start_client(client: str, config: ClientConfig) -> Any:
        running = start(client, config)
        result = running.result

        def interrupted_first(limit_s: float) -> ClientResult:
            if next(calls) == 0:
                raise KeyboardInterrupt
            return result(limit_s)  # type: ignore[no-any-return]

        running.result = interrupted_first
        return running

    bed.start_client = start_client  # type: ignore[method-assign]
    assert "c1 sent 100 requests" in typed(bed, "send", capsys)
    assert bed.done == [("stop", "c1")]


# -- help and completion -------------------------------------------------------------------------------------------


def test_help_names_every_verb_that_works_and_each_has_help_of_its_own(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    listed = typed(bed, "help", capsys)
    for verb in shell(bed).verbs():
        assert verb in listed
        assert len(typed(bed, f"help {verb}", capsys)) > 4
    assert "pingpair" not in listed


def test_every_verb_of_ours_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs/cli.md").read_text()
    assert not [verb for verb in (*E3_VERBS, *INSTEAD) if verb not in text]
    assert [verb for verb in E3_VERBS if f"e3> {verb}" in text] == list(E3_VERBS)


@pytest.mark.parametrize(("line", "text", "offered"), [
    ("fail ", "", list(KINDS)),
    ("fail smartnic ", "", ["s1n1", "s1n2", "s1n3", "s1n4"]),
    ("fail link ", "c", ["c1", "ctl1"]),
    ("fail hang ", "s1h", ["s1h"]),
    ("fail partition s1h ", "s1", ["s1n1", "s1n2", "s1n3", "s1n4"]),
    ("fail tor ", "", []),
    ("fail frob ", "", []),
    ("fail link s1n1 ", "", []),
])
def test_fail_completes_kinds_then_names_that_can_fail_so(
        bed: Bed, line: str, text: str, offered: list[str]) -> None:
    assert shell(bed).complete_fail(text, line + text, len(line), len(line + text)) == offered


def test_heal_completes_what_is_broken(bed: Bed) -> None:
    made = shell(bed)
    for words in (["link", "s1n1"], ["link", "s1n2"], ["hang", "s1n3"]):
        bed.fail(*words)
    bed.fail("loss", "s1n4", share=0.5)
    assert made.complete_heal("", "heal ", 5, 5) == ["link", "hang", "loss", "all"]
    assert made.complete_heal("", "heal link ", 10, 10) == ["s1n1", "s1n2"]
    assert made.complete_heal("s", "heal loss s", 10, 11) == ["s1n4"]
    assert made.complete_heal("", "heal all ", 9, 9) == []


def test_help_tells_of_every_kind_of_failure(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    said = typed(bed, "help fail", capsys)
    assert not [kind for kind, known in KINDS.items() if f"{kind} {known.usage}".strip() not in said]


def test_a_line_starts_with_a_verb_or_a_node_and_interfaces_complete_whole(bed: Bed) -> None:
    made = shell(bed)
    assert made.completenames("s1n") == ["s1n1", "s1n2", "s1n3", "s1n4"]
    assert made.completenames("he") == ["heal", "help"]
    assert made.complete_capture("tor1-c") == ["tor1-c1", "tor1-ctl1"]
    assert made.completedefault("ct", "c1 ping ct", 8, 10) == ["ctl1"]


def test_applications_come_and_go_by_their_names(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    answer = typed(bed, "deploy rta-sf", capsys)
    assert answer == f"rta-sf is deployed, in {len(bed.deployments[-1].places)} instances\n"
    assert [d.name for d in bed.deployments] == ["nfv-fin", "rta-sf"]
    assert shell(bed).complete_withdraw("n", "withdraw n", 9, 10) == ["nfv-fin"]
    answer = typed(bed, "withdraw nfv-fin", capsys)
    assert answer == ("nfv-fin is withdrawn, with 3 requests and messages dropped; s1n2, away now, will be told when "
                      "back\n")
    assert "rta-sf" in typed(bed, "send", capsys) and bed.configs[-1].deployment.name == "rta-sf"
    assert bed.done[-2:] == [("deploy", "rta-sf"), ("withdraw", "nfv-fin")]


# -- what verbs show -----------------------------------------------------------------------------------------------


def test_nodes_tells_a_hung_agent_an_ended_one_and_one_that_is_only_cut_off(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    hung = subprocess.Popen(["sleep", "60"])
    ended = subprocess.Popen(["true"])
    ended.wait()
    try:
        hung.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, hung.pid, os.WSTOPPED | os.WNOWAIT)
        bed.agents |= {"s1n1": hung.pid, "s1n2": ended.pid}
        bed.seen = {"s1n4": {"to_network": 7, "queue_deepest": 3, "queue_dropped": 2, "dropped_foreign": 1}}
        *table, dropped = typed(bed, "nodes", capsys).splitlines()
        lines = {row.split()[0]: row for row in table}
    finally:
        hung.kill()
        hung.wait()
    assert "SILENT (stopped)" in lines["s1n1"]
    assert "SILENT (ended)" in lines["s1n2"]
    assert "SILENT (running)" in lines["s1n3"]
    assert lines["s1n4"].split()[5:] == ["answers", "7", "-", "-", "-", "3", "3"]
    assert dropped == "s1n4 dropped: 2 queue_dropped, 1 dropped_foreign"


def test_routes_sends_a_smartnic_to_its_port_and_a_host_to_its_group(bed: Bed) -> None:
    program = bed.programs["tor1"]
    rules = {r.name: RuleCounter(r.name, r.table, 5, 500, r.drops) for r in rules_of(program)}
    routes, other, dropped = views.route_views(program, rules)
    by_name = {row[0]: row for row in routes.rows}
    assert by_name["s1n2"] == ("s1n2", "10.1.1.12/32", "tor1-s1n2", 5)
    assert by_name["s1h"][2] == "group 'ports of s1h': tor1-s1n1, tor1-s1n2, tor1-s1n3, tor1-s1n4"
    assert any("spoofed source" in str(row[1]) for row in dropped.rows)
    assert {row[1] for row in other.rows} | {row[1] for row in dropped.rows} | {
        f"route to {name}" for name in by_name} >= {r.name for r in rules_of(program)}


def test_routes_of_a_smartnic_says_what_its_agent_does(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row.split("  ") for row in typed(bed, "routes s1n1", capsys).splitlines()]
    shown = {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert shown["s1n1 10.1.1.11"] == ["local core", "local core"]
    assert shown["s1h 10.1.1.1"] == ["host, over PCIe", "dropped"]
    assert shown["anything else"] == ["dropped", "network"]


def test_apps_shows_what_each_instance_did_and_a_question_mark_for_a_silent_node(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    bed.seen = {"s1n1": {"handled nfv-fin/monitor-1": 12, "errors nfv-fin/monitor-1": 1}}
    shown = typed(bed, "apps", capsys).splitlines()
    rows = {row.split()[1]: row.split() for row in shown if row.startswith(" nfv-fin")}
    assert rows["monitor-1"][3:] == ["s1n1", "10.1.1.11", "12", "1"]
    assert rows["ipsec-1"][3:] == ["s1h", "10.1.1.1", "?", "?"]


def test_failing_waits_till_the_switch_sees_it_and_healing_till_nodes_answer(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert "tor1-s1n2 DEAD: no carrier" in typed(bed, "fail link s1n2", capsys)
    healed = typed(bed, "link tor1 s1n2 up", capsys)
    assert "tor1-s1n2 alive" in healed and "s1n2 answers" in healed and "s1h answers" in healed
    assert "tor1-s1n3 DEAD: LACP is down" in typed(bed, "fail hang s1n3", capsys)


def test_links_between_switches_fail_by_their_switches_and_their_other_ends_are_offered(
        capsys: pytest.CaptureFixture[str]) -> None:
    bed = Bed("type1x1/4")
    made = shell(bed)
    assert made.complete_fail("", "fail link agg1 ", 15, 15) == ["tor1", "tor2", "core1", "core2"]
    assert made.complete_fail("core", "fail loss agg1 core", 15, 19) == ["core1", "core2"]
    said = typed(bed, "fail link agg1 tor1", capsys)
    assert "the link of tor1-agg1 is down" in said and "tor1-agg1 DEAD: no carrier" in said
    assert "the link of tor1-agg1 is up" in typed(bed, "link tor1 agg1 up", capsys)
    assert "loses 0.02 of all frames" in typed(bed, "fail loss core1 agg3 2%", capsys)
    for line in ("fail link tor1 core1", "fail link tor1", "fail loss agg1", "fail loss a b c 2%"):
        assert "***" in typed(bed, line, capsys)


def test_fail_alone_shows_what_is_broken_and_heal_all_mends_it_the_latest_first(
        bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    bed.fail("tor")
    bed.fail("loss", "s1n1", share=0.02)
    bed.fail("partition", "s1h", "s1n1")
    bed.done.clear()
    shown = typed(bed, "fail", capsys)
    assert "loss s1n1 0.02" in shown and "heal loss s1n1" in shown and "s1h and s1n1 can reach each other" in shown
    typed(bed, "heal all", capsys)
    assert [words for _, words in bed.done] == ["partition s1h s1n1", "loss s1n1", "tor"] and not bed.broken
    assert "nothing" in typed(bed, "fail", capsys)


def test_a_share_may_be_written_in_percent(bed: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert "loses 0.02 of all frames" in typed(bed, "fail loss s1n1 2%", capsys)
    assert next(iter(bed.broken)).share == 0.02


def test_a_node_or_a_switch_stands_for_all_its_interfaces_in_capture(bed: Bed) -> None:
    made = shell(bed)
    assert made._interfaces(["s1n1"]) == ["s1n1-net", "s1n1-pcie"]
    assert made._interfaces(["tor1-c1", "tor1"]) == ["tor1-c1", *(p for p in made._interfaces([]) if p != "tor1-c1")]
    with pytest.raises(ExperimentError, match="did you mean tor1-s1n"):
        made._interfaces(["tor1-s1n"])
