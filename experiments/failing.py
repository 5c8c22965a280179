"""What is broken in the failover experiment, by name: where an instance is served, or around it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from experiments.testbed import Testbed

Mend = Callable[[], None]


def _crash(bed: Testbed, node: str) -> Mend:
    bed.crash_agent(node)
    return _nothing


def _hang(bed: Testbed, node: str) -> Mend:
    bed.hang_agent(node)

    def mend() -> None:
        with contextlib.suppress(ProcessLookupError):  # somebody has fenced it
            bed.resume_agent(node)
    return mend


def _smartnic(bed: Testbed, node: str) -> Mend:
    name = smartnic_near(bed, node)
    bed.fail_node(name)
    return lambda: bed.heal_node(name)


def _server(bed: Testbed, node: str) -> Mend:
    host = bed.inventory.host_of(bed.inventory.node(node)).name
    gone = bed.fail_server(host)

    def mend() -> None:
        for name in gone[1:]:
            bed.heal_node(name)
    return mend


def _link(bed: Testbed, node: str) -> Mend:
    name = smartnic_near(bed, node)
    bed.fail_link(name)
    return lambda: bed.heal_link(name)


def _tor(bed: Testbed, node: str) -> Mend:
    bed.kill_tor_app()
    return bed.start_tor_app


def _controller(bed: Testbed, node: str) -> Mend:
    bed.kill_controller()
    return bed.start_controller


def _nothing() -> None: ...


FAILURES: dict[str, Callable[[Testbed, str], Mend]] = {
    "agent crash": _crash, "agent hang": _hang, "SmartNIC power": _smartnic, "server power": _server, "link": _link,
    "ToR controller": _tor, "resource controller": _controller}


def smartnic_near(bed: Testbed, node: str) -> str:
    """Return `node` if it is a SmartNIC, else the first of its server's."""
    entry = bed.inventory.node(node)
    return node if entry.role == "smartnic" else bed.inventory.smartnics_of(bed.inventory.host_of(entry))[0].name


def mend_all(bed: Testbed) -> None:
    """Start every agent that has ended, with nothing in it."""
    for name, child in bed.agents.items():
        if bed.nursery.status(child) is not None:
            bed.start_agent(name, again=True)
