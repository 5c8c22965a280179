"""The house rules that a machine can keep."""

import ast
from pathlib import Path

import pytest

FLOORS = ("topologies", "microservices", "nodes", "controller", "experiments")
# Within experiments: what a package may import stands before it. "" are the experiments themselves.
ROOMS = ("captures", "clients", "runs", "emulation", "measurement", "views", "shell", "failures", "", "benchmarks",
         "reporting", "commands")
BELOW_ALL = {"experiments.errors"}
ABOVE_ALL = {"cli.py", "one_of_all.py", "reference.py"}
ROOT = Path(__file__).resolve().parent.parent
# Third-party names stay behind these doors (DOORS[name] lists the files that may import it).
DOORS = {
    "mininet": {"topologies/mininet_topo.py", "nodes/emulated_node.py", "experiments/shell/interactive.py",
                "experiments/benchmarks/boot.py"},
    "ryu": {"controller/openflow_library.py"},
    "os_ken": {"controller/openflow_library.py"},
    "pysyncobj": {"controller/raft_journal.py"},
    "scapy": {"experiments/captures/scapy_layer.py"},
    "matplotlib": {f"experiments/views/{name}.py" for name in (
        "plot", "application_plot", "chart_plot", "placement_plot", "timeline_plot")},
    "jinja2": {"experiments/reporting/report_page.py"},
    "weasyprint": {"experiments/reporting/report_page.py"},
}


def modules() -> list[Path]:
    return sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
            if node.module in FLOORS:  # from experiments import fig5
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_imports_a_floor_above_its_own(path: Path) -> None:
    own = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = set(FLOORS[own + 1:])
    assert not {name.split(".")[0] for name in imported(path)} & above


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_third_party_names_stay_behind_their_doors(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    roots = {name.split(".")[0] for name in imported(path)}
    assert not {name for name, doors in DOORS.items() if name in roots and relative not in doors}


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_opens_with_one_plain_sentence(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text and text.splitlines()[0].rstrip().endswith((".", "!", "?", ":"))


def test_no_file_has_more_than_400_lines() -> None:
    paths = [*modules(), *(ROOT / "tests").rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): path.read_text().count("\n") for path in paths}
    assert not {name: lines for name, lines in lengths.items() if lines > 400}


def test_no_two_test_files_share_a_name() -> None:
    names = [p.name for p in (ROOT / "tests").rglob("*.py")]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


def room_of(parts: tuple[str, ...]) -> str:
    """Return the package within experiments that a module, given by the parts of its name, belongs to."""
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_within_experiments_nothing_imports_what_stands_on_it(path: Path) -> None:
    if path.name in ABOVE_ALL:
        return
    above = set(ROOMS[ROOMS.index(room_of(path.relative_to(ROOT).parts)) + 1:])
    names = {name for name in imported(path) if name.startswith("experiments.")} - BELOW_ALL
    assert not {name for name in names if room_of(tuple(name.split("."))) in above}
