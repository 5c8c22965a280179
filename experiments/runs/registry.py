"""The experiments by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.errors import ExperimentError
from experiments.runs.run_options import RunOptions

ALL = "all"
QUICK = frozenset({"quick"})


@dataclass(frozen=True, slots=True)
class Experiment:
    """`module` has `run(options, say) -> {"holds": bool, "rows": [(what, measured, wanted)], ...}`.

    `honours` names the fields of RunOptions that it heeds; a run that sets any other is refused before it begins.
    """

    name: str
    module: str
    sentence: str
    honours: frozenset[str] = QUICK

    def refuse(self, options: RunOptions) -> None:
        """Raise ExperimentError, naming it, for a setting that this experiment cannot honour."""
        options.refuse_beyond(self.honours, self.name)

    def run(self, options: RunOptions, say: Callable[[str], None]) -> dict[str, Any]:
        self.refuse(options)
        outcome: dict[str, Any] = importlib.import_module(self.module).run(options, say)
        return outcome


def _experiment(name: str, sentence: str, *honours: str) -> Experiment:
    return Experiment(name, f"experiments.{name.replace('-', '_')}", sentence, QUICK.union(honours))


EXPERIMENTS = {e.name: e for e in (
    _experiment("table1", "sixteen microservices on host and SmartNIC at their peaks (section 2.3)", "resume",
                "time_scale", "retry"),
    _experiment("fig2", "request size against the SmartNIC's benefit in requests per Joule (section 2.3)", "resume",
                "time_scale", "retry"),
    _experiment("fig3", "round trips by communication mechanism (section 2.4)", "resume", "time_scale", "retry"),
    _experiment("fig5", "eight applications at their peaks on 3 x Type1 and on 3 x Beefy: energy and latency (5.1)",
                "resume", "time_scale", "retry", "simulate", "sensitivity"),
    _experiment("fig8", "power over load of three applications on 3 x Type1 (section 5.1)", "resume", "time_scale",
                "retry"),
    _experiment("fig11", "the orchestrator's decision time on up to 50,000 servers, and heartbeats' bandwidth (5.6)"),
    _experiment("queue", "the same single-node queue on packets, in virtual time and from theory", "resume",
                "time_scale", "retry", "simulate"),
    _experiment("scale-invariance", "one workload at the time scales D, 2D and 4D: the same throughput and latency",
                "resume", "time_scale"),
    _experiment("fig6", "HCM against annealing and an integer program, eight applications at their peaks (section 5.4)",
                "resume", "time_scale", "retry", "simulate"),
    _experiment("fig7", "as much on SmartNICs as fits in memory, with and without the orchestrator (section 5.2)",
                "resume", "time_scale", "retry", "simulate"),
    _experiment("fig9", "host traffic over all SmartNICs by ECMP against a NIC dedicated to the host (section 5.3)",
                "resume", "time_scale", "retry", "simulate", "sensitivity"),
    _experiment("table5", "requests per Joule of three applications on five clusters (Table 5)", "resume", "time_scale",
                "retry", "simulate", "sensitivity"),
    _experiment("fig10", "requests per dollar of purchase and electricity over years, on five clusters (section 5.5)",
                "resume", "time_scale", "retry", "simulate"),
    _experiment("live-placement", "two applications placed one after the other on a running rack; then a server dies"),
    _experiment("table6",
                "10,000 microservices placed on 100 to 1,000 servers by three algorithms: time and quality (Table 6)"),
    _experiment("rack-applications",
                "Table 3's eight applications on one rack, alone, in pairs, and with 2 % of frames lost"),
    _experiment("ecmp", "flows to a host spread over its SmartNICs, and move when one fails (section 3.2)"),
    _experiment("ecmp-availability",
                "traffic between two hosts goes on while one SmartNIC after another dies and returns (section 3.2)"),
    _experiment("scenario", "a rack under load while parts of it fail and are healed as a file says (--file)", "file"),
    _experiment("migration", "a key-value store moves 100 times under load, also on lossy SmartNICs; nothing is lost "
                "(section 3.4)"),
    _experiment("failover", "parts fail under load where something is replicated; nothing acknowledged is lost (3.5)",
                "resume", "simulate", "seed"),
    _experiment("controller-failover",
                "the leader of three controllers is killed in the middle of a migration 50 times; one instance lives"),
    _experiment("two-worlds", "two testbeds at once; one is killed and cleaned away, the other goes on"),
    _experiment("controller-restart", "the ToR app is killed and restarted under load; no request is lost"),
    _experiment("racks", "four racks behind a fat tree: equal-cost paths, also round cut links, proved from captures"),
    _experiment("tcp", "iperf3 between two hosts, through the agents of their SmartNICs"),
    _experiment("channel-torture",
                "datagrams lost, doubled and reordered in virtual time; every message once and in order"),
)}


def chosen(names: Sequence[str]) -> list[str]:
    """Return the experiments that `names` mean, "all" being all; raises ExperimentError for an unknown one."""
    if ALL in names:
        return list(EXPERIMENTS)
    for name in names:
        if name not in EXPERIMENTS:
            raise ExperimentError(f"no experiment {name!r}; there are {', '.join(EXPERIMENTS)}, or all")
    return list(names)
