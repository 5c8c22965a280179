"""The report: complete with nothing, with little and with much; what is missing is said to be, with its command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_room import keep, keep_fig3, keep_fig8, keep_many_figures, keep_sensitivity
from test_charts import sample

from experiments.errors import ExperimentError
from experiments.reporting.chart_words import axes_of, in_words
from experiments.reporting.report import collected, make_report
from experiments.reporting.report_page import page_of, pdf_of
from experiments.runs.latest_runs import latest_finished, latest_unfinished
from experiments.runs.registry import EXPERIMENTS
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.figures import DRAWINGS, chart_of, redraw, stored
from experiments.views.table6_chart import Table6Data
from microservices.applications import APPLICATIONS

ROOT = Path(__file__).resolve().parent.parent


class Page(HTMLParser):
    """What a page refers to: pictures with their words, anchors, links; and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[dict[str, str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.outside: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "img":
            self.pictures.append(given)
        if tag in ("script", "link", "iframe"):
            self.outside.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(parent: Path) -> Page:
    return Page(page_of(collected(parent)))


def test_without_any_result_every_experiment_is_missing_with_the_command_that_makes_it(tmp_path: Path) -> None:
    found = page(tmp_path)
    for name in EXPERIMENTS:
        assert re.search(rf"(sudo )?\./e3 run {name} --quick", found.text), name
    assert not found.pictures and "no run has varied the assumptions yet" in found.text
    assert "sudo ./e3 run ecmp --quick" in found.text and "sudo ./e3 run fig11" not in found.text


def test_a_result_is_shown_with_its_picture_its_rows_and_where_it_was_made(tmp_path: Path) -> None:
    directory = keep_fig3(tmp_path)
    found = page(tmp_path)
    (picture,) = found.pictures
    assert picture["src"].startswith("data:image/png;base64,") and "unloaded round trip (us)" in picture["alt"]
    assert f"results/fig3/{directory.name}" in found.text and "Missing. sudo ./e3 run fig3" not in found.text
    assert "83.3 %" in found.text and "all 5 hold, one emulated second lasting 1,000" in found.text


def test_a_refused_measurement_is_said_with_its_reason(tmp_path: Path) -> None:
    keep_fig3(tmp_path, refused="lateness p99 at s1n1: 3 us, the limit is 1 us")
    found = page(tmp_path)
    assert "1 of 5 refused" in found.text and "lateness p99 at s1n1" in found.text and "does not hold" in found.text


def test_the_page_stands_alone_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    keep_fig3(tmp_path)
    keep_many_figures(tmp_path)
    found = page(tmp_path)
    assert not found.outside and len(found.pictures) == 5
    assert all(p["alt"] and p["src"].startswith("data:") for p in found.pictures)
    assert {link.removeprefix("#") for link in found.links} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))


def test_a_sensitivity_run_stands_in_its_own_part_and_is_no_result_of_its_experiment(tmp_path: Path) -> None:
    keep_sensitivity(tmp_path)
    report = collected(tmp_path)
    (one,) = report.sensitivity
    assert one.name == "table5" and [f.title for f in one.figures] == ["Table 5 over hol_factor"]
    assert "table5" in {section.name for section in report.missing}
    found = page(tmp_path)
    assert "1.1x to 1.3x" in found.text and "no run has varied" not in found.text and len(found.pictures) == 1


def test_the_latest_finished_run_counts_and_a_later_unfinished_one_is_named(tmp_path: Path) -> None:
    first = keep_fig3(tmp_path)
    second = keep_fig3(tmp_path)
    (second / "manifest.json").write_text((second / "manifest.json").read_text().replace('"holds": true', '"holds": 1'))
    latest = latest_finished("fig3", tmp_path)
    assert latest is not None and latest.directory == second != first
    unfinished = Run.begin("fig3", RunOptions(quick=True), tmp_path)
    (unfinished.directory / "points.jsonl").write_bytes(b"{}\n{}\nhalf")
    unfinished.release()
    found = latest_unfinished("fig3", tmp_path)
    assert (found is None) == (unfinished.directory.name < second.name)  # within a second names do not tell
    if found is not None:
        assert found.points == 2


def test_a_run_on_packets_counts_before_a_later_one_in_virtual_time(tmp_path: Path) -> None:
    on_packets, virtual = keep(tmp_path, "queue", {}), keep(tmp_path, "queue", {})
    (virtual / "run.json").write_text('{"options": {"quick": true, "simulate": true}, "sessions": []}')
    latest, for_report = (latest_finished("queue", tmp_path, packets_first=first) for first in (False, True))
    assert latest is not None and latest.directory == virtual and latest.is_virtual
    assert for_report is not None and for_report.directory == on_packets
    (section,) = [one for one in collected(tmp_path).sections if one.name == "queue"]
    assert section.run is not None and section.run.directory == on_packets


def test_a_manifest_that_cannot_be_read_is_no_result(tmp_path: Path) -> None:
    keep_fig3(tmp_path)
    for content in (b"", b"[]", b"\xff\xfe", b'{"\xff": 1}'):
        broken = tmp_path / "fig8" / "20200101-000000-0000"
        broken.mkdir(parents=True, exist_ok=True)
        (broken / "manifest.json").write_bytes(content)
        assert latest_finished("fig8", tmp_path) is None
    assert latest_finished("fig3", tmp_path) is not None


