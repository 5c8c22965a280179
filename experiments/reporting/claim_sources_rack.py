"""What the runs of section 5's clusters have to say of the paper's claims: Figures 5, 9 and 10, and Table 5. Pure.

A point of these runs is an application's peak on a cluster. What is read of it stands in `Peak`; the rest is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import msgspec

from experiments.cost import Ownership
from experiments.reporting.claims import CLOSE, Finding

CLASSES = {"nfv": ("nfv-fin", "nfv-din", "nfv-ifid"), "rta": ("rta-ptc", "rta-sf", "rta-shm"),
           "iot": ("iot-dh", "iot-ts")}
PAPER_CLASSES = {"nfv": (2.5, 43.3, 35.5), "rta": (1.3, 92.3, 90.4), "iot": (1.3, 80.4, 88.6)}  # section 5.1's text
SMARTNICS, BASELINE = "type1x3", "beefyx3"
SHARED, DEDICATED = "type2x2", "type2dx2"
MEASURED = "512"  # bytes, where a point's name ends in a size
YEARS = tuple(quarter / 4 for quarter in range(1, 21))
NOISE = 0.03  # what two peaks may differ by and be the same
PORT_GBPS = {"shared": 40.0, "dedicated": 10.0}  # of a host of Figure 9: four ports of 10 Gb/s against one


class Measured(msgspec.Struct, frozen=True):
    """What a peak measured."""

    rps: float
    mean_s: float
    p99_s: float
    wall_watts: float
    holds: bool
    bad: dict[str, int] = {}

    @property
    def rpj(self) -> float:
        return self.rps / self.wall_watts


class Peak(msgspec.Struct, frozen=True):
    """An application's peak on a cluster, which costs and draws so much by Table 4."""

    application: str
    cluster: str
    peak: Measured
    cost_usd: float = 0.0
    peak_watts: float = 0.0

    @property
    def stands(self) -> bool:
        return self.peak.holds and not self.peak.bad


def peaks_of(manifest: Mapping[str, Any]) -> dict[tuple[str, str], Peak]:
    """Return a run's peaks by application and cluster, those of other sizes than Table 1's left out."""
    found = {}
    for name, point in manifest["points"].items():
        if name.count("/") == 1 or name.endswith(f"/{MEASURED}"):
            peak = msgspec.convert(point, Peak)
            found[peak.application, peak.cluster] = peak
    return found


