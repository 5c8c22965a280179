"""The experiments by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.errors import ExperimentError


@dataclass(frozen=True, slots=True)
class Experiment:
    """`module` has `run(quick, say) -> {"holds": bool, "rows": [(what, measured, wanted)], ...}`."""

    module: str
    sentence: str

    def run(self, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
        outcome: dict[str, Any] = importlib.import_module(self.module).run(quick, say)
        return outcome


EXPERIMENTS = {name: Experiment(f"experiments.{name.replace('-', '_')}", sentence) for name, sentence in (
    ("rack-applications", "Table 3's eight applications on one rack, alone, in pairs, and with 2 % of frames lost"),
    ("ecmp", "flows to a host spread over its SmartNICs, and move when one fails (section 3.2)"),
    ("two-worlds", "two testbeds at once; one is killed and cleaned away, the other goes on"),
    ("controller-restart", "the ToR app is killed and restarted under load; no request is lost"),
    ("racks", "four racks behind a fat tree: equal-cost paths between racks, proved from captures"),
    ("tcp", "iperf3 between two hosts, through the agents of their SmartNICs"),
    ("table6", "10,000 microservices placed on 100 to 1,000 servers by three algorithms: time and quality (Table 6)"),
    ("channel-torture", "datagrams lost, doubled and reordered in virtual time; every message once and in order"),
)}


def chosen(names: Sequence[str]) -> list[str]:
    """Return the experiments that `names` mean, "all" being all; raises ExperimentError for an unknown one."""
    if "all" in names:
        return list(EXPERIMENTS)
    for name in names:
        if name not in EXPERIMENTS:
            raise ExperimentError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, or all")
    return list(names)