def test_a_result_of_another_version_is_shown_and_its_claims_are_not(tmp_path: Path) -> None:
    keep(tmp_path, "fig8", {}, points={"a": {"application": "nfv-fin"}})
    found = page(tmp_path)
    assert "its claims cannot be read" in found.text and "sudo ./e3 run fig8 --quick" in found.text


def test_a_picture_that_is_gone_is_named_and_redrawing_brings_it_back(tmp_path: Path) -> None:
    directory = keep_fig3(tmp_path)
    before = (directory / "figure.png").read_bytes()
    for suffix in ("png", "pdf"):
        (directory / f"figure.{suffix}").unlink()
    assert "its picture is gone" in page(tmp_path).text
    content = make_report(tmp_path / "report.html", False, True, lambda _: None, tmp_path)
    assert content["redrawn"] == 2 and (directory / "figure.png").read_bytes() == before
    assert len(page(tmp_path).pictures) == 1


def test_redrawing_one_run_that_cannot_be_leaves_the_others_to_be_drawn(tmp_path: Path) -> None:
    directory = keep_fig8(tmp_path, 1.6)
    manifest = directory / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"drawing": "fig8"', '"drawing": "fig88"'))
    keep_fig3(tmp_path)
    said: list[str] = []
    content = make_report(tmp_path / "r.html", False, True, said.append, tmp_path)
    assert content["redrawn"] == 2 and any("fig88" in line for line in said)


def test_text_from_results_is_text_on_the_page(tmp_path: Path) -> None:
    keep(tmp_path, "tcp", {}, rows=[("<script>alert(1)</script>", "a & b", "<b>")])
    text = page_of(collected(tmp_path))
    assert "<script>" not in text and "&lt;script&gt;" in text and "a &amp; b" in text


def test_on_paper_nothing_is_folded_away(tmp_path: Path) -> None:
    keep(tmp_path, "tcp", {}, rows=[(f"row {n}", "1", "") for n in range(40)])
    report = collected(tmp_path)
    assert "<details>" in page_of(report) and "<details>" not in page_of(report, on_paper=True)


@pytest.mark.parametrize("word", [*(name.upper() for name in APPLICATIONS), "Beefy", "Type1", "Type2", "Wimpy",
                                  "SuperBeefy", "p99", "HCM", "ECMP", "requests/J"])
def test_the_page_explains_every_word_that_its_plots_and_rows_use(word: str, tmp_path: Path) -> None:
    assert any(word in term for term, _ in collected(tmp_path).words)
    assert page_of(collected(tmp_path)).count("<dt>") == len(collected(tmp_path).words)


def test_the_report_on_paper_is_a_pdf_of_some_pages(tmp_path: Path) -> None:
    keep_fig3(tmp_path)
    try:
        made = pdf_of(page_of(collected(tmp_path), on_paper=True))
    except ExperimentError as error:
        pytest.skip(str(error))
    assert made.startswith(b"%PDF-") and len(made) > 50_000


def test_the_table_of_contents_of_claims_shows_every_claim_once_or_more(tmp_path: Path) -> None:
    keep_fig3(tmp_path)
    report = collected(tmp_path)
    text = page(tmp_path).text
    assert len({row.claim.key for row in report.claims}) == 48
    assert all(" ".join(row.claim.metric.split()) in text for row in report.claims)
    assert len(report.disagreements) >= 8 and all(claim.note in text for claim in report.disagreements)


@pytest.mark.parametrize("name", DRAWINGS)
def test_axes_of_every_kind_of_plot_are_named(name: str) -> None:
    said = axes_of(sample(name))
    assert re.fullmatch(r"Across: \S.*; up: \S.*\.|Up: \S.*; a group of bars for each of \d+ named below it\.", said)


def test_a_timeline_in_words_has_its_stretches() -> None:
    timeline = sample("timeline")
    assert in_words(timeline) == (
        "NFV-FIN while parts fail. Across: seconds since the load began; up: replies/s, and below it latency (ms), "
        "logarithmic. On average 225 replies/s; without hang s1n1 from 2.0 to 3.0 s: 0 replies/s.")


def test_a_chart_in_words_has_its_axes_with_units_and_its_values() -> None:
    data = Table6Data({"hcm": ((100, 0.01), (1000, 0.02))}, {"hcm": ((100, 4.85), (1000, 263.46))})
    chart = chart_of(stored("table6", data))
    assert axes_of(chart) == "Across: Type2 servers in racks of 40; up: time per microservice (ms), logarithmic."
    assert "hcm, paper: from 4.85 at 100 to 263 at 1K" in in_words(chart)


def test_the_command_makes_a_page_and_counts(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "experiments.cli", "report", "-o", str(tmp_path / "x" / "page.html"),
                           "--json"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["files"] == [str(tmp_path / "x" / "page.html")] and (tmp_path / "x" / "page.html").exists()
    assert said["runs"] + len(said["missing"]) == len(EXPERIMENTS)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExperimentError, match="cannot write"):
        make_report(tmp_path / "file" / "page.html", False, False, lambda _: None, tmp_path)


def test_redraw_of_a_run_without_figures_draws_nothing(tmp_path: Path) -> None:
    assert redraw(keep(tmp_path, "tcp", {})) == []
