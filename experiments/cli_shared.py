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
ClusterArgument = Annotated[str, typer.Argument(help="MODEL[:SMARTNICS]xCOUNT[+...][/RACKS], for example type1x3.")]


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
