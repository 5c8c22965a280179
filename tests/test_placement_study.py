"""`place`, its picture, the experiment and the benchmark: what they say is what is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from test_cli import e3
from test_docs import python_blocks

from controller.placement.constraints import ClusterState, Placed
from controller.placement.cost import SERVICE_FABRIC
from controller.placement.demand import demand_of
from controller.placement.placing import ALGORITHMS, Options, place
from experiments.benchmarks.placement import EQUAL_COLUMNS, _equal_time, _shown
from experiments.placement_study import _broken, deploy_all, fat_tree_of, workload
from experiments.table6 import SIZES, TABLE_6, judged
from experiments.views.placement_picture import picture_of_placement
from experiments.views.placement_views import content_of, figure_rows, node_rows, placed_on, ranges
from microservices.applications import application_named
from topologies.catalog import cluster_named
from topologies.distance import Level

CASES = (("nfv-fin", "type1x3"), ("iot-ts", "type2x4"), ("rta-sf", "type2x4/3"), ("kvs", "beefyx2+wimpyx2"))


@pytest.mark.parametrize(("name", "cluster"), CASES)
def test_every_instance_is_in_the_table_and_in_the_picture(name: str, cluster: str) -> None:
    application = application_named(name)
    placement, state = placed_on(application, cluster_named(cluster), "hcm", False, 0.0, 1, 10.0)
    content = content_of(placement, state, False)
    assert len(content["instances"]) == len(application.instances)
    assert {i["node"] for i in content["instances"]} == {row[0] for row in node_rows(content)}
    assert all(words for row in figure_rows(content) for words in row)
    json.dumps(content)
    picture = picture_of_placement(placement, state)
    nodes = [t for t in picture.tiles if t.kind in ("host", "smartnic")]
    drawn = {t.name.split()[0] for t in nodes}
    used = {i["node"] for i in content["instances"]}
    assert used <= drawn or any("in use" in note or "parts of it" in note for note in picture.notes)
    for tile in nodes:  # each inside its server, and none over another
        assert any(s.x <= tile.x and tile.x + tile.w <= s.x + s.w + 1e-9 and s.y <= tile.y
                   and tile.y + tile.h <= s.y + s.h for s in picture.tiles if s.kind == "server")
        assert not any(t is not tile and t.x < tile.x + tile.w and tile.x < t.x + t.w and t.y < tile.y + tile.h
                       and tile.y < t.y + t.h for t in nodes)
    assert sum(way.share for way in picture.ways) <= 1.0 + 1e-9
    assert {way.level for way in picture.ways} <= {level for level, _ in picture.legend}
    assert picture_of_placement(placement, state) == picture


def test_a_line_has_the_level_of_its_ends() -> None:
    placement, state = placed_on(application_named("nfv-fin", 3, 0), cluster_named("type1x3"), "annealing", False,
                                 1e6, 1, 10.0)
    picture = picture_of_placement(placement, state)
    at = {(t.x + t.w / 2, t.y + t.h / 2): t.name.split()[0] for t in picture.tiles if t.kind in ("host", "smartnic")}
    assert picture.ways
    for way in picture.ways:
        here, there = (state.nodes.node(at[p]).index for p in ((way.x1, way.y1), (way.x2, way.y2)))
        assert state.nodes.level(here, there) == way.level != Level.SAME_NODE


def test_shards_are_written_as_ranges() -> None:
    assert ranges([3, 1, 2, 7, 9, 10]) == "1-3, 7, 9, 10"


@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_place_draws_and_speaks_json(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"placed{suffix}"
    done = e3("place", "rta-ptc", "type1x3", "--algorithm", "annealing", "--communication", "--plot", str(path),
              "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["algorithm"] == "annealing" and said["communication_in_cost"] and said["file"] == str(path)
    assert said["predicted"]["requests_per_joule"] > 0 and path.stat().st_size > 5000


@pytest.mark.parametrize(("arguments", "words"), [
    (["nonesuch"], ["nonesuch", "nfv-fin"]),
    (["nfv-fin", "bogusx3"], ["bogus", "type1"]),
    (["nfv-fin", "type1x3", "--algorithm", "magic"], ["magic", "annealing"]),
    (["nfv-fin", "type1x3", "--communication"], ["hcm", "--communication"]),
    (["nfv-fin", "type1x3", "--rps", "-5"], ["-5", "0"]),
    (["nfv-fin", "type1x3", "--rps", "nan"], ["nan", "0"]),
    (["nfv-fin", "type1x3", "--rps", "9e9"], ["does not fit", "tightest constraint", "needs"]),
    (["nfv-fin", "type1x1"], ["does not fit", "fault domains"]),
    (["nfv-fin", "type1x3", "--shards", "0"], ["0 shards", "256"]),
    (["nfv-fin", "type1x3", "--backups", "9"], ["9 backups", "7"]),
    (["nfv-fin", "type1x3", "--time-limit", "0"], ["0 s", "3600"]),
    (["nfv-fin", "type1x3", "--plot", "/tmp/x.gif"], ["x.gif", ".svg"]),
    (["nfv-fin", "type1x3", "--plot", "/nonexistent/x.svg"], ["/nonexistent/x.svg"])])
def test_bad_input_to_place_is_one_line_and_exit_status_2(arguments: list[str], words: list[str]) -> None:
    done = e3("place", *arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


def test_the_study_places_as_many_as_asked_in_racks_of_forty() -> None:
    cluster = fat_tree_of(100)
    assert [len(rack.servers) for rack in cluster.racks] == [40, 40, 20]
    state = ClusterState(cluster)
    assert len(state.nodes) == 500
    demands = workload(state, 1000)
    assert 1000 <= sum(len(d.needs) for _, d in demands) < 1000 + 108
    assert len({key for key, _ in demands}) == len(demands)


@pytest.fixture(scope="module")
def deployed():
    found = []
    for servers in (SIZES[0], SIZES[-1]):
        for label, algorithm in (("hcm", "hcm"), ("annealing", "annealing"), ("ilp", "ilp"),
                                 ("annealing, communication first", "annealing")):
            state = ClusterState(fat_tree_of(servers))
            found.append(deploy_all(algorithm, state, workload(state, 500)[:4], Options(time_limit_s=5.0), label,
                                    SERVICE_FABRIC))
    return found


def test_a_backup_beside_its_primary_and_a_node_that_is_too_full_are_found_whatever_the_state_says() -> None:
    state = ClusterState(cluster_named("type1x3"))
    demand = demand_of(application_named("nfv-fin", 3, 1), 1000.0, state.nodes)
    where = dict(place(demand, state, "hcm", key="a").where)
    assert _broken(state) == 0
    backups = [need for need in demand.needs if need.primary >= 0]
    state.placed["a"] = Placed(demand, {**where, **{need.number: where[need.primary] for need in backups}})
    assert _broken(state) == len(backups) > 0
    much = demand_of(application_named("nfv-fin", 3, 0), 1e8, state.nodes)
    state.placed["b"] = Placed(much, {need.number: where[need.number] for need in much.needs})
    assert _broken(state) > len(backups)


def test_table_6_stands_beside_the_papers_and_holds_if_nothing_is_violated(deployed) -> None:
    content = judged(deployed)
    text = "\n".join(" | ".join(row) for row in content["rows"])
    assert content["holds"] and "paper 263.46" in text and "paper >> 1000" in text and "paper 54.3x" in text
    assert not judged([replace(deployed[0], violations=1), *deployed[1:]])["holds"]
    assert all(one.prediction.requests_per_joule > 0 for one in deployed)
    assert set(TABLE_6) == set(ALGORITHMS) and all(len(row) == len(SIZES) for row in TABLE_6.values())


def test_equal_time_has_every_algorithm_at_every_budget_and_says_where_there_is_no_answer() -> None:
    rows = list(_equal_time(300, (0.01, 1.0, 10.0), lambda _: None))
    assert len(rows) == 12 and {r.given_ms for r in rows} == {0.01, 1.0, 10.0}
    assert all(len(_shown(r)) == len(EQUAL_COLUMNS) - 2 for r in rows)
    assert all(r.taken_ms is None or r.taken_ms <= 1.5 * r.given_ms + 0.02 for r in rows)


def page() -> str:
    return (Path(__file__).resolve().parent.parent / "docs" / "placement.md").read_text(encoding="utf-8")


def test_the_snippet_of_the_page_on_placement_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = python_blocks(Path(__file__).resolve().parent.parent / "docs" / "placement.md")
    exec(compile(code, "placement.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown in page() and len(shown.splitlines()) >= 5


def test_the_page_shows_what_place_says() -> None:
    words = {word for line in e3("place", "nfv-fin", "type1x3").stdout.splitlines() for word in line.split()}
    assert not {word for word in words if word[0].isalnum()} - set(page().split())
    assert e3("place", "nfv-fin", "type1x3", "--rps", "9e9").stderr in page()
