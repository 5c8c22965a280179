"""What `./e3 profiles` and `./e3 assumptions` say, as JSON and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.errors import ExperimentError
from microservices import profiles
from microservices.assumptions import ASSUMPTIONS, MEASURED_BYTES
from microservices.measured import Column
from microservices.service import service_class

COST_COLUMNS = ("microservice", "Linux us", "bypass us", "SmartNIC us", "network-bound", "Linux W (cores)",
                "bypass W (cores)", "SmartNIC W")
SMARTNIC_COLUMNS = ("microservice", "accelerators that its SmartNIC column counts on", "HOL weight")
ASSUMPTION_COLUMNS = ("assumption", "default", "range", "what it is", "what it rests on")
MAX_PAYLOAD_BYTES = 8000


def profiles_of(names: Sequence[str] = (), payload_bytes: int = MEASURED_BYTES) -> list[dict[str, Any]]:
    """Return time and power of each microservice in each column, for requests of this size.

    `names` are built-in microservices or a user's own; none means all that Table 1 has. Raises ServiceError for one
    that there is not or that has no profile, ExperimentError for a size out of range.
    """
    if not 0 <= payload_bytes <= MAX_PAYLOAD_BYTES:
        raise ExperimentError(f"a request of {payload_bytes} bytes; the limits are 0 and {MAX_PAYLOAD_BYTES}")
    return [_profile(name, payload_bytes) for name in names or profiles.TABLE_1]


def _profile(name: str, payload_bytes: int) -> dict[str, Any]:
    service = service_class(name)
    return {"microservice": name, "payload_bytes": payload_bytes,
            "columns": {column.value: _column(name, column, payload_bytes) for column in Column},
            "accelerators": sorted(each.value for each in service.accelerators),
            "hol_weight": profiles.hol_weight(name)}


def _column(name: str, column: Column, payload_bytes: int) -> dict[str, Any]:
    law = profiles.cost_law(name, column)
    measured = profiles.TABLE_1.get(name, {}).get(column)
    cores = profiles.active_cores(name, column)
    busy = profiles.peak_utilisation(name, column)
    card = column is Column.SMARTNIC
    per_core = None if card else profiles.core_watts(name, column)
    watts = profiles.smartnic_watts(name) if per_core is None else \
        cores * per_core * (busy + (1 - busy) * profiles.lull_share(column))
    return {"cost_s": law.cost_s(payload_bytes), "fixed_s": law.fixed_s, "per_byte_s": law.per_byte_s,
            "network_bound": profiles.is_network_bound(name, column), "peak_utilisation": busy, "cores": cores,
            "active_watts": watts, "busy_core_watts": per_core, "table_1_rps": measured.rps if measured else None}


def cost_rows(content: Sequence[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Yield COST_COLUMNS of each; a network-bound column is one whose core time the network hid."""
    for one in content:
        columns = one["columns"]
        bound = [column for column, of in columns.items() if of["network_bound"]]
        yield (one["microservice"], *(f"{of['cost_s'] * 1e6:.4g}" for of in columns.values()),
               "all" if len(bound) == len(columns) else ", ".join(bound) or "none",
               *(f"{columns[host]['active_watts']:.1f} ({columns[host]['cores']})" for host in ("linux", "bypass")),
               f"{columns['smartnic']['active_watts']:.1f}")


def smartnic_rows(content: Sequence[dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """Yield SMARTNIC_COLUMNS of each."""
    for one in content:
        yield one["microservice"], ", ".join(one["accelerators"]) or "none", f"{one['hol_weight']:g}"


def assumption_rows() -> Iterator[tuple[object, ...]]:
    """Yield ASSUMPTION_COLUMNS of each assumption."""
    for one in ASSUMPTIONS:
        yield one.name, f"{one.default:g}", f"{one.low:g} to {one.high:g}", one.meaning, one.rests_on
