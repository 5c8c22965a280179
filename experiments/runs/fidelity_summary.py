"""What a finished run says of its machine: how many measurements were judged, how many refused, at which time scales.

Experiments keep verdicts where their measurements are. They are found by their form: a verdict or a measurement has
`holds` and `reasons`, or a time scale and the list `refused`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

MOST_REASONS = 3


class Judged(msgspec.Struct, frozen=True):
    """One measurement: whether its verdict holds, why not, its time scale (0: none is told), and if it was virtual."""

    holds: bool
    reasons: tuple[str, ...] = ()
    time_scale: float = 0.0
    simulated: bool = False


class FidelitySummary(msgspec.Struct, frozen=True):
    """`judged` measurements on packets, of which `refused` do not hold; `virtual` ones cannot be late."""

    judged: int
    refused: int
    virtual: int
    least_scale: float | None
    most_scale: float | None
    reasons: tuple[str, ...]

    @property
    def said(self) -> str:
        """Return the verdict in words."""
        if not self.judged:
            return "virtual time: never late" if self.virtual else "speed is not judged: it claims nothing about time"
        return f"{self.refused} of {self.judged} refused" if self.refused else f"all {self.judged} hold"

    @property
    def scales(self) -> str:
        """Return the range of time scales, "" without any."""
        if self.least_scale is None or self.most_scale is None:
            return ""
        low, high = f"{self.least_scale:,.4g}", f"{self.most_scale:,.4g}"
        return low if low == high else f"{low} to {high}"


def summary_of(manifest: Mapping[str, Any], is_virtual: bool = False) -> FidelitySummary:
    """Return what is judged in a manifest; `is_virtual`: the whole run was in virtual time."""
    found = list(_judged((manifest.get("fidelity") and {"fidelity": {**manifest["fidelity"], "time_scale":
                                                                    manifest.get("time_scale", 0.0)}}) or
                         {key: value for key, value in manifest.items() if key not in ("figures", "proof")}))
    real = [one for one in found if not (one.simulated or is_virtual)]
    refused = [one for one in real if not one.holds]
    scales = [one.time_scale for one in real if one.time_scale]
    reasons = tuple(dict.fromkeys(reason for one in refused for reason in one.reasons[:1]))[:MOST_REASONS]
    return FidelitySummary(len(real), len(refused), len(found) - len(real), min(scales, default=None),
                           max(scales, default=None), reasons)


def _judged(value: Any) -> Iterator[Judged]:
    if isinstance(value, Mapping):
        scale = value.get("time_scale", 0.0)
        scale = float(scale) if isinstance(scale, (int, float)) else 0.0
        if isinstance(value.get("reasons"), list) and isinstance(value.get("holds"), bool):
            yield Judged(value["holds"], tuple(value["reasons"]), scale, bool(value.get("simulated")))
            return
        if isinstance(value.get("refused"), list) and "time_scale" in value:
            yield Judged(not value["refused"], tuple(value["refused"]), scale, bool(value.get("simulated")))
            return
        for inner in value.values():
            yield from _judged(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _judged(inner)
