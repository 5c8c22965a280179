"""A scenario's file is checked before anything runs, and its timeline says what clients saw."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_cli import e3

from experiments.clients.client import ClientResult
from experiments.clients.latencies import summary_of
from experiments.emulation.failures import Failure
from experiments.errors import ExperimentError
from experiments.scenario import SHIPPED, hurried, judge
from experiments.scenario_file import Scenario, ScenarioLoad, Step, plan_of, read_scenario
from experiments.views.scenario_timeline import (
    Moment,
    Stretch,
    Timeline,
    binned,
    longest_quiet,
    stretches_of,
    with_quiet,
)
from microservices.applications import application_named
from topologies.catalog import cluster_named
from topologies.inventory import inventory_of

RACK = inventory_of(cluster_named("type1x3"))
NFV = application_named("nfv-fin", 3, 0)
LEAST = "title: t\nseconds: 10\nsteps:\n"


def read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return read_scenario(path)


def test_the_shipped_scenario_can_be_run_as_it_is_and_in_half_the_time() -> None:
    scenario = read_scenario(SHIPPED)
    plan = plan_of(scenario, inventory_of(cluster_named(scenario.cluster)), NFV)
    kinds = {step.what.kind for step in plan if isinstance(step.what, Failure)}
    assert kinds >= {"smartnic", "hang", "loss", "tor", "server"}
    assert sum(step.verb == "fail" for step in plan) == sum(step.verb == "heal" for step in plan)
    half = plan_of(hurried(scenario), RACK, NFV)
    assert [step.at_s * 2 for step in half] == [step.at_s for step in plan]


@pytest.mark.parametrize("path", sorted(SHIPPED.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_scenario_can_be_run_on_its_rack(path: Path) -> None:
    scenario = read_scenario(path)
    inventory = inventory_of(cluster_named(scenario.cluster, clients=scenario.load.clients))
    application = application_named(scenario.application, scenario.shards, int(scenario.replicate))
    assert len(plan_of(scenario, inventory, application)) == len(scenario.steps)


def test_the_scenario_in_the_documentation_can_be_run_as_it_stands_there(tmp_path: Path) -> None:
    page = (SHIPPED.parents[2] / "docs" / "failover.md").read_text()
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "documented.yaml").write_text(text)
    scenario = read_scenario(tmp_path / "documented.yaml")
    plan = plan_of(scenario, inventory_of(cluster_named(scenario.cluster, clients=1)), NFV)
    assert [step.words for step in plan][-1] == "heal loss s1n1" and len(plan) == 5


def test_steps_are_done_in_order_of_time_and_heal_all_mends_the_latest_first() -> None:
    scenario = Scenario("t", 10.0, (Step(9.0, heal="all"), Step(1.0, fail="loss s1n1 2%"), Step(5.0, fail="tor")))
    assert [(s.at_s, s.words) for s in plan_of(scenario, RACK, NFV)] == [
        (1.0, "fail loss s1n1 0.02"), (5.0, "fail tor"), (9.0, "heal tor"), (9.0, "heal loss s1n1")]


@pytest.mark.parametrize(("text", "words"), [
    ("", r"s\.yaml: .*null"),
    ("title: [", r"s\.yaml: while parsing"), ("title: " + "[" * 5000, r"s\.yaml: maximum recursion"),
    ("title: t\nseconds: 2026-13-45", r"s\.yaml: month"), ("seconds: " + "9" * 5000, r"s\.yaml: .*digits"),
    ("title: t\nseconds: 10", "steps"),
    (LEAST + "- {at_s: soon, fail: tor}", r"Expected `float`, got `str` - at `\$.steps\[0\].at_s`"),
    (LEAST + "- {at: 3, fail: tor}", r"unknown field `at` - at `\$.steps\[0\]`"),
    ("title: t\nseconds: -1\nsteps: []", "seconds is -1; the limits are 0.01 and 3600"),
    ("title: t\nseconds: .nan\nsteps: []", "seconds is nan"),
    ("title: t\nseconds: 10\nbin_s: 20\nsteps: []", "bin_s is 20; the limits are 0.01 and 10"),
    ("title: t\nseconds: 10\nload: {clients: 99}\nsteps: []", "load.clients is 99; the limits are 1 and 16"),
    ("title: t\nseconds: 10\nwhere: moon\nsteps: []", "where is 'moon'; there are smartnic, host, mixed"),
    ("title: t\nseconds: 10\ntime_scale: 20\nsteps: []", "time_scale is 20: only at calibrated speed"),
    ("title: t\nseconds: 10\nreplicate: true\norchestrator: \"off\"\nsteps: []", "the resource controller's to place"),
    ("title: t\nseconds: 10\nload: {workload: store-checker}\nsteps: []", "store-checker knows the replies of")])
def test_a_file_that_is_no_scenario_is_refused_with_its_name_and_what_is_wrong(
        tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ExperimentError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("steps", "words"), [
    ([Step(1.0)], "step 1: nothing is to be done: say one of fail, heal, migrate"),
    ([Step(1.0, "tor", "tor")], "step 1: fail and heal are to be done: say one of fail, heal, migrate"),
    ([Step(1.0, migrate="monitor-1 s1n1")], "there is nobody to move an instance: orchestrator is off"),
    ([Step(11.0, "tor")], "at_s is 11; the limits are 0 and 10"),
    ([Step(1.0, "smartnic s9n1")], "step 1: no SmartNIC 's9n1'"),
    ([Step(1.0, "loss s1n1")], "a share of 0"),
    ([Step(1.0, "tor"), Step(2.0, "tor")], "step 2: tor has failed already at 2 s"),
    ([Step(3.0, "link s1n1"), Step(2.0, heal="link s1n1")], "step 2: link s1n1 has not failed at 2 s; what has: noth"),
    ([Step(1.0, "controller")], "there is no resource controller")])
def test_a_step_that_cannot_be_done_is_refused_by_its_number(steps: list[Step], words: str) -> None:
    with pytest.raises(ExperimentError, match=words):
        plan_of(Scenario("t", 10.0, tuple(steps), orchestrator="off"), RACK, NFV)


def test_a_missing_file_is_one_line_and_exit_status_2() -> None:
    done = e3("run", "scenario", "--file", "/nowhere.yaml")
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == "e3: /nowhere.yaml: No such file or directory"
    refused = e3("run", "ecmp", "--file", "x.yaml")
    assert refused.returncode == 2 and "ecmp cannot honour --file" in refused.stderr


def test_bins_count_each_reply_once_and_have_no_latency_where_there_is_none() -> None:
    at = np.array([0.1, 1.9, 0.2, 0.5, 2.0])
    bins = binned(at, np.array([1.0, 5.0, 3.0, 2.0, 9.0]) / 1e3, 2.0, 0.5)
    assert [b.replies for b in bins] == [2, 1, 0, 1]
    assert [b.rps for b in bins] == [4.0, 2.0, 0.0, 2.0]
    assert bins[0].p50_ms == pytest.approx(2.0) and bins[2].p50_ms is None


def test_links_between_switches_fail_by_their_switches_and_are_healed_by_either_name(tmp_path: Path) -> None:
    racks = inventory_of(cluster_named("type1x1/4"))
    scenario = read(tmp_path, LEAST + "  - {at_s: 1, fail: link agg1 tor1}\n  - {at_s: 2, fail: loss core1 agg3 5%}\n"
                                      "  - {at_s: 3, heal: link tor1-agg1}\n  - {at_s: 4, heal: all}\n")
    assert [step.words for step in plan_of(scenario, racks, NFV)] == [
        "fail link tor1-agg1", "fail loss agg3-core1 0.05", "heal link tor1-agg1", "heal loss agg3-core1"]
    with pytest.raises(ExperimentError, match="step 1: no link between tor1 and tor2"):
        plan_of(read(tmp_path, LEAST + "  - {at_s: 1, fail: link tor1 tor2}\n"), racks, NFV)


def test_quiet_counts_from_the_step_over_the_next_one_and_to_the_end() -> None:
    at = np.array([1.0, 2.0, 2.5, 8.0])
    assert longest_quiet(at, 0.0, 2.0) == 1.0
    assert longest_quiet(at, 1.5, 3.0) == 5.5
    assert longest_quiet(at, 8.5, 10.0) == 1.5
    assert longest_quiet(np.array([]), 0.0, 10.0) == 10.0
    moments = [Moment(1.0, 1.0, 1.1, "fail", "fail tor", "tor"), Moment(3.0, 3.0, 3.1, "heal", "heal tor", "tor")]
    assert [m.quiet_s for m in with_quiet(moments, at, 10.0)] == [5.5, 5.0]


@pytest.mark.parametrize(("words", "refused"), [
    ("nids-9 s1n1", "no instance 'nids-9'"), ("nids-1", "say an instance and the node"),
    ("nids-1 tor1", "no host or SmartNIC 'tor1'"),
    ("nids-1 s1n1", "has a backup, and what is replicated does not move")])
def test_an_instance_that_cannot_move_is_refused_by_the_number_of_its_step(words: str, refused: str) -> None:
    scenario = Scenario("t", 10.0, (Step(1.0, migrate=words),), replicate=True)
    with pytest.raises(ExperimentError, match=f"step 1: .*{refused}"):
        plan_of(scenario, RACK, application_named("nfv-fin", 3, 1))


def test_an_instance_is_named_with_or_without_its_application_and_goes_to_a_host_or_a_smartnic() -> None:
    steps = (Step(1.0, migrate="nids-1 s2h"), Step(2.0, migrate="nfv-fin/nids-1 s3n1"))
    assert [step.words for step in plan_of(Scenario("t", 10.0, steps), RACK, NFV)] == [
        "migrate nfv-fin/nids-1 s2h", "migrate nfv-fin/nids-1 s3n1"]


def test_a_move_is_a_stretch_from_its_beginning_to_its_end() -> None:
    moments = [Moment(1.0, 1.0, 1.3, "migrate", "migrate a/b-1 s2h, moved", "a/b-1"),
               Moment(2.0, 2.0, 2.1, "fail", "fail tor", "tor")]
    assert [stretch.said for stretch in stretches_of(moments, 9.0)] == [
        "migrate a/b-1 s2h, moved, 1.0 to 1.3 s", "tor, 2.0 to 9.0 s"]
    assert Stretch(1, 1.0, 1.05, "migrate a/b-1 s2h, moved", broken=False).said == "migrate a/b-1 s2h, moved, at 1.0 s"
    assert stretches_of(moments, 9.0) == [
        Stretch(1, 1.0, 1.3, "migrate a/b-1 s2h, moved", broken=False), Stretch(2, 2.0, 9.0, "tor")]


def test_what_is_broken_till_the_end_and_what_fails_twice_are_stretches_of_their_own() -> None:
    moments = [Moment(t, t, t, verb, f"{verb} {part}", part) for t, verb, part in (
        (1.0, "fail", "tor"), (2.0, "fail", "link s1n1"), (3.0, "heal", "tor"), (4.0, "fail", "tor"))]
    assert [(s.number, s.begin_s, s.end_s, s.words) for s in stretches_of(moments, 9.0)] == [
        (1, 1.0, 3.0, "tor"), (2, 2.0, 9.0, "link s1n1"), (3, 4.0, 9.0, "tor")]


def result(**differing: int) -> ClientResult:
    made = ClientResult(100, 100, 0, 0, 0, 0, 0, 0, 1.0, 0.1, summary_of([0.001]), [])
    return msgspec.structs.replace(made, **differing)


@pytest.mark.parametrize(("differing", "most_lost", "last", "holds"), [
    ({}, None, 5, True), ({"answered": 90, "lost": 10}, None, 5, True), ({"answered": 90, "lost": 10}, 9, 5, False),
    ({"answered": 99, "wrong": 1}, None, 5, False), ({"duplicated": 1}, None, 5, False), ({}, None, 0, False)])
def test_wrong_replies_and_no_service_at_the_end_are_failures_and_losses_as_the_file_says(
        differing: dict[str, int], most_lost: int | None, last: int, holds: bool) -> None:
    scenario = Scenario("t", 4.0, (), load=ScenarioLoad(), most_lost=most_lost, bin_s=0.5)
    at = np.array([0.1, *([3.5] * last)])
    timeline = Timeline("t", 4.0, 0.5, binned(at, at, 4.0, 0.5), ())
    assert all(ok for *_, ok in judge(scenario, timeline, [result(**differing)])) is holds


def test_a_reply_that_comes_twice_is_excused_by_lost_memory_alone_and_not_where_everything_has_a_backup() -> None:
    scenario = Scenario("t", 4.0, (), bin_s=0.5)
    at = np.array([3.5])
    for part, holds in (("smartnic s1n1", True), ("server s1h", True), ("link s1n1", False), ("hang s1n1", False)):
        timeline = Timeline("t", 4.0, 0.5, binned(at, at, 4.0, 0.5), (Moment(1.0, 1.0, 1.0, "fail", part, part),))
        assert all(ok for *_, ok in judge(scenario, timeline, [result(duplicated=1)])) is holds
        assert not all(ok for *_, ok in judge(scenario, timeline, [result(duplicated=1)], forgetful=False))


def test_a_timeline_without_latencies_is_one_panel() -> None:
    plot = pytest.importorskip("experiments.views.timeline_plot", reason="matplotlib is not installed")
    column_style = importlib.import_module("experiments.views.chart_plot").column_style
    at = np.linspace(0, 9.9, 500)
    bins = tuple(msgspec.structs.replace(b, p50_ms=None, p99_ms=None) for b in binned(at, at, 10.0, 0.5))
    with column_style():
        assert len(plot.figure_of(Timeline("title", 10.0, 0.5, bins, ())).axes) == 1


def test_a_timeline_is_drawn_with_every_stretch_named_below_it(tmp_path: Path) -> None:
    plot = pytest.importorskip("experiments.views.timeline_plot", reason="matplotlib is not installed")
    column_style = importlib.import_module("experiments.views.chart_plot").column_style
    at = np.linspace(0, 9.9, 500)
    moments = (Moment(2.0, 2.0, 2.1, "fail", "fail tor", "tor"), Moment(5.0, 5.0, 5.1, "heal", "heal tor", "tor"))
    timeline = Timeline("title", 10.0, 0.5, binned(at, at / 1e3, 10.0, 0.5), moments)
    with column_style():
        figure = plot.figure_of(timeline)
    said = [text.get_text() for text in figure.texts]
    assert any("1: tor, 2.0 to 5.0 s" in text for text in said) and any("title" in text for text in said)
    assert [axes.get_ylabel() for axes in figure.axes] == ["replies/s", "latency (ms)"]
    plot.save_timeline(timeline, tmp_path / "t.png")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExperimentError, match=r"t\.gif"):
        plot.save_timeline(timeline, tmp_path / "t.gif")


def test_a_failure_is_named_in_the_plan_by_the_words_that_a_person_types() -> None:
    (step,) = plan_of(Scenario("t", 10.0, (Step(1.0, fail="partition s1h c1"),)), RACK, NFV)
    assert step.what == Failure("partition", ("s1h", "c1")) and step.words == "fail partition s1h c1"
