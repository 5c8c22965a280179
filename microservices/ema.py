"""EMA: the exponential moving average of each key's values (paper Table 2).

The first value starts the average; from then on average = alpha * value + (1 - alpha) * average.
"""

from __future__ import annotations

from microservices.errors import ServiceError
from microservices.records import Record, RecordService, value_of
from microservices.reliable import Hashtable
from microservices.service import Accelerator
from microservices.state import State

DEFAULT_ALPHA = 0.2  # ours


class Ema(RecordService):
    """Adds the average, a float. `alpha` is above 0 and at most 1."""

    name = "ema"
    memory_mb = 16
    stateful = True
    accelerators = frozenset({Accelerator.FETCH_AND_ADD, Accelerator.FPU})

    def __init__(self, alpha: float = DEFAULT_ALPHA) -> None:
        if not 0.0 < alpha <= 1.0:
            raise ServiceError(f"alpha {alpha}; it is above 0 and at most 1")
        self.alpha = alpha

    def new_state(self) -> State:
        return State(hashtables={"average": Hashtable(str, float)})

    def answer(self, record: Record, state: State, now_s: float) -> float:
        averages = state.hashtables["average"]
        value = value_of(record)
        old: float | None = averages.get(record.key)
        average = value if old is None else self.alpha * value + (1.0 - self.alpha) * old
        averages[record.key] = average
        return average
