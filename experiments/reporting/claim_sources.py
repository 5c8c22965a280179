"""What stored results have to say of the paper's claims: from an experiment's manifest to findings. Pure.

`findings_of` knows a source for each experiment that a claim rests on. A source reads what the experiment keeps and
measures nothing again. An experiment may also keep findings of its own under "paper_claims": a list of Finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import fmean
from typing import Any

import msgspec

from experiments import fig7_findings
from experiments.fig6 import Point as Placed
from experiments.measurement.single_node import CellResult
from experiments.power_over_load import FLAT_BELOW, PROPORTIONAL, LoadPoint, is_rising, mean_of, spread
from experiments.reporting import claim_sources_rack
from experiments.reporting.claims import Finding
from experiments.request_sizes import Statement
from experiments.round_trips import MECHANISMS, REFERENCE, RoundTrip
from experiments.table1_claims import Claim as Table1Claim
from microservices.measured import Column

Manifest = Mapping[str, Any]
OWN = "paper_claims"
LEAST_MIGRATION_MS = 10.0  # section 5.6: a decision stays "well below" a migration's "10s-100s of ms"


def findings_of(experiment: str, manifest: Manifest) -> list[Finding]:
    """Return what the manifest of a finished run says; raises msgspec.ValidationError or KeyError for a foreign one."""
    source = SOURCES.get(experiment)
    found = list(source(manifest)) if source is not None else []
    return found + [msgspec.convert({**one, "experiment": experiment}, Finding) for one in manifest.get(OWN, ())]


def _table1(manifest: Manifest) -> Iterator[Finding]:
    said = [msgspec.convert(one, Table1Claim) for one in manifest["claims"]]
    cells = [msgspec.convert(one, CellResult, strict=False) for one in manifest["cells"]]
    refused = not all(cell.holds for cell in cells)
    for what, key, part, kind in _TABLE_1:
        claim = next(one for one in said if one.what == what)
        percent = claim.unit == "%"
        yield Finding(key=key, experiment="table1", what=part, paper=claim.text * (100 if percent else 1),
                      ours=claim.ours * (100 if percent else 1), unit=claim.unit, kind=kind, refused=refused,
                      neutral={"%": 0.0, "x": 1.0}.get(claim.unit))
    at = {(cell.service, Column(cell.column)): cell for cell in cells}
    slower = [(at[service, Column.SMARTNIC], at[service, Column.BYPASS]) for service in ("knn", "spike")]
    yield Finding(key="slower-but-better", experiment="table1", refused=refused, kind="input",
                  holds=all(nic.rps < host.rps and nic.rps / nic.active_watts > host.rps / host.active_watts
                            for nic, host in slower),
                  said="; ".join(f"{nic.service}: {nic.rps / 1e3:.3g}K against {host.rps / 1e3:.3g}K requests/s"
                                 for nic, host in slower))


# What the experiment calls it, the claim, its part, and what Table 1's calibration makes of it.
_TABLE_1: tuple[tuple[str, str, str, Any], ...] = (
    ("requests per Joule, kernel bypass over Linux: mean gain of 16", "bypass-ee", "", "input"),
    ("p99, kernel bypass under Linux: mean saving of 16", "bypass-tail", "", "prediction"),
    ("requests per Joule, SmartNIC over bypass, 12 winners: arithmetic mean", "nic-ee", "", "input"),
    ("mean latency that the SmartNIC saves, 12 winners: geometric mean", "nic-latency", "average", "prediction"),
    ("p99 that the SmartNIC saves, 12 winners: geometric mean", "nic-latency", "p99", "prediction"),
    ("requests per Joule, bypass over SmartNIC, 4 losers: arithmetic mean", "host-ee", "", "input"),
    ("mean latency that the host saves, 4 losers: arithmetic mean", "host-latency", "average", "prediction"),
    ("p99 that the host saves, 4 losers: arithmetic mean", "host-latency", "p99", "prediction"),
    ("most active power of the SmartNIC", "nic-watts", "", "input"),
    ("most active power of the host, kernel bypass", "host-watts", "", "input"),
)


def _fig2(manifest: Manifest) -> Iterator[Finding]:
    said = [msgspec.convert(one, Statement) for one in manifest["statements"]]
    refused = not manifest["holds"]
    for key, begins in (("small-requests", "smaller up to"), ("balanced-requests", "almost doubles at"),
                        ("large-requests", "diminishes")):
        own = [one for one in said if one.what.startswith(begins)]
        yield Finding(key=key, experiment="fig2", holds=all(one.met for one in own), refused=refused,
                      said="; ".join(f"{one.service}: {one.measured}" for one in own))


def _fig3(manifest: Manifest) -> Iterator[Finding]:
    trips = [msgspec.convert(one, RoundTrip) for one in manifest["round_trips"]]
    refused = any(trip.refused for trip in trips)

    def mean_s(mechanism: str) -> float:
        own = [trip.rtt_s for trip in trips if trip.mechanism == mechanism]
        return sum(own) / len(own)

    base_s = mean_s(REFERENCE.name)
    for key, name in (("pcie-rtt", "SmartNIC-host"), ("tor-rtt", "SmartNIC-SmartNIC")):
        yield Finding(key=key, experiment="fig3", paper=100 * (MECHANISMS[name].cut or 0.0), unit="%", neutral=0.0,
                      ours=100 * (1 - mean_s(name) / base_s), kind="input", refused=refused)


def _fig6(manifest: Manifest) -> Iterator[Finding]:
    points = msgspec.convert(manifest["points"], dict[str, Placed], str_keys=True)
    best: dict[str, list[tuple[float, float, bool]]] = {"annealing": [], "ilp": []}
    for name, point in points.items():
        application, _, way = name.partition("/")
        if way in best:
            hcm = points[f"{application}/hcm"].peak
            best[way].append((100 * (hcm.requests_per_joule / point.peak.requests_per_joule - 1),
                              100 * (1 - hcm.mean_s / point.peak.mean_s), not (hcm.holds and point.peak.holds)))
    for way, (energy, latency) in {"annealing": (35.2, 24.0), "ilp": (22.0, 18.6)}.items():
        refused = any(bad for *_, bad in best[way])
        yield Finding(key=f"hcm-{way}-ee", experiment="fig6", paper=energy, ours=max(e for e, *_ in best[way]),
                      typical=fmean(e for e, *_ in best[way]), unit="%", neutral=0.0, refused=refused)
        yield Finding(key=f"hcm-{way}-latency", experiment="fig6", paper=latency, unit="%", neutral=0.0,
                      ours=max(cut for _, cut, _ in best[way]), typical=fmean(cut for _, cut, _ in best[way]),
                      refused=refused)


def _fig7(manifest: Manifest) -> Iterator[Finding]:
    """By the second rule, which the experiment is judged by; of the first, the experiment's own rows tell."""
    points = msgspec.convert(manifest["points"], dict[str, fig7_findings.Point], str_keys=True)
    by = {(p.application, p.way): p for p in points.values()}
    names = list(dict.fromkeys(p.application for p in points.values()))
    made = {name: fig7_findings.change(by[name, fig7_findings.WITHOUT], by[name, fig7_findings.GAIN])
            for name in names}
    refused = not all(p.faithful for p in points.values() if p.way != fig7_findings.CPU)
    named = [change for name, change in made.items() if name in fig7_findings.MIGRATED]
    calm = {name: change for name, change in made.items() if name not in fig7_findings.MIGRATED}
    yield Finding(key="starvation-ee", experiment="fig7", paper=fig7_findings.PAPER_FACTOR, unit="x", neutral=1.0,
                  ours=max(change.factor for change in made.values()), typical=fmean(change.factor for change in named),
                  refused=refused)
    yield Finding(key="starvation-latency", experiment="fig7", paper=100 * fig7_findings.PAPER_LATENCY_CUT, unit="%",
                  neutral=0.0, ours=max(-100 * change.mean for change in made.values()),
                  typical=fmean(-100 * change.mean for change in named), refused=refused)
    yield Finding(key="starvation-others", experiment="fig7", refused=refused,
                  holds=all(abs(change.factor - 1) <= fig7_findings.LITTLE for change in calm.values()),
                  said=", ".join(f"{name} x{change.factor:.2f}" for name, change in calm.items()))


