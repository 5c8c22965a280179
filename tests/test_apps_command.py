"""`e3 apps`: Table 3's numbers beside the paper's, and graphs that can be read."""

import json
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Circle, Rectangle

from experiments.errors import ExperimentError
from experiments.views.application_plot import _figure, draw_application, stage_grid
from microservices.application import Application, Channel, Stage, Trigger
from microservices.applications import APPLICATIONS, application_named

ROOT = Path(__file__).resolve().parent.parent
# From the paper's Table 3 and section 4, written down here a second time.
NODES = {"nfv-fin": 72, "nfv-din": 60, "nfv-ifid": 84, "rta-ptc": 60, "rta-sf": 96, "rta-shm": 84, "iot-dh": 108,
         "iot-ts": 108}


def e3(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "experiments.cli", *arguments], cwd=ROOT, capture_output=True,
                          text=True, check=False, timeout=60)


def test_the_list_has_the_paper_s_nodes_microservices_and_fan_outs() -> None:
    listed = json.loads(e3("apps", "--json").stdout)
    applications = listed["applications"]
    assert {name: one["nodes"] for name, one in applications.items()} == NODES
    for one in applications.values():
        assert one["paper"] == {"nodes": one["nodes"], "microservices": one["microservices"]}
        assert one["as_in_table_3"] is True
    assert listed["fan_out"]["maximum"] == listed["paper_fan_out"]["maximum"] == 12
    assert round(listed["fan_out"]["average"]) == listed["paper_fan_out"]["average"] == 6


def test_one_application_has_all_its_instances_and_edges_and_they_add_up() -> None:
    shown = json.loads(e3("apps", "iot-ts", "--json").stdout)
    assert len(shown["instances"]) == shown["nodes"] == 108 and shown["backups"] == 54
    assert len(shown["edges"]) == sum(c["edges"] for c in shown["channels"]) == shown["fan_out"]["edges"] == 108
    by_number = {i["number"]: i for i in shown["instances"]}
    assert all(not by_number[n]["backup"] for edge in shown["edges"] for n in edge)
    assert {s["name"]: s["host_only"] for s in shown["stages"]}["sql"] is True
    side = {c["target"]: c["trigger"]["share"] for c in shown["channels"] if not c["answers"]}
    assert side == {"ema": 0.5, "spike": 0.5}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_words_and_nodes_of_a_graph_do_not_overlap(name) -> None:
    """On the canvas itself: no two labels, no two nodes, no label on a node; and nothing leaves the page."""
    figure = _figure(application_named(name))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.axes[0]
    words = [t for t in axes.texts if t.get_text() and not t.get_text().isdigit()]
    nodes = [p for p in axes.patches if isinstance(p, Circle | Rectangle) and p.get_zorder() == 5]
    assert len(nodes) == sum(not i.backup for i in application_named(name).instances)
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in words]
    boxes += [("node", p.get_window_extent(renderer)) for p in nodes]
    boxes.append(("legend", axes.get_legend().get_window_extent(renderer)))
    for (one, a), (other, b) in combinations(boxes, 2):
        assert not a.overlaps(b), (one, other)
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def test_a_graph_goes_from_left_to_right_and_side_branches_leave_the_middle() -> None:
    application = application_named("iot-ts")
    grid = stage_grid(application)
    assert all(grid[c.source][0] < grid[c.target][0] for c in application.channels)
    assert {name: lane for name, (_, lane) in grid.items()} == {
        "api": 0, "sql": 0, "recommend": 0, "ema": 1, "spike": -1}


def test_two_sources_stand_right_before_what_they_send_to_each_in_a_place_of_its_own() -> None:
    stages = tuple(Stage(s, "count") for s in "abcd")
    grid = stage_grid(Application("x", 9, stages, (Channel("a", "b"), Channel("b", "d"), Channel("c", "d"))))
    assert grid["c"][0] == grid["b"][0] == 1 and len(set(grid.values())) == 4


def test_a_stage_of_many_shards_is_abridged_and_still_drawn(tmp_path) -> None:
    application = Application("wide", 9, (Stage("many", "count", 200, 2), Stage("few", "ema", 3)),
                              (Channel("many", "few", answers=False, trigger=Trigger("t", 0.1)),))
    nodes = [p for p in _figure(application).axes[0].patches if p.get_zorder() == 5]
    assert len(nodes) == 15 + 3
    draw_application(application, tmp_path / "wide.png")
    assert (tmp_path / "wide.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("kind", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_same_application_gives_the_same_file(tmp_path, kind, start) -> None:
    paths = [tmp_path / f"{n}.{kind}" for n in (1, 2)]
    for path in paths:
        draw_application(application_named("nfv-fin"), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["x.gif", "none/x.png"])
def test_a_picture_that_cannot_be_written_is_refused(tmp_path, name) -> None:
    with pytest.raises(ExperimentError, match="cannot"):
        draw_application(application_named("nfv-fin"), tmp_path / name)


@pytest.mark.parametrize(("arguments", "words"), [
    (["apps", "nfv"], ["nfv", "nfv-fin"]), (["apps", "-o", "x.png"], ["x.png", "iot-ts"]),
    (["apps", "none.yaml"], ["none.yaml", "No such file"]), (["apps", "nfv-fin", "-o", "x.gif"], ["x.gif", ".svg"]),
    (["demo", "--app", "nonesuch"], ["nonesuch", "nfv-fin"]),
    (["demo", "--app", "none.yaml"], ["none.yaml", "No such file"]),
    (["demo", "--payloads", "none.txt"], ["none.txt", "No such file"])])
def test_bad_input_is_one_line_and_exit_status_2(arguments, words) -> None:
    done = e3(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
