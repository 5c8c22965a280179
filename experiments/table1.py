"""Table 1: sixteen microservices on a host (Linux stack, kernel bypass) and on a SmartNIC, each at its peak.

    c1 --- [tor1] ---10 Gb/s--- s1h                 and        c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h

(Section 2.3.) Throughput and power of Table 1 calibrate the emulation, so that they come back says that queueing, the
search for the knee, the power accounting and the packets over the real switch do not bend what went in. Which rows the
network bounds, latencies and the ratios of section 2.3's text are not calibrated, and are compared openly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

import msgspec

from experiments.measurement.measuring import Plan
from experiments.measurement.single_node import CORES, PORT, CellResult, SingleNode, limit_of
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.table1_claims import claims
from experiments.views.charts import Compared, CompareData
from experiments.views.figures import StoredFigure, draw, stored
from microservices.measured import Column
from microservices.profiles import TABLE_1, is_network_bound

RPS_WITHIN, WATTS_WITHIN = 0.10, 0.05
REPETITIONS = 3  # the paper's
PLAN, QUICK_PLAN = Plan(requests=6000, warm_requests=1000), Plan(requests=2500, warm_requests=500)
RETRIES = 3

Rows = list[tuple[str, str, str]]


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` measures each cell once. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("table1", options)
    repetitions = 1 if options.quick else REPETITIONS
    if not options.retry:
        options = replace(options, retry=RETRIES)
    # Cells of one server stand together: its testbed is built once.
    names = [f"{service}/{column.value}/rep{rep}" for host in (True, False) for rep in range(1, repetitions + 1)
             for service in TABLE_1 for column in Column if (column is not Column.SMARTNIC) == host]

    with SingleNode(options, QUICK_PLAN if options.quick else PLAN) as room:
        def cell(name: str) -> CellResult:
            service, column, _ = name.split("/")
            return room.peak(service, Column(column))

        found = measured(result_run, names, cell, CellResult, say)
    cells = {(service, column): mean_of([result for name, result in found.items()
                                         if name.startswith(f"{service}/{column.value}/")])
             for service in TABLE_1 for column in Column}
    rows, holds = judged(cells)
    result_run.write_data([_record(cell) for cell in cells.values()])
    figures = figures_of(cells)
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "figures": figures, "claims": msgspec.to_builtins(claims(cells)),
               "cells": [msgspec.to_builtins(cell) for cell in cells.values()]}
    result_run.finish(content)
    return content


def mean_of(repetitions: list[CellResult]) -> CellResult:
    """Return the mean of a cell's repetitions; it holds if each of them does, and bad replies of any are its own.

    What is no mean (`said`, `reasons`, ...) is that of the first that does not hold or, where all do, of the first.
    """
    shown = next((r for r in repetitions if not r.holds), repetitions[0])
    means = {name: fmean(getattr(r, name) for r in repetitions)
             for name in ("rps", "mean_s", "p50_s", "p99_s", "active_watts", "busy_cores", "port_use")}
    bad = Counter[str]()
    for repetition in repetitions:
        bad.update(repetition.bad)
    return msgspec.structs.replace(shown, bad=dict(bad), checked=sum(r.checked for r in repetitions),
                                   limited_by=limit_of(means["port_use"]), **means)


def judged(cells: Mapping[tuple[str, Column], CellResult]) -> tuple[Rows, bool]:
    """Return the rows of the result, and whether all is as it should be."""
    rows: Rows = []
    good = True
    for (service, column), cell in cells.items():
        paper = TABLE_1[service][column]
        rps, watts = cell.rps / paper.rps, cell.active_watts / paper.active_watts
        bound = PORT if is_network_bound(service, column) else CORES
        fine = (cell.holds and not cell.bad and abs(rps - 1) <= RPS_WITHIN and abs(watts - 1) <= WATTS_WITHIN
                and (bound == CORES or cell.limited_by == PORT))
        good = good and fine
        said = (f"{cell.rps / 1e3:.1f}K rps ({rps - 1:+.1%}), {cell.active_watts:.1f} W ({watts - 1:+.1%}), mean "
                f"{cell.mean_s * 1e3:.3g} ms, p99 {cell.p99_s * 1e3:.3g} ms, by {cell.limited_by}"
                + ("" if cell.holds else f"; REFUSED: {cell.said}") + (f"; {cell.bad}" if cell.bad else ""))
        wanted = (f"{paper.rps / 1e3:.1f}K, {paper.active_watts:.1f} W; paper's mean {paper.mean_s * 1e3:.3g}, p99 "
                  f"{paper.p99_s * 1e3:.3g} ms" + (", by port" if bound == PORT else ""))
        rows.append((f"{service}, {column.value}" + ("" if fine else "  <- off"), said, wanted))
    for claim in claims(cells):
        rows.append((claim.what, claim.shown(claim.ours), f"text {claim.shown(claim.text)}, the paper's own table "
                     f"{claim.shown(claim.table)}"))
    return rows, good


def figures_of(cells: Mapping[tuple[str, Column], CellResult]) -> dict[str, StoredFigure]:
    """Return what Table 1 looks like: the SmartNIC's benefit, and each column's throughput and mean latency."""
    def refused(service: str, *columns: Column) -> bool:
        return not all(cells[service, column].holds for column in columns)

    def benefit(view: Mapping[tuple[str, Column], Any], service: str) -> float:
        nic, host = view[service, Column.SMARTNIC], view[service, Column.BYPASS]
        return float(nic.rps / nic.active_watts / (host.rps / host.active_watts))

    paper = {(service, column): row for service, columns in TABLE_1.items() for column, row in columns.items()}
    made = {"figure": CompareData("Table 1: requests per Joule, SmartNIC over kernel bypass", "benefit (x)", tuple(
        Compared(s, benefit(cells, s), benefit(paper, s), refused(s, Column.SMARTNIC, Column.BYPASS))
        for s in TABLE_1), log_y=True)}
    for column in Column:
        made[f"throughput-{column.value}"] = CompareData(
            f"Table 1: throughput, {column.value}", "throughput (thousand requests/s)",
            tuple(Compared(s, cells[s, column].rps / 1e3, TABLE_1[s][column].rps / 1e3, refused(s, column))
                  for s in TABLE_1), log_y=True)
        made[f"latency-{column.value}"] = CompareData(
            f"Table 1: mean latency, {column.value} (not calibrated)", "mean latency (ms)",
            tuple(Compared(s, cells[s, column].mean_s * 1e3, TABLE_1[s][column].mean_s * 1e3, refused(s, column))
                  for s in TABLE_1), log_y=True)
    return {name: stored("compare", data) for name, data in made.items()}


def _record(cell: CellResult) -> dict[str, Any]:
    paper = TABLE_1[cell.service][Column(cell.column)]
    return {"microservice": cell.service, "column": cell.column, "rps": cell.rps, "paper_rps": paper.rps,
            "active_w": cell.active_watts, "paper_active_w": paper.active_watts, "cores": cell.cores,
            "busy_cores": cell.busy_cores, "mean_ms": cell.mean_s * 1e3, "paper_mean_ms": paper.mean_s * 1e3,
            "p99_ms": cell.p99_s * 1e3, "paper_p99_ms": paper.p99_s * 1e3, "rpj": cell.requests_per_joule,
            "paper_rpj": paper.rps / paper.active_watts, "port_use": cell.port_use, "limited_by": cell.limited_by,
            "outstanding": cell.outstanding, "time_scale": cell.time_scale, "holds": cell.holds}
