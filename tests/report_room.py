"""Results to report on: runs as experiments leave them, made from measurements that are written down here."""

from pathlib import Path
from typing import Any

import msgspec

from experiments.power_over_load import LoadPoint
from experiments.round_trips import MECHANISMS, RoundTrip, figure_data, judged
from experiments.runs.results import Run
from experiments.views.charts import (
    Compared,
    CompareData,
    Fig2Data,
    Fig8Data,
    GroupedBar,
    GroupedData,
    Measured,
    QueueData,
)
from experiments.views.figures import StoredFigure, draw, stored

RTT_S = {"host-host Linux": 50e-6, "host-host bypass": 20e-6, "SmartNIC-host": 3.34e-6, "SmartNIC-SmartNIC": 2.76e-6,
         "in a node": 0.4e-6}
APPLICATIONS = ("nfv-fin", "nfv-din", "nfv-ifid", "rta-ptc", "rta-sf", "rta-shm", "iot-dh", "iot-ts")


def trips(refused: str = "") -> list[RoundTrip]:
    """Return a round trip by each mechanism; that of the SmartNIC and its host is refused for a reason, if there is."""
    return [RoundTrip(name, 1000.0, 60, 1e-5, 1e-5 + RTT_S[name], RTT_S[name],
                      (refused,) if refused and name == "SmartNIC-host" else ()) for name in MECHANISMS]


def keep(parent: Path, name: str, figures: dict[str, StoredFigure], **content: Any) -> Path:
    """Write a finished run with its pictures; return its directory."""
    run = Run(name, parent)
    draw(run.directory, figures)
    run.finish({"holds": True, "rows": [], "figures": msgspec.to_builtins(figures), **content})
    return run.directory


def keep_fig3(parent: Path, refused: str = "") -> Path:
    """Write a run of Figure 3 as the experiment does."""
    found = trips(refused)
    rows, holds = judged(found)
    return keep(parent, "fig3", {"figure": stored("fig3", figure_data(found))}, rows=rows, holds=holds,
                round_trips=msgspec.to_builtins(found))


def keep_fig8(parent: Path, most: float) -> Path:
    """Write a run of Figure 8 in which every application draws `most` times at its peak what it draws without load."""
    loads = (0.0, 0.5, 1.0)
    points = {f"{name}/rep1/{share}": LoadPoint(name, share, 1e5 * share, 1e5 * share, 1e-4, 2e-4, 294.0,
                                                350.0 * (1 + share * (most - 1)), 60.0, 500.0)
              for name in ("nfv-fin", "rta-shm", "iot-ts") for share in loads}
    curves = {name: tuple(Measured(p.share, p.wall_watts) for p in points.values() if p.application == name)
              for name in ("nfv-fin", "rta-shm", "iot-ts")}
    return keep(parent, "fig8", {"figure": stored("fig8", Fig8Data(curves, 294.0))},
                points=msgspec.to_builtins(points))


def keep_many_figures(parent: Path) -> Path:
    """Write a run with figures of several forms, long names among them, and refused values."""
    curve = tuple(Measured(x, 100e-6 * x, x == 3.0) for x in (1.0, 2.0, 3.0, 4.0))
    figures = {
        "figure": stored("grouped", GroupedData("Requests per Joule, a title that is rather long for one column",
                                                "relative to HCM", tuple(
                                                    GroupedBar(name, way, 1.0 + 0.1 * i, i == 2)
                                                    for name in APPLICATIONS
                                                    for i, way in enumerate(("hcm", "annealing", "ilp"))))),
        "throughput": stored("compare", CompareData("Throughput", "throughput (thousand requests/s)", tuple(
            Compared(f"microservice_{n}", 10.0 ** (n % 4), 9.0 ** (n % 4)) for n in range(16)), log_y=True)),
        "sizes": stored("fig2", Fig2Data({"ipsec": (Measured(64, 6.7), Measured(512, 8.9))}, {"ipsec": 9.7})),
        "queue": stored("queue", QueueData("One queue", curve, curve, curve))}
    return keep(parent, "queue", figures, rows=[("a name without a break_" * 6, "1,234",
                                                 "0x" + "0123456789abcdef" * 9)])


def keep_sensitivity(parent: Path) -> Path:
    """Write a run of Table 5 that varied an assumption, as one that was begun with --sensitivity keeps it."""
    directory = keep(parent, "table5-sensitivity", {"figure": stored("grouped", GroupedData(
        "Table 5 over hol_factor", "gain in requests/J (x)", (GroupedBar("hol_factor", "low", 1.1),
                                                               GroupedBar("hol_factor", "high", 1.3))))},
                     rows=[("hol_factor", "1.1x to 1.3x", "")])
    (directory / "run.json").write_text('{"options": {"quick": true, "sensitivity": true}, "sessions": []}')
    return directory


def peak(application: str, cluster: str, rps: float, watts: float, mean_s: float = 1e-4, holds: bool = True,
         usd: float = 10_000.0) -> dict[str, Any]:
    """Return the peak of an application on a cluster, as a run of section 5's clusters keeps it."""
    return {"application": application, "cluster": cluster, "copies": 1, "cost_usd": usd, "peak_watts": watts,
            "peak": {"rps": rps, "mean_s": mean_s, "p99_s": 2 * mean_s, "wall_watts": watts, "holds": holds, "bad": {},
                     "reasons": [], "time_scale": 100.0}}
