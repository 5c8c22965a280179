"""What the command line's commands share: the options that several take, and how they print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

TABLE_COLUMNS = 120  # narrower, and the proof's sentences break into single words

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def experiment_names(incomplete: str) -> list[tuple[str, str]]:
    """Return what the Tab key offers for an experiment's name, each with its sentence."""
    from experiments.runs.registry import ALL, EXPERIMENTS

    offered = {ALL: "every experiment, whatever becomes of the others",
               **{name: one.sentence for name, one in EXPERIMENTS.items()}}
    return [(name, said) for name, said in offered.items() if name.startswith(incomplete)]


def cluster_names(incomplete: str) -> list[tuple[str, str]]:
    """Return what the Tab key offers for a cluster: those of the paper."""
    from topologies.catalog import PAPER_CLUSTERS

    return [(name, said) for name, said in PAPER_CLUSTERS.items() if name.startswith(incomplete)]


def application_names(incomplete: str) -> list[str]:
    """Return what the Tab key offers for an application: Table 3's."""
    from microservices.applications import APPLICATIONS

    return [name for name in APPLICATIONS if name.startswith(incomplete)]


ClusterArgument = Annotated[str, typer.Argument(help="MODEL[:SMARTNICS]xCOUNT[+...][/RACKS], for example type1x3.",
                                                autocompletion=cluster_names)]


def _use_nodes(path: Path | None) -> Path | None:
    if path is not None:
        from topologies.node_file import use_nodes

        use_nodes(path)
    return path


Nodes = Annotated[Path | None, typer.Option("--nodes", callback=_use_nodes, help="A TOML file with servers of your "
                                            "own, to be used in CLUSTER by their names.")]
Datapath = Annotated[str, typer.Option(help="Open vSwitch's datapath: netdev (in user space) or kernel.")]
Speed = Annotated[str, typer.Option(help="Node speed: calibrated (Table 1, in scaled time), quota (cgroup limits by "
                                         "cores and clock) or unpaced.")]
TimeScale = Annotated[float | None, typer.Option(help="Real seconds that an emulated second lasts, if calibrated.")]


def emit(content: Any, as_json: bool, show: Callable[[], None]) -> None:
    """Print `content` as JSON, or let `show` print it for people."""
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(content), indent=1).decode() + "\n")
    else:
        show()


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    made = Table(*columns, title=title, title_justify="left")
    for row in rows:
        made.add_row(*(str(cell) for cell in row))
    console = Console()
    Console(width=max(console.width, TABLE_COLUMNS)).print(made)


def say(line: str) -> None:
    """Print a progress line where it does not mix with results."""
    sys.stderr.write(f"e3: {line}\n")
