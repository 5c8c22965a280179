"""`./e3 profiles` and `./e3 assumptions`, and `--nodes`, as a user meets them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import app
from experiments.errors import ExperimentError
from experiments.views.profile_views import COST_COLUMNS, SMARTNIC_COLUMNS, cost_rows, profiles_of, smartnic_rows
from microservices.assumptions import ASSUMPTIONS, DEFAULTS
from microservices.errors import ServiceError
from microservices.measured import Column
from microservices.profiles import TABLE_1, cost_s, is_network_bound
from topologies import catalog
from topologies.errors import TopologyError

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_every_microservice_s_peak_power_is_table_1_s() -> None:
    content = profiles_of()
    assert [one["microservice"] for one in content] == list(TABLE_1)
    for one in content:
        for column, measured in TABLE_1[one["microservice"]].items():
            shown = one["columns"][column.value]
            assert shown["active_watts"] == pytest.approx(measured.active_watts)
            assert shown["cores"] / shown["cost_s"] * shown["peak_utilisation"] == pytest.approx(measured.rps)


def test_the_accelerators_are_those_that_section_4_names() -> None:
    shown = {one["microservice"]: one["accelerators"] for one in profiles_of()}
    using = {what: {name for name, uses in shown.items() if any(what in use for use in uses)}
             for what in ("crypto", "automata", "fetch-and-add", "floating")}
    assert using == {"crypto": {"ipsec", "api_gateway"}, "automata": {"recommend", "nids"},
                     "fetch-and-add": {"count", "ema", "kvs", "flow_monitor"},
                     "floating": {"ema", "knn", "spike", "bayes"}}


def test_the_tables_have_a_cell_for_each_column() -> None:
    content = profiles_of(["kvs", "sql"], 64)
    assert {len(row) for row in cost_rows(content)} == {len(COST_COLUMNS)}
    assert {len(row) for row in smartnic_rows(content)} == {len(SMARTNIC_COLUMNS)}


def test_the_command_shows_a_microservice_of_one_s_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from microservices.kvs import Kvs\nfrom microservices.measured import Cost, Profile\n\n"
                    "class Mine(Kvs):\n    name = 'mine'\n    profile = Profile(like='kvs', linux=Cost(5e-6))\n")
    app(["profiles", f"{file}:Mine", "--json"], standalone_mode=False)
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["columns"]["linux"]["cost_s"] == pytest.approx(5e-6)
    assert shown["columns"]["linux"]["table_1_rps"] is None
    app(["profiles"], standalone_mode=False)
    assert "top_ranker" in capsys.readouterr().out


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(ServiceError, match="nonesuch"):
        profiles_of(["nonesuch"])
    with pytest.raises(ExperimentError, match="8001"):
        profiles_of([], 8001)


def test_the_assumptions_are_shown_with_range_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    app(["assumptions", "--json"], standalone_mode=False)
    shown = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in shown] == [one.name for one in ASSUMPTIONS]
    app(["assumptions"], standalone_mode=False)
    assert "hol_factor" in capsys.readouterr().out


def test_the_page_on_speed_and_power_names_every_assumption_with_its_default() -> None:
    text = (DOCS / "speed-and-power.md").read_text()
    for one in ASSUMPTIONS:
        assert f"| `{one.name}` | {one.default:g} | {one.low:g} to {one.high:g} |" in text


def test_the_page_s_own_microservice_costs_what_the_page_says() -> None:
    text = (DOCS / "speed-and-power.md").read_text()
    names: dict[str, Any] = {}
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(code, "speed-and-power.md", "exec"), names)
    assert cost_s(names["Best"], Column.SMARTNIC, 512) == pytest.approx(8e-6)
    assert cost_s(names["Best"], Column.LINUX, 512) == cost_s("kvs", Column.LINUX, 512)


def test_the_figures_on_the_page_are_those_of_the_model() -> None:
    text = " ".join((DOCS / "speed-and-power.md").read_text().split())
    sql, kvs = (profiles_of([name])[0]["columns"] for name in ("sql", "kvs"))
    assert "25.9 us" in text and sql["linux"]["cost_s"] == pytest.approx(25.9e-6, rel=1e-3)
    assert f"KVS draws {kvs['bypass']['busy_core_watts']:.1f} W per core on {kvs['bypass']['cores']} cores" in text
    assert f"SQL {sql['bypass']['busy_core_watts']:.1f} W on 12" in text
    bound = [[name for name in TABLE_1 if is_network_bound(name, column)] for column in Column]
    assert [len(each) for each in bound] == [5, 5, 8] and "Eight of the SmartNIC's rows are, and five" in text
    assert f"*{DEFAULTS.network_bound_headroom:g} x cores / RPS*" in text


def test_draw_takes_servers_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(catalog, "SYSTEMS", dict(catalog.SYSTEMS))
    app(["draw", "myboxx2", "--nodes", str(DOCS / "nodes.toml"), "-o", str(tmp_path / "a.svg")], standalone_mode=False)
    assert "2 servers, 4 SmartNICs" in capsys.readouterr().out
    with pytest.raises(TopologyError, match=r"nowhere\.toml"):
        app(["draw", "myboxx2", "--nodes", "nowhere.toml"], standalone_mode=False)
