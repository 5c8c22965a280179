"""Figure 3 as data: the mechanisms of section 2.4, what was measured of each, and what the paper says of it.

    round trip A-B = latency of the chain (A, B, A) - latency of a lone A

Stages cost nothing and A answers the client in both, so that what differs is two ways between A and B. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import msgspec

from experiments.views.charts import Fig3Bar, Fig3Data
from microservices.assumptions import Assumptions
from nodes.communication import Communication, HostStack
from topologies.inventory import Inventory

WITHIN = 0.03  # points of a ratio


class Mechanism(NamedTuple):
    """Two nodes, and the hosts' stack, between which messages go by it; `cut` is section 2.4's ratio."""

    name: str
    label: str
    here: str
    there: str
    stack: HostStack
    cut: float | None = None


REFERENCE = Mechanism("host-host bypass", "host-host\nbypass", "s1h", "s2h", HostStack.BYPASS, 0.0)
MECHANISMS = {m.name: m for m in (
    Mechanism("host-host Linux", "host-host\nLinux", "s1h", "s2h", HostStack.LINUX),
    REFERENCE,
    Mechanism("SmartNIC-host", "SmartNIC-\nhost", "s1n1", "s1h", HostStack.BYPASS, 0.833),
    Mechanism("SmartNIC-SmartNIC", "SmartNIC-\nSmartNIC", "s1n1", "s2n1", HostStack.BYPASS, 0.862),
    Mechanism("in a node", "in a\nnode", "s1n1", "s1n1", HostStack.BYPASS))}


class RoundTrip(msgspec.Struct, frozen=True):
    """One measurement: mean latencies of the lone stage and of the chain, and what the model of the ways says.

    `refused` are the reasons of a fidelity verdict that does not hold.
    """

    mechanism: str
    time_scale: float
    requests: int
    lone_s: float
    chain_s: float
    modelled_s: float
    refused: tuple[str, ...] = ()
    bad: dict[str, int] = {}

    @property
    def rtt_s(self) -> float:
        return self.chain_s - self.lone_s


def modelled_rtt_s(mechanism: Mechanism, inventory: Inventory, assumptions: Assumptions) -> float:
    """Return the round trip that was put in."""
    way = Communication(assumptions, mechanism.stack)
    here, there = inventory.node(mechanism.here), inventory.node(mechanism.there)
    return way.one_way_s(here, there) + way.one_way_s(there, here)


def mean_rtts(trips: Sequence[RoundTrip]) -> dict[str, float]:
    """Return the mean round trip in seconds by mechanism."""
    return {name: fmean(t.rtt_s for t in trips if t.mechanism == name) for name in dict.fromkeys(
        t.mechanism for t in trips)}


def judged(trips: Sequence[RoundTrip]) -> tuple[list[tuple[str, str, str]], bool]:
    """Return the rows of the result, and whether every ratio of section 2.4 is met and nothing was refused or bad."""
    means = mean_rtts(trips)
    base_s = means[REFERENCE.name]
    rows: list[tuple[str, str, str]] = []
    good = True
    for name, rtt_s in means.items():
        own = [t for t in trips if t.mechanism == name]
        wrong = sorted({reason for t in own for reason in (*t.refused, *(f"{n} {what}" for what, n in t.bad.items()))})
        cut, wanted = 1 - rtt_s / base_s, MECHANISMS[name].cut
        fine = not wrong and (not wanted or abs(cut - wanted) <= WITHIN)
        good = good and fine
        lower = "" if name == REFERENCE.name else f", {abs(cut):.1%} {'lower' if cut > 0 else 'higher'}"
        rows.append((f"{name}, mean of {len(own)}" + ("" if fine else "  <- off"),
                     f"{rtt_s * 1e6:.2f} us{lower}" + "".join(f"; REFUSED: {reason}" for reason in wrong[:2]),
                     f"paper {wanted:.1%} lower, +- {WITHIN * 100:g} points" if wanted else "no figure in the text"))
    # Where nothing queues, links are long enough for a frame to leave at once, so that this should be next to nothing.
    added_s = max((t.rtt_s - t.modelled_s for t in trips), key=abs)
    rows.append(("what packets, switch and agents add to what was put in, at most", f"{added_s * 1e6:+.3f} us", "0"))
    return rows, good


def figure_data(trips: Sequence[RoundTrip]) -> Fig3Data:
    """Return what Figure 3 is drawn from; a mechanism with a refused measurement is refused."""
    refused = {t.mechanism for t in trips if t.refused}
    return Fig3Data(tuple(Fig3Bar(MECHANISMS[name].label, rtt_s, MECHANISMS[name].cut, name in refused)
                          for name, rtt_s in mean_rtts(trips).items()), REFERENCE.label)
