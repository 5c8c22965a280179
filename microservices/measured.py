"""The nouns of a profile: the columns of Table 1, a measured cell of it, and the costs of a user's own microservice."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import isfinite

from microservices.errors import ServiceError


class Column(Enum):
    """Where Table 1 measures: a host with either of two network stacks, or a SmartNIC."""

    LINUX = "linux"
    BYPASS = "bypass"
    SMARTNIC = "smartnic"


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of one column of Table 1, at peak throughput with requests of 512 bytes.

    `active_watts` is wall power at the peak minus idle wall power, `cores` how many were active (always all 12 of a
    SmartNIC), `mean_s` and `p99_s` the latency that clients saw in a closed loop.
    """

    rps: float
    active_watts: float
    cores: int
    mean_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a user's own microservice costs in one column.

    `cost_s` is seconds per request of 512 bytes on one core of Table 1's processor; 0 is allowed. `fixed_share`, 0 to
    1, is the share of it that does not depend on the request's size; None takes the column's assumption. `watts` is, on
    a host, the active power of one core that is busy with it, on a SmartNIC that of the whole card with all cores busy;
    None takes the mean of Table 1's rows that keep all 12 cores busy.
    """

    cost_s: float
    fixed_share: float | None = None
    watts: float | None = None

    def __post_init__(self) -> None:
        if not (isfinite(self.cost_s) and self.cost_s >= 0):
            raise ServiceError(f"cost_s is {self.cost_s}; the least is 0 seconds")
        if self.fixed_share is not None and not 0 <= self.fixed_share <= 1:
            raise ServiceError(f"fixed_share is {self.fixed_share}; it is 0 to 1")
        if self.watts is not None and not (isfinite(self.watts) and self.watts >= 0):
            raise ServiceError(f"watts is {self.watts}; the least is 0")


@dataclass(frozen=True, slots=True)
class Profile:
    """Speed and power of a microservice that Table 1 does not have: `profile = Profile(...)` in its class.

    `like` is a built-in microservice whose numbers are taken where none are given here. `hol_weight` is what
    each core that is busy with it on a SmartNIC adds to the agent's time per frame, in multiples of that time (0:
    nothing, which is the default where there is no `like`).
    """

    like: str | None = None
    linux: Cost | None = None
    bypass: Cost | None = None
    smartnic: Cost | None = None
    hol_weight: float | None = None

    def __post_init__(self) -> None:
        if self.like is None and self.linux is self.bypass is self.smartnic is None:
            raise ServiceError("a profile says what it is like, or has a cost in at least one column")
        if self.hol_weight is not None and not (isfinite(self.hol_weight) and self.hol_weight >= 0):
            raise ServiceError(f"hol_weight is {self.hol_weight}; the least is 0")

    @classmethod
    def everywhere(cls, cost_s: float, fixed_share: float | None = None) -> Profile:
        """Return the profile of what costs the same in every column."""
        cost = Cost(cost_s, fixed_share)
        return cls(linux=cost, bypass=cost, smartnic=cost)

    def own(self, column: Column) -> Cost | None:
        """Return its own cost in a column, None where there is none."""
        return {Column.LINUX: self.linux, Column.BYPASS: self.bypass, Column.SMARTNIC: self.smartnic}[column]
