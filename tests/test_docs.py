"""The documentation: its links lead somewhere, its commands exist, its Python runs, and its reference is current."""

from __future__ import annotations

import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pcap_room import Room
from test_floors import DOORS

from experiments.reference import commands, reference
from experiments.runs.registry import EXPERIMENTS
from topologies import catalog
from topologies.catalog import PAPER_CLUSTERS, SYSTEMS, cluster_named
from topologies.node_file import read_nodes

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
EXPECTED = {ROOT / "docs" / "benchmarks.md"}  # announced; need not be there yet
LAUNCHER_COMMANDS = {"setup"}
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
E3_COMMAND = re.compile(r"(?:sudo )?\./e3 ((?:[^`|\n#)]|\\\|)+)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as hosting sites make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(FENCE, "", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.replace("`", "").lower()).replace(" ", "-") for h in headings}


def python_blocks(page: Path) -> list[str]:
    return [body for language, body in FENCE.findall(text_of(page)) if language == "python"]


def e3_commands(page: Path) -> list[str]:
    """Return what follows `./e3` wherever it is written as code: in a span or in a block."""
    text = text_of(page)
    code = [body for _, body in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", re.sub(FENCE, "", text))
    return [found.strip() for piece in code for found in E3_COMMAND.findall(piece)]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_inside_the_documentation_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(re.sub(FENCE, "", text_of(page))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file in EXPECTED and not file.exists():
            continue
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}; anchors: {anchors(file)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_command_that_is_mentioned_exists_with_its_options(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = commands()
    for line in e3_commands(page):
        words = shlex.split(line.rstrip(";,.").replace("[OPTIONS]", ""))
        name = " ".join(words[:2]) if words[0] == "bench" else words[0]
        if name in LAUNCHER_COMMANDS or name.startswith("-") or name in ("COMMAND...", "COMMAND"):
            continue
        assert name in known, f"{page.name}: ./e3 {line}"
        options = {o for p in known[name].params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        if name != "test":  # whose further words are pytest's
            assert {w for w in words if re.match(r"-\w|--\w", w)} <= options, f"{page.name}: ./e3 {line}"
        if name in ("demo", "cli", "draw") and len(words) > 1 and re.match(r"[a-z]+\d?[x:]", words[1]):
            own = read_nodes(ROOT / words[words.index("--nodes") + 1]) if "--nodes" in words else {}
            monkeypatch.setattr(catalog, "SYSTEMS", {**SYSTEMS, **own})
            cluster_named(words[1])
        if name == "run":
            valued = {o for p in known[name].params for o in p.opts if not getattr(p, "is_flag", True)}
            named = {w for before, w in itertools.pairwise(words) if before not in valued}
            assert {w for w in named if not w.startswith(("-", "NAME"))} <= {*EXPERIMENTS, "all"}, line


def test_mentions_are_found_so_that_the_test_above_can_fail() -> None:
    found = [command for page in PAGES for command in e3_commands(page)]
    assert "run ecmp" in found and "demo --keep-captures" in found and len(found) > 30


def test_the_reference_is_what_the_command_line_says() -> None:
    written = text_of(ROOT / "docs" / "reference.md")
    assert written == reference(), "run: python -m experiments.reference > docs/reference.md"


def test_the_reference_has_every_command_and_option_but_the_interactive_one() -> None:
    written = reference()
    for name, command in commands().items():
        assert (f"## {name}\n" in written) is (name != "cli")
        for parameter in command.params if name != "cli" else ():
            assert parameter.param_type_name == "argument" or parameter.opts[0] in written


def test_every_experiment_and_every_system_of_the_paper_is_described() -> None:
    experiments, topologies = (text_of(ROOT / "docs" / name) for name in ("experiments.md", "topologies.md"))
    assert all(f"`{name}`" in experiments for name in EXPERIMENTS)
    for model, server in SYSTEMS.items():
        row = next(line for line in topologies.splitlines() if line.startswith(f"| `{model}` |"))
        assert f"{server.host.cores} cores, {server.host.clock_ghz:g} GHz" in row
        rates = [nic.port_gbps for nic in (*server.smartnics, *server.plain_nics)]
        assert f"{rates[0]:g} Gb/s" in row and len(set(rates)) == 1
    assert "type1x3" in PAPER_CLUSTERS


def test_the_page_on_architecture_names_every_door() -> None:
    text = text_of(ROOT / "docs" / "architecture.md")
    assert not {door for doors in DOORS.values() for door in doors if f"`{door}`" not in text}


def test_the_snippets_that_read_captures_run_and_say_what_the_captures_hold(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("scapy")
    room = Room("type1x3")
    for number in range(1, 9):
        room.request(number, "c1", "s1n1", "s2n1", "s3h")
    (tmp_path / "captures").mkdir()
    room.write(tmp_path / "captures")
    monkeypatch.chdir(tmp_path)
    scapy_code, dpkt_code, proof_code = python_blocks(ROOT / "docs" / "captures.md")
    exec(compile(scapy_code, "captures.md: scapy", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and said[0] == "request 0x1 answered by 10.1.3.1 after 3 microservices, 7 bytes"
    exec(compile(dpkt_code, "captures.md: dpkt", "exec"), {})
    assert "'10.1.254.1': 8, '10.1.3.1': 8" in capsys.readouterr().out
    exec(compile(proof_code, "captures.md: proof", "exec"), {})
    first, path, flows = capsys.readouterr().out.splitlines()
    assert first.startswith("True 64 {'packets in and out': 32, 'lost': 0") and path == "8 c1 > s1n1 > s2n1 > s3h > c1"
    assert flows == "{'10.1.2.11:58112 > 10.1.3.1:58112 UDP': 'tor1-s3n1'}"


def test_the_topology_of_ones_own_prints_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "topologies.md"
    code, needs_root = python_blocks(page)
    exec(compile(code, "topologies.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown in text_of(page) and len(shown.splitlines()) == 8
    assert needs_root.startswith("# needs root")
    compile(needs_root, "topologies.md: as root", "exec")


def test_the_time_scales_that_the_page_prints_are_those_that_its_code_finds(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "emulated-time.md"
    code, needs_root = python_blocks(page)
    exec(compile(code, "emulated-time.md", "exec"), {})
    assert f"prints\n\n```\n{capsys.readouterr().out}```\n" in text_of(page)
    assert needs_root.startswith("# needs root")
    compile(needs_root, "emulated-time.md: as root", "exec")


def test_what_draw_is_said_to_print_is_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    from experiments.cli import app
    monkeypatch.chdir(tmp_path)
    app(["draw", "type2x40"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "$ ./e3 draw type2x40\n" + shown in text_of(ROOT / "docs" / "topologies.md")
    app(["draw", "type2:2x4/2", "--json"], standalone_mode=False)
    said = json.loads(capsys.readouterr().out)
    assert said["file"] == "type2-2x4-2.svg" and (tmp_path / "type2-2x4-2.svg").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_files_and_modules_that_are_named_are_there(page: Path) -> None:
    for name in re.findall(r"`((?:topologies|microservices|nodes|controller|experiments|tests|docs)/[\w/.]*)`",
                           text_of(page)):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_every_block_of_code_is_of_a_kind_that_a_test_looks_at() -> None:
    """Python is run, console sessions and configuration are read; what stands in another language is tested nowhere."""
    tests = "".join(text_of(path) for path in (ROOT / "tests").rglob("*.py"))
    for page in PAGES:
        languages = {language for language, _ in FENCE.findall(text_of(page))}
        assert languages <= {"", "python", "console", "text", "toml", "yaml", "mermaid"}, page.name
        if languages & {"python", "console", "yaml"}:
            assert page.name in tests, f"no test reads {page.name}"


def test_every_row_of_doctor_is_explained() -> None:
    from experiments.commands.doctor import doctor

    table = re.findall(r"^\| ([^|]+) \|", text_of(ROOT / "docs" / "troubleshooting.md"), re.MULTILINE)
    explained = {name.strip() for cell in table for name in cell.replace("qdisc ", "").split(",")}
    found = {row.what.replace("qdisc ", "") for row in doctor()}
    assert len(found) > 15 and not found - explained