def _fig8(manifest: Manifest) -> Iterator[Finding]:
    points = msgspec.convert(manifest["points"], dict[str, LoadPoint])
    curves: dict[str, dict[float, list[LoadPoint]]] = {}
    for point in points.values():
        if point.share >= 0:
            curves.setdefault(point.application, {}).setdefault(point.share, []).append(point)
    for name, curve in curves.items():
        means = [mean_of(own) for own in curve.values()]
        proportional = is_rising(means) and spread(means) > FLAT_BELOW
        yield Finding(key="proportional", what=name, experiment="fig8", refused=any(p.refused for p in means),
                      holds=proportional is (name in PROPORTIONAL),
                      said=f"{'rises' if proportional else 'flat'}: {spread(means):.2f} times from no load to the peak")


def _table6(manifest: Manifest) -> Iterator[Finding]:
    row = _last_row(manifest, "hcm, ", ": ms per microservice")
    if row is not None:
        took_ms = float(row[1])
        yield Finding(key="hcm-deployment", experiment="table6", holds=took_ms < 100.0, kind="prediction",
                      said=f"{took_ms:.4f} ms per microservice ({row[0].split(', ')[1].split(':')[0]})")


def _fig11(manifest: Manifest) -> Iterator[Finding]:
    row = _last_row(manifest, "heartbeats of one SmartNIC", "")
    if row is not None:
        payload, wire = (float(part) for part in row[1].removesuffix(" kb/s").split(", "))
        yield Finding(key="heartbeat", experiment="fig11", kind="set-up",
                      said=f"16 B every 50 ms are {payload:g} kb/s of each SmartNIC, {wire:g} on the wire")
    slowest = [(float(said.removesuffix(" ms").split(", ")[1]), what.split(":")[0])
               for what, said, _ in manifest["rows"] if what.endswith("decision p50, p99")]
    if slowest:
        worst_ms, where = max(slowest)
        yield Finding(key="migration-time", what="decisions take far less", experiment="fig11",
                      holds=worst_ms < LEAST_MIGRATION_MS, said=f"p99 of {worst_ms:g} ms at most ({where})")


