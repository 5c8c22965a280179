"""How fast a compute node is, in emulated time: what its agent, or the simulated driver, is told.

Node speed is `calibrated`: a request's cost is that of Table 1's column for the node's processor family, scaled to its
cores' speed (microservices.profiles); handlers really run, and finish when the cost has passed.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from microservices.assumptions import MEASURED_BYTES, Assumptions
from microservices.measured import Column
from microservices.profiles import cost_law, hol_weight, stack_s
from microservices.service import Microservice, service_class
from nodes.communication import Communication, HostStack, pcie_neighbours, ways_to
from nodes.emulated_clock import EmulatedClock
from nodes.origin import Origin
from topologies.catalog import SUPERBEEFY, TABLE_1_HOSTS, TYPE2, TYPE2_DEDICATED, TYPE2_DEDICATED_BOTH, WIMPY
from topologies.inventory import Inventory, NodeEntry

# Hosts that Table 1 was not measured on, by model: which assumption says what their cores do per clock.
_UNMEASURED = {SUPERBEEFY.model: "work_per_clock_8160", WIMPY.model: "work_per_clock_6880",
               **dict.fromkeys((TYPE2.model, TYPE2_DEDICATED.model, TYPE2_DEDICATED_BOTH.model), "work_per_clock_2620")}


class ServiceCost(msgspec.Struct, frozen=True):
    """Core-seconds of one request of a microservice: fixed, and for each byte of payload.

    `by_origin` has a pair for each Origin: what receiving a request costs depends on it. `hol` is how much a core that
    executes it stretches the traffic manager's time on a frame (section 2.4).
    """

    by_origin: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    hol: float = 0.0


class Pace(msgspec.Struct, frozen=True):
    """All that paces one node. `ways` are one-way times to it in seconds, `pcie` its neighbours there, by packed IP.

    Taking what a primary did into a backup's copy costs `copy_share` of a request of as many bytes.
    """

    clock: EmulatedClock
    costs: dict[str, ServiceCost]
    ways: dict[bytes, float]
    pcie: tuple[bytes, ...]
    client_way_s: float
    in_node_s: float
    forward_s: float
    sleep_after_s: float
    copy_share: float = 0.0

    def cost_s(self, service: str, payload_bytes: int, origin: Origin) -> float:
        """Return the core-seconds of one request: nodes.execution.CostModel."""
        fixed_s, byte_s = self.costs[service].by_origin[origin]
        return fixed_s + byte_s * payload_bytes

    def hol_of(self, service: str) -> float:
        return self.costs[service].hol


def columns_of(entry: NodeEntry, stack: HostStack) -> tuple[Column, Column]:
    """Return the columns of Table 1 that requests cost on `entry`: those from the network, and those from nearby.

    Section 3.1: hosts use the Linux stack among servers. What comes over PCIe or from a neighbour on the node passes
    no kernel, so it costs what kernel bypass does (ours), and what a neighbour hands over passes no stack at all.
    """
    if entry.family == "cnmips":
        return Column.SMARTNIC, Column.SMARTNIC
    return (Column.LINUX if stack is HostStack.LINUX else Column.BYPASS), Column.BYPASS


def pace_of(entry: NodeEntry, services: Iterable[str], inventory: Inventory, clock: EmulatedClock,
            assumptions: Assumptions, stack: HostStack = HostStack.LINUX) -> Pace:
    """Return the pace of `entry` for what it may run; raises ServiceError for a microservice without a profile."""
    communication = Communication(assumptions, stack)
    speed = speed_of(entry, assumptions)
    network, nearby = columns_of(entry, stack)
    costs = {}
    for service in sorted({service_class(name) for name in services}, key=lambda made: made.name):
        costs[service.name] = ServiceCost((_law(service, network, speed, assumptions),
                                           _law(service, nearby, speed, assumptions),
                                           _without_stack(service, nearby, speed, assumptions)),
                                          hol_weight(service, assumptions))
    return Pace(clock, costs, ways_to(entry, inventory, communication),
                tuple(sorted(pcie_neighbours(entry, inventory))),
                communication.bypass_end_s + communication.tor_s + communication.end_s(entry.role),
                communication.in_node_s, assumptions.forward_s, assumptions.core_sleep_after_s, assumptions.copy_share)


def speed_of(entry: NodeEntry, assumptions: Assumptions) -> float:
    """Return how fast a core of `entry` is against Table 1's of its family: by clock, and the assumptions for it.

    The hosts of Table 1 are what it is calibrated with, so there is nothing to assume of them.
    """
    named = _UNMEASURED.get(entry.model)
    speed = entry.speed * (getattr(assumptions, named) if named else 1.0)
    if entry.role == "host" and entry.family == "xeon" and entry.model not in TABLE_1_HOSTS:
        speed *= assumptions.hyper_threading_gain
    return speed


def _law(service: type[Microservice], column: Column, speed: float, assumptions: Assumptions) -> tuple[float, float]:
    """Return (fixed seconds, seconds per byte) on one core of `speed`."""
    law = cost_law(service, column, assumptions)
    return law.fixed_s / speed, law.per_byte_s / speed


def _without_stack(service: type[Microservice], column: Column, speed: float,
                   assumptions: Assumptions) -> tuple[float, float]:
    """Return what a request costs that a neighbour on the node hands over: no packet comes in, and none went out.

    What the stack takes is split between fixed and per byte as the request's own cost is.
    """
    law = cost_law(service, column, assumptions)
    at_512_s = law.cost_s(MEASURED_BYTES)
    left = max(0.0, 1 - stack_s(column, assumptions) / at_512_s) if at_512_s > 0 else 0.0
    return left * law.fixed_s / speed, left * law.per_byte_s / speed
