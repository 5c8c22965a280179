"""Tells from heartbeats which SmartNICs are overloaded: the two detectors of section 3.4, for all nodes at once.

    host starvation         network under-utilised, and yet a standing queue at the traffic manager: one that in a
                            whole interval never empties below a threshold (as CoDel, RFC 8289, tells good queue from
                            bad: by its minimum)
    microservice overload   an instance's execution time above its exponential moving average: average minus present
                            is negative, and more than 20 % of the average

The paper gives the 20 % and no other number; the rest of `OverloadOptions` is ours. Nothing here reads a clock: time
is the slot number of the heartbeats, in steps of 50 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from controller.errors import HeartbeatError
from controller.heartbeats import Array, Bools, Index, Ints
from nodes.control_messages import HEARTBEAT_S, MAX_SHARE

Badness = npt.NDArray[np.uint8]
NONE, MARGINAL, GROSS = 0, 1, 2  # how bad it is
NEVER = -1


@dataclass(frozen=True, slots=True)
class OverloadOptions:
    """When to raise an alarm, and how long to leave a node in peace after one.

    A queue counts as standing from `queue_frames` on and until it falls below half of that; the network as
    under-utilised below `network_share` of its rate, and until it is 5 % of the rate above that. Both must hold
    through `interval_s` without a break. An instance is over when `reports` of its reports in a row exceed the
    average by `excess`; the row is broken by one that exceeds it by less than half of that. After a migration a node
    has `hold_down_s` of peace, but only `gross_hold_down_s` where the queue or the excess is `gross` times what an
    alarm needs: a load that sits at the threshold moves one microservice, and one that is far beyond it as many as it
    takes.
    """

    queue_frames: int = 64
    network_share: float = 0.8
    interval_s: float = 0.2
    excess: float = 0.2  # section 3.4
    average_weight: float = 1 / 16
    warm_up_reports: int = 8
    reports: int = 3
    gross: float = 4.0
    hold_down_s: float = 60.0
    gross_hold_down_s: float = 1.0
    silence_s: float = 1.0  # after which what was seen before counts no more
    movable: tuple[str, ...] = ()  # microservices that may be moved for it, by name; none named: all

    def __post_init__(self) -> None:
        for name in ("interval_s", "excess", "gross", "silence_s"):
            if getattr(self, name) <= 0:
                raise HeartbeatError(f"{name} is {getattr(self, name)}; it must be above 0")
        if not 1 <= self.reports <= _MOST_REPORTS or not 1 <= self.warm_up_reports <= _MOST_REPORTS:
            raise HeartbeatError(f"{self.reports} reports in a row after {self.warm_up_reports} to warm up; the limits "
                                 f"are 1 and {_MOST_REPORTS}")
        if not 0 < self.average_weight <= 1 or self.queue_frames < 2 or not 0 < self.network_share <= 1:
            raise HeartbeatError(f"average_weight {self.average_weight}, queue_frames {self.queue_frames}, "
                                 f"network_share {self.network_share}; the limits are (0, 1], 2 or more, and (0, 1]")

    def slots(self, seconds: float) -> int:
        return round(seconds / HEARTBEAT_S)


# Rows of records and not columns: what a heartbeat needs of a node or instance is then one cache line, and a million
# instances cost a heartbeat hardly more than one.
_STARVATION = np.dtype([("since", np.int32), ("least", np.int32)])
_EXECUTION = np.dtype([("average", np.float32), ("reports", np.uint8), ("row", np.uint8), ("rest", np.uint16)])
_MOST_REPORTS = 255  # counting stops there


class StarvationDetector:
    """Host starvation: two numbers per node, the slot since which it starves, and the least queue since then."""

    def __init__(self, nodes: int, options: OverloadOptions) -> None:
        self._options = options
        self._state = np.zeros(nodes, dtype=_STARVATION)
        self._state["since"] = NEVER
        self._limit = round(options.network_share * MAX_SHARE)
        self._wider_limit = round((options.network_share + 0.05) * MAX_SHARE)

    def update(self, node: Index, slot: Ints, before: Ints, queue: Ints, network: Array) -> Badness:
        """Take one heartbeat of each `node` (none twice); return how bad each is. `before` was its last slot."""
        options = self._options
        state = self._state[node]
        going_on = (state["since"] != NEVER) & (slot - before <= options.slots(options.silence_s))
        starves = ((queue >= np.where(going_on, options.queue_frames // 2, options.queue_frames))
                   & (network < np.where(going_on, self._wider_limit, self._limit)))
        going_on &= starves
        since = np.where(going_on, state["since"], np.where(starves, slot, NEVER))
        least = np.where(going_on, np.minimum(state["least"], queue), queue)
        state["since"], state["least"] = since, least
        self._state[node] = state
        standing = starves & (slot - since >= options.slots(options.interval_s))
        gross = standing & (least >= options.gross * options.queue_frames)
        return standing.astype(np.uint8) + gross

    def forget(self, node: int) -> None:
        """Begin anew with a node, because a microservice has left it."""
        self._state["since"][node] = NEVER


class ExecutionDetector:
    """Microservice overload: an average, a count of reports and the length of a row per instance."""

    def __init__(self, instances: int, options: OverloadOptions) -> None:
        self._options = options
        self._state = np.zeros(instances, dtype=_EXECUTION)

    def update(self, instance: Index, execution_ns: npt.NDArray[np.int64]) -> Badness:
        """Take one report of each `instance` (none twice); return how bad each is."""
        options = self._options
        state = self._state[instance]
        average = state["average"].astype(np.float64)
        difference = average - execution_ns  # as the paper puts it: overload when it is negative and large
        over = (state["reports"] >= options.warm_up_reports) & (difference < -options.excess * average)
        calm = difference > -options.excess / 2 * average
        row = np.where(over, np.minimum(state["row"], _MOST_REPORTS - 1) + 1, np.where(calm, 0, state["row"]))
        state["average"] = np.where(state["reports"] == 0, execution_ns, average - options.average_weight * difference)
        state["reports"] = np.minimum(state["reports"], _MOST_REPORTS - 1) + 1
        state["row"] = row
        self._state[instance] = state
        alarm = over & (row >= options.reports)
        gross = alarm & (difference < -options.gross * options.excess * average)
        return alarm.astype(np.uint8) + gross

    def forget(self, instance: int) -> None:
        """Begin anew with an instance, because it runs elsewhere now."""
        self._state[instance] = 0


class HoldDown:
    """Peace for a node after a migration: until when, for what is marginal and for what is gross."""

    def __init__(self, nodes: int, options: OverloadOptions) -> None:
        self._options = options
        self._until = np.full((3, nodes), NEVER, dtype=np.int64)

    def lets_through(self, node: Index, slot: Ints, badness: Badness) -> Bools:
        """Return which of the alarms may lead to a decision."""
        return slot >= self._until[badness, node]

    def decided(self, node: int, slot: int) -> None:
        options = self._options
        self._until[MARGINAL, node] = slot + options.slots(options.hold_down_s)
        self._until[GROSS, node] = slot + options.slots(options.gross_hold_down_s)


class Alarm(NamedTuple):
    """A node that needs relief. `instance` is whose execution time rose, -1 for starvation."""

    slot: int
    node: int
    instance: int
    badness: int

    @property
    def cause(self) -> str:
        return "host starvation" if self.instance < 0 else "microservice overload"
