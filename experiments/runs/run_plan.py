"""In which order all experiments run, about how long each takes, and which may run beside others. Pure.

Minutes are of 2 cores, quick and in full, as far as a run of it is known; they only feed the forecast of what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

USUAL_MINUTES = (3.0, 20.0)


@dataclass(frozen=True, slots=True)
class Planned:
    """`needs_root`: it builds networks. `beside_others`: it plays in virtual time whatever the options.

    `virtual_if_quick`: in a quick run of all, it is played in virtual time, for its packets would take too long there.
    `after`: an experiment whose result it takes, and which is therefore to be done before.
    """

    quick_minutes: float = USUAL_MINUTES[0]
    full_minutes: float = USUAL_MINUTES[1]
    needs_root: bool = True
    beside_others: bool = False
    virtual_if_quick: bool = False
    after: str = ""


# First what shows within a minute that the machine works, then what calibrates, then what is predicted from it.
PLAN: Mapping[str, Planned] = {
    "ecmp": Planned(0.5, 0.5),
    "racks": Planned(0.5, 0.5),
    "tcp": Planned(0.2, 0.2),
    "two-worlds": Planned(0.3, 0.3),
    "controller-restart": Planned(0.3, 0.3),
    "live-placement": Planned(0.4, 0.4),
    "rack-applications": Planned(0.5, 1.2),
    "migration": Planned(0.7, 2.0),
    "ecmp-availability": Planned(0.4, 3.0),
    "scenario": Planned(0.6, 1.2),
    "failover": Planned(3.4, 36.0),
    "controller-failover": Planned(0.4, 2.2),
    "fig3": Planned(0.5, 2.5),
    "scale-invariance": Planned(0.7, 2.0),
    "queue": Planned(2.0, 9.0),
    "table1": Planned(8.0, 30.0),
    "fig2": Planned(6.0, 40.0),
    "fig8": Planned(4.5, 40.0),
    # What plays in virtual time stands together, so that there is always another to run beside it.
    "channel-torture": Planned(0.1, 0.2, needs_root=False, beside_others=True),
    "table5": Planned(5.5, 60.0, virtual_if_quick=True),
    "fig5": Planned(6.0, 60.0, virtual_if_quick=True),
    "fig6": Planned(6.0, 60.0, virtual_if_quick=True),
    "fig7": Planned(7.0, 60.0, virtual_if_quick=True),
    "fig9": Planned(6.0, 60.0, virtual_if_quick=True),
    "fig10": Planned(0.2, 0.2, virtual_if_quick=True, after="table5"),
    "table6": Planned(0.6, 4.5, needs_root=False),
    "fig11": Planned(0.7, 2.5, needs_root=False),
}


def planned(name: str) -> Planned:
    """Return what is known of an experiment; the usual for one that has no entry."""
    return PLAN.get(name, Planned())


def in_order(names: list[str]) -> list[str]:
    """Return `names` in the order in which they run; those without an entry last, as they come."""
    order = list(PLAN)
    return sorted(names, key=lambda name: order.index(name) if name in PLAN else len(order))
