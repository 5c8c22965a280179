"""What section 2.3's text says of Table 1: the same formula over our cells and over the paper's own table.

Text and table of the paper do not always agree; the third figure shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from statistics import fmean, geometric_mean

import msgspec

from experiments.measurement.single_node import CellResult
from microservices.measured import Column
from microservices.profiles import TABLE_1

HOST_WINS = ("top_ranker", "bayes", "sql", "api_gateway")  # section 2.3
NIC_WINS = tuple(service for service in TABLE_1 if service not in HOST_WINS)
LINUX, BYPASS, NIC = Column.LINUX, Column.BYPASS, Column.SMARTNIC
View = Callable[[str, str, Column], float]  # (field, microservice, column) -> its value


class Claim(msgspec.Struct, frozen=True):
    """`text` is what the paper says, `table` what its own table gives, `ours` what our cells give; shares as 0 to 1."""

    what: str
    unit: str
    text: float
    table: float
    ours: float

    def shown(self, value: float) -> str:
        return f"{100 * value:.1f} %" if self.unit == "%" else f"{value:.3g}{'x' if self.unit == 'x' else ' W'}"


def claims(cells: Mapping[tuple[str, Column], CellResult]) -> list[Claim]:
    """Return every figure of section 2.3's text that is computed from Table 1."""
    def ours(field: str, service: str, column: Column) -> float:
        return float(getattr(cells[service, column], field))

    def table(field: str, service: str, column: Column) -> float:
        return float(getattr(TABLE_1[service][column], field))

    return [Claim(what, unit, text, formula(table), formula(ours)) for what, unit, text, formula in _FORMULAS]


def _rpj(view: View, service: str, column: Column) -> float:
    return view("rps", service, column) / view("active_watts", service, column)


def _ratios(view: View, services: Iterable[str], of: Callable[[View, str, Column], float]) -> list[float]:
    """Return SmartNIC over kernel bypass, for each of `services`."""
    return [of(view, s, NIC) / of(view, s, BYPASS) for s in services]


def _mean(view: View, service: str, column: Column) -> float:
    return view("mean_s", service, column)


def _p99(view: View, service: str, column: Column) -> float:
    return view("p99_s", service, column)


_FORMULAS: tuple[tuple[str, str, float, Callable[[View], float]], ...] = (
    ("requests per Joule, kernel bypass over Linux: mean gain of 16", "%", 0.21,
     lambda v: fmean(_rpj(v, s, BYPASS) / _rpj(v, s, LINUX) for s in TABLE_1) - 1),
    ("p99, kernel bypass under Linux: mean saving of 16", "%", 0.16,
     lambda v: fmean(1 - _p99(v, s, BYPASS) / _p99(v, s, LINUX) for s in TABLE_1)),
    ("requests per Joule, SmartNIC over bypass, 12 winners: arithmetic mean", "x", 6.5,
     lambda v: fmean(_ratios(v, NIC_WINS, _rpj))),
    ("the same by the geometric mean, as the text calls it", "x", 6.5,
     lambda v: geometric_mean(_ratios(v, NIC_WINS, _rpj))),
    ("requests per Joule, bypass over SmartNIC, 4 losers: arithmetic mean", "x", 4.1,
     lambda v: fmean(1 / ratio for ratio in _ratios(v, HOST_WINS, _rpj))),
    ("mean latency that the SmartNIC saves, 12 winners: geometric mean", "%", 0.453,
     lambda v: 1 - geometric_mean(_ratios(v, NIC_WINS, _mean))),
    ("p99 that the SmartNIC saves, 12 winners: geometric mean", "%", 0.454,
     lambda v: 1 - geometric_mean(_ratios(v, NIC_WINS, _p99))),
    ("mean latency that the host saves, 4 losers: arithmetic mean", "%", 0.412,
     lambda v: fmean(1 - 1 / ratio for ratio in _ratios(v, HOST_WINS, _mean))),
    ("p99 that the host saves, 4 losers: arithmetic mean", "%", 0.300,
     lambda v: fmean(1 - 1 / ratio for ratio in _ratios(v, HOST_WINS, _p99))),
    ("most active power of the SmartNIC", "W", 24.7, lambda v: max(v("active_watts", s, NIC) for s in TABLE_1)),
    ("most active power of the host, kernel bypass", "W", 113.0,
     lambda v: max(v("active_watts", s, BYPASS) for s in TABLE_1)),
)
