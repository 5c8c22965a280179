"""Table 6: the time to place a microservice, with 10,000 of them on 100 to 1,000 servers (section 5.6).

                 [core] ...                      Type2 servers: a host and four SmartNICs, five compute nodes each
              /     |      \\
         [agg]    [agg]    [agg] ...             Table 3's eight applications, of the paper's size with backups, in
         /   \\    /   \\    /   \\               turn, until 10,000 microservices are placed, on every size at the
      [tor] [tor]  ...                           same rates
      40 x type2   40 x type2 ...

The paper's machine is not ours and its code is not known, so what is compared is growth, 1,000 servers over 100, and
the ratios between the algorithms; and beside each time stands how good the result is. Our times are of the CPU.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from controller.placement.constraints import ClusterState
from controller.placement.cost import SERVICE_FABRIC, WITH_COMMUNICATION
from controller.placement.placing import Options
from experiments.placement_study import MICROSERVICES, SIZES, Deployed, deploy_all, fat_tree_of, workload
from experiments.runs.results import Run
from experiments.runs.run_options import RunOptions
from experiments.views.figures import draw, stored
from experiments.views.table6_chart import Table6Data

QUICK_SIZES, QUICK_MICROSERVICES = (100, 400, 1000), 2000
TIME_LIMIT_S = 10.0  # of the integer program, for one application
# Milliseconds per microservice as printed; None is ">>1s".
TABLE_6: dict[str, tuple[float | None, ...]] = {
    "hcm": (4.85, 8.31, 19.83, 34.32, 74.39, 263.46),
    "annealing": (3.15, 4.73, 7.43, 15.64, 23.5, 61.42),
    "ilp": (7.64, 19.43, 84.83, 361.85, None, None)}
WAYS = (("hcm", "hcm", SERVICE_FABRIC), ("annealing", "annealing", SERVICE_FABRIC), ("ilp", "ilp", SERVICE_FABRIC),
        ("annealing, communication first", "annealing", WITH_COMMUNICATION))


def run(options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """Place the workload by every algorithm on every size. Returns {"holds", "rows", ...}."""
    result_run = Run("table6")
    sizes, count = (QUICK_SIZES, QUICK_MICROSERVICES) if options.quick else (SIZES, MICROSERVICES)
    found: list[Deployed] = []
    for servers in sizes:
        for label, algorithm, weights in WAYS:
            state = ClusterState(fat_tree_of(servers))
            demands = workload(state, count)
            how = Options(weights, time_limit_s=TIME_LIMIT_S)
            one = deploy_all(algorithm, state, demands, how, label, SERVICE_FABRIC)
            found.append(one)
            say(f"{servers} servers, {label}: {one.mean_ms:.4f} ms per microservice, "
                f"{one.prediction.requests_per_joule:,.0f} requests/J, distance {one.prediction.mean_distance:.2f}")
    with (result_run.directory / "data.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(DATA_COLUMNS)
        table.writerows(_data(one) for one in found)
    figures = {"figure": stored("table6", figure_of(found))}
    draw(result_run.directory, figures)
    content = {**judged(found), "figures": msgspec.to_builtins(figures)}
    result_run.finish({"quick": options.quick, **content})
    return content


DATA_COLUMNS = ("algorithm", "servers", "microservices", "mean_ms", "median_ms", "max_ms", "violations", "cost",
                "mean_gap", "worst_gap", "requests_per_joule", "watts", "latency_us", "mean_distance", "servers_used",
                "paper_ms")


def _data(one: Deployed) -> tuple[object, ...]:
    p = one.prediction
    return (one.algorithm, one.servers, one.microservices, one.mean_ms, one.median_ms, max(one.ms_each), one.violations,
            one.cost, one.mean_gap, one.worst_gap, p.requests_per_joule, p.watts,
            "" if p.latency_s is None else p.latency_s * 1e6, p.mean_distance, p.servers_used,
            _paper_ms(one.algorithm, one.servers) or "")


def _paper_ms(algorithm: str, servers: int) -> float | None:
    row = TABLE_6.get(algorithm)
    return row[SIZES.index(servers)] if row and servers in SIZES else None


def figure_of(found: Sequence[Deployed]) -> Table6Data:
    """Return what the figure is drawn from: ours, and as many of the paper's values as its table has."""
    return Table6Data(
        {name: tuple((one.servers, one.mean_ms) for one in found if one.algorithm == name) for name in TABLE_6},
        {name: tuple((n, ms) for n, ms in zip(SIZES, row, strict=True) if ms is not None)
         for name, row in TABLE_6.items()})


def judged(found: Sequence[Deployed]) -> dict[str, Any]:
    """Return times beside the paper's, growth, ratios and quality; it holds if no constraint is violated."""
    by = {(one.algorithm, one.servers): one for one in found}
    sizes = sorted({one.servers for one in found})
    rows: list[tuple[str, str, str]] = []
    for name in TABLE_6:
        for n in sizes:
            paper = _paper_ms(name, n)
            rows.append((f"{name}, {n} servers: ms per microservice", f"{by[name, n].mean_ms:.4f}",
                         f"paper {'>> 1000' if paper is None else f'{paper:g}'}"))
    first, last = sizes[0], sizes[-1]
    for name in TABLE_6:
        a, b = _paper_ms(name, first), _paper_ms(name, last)
        growth = by[name, last].mean_ms / by[name, first].mean_ms
        rows.append((f"{name}: growth from {first} to {last} servers", f"{growth:.2f}x",
                     f"paper {f'{b / a:.1f}x' if a and b else '>> 130x'}"))
    for n in (first, last):
        for name in ("annealing", "ilp"):
            paper_hcm, paper = _paper_ms("hcm", n), _paper_ms(name, n)
            ratio = by[name, n].mean_ms / by["hcm", n].mean_ms
            rows.append((f"{name} / hcm at {n} servers", f"{ratio:.1f}",
                         f"paper {f'{paper / paper_hcm:.2f}' if paper and paper_hcm else '>> 3.8'}"))
    for one in (by[label, n] for n in (first, last) for label, *_ in WAYS):
        p = one.prediction
        latency = "none" if p.latency_s is None else f"{p.latency_s * 1e6:.1f} us"
        rows.append((f"{one.algorithm}, {one.servers} servers: quality",
                     f"{p.requests_per_joule:,.0f} requests/J, distance {p.mean_distance:.2f}, latency {latency}, "
                     f"{p.servers_used} servers used, cost {one.cost:.4g}", ""))
    gaps = [one for one in found if one.algorithm == "ilp"]
    rows.append(("ilp: gap to the bound, mean and worst over applications",
                 f"{max(one.mean_gap for one in gaps):.1%}, {max(one.worst_gap for one in gaps):.1%}", ""))
    violated = sum(one.violations for one in found)
    rows.append(("constraints violated", str(violated), "0"))
    return {"holds": violated == 0, "rows": rows}
