"""Figure 2 as data: which microservices at which sizes, on how many host cores, and section 2.3's statements about it.

Benefit is requests per Joule of the SmartNIC over the host's with kernel bypass, active power on both sides as in
Table 1. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import geometric_mean

import msgspec

from experiments.errors import ExperimentError
from experiments.measurement.single_node import CORES, CellResult, expected_peak_rps
from experiments.views.charts import SWEET_SPOT_BYTES, Fig2Data, Measured
from microservices.assumptions import DEFAULTS, Assumptions
from microservices.measured import Column
from microservices.profiles import TABLE_1, TABLE_1_CORES, cost_s

# Section 2.3 names three of its five. Ours: Count, which the network bounds on both sides with host cores to spare, and
# Spike, which it never bounds.
NAMED = ("ipsec", "nids", "ddos")
SERVICES = (*NAMED, "count", "spike")
SIZES = (64, 128, 256, 512, 1024, 1500)
QUICK_SIZES = (64, 512, 1500)
SMALL_BYTES = 128  # section 2.3: "small (<=128B) requests"
CORE_STEPS = (2, 4, 6, 8, 12)  # that Table 1 has
DOUBLES = 2.0
ALMOST = 0.25  # ours: "almost doubles" is met within 25 % of it
NOISE = 0.02  # ours: what two peaks may differ by and be the same


class Statement(msgspec.Struct, frozen=True):
    """A statement of section 2.3 about one microservice, what was measured, whether it is met, and what bounds it."""

    what: str
    service: str
    measured: str
    paper: str
    met: bool
    bounds: str


def host_cores(service: str, payload_bytes: int, assumptions: Assumptions = DEFAULTS) -> int:
    """Return the fewest of Table 1's numbers of cores that still give the host's peak at this size.

    Section 2.3 uses "as many [...] CPUs [...] as necessary to attain peak throughput" and lets the others sleep. By the
    model: the peak is what 12 cores or the port allow, whichever is less.
    """
    cost = cost_s(service, Column.BYPASS, payload_bytes, assumptions)
    needed = expected_peak_rps(cost, TABLE_1_CORES, payload_bytes) * cost
    return next(step for step in CORE_STEPS if needed <= step * (1 + 1e-9))


Cells = Mapping[tuple[str, int, Column], CellResult]  # by microservice, size and side


def benefit(cells: Cells, service: str, size: int) -> Measured:
    """Return the SmartNIC's requests per Joule over the host's; refused if either side is."""
    nic, host = cells[service, size, Column.SMARTNIC], cells[service, size, Column.BYPASS]
    return Measured(float(size), nic.requests_per_joule / host.requests_per_joule, not (nic.holds and host.holds))


def benefits(cells: Cells) -> dict[str, tuple[Measured, ...]]:
    """Return the curve of each microservice."""
    found: dict[str, list[Measured]] = {}
    for service, size, column in cells:
        if column is Column.SMARTNIC:
            found.setdefault(service, []).append(benefit(cells, service, size))
    return {service: tuple(sorted(points, key=lambda p: p.x)) for service, points in found.items()}


def statements(cells: Cells, sizes: Sequence[int]) -> list[Statement]:
    """Hold section 2.3's text against the cells. Without a size in each of its three ranges, ExperimentError."""
    small = [s for s in sizes if s <= SMALL_BYTES]
    sweet = [s for s in sizes if SWEET_SPOT_BYTES[0] <= s <= SWEET_SPOT_BYTES[1]]
    large = [s for s in sizes if s > SWEET_SPOT_BYTES[1]]
    if not (small and sweet and large):
        raise ExperimentError(f"request sizes {list(sizes)}: at least one must be up to {SMALL_BYTES} bytes, one "
                              f"from {SWEET_SPOT_BYTES[0]} to {SWEET_SPOT_BYTES[1]}, and one above")
    found = []
    ratios = []
    for service in NAMED:
        at = {size: benefit(cells, service, size).y for size in sizes}
        best = max(sweet, key=lambda size: at[size])
        least, most, largest = min(small), max(small), max(large)

        def bounds(*of: int, service: str = service) -> str:
            return "; ".join(f"{size} B: host {_bound(cells[service, size, Column.BYPASS])}, SmartNIC "
                             f"{_bound(cells[service, size, Column.SMARTNIC])}" for size in of)

        found.append(Statement(f"smaller up to {SMALL_BYTES} B", service, f"{at[most]:.2f}x at {most} B, "
                               f"{at[best]:.2f}x at {best} B", "smaller",
                               at[most] < at[best] * (1 - NOISE), bounds(most, best)))
        ratio = at[best] / at[least]
        ratios.append(ratio)
        found.append(Statement("almost doubles at 256-512 B", service, f"{ratio:.2f} times that at {least} B",
                               "almost 2 times", abs(ratio / DOUBLES - 1) <= ALMOST, bounds(least, best)))
        found.append(Statement("diminishes again at larger sizes", service, f"{at[best]:.2f}x at {best} B, "
                               f"{at[largest]:.2f}x at {largest} B", "less", at[largest] < at[best] * (1 - NOISE),
                               bounds(best, largest)))
    mean = geometric_mean(ratios)
    found.append(Statement("almost doubles, geometric mean", "three", f"{mean:.2f} times", "almost 2 times",
                           abs(mean / DOUBLES - 1) <= ALMOST, ""))
    return found


def figure_data(cells: Cells) -> Fig2Data:
    """Return what Figure 2 is drawn from, with Table 1's own ratios at 512 bytes."""
    curves = benefits(cells)

    def rpj(service: str, column: Column) -> float:
        row = TABLE_1[service][column]
        return row.rps / row.active_watts

    return Fig2Data(curves, {s: rpj(s, Column.SMARTNIC) / rpj(s, Column.BYPASS) for s in curves})


def _bound(cell: CellResult) -> str:
    return f"by cores ({cell.cores})" if cell.limited_by == CORES else f"by its port (on {cell.cores} cores)"
