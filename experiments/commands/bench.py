"""The command line's benchmarks: `./e3 bench --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from experiments.commands.shared import ClusterArgument, Json, emit, say, table

bench = typer.Typer(no_args_is_help=True, help="Measure the testbed itself, as ratios side by side in one run.")


@bench.command("datapath")
def bench_datapath(json: Json = False) -> None:
    """Requests per second: plain sockets, a SmartNIC's own stack, and through a SmartNIC to its host."""
    from experiments.benchmarks.datapath import COLUMNS, measure

    rows = measure(say)
    emit(rows, json, lambda: table("Request/reply of 512 bytes on one switch", COLUMNS, [r.values() for r in rows]))


@bench.command("boot")
def bench_boot(cluster: ClusterArgument = "type2x40", json: Json = False) -> None:
    """Start a rack with agents, and plain Mininet with as many nodes and links, on a private switch each."""
    from experiments.benchmarks.boot import COLUMNS, measure

    rows = measure(cluster, say)
    emit(rows, json, lambda: table(f"Starting {cluster}", COLUMNS, [r.values() for r in rows]))


@bench.command("emulator")
def bench_emulator(json: Json = False) -> None:
    """Requests emulated per real second, what bounds them, and the smallest time scale that holds."""
    from experiments.benchmarks.emulator import COLUMNS, measure_emulator
    from experiments.benchmarks.simulated import measure_simulated

    rows = [*measure_emulator(say), *measure_simulated(say).rows()]
    emit(rows, json, lambda: table("NFV-FIN on 3 x Type1", COLUMNS, [r.values() for r in rows]))
    raise typer.Exit(0 if all(row.holds for row in rows) else 1)


@bench.command("placement")
def bench_placement(quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and applications.")] = False,
                    json: Json = False) -> None:
    """Time and quality of HCM, annealing and the integer program on 100 to 10,000 servers, side by side."""
    from experiments.benchmarks.placement import measure, tables

    report = measure(quick, say)

    def show() -> None:
        for one in tables(report):
            table(*one)

    emit(report, json, show)
    raise typer.Exit(0 if report.holds else 1)


@bench.command("orchestrator")
def bench_orchestrator(json: Json = False) -> None:
    """Heartbeats of 200,000 SmartNICs decoded, judged and decided on, per second of one core; no root needed."""
    from experiments.benchmarks.orchestrator import COLUMNS, measure

    rows = measure(say)
    emit(rows, json, lambda: table("50,000 servers, four SmartNICs each", COLUMNS, [r.values() for r in rows]))
    raise typer.Exit(0 if all(row.holds for row in rows) else 1)


@bench.command("microservices")
def bench_microservices(json: Json = False) -> None:
    """Requests per second of each handler on one core, and beside a bare call of the library that does the work."""
    from experiments.benchmarks.microservices import COLUMNS, measure

    rows = measure(say)
    emit(rows, json, lambda: table("One core, 512-byte requests", COLUMNS, [r.values() for r in rows]))
    raise typer.Exit(0 if all(row.holds for row in rows) else 1)