def fig5(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what Type1 gains on Beefy: by class, by application, and at most."""
    found = peaks_of(manifest)
    pairs = {name: (found[name, SMARTNICS], found[name, BASELINE]) for members in CLASSES.values() for name in members}
    energy = {name: a.peak.rpj / b.peak.rpj for name, (a, b) in pairs.items()}
    mean = {name: 100 * (1 - a.peak.mean_s / b.peak.mean_s) for name, (a, b) in pairs.items()}
    p99 = {name: 100 * (1 - a.peak.p99_s / b.peak.p99_s) for name, (a, b) in pairs.items()}
    refused = {name for name, pair in pairs.items() if not all(p.stands for p in pair)}

    def said(key: str, what: str, paper: float, ours: float, unit: str, of: tuple[str, ...]) -> Finding:
        return Finding(key=key, what=what, experiment="fig5", paper=paper, ours=ours, unit=unit,
                       neutral=1.0 if unit == "x" else 0.0, refused=bool(refused & set(of)))

    everything = tuple(pairs)
    yield msgspec.structs.replace(said("ee-cluster", "", 3.0, max(energy.values()), "x", everything),
                                  typical=fmean(energy.values()))
    for name, members in CLASSES.items():
        gain, average, tail = PAPER_CLASSES[name]
        yield said(f"ee-{name}", "", gain, fmean(energy[a] for a in members), "x", members)
        yield said("mean-saved", name.upper(), average, fmean(mean[a] for a in members), "%", members)
        yield said("p99-saved", name.upper(), tail, fmean(p99[a] for a in members), "%", members)
    yield said("nfv-fin-ee", "", 3.0, energy["nfv-fin"], "x", ("nfv-fin",))
    yield said("rta-ptc-ee", "", 12.0, 100 * (energy["rta-ptc"] - 1), "%", ("rta-ptc",))
    most, least = max(energy, key=energy.__getitem__), min(energy, key=energy.__getitem__)
    yield Finding(key="nfv-fin-ee", what="gains the most", experiment="fig5", holds=most == "nfv-fin",
                  refused=bool(refused), said=f"{most} {energy[most]:.2f}x, nfv-fin {energy['nfv-fin']:.2f}x")
    yield Finding(key="rta-ptc-ee", what="benefits the least", experiment="fig5", refused=bool(refused),
                  holds=energy["rta-ptc"] <= energy[least] + NOISE,
                  said=f"{least} {energy[least]:.2f}x, rta-ptc {energy['rta-ptc']:.2f}x")
    yield said("rta-ptc-latency", "average", 4.0, -mean["rta-ptc"], "%", ("rta-ptc",))
    yield said("rta-ptc-latency", "tail", 4.0, -p99["rta-ptc"], "%", ("rta-ptc",))
    cost = max(0.0, *(-saved for saved in mean.values()))
    yield Finding(key="latency-cluster", experiment="fig5", holds=cost <= 4.0 * (1 + CLOSE), refused=bool(refused),
                  said=f"{cost:.3g} % at most ({min(mean, key=mean.__getitem__)})")  # a bound: less agrees with it


def fig9(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what sharing SmartNICs' ports gains over a NIC that is the host's alone."""
    found = peaks_of(manifest)
    names = list(dict.fromkeys(name for name, _ in found))
    pairs = {name: (found[name, SHARED], found[name, DEDICATED]) for name in names}
    rps = {name: a.peak.rps / b.peak.rps for name, (a, b) in pairs.items()}
    rpj = {name: a.peak.rpj / b.peak.rpj for name, (a, b) in pairs.items()}
    mean = {name: a.peak.mean_s / b.peak.mean_s - 1 for name, (a, b) in pairs.items()}
    refused = not all(p.stands for pair in pairs.values() for p in pair)
    for key, paper, ours in (("shared-throughput", 2.9, rps), ("shared-ee", 2.7, rpj)):
        yield Finding(key=key, what="the most", experiment="fig9", paper=paper, ours=max(ours.values()), unit="x",
                      neutral=1.0, typical=fmean(ours.values()), refused=refused)
        yield Finding(key=key, what="NFV-FIN", experiment="fig9", paper=paper, ours=ours["nfv-fin"], unit="x",
                      neutral=1.0, refused=refused)
    yield Finding(key="shared-bandwidth", experiment="fig9", paper=4.0, unit="x", neutral=1.0, kind="set-up",
                  ours=PORT_GBPS["shared"] / PORT_GBPS["dedicated"])
    yield Finding(key="shared-least", what="IOT-TS gains least", experiment="fig9", refused=refused,
                  holds=rps["iot-ts"] <= min(rps.values()) + NOISE,
                  said=f"iot-ts {rps['iot-ts']:.2f}x, the least {min(rps, key=rps.__getitem__)} "
                       f"{min(rps.values()):.2f}x")
    yield Finding(key="shared-least", what="latency the same", experiment="fig9", refused=refused,
                  holds=all(abs(change) <= 0.1 for change in mean.values()),
                  said=f"mean latency from {min(mean.values()):+.0%} to {max(mean.values()):+.0%}")


def fig10(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the most that SmartNICs gain on the best other cluster in requests per dollar, within five years."""
    found = peaks_of(manifest)
    gains = {}
    for name in dict.fromkeys(name for name, _ in found):
        own = {cluster: peak for (application, cluster), peak in found.items() if application == name}
        for years in YEARS:
            worth = {cluster: Ownership(p.cost_usd, p.peak_watts).requests_per_usd(p.peak.rps, years)
                     for cluster, p in own.items()}
            gains[name, years] = worth[SHARED] / max(value for c, value in worth.items() if c != SHARED)
    yield Finding(key="cost-cluster", experiment="fig10", paper=1.9, ours=max(gains.values()), unit="x", neutral=1.0,
                  typical=fmean(gains.values()),
                  refused=not all(p.stands for p in found.values()))


def table5(manifest: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the best gain in requests per Joule over another cluster means for a fixed budget of power."""
    found = peaks_of(manifest)
    gains = [peak.peak.rpj / max(p.peak.rpj for (a, cluster), p in found.items() if a == name and cluster != SHARED)
             for (name, at), peak in found.items() if at == SHARED]
    refused = not all(p.stands for p in found.values())
    yield Finding(key="budget-throughput", experiment="table5", paper=1.9, ours=max(gains), unit="x", neutral=1.0,
                  typical=fmean(gains), refused=refused)
    yield Finding(key="budget-power", experiment="table5", paper=48.0, ours=100 * (1 - 1 / max(gains)), unit="%",
                  neutral=0.0, typical=100 * (1 - 1 / fmean(gains)), refused=refused)
