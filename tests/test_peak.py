"""How long a load is waited for before its peak is believed."""

from __future__ import annotations

import pytest

from experiments.measurement.measuring import Plan
from experiments.measurement.peak import MOST_WARM, settled


@pytest.mark.parametrize(("outstanding", "warm", "window"), [
    (8, 500, 1600),             # a short queue is full long before
    (64, 1024, 1600),           # 16 times as many as wait
    (512, MOST_WARM, 2048),
    (4096, 16_384, 16_384)])    # and never less than is measured
def test_so_many_requests_are_waited_for_as_fill_the_queue_of_the_fullest_part(outstanding: int, warm: int,
                                                                              window: int) -> None:
    assert settled(Plan(1600, 500, 30.0), outstanding) == Plan(window, warm, 30.0)
