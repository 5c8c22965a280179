"""Figure 2: how the size of requests changes what a SmartNIC is worth, for five microservices (section 2.3).

    c1 --- [tor1] ---10 Gb/s--- s1h       and        c1 --- [tor1] ---10 Gb/s--- s1n1 === s1h

Each point is a peak as in Table 1, host with kernel bypass, with as few host cores as still give it. Costs at 512 bytes
are Table 1's. How they change with size is the law of microservices/assumptions.py, whose two shares rest on words of
the very paragraph that this figure is about: that small requests gain less, and sizes of 256-512 bytes most, is in part
what went in. The rest follows from ports, cores and power, and is held against the text openly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from experiments.measurement.measuring import Plan
from experiments.measurement.single_node import CellResult, SingleNode
from experiments.request_sizes import QUICK_SIZES, SERVICES, SIZES, Cells, figure_data, host_cores, statements
from experiments.runs.points import measured
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.table1 import mean_of
from experiments.views.figures import draw, stored
from microservices.assumptions import DEFAULTS
from microservices.measured import Column

REPETITIONS = 3  # the paper's
PLAN, QUICK_PLAN = Plan(requests=6000, warm_requests=1000), Plan(requests=3000, warm_requests=500)
RETRIES = 3
ATTEMPTS = 2  # at a point with all its retries: what else keeps this machine busy may be over soon
SIDES = (Column.BYPASS, Column.SMARTNIC)  # those of one server stand together: its testbed is built once


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the experiment; `quick` takes three sizes, once each. Returns {"holds", "rows", ...}."""
    result_run = Run.begin("fig2", options)
    sizes = QUICK_SIZES if options.quick else SIZES
    repetitions = 1 if options.quick else REPETITIONS
    if not options.retry:
        options = replace(options, retry=RETRIES)
    names = [f"{service}/{column.value}/{size}/rep{rep}" for column in SIDES for rep in range(1, repetitions + 1)
             for service in SERVICES for size in sizes]
    with SingleNode(options, QUICK_PLAN if options.quick else PLAN) as room:
        def cell(name: str) -> CellResult:
            service, column, size, _ = name.split("/")
            side = Column(column)
            cores = host_cores(service, int(size)) if side is Column.BYPASS else None
            for _ in range(ATTEMPTS):
                result = room.peak(service, side, int(size), cores)
                if result.holds:
                    break
                say(f"{name}: refused, {(*result.reasons, result.said)[0]}")
            return result

        found = measured(result_run, names, cell, CellResult, say)
    cells = {(service, size, column): mean_of([found[f"{service}/{column.value}/{size}/rep{rep}"]
                                               for rep in range(1, repetitions + 1)])
             for service in SERVICES for size in sizes for column in SIDES}
    rows, holds = judged(cells)
    said = statements(cells, sizes)
    rows += [(f"{s.service}: {s.what}" + ("" if s.met else "  <- differs from the text"),
              s.measured + f" ({s.bounds})" * bool(s.bounds), f"text: {s.paper}") for s in said]
    figures = {"figure": stored("fig2", figure_data(cells))}
    result_run.write_data([_record(cells, service, size) for service in SERVICES for size in sizes])
    draw(result_run.directory, figures)
    content = {"holds": holds, "rows": rows, "statements": msgspec.to_builtins(said),
               "figures": msgspec.to_builtins(figures), "assumptions": msgspec.to_builtins(DEFAULTS),
               "cells": [msgspec.to_builtins(c) for c in cells.values()]}
    result_run.finish(content)
    return content


def judged(cells: Cells) -> tuple[list[tuple[str, str, str]], bool]:
    """Return a row for each microservice and size, and whether all points hold with every reply right.

    Statements of the text are no part of it: they are findings, and a difference is not a failure of the run.
    """
    rows = []
    good = True
    for row in (_record(cells, s, n) for s, n, column in cells if column is Column.SMARTNIC):
        pair = [cells[row["microservice"], row["bytes"], column] for column in SIDES]
        wrong = [f"{c.column} REFUSED: {c.said}" for c in pair if not c.holds] + [str(c.bad) for c in pair if c.bad]
        good = good and not wrong
        rows.append((f"{row['microservice']}, {row['bytes']} B", f"{row['benefit']:.2f}x: "
                     f"{row['nic_rps'] / 1e3:.4g}K rps at {row['nic_w']:.1f} W over {row['host_rps'] / 1e3:.4g}K at "
                     f"{row['host_w']:.1f} W on {row['host_cores']} cores" + "".join(f"; {w}" for w in wrong),
                     "Table 1: {:.2f}x".format(row["table1_benefit"]) if row["table1_benefit"] else ""))
    return rows, good


def _record(cells: Cells, service: str, size: int) -> dict[str, Any]:
    host, nic = (cells[service, size, column] for column in SIDES)
    paper = figure_data({key: c for key, c in cells.items() if key[0] == service}).paper_512[service]
    return {"microservice": service, "bytes": size, "benefit": nic.requests_per_joule / host.requests_per_joule,
            "table1_benefit": paper if size == 512 else "", "nic_rps": nic.rps, "nic_w": nic.active_watts,
            "nic_limited_by": nic.limited_by, "host_rps": host.rps, "host_w": host.active_watts,
            "host_cores": host.cores, "host_limited_by": host.limited_by, "nic_time_scale": nic.time_scale,
            "host_time_scale": host.time_scale, "nic_holds": nic.holds, "host_holds": host.holds}