def _migration(manifest: Manifest) -> Iterator[Finding]:
    for what, said, _ in manifest["rows"]:
        if what.startswith("calibrated") and what.endswith("steps in ms, median (longest)"):
            yield Finding(key="migration-time", what=what.split(":")[1].split()[0], experiment="migration",
                          kind="set-up", said=f"{said} ms, without a process or container to start")


def _last_row(manifest: Manifest, begins: str, ends: str) -> tuple[str, ...] | None:
    own = [tuple(row) for row in manifest["rows"] if row[0].startswith(begins) and row[0].endswith(ends)]
    return own[-1] if own else None


SOURCES: dict[str, Callable[[Manifest], Iterator[Finding]]] = {
    "table1": _table1, "fig2": _fig2, "fig3": _fig3, "fig6": _fig6, "fig7": _fig7, "fig8": _fig8, "table6": _table6,
    "fig11": _fig11, "migration": _migration, "fig5": claim_sources_rack.fig5, "fig9": claim_sources_rack.fig9,
    "fig10": claim_sources_rack.fig10, "table5": claim_sources_rack.table5}

# Which experiment a claim waits for, where there is no finding yet.
WAITS_FOR: dict[str, str] = {
    **dict.fromkeys(("ee-cluster", "latency-cluster", "ee-nfv", "ee-rta", "ee-iot", "mean-saved", "p99-saved",
                     "nfv-fin-ee", "rta-ptc-ee", "rta-ptc-latency"), "fig5"),
    **dict.fromkeys(("shared-throughput", "shared-ee", "shared-bandwidth", "shared-least"), "fig9"),
    "cost-cluster": "fig10", "budget-throughput": "table5", "budget-power": "table5",
    **dict.fromkeys(("small-requests", "balanced-requests", "large-requests"), "fig2"),
    **dict.fromkeys(("pcie-rtt", "tor-rtt"), "fig3"), "proportional": "fig8",
    **dict.fromkeys(("starvation-ee", "starvation-latency", "starvation-others"), "fig7"),
    **dict.fromkeys(("hcm-annealing-ee", "hcm-ilp-ee", "hcm-annealing-latency", "hcm-ilp-latency"), "fig6"),
    **dict.fromkeys(("bypass-ee", "bypass-tail", "nic-ee", "nic-watts", "host-watts", "slower-but-better",
                     "nic-latency", "host-ee", "host-latency"), "table1"),
    "heartbeat": "fig11", "migration-time": "migration", "hcm-deployment": "table6"}
